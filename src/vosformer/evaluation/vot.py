"""Accuracy, robustness and expected average overlap of VOT's multi-start protocol (Kristan et al., VOT2020, sec. 2 and 3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vosformer.errors import InputError
from vosformer.evaluation.metrics import Values, region_similarity
from vosformer.evaluation.table import score_table
from vosformer.io.files import write_json

if TYPE_CHECKING:
    from rich.table import Table

Masks = NDArray[np.bool_]
ST2020 = (115, 755)  # lengths between which the expected overlap is averaged in VOT-ST2020, 2021 and 2022
_FAILED = 0.1  # an overlap of so much or less is a failure if it lasts
_GRACE = 10  # frames in a row


@dataclass(frozen=True)
class VotRun:
    """One run from an anchor towards an end of a sequence.

    Attributes:
        overlaps: float64 [n] in the order of the run; the first one is that of the initialization, see `run_overlaps`.
        empty: bool [n], the truth has no object.
    """

    overlaps: Values
    empty: NDArray[np.bool_]

    def __post_init__(self) -> None:
        if len(self.overlaps) != len(self.empty) or not len(self.overlaps):
            raise InputError(
                f"a run has {len(self.overlaps)} overlaps and {len(self.empty)} true masks; as many, and one, are needed"
            )

    @cached_property
    def progress(self) -> int:
        """Frames before the failure: before ten frames in a row with an overlap of at most 0.1, empty truths aside."""
        in_a_row = 0
        for t, (overlap, empty) in enumerate(zip(self.overlaps, self.empty, strict=True)):
            in_a_row = in_a_row + 1 if overlap <= _FAILED and not empty else 0
            if in_a_row == _GRACE:
                return t + 1 - _GRACE
        return len(self.overlaps)

    def expected(self, high: int) -> Values:
        """Average the overlaps of frames 1 to j: float64 [high] for j = 0 .. high-1, NaN where the run says nothing.

        After a failure overlaps are 0, however long the curve is (the mean is then over j - 1 frames, as in the toolkit); a run that
        ended without one is left out beyond its end.
        """
        length = len(self.overlaps)
        kept = np.where(np.arange(length) < self.progress, self.overlaps, 0.0)
        sums = np.cumsum(kept[1:])
        curve = np.full(high, np.nan)
        inside = min(length, high)
        curve[1:inside] = sums[: inside - 1] / np.arange(1, inside)
        if self.progress < length < high:
            curve[length:] = sums[-1] / (np.arange(length, high) - 1)
        return curve


@dataclass(frozen=True)
class VotSequence:
    """The scores of one sequence.

    Attributes:
        accuracy: mean overlap before failures, in [0,1].
        robustness: share of the frames before failures, in [0,1].
        frames_before_failure: the sum over runs.
        length: frames of the sequence.
        curve: float64 [high], expected overlap by length, 0 where no run says anything.
        weights: int64 [high], runs that say something.
    """

    accuracy: float
    robustness: float
    frames_before_failure: int
    length: int
    curve: Values
    weights: NDArray[np.int64]

    @staticmethod
    def of(length: int, runs: Sequence[VotRun], high: int) -> VotSequence:
        """Score the runs of a sequence of so many frames."""
        progress = sum(run.progress for run in runs)
        overlap = sum(float(run.overlaps[: run.progress].sum()) for run in runs)
        curves = np.array([run.expected(high) for run in runs])
        weights = (~np.isnan(curves)).sum(0)
        curve = np.nansum(curves, 0) / np.maximum(weights, 1)
        total = sum(len(run.overlaps) for run in runs)
        return VotSequence(overlap / progress if progress else 0.0, progress / total, progress, length, curve, weights)


@dataclass(frozen=True)
class VotReport:
    """The scores of all sequences.

    Attributes:
        sequences: name -> scores.
        accuracy: A, mean over sequences weighted by their frames before failures.
        robustness: R, mean over sequences weighted by their lengths.
        eao: expected average overlap: the mean of the curve between two lengths.
        curve: float64 [high], expected overlap by length.
        results: folder of the results.
        truth: folder of the sequences.
    """

    sequences: dict[str, VotSequence]
    accuracy: float
    robustness: float
    eao: float
    curve: Values
    results: str = ""
    truth: str = ""

    @property
    def score(self) -> float:
        """The main number: EAO, in [0,1]."""
        return self.eao

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values."""
        names = ("accuracy", "robustness", "frames_before_failure", "length")
        sequences = {key: {name: getattr(one, name) for name in names} for key, one in self.sequences.items()}
        overall = {"EAO": self.eao, "A": self.accuracy, "R": self.robustness}
        known = {"rules": "vot", "results": self.results, "truth": self.truth, "score": self.score}
        return {**known, "overall": overall, "curve": self.curve.tolist(), "sequences": sequences}

    def write_json(self, path: str | Path) -> None:
        """Write `to_dict` to a file, whole or not at all.

        Raises:
            OutputError: it could not be written.
        """
        write_json(Path(path), self.to_dict())

    def table(self, *, objects: bool = False) -> Table:
        """Lay out for the screen; values as VOT gives them, 0 to 1.

        Args:
            objects: a line for each sequence, too.
        """
        table = score_table(self.results, self.truth, "vot", "sequence", ("frames", "EAO", "A", "R"))
        if objects:
            for name, one in self.sequences.items():
                table.add_row(name, str(one.length), "", f"{one.accuracy:.3f}", f"{one.robustness:.3f}")
            table.add_section()
        total = str(sum(one.length for one in self.sequences.values()))
        table.add_row("all", total, *(f"{value:.3f}" for value in (self.eao, self.accuracy, self.robustness)), style="bold")
        return table


