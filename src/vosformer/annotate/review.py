"""Doubtful frames: where a person should look first, and which frames help most if they are corrected.

Six signs make a frame doubtful for an object: a low presence score, a jump of its area, a jump of its place, colors unlike those of
its given masks, pixels that it and another object take from each other, and masks that the passes forward and backward disagree on.
Each is a number in [0,1]; together they are 1 - (1 - a)(1 - b)..., so that any one is enough. None of them sees a mask that goes
over to a thing of the same colors bit by bit. The choice of several frames follows XMem++ (Bekuzarov et al., ICCV 2023) in its aim,
uncertain and diverse, with places and sizes of the masks in the room of its key features.
"""

from __future__ import annotations

import csv
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vosformer.annotate.records import Measures, measure
from vosformer.annotate.scores_file import read_scores
from vosformer.errors import InputError
from vosformer.io import read_labels

FrameValues = NDArray[np.float64]

SIGNS = ("presence", "area", "place", "color", "competition", "disagreement")
_WORDS = {
    "presence": "hardly seen",
    "area": "its size jumps",
    "place": "it jumps to another place",
    "color": "its colors change",
    "competition": "another object takes its pixels",
    "disagreement": "forward and backward disagree",
}
_AREA_JUMP = np.log(2.5)  # a change of area between two frames that is surely one too many
_PLACE_JUMP = 1.0  # likewise, of the center, in sides of the object
_COLOR_SAME, _COLOR_OTHER = 0.12, 0.25  # distances from the given colors that say nothing, and that are surely another thing's
_APART = 4  # frames between two entries of the list for one object
_FAR = 0.05  # of the video's length: frames so far apart tell different things


@dataclass(frozen=True)
class DoubtfulFrame:
    """A frame to look at.

    Attributes:
        frame: its number.
        id: the object.
        doubt: in [0,1].
        signs: sign -> its part in [0,1], those above 0.1.
    """

    frame: int
    id: int
    doubt: float
    signs: Mapping[str, float]

    @property
    def reason(self) -> str:
        """The strongest signs in words."""
        strongest = sorted(self.signs, key=lambda sign: -self.signs[sign])[:2]
        return ", ".join(_WORDS[sign] for sign in strongest) or "somewhat unsure"


