"""Scores of tracks by class: HOTA and average precision, as a table and as JSON."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vosformer.errors import DataError, InputError
from vosformer.evaluation.table import score_table
from vosformer.evaluation.track_files import BURST_COMMON, read_burst, read_youtube_vis
from vosformer.evaluation.tracks import ClassScores, TrackedSequence, class_scores
from vosformer.io.files import write_json

if TYPE_CHECKING:
    from rich.table import Table

_NAMES = {"HOTA": "hota", "DetA": "det", "AssA": "ass", "LocA": "loc", "AP": "ap", "AR": "ar"}
_Read = Callable[[Path, Path], tuple[list[TrackedSequence], dict[int, str]]]
TRACK_RULES: dict[str, _Read] = {"burst": read_burst, "youtube-vis": read_youtube_vis}


@dataclass(frozen=True)
class TrackScores:
    """Scores of tracks.

    Attributes:
        rules: "burst" or "youtube-vis".
        results: file of the results.
        truth: file of the truth.
        classes: class -> its scores.
        groups: group of classes ("all", of BURST also "common" and "uncommon") -> name of a score -> mean over classes and
            thresholds, 0 to 1; NaN where no class has it.
    """

    rules: str
    results: str
    truth: str
    classes: dict[str, ClassScores]
    groups: dict[str, dict[str, float]]

    @property
    def score(self) -> float:
        """The main number, in [0,1]: HOTA of all classes for BURST, AP for YouTube-VIS."""
        return self.groups["all"]["HOTA" if self.rules == "burst" else "AP"]

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values; None for what is not defined."""
        classes = {
            name: {key: _plain(getattr(one, attribute).tolist()) for key, attribute in _NAMES.items()}
            for name, one in self.classes.items()
        }
        groups = {name: dict(zip(values, _plain(list(values.values())), strict=True)) for name, values in self.groups.items()}
        known = {"rules": self.rules, "results": self.results, "truth": self.truth}
        return {**known, "score": _plain([self.score])[0], "overall": groups, "classes": classes}

    def write_json(self, path: str | Path) -> None:
        """Write `to_dict` to a file, whole or not at all.

        Raises:
            OutputError: it could not be written.
        """
        write_json(Path(path), self.to_dict())

    def table(self, *, objects: bool = False) -> Table:
        """Lay out for the screen, in percent.

        Args:
            objects: a line for each class, too.
        """
        table = score_table(self.results, self.truth, self.rules, "classes", _NAMES)
        if objects:
            for name, one in self.classes.items():
                table.add_row(name, *(f"{100 * getattr(one, attribute).mean():.1f}" for attribute in _NAMES.values()))
            table.add_section()
        for name, values in self.groups.items():
            table.add_row(name, *(f"{100 * values[key]:.1f}" for key in _NAMES), style="bold" if name == "all" else None)
        return table


def evaluate_tracks(results: str | Path, truth: str | Path, *, rules: str) -> TrackScores:
    """Score tracks: a result file in a benchmark's JSON format against its annotations.

    Args:
        results: the result file.
        truth: the annotation file; of BURST also the folder with all_classes.json.
        rules: "burst" (exemplar-guided task: results have the ids of the true tracks; HOTA compares bounding boxes, as the official
            code does) or "youtube-vis".

    Raises:
        DataError: a file cannot be read or has another form.
        InputError: unknown rules, or SciPy is not installed.
    """
    if rules not in TRACK_RULES:
        raise InputError(f"there are no rules {rules!r} for tracks; known: {', '.join(TRACK_RULES)}")
    annotations = Path(truth)
    if annotations.is_dir() and rules == "burst":
        annotations /= "all_classes.json"
    sequences, names = TRACK_RULES[rules](annotations, Path(results))
    if not names:
        raise DataError(f"{annotations} has no class with a track")
    scores = {number: class_scores(sequences, number) for number in names}
    groups = {"all": list(scores)}
    if rules == "burst":
        groups |= {
            "common": [number for number in scores if number in BURST_COMMON],
            "uncommon": [number for number in scores if number not in BURST_COMMON],
        }
    means = {name: _means([scores[number] for number in members]) for name, members in groups.items()}
    return TrackScores(rules, str(results), str(truth), {names[number]: one for number, one in scores.items()}, means)


def _means(classes: list[ClassScores]) -> dict[str, float]:
    """Mean over classes and thresholds, without what is not defined."""
    means = {}
    for name, attribute in _NAMES.items():
        known = [values for one in classes if not np.isnan(values := getattr(one, attribute)).any()]
        means[name] = float(np.mean(known)) if known else float("nan")
    return means


def _plain(values: list[float]) -> list[float | None]:
    return [None if np.isnan(value) else value for value in values]
