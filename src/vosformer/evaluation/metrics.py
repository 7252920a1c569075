"""Region similarity J and boundary accuracy F of DAVIS (Perazzi et al., CVPR 2016, sec. 5.1), and their statistics.

The results are the ones of the official DAVIS-2017 scorer to the last bit of a double (`tests/fixtures/metrics_davis.npz`). It
dilates boundary maps with a disk, frame by frame; here masks are packed to 64 pixels a word, several frames share each array
operation, and only the part of the picture that holds an object is looked at (`bits.py`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vosformer.errors import InputError
from vosformer.evaluation import bits

TOLERANCE = 0.008  # of the diagonal: DAVIS's boundary tolerance
_CHUNK_PIXELS = 1_700_000  # of each side's masks that go through the array operations at once: they stay in the cache

Values = NDArray[np.float64]


class FrameScores(NamedTuple):
    """J and F of every frame.

    Attributes:
        j: float64 [n] in [0,1].
        f: float64 [n] in [0,1].
    """

    j: Values
    f: Values


@dataclass(frozen=True)
class Statistics:
    """One metric over the frames of an object.

    Attributes:
        mean: over the frames, in [0,1].
        recall: share of the frames with a value above 0.5.
        decay: mean of the first quarter minus mean of the last, in [-1,1]; less is better.
        last_quarter: mean of the last quarter, in [0,1]; VOST's J_tr cuts elsewhere, see `official`.
    """

    mean: float
    recall: float
    decay: float
    last_quarter: float


def boundary_radius(height: int, width: int, tolerance: float = TOLERANCE) -> int:
    """Pixels that two boundaries may be apart and still match: `tolerance` of the diagonal, rounded up; from 1 on it is in pixels."""
    return math.ceil(tolerance if tolerance >= 1 else tolerance * float(np.linalg.norm((height, width))))


def boundary(mask: ArrayLike) -> NDArray[np.bool_]:
    """Return the one pixel wide boundary of a mask: where it differs from its right, lower or lower right neighbor.

    Args:
        mask: [H,W] or [n,H,W], not zero = object.

    Returns:
        bool, same shape.

    Raises:
        InputError: another number of dimensions, or no pixels.
    """
    masks, shape = _as_masks(mask, "mask")
    packed = bits.pack(masks)
    words = bits.boundary(packed)[..., : packed.words.shape[-1]]
    return bits.unpack(bits.Packed(words, packed.width)).reshape(shape)


def region_similarity(truth: ArrayLike, result: ArrayLike, *, void: ArrayLike | None = None) -> Values:
    """J: intersection over union; 1 where both masks are empty.

    Args:
        truth: masks [n,H,W] or one mask [H,W], not zero = object.
        result: the masks to judge, same shape.
        void: pixels that do not count, same shape; None = all count.

    Returns:
        float64 [n] in [0,1] ([] for one mask).

    Raises:
        InputError: shapes that do not fit.
    """
    return _scores(truth, result, void, TOLERANCE)[0]


def boundary_accuracy(
    truth: ArrayLike, result: ArrayLike, *, tolerance: float = TOLERANCE, void: ArrayLike | None = None
) -> Values:
    """F: harmonic mean of the boundaries' precision and recall within a distance.

    A boundary pixel matches if the other boundary has a pixel within `boundary_radius` (Euclidean). Both boundaries empty: 1;
    one empty: 0. A mask that fills the picture has no boundary, like an empty one (as in the official scorer).

    Args:
        truth: masks [n,H,W] or one mask [H,W], not zero = object.
        result: the masks to judge, same shape.
        tolerance: share of the picture's diagonal; from 1 on, pixels.
        void: pixels that do not count, same shape; None = all count.

    Returns:
        float64 [n] in [0,1] ([] for one mask).

    Raises:
        InputError: shapes that do not fit, or a tolerance that is not positive.
    """
    return _scores(truth, result, void, tolerance)[1]


def frame_scores(
    truth: ArrayLike, result: ArrayLike, *, tolerance: float = TOLERANCE, void: ArrayLike | None = None
) -> FrameScores:
    """J and F of masks [n,H,W]: `region_similarity` and `boundary_accuracy` for little more than the price of one.

    Raises:
        InputError: shapes that do not fit, or a tolerance that is not positive.
    """
    return FrameScores(*_scores(truth, result, void, tolerance))


def statistics(values: ArrayLike) -> Statistics:
    """Mean, recall and decay over the frames of one object, as the official scorer takes them.

    The quarters overlap in one frame: with ``c = round(linspace(1, n, 5)) - 1`` the first is ``values[c0 : c1 + 1]``, the last
    ``values[c3 : c4 + 1]``. The official code stores c in 8 bits, which overflows for sequences of more than 256 frames: its decay
    is then that of other frames. Here c is what it was meant to be, so only the decay of such long sequences differs.

    Args:
        values: [n], n >= 1.

    Raises:
        InputError: no values.
    """
    array = np.asarray(values, np.float64)
    if array.ndim != 1 or not array.size:
        raise InputError(f"values of shape {array.shape} have no statistics, expected [n] with at least one frame")
    cuts = quarter_cuts(array.size)
    first, last = (float(array[cuts[i] : cuts[i + 1] + 1].mean()) for i in (0, 3))
    return Statistics(float(array.mean()), float((array > 0.5).mean()), first - last, last)


def quarter_cuts(n: int) -> NDArray[np.int64]:
    """Give the numbers of the frames that cut n of them into quarters, the first and the last one included: int64 [5]."""
    return (np.round(np.linspace(1, n, 5) + 1e-10) - 1).astype(np.int64)


def mean_statistics(parts: Sequence[Statistics]) -> Statistics:
    """Take the plain mean of several objects' statistics, every object weighing the same."""
    columns = np.array([(p.mean, p.recall, p.decay, p.last_quarter) for p in parts], np.float64)
    return Statistics(*columns.mean(0).tolist())


