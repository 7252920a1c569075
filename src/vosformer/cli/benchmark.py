"""`vosformer benchmark`."""

from __future__ import annotations

import multiprocessing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import torch
import tyro
from rich import box
from rich.table import Table

from vosformer.cli.evaluate import bar, show_scores
from vosformer.cli.session_options import SessionOptions
from vosformer.cli.terminal import results, show_notes, show_table
from vosformer.device import free_threads
from vosformer.errors import InputError
from vosformer.evaluation.benchmark import BenchmarkResult
from vosformer.evaluation.benchmark import benchmark as run_benchmark
from vosformer.evaluation.presets import find_preset
from vosformer.evaluation.protocols import PROTOCOLS, named_protocol
from vosformer.evaluation.vot_run import Experiment, run_vot
from vosformer.inference.session import Session

_VOT: dict[str, Experiment] = {"vot-st": "baseline", "vot-st-realtime": "realtime"}
if TYPE_CHECKING:
    Dataset = str
else:
    Dataset = Literal[(*PROTOCOLS, *_VOT)]


@dataclass(frozen=True)
class Spread:
    """How the work is shared.

    Attributes:
        workers: processes that share the videos, one a GPU or some on the CPU; any of them may die, and nothing is lost.
        cluster: address of a Ray cluster whose nodes run the workers ("auto": the one that this machine belongs to); they must share
            the folders.
        shard: i/n: run only each n-th video from the i-th on (from 0); several machines may share the folder `out`.
        resume: go on with a run that was stopped.
    """

    workers: int = 1
    cluster: str | None = None
    shard: str | None = None
    resume: bool = False


def benchmark(
    dataset: Annotated[Dataset, tyro.conf.Positional],
    root: Annotated[Path, tyro.conf.Positional],
    /,
    out: Annotated[Path, tyro.conf.arg(aliases=("-o",))],
    split: str | None = None,
    run: Annotated[SessionOptions, tyro.conf.arg(name="")] = SessionOptions(size="own", memory="preset", dtype="fp32"),
    spread: Annotated[Spread, tyro.conf.arg(name="")] = Spread(),
    objects: bool = False,
) -> int:
    """Run a model over a data set by its official protocol, write the masks and the server's file, and score them.

    Args:
        dataset: the benchmark; "folder" for own clips; "vot-st" for the multi-start protocol of VOT-ST2020 to 2022, "vot-st-realtime"
            where frames do not wait for the tracker.
        root: the data set's folder (VOT: the workspace).
        out: folder for the masks, the server's file and the scores.
        split: another list of videos than the benchmark's: its name in ImageSets, or its file (YouTube-VIS: train).
        run: how the model runs. The memory "preset" is that of the system's paper for this data set, with its k of the top-k filter.
        spread: how the work is shared.
        objects: show the scores of every object.
    """
    console = results()
    run.prepare()
    run, source = _with_preset(run, dataset)
    _show_settings(run, source)
    if dataset in _VOT:
        if split is not None:
            raise InputError(f"--split is not for {dataset}: the workspace's list.txt names the sequences")
        return _run_vot(root, out, run, spread, objects, _VOT[dataset])
    with bar("running") as progress:
        result = run_benchmark(
            dataset,
            root,
            _factory(run, spread),
            out,
            split=split,
            resume=spread.resume,
            settings=run.decisive,
            options=run.read_options,
            workers=spread.workers,
            cluster=spread.cluster,
            part=spread.shard,
            progress=progress,
        )
    if result.report is not None:
        show_scores(result.report, objects)
    elif result.missing:
        console.print(f"not scored: {len(result.missing)} videos are left to other shards")
    elif named_protocol(dataset).public_truth:
        console.print("not scored: no video has true masks on further frames than the first")
    else:
        console.print("the true masks are not public: hand in the file below to be scored")
    show_notes(result.notes)
    console.print(f"masks: {result.folder}")
    if result.archive is not None:
        console.print(f"for the server: {result.archive}")
    _show_speed(result)
    return 0


def _run_vot(root: Path, out: Path, run: SessionOptions, spread: Spread, objects: bool, experiment: Experiment) -> int:
    if experiment == "realtime" and spread.workers > 1:
        show_notes(["workers that share a machine slow each other down, and real time counts that"])
    with bar("running") as progress:
        report = run_vot(
            root,
            _factory(run, spread),
            out,
            experiment=experiment,
            resume=spread.resume,
            settings=run.decisive,
            options=run.read_options,
            workers=spread.workers,
            cluster=spread.cluster,
            part=spread.shard,
            progress=progress,
        )
    if report is None:
        results().print("not scored: some runs are left to other shards")
    else:
        report.write_json(out / f"scores-{experiment}.json")
        show_scores(report, objects)
    results().print(f"results for the vot-toolkit: {out / 'vosformer'}")
    return 0


def _show_settings(run: SessionOptions, source: str) -> None:
    looks = {"scales": run.scales, "flip": run.flip, "closer": run.closer, "islands": run.islands}
    shown = {"memory": run.memory, "size": run.size, "dtype": run.dtype, **looks}
    words = [f"{name} {value}" for name, value in (shown | run.read_options).items()]
    results().print("settings: " + ", ".join([*words, *run.option]) + source)


def _with_preset(run: SessionOptions, dataset: str) -> tuple[SessionOptions, str]:
    """Put in what the system's paper has for the data set, where nothing else is asked for; and say where that comes from."""
    if run.memory != "preset":
        return run, ""
    preset = find_preset(run.variant.system, "own" if dataset in _VOT else named_protocol(dataset).family, dataset)
    asked = {word.split("=", 1)[0] for word in run.option}
    more = tuple(f"{name}={value}" for name, value in preset.options.items() if name not in asked)
    source = f" (preset: {preset.source}; --memory and --option change it)"
    return replace(run, memory=preset.memory, option=(*run.option, *more)), source


def _factory(run: SessionOptions, spread: Spread) -> partial[Session]:
    """Make what builds the session, here or in each worker."""
    if spread.cluster is not None:
        return partial(_session, replace(run, threads=run.threads or 1), 1)  # a worker has one CPU of its node
    return partial(_session, run, spread.workers) if spread.workers > 1 else partial(SessionOptions.session, run)


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


def _show_speed(result: BenchmarkResult) -> None:
    """Print frames a second of the model alone and end to end, and on what."""
    speed = result.speed()
    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0))
    for name in ("frames", "model FPS", "FPS end to end", "objects", "GPU peak MB", "machine"):
        table.add_column(name, justify="right", no_wrap=True)
    model = f"{result.model_fps:.2f}" if result.model_fps else "-"
    peak = f"{speed['gpu_peak_mb']:.0f}" if speed["gpu_peak_mb"] else "-"
    table.add_row(str(result.frames), model, f"{result.fps:.2f}", str(speed["objects"]), peak, str(speed["machine"]) or "-")
    show_table(table)
