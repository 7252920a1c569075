"""HOTA and average precision of tracks (Luiten et al., IJCV 2021; Yang et al., ICCV 2019), as TrackEval 1.3.0 computes them.

They judge results that say which object is which by themselves, or whose objects are of many classes: YouTube-VIS and BURST.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco

from vosformer.errors import InputError
from vosformer.evaluation.metrics import Values

ALPHAS = np.arange(0.05, 0.99, 0.05)  # similarities from which a pair counts for HOTA
THRESHOLDS = np.arange(0.5, 0.96, 0.05)  # track IoU from which a pair counts for AP
RECALLS = np.linspace(0, 1, 101)
_EPS = float(np.finfo(float).eps)

RunLengths = dict[str, Any]  # of COCO: {"size": [height, width], "counts": bytes}


@dataclass(frozen=True)
class Track:
    """One object of truth or result.

    Attributes:
        number: of the track, different from all others of its side.
        category: its class.
        masks: frame -> run lengths; of the result also empty masks.
        score: how sure the result is.
        ignored: neither finding nor missing it counts for AP (a crowd).
    """

    number: int
    category: int
    masks: dict[int, RunLengths]
    score: float = 1.0
    ignored: bool = False


@dataclass(frozen=True)
class TrackedSequence:
    """The tracks of one sequence.

    Attributes:
        name: of the sequence; they are pooled in the order of these.
        frames: that count for HOTA.
        truth: the true tracks.
        result: the tracks to judge.
        lenient: classes of which unmatched results do not count for AP, as not all their objects are annotated.
        boxes: HOTA compares the masks' bounding boxes.
    """

    name: str
    frames: tuple[int, ...]
    truth: tuple[Track, ...]
    result: tuple[Track, ...]
    lenient: frozenset[int] = frozenset()
    boxes: bool = False


@dataclass(frozen=True)
class ClassScores:
    """The scores of one class.

    Attributes:
        hota: float64 [19] at `ALPHAS`: geometric mean of detection and association.
        det: float64 [19], accuracy of detection.
        ass: float64 [19], accuracy of association.
        loc: float64 [19], mean similarity of matched masks.
        ap: float64 [10] at `THRESHOLDS`: area under precision over recall; NaN if there is no true track.
        ar: float64 [10]: share of true tracks that are found; NaN if there is none.
    """

    hota: Values
    det: Values
    ass: Values
    loc: Values
    ap: Values
    ar: Values


def class_scores(sequences: Sequence[TrackedSequence], category: int) -> ClassScores:
    """Score one class over all sequences.

    Raises:
        InputError: SciPy is not installed.
    """
    ordered = sorted(sequences, key=lambda one: one.name)
    det, ass, loc = _hota([_counts(one, category) for one in ordered])
    ap, ar = _precision([_matches(one, category) for one in ordered])
    return ClassScores(np.sqrt(det * ass), det, ass, loc, ap, ar)


class _Counts(NamedTuple):
    """What HOTA counts in one sequence, float64 [19] at each similarity: hits, misses, false ones, and sums over hits."""

    hits: Values
    misses: Values
    false: Values
    association: Values
    location: Values


def _hota(parts: Sequence[_Counts]) -> tuple[Values, Values, Values]:
    hits, misses, false = (np.sum([getattr(one, name) for one in parts], 0) for name in ("hits", "misses", "false"))
    association, location = (np.sum([getattr(one, name) for one in parts], 0) for name in ("association", "location"))
    det = hits / np.maximum(1, hits + misses + false)
    return det, association / np.maximum(1, hits), np.maximum(1e-10, location) / np.maximum(1e-10, hits)


def _counts(sequence: TrackedSequence, category: int) -> _Counts:
    truth = [track for track in sequence.truth if track.category == category]
    result = [track for track in sequence.result if track.category == category]
    shape = (len(truth), len(result))
    frames = []
    potential, true_counts, result_counts = np.zeros(shape), np.zeros((shape[0], 1)), np.zeros((1, shape[1]))
    for frame in sequence.frames:
        g, p = (np.array([i for i, track in enumerate(side) if frame in track.masks], int) for side in (truth, result))
        similarity = _similarity([truth[i].masks[frame] for i in g], [result[i].masks[frame] for i in p], boxes=sequence.boxes)
        frames.append((g, p, similarity))
        rest = similarity.sum(0)[None] + similarity.sum(1)[:, None] - similarity
        potential[np.ix_(g, p)] += np.divide(similarity, rest, out=np.zeros_like(similarity), where=rest > _EPS)
        true_counts[g] += 1
        result_counts[0, p] += 1
    alignment = potential / np.maximum(true_counts + result_counts - potential, _EPS)
    hits, misses, false, location = (np.zeros(len(ALPHAS)) for _ in range(4))
    matched = np.zeros((len(ALPHAS), *shape))
    for g, p, similarity in frames:
        rows, columns = assign(alignment[np.ix_(g, p)] * similarity)
        values = similarity[rows, columns]
        for a, alpha in enumerate(ALPHAS):
            good = values >= alpha - _EPS
            hits[a] += good.sum()
            location[a] += values[good].sum()
            matched[a, g[rows[good]], p[columns[good]]] += 1
        misses += len(g)
        false += len(p)
    shares = matched / np.maximum(1, true_counts + result_counts - matched)
    association = (matched * shares).sum((1, 2))
    return _Counts(hits, misses - hits, false - hits, association, location)


def assign(scores: Values) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Pair rows with columns so that the sum of scores is the greatest.

    Raises:
        InputError: SciPy is not installed.
    """
    try:
        from scipy.optimize import linear_sum_assignment
    except ImportError as error:
        raise InputError('HOTA needs SciPy: pip install "vosformer[hota]"') from error
    rows, columns = linear_sum_assignment(-scores)
    return rows, columns


