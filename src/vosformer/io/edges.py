"""What is done to the edges of mattes and cut-outs: finer (closed-form matting), wider or narrower, softer."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from vosformer.errors import InputError, OutputError
from vosformer.io.frames import Frame, Image
from vosformer.io.sinks import Labels, Probability, Sink, Sinks

_MOST = 1000  # pixels, of anything here
_BAND_SHARE = 100  # of the shorter side of a frame, where no width is given
_SOLVED = {"rtol": 1e-4, "maxiter": 500}


@dataclass(frozen=True)
class Edges:
    """What is done to the edges of mattes, cut-outs and Cryptomatte (not to masks of whole pixels), in this order.

    Attributes:
        refine: find soft edges (hair, motion blur) in the frame by closed-form matting in a band along the mask's edge; needs
            vosformer[editors].
        band: half the width of that band, in pixels (default: a hundredth of the frame's shorter side, 3 at least).
        grow: pixels that edges are moved outwards by; below 0: inwards.
        feather: blur of the edges, its standard deviation in pixels.

    Raises:
        InputError: `feather` is below 0, `band` below 1, or one of them above 1000.
    """

    refine: bool = False
    band: int | None = None
    grow: int = 0
    feather: float = 0.0

    def __post_init__(self) -> None:
        """Check the values."""
        if not 0 <= self.feather <= _MOST or not -_MOST <= self.grow <= _MOST:
            raise InputError(f"grow is {self.grow} and feather {self.feather}: expected -1000 to 1000, and 0 to 1000 pixels")
        if self.band is not None and not 1 <= self.band <= _MOST:
            raise InputError(f"the band is {self.band} pixels: expected 1 to 1000")

    def __bool__(self) -> bool:
        """Tell whether anything is done."""
        return bool(self.refine or self.grow or self.feather)

    def check(self) -> None:
        """Make sure that what is asked for can be done.

        Raises:
            OutputError: pymatting is not installed.
        """
        if self.refine:
            _matting()

    def __call__(self, matte: NDArray[np.float32], image: Image | None = None) -> NDArray[np.float32]:
        """Apply all to a matte float32 [H,W] in [0,1]; `image` is its frame, uint8 RGB [H,W,3], or None if that did not decode."""
        if self.refine and image is not None:
            band = self.band or max(3, round(min(matte.shape) / _BAND_SHARE))
            matte = closed_form(matte, image, band)
        if self.grow:
            side = 2 * abs(self.grow) + 1
            disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
            change = cv2.dilate if self.grow > 0 else cv2.erode  # what lies outside of the frame changes nothing
            matte = np.asarray(change(matte, disk), np.float32)
        if self.feather:
            blurred = cv2.GaussianBlur(matte, (0, 0), self.feather, borderType=cv2.BORDER_REPLICATE)
            matte = np.asarray(blurred, np.float32)
        return np.asarray(matte, np.float32)


def closed_form(matte: NDArray[np.float32], image: Image, band: int) -> NDArray[np.float32]:
    """Find how much of each pixel near the edge of a mask belongs to the object (Levin, Lischinski and Weiss 2008).

    Pixels further than `band` from the edge keep 0 or 1; those within are unknown. Each part of the frame where something is unknown
    is solved by itself.

    Args:
        matte: float32 [H,W] in [0,1]; 0.5 and more is inside.
        image: the frame, uint8 RGB [H,W,3].
        band: pixels on either side of the edge.

    Returns:
        float32 [H,W] in [0,1].

    Raises:
        OutputError: pymatting is not installed.
    """
    inside = (matte >= 0.5).astype(np.uint8)
    disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * band + 1, 2 * band + 1))
    sure, reach = cv2.erode(inside, disk), cv2.dilate(inside, disk)
    unknown = (reach != sure).astype(np.uint8)
    result = inside.astype(np.float32)
    # What is sure on either side must be in the part that is solved, too.
    margin = np.ones((5, 5), np.uint8)
    count, parts, boxes, _ = cv2.connectedComponentsWithStats(cv2.dilate(unknown, margin))
    for part in range(1, count):
        left, top, width, height = (int(value) for value in boxes[part][:4])
        here = (slice(top, top + height), slice(left, left + width))
        own = (parts[here] == part) & (unknown[here] > 0)
        trimap = np.where(own, 0.5, inside[here].astype(np.float64))
        if own.any() and (trimap == 0).any() and (trimap == 1).any():
            alpha = _matting()(image[here].astype(np.float64) / 255, trimap)
            result[here] = np.where(own, alpha, result[here]).astype(np.float32)
    return result


def _matting() -> Any:
    os.environ.setdefault("NUMBA_NUM_THREADS", "1")
    try:
        estimate = import_module("pymatting").estimate_alpha_cf
    except ImportError as error:
        raise OutputError("--refine needs the package pymatting: install vosformer[editors]") from error
    return lambda image, trimap: estimate(image, trimap, cg_kwargs=dict(_SOLVED))


class EdgedSinks(Sinks):
    """Soft sinks that get the objects with their edges changed; of each object and frame that is done once.

    Args:
        sinks: the soft ones of a run.
        edges: what is done.
    """

    name = "soft"

    def __init__(self, sinks: Sequence[Sink], edges: Edges) -> None:
        super().__init__(sinks)
        edges.check()
        self._edges = edges

    def write(self, frame: Frame, labels: Labels, scores: Mapping[int, float], probability: Probability) -> None:
        """See `Sink.write`."""
        done: dict[int, NDArray[np.float32]] = {}

        def edged(i: int) -> NDArray[np.float32]:
            if i not in done:
                done[i] = self._edges(probability(i), frame.image)
            return done[i]

        super().write(frame, labels, scores, edged)
