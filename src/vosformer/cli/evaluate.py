"""`vosformer evaluate` and `vosformer benchmark`."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import torch
import tyro
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from vosformer.cli.common import show_table
from vosformer.cli.session_options import SessionOptions
from vosformer.device import free_threads
from vosformer.errors import InputError
from vosformer.evaluation.benchmark import BenchmarkResult
from vosformer.evaluation.html_report import write_html
from vosformer.evaluation.presets import find_preset
from vosformer.evaluation.protocols import PROTOCOLS, named_protocol
from vosformer.evaluation.report import Report
from vosformer.evaluation.rules import RULES
from vosformer.evaluation.runner import ProgressCallback as Advance
from vosformer.evaluation.runner import evaluate as score
from vosformer.evaluation.track_report import TRACK_RULES, TrackReport, evaluate_tracks
from vosformer.evaluation.vot import VotReport
from vosformer.evaluation.vot_files import evaluate_vot
from vosformer.evaluation.vot_run import run_vot
from vosformer.inference.session import Session

_VOT = "vot-st"  # VOT-ST2020 to 2022: runs from many anchors, results for the vot-toolkit
if TYPE_CHECKING:
    RuleName = str
    Dataset = str
else:
    Dataset = Literal[(*PROTOCOLS, _VOT)]
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
    json: Path | None = None,
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
        json: write all scores to this file.
        csv: write the table to this file.
        report: write a page (HTML) with the table, curves over time and the worst frames to this file.
        compare: results of another run, to compare with in the page.
        objects: show every object.
        per_frame: put the values of every frame into the JSON file, too.
        workers: threads. Default: one a core.
    """
    if rules not in RULES:
        if csv is not None or report is not None or compare is not None or per_frame:
            raise InputError(
                f"--csv, --report, --compare and --per-frame are for scores by frame; those of {rules} go to --json"
            )
        whole = evaluate_vot(results, truth) if rules == "vot" else evaluate_tracks(results, truth, rules=rules)
        _show(whole, objects)
        if json is not None:
            whole.write_json(json)
        return 0
    if compare is not None and report is None:
        raise InputError("--compare is for the page: name one with --report")
    chosen: dict[str, Any] = {"rules": rules, "split": sequences or split, "missing": missing, "seen": seen, "unseen": unseen}
    with _bar("scoring") as progress:
        scores = score(results, truth, **chosen, workers=workers, progress=progress)
    _show(scores, objects)
    if json is not None:
        scores.write_json(json, per_frame=per_frame)
    if csv is not None:
        scores.write_csv(csv)
    if report is not None:
        other = None
        if compare is not None:
            with _bar("scoring the other") as progress:
                other = score(compare, truth, **chosen, workers=workers, progress=progress)
        write_html(report, scores, other)
    return 0


