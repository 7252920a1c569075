"""Looking closer: windows that follow small objects, which the model sees enlarged and remembers by themselves.

What covers few tokens of the whole frame, or is hardly wider than one, is lost between them. A window is a square piece of the
frame around small objects; the model sees it some times larger and follows everything in it with a memory of its own, whose size
never changes. It speaks for its *homes*, the small objects it was opened for; all others are followed in the whole frame as ever.
This file says which windows there are and where they lie; `step` looks through them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vosformer.errors import InputError
from vosformer.geometry import Placement
from vosformer.inference.objects import Cohort, Given
from vosformer.inference.parts import parts_of

Closeness = float | Literal["auto", "off"]
"""How users say it: "auto" = where the weights are known to gain by it; a factor; or not at all."""

_DRIFT = 1 / 8  # of the side: how far the homes get from the middle before a window moves; at rest, its memory fits best
_FILLED = 0.8  # of the side: objects that are larger, or lie farther apart, do not fit into a new window
_FULL = 0.95  # of the side: what went farther apart leaves its window before the border cuts it
_NEAR = 1 / 4  # of a home's extent: so far around where it was, the window's word counts, and not the whole frame's
_NEAR_LEAST = 1 / 24  # of the side: at least so far
_SPECK = 0.1  # of an object's largest part: smaller parts move no window, since most of them are mistakes


@dataclass(frozen=True)
class Closer:
    """When and how closely small objects are looked at.

    Attributes:
        zoom: how many times larger a window on small objects is seen than the whole frame.
        below: area in pixels, as the model sees the whole frame, below which an object is small.
        reach: side of the square that the model sees of such a window, in short sides of the whole frame.
        thin: mean width (area by the longer side of the box) in the same pixels, below which a larger object is thin.
        thin_zoom: how many times larger a window on a thin object is seen.
        thin_reach: side of the largest square that it may see of it; such a window is as large as its object needs.
        windows: the most at once; the smallest objects come first.
    """

    zoom: float = 2.0
    below: int = 2000
    reach: float = 0.867
    thin: float = 24.0
    thin_zoom: float = 3.0
    thin_reach: float = 1.5
    windows: int = 3

    def side(self, placement: Placement) -> int:
        """Return the side of a window on small objects in pixels of the source."""
        return max(1, round(self.reach * min(placement.source) / self.zoom))

    def wanted(self, area: int, box: Box, placement: Placement) -> Lens | None:
        """Return the window that an object of so many pixels of the source calls for; None if it needs none, or fits into none."""
        scale = min(placement.inner) / min(placement.source)
        needed, side = math.ceil(box.extent / _FILLED), self.side(placement)
        if area * scale**2 < self.below and needed <= side:
            return Lens(side, self.zoom, int(_FILLED * side))
        if area * scale < self.thin * box.extent and needed * self.thin_zoom <= self.thin_reach * min(placement.source):
            return Lens(needed, self.thin_zoom, int(_FULL * needed))
        return None


def closer_of(closeness: object, by_itself: bool) -> Closer | None:
    """Read what the user asks for.

    Args:
        closeness: see `Closeness`.
        by_itself: what "auto" means.

    Raises:
        InputError: it is none of these, or the factor is not above 1 and up to 8.
    """
    if closeness == "off" or (closeness == "auto" and not by_itself):
        return None
    if closeness == "auto":
        return Closer()
    if isinstance(closeness, bool) or not isinstance(closeness, int | float) or not 1 < closeness <= 8:
        raise InputError(f"closer is {closeness!r}, expected 'auto', 'off' or a factor above 1 and up to 8")
    return Closer(zoom=float(closeness), thin_zoom=float(closeness))


class Lens(NamedTuple):
    """What a window is like: side in pixels of the source, how many times larger than the whole frame the model sees it, and the
    longest, in pixels, that an object in it may be: what suddenly is longer, is mistaken for something else there.
    """

    side: int
    zoom: float
    longest: int


class Box(NamedTuple):
    """The smallest rectangle around something: right and bottom are just outside."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def extent(self) -> int:
        """The longer side."""
        return max(self.bottom - self.top, self.right - self.left)

    def joined(self, other: Box) -> Box:
        """Return the smallest rectangle around both."""
        low, high = map(min, self[:2], other[:2]), map(max, self[2:], other[2:])
        return Box(*low, *high)

    def inside(self, window: CloserWindow, margin: int = 0) -> bool:
        """Tell whether a window holds it, so many pixels from its border."""
        low, high = margin, window.side - margin
        return (
            self.top - window.top >= low
            and self.left - window.left >= low
            and self.bottom - window.top <= high
            and self.right - window.left <= high
        )


@dataclass
class CloserWindow:
    """A square piece of the frame that is looked at more closely.

    Attributes:
        top: first row, in pixels of the source.
        left: first column.
        side: rows and columns.
        zoom: how many times larger than the whole frame the model sees it.
        longest: the longest, in pixels, that one of its homes may be.
        homes: the objects that it speaks for, the one that decides where it goes first.
        last: home -> where in the source the last frame showed it; None if it did not.
        frames: how many it has seen.
        cohorts: what it remembers.
    """

    top: int
    left: int
    side: int
    zoom: float
    longest: int
    homes: tuple[int, ...]
    last: Mapping[int, Box | None]
    frames: int = 0
    cohorts: list[Cohort] = field(default_factory=list)

    def size(self, placement: Placement) -> int:
        """Return the side of the square that the model sees of it, before rounding to the stride, beside a frame that lies so."""
        return max(16, round(self.zoom * self.side * min(placement.inner) / min(placement.source)))

    @property
    def place(self) -> tuple[slice, slice]:
        """Its rows and columns."""
        return slice(self.top, self.top + self.side), slice(self.left, self.left + self.side)

    def around(self, i: int) -> tuple[slice, slice]:
        """Return the rows and columns of the window where a home may be: around where it was, or anywhere if it was lost."""
        box = self.last[i]
        if box is None:
            return slice(0, self.side), slice(0, self.side)
        margin = max(round(_NEAR * box.extent), round(_NEAR_LEAST * self.side))
        rows = slice(max(box.top - self.top - margin, 0), max(box.bottom - self.top + margin, 0))
        return rows, slice(max(box.left - self.left - margin, 0), max(box.right - self.left + margin, 0))

    def clone(self) -> CloserWindow:
        """Return a copy that can go its own way."""
        return replace(self, cohorts=[cohort.clone() for cohort in self.cohorts])

    def to(self, device: torch.device) -> CloserWindow:
        """Return a copy on a device that can go its own way."""
        return replace(self, cohorts=[cohort.to(device) for cohort in self.cohorts])


