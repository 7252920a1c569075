"""The part of a frame that the click network looks at, and the way there and back."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from vosformer.prompts.maps import Box

_MARGIN = 1.4  # of the window around what is known of the object (RITM's zoom-in)
_LEAST = 48  # pixels; smaller windows show too little around the object
_ENLARGE = 4.0  # pixels of the source are never made larger than this


class Window(NamedTuple):
    """Rows y0..y1 and columns x0..x1 of a frame, seen at `height` x `width` pixels."""

    x0: int
    y0: int
    x1: int
    y1: int
    height: int
    width: int

    @property
    def part(self) -> tuple[slice, slice]:
        """Index of the window in an array [H,W,...]."""
        return slice(self.y0, self.y1), slice(self.x0, self.x1)

    @property
    def factors(self) -> tuple[float, float]:
        """(x, y): pixels that the network sees for one of the frame."""
        return self.width / (self.x1 - self.x0), self.height / (self.y1 - self.y0)

    def shown(self, values: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return a picture, as the network sees it."""
        return np.asarray(_resize(values[self.part], self.width, self.height))

    def shown_mask(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Probabilities, as the network sees them."""
        return np.asarray(_resize(values[self.part], self.width, self.height))

    def shown_marks(self, marks: NDArray[np.int8]) -> NDArray[np.int8]:
        """Return marks int8 [H,W]: none is lost where the network sees fewer pixels; negative ones win a shared pixel."""
        rows, columns = np.nonzero(marks[self.part])
        values = marks[self.part][rows, columns]
        x, y = self.factors
        shown = np.zeros((self.height, self.width), np.int8)
        for sign in (1, -1):
            chosen = values == sign
            shown[((rows[chosen] + 0.5) * y).astype(int), ((columns[chosen] + 0.5) * x).astype(int)] = sign
        return shown

    def shown_box(self, box: Box) -> Box:
        """Return a box, as the network sees it."""
        (fx, fy), (x0, y0, x1, y1) = self.factors, box
        return (x0 - self.x0) * fx, (y0 - self.y0) * fy, (x1 - self.x0) * fx, (y1 - self.y0) * fy

    def back(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits [h,w] of the window -> at the frame's resolution."""
        return np.asarray(cv2.resize(logits, (self.x1 - self.x0, self.y1 - self.y0), interpolation=cv2.INTER_LINEAR))


def window_around(region: Box, size: tuple[int, int], side: int, multiple: int) -> Window:
    """Return a window with some room around a region.

    Args:
        region: what must be seen.
        size: (height, width) of the frame.
        side: of the window's long side, as the network sees it.
        multiple: what the network's sides are multiples of.
    """
    height, width = size
    x0, x1 = _widen(region[0], region[2], width)
    y0, y1 = _widen(region[1], region[3], height)
    return fit(x0, y0, x1, y1, side, multiple)


def window_of(region: Box, long: float, size: tuple[int, int], side: int, multiple: int) -> Window:
    """Return the window with a long side of `long` pixels of the frame around the middle of a region, moved into the frame."""
    height, width = size
    tall, wide = (min(length, round(long * length / max(size))) for length in size)
    x0 = round((region[0] + region[2] - wide) / 2)
    y0 = round((region[1] + region[3] - tall) / 2)
    x0, y0 = min(max(x0, 0), width - wide), min(max(y0, 0), height - tall)
    return fit(x0, y0, x0 + wide, y0 + tall, side, multiple)


def whole(size: tuple[int, int], side: int, multiple: int) -> Window:
    """Return the whole frame."""
    return fit(0, 0, size[1], size[0], side, multiple)


def fit(x0: int, y0: int, x1: int, y1: int, side: int, multiple: int) -> Window:
    """Return the window of these rows and columns: its long side as seen is `side`, unless that would enlarge it too much."""
    scale = min(_ENLARGE, side / max(x1 - x0, y1 - y0))
    tall, wide = (max(1, round(length * scale / multiple)) * multiple for length in (y1 - y0, x1 - x0))
    return Window(x0, y0, x1, y1, tall, wide)


def _widen(first: float, last: float, length: int) -> tuple[int, int]:
    half = max((last - first) * _MARGIN, _LEAST) / 2
    middle = (first + last) / 2
    return max(0, int(middle - half)), min(length, int(np.ceil(middle + half)))


def _resize(values: NDArray[np.generic], width: int, height: int) -> NDArray[np.generic]:
    smaller = values.shape[0] > height and values.shape[1] > width
    return np.asarray(
        cv2.resize(np.ascontiguousarray(values), (width, height), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)
    )