def _scores(truth: ArrayLike, result: ArrayLike, void: ArrayLike | None, tolerance: float) -> tuple[Values, Values]:
    true, shape = _as_masks(truth, "truth")
    found, of_result = _as_masks(result, "result")
    ignored, of_void = (None, shape) if void is None else _as_masks(void, "void")
    if not shape == of_result == of_void:
        raise InputError(f"truth, result and void must have one shape, found {shape}, {of_result} and {of_void}")
    if not tolerance > 0:
        raise InputError(f"tolerance is {tolerance}, expected a share of the diagonal above 0, or pixels from 1 on")
    n, height, width = true.shape
    radius = boundary_radius(height, width, tolerance)
    step = max(1, _CHUNK_PIXELS // (height * width))
    j, f = np.empty(n), np.empty(n)
    for start in range(0, n, step):
        part = slice(start, start + step)
        j[part], f[part] = _chunk_scores(true[part], found[part], None if ignored is None else ignored[part], radius)
    return j.reshape(shape[:-2]), f.reshape(shape[:-2])


def _chunk_scores(truth: NDArray[Any], result: NDArray[Any], void: NDArray[Any] | None, radius: int) -> tuple[Values, Values]:
    n = len(truth)
    both = bits.pack(np.concatenate([truth, result]))
    if void is not None:
        ignored = bits.pack(void).words
        both.words[:n] &= ~ignored
        both.words[n:] &= ~ignored
    part = bits.extent(both.words)
    masks = both.words[:, part[0], part[1]]
    inside, union = bits.count(masks[:n] & masks[n:]), bits.count(masks[:n] | masks[n:])

    edges = bits.boundary(both, bits.gap_words(radius), part)
    near = bits.dilate(edges, radius)
    total = bits.count(edges)
    matched = bits.count(edges & np.concatenate([near[n:], near[:n]]))
    share = _ratio(matched, total, empty=1.0)
    recall, precision = share[:n], share[n:]
    # One side without a boundary: its share is 1 by definition, the other's is 0, and so is F.
    return _ratio(inside, union, empty=1.0), _ratio(2 * precision * recall, precision + recall, empty=0.0)


def _ratio(part: NDArray[Any], whole: NDArray[Any], empty: float) -> Values:
    out = np.full(len(whole), empty, np.float64)
    np.divide(part, whole, out=out, where=whole > 0)
    return out


def _as_masks(values: ArrayLike, name: str) -> tuple[NDArray[Any], tuple[int, ...]]:
    """Masks [n,H,W] of bool or uint8, and the shape that was given."""
    array = np.asarray(values)
    if array.ndim not in (2, 3) or 0 in array.shape[-2:]:
        raise InputError(f"{name} has shape {array.shape}, expected [H,W] or [n,H,W] with at least one pixel")
    if array.dtype not in (np.bool_, np.uint8):
        array = array != 0
    return array.reshape(-1, *array.shape[-2:]), array.shape
