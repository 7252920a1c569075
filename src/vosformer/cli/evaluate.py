"""`vosformer evaluate`."""

from __future__ import annotations

import json as jsonlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from vosformer.cli.terminal import messages, results, show_notes, show_table
from vosformer.errors import InputError
from vosformer.evaluation.html_report import write_html
from vosformer.evaluation.report import Report
from vosformer.evaluation.rules import RULES
from vosformer.evaluation.runner import ProgressCallback as Advance
from vosformer.evaluation.runner import evaluate as score
from vosformer.evaluation.track_report import TRACK_RULES, TrackScores, evaluate_tracks
from vosformer.evaluation.vot import VotReport
from vosformer.evaluation.vot_files import evaluate_vot

if TYPE_CHECKING:
    RuleName = str
else:
    RuleName = Literal[(*RULES, *TRACK_RULES, "vot")]


def evaluate(
    results: Annotated[Path, tyro.conf.Positional],
    /,
    truth: Path,
    rules: RuleName = "davis",
    split: str | None = None,
    sequences: tuple[str, ...] = (),
    missing: Literal["error", "zero"] = "error",
    seen: Path | None = None,
    unseen: Path | None = None,
    json: bool = False,
    output: Path | None = None,
    csv: Path | None = None,
    report: Path | None = None,
    compare: Path | None = None,
    objects: bool = False,
    per_frame: bool = False,
    workers: int | None = None,
) -> int:
    """Score result masks against true ones by the rules of a benchmark: J, F and J&F; HOTA and AP; A, R and EAO.

    Args:
        results: folder of the result masks: a sequence of PNG label maps, or a folder of sequences. burst and youtube-vis: the result
            file. vot: the folder results/TRACKER/baseline (or realtime).
        truth: folder of the true masks, or a data set's root (DAVIS: Annotations/480p). burst and youtube-vis: the annotation file.
            vot: the workspace.
        rules: whose rules decide which frames and objects count.
        split: list of sequences in ImageSets ("val", "2017/val"), or its file. Default: the list that names exactly the sequences of
            the results, else all sequences that have true masks.
        sequences: score only these.
        missing: result frames, sequences and objects that are missing are an error, or empty masks (zero).
        seen: categories of the training set (YouTube-VOS): its meta.json, or a text file with one a line.
        unseen: unseen videos (LVOS), a text file with one a line. Default: unseen_videos.txt beside the true masks.
        json: print all scores as JSON instead of the table.
        output: write all scores as JSON to this file.
        csv: write the table to this file.
        report: write a page (HTML) with the table, curves over time and the worst frames to this file.
        compare: results of another run, to compare with in the page.
        objects: show every object.
        per_frame: put the values of every frame into the JSON, too.
        workers: threads. Default: one a core.
    """
    if rules not in RULES:
        if csv is not None or report is not None or compare is not None or per_frame:
            raise InputError(
                f"--csv, --report, --compare and --per-frame are for scores by frame; use --output or --json for those of {rules}"
            )
        whole = evaluate_vot(results, truth) if rules == "vot" else evaluate_tracks(results, truth, rules=rules)
        if json:
            print(jsonlib.dumps(whole.to_dict(), indent=1))
        else:
            show_scores(whole, objects)
        if output is not None:
            whole.write_json(output)
        return 0
    if compare is not None and report is None:
        raise InputError("--compare is for the page: name one with --report")
    chosen: dict[str, Any] = {"rules": rules, "split": sequences or split, "missing": missing, "seen": seen, "unseen": unseen}
    with bar("scoring") as progress:
        scores = score(results, truth, **chosen, workers=workers, progress=progress)
    if json:
        print(jsonlib.dumps(scores.to_dict(per_frame=per_frame), indent=1))
        show_notes(scores.warnings)
    else:
        show_scores(scores, objects)
    if output is not None:
        scores.write_json(output, per_frame=per_frame)
    if csv is not None:
        scores.write_csv(csv)
    if report is not None:
        other = None
        if compare is not None:
            with bar("scoring the other") as progress:
                other = score(compare, truth, **chosen, workers=workers, progress=progress)
        write_html(report, scores, other)
    return 0


def show_scores(report: Report | TrackScores | VotReport, objects: bool) -> None:
    show_table(report.table(objects=objects))
    if not isinstance(report, Report):
        return
    official = {} if report.official is None else report.official.overall
    more = [f"{name} {value:.4g}" for name, value in official.items() if name not in report.columns]
    if more:
        results().print("as its own scorer gives them: " + ", ".join(more))
    show_notes(report.warnings)


@contextmanager
def bar(what: str) -> Iterator[Advance]:
    """Provide a progress bar on the terminal's error stream; nothing where that is no terminal."""
    columns = (
        TextColumn(what),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("frames"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=messages(), transient=True, disable=not messages().is_terminal) as bar:
        task = bar.add_task(what, total=None)

        def advance(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        yield advance
