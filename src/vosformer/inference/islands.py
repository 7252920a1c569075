"""Islands: parts of a predicted mask that lie apart from the object.

What an object touched for a moment, a bystander or a chain that it passed, easily keeps its identity when the object moves on: the
memory holds it as a part of the object then, and more of it is taken in with every frame. Objects that were marked in one piece are
mostly seen in one piece, so parts that lie apart are left out of the mask, and so of the memory: small ones at once, larger ones
when they have lain apart for some frames, since a mask may fall into two by a mistake that the next frame mends. Objects that were
ever marked in several parts keep all of theirs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from vosformer.errors import InputError
from vosformer.inference.objects import Given
from vosformer.inference.parts import parts_of

Islands = Literal["auto", "drop", "keep"]
"""How users say it: "auto" = left out where the weights are known to gain by it."""

_LARGE = 0.5  # of the largest part: from here on, a part is no island but the other half of an object behind something
_SMALL = 0.1  # of the largest part: smaller islands are left out at once
_PATIENCE = 3  # frames running with larger ones, from the last of which on these are left out, too
_SPECK = 0.05  # of what is left of an object: nobody needs to be told of islands that are smaller together
_FAIR = 0.02  # of the largest part: a given mask that has another of this size consists of several parts; below it are slips


def drops_islands(islands: object, by_itself: bool) -> bool:
    """Read what the user asks for.

    Args:
        islands: see `Islands`.
        by_itself: what "auto" means.

    Raises:
        InputError: it is none of these.
    """
    if islands not in get_args(Islands):
        raise InputError(f"islands is {islands!r}, expected one of {', '.join(get_args(Islands))}")
    return islands == "drop" or (islands == "auto" and by_itself)


class Whole(NamedTuple):
    """What is known of an object that comes in one piece.

    Attributes:
        box: left, top, width and height of its main part where it was last seen.
        apart: frames running in which it had islands that are not left out at once.
    """

    box: tuple[int, int, int, int]
    apart: int = 0


Wholes = Mapping[int, Whole | None]
"""Object -> what is known of it; None: it was ever marked in several parts."""


class Found(NamedTuple):
    """What `islands_of` finds.

    Attributes:
        islands: the id of the object [height,width] at each pixel that is to be left out, 0 elsewhere; None if there are none.
        wholes: of the objects that were looked at, after this frame.
    """

    islands: NDArray[np.int32] | None
    wholes: dict[int, Whole]


def told(wholes: Wholes, given: Given | None) -> Wholes:
    """Return what is known after the user's masks; empty ones say nothing."""
    if given is None:
        return wholes
    labels, after = given.labels.numpy(), dict(wholes)
    for i in given.ids:
        parts = parts_of(labels == i)
        if len(parts.areas):
            several = (parts.areas >= _FAIR * parts.areas.max()).sum() > 1 or (i in wholes and wholes[i] is None)
            after[i] = None if several else Whole(_box(parts.boxes[parts.areas.argmax()]))
    return after


def islands_of(labels: NDArray[np.int32], wholes: Mapping[int, Whole]) -> Found:
    """Find what lies apart from its object and is to be left out; pixels that touch by a corner belong together.

    An object's main part is the one that lies most like the last one, or the largest where none does.

    Args:
        labels: of a frame [height,width].
        wholes: the objects to look at, as they were after the frame before.
    """
    found, after = None, {}
    for i, whole in wholes.items():
        around, places, boxes, areas = parts_of(labels == i)
        if not len(areas):
            after[i] = Whole(whole.box)
            continue
        main = _main(boxes, areas, whole.box)
        shares = areas / areas[main]
        apart = whole.apart + 1 if ((shares >= _SMALL) & (shares < _LARGE)).any() else 0
        after[i] = Whole(_box(boxes[main]), apart)
        small = shares < (_LARGE if apart >= _PATIENCE else _SMALL)
        if small.any():
            found = np.zeros_like(labels) if found is None else found
            found[around][np.concatenate([[False], small])[places]] = i
    return Found(found, after)


def left_out(labels: NDArray[np.int32], islands: NDArray[np.int32] | None, ids: Iterable[int]) -> list[int]:
    """Return those of the ids of which more than a speck was left out: so many pixels that a user should know it."""
    if islands is None:
        return []
    return [i for i in ids if np.count_nonzero(islands == i) > _SPECK * np.count_nonzero(labels == i)]


def _box(box: NDArray[np.int32]) -> tuple[int, int, int, int]:
    left, top, width, height = box.tolist()
    return left, top, width, height


def _main(boxes: NDArray[np.int32], areas: NDArray[np.int32], box: tuple[int, int, int, int]) -> int:
    """Return which part is the object: by the IoU of its box with the last one, or by its area."""
    low = np.maximum(boxes[:, :2], box[:2])
    high = np.minimum(boxes[:, :2] + boxes[:, 2:], np.add(box[:2], box[2:]))
    inner = np.maximum(high - low, 0).prod(1)
    iou = inner / (boxes[:, 2:].prod(1) + box[2] * box[3] - inner)
    return int(iou.argmax() if iou.any() else areas.argmax())