def box_of(labels: NDArray[np.int32], i: int) -> Box | None:
    """Return the smallest rectangle around an object's parts, without specks; None if it has no pixels."""
    parts = parts_of(labels == i)
    if not len(parts.areas):
        return None
    lefts, tops, widths, heights = parts.boxes[parts.areas >= _SPECK * parts.areas.max()].T
    low, high = (tops.min(), lefts.min()), ((tops + heights).max(), (lefts + widths).max())
    return Box(*map(int, (*low, *high)))


def opened(closer: Closer, placement: Placement, given: Given, windows: Sequence[CloserWindow]) -> list[CloserWindow]:
    """Place new windows on small objects whose masks were given, the smallest first; near ones share a window.

    Args:
        closer: see there.
        placement: of the whole frame.
        given: the masks.
        windows: those that there are; what is at home in one of them needs no other.
    """
    labels = given.labels.numpy()
    at_home = {i for window in windows for i in window.homes}
    boxes = {i: box for i in given.ids if i not in at_home and (box := box_of(labels, i)) is not None}
    areas = {i: int((labels == i).sum()) for i in boxes}
    lenses = {i: lens for i, box in boxes.items() if (lens := closer.wanted(areas[i], box, placement)) is not None}
    waiting = sorted(lenses, key=areas.__getitem__)
    found: list[CloserWindow] = []
    while waiting and len(windows) + len(found) < closer.windows:
        homes: list[int] = []
        around, lens = boxes[waiting[0]], lenses[waiting[0]]
        for i in waiting:
            if lenses[i].zoom <= lens.zoom and (joined := around.joined(boxes[i])).extent <= _FILLED * lens.side:
                homes.append(i)
                around = joined
        top, left = _centered(around, lens.side, labels.shape)
        last = {i: boxes[i] for i in homes}
        found.append(CloserWindow(top, left, lens.side, lens.zoom, lens.longest, tuple(homes), last))
        waiting = [i for i in waiting if i not in homes]
    return found


def moved(windows: Sequence[CloserWindow], labels: Tensor, given: Given | None) -> list[CloserWindow]:
    """Return the windows as they lie on the next frame: moved after their homes, and without those that no longer fit.

    Args:
        windows: as they lay on this frame.
        labels: int32 [height,width] of this frame.
        given: the user's masks on it. Homes that lie elsewhere by these leave their window, which does not know them there.
    """
    array = labels.numpy()
    kept = []
    for window in windows:
        said = [] if given is None else [i for i in window.homes if i in given.ids]
        boxes = {i: box_of(array, i) for i in window.homes}
        lost = [i for i in said if (box := boxes[i]) is not None and not box.inside(window)]
        after = _following(window, {i: box for i, box in boxes.items() if i not in lost}, array.shape)
        if after.homes:
            kept.append(after)
    return kept


def without(windows: Sequence[CloserWindow], i: int) -> list[CloserWindow]:
    """Return the windows that are left when an object is no longer followed."""
    left = [replace(window, homes=tuple(home for home in window.homes if home != i)) for window in windows]
    return [window for window in left if window.homes]


def _following(window: CloserWindow, boxes: Mapping[int, Box | None], shape: tuple[int, ...]) -> CloserWindow:
    """Return the window where its homes are; those that outgrew it, or went another way than the first, leave it."""
    homes: list[int] = []
    around: Box | None = None
    for i, box in boxes.items():
        if box is not None:
            joined = box if around is None else around.joined(box)
            if joined.extent > (window.longest if around is None else _FULL * window.side):
                continue
            around = joined
        homes.append(i)
    after = replace(window, homes=tuple(homes), last={i: boxes[i] for i in homes})
    if around is None:
        return after
    top, left = _centered(around, window.side, shape)
    drift = max(abs(top - window.top), abs(left - window.left))
    # What reaches the border may go on behind it.
    if drift > _DRIFT * window.side or not around.inside(window, 1):
        after.top, after.left = top, left
    return after


def described(windows: Sequence[CloserWindow]) -> list[str]:
    """Say in words which objects are looked at more closely, one line a window."""
    lines = []
    for window in windows:
        which = "object {} is" if len(window.homes) == 1 else "objects {} are"
        lines.append(
            f"{which.format(', '.join(map(str, window.homes)))} small or thin: followed in a window of {window.side} x {window.side} "
            f"pixels that the model sees {window.zoom:.3g} times larger, besides the whole frame"
        )
    return lines


def _centered(box: Box, side: int, shape: tuple[int, ...]) -> tuple[int, int]:
    """Return the first row and column of a window around the middle of a box, inside the frame."""
    top = min(max((box.top + box.bottom - side) // 2, 0), max(shape[0] - side, 0))
    left = min(max((box.left + box.right - side) // 2, 0), max(shape[1] - side, 0))
    return top, left
