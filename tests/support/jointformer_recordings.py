"""The arrays of the JointFormer recordings, computed by our model."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor
from vit_recordings import Frame, Run, aggregate, fill, make_clip, padding, targets

from vosformer.convert import jointformer as adapter
from vosformer.geometry import padded
from vosformer.memory import Memory
from vosformer.models.jointformer import VARIANTS
from vosformer.nn.maps import Grid, to_map
from vosformer.policy import FirstAndPrevious, Policy, Queue

Values = Callable[[str], "Tensor | NDArray[Any]"]


def jointformer(rest: str) -> list[Values]:
    """The arrays of jointformer_<rest>.npz; with a top-k filter first in float64, then in float32.

    Where the k-th and the next score are nearly equal, rounding alone decides which of two tokens is kept, and all that follows
    differs by up to 1e-3. So a recording with the filter counts as reproduced if one of the two precisions gives it.
    """
    precisions = (torch.float32,) if rest.endswith("none") else (torch.float64, torch.float32)
    return [_lazy(partial(_values, rest, precision)) for precision in precisions]


def _lazy(make: Callable[[], Values]) -> Values:
    made = cache(make)
    return lambda name: made()(name)


def _values(rest: str, dtype: torch.dtype) -> Values:
    if rest == "extra":
        return _extra(dtype)
    found = re.fullmatch(r"(firstprev|fifo(\d+)every(\d+))_(none|top(\d+))", rest)
    assert found, f"jointformer_{rest}.npz is a recording that nobody knows"
    policy: Policy = FirstAndPrevious() if found[1] == "firstprev" else Queue(int(found[3]), int(found[2]))
    model = _model(int(found[5]) if found[5] else None, dtype)
    return _whole(model, policy, 5 if found[1] == "firstprev" else 6)


def _model(topk: int | None, dtype: torch.dtype) -> Any:
    return fill(VARIANTS["jointformer-b"].build(topk=topk), adapter, keep=("convmae.pos_embed",)).to(dtype)


def _whole(model: Any, policy: Policy, frames: int) -> Values:
    seen: dict[str, Tensor] = {}

    def watch(t: int, frame: Frame) -> None:
        if t == 2:
            past = [memories[-1].references(layer) for layer in range(11)]
            x, _ = model.match(frame.features, past, model.config.topk)
            seen["f16_t2_obj1"] = to_map(model.norm(x), Grid(6, 8))[0, :8]
            maps = model.stem(frame.features.image, "patch_embed1_query")
            seen["f8_t2_obj1"], seen["f4_t2_obj1"] = maps.f8[0, :4], maps.f4[0, :2]

    memories: list[Memory] = []
    read = model.read

    def remembering_read(features: Any, memory: Memory) -> Any:
        memories.append(memory)
        return read(features, memory)

    model.read = remembering_read
    run = Run(model, policy, (96, 128), frames, (1, 2, 3), watch=watch)
    seen["logits4"] = run.logits4
    seen["label"], seen["label_margin"] = run.labels
    seen |= {f"prob_t{t}": run.chances(t) for t in range(1, frames)}
    seen["cls_t0_after_ref"] = run.token(0)
    seen["cls_after_decoder"] = torch.stack([run.frames[t].reading.carry[:, 0] for t in range(1, frames)])
    seen["cls_after_ref"] = torch.stack([run.token(t) for t in range(1, frames)])
    return seen.__getitem__


def _extra(dtype: torch.dtype) -> Values:
    model = _model(16, dtype)
    firstprev = FirstAndPrevious()

    @cache
    def run(kind: str) -> Any:
        if kind == "one":
            return Run(model, firstprev, (90, 124), 3, (1,))
        if kind == "free":
            return Run(model, firstprev, (90, 124), 3, (1, 2, 3), forced=False)
        return Run(model, Queue(1, 2), (96, 128), 5, (1, 2, 3))

    @cache
    def later() -> dict[str, Tensor]:
        return _newcomer(model)

    def value(name: str) -> Tensor | NDArray[Any]:
        kind, _, rest = name.partition("_")
        if rest == "pad" or name == "pad":
            return padding((90, 124))
        if kind == "new":
            return later()[rest]
        if kind not in ("one", "free", "drop"):
            raise KeyError(name)
        if rest == "logits4":
            return run(kind).logits4
        if rest == "cls":
            return torch.stack([run(kind).token(t) for t in range(len(run(kind).frames))])
        if rest in ("label", "label_margin"):
            return run(kind).labels[rest == "label_margin"]
        if match := re.fullmatch(r"prob_t(\d+)", rest):
            return run(kind).chances(int(match[1]))
        raise KeyError(name)

    return value


def _newcomer(model: Any) -> dict[str, Tensor]:
    """Frame 0 gives objects 1 and 2, frame 2 gives object 3."""
    images, labels = make_clip(96, 128, 4)
    place = padded("bilinear").place(96, 128, None)
    old, new = Memory(FirstAndPrevious()), Memory(FirstAndPrevious())
    seen: dict[str, Tensor] = {}
    for t in range(4):
        features = model.encode(model.geometry.image(images[t], place).to(model.norm.weight.dtype))
        masks = torch.stack([torch.from_numpy(labels[t] == i) for i in (1, 2, 3)]).to(model.norm.weight.dtype)
        everybody = targets(masks, t in (0, 2))
        if t < 2:
            everybody = targets(everybody.own[:2, 0], t == 0)
        readings = [model.read(features, memory) if memory.frames else None for memory in (old, new)]
        logits = torch.cat([reading.logits for reading in readings if reading is not None]) if t else torch.zeros(0)
        if t:
            seen[f"logits4_t{t}"] = logits[:, 1]
            chances = aggregate(logits, model.merging)
            seen[f"prob_t{t}"], seen[f"label_t{t}"] = chances, chances.argmax(0)
            best = chances.topk(2, 0).values
            seen[f"label_t{t}_margin"] = best[0] - best[1]
        for memory, reading, slots in ((old, readings[0], slice(0, 2)), (new, readings[1], slice(2, 3))):
            own = everybody.own[slots]
            if len(own):
                part = everybody._replace(own=own, others=everybody.others[slots])
                memory.add(model.write(features, part, reading, memory), t if memory is old else t - 2, everybody.given)
        tokens = [memory.token[:, 0] for memory in (old, new) if memory.token is not None]
        seen[f"cls_t{t}"] = seen["cls"] = torch.cat(tokens)
    return seen
