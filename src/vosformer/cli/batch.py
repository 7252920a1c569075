"""`vosformer batch`: many videos in one command, resumable, over several processes and machines."""

from __future__ import annotations

import csv
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import tyro

from vosformer.cli.job import Job, follow
from vosformer.cli.session_options import SessionOptions
from vosformer.cli.source_options import SourceOptions
from vosformer.cli.terminal import messages
from vosformer.errors import InputError
from vosformer.formats.outputs import check_edges, check_outputs
from vosformer.inference.session import Session
from vosformer.inference.tracking import Direction
from vosformer.io.edges import Edges
from vosformer.io.files import output_errors, write_bytes
from vosformer.io.images import SUFFIXES as PICTURES
from vosformer.io.order import natural_key
from vosformer.parallel import Outcome, run_all
from vosformer.parallel import shard as take_part

_VIDEOS = frozenset({".mp4", ".mov", ".mkv", ".webm", ".avi", ".ts", ".mts", ".m2ts", ".m4v", ".mpg", ".mpeg", ".gif", ".mxf"})
_MASKS = (".png", ".json", ".xml", ".txt", ".npy", ".npz", "")
_COLUMNS = ("name", "video", "mask", "frame", "direction", "start", "stop", "names")


def batch(
    videos: Annotated[Path, tyro.conf.Positional],
    /,
    out: Annotated[Path, tyro.conf.arg(aliases=("-o",))],
    masks: Path | None = None,
    legend: Path | None = None,
    outputs: tuple[str, ...] = ("masks", "overlay", "scores"),
    direction: Literal["forward", "backward", "both"] = "forward",
    pictures: bool = False,
    exact: bool = False,
    edges: Annotated[Edges, tyro.conf.arg(name="")] = Edges(),
    run: Annotated[SessionOptions, tyro.conf.arg(name="")] = SessionOptions(),
    reading: Annotated[SourceOptions, tyro.conf.arg(name="")] = SourceOptions(),
    workers: int = 1,
    shard: str | None = None,
    cluster: str | None = None,
    resume: bool = False,
) -> int:
    """Follow marked objects through many videos: one row of a list, or one video of a folder, after another.

    Each video's results go to OUT/NAME, and a line about it to OUT/batch.jsonl. A video that fails does not stop the others; all
    failures are listed at the end, and the exit code is 1.

    Args:
        videos: a list, or a folder. A list is .csv, .json or .jsonl of columns video, mask, and optionally name, frame (of a
            single mask), direction, start, stop, names (objects.json); paths are relative to the list. A folder holds
            videos and folders of images, each with a mask of its name: clip.mp4 and
            clip.png (or .json, .xml, .txt, .npy, or a folder of masks).
        out: folder for the results.
        masks: folder of the masks of a folder of videos (default: beside them); or one mask for every video that has none of its own.
        legend: see `vosformer track --help`.
        outputs: what to write for each video, see `vosformer track --help`.
        direction: of the rows that name none.
        pictures: see `vosformer track --help`.
        exact: see `vosformer track --help`.
        edges: what is done to the edges of mattes and cut-outs.
        run: how the model runs.
        reading: how the frames are read.
        workers: processes; each takes one thread, unless --threads says otherwise.
        shard: I/N: do only each N-th video from the I-th on (from 0), for several machines with the same OUT.
        cluster: address of a Ray cluster whose nodes run the workers ("auto": the one that this machine belongs to); they must share
            all folders.
        resume: leave out what is done, and go on with what was stopped.
    """
    console = messages()
    check_outputs(outputs)
    check_edges(outputs, edges)
    template = Job(
        "", Path(), out, legend=legend, outputs=outputs, direction=direction, pictures=pictures, exact=exact, edges=edges
    )
    rows = _rows(videos, masks, template)
    mine = take_part(rows, shard)
    log = out / ("batch.jsonl" if shard is None else f"batch-{shard.replace('/', '-of-')}.jsonl")
    done = _done(out, mine) if resume else set()
    todo = [job for job in mine if job.out.name not in done]
    _begin_log(log, keep=resume)
    failures: list[str] = []
    token = f"{os.getpid()} {time.time_ns()}"  # of this call: tells a worker that was lost from a former call
    start = partial(
        _start, run, reading, resume, token, threads=run.threads if workers == 1 and cluster is None else run.threads or 1
    )
    for outcome in run_all(todo, start, workers=workers, cluster=cluster):
        job = todo[outcome.index]
        _note(log, job, outcome)
        if outcome.error is None:
            frames, seconds = outcome.value or (0, 0.0)
            console.print(f"{job.out.name}: {frames} frames in {seconds:.1f} s")
        else:
            failures.append(f"{job.out.name}: {outcome.error}")
            console.print(f"{job.out.name}: failed: {outcome.error}", style="red")
    left = f", {len(done)} were done before" if done else ""
    console.print(f"{len(todo) - len(failures)} of {len(mine)} videos done{left}, {len(failures)} failed; see {log}")
    for failure in failures:
        console.print(f"  {failure}", style="red")
    return 1 if failures else 0


