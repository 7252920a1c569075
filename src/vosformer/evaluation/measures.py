"""What is measured on each frame: region and boundary, in the forms that the benchmarks use."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from vosformer.evaluation.metrics import TOLERANCE, Values, boundary, frame_scores

Masks = NDArray[np.bool_]


@dataclass(frozen=True)
class Measure:
    """Two or more values a frame; both masks empty gives 1 in all of them.

    Attributes:
        names: of the values; the first is about regions, the second about boundaries.
        frames: (truth, result, void) -> values; masks bool [n,H,W] or no void; float64 [n] for each name.
    """

    names: tuple[str, ...]
    frames: Callable[[Masks, Masks, Masks | None], tuple[Values, ...]]


def davis(truth: Masks, result: Masks, void: Masks | None = None) -> tuple[Values, Values]:
    """Take J and F of DAVIS: see `frame_scores`."""
    return tuple(frame_scores(truth, result, void=void))  # type: ignore[return-value]


def mosev2(truth: Masks, result: Masks, void: Masks | None = None) -> tuple[Values, Values, Values]:
    """Take J, F-dot and F of MOSEv2.

    J is (I + 1) / (U + 1). With d = 0.008 of the diagonal and a = 0.1 of the square root of the true area, rounded up: F-dot has the
    tolerance a and F the tolerance d rounded up if a < d; else both have the shifted disk of d (see `shifted_disk`).
    """
    height, width = truth.shape[1:]
    diagonal = math.sqrt(height**2 + width**2)
    whole = TOLERANCE * diagonal
    inside, union = (truth & result).sum((1, 2)), (truth | result).sum((1, 2))
    rows = []
    for t in range(len(truth)):
        area = int(truth[t].sum())
        small = math.ceil(0.1 * math.sqrt(area)) if area else math.ceil(0.1 * diagonal)
        edges = boundary(truth[t]), boundary(result[t])
        if small < whole:
            rows.append((_match(*edges, disk(small)), _match(*edges, disk(math.ceil(whole)))))
        else:
            both = _match(*edges, shifted_disk(whole))
            rows.append((both, both))
    values = np.array(rows, np.float64).reshape(-1, 2)
    return (inside + 1) / (union + 1), values[:, 0], values[:, 1]


def boundary_iou(truth: Masks, result: Masks, void: Masks | None = None) -> tuple[Values, Values]:
    """Take IoU and boundary IoU of VIPOSeg: the IoU of the masks' inner rims, 0.02 of the diagonal wide (Cheng et al., CVPR 2021)."""
    height, width = truth.shape[1:]
    reach = max(1, round(0.02 * math.sqrt(height**2 + width**2)))
    edges = [np.stack([rim(mask, reach) for mask in masks]) if len(masks) else masks for masks in (truth, result)]
    return _overlap(truth, result), _overlap(edges[0], edges[1])


def disk(radius: int) -> NDArray[np.uint8]:
    """Offsets within a Euclidean distance: uint8 [2r+1,2r+1]."""
    steps = np.arange(-radius, radius + 1)
    return (steps[:, None] ** 2 + steps[None] ** 2 <= radius**2).astype(np.uint8)


def shifted_disk(radius: float) -> NDArray[np.uint8]:
    """Offsets that MOSEv2's code takes for a disk of a radius that is no whole number: uint8 [N,N], N = ceil(2r+1), off center."""
    steps = np.arange(math.ceil(2 * radius + 1)) - radius
    return (steps[:, None] ** 2 + steps[None] ** 2 <= radius**2).astype(np.uint8)


def rim(mask: Masks, reach: int) -> Masks:
    """Pixels of a mask [H,W] with background, or the picture's outside, in the square of `reach` pixels around them."""
    kernel = np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)
    inner = cv2.erode(mask.astype(np.uint8), kernel, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return np.asarray(mask & (inner == 0), np.bool_)


def _match(truth: Masks, result: Masks, kernel: NDArray[np.uint8]) -> float:
    """F of two boundary maps [H,W]: pixels match where the other has one at an offset of the kernel from them."""
    counts = int(truth.sum()), int(result.sum())
    if not all(counts):
        return float(not any(counts))
    if not kernel.any():  # a shifted disk of less than 0.59 pixels has no offset
        return 0.0
    # Only the part of the picture that holds both boundaries matters.
    used = np.argwhere(truth | result)
    (top, left), (bottom, right) = used.min(0), used.max(0) + 1
    maps = [np.ascontiguousarray(part[top:bottom, left:right], np.uint8) for part in (truth, result)]
    hits = [int((one & np.asarray(cv2.dilate(other, kernel), np.uint8)).sum()) for one, other in (maps, maps[::-1])]
    recall, precision = hits[0] / counts[0], hits[1] / counts[1]
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _overlap(a: NDArray[Any], b: NDArray[Any]) -> Values:
    union = (a | b).sum((1, 2))
    return np.asarray(np.where(union > 0, (a & b).sum((1, 2)) / np.maximum(union, 1), 1.0), np.float64)


MEASURES = {
    "davis": Measure(("J", "F"), davis),
    "mosev2": Measure(("J", "F-dot", "F"), mosev2),
    "boundary-iou": Measure(("IoU", "BIoU"), boundary_iou),
}
