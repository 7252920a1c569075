"""`vosformer evaluate` and `vosformer benchmark`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from vosformer.cli.common import show_table
from vosformer.cli.session_options import SessionOptions
from vosformer.errors import InputError
from vosformer.evaluation.protocols import named_protocol
from vosformer.evaluation.report import Report
from vosformer.evaluation.rules import RULES
from vosformer.evaluation.runner import Progress as Advance
from vosformer.evaluation.runner import evaluate as score
from vosformer.evaluation.track_report import TRACK_RULES, TrackReport, evaluate_tracks
from vosformer.evaluation.vot import VotReport
from vosformer.evaluation.vot_files import evaluate_vot

if TYPE_CHECKING:
    RuleName = str
else:
    RuleName = Literal[(*RULES, *TRACK_RULES, "vot")]
Dataset = Literal[
    "davis2016-val",
    "davis2017-val",
    "davis2017-test-dev",
    "youtube2018-val",
    "youtube2018-val-all-frames",
    "youtube2019-val",
    "youtube2019-val-all-frames",
    "mose-val",
    "lvos-val",
    "vost-val",
    "folder",
]


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
    json: Path | None = None,
    csv: Path | None = None,
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
        json: write all scores to this file.
        csv: write the table to this file.
        objects: show every object.
        per_frame: put the values of every frame into the JSON file, too.
        workers: threads. Default: one a core.
    """
    report: Report | TrackReport | VotReport
    if rules in RULES:
        with _bar("scoring") as progress:
            report = score(
                results,
                truth,
                rules=rules,
                split=sequences or split,
                missing=missing,
                seen=seen,
                unseen=unseen,
                workers=workers,
                progress=progress,
            )
    else:
        report = evaluate_vot(results, truth) if rules == "vot" else evaluate_tracks(results, truth, rules=rules)
    _show(report, objects)
    if not isinstance(report, Report):
        if csv is not None or per_frame:
            raise InputError(f"--csv and --per-frame are for scores by frame; those of {rules} can be written with --json")
        if json is not None:
            report.write_json(json)
        return 0
    if json is not None:
        report.write_json(json, per_frame=per_frame)
    if csv is not None:
        report.write_csv(csv)
    return 0


def benchmark(
    dataset: Annotated[Dataset, tyro.conf.Positional],
    root: Annotated[Path, tyro.conf.Positional],
    /,
    out: Annotated[Path, tyro.conf.arg(aliases=("-o",))],
    split: str | None = None,
    run: Annotated[SessionOptions, tyro.conf.arg(name="")] = SessionOptions(size="own"),
    resume: bool = False,
    objects: bool = False,
) -> int:
    """Run a model over a data set by its official protocol, write the masks and the server's zip file, and score them.

    Args:
        dataset: the benchmark; "folder" for own clips.
        root: the data set's folder.
        out: folder for the masks, the zip file and the scores.
        split: another list of videos than the benchmark's: its name in ImageSets, or its file.
        run: how the model runs.
        resume: go on with a run that was stopped.
        objects: show the scores of every object.
    """
    from vosformer.evaluation.benchmark import benchmark as run_benchmark

    run.prepare()
    with _bar("running") as progress:
        result = run_benchmark(
            dataset,
            root,
            run.session,
            out,
            split=split,
            resume=resume,
            settings=run.decisive,
            options=run.read_options,
            progress=progress,
        )
    console = Console()
    if result.report is not None:
        _show(result.report, objects)
    elif named_protocol(dataset).public_truth:
        console.print("not scored: no video has true masks on further frames than the first")
    else:
        console.print("the true masks are not public: hand in the zip file to be scored")
    console.print(f"masks: {result.folder}\nzip file: {result.archive}", soft_wrap=True, markup=False, highlight=False)
    console.print(f"{result.frames} frames, {result.fps:.2f} frames a second")
    return 0


def _show(report: Report | TrackReport | VotReport, objects: bool) -> None:
    show_table(report.table(objects=objects))
    for warning in report.warnings if isinstance(report, Report) else ():
        Console(stderr=True, soft_wrap=True).print("[yellow]note:[/]", warning, highlight=False, markup=True)


@contextmanager
def _bar(what: str) -> Iterator[Advance]:
    """A progress bar on the terminal's error stream; nothing where that is no terminal."""
    console = Console(stderr=True)
    columns = (
        TextColumn(what),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("frames"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None)

        def advance(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        yield advance