@dataclass
class _Worker:
    """Tracks one row after another with one session."""

    run: SessionOptions
    reading: SourceOptions
    resume: bool
    token: str
    session: Session | None = None

    def __call__(self, job: Job, advance: Callable[[int], None]) -> tuple[int, float]:
        """Return the frames written and the seconds that it took."""
        begin = time.perf_counter()
        # What a worker that was lost has begun is gone on with.
        mark = job.out / ".vosformer" / "batch"
        resume = self.resume or (mark.exists() and mark.read_text() == self.token)
        if not resume:
            _write_mark(mark, self.token)
        report = follow(job, self._session, self.run, self.reading, resume=resume, progress=lambda done, _: advance(done))
        mark.unlink(missing_ok=True)
        return report.frames, time.perf_counter() - begin

    def _session(self) -> Session:
        if self.session is None:
            self.session = self.run.session()
        return self.session


def _write_mark(path: Path, token: str) -> None:
    """Leave word that this run has begun a video."""
    with output_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, token.encode())


def _start(run: SessionOptions, reading: SourceOptions, resume: bool, token: str, threads: int | None) -> _Worker:
    run = replace(run, threads=threads)
    run.prepare()
    return _Worker(run, reading, resume, token)


def _rows(videos: Path, masks: Path | None, template: Job) -> list[Job]:
    """Return the jobs of a folder or a list.

    Raises:
        InputError: there is none, a row lacks a video or mask, or two have the same name.
    """
    if videos.is_dir():
        jobs = _of_folder(videos, masks, template)
    elif videos.exists():
        jobs = [_of_row(row, at, videos, masks, template) for at, row in enumerate(_read_list(videos), 1)]
    else:
        raise InputError(f"{videos}: there is no such folder or list")
    if not jobs:
        raise InputError(f"{videos} names no video: expected a folder of videos, or a list with the columns video and mask")
    names: dict[str, Job] = {}
    for job in jobs:
        if job.out.name in names:
            raise InputError(
                f"{videos}: {names[job.out.name].video} and {job.video} are both called {job.out.name}, so their results would "
                "overwrite each other; give them names in the column name"
            )
        names[job.out.name] = job
    return jobs


def _of_folder(folder: Path, masks: Path | None, template: Job) -> list[Job]:
    beside = masks if masks is not None and masks.is_dir() else folder
    single = masks if masks is not None and not masks.is_dir() else None
    jobs, lacking = [], []
    for entry in sorted(folder.iterdir(), key=lambda entry: natural_key(entry.name)):
        if entry.name.startswith(".") or not _is_video(entry):
            continue
        mask = next((path for path in _mask_names(beside, entry) if path.exists() and path != entry), single)
        if mask is None:
            lacking.append(entry.name)
            continue
        name = entry.name if entry.is_dir() else entry.stem
        jobs.append(replace(template, video=str(entry), mask=mask, out=template.out / name))
    if beside == folder:  # a folder of masks beside a video of its name is no video itself
        taken = {job.mask for job in jobs}
        jobs = [job for job in jobs if Path(job.video) not in taken]
        lacking = [name for name in lacking if folder / name not in taken]
    if lacking:
        shown = ", ".join(lacking[:5]) + (", ..." if len(lacking) > 5 else "")
        stem = Path(lacking[0]).stem
        raise InputError(f"{beside} has no mask for {shown}: expected e.g. {stem}.png, {stem}.json or a folder {stem}")
    return jobs


def _mask_names(folder: Path, video: Path) -> list[Path]:
    stem = video.name if video.is_dir() else video.stem
    return [folder / f"{stem}{suffix}" for suffix in _MASKS]