def benchmark(
    dataset: Annotated[Dataset, tyro.conf.Positional],
    root: Annotated[Path, tyro.conf.Positional],
    /,
    out: Annotated[Path, tyro.conf.arg(aliases=("-o",))],
    split: str | None = None,
    run: Annotated[SessionOptions, tyro.conf.arg(name="")] = SessionOptions(size="own", memory="preset", dtype="fp32"),
    workers: int = 1,
    shard: str | None = None,
    resume: bool = False,
    objects: bool = False,
) -> int:
    """Run a model over a data set by its official protocol, write the masks and the server's zip file, and score them.

    Args:
        dataset: the benchmark; "folder" for own clips; "vot-st" for the multi-start protocol of VOT-ST2020 to 2022.
        root: the data set's folder (VOT: the workspace).
        out: folder for the masks, the zip file and the scores.
        split: another list of videos than the benchmark's: its name in ImageSets, or its file.
        run: how the model runs. The memory "preset" is that of the system's paper for this data set, with its k of the top-k filter.
        workers: processes that share the videos, one a GPU or some on the CPU; any of them may die, and nothing is lost.
        shard: i/n: run only each n-th video from the i-th on (from 0); several machines may share the folder `out`.
        resume: go on with a run that was stopped.
        objects: show the scores of every object.
    """
    from vosformer.evaluation.benchmark import benchmark as run_benchmark

    console = Console(soft_wrap=True, highlight=False)
    run.prepare()
    run, source = _with_preset(run, dataset)
    shown = {
        "memory": run.memory,
        "size": run.size,
        "dtype": run.dtype,
        "scales": run.scales,
        "flip": run.flip,
        **run.read_options,
    }
    console.print(
        "settings: "
        + ", ".join(f"{name} {value}" for name, value in shown.items())
        + "".join(f", {word}" for word in run.option)
        + source,
        markup=False,
    )
    if dataset == _VOT:
        if workers > 1 or shard is not None or split is not None:
            raise InputError(f"--workers, --shard and --split are not for {_VOT}")
        with _bar("running") as progress:
            runs = run_vot(root, run.session, out / "vosformer" / "baseline", options=run.read_options, progress=progress)
        runs.write_json(out / "scores.json")
        _show(runs, objects)
        console.print(f"results for the vot-toolkit: {out / 'vosformer'}", markup=False)
        return 0
    with _bar("running") as progress:
        result = run_benchmark(
            dataset,
            root,
            partial(_session, run, workers) if workers > 1 else run.session,
            out,
            split=split,
            resume=resume,
            settings=run.decisive,
            options=run.read_options,
            workers=workers,
            part=shard,
            progress=progress,
        )
    if result.report is not None:
        _show(result.report, objects)
    elif result.missing:
        console.print(f"not scored: {len(result.missing)} videos are left to other shards", markup=False)
    elif named_protocol(dataset).public_truth:
        console.print("not scored: no video has true masks on further frames than the first")
    else:
        console.print("the true masks are not public: hand in the zip file to be scored")
    console.print(f"masks: {result.folder}", markup=False)
    if result.archive is not None:
        console.print(f"zip file: {result.archive}", markup=False)
    _show_speed(result, console)
    return 0


def _with_preset(run: SessionOptions, dataset: str) -> tuple[SessionOptions, str]:
    """Put in what the system's paper has for the data set, where nothing else is asked for; and say where that comes from."""
    if run.memory != "preset":
        return run, ""
    preset = find_preset(run.variant.system, "own" if dataset == _VOT else named_protocol(dataset).family, dataset)
    asked = {word.split("=", 1)[0] for word in run.option}
    more = tuple(f"{name}={value}" for name, value in preset.options.items() if name not in asked)
    source = f" (preset: {preset.source}; --memory and --option change it)"
    return replace(run, memory=preset.memory, option=(*run.option, *more)), source


def _session(run: SessionOptions, workers: int) -> Session:
    """Build the session of one of several workers: with its share of the CPU's threads, and one of the GPUs if there are several."""
    threads = run.threads or max(1, free_threads() // workers)
    number = int((multiprocessing.current_process()._identity or (1,))[0]) - 1
    device = run.device
    if device in ("auto", "cuda") and torch.cuda.device_count() > 1:
        device = f"cuda:{number % torch.cuda.device_count()}"
    run = replace(run, threads=threads, device=device)
    run.prepare()
    return run.session()


def _show_speed(result: BenchmarkResult, console: Console) -> None:
    """Print frames a second of the model alone and end to end, and on what."""
    speed = result.speed()
    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0))
    for name in ("frames", "model FPS", "FPS end to end", "objects", "GPU peak MB", "machine"):
        table.add_column(name, justify="right", no_wrap=True)
    model = f"{result.model_fps:.2f}" if result.model_fps else "-"
    peak = f"{speed['gpu_peak_mb']:.0f}" if speed["gpu_peak_mb"] else "-"
    table.add_row(str(result.frames), model, f"{result.fps:.2f}", str(speed["objects"]), peak, str(speed["machine"]) or "-")
    show_table(table)


def _show(report: Report | TrackReport | VotReport, objects: bool) -> None:
    show_table(report.table(objects=objects))
    if not isinstance(report, Report):
        return
    official = {} if report.official is None else report.official.overall
    more = [f"{name} {value:.4g}" for name, value in official.items() if name not in report.columns]
    if more:
        Console(soft_wrap=True).print("as its own scorer gives them: " + ", ".join(more), highlight=False, markup=False)
    for warning in report.warnings:
        Console(stderr=True, soft_wrap=True).print("[yellow]note:[/]", warning, highlight=False, markup=True)


@contextmanager
def _bar(what: str) -> Iterator[Advance]:
    """Provide a progress bar on the terminal's error stream; nothing where that is no terminal."""
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
