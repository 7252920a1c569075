"""The arrays of the SimVOS recordings, computed by our model."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import Any

from numpy.typing import NDArray
from torch import Tensor
from vit_recordings import Frame, Run, fill, padding

from vosformer.convert import simvos as adapter
from vosformer.models.simvos import VARIANTS
from vosformer.nn.maps import Grid, to_map
from vosformer.policy import FirstAndPrevious

NAMES = {"B": {}, "L4": {"within": 4}, "BS": {"within": 4, "prototypes": (384, 384)}}


def simvos(rest: str) -> Callable[[str], Tensor | NDArray[Any]]:
    """The arrays of simvos_<rest>.npz."""
    if rest in NAMES:
        return _whole(rest)
    found = re.fullmatch(r"pad_(\d+)x(\d+)", rest)
    assert found, f"simvos_{rest}.npz is a recording that nobody knows"
    return _padded((int(found[1]), int(found[2])))


def _model(name: str) -> Any:
    return fill(VARIANTS["simvos-b"].build(**NAMES[name]), adapter)


def _whole(name: str) -> Callable[[str], Tensor | NDArray[Any]]:
    model = _model(name)
    seen: dict[str, Tensor] = {}
    first: dict[str, Any] = {}  # what the first object of the frame gives, whether objects are batched or not

    def note(**outputs: Tensor) -> None:
        for key, output in outputs.items():
            first.setdefault(key, output[0])

    model.norm.register_forward_hook(lambda module, inputs, output: note(f16=to_map(output, Grid(6, 8))))
    model.fpn.register_forward_hook(lambda module, inputs, output: note(f8=output[0], f4=output[1]))
    if name == "BS":

        def keep(key: str, output: Tensor) -> None:
            seen.setdefault(f"{key}_proto_t0_obj1", output[0, :4])  # frame 0 is the first to be refined

        model.refine_front.register_forward_hook(lambda module, inputs, output: keep("fg", output))
        model.refine_back.register_forward_hook(lambda module, inputs, output: keep("bg", output))

    def watch(t: int, frame: Frame) -> None:
        if t == 2:
            seen.update({f"{key}_t2_obj1": first[key][:count] for key, count in (("f16", 8), ("f8", 4), ("f4", 2))})
        first.clear()

    run = Run(model, FirstAndPrevious(), (96, 128), 5, (1, 2, 3), watch=watch)
    seen["logits4"] = run.logits4
    seen["label"], seen["label_margin"] = run.labels
    seen |= {f"prob_t{t}": run.chances(t) for t in range(1, 5)}
    return seen.__getitem__


def _padded(size: tuple[int, int]) -> Callable[[str], Tensor | NDArray[Any]]:
    @cache
    def run(name: str, ids: tuple[int, ...], forced: bool) -> Tensor:
        return Run(_model(name), FirstAndPrevious(), size, 3, ids, forced).logits4

    def value(name: str) -> Tensor | NDArray[Any]:
        if name == "pad":
            return padding(size)
        found = re.fullmatch(r"(B|L4|BS)_logits4_(1obj|3obj)(_free)?", name)
        if found is None:
            raise KeyError(name)
        return run(found[1], (1,) if found[2] == "1obj" else (1, 2, 3), not found[3])

    return value