def run_overlaps(truth: Masks, result: Masks) -> Values:
    """Take the overlaps of one run, as the toolkit does.

    The answer on the first frame is only the code of the initialization: 0, or 1 where the truth is empty. Masks that are only one
    pixel wide or high count as empty.

    Args:
        truth: bool [n,H,W] in the order of the run.
        result: bool [n,H,W]; the first one is not looked at.

    Raises:
        InputError: shapes that do not fit.
    """
    true, found = without_slivers(truth), without_slivers(result)
    overlaps = region_similarity(true, found)
    overlaps[0] = 0.0 if true[0].any() else 1.0
    return overlaps


def without_slivers(masks: Masks) -> Masks:
    """Empty the masks [n,H,W] that are only one pixel wide or high, which the toolkit takes for empty."""
    out = np.array(masks, np.bool_)
    for mask in out:
        if any(_extent(mask.any(axis)) == 1 for axis in (0, 1)):
            mask[:] = False
    return out


def _extent(used: NDArray[np.bool_]) -> int:
    places = np.flatnonzero(used)
    return int(places[-1] - places[0] + 1) if places.size else 0


def vot_scores(sequences: Mapping[str, tuple[int, Sequence[VotRun]]], low: int = ST2020[0], high: int = ST2020[1]) -> VotReport:
    """Score runs by the multi-start protocol.

    Args:
        sequences: name -> number of frames, and its runs.
        low: the shortest length that counts for the expected average overlap.
        high: the length below which it counts.

    Raises:
        InputError: there are no runs, or no lengths between `low` and `high`.
    """
    if not 0 <= low < high:
        raise InputError(f"the expected overlap is asked for between {low} and {high} frames")
    if not sequences or not all(runs for _, runs in sequences.values()):
        raise InputError("there are no runs to score, or a sequence has none")
    scored = {name: VotSequence.of(length, runs, high) for name, (length, runs) in sequences.items()}
    parts = list(scored.values())
    weights = np.array([one.weights for one in parts])
    curve = (weights * np.array([one.curve for one in parts])).sum(0) / np.maximum(weights.sum(0), 1)
    before, lengths = ([float(getattr(one, name)) for one in parts] for name in ("frames_before_failure", "length"))
    accuracy = float(np.average([one.accuracy for one in parts], weights=before)) if any(before) else 0.0
    robustness = float(np.average([one.robustness for one in parts], weights=lengths))
    return VotReport(scored, accuracy, robustness, float(curve[low:].mean()), curve)
