"""What was said about a video: the state that `VideoPredictor`'s methods share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from operator import index
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vosformer.errors import InputError
from vosformer.inference.prediction import Prediction
from vosformer.io import Source

ABSENT = -1024.0
"""The logit of an object on frames where nothing is known of it yet, as in SAM 2."""

_ZERO = -(2**31)
"""What an object of id 0 is called inside, where 0 is the background; like 0 it comes before all positive ids."""


@dataclass
class Marked:
    """What was said about one object on one frame."""

    mask: NDArray[np.bool_]
    points: list[tuple[float, float]] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    box: list[float] | None = None
    repairs: NDArray[np.bool_] | None = None


@dataclass
class PredictorState:
    """A video and all that was said about it. `state["num_frames"]` and the like read it as SAM 2's dictionary is read."""

    source: Source
    ids: list[int] = field(default_factory=list)
    marked: dict[int, dict[int, Marked]] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Any:
        values = {
            "num_frames": self.source.count,
            "video_height": self.source.height,
            "video_width": self.source.width,
            "obj_ids": list(self.ids),
        }
        if name not in values:
            raise KeyError(f"{name!r} is not kept here; there are {', '.join(values)}")
        return values[name]

    @property
    def obj_ids(self) -> list[int]:
        """The objects, in the order in which they were added."""
        return list(self.ids)

    def labels(self, number: int) -> NDArray[np.int32]:
        """Return what was given on a frame as one label map; where masks overlap, the one that was given last wins."""
        labels = np.zeros((self.source.height, self.source.width), np.int32)
        for i, said in self.marked[number].items():
            labels[said.mask] = inner_id(i)
        return labels

    @property
    def video_height(self) -> int:
        """Pixels."""
        return self.source.height

    @property
    def video_width(self) -> int:
        """Pixels."""
        return self.source.width

    def reset_inference_session(self) -> None:
        """Forget all objects; the video stays open (Transformers' name for `VideoPredictor.reset_state`)."""
        self.ids.clear()
        self.marked.clear()


def as_number(value: Any, what: str) -> int:
    """Return a frame's number or an object's id as one of Python's integers.

    Raises:
        InputError: it is no whole number, or does not fit 32 bits.
    """
    if not hasattr(value, "__index__") or isinstance(value, bool) or not _ZERO < index(value) < -_ZERO:
        raise InputError(f"{what} is {value!r}, expected a whole number that fits 32 bits")
    return index(value)


def as_floats(values: Any, last: int, what: str) -> NDArray[np.float64]:
    """Return float64 [n,last] of nested lists, an array or a tensor.

    Raises:
        InputError: they are no numbers, or not a multiple of `last`.
    """
    try:
        return np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values, float).reshape(-1, last)
    except (TypeError, ValueError):
        raise InputError(f"{what} is {values!r}, expected numbers in rows of {last}") from None


def as_point_labels(values: Any) -> list[int]:
    """Return labels of points, one-dimensional.

    Raises:
        InputError: they are no whole numbers.
    """
    numbers = as_floats(values, 1, "labels").ravel()
    if not np.array_equal(numbers, np.round(numbers)):
        raise InputError(f"labels are {numbers.tolist()}, expected 1 (the object) or 0 (not the object)")
    return [int(number) for number in numbers]


def inner_id(i: int) -> int:
    """Return what an object is called inside, where 0 is the background."""
    return i or _ZERO


def logits_of(ids: Sequence[int], prediction: Prediction | None, height: int, width: int) -> Tensor:
    """Return the logits of objects, float32 [n,1,height,width]: margins to the strongest competitor, `ABSENT` where none is known."""
    logits = torch.full((len(ids), 1, height, width), ABSENT)
    if prediction is not None:
        margins: Mapping[int, NDArray[np.float32]] = dict(zip(prediction.ids, prediction.margins(), strict=True))
        for n, i in enumerate(ids):
            if inner_id(i) in margins:
                logits[n, 0] = torch.from_numpy(margins[inner_id(i)])
    return logits


def presence_of(ids: Sequence[int], prediction: Prediction | None) -> Tensor:
    """Return how surely objects are in the frame, float32 [n] in [0,1]; 0 where none is known."""
    known = () if prediction is None else prediction.ids
    return torch.tensor([prediction.score(inner_id(i)) if prediction and inner_id(i) in known else 0.0 for i in ids])