def signs_of(measures: Measures, i: int) -> dict[str, FrameValues]:
    """Sign -> its strength on every frame, in [0,1] [frames]; 0 where nothing is known."""
    score, area = measures.column(i, "score").astype(float), measures.column(i, "pixels").astype(float)
    known = ~np.isnan(score)
    signs = {"presence": _presence(score, area, known)}
    before = _previous(known)
    pairs = known & (before >= 0)
    last = np.where(pairs, before, 0)
    seen = pairs & (area > 0) & (area[last] > 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        change = np.where(seen, np.abs(np.log(area / area[last])), 0.0)
        side = np.sqrt(np.maximum(area[last], 1))
        x, y = measures.column(i, "x").astype(float), measures.column(i, "y").astype(float)
        shift = np.hypot(x - x[last], y - y[last]) / side
    # What comes or goes at once is a jump; what fades out is not.
    gone = pairs & ((area > 0) != (area[last] > 0))
    signs["area"] = np.clip(_beyond_usual(change, seen) / _AREA_JUMP, 0, 1)
    signs["area"][gone] = np.maximum(signs["area"][gone], np.clip(np.maximum(area, area[last]) / _usual(area), 0, 1)[gone])
    placed = seen & ~np.isnan(shift)
    signs["place"] = np.clip(_beyond_usual(np.where(placed, shift, 0.0), placed) / _PLACE_JUMP, 0, 1)
    signs["competition"] = _competition(measures, i, area, last, pairs)
    color = np.nan_to_num(measures.column(i, "color").astype(float))
    signs["color"] = np.clip((color - _COLOR_SAME) / (_COLOR_OTHER - _COLOR_SAME), 0, 1)
    agreement = measures.column(i, "agreement").astype(float)
    signs["disagreement"] = np.where(np.isnan(agreement), 0.0, 1 - agreement)
    return signs


def doubts_of(measures: Measures, i: int, given: Collection[int] = ()) -> FrameValues:
    """Return how doubtful each frame is for an object, in [0,1] [frames]; 0 where it is given."""
    doubt = 1 - np.prod([1 - curve for curve in signs_of(measures, i).values()], axis=0)
    doubt[[n for n in given if 0 <= n < measures.frames]] = 0
    return np.asarray(doubt)


def rank(
    measures: Measures, given: Mapping[int, Collection[int]] | None = None, most: int = 50, least: float = 0.3
) -> list[DoubtfulFrame]:
    """Return the most doubtful frames first; of neighboring frames of an object only the worst.

    Args:
        measures: numbers of all frames.
        given: object -> frames on which it is given.
        most: entries of the list.
        least: the doubt from which on a frame is in it.
    """
    found = []
    for i in measures.ids:
        signs = signs_of(measures, i)
        curve = doubts_of(measures, i, (given or {}).get(i, ()))
        for frame in _peaks(curve, least):
            strong = {sign: round(float(values[frame]), 3) for sign, values in signs.items() if values[frame] > 0.1}
            found.append(DoubtfulFrame(frame, i, float(curve[frame]), strong))
    return sorted(found, key=lambda entry: (-entry.doubt, entry.frame))[:most]


def suggest(measures: Measures, k: int, given: Mapping[int, Collection[int]] | None = None) -> list[int]:
    """Return the k frames whose correction would help most: doubtful, and unlike each other and the frames that are given.

    Args:
        measures: numbers of all frames.
        k: how many.
        given: object -> frames on which it is given.
    """
    given = given or {}
    tracked = np.zeros(measures.frames, np.bool_)
    doubt = np.zeros(measures.frames)
    for i in measures.ids:
        tracked |= ~np.isnan(measures.column(i, "score"))
        doubt = np.maximum(doubt, doubts_of(measures, i, given.get(i, ())))
    features = _features(measures)
    taken = sorted({n for frames in given.values() for n in frames})
    near = np.full(measures.frames, np.inf)
    for n in taken:
        near = np.minimum(near, _distance(features, n))
    chosen: list[int] = []
    while len(chosen) < k:
        gain = np.where(tracked, (0.05 + doubt) * (1 - np.exp(-near)), 0.0)
        gain[[*taken, *chosen]] = 0
        best = int(gain.argmax()) if len(gain) else 0
        if not len(gain) or gain[best] <= 0:
            break
        chosen.append(best)
        near = np.minimum(near, _distance(features, best))
    return chosen


def measures_of_results(out: Path) -> Measures:
    """Return the numbers of a folder that `vosformer track` wrote (scores.csv, and masks/ if there), or of a project.

    Raises:
        InputError: there are no scores.
    """
    table = out / "scores.csv"
    if not table.exists():
        raise InputError(
            f"{out} has no scores.csv: give a folder that `vosformer track` wrote (with --outputs scores), or a project"
        )
    names: dict[str, int] = {}
    try:
        with table.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            for line in csv.DictReader(file):
                names[line["name"]] = int(line["frame"])
    except (KeyError, ValueError) as error:
        raise InputError(f"{table} is no table of scores: {error}") from error
    measures = Measures(max(names.values(), default=-1) + 1)
    read_scores(table, measures)
    for path in sorted((out / "masks").glob("*.png")):
        number = names.get(path.stem)
        rows = measures.at(number) if number is not None else {}
        # A table of `vosformer track` has no places.
        if number is not None and any(np.isnan(row.x) and row.pixels for row in rows.values()):
            labels = read_labels(path, allow_empty=True).labels
            measures.put(
                number,
                measure(labels, {i: row.score for i, row in rows.items()}, {i: row.agreement for i, row in rows.items()}),
            )
    return measures


def _presence(score: FrameValues, area: FrameValues, known: NDArray[np.bool_]) -> FrameValues:
    """1 - score while it is in sight; where it was gone already, doubtful is only what is neither 0 nor 1."""
    before = _previous(known)
    was_there = (before < 0) | (area[np.maximum(before, 0)] > 0)
    doubt = np.where(was_there, 1 - score, 1 - np.abs(2 * score - 1))
    return np.where(known, np.nan_to_num(doubt), 0.0)


def _previous(known: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Return the frame before each if it is known, else -1."""
    before = np.arange(len(known)) - 1
    return np.where((before >= 0) & known[np.maximum(before, 0)], before, -1)


def _usual(values: FrameValues) -> float:
    positive = values[values > 0]
    return float(np.median(positive)) if len(positive) else 1.0


def _beyond_usual(values: FrameValues, where: NDArray[np.bool_]) -> FrameValues:
    """Return how far values lie above what is usual for this object: the 90th percentile of all frames."""
    if not where.any():
        return np.zeros_like(values)
    return np.maximum(values - np.percentile(values[where], 90), 0)


def _competition(
    measures: Measures, i: int, area: FrameValues, last: NDArray[np.intp], pairs: NDArray[np.bool_]
) -> FrameValues:
    """Return the share of the object's area that it loses to, or wins from, another one that is near."""
    change = np.where(pairs, area - area[last], 0.0)
    x, y = measures.column(i, "x").astype(float), measures.column(i, "y").astype(float)
    result = np.zeros_like(area)
    for other in measures.ids:
        if other == i:
            continue
        theirs = measures.column(other, "pixels").astype(float)
        gain = np.where(pairs, theirs - theirs[last], 0.0)
        apart = np.hypot(x - measures.column(other, "x"), y - measures.column(other, "y"))
        near = np.nan_to_num(apart, nan=np.inf) < np.sqrt(np.maximum(area, 1)) + np.sqrt(np.maximum(theirs, 1))
        share = np.minimum(np.abs(change), np.abs(gain)) / np.maximum(np.maximum(area, area[last]), 1)
        result = np.maximum(result, np.where(near & (change * gain < 0), share, 0.0))
    return np.clip(2 * result - 0.2, 0, 1)


def _peaks(curve: FrameValues, least: float) -> list[int]:
    found: list[int] = []
    free = curve >= least
    for frame in np.argsort(-curve, kind="stable").tolist():
        if not curve[frame] >= least:
            break
        if free[frame]:
            found.append(frame)
            free[max(0, frame - _APART) : frame + _APART + 1] = False
    return found


def _features(measures: Measures) -> NDArray[Any]:
    """Return what tells frames apart [frames,n]: time in units of `_FAR`, and for each object place and size, in its own
    sizes.
    """
    columns = [np.arange(measures.frames) / max(3.0, _FAR * measures.frames)]
    for i in measures.ids:
        area = measures.column(i, "pixels").astype(float)
        side = np.sqrt(_usual(area))
        for name in ("x", "y"):
            columns.append(np.nan_to_num(measures.column(i, name) / side / 3))
        columns.append(np.log(np.maximum(area, 1) / max(side**2, 1)) / 2)
    return np.stack(columns, 1)


def _distance(features: NDArray[Any], n: int) -> FrameValues:
    return np.asarray(np.sqrt(((features - features[n]) ** 2).sum(1)))
