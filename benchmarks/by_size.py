"""Scores of a finished benchmark by the size of the objects, and by the kind of clip.

    vosformer benchmark davis2017-val out/multi -o out/result
    python benchmarks/by_size.py out/result

Of composed clips, the kind is the first part of the name: "few" (2 to 3 objects), "several" (4 to 6), "alike" (look-alikes). An
object's area is that of its mask in the first frame that has it, in pixels at a short side of 480. Means are over objects.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
from one_step import SIZES, bucket
from rich.console import Console
from rich.table import Table

from vosformer.io import read_labels


class Object(NamedTuple):
    """One object of one clip: its area in pixels at a short side of 480, and its J and F in [0,1]."""

    clip: str
    area: float
    j: float
    f: float


def areas(masks: Path) -> dict[int, float]:
    """Return id -> area in the first frame that has it."""
    found: dict[int, float] = {}
    for path in sorted(masks.glob("*.png")):
        labels = read_labels(path, allow_empty=True).labels
        unit = (480 / min(labels.shape)) ** 2
        ids, counts = np.unique(labels, return_counts=True)
        for one, count in zip(ids.tolist(), counts.tolist(), strict=True):
            found.setdefault(one, count * unit)
    return found


def objects(result: Path) -> list[Object]:
    """Return all objects of a benchmark's folder."""
    scores = json.loads((result / "scores.json").read_text(encoding="utf-8"))
    truth, rows = Path(scores["truth"]), []
    if not truth.is_dir():
        raise SystemExit(
            f"{result / 'scores.json'}: its true masks, {truth}, are not there; run this where the benchmark was run"
        )
    for clip in scores["sequences"]:
        sizes = areas(truth / clip["name"])
        rows += [Object(clip["name"], sizes[one["id"]], one["J"]["mean"], one["F"]["mean"]) for one in clip["objects"]]
    return rows


def size(area: float) -> str:
    """Return the class of an area, in words."""
    return bucket(SIZES, area, " px")


def table(rows: list[Object]) -> Table:
    """Return means over objects, in percent."""
    shown = Table("", "objects", "J&F", "J", "F", title="In percent")
    groups: dict[str, list[Object]] = defaultdict(list)
    for one in sorted(rows, key=lambda row: row.area):
        groups[size(one.area)].append(one)
    groups["below 2,000 px"] = [one for one in rows if one.area < 2000]
    for one in rows:
        groups[one.clip.rpartition("-")[0] or one.clip].append(one)
    groups["all"] = rows
    for name, members in groups.items():
        if members:
            j, f = (100 * float(np.mean(values)) for values in ([one.j for one in members], [one.f for one in members]))
            shown.add_row(name, str(len(members)), f"{(j + f) / 2:.1f}", f"{j:.1f}", f"{f:.1f}")
    return shown


def main() -> None:
    """Print the table of one result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("result", type=Path, help="folder of `vosformer benchmark -o`")
    Console().print(table(objects(parser.parse_args().result)))


if __name__ == "__main__":
    main()
