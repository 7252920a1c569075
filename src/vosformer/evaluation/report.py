"""Scores of objects, sequences and a whole set; as a table, JSON and CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vosformer.evaluation.metrics import FrameScores, Statistics, Values, mean_statistics, statistics
from vosformer.evaluation.table import score_table
from vosformer.io.files import write_bytes, write_json

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class Official:
    """The numbers that a benchmark's own scorer gives, under its names and in its units.

    Attributes:
        score: the main one, in [0,1]; NaN where it is not defined (LVOS without unseen objects).
        overall: over all objects.
        objects: of each object, by its official name. NaN stands for what is not defined.
    """

    score: float
    overall: dict[str, float]
    objects: dict[str, dict[str, float]]

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values; None for NaN, which JSON does not know."""
        return {"overall": _plain(self.overall), "objects": {name: _plain(values) for name, values in self.objects.items()}}


def _plain(values: dict[str, float]) -> dict[str, float | None]:
    return {name: None if math.isnan(value) else value for name, value in values.items()}


@dataclass(frozen=True)
class Scores:
    """J and F of an object, or their means over several objects.

    Attributes:
        j: region similarity.
        f: boundary accuracy.
    """

    j: Statistics
    f: Statistics

    @property
    def jf(self) -> float:
        """J&F: the mean of the means of J and F, in [0,1]."""
        return (self.j.mean + self.f.mean) / 2

    def row(self) -> tuple[float, ...]:
        """Return the values of the official scorer's table: J&F, then mean, recall and decay of J and of F."""
        return (self.jf, self.j.mean, self.j.recall, self.j.decay, self.f.mean, self.f.recall, self.f.decay)

    def to_dict(self, measures: tuple[str, str] = ("J", "F")) -> dict[str, Any]:
        """Give {"J&F": ..., "J": {"mean", "recall", "decay", "last_quarter"}, "F": {...}}, under the names of the measures."""
        j, f = measures
        return {f"{j}&{f}": self.jf, j: vars(self.j).copy(), f: vars(self.f).copy()}

    @staticmethod
    def mean(parts: list[Scores]) -> Scores:
        """Return the plain mean of several objects' scores."""
        return Scores(mean_statistics([p.j for p in parts]), mean_statistics([p.f for p in parts]))


@dataclass(frozen=True)
class ObjectScore:
    """The scores of one object.

    Attributes:
        id: its label in the true masks (1 where all labels are merged).
        frames: names of the frames that count, in order.
        per_frame: J and F (or what the rules measure in their place) on each of them.
        scores: their statistics.
        shown: bool [n], the true mask of the frame has the object.
        extra: further values [n] by their names (MOSEv2's F with DAVIS's tolerance).
        name: what the benchmark's own scorer calls it.
        category: of the object, where a file of the data set names it.
        group: that it is scored in ("seen", "unseen", VIPOSeg's "thing_seen", ...); None = not known.
    """

    id: int
    frames: tuple[str, ...]
    per_frame: FrameScores
    scores: Scores
    shown: NDArray[np.bool_]
    extra: dict[str, Values] = field(default_factory=dict)
    name: str = ""
    category: str | None = None
    group: str | None = None

    @staticmethod
    def of(id: int, frames: tuple[str, ...], values: dict[str, Values], shown: NDArray[np.bool_], **known: Any) -> ObjectScore:
        """Take the statistics of values by frame; the first two measures are J and F or stand in their place."""
        (_, j), (_, f), *others = values.items()
        scores = Scores(statistics(j), statistics(f))
        return ObjectScore(id, frames, FrameScores(j, f), scores, shown, dict(others), **known)

    @property
    def seen(self) -> bool | None:
        """The category (LVOS: the video) is one of the training set; None = not known."""
        return None if self.group is None else not self.group.endswith("unseen")


@dataclass(frozen=True)
class SequenceScore:
    """The scores of one sequence.

    Attributes:
        name: of the sequence.
        objects: in the order of their ids.
        scores: mean over the objects.
    """

    name: str
    objects: tuple[ObjectScore, ...]
    scores: Scores


class _Row(NamedTuple):
    level: str
    name: str
    id: int | str
    objects: int
    frames: int | str
    scores: Scores


