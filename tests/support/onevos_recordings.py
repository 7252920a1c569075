"""The arrays of the OneVOS recordings, computed by our model."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from vit_recordings import fill, make_clip

from vosformer.convert import onevos as adapter
from vosformer.inference.objects import Cohort, hard_masks, merge_slots
from vosformer.memory import Memory
from vosformer.models.onevos import VARIANTS
from vosformer.nn.hybrid import marked_keys
from vosformer.nn.small_objects import dilate_small
from vosformer.policy import OneVOSQueue

FOLDER = Path(os.environ.get("VOSFORMER_FIXTURES", Path(__file__).parents[1] / "fixtures")) / "vit"
SIZE = (96, 128)
Values = Callable[[str], "Tensor | NDArray[Any]"]


def onevos(rest: str) -> Values:
    """The arrays of onevos_<rest>.npz."""
    if rest == "extra":
        return _extra()
    found = re.fullmatch(r"every(\d+)_cap(\d+)", rest)
    assert found, f"onevos_{rest}.npz is a recording that nobody knows"
    return _policy(OneVOSQueue(int(found[1]), int(found[2])))


@cache
def model() -> Any:
    return fill(VARIANTS["onevos-b"].build(), adapter)


class Run:
    """The model goes through the clip; the memory gets the true masks."""

    @torch.inference_mode()
    def __init__(self, policy: OneVOSQueue, frames: int, labels: NDArray[Any] | None = None, objects: int = 3) -> None:
        images, truth = make_clip(*SIZE, 6)
        truth = truth if labels is None else np.stack([labels] * 6)
        ids = list(range(1, objects + 1))
        self.memory = Memory(policy)
        cohort = Cohort(self.memory, 0, [ids[i : i + 10] for i in range(0, objects, 10)])
        network, place = model(), model().geometry.place(*SIZE, None)
        self.logits: list[Tensor] = []  # [S,11,h,w] of frame 1, 2, ...
        self.lengths: list[int] = []
        self.pyramids: list[tuple[Tensor, ...]] = []
        self.finals: list[Tensor] = []
        hook = network.decoder.register_forward_hook(lambda module, inputs, output: self.finals.append(inputs[0]))
        for t in range(frames):
            features = network.encode(network.geometry.image(images[t], place))
            self.pyramids.append(features.pyramid)
            reading = network.read(features, self.memory) if t else None
            if reading is not None:
                self.logits.append(reading.logits)
            targets = hard_masks(cohort, torch.from_numpy(truth[t].astype(np.int64)), 10, t == 0)
            self.memory.add(network.write(features, targets, reading, self.memory if t else None), t, t == 0)
            if t:
                self.lengths.append(self.memory.bank(0)["k"].shape[1])
        hook.remove()


def _policy(policy: OneVOSQueue) -> Values:
    run = Run(policy, 6)
    f4, f8, stem16, tokens, *_ = run.pyramids[2]
    assert tokens.shape == (1, 48, 768)
    values: dict[str, Any] = {
        "logits4": torch.cat(run.logits),
        "memlen": np.array(run.lengths),
        "f4_t2": f4[0, :2],
        "f8_t2": f8[0, :4],
        "stem16_t2": stem16[0, :8],
        "f16_t2": run.finals[1][0, :8],
    }
    for layer in (0, 10):
        # Head 0 is the first 64 channels; our bank is in the order of time, as the official one.
        bank = run.memory.bank(layer)
        values |= {f"mem_k{layer}_end": marked_keys(bank)[0, ::8, :4], f"mem_v{layer}_end": bank["v"][0, ::8, :4]}
    return values.__getitem__


def _extra() -> Values:
    with np.load(FOLDER / "onevos_extra.npz") as recorded:
        small_in, labels12 = recorded["small_in"], recorded["lab12_in"]
    grown = dilate_small(torch.from_numpy(small_in))
    planes = torch.stack([grown == i for i in range(int(small_in.max()) + 1)])
    twelve = Run(OneVOSQueue(10, 5), 2, labels12, 12).logits[0]
    resized = F.interpolate(Run(OneVOSQueue(10, 5), 3).logits[1], (90, 120), mode="bilinear", align_corners=False)
    best = resized.softmax(1)[0].topk(2, 0).values
    values: dict[str, Any] = {
        "small_in": small_in,
        "small_out": grown,
        "small_out_sum": planes.sum(0),
        "lab12_in": labels12,
        "logits12_t1": merge_slots(list(twelve.split(1)), model().merging)[0],
        "resized_logits_t2": resized[0, :4],
        "resized_label_t2": resized[0].argmax(0),
        "resized_label_t2_margin": best[0] - best[1],
    }
    return values.__getitem__
