"""Masks without any weights: GrabCut from a box, a random walker from clicks and scribbles."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from vosformer.errors import InputError
from vosformer.prompts.maps import Box

Mask = NDArray[np.bool_]

_GRABCUT_SIDE, _WALKER_SIDE = 480, 320  # longest side in pixels at which they run; their time grows with the area
_BORDER = 0.01  # share of the sides whose pixels count as background for a random walker without negative marks


class Scaled(NamedTuple):
    """A frame and what is said about it, made smaller."""

    frame: NDArray[np.uint8]
    marks: NDArray[np.int8]
    factor: float


def grabcut(frame: NDArray[np.uint8], box: Box, marks: NDArray[np.int8], rounds: int = 5) -> Mask:
    """Segment the object in a box by color (Rother et al. 2004, as OpenCV has it).

    Args:
        frame: uint8 RGB [H,W,3].
        box: around the object; what is outside of it is background.
        marks: int8 [H,W], 1 = the object, -1 = not, 0 = nothing said; inside the box they are kept to.
        rounds: of fitting the colors and cutting.

    Returns:
        bool [H,W]. A box that leaves no background is all object.
    """
    small = _scaled(frame, marks, _GRABCUT_SIDE)
    height, width = small.marks.shape
    x0, y0, x1, y1 = (side * small.factor for side in box)
    states = np.full((height, width), cv2.GC_BGD, np.uint8)
    states[int(y0) : max(int(y0) + 1, round(y1)), int(x0) : max(int(x0) + 1, round(x1))] = cv2.GC_PR_FGD
    states[small.marks == 1] = cv2.GC_FGD
    states[small.marks == -1] = cv2.GC_BGD
    if (states == cv2.GC_BGD).any():
        colors = np.ascontiguousarray(small.frame[..., ::-1])
        cv2.setRNGSeed(0)  # its k-means would begin elsewhere in every call
        cv2.grabCut(colors, states, (0, 0, 0, 0), np.zeros((1, 65)), np.zeros((1, 65)), rounds, cv2.GC_INIT_WITH_MASK)
    found = (states == cv2.GC_FGD) | (states == cv2.GC_PR_FGD)
    return _enlarged(found.astype(np.float32), frame.shape[:2])


def random_walker(frame: NDArray[np.uint8], marks: NDArray[np.int8]) -> Mask:
    """Give every pixel to the marks that a random walker reaches first (Grady 2006, as scikit-image has it, on Lab colors).

    Args:
        frame: uint8 RGB [H,W,3].
        marks: int8 [H,W], 1 = the object, -1 = not, 0 = nothing said. Without any -1 the frame's border is background.

    Returns:
        bool [H,W].

    Raises:
        InputError: scikit-image is not installed, or no mark is 1.
    """
    try:
        from skimage.segmentation import random_walker as walk
    except ImportError:
        raise InputError(
            "clicks and scribbles without the click network need scikit-image: pip install 'vosformer[prompts]'"
        ) from None
    if not (marks == 1).any():
        raise InputError("the random walker needs a mark on the object")
    small = _scaled(frame, marks, _WALKER_SIDE)
    seeds = np.where(small.marks == -1, 2, small.marks).astype(np.int32)
    if not (seeds == 2).any():
        rows, columns = (max(1, round(side * _BORDER)) for side in seeds.shape)
        edge = np.ones(seeds.shape, bool)
        edge[rows:-rows, columns:-columns] = False
        seeds[edge & (seeds == 0)] = 2
    if not (seeds == 0).any():
        return _enlarged((seeds == 1).astype(np.float32), frame.shape[:2])
    lab = cv2.cvtColor(small.frame, cv2.COLOR_RGB2LAB).astype(np.float64) / 255
    with warnings.catch_warnings():
        # Its solver stops a little early; only which side of one half a pixel is on counts here.
        warnings.filterwarnings("ignore", "The probability range is outside")
        chance = walk(lab, seeds, beta=1000, mode="cg_j", tol=1e-3, prob_tol=0.02, channel_axis=-1, return_full_prob=True)[0]
    return _enlarged(chance.astype(np.float32), frame.shape[:2])


def _scaled(frame: NDArray[np.uint8], marks: NDArray[np.int8], longest: int) -> Scaled:
    height, width = marks.shape
    factor = min(1.0, longest / max(height, width))
    if factor == 1:
        return Scaled(frame, marks, 1.0)
    size = max(1, round(width * factor)), max(1, round(height * factor))
    small = np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), np.uint8)
    kept = np.zeros(size[::-1], np.int8)
    for sign in (1, -1):
        rows, columns = np.nonzero(marks == sign)
        kept[(rows * size[1]) // height, (columns * size[0]) // width] = sign
    return Scaled(small, kept, factor)


def _enlarged(chance: NDArray[np.float32], size: tuple[int, ...]) -> Mask:
    if chance.shape == size:
        return chance > 0.5
    return np.asarray(cv2.resize(chance, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)) > 0.5