def _similarity(truth: list[RunLengths], result: list[RunLengths], *, boxes: bool) -> Values:
    if not truth or not result:
        return np.zeros((len(truth), len(result)))
    if boxes:
        sides = [coco.toBbox(side).astype(int).astype(float) for side in (result, truth)]
        return np.asarray(coco.iou(*sides, [False] * len(truth)), np.float64).T
    return np.asarray(coco.iou(result, truth, [False] * len(truth)), np.float64).T


class _Matches(NamedTuple):
    """How the result tracks of one sequence fare, the surest first: at each threshold, matched and left out, bool [10,n]."""

    scores: Values
    matched: NDArray[np.bool_]
    left_out: NDArray[np.bool_]
    true: int


def _matches(sequence: TrackedSequence, category: int) -> _Matches:
    # True tracks that are ignored come last, so that others are found first.
    truth = sorted((track for track in sequence.truth if track.category == category), key=lambda track: track.ignored)
    result = sorted((track for track in sequence.result if track.category == category), key=lambda track: -track.score)
    overlaps = np.array([[track_iou(one, true) for true in truth] for one in result]).reshape(len(result), len(truth))
    matched = np.zeros((len(THRESHOLDS), len(result)), np.bool_)
    left_out = np.full_like(matched, category in sequence.lenient)
    for row, threshold in enumerate(THRESHOLDS):
        taken: set[int] = set()
        for at, one in enumerate(result):
            found = _best(overlaps[at], truth, taken, min(threshold, 1 - 1e-10))
            if found is None:
                continue
            matched[row, at], left_out[row, at] = True, truth[found].ignored
            # TrackEval takes what track number 0 has matched for free; YouTube-VIS tracks are counted from 0.
            taken |= {found} if one.number else set()
    scores = np.array([track.score for track in result], np.float64)
    return _Matches(scores, matched, left_out, sum(not track.ignored for track in truth))


def _best(overlaps: Values, truth: Sequence[Track], taken: set[int], least: float) -> int | None:
    """Return the free true track with the greatest overlap, the last one of equals; an ignored one only if there is no
    other.
    """
    found: int | None = None
    for at, track in enumerate(truth):
        if at in taken or overlaps[at] < least - _EPS:
            continue
        if found is not None and track.ignored and not truth[found].ignored:
            break
        found, least = at, float(overlaps[at])
    return found


def track_iou(one: Track, other: Track) -> float:
    """Sum of the intersections of two tracks' masks over sum of their unions."""
    inside = union = 0.0
    for frame in one.masks.keys() | other.masks.keys():
        masks = [track.masks[frame] for track in (one, other) if frame in track.masks]
        union += float(coco.area(coco.merge(masks)))
        inside += float(coco.area(coco.merge(masks, True))) if len(masks) == 2 else 0.0
    return inside / union if union > 0 else 0.0


def _precision(parts: Sequence[_Matches]) -> tuple[Values, Values]:
    """Average precision and recall at each threshold."""
    true = sum(part.true for part in parts)
    if not true:
        return np.full(len(THRESHOLDS), np.nan), np.full(len(THRESHOLDS), np.nan)
    order = np.argsort(-np.concatenate([part.scores for part in parts]), kind="stable")
    matched, left_out = (np.concatenate([getattr(p, name) for p in parts], 1)[:, order] for name in ("matched", "left_out"))
    ap, ar = np.zeros(len(THRESHOLDS)), np.zeros(len(THRESHOLDS))
    for row in range(len(THRESHOLDS)):
        hits = np.cumsum(matched[row] & ~left_out[row]).astype(float)
        false = np.cumsum(~matched[row] & ~left_out[row]).astype(float)
        if not hits.size:
            continue
        precision = np.maximum.accumulate((hits / (hits + false + np.spacing(1)))[::-1])[::-1]
        at = np.searchsorted(hits / true, RECALLS)
        ap[row] = np.where(at < len(precision), precision[np.minimum(at, len(precision) - 1)], 0).mean()
        ar[row] = hits[-1] / true
    return ap, ar