@dataclass(frozen=True)
class Report:
    """All scores of a result.

    Attributes:
        rules: name of the rules.
        results: folder of the result masks.
        truth: folder of the true masks.
        split: the list of sequences, if one was used.
        sequences: in the order they were scored.
        overall: mean over all objects of all sequences (every object weighs the same, as in the official scorer).
        groups: "seen" and "unseen" (VIPOSeg: four) -> mean over these objects; empty where they are not known.
        warnings: what a reader should know, e.g. ids in the results that the true masks do not have.
        measures: names of what stands in the place of J and F.
        official: the numbers that the benchmark's own scorer gives; None = rules of no benchmark.
    """

    rules: str
    results: str
    truth: str
    split: str | None
    sequences: tuple[SequenceScore, ...]
    overall: Scores
    groups: dict[str, Scores] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    measures: tuple[str, str] = ("J", "F")
    official: Official | None = None

    @property
    def jf(self) -> float:
        """J&F over all objects, in [0,1]."""
        return self.overall.jf

    @property
    def score(self) -> float:
        """The benchmark's main number, in [0,1]: J&F, with groups the mean of theirs (YouTube-VOS's G), of VOST J alone."""
        if self.official is not None and not math.isnan(self.official.score):
            return self.official.score
        return sum(group.jf for group in self.groups.values()) / len(self.groups) if self.groups else self.jf

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the values in a row of the table."""
        j, f = self.measures
        each = [f"{name}-{what}" for name in (j, f) for what in ("Mean", "Recall", "Decay")]
        return (f"{j}&{f}-Mean", *each)

    def to_dict(self, *, per_frame: bool = False) -> dict[str, Any]:
        """Return everything as plain values.

        Args:
            per_frame: J and F of every frame, too.
        """
        return {
            "rules": self.rules,
            "results": self.results,
            "truth": self.truth,
            "split": self.split,
            "score": self.score,
            "objects": sum(len(s.objects) for s in self.sequences),
            "overall": self.overall.to_dict(self.measures),
            "official": None if self.official is None else self.official.to_dict(),
            "groups": {name: group.to_dict(self.measures) for name, group in self.groups.items()},
            "sequences": [
                {
                    "name": s.name,
                    **s.scores.to_dict(self.measures),
                    "objects": [_object_dict(o, self.measures, per_frame) for o in s.objects],
                }
                for s in self.sequences
            ],
            "warnings": list(self.warnings),
        }

    def write_json(self, path: str | Path, *, per_frame: bool = False) -> None:
        """Write `to_dict` to a file, whole or not at all.

        Raises:
            OutputError: it could not be written.
        """
        write_json(Path(path), self.to_dict(per_frame=per_frame))

    def write_csv(self, path: str | Path) -> None:
        """Write one line for each object, sequence and group and one over all, whole or not at all.

        Raises:
            OutputError: it could not be written.
        """
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(("level", "name", "object", "objects", "frames", *self.columns))
        for row in self._rows():
            writer.writerow(
                (row.level, row.name, row.id, row.objects, row.frames, *(repr(value) for value in row.scores.row()))
            )
        write_bytes(Path(path), text.getvalue().encode())

    def table(self, *, objects: bool = False) -> Table:
        """Return rows for the screen: values in percent.

        Args:
            objects: a line for each object, too.
        """
        columns = ("objects", "frames", *(column.replace("-", "\n") for column in self.columns))
        table = score_table(self.results, self.truth, self.rules, "sequence", columns)
        for row in self._rows():
            if row.level == "object" and not objects:
                continue
            if row.level == "overall":
                table.add_section()
            name, count = (row.name, str(row.objects)) if row.id == "" else ("", f"id {row.id}")
            values = (f"{100 * value:.1f}" for value in row.scores.row())
            table.add_row(name, count, str(row.frames), *values, style="bold" if row.level == "overall" else None)
        if self.groups:
            table.add_row("mean of the groups", "", "", f"{100 * self.score:.1f}", *[""] * 6, style="bold")
        return table

    def _rows(self) -> Iterator[_Row]:
        for sequence in self.sequences:
            for one in sequence.objects:
                yield _Row("object", sequence.name, one.id, 1, len(one.frames), one.scores)
            frames = max(len(one.frames) for one in sequence.objects)
            yield _Row("sequence", sequence.name, "", len(sequence.objects), frames, sequence.scores)
        everything = [one for sequence in self.sequences for one in sequence.objects]
        for name, group in self.groups.items():
            yield _Row("group", name, "", sum(one.group == name for one in everything), "", group)
        yield _Row("overall", "all", "", len(everything), "", self.overall)


def _object_dict(one: ObjectScore, measures: tuple[str, str], per_frame: bool) -> dict[str, Any]:
    known = {"category": one.category, "seen": one.seen} if one.category is not None or one.seen is not None else {}
    detail: dict[str, Any] = {}
    if per_frame:
        values = {measures[0]: one.per_frame.j, measures[1]: one.per_frame.f, **one.extra}
        detail = {"names": list(one.frames), "shown": one.shown.tolist(), **{name: v.tolist() for name, v in values.items()}}
    return {
        "id": one.id,
        "frames": len(one.frames),
        **known,
        **one.scores.to_dict(measures),
        **({"per_frame": detail} if detail else {}),
    }
