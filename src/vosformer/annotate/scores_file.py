"""`scores.csv`: the columns that `vosformer track` writes, then the center of each mask, how well both directions agree, colors."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np

from vosformer.annotate.records import Measures, Row
from vosformer.errors import InputError
from vosformer.io import Source
from vosformer.io.files import replacing

COLUMNS = ("frame", "name", "time", "id", "score", "pixels", "x", "y", "agreement", "color")


def write_scores(path: Path, source: Source, measures: Measures) -> None:
    """Write the numbers of all tracked frames, in the order of frames; one file, whole or not there."""
    known = {i: ~np.isnan(measures.column(i, "score")) for i in measures.ids}
    frames = np.flatnonzero(np.logical_or.reduce([*known.values(), np.zeros(measures.frames, np.bool_)]))
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for frame in map(int, frames):
            time = "" if source.fps is None else f"{float(frame / source.fps):.6f}"
            for i, row in measures.at(frame).items():
                about = [frame, source.name_of(frame), time, i, _text(row.score, 6), row.pixels]
                writer.writerow([*about, _text(row.x, 2), _text(row.y, 2), _text(row.agreement, 4), _text(row.color, 4)])


def read_scores(path: Path, measures: Measures) -> None:
    """Put the numbers of a `scores.csv` into `measures`; one of `vosformer track` lacks the last four columns.

    Raises:
        InputError: the file is no such table.
    """
    if not path.exists():
        return
    frame, rows = -1, dict[int, Row]()
    try:
        with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            for line in csv.DictReader(file):
                if int(line["frame"]) != frame:
                    if rows:
                        measures.put(frame, rows)
                    frame, rows = int(line["frame"]), {}
                if 0 <= frame < measures.frames:
                    others = (_number(line.get(name)) for name in COLUMNS[6:])
                    rows[int(line["id"])] = Row(float(line["score"]), int(line["pixels"]), *others)
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is no table of scores (columns {', '.join(COLUMNS[:6])}): {error}") from error
    if rows:
        measures.put(frame, rows)


def _text(value: float, digits: int) -> str:
    return "" if math.isnan(value) else f"{round(value, digits):g}" if digits < 3 else f"{value:.{digits}f}"


def _number(text: str | None) -> float:
    return float(text) if text else math.nan