def _is_video(entry: Path) -> bool:
    if entry.is_dir():
        return any(path.suffix.lower() in PICTURES for path in entry.iterdir())
    return entry.suffix.lower() in _VIDEOS


def _read_list(path: Path) -> list[Mapping[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix.lower() == ".csv":
            return list(csv.DictReader(text.splitlines()))
        if path.suffix.lower() == ".jsonl":
            rows = [json.loads(line) for line in text.splitlines() if line.strip()]
        else:
            rows = json.loads(text)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, csv.Error) as error:
        raise InputError(f"{path} is no list of videos: expected .csv, .json or .jsonl ({error})") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise InputError(f'{path} is no list of videos: expected rows like {{"video": "a.mp4", "mask": "a.png"}}')
    return rows


def _of_row(row: Mapping[str, Any], at: int, path: Path, masks: Path | None, template: Job) -> Job:
    """One row as a job.

    Raises:
        InputError: a column is unknown or missing, or a value is of another kind.
    """
    strange = [str(key) for key in row if key not in _COLUMNS]
    if strange:
        raise InputError(f"{path}, row {at}: there is no column {strange[0]!r}; expected {', '.join(_COLUMNS)}")
    values = {key: value for key, value in row.items() if value not in (None, "")}
    if "video" not in values or ("mask" not in values and masks is None):
        raise InputError(f"{path}, row {at} has no {'mask' if 'video' in values else 'video'}")
    video = str(values["video"])
    local = path.parent / video
    name = str(values.get("name") or (local.name if local.is_dir() else Path(video).stem))
    if name in (".", "..") or "/" in name or os.sep in name:
        raise InputError(f"{path}, row {at}: the name {name!r} is no name of a folder")
    direction = values.get("direction", template.direction)
    if direction not in get_args(Direction):
        raise InputError(f"{path}, row {at}: direction is {direction!r}, expected one of {', '.join(get_args(Direction))}")
    numbers: dict[str, Any] = {}
    for key, field in (("frame", "mask_frame"), ("start", "start"), ("stop", "stop")):
        if key in values:
            if not str(values[key]).strip().isdecimal():
                raise InputError(f"{path}, row {at}: {key} is {values[key]!r}, expected a whole number")
            numbers[field] = int(values[key])
    return replace(
        template,
        video=str(local) if local.exists() or "://" not in video else video,
        mask=path.parent / str(values["mask"]) if "mask" in values else masks or Path(),
        out=template.out / name,
        names=path.parent / str(values["names"]) if "names" in values else None,
        direction=direction,
        **numbers,
    )


def _done(out: Path, jobs: list[Job]) -> set[str]:
    """Names of the rows that a former run has done with the same input and outputs."""
    rows = {job.out.name: _about(job) for job in jobs}
    done: dict[str, bool] = {}
    for log in sorted(out.glob("batch*.jsonl")):
        for line in log.read_text(encoding="utf-8").splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue  # of a run that was killed while it wrote
            name = entry.get("name")
            if rows.get(name) == entry.get("row"):
                done[name] = entry.get("status") == "done" and (out / name / "run.json").exists()
    return {name for name, whole in done.items() if whole}


def _about(job: Job) -> dict[str, Any]:
    """Return what decides a row's results, for JSON."""
    return json.loads(json.dumps({key: getattr(job, key) for key in job.__dataclass_fields__ if key != "out"}, default=str))  # type: ignore[no-any-return]


def _begin_log(log: Path, keep: bool) -> None:
    with output_errors(log):
        log.parent.mkdir(parents=True, exist_ok=True)
        if not keep and log.exists():
            os.replace(log, log.with_name(f"{log.name}.old"))


def _note(log: Path, job: Job, outcome: Outcome[tuple[int, float]]) -> None:
    """Append a row's status."""
    frames, seconds = outcome.value or (0, 0.0)
    entry: dict[str, Any] = {"name": job.out.name, "status": "done" if outcome.error is None else "failed"}
    entry |= {"frames": frames, "seconds": round(seconds, 2)} if outcome.error is None else {"error": str(outcome.error)}
    with output_errors(log), log.open("a", encoding="utf-8", errors="surrogateescape") as file:
        file.write(json.dumps(entry | {"row": _about(job)}, ensure_ascii=False) + "\n")
