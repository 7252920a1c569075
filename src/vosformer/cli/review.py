"""`vosformer review`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro
from rich.table import Table

from vosformer.annotate.project_file import read_about
from vosformer.annotate.review import measures_of_results, rank, suggest
from vosformer.cli.terminal import show_table
from vosformer.io.files import write_json


def review(
    out: Annotated[Path, tyro.conf.Positional],
    /,
    most: int = 20,
    least: float = 0.3,
    k: Annotated[int, tyro.conf.arg(name="suggest")] = 5,
) -> int:
    """List the doubtful frames of a result, worst first, and the frames whose correction would help most; both go to review.json.

    Args:
        out: folder that `vosformer track` wrote (masks and scores), or a project of `vosformer annotate`.
        most: entries of the list.
        least: doubt in [0,1] from which on a frame is listed.
        k: how many frames to suggest for correction.
    """
    measures = measures_of_results(out)
    given: dict[int, list[int]] = {}
    if (out / "project.json").exists():
        for frame, said in read_about(out)["given"].items():
            for i in said["ids"]:
                given.setdefault(int(i), []).append(int(frame))
    found = rank(measures, given, most, least)
    chosen = suggest(measures, k, given)
    table = Table("frame", "object", "doubt", "why", box=None)
    for doubt in found:
        table.add_row(str(doubt.frame), str(doubt.id), f"{doubt.doubt:.2f}", doubt.reason)
    show_table(table)
    print(f"correct these first: {', '.join(map(str, chosen)) or 'none'}")
    entries = [{"frame": d.frame, "id": d.id, "doubt": round(d.doubt, 4), "signs": dict(d.signs)} for d in found]
    write_json(out / "review.json", {"doubtful": entries, "suggested": chosen})
    return 0
