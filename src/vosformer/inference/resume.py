"""What a tracking run leaves behind so that a later process can go on: written atomically, refused where the run was another one."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vosformer.errors import InputError
from vosformer.inference.session import Session
from vosformer.io import Source, write_bytes
from vosformer.io.files import make_folder, remove, write_json


@dataclass
class RunProgress:
    """How far a run has come.

    Attributes:
        part: the pass over the source that is under way.
        frames: frames of that pass that are done.
        written: frames written in all.
        bridged: see `TrackReport`.
        doubts: see `TrackReport`, as tuples.
        sinks: what the sinks need to go on (`Sink.checkpoint`).
        labels: int32 [H,W] of the last frame.
        complete: there is nothing left to do.
        notes: `vosformer.io.Notes.state` of the source.
        ended: objects that were tracked and are absent for good.
    """

    part: int = 0
    frames: int = 0
    written: int = 0
    bridged: list[int] = field(default_factory=list)
    doubts: list[tuple[Any, ...]] = field(default_factory=list)
    sinks: dict[str, Any] | None = None
    labels: NDArray[np.int32] | None = None
    complete: bool = False
    notes: dict[str, list[Any]] = field(default_factory=dict)
    ended: list[int] = field(default_factory=list)


class RunState:
    """The folder in which a run keeps its progress: `run.json`, and the session and labels of the latest checkpoint.

    Args:
        folder: created if needed.
        mark: what the run's results depend on, see `survey`.
    """

    def __init__(self, folder: Path, mark: str) -> None:
        self._folder, self._mark = folder, mark

    def load(self, session: Session) -> RunProgress:
        """Return the progress of the run before, with its session restored; a fresh one if that run never came to a checkpoint.

        Raises:
            InputError: the run before had other input or settings, or its files are broken.
        """
        path = self._folder / "run.json"
        if not path.exists():
            return RunProgress()
        try:
            known = json.loads(path.read_text())
            mark, progress, serial = known["mark"], RunProgress(**known["progress"]), known["serial"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path}: the run cannot be resumed, its state is broken ({error}); start it anew") from None
        if mark != self._mark:
            raise InputError(
                f"{self._folder}: the run to resume had another video, other masks or other settings; give the same ones, "
                f"or start anew without --resume"
            )
        if not progress.complete:
            session.load(self._folder / f"session-{serial}.safetensors")
            progress.labels = np.load(self._folder / f"labels-{serial}.npy", allow_pickle=False)
        return progress

    def forget(self) -> None:
        """Begin a new run: what a former one left must not be taken for its progress.

        Raises:
            OutputError: the files cannot be removed.
        """
        for path in (self._folder / "run.json", *self._folder.glob("session-*"), *self._folder.glob("labels-*")):
            remove(path)

    def save(self, session: Session, progress: RunProgress) -> None:
        """Keep a checkpoint; the one before is removed only when this one is whole."""
        make_folder(self._folder)
        serial = f"{progress.part}-{progress.frames}"
        session.save(self._folder / f"session-{serial}.safetensors")
        buffer = io.BytesIO()
        np.save(buffer, progress.labels if progress.labels is not None else np.zeros((0, 0), np.int32))
        write_bytes(self._folder / f"labels-{serial}.npy", buffer.getvalue())
        self._write(progress, serial)

    def finish(self, progress: RunProgress) -> None:
        """Note that the run is complete and remove its checkpoints."""
        make_folder(self._folder)
        progress.complete = True
        self._write(progress, "")

    def _write(self, progress: RunProgress, serial: str) -> None:
        values = asdict(progress)
        values["labels"] = None
        write_json(self._folder / "run.json", {"mark": self._mark, "serial": serial, "progress": values})
        # The last pattern is for what a killed process was just writing.
        for old in (*self._folder.glob("session-*"), *self._folder.glob("labels-*"), *self._folder.glob(".tmp-session-*")):
            if old.stem.partition("-")[2] != serial:
                remove(old)


def survey(source: Source, masks: Mapping[int, NDArray[Any]], settings: Mapping[str, Any]) -> tuple[set[int], str]:
    """Return (the ids in the masks, text that differs if the frames, the masks or the settings do); masks are looked at one
    by one.

    Raises:
        InputError: a mask has another size than the frames.
    """
    ids: set[int] = set()
    digest = hashlib.sha256(repr((source.fingerprint(), source.height, source.width)).encode())
    for number in sorted(masks):
        labels = np.ascontiguousarray(masks[number], np.int64)
        if labels.shape != (source.height, source.width):
            raise InputError(
                f"the mask of frame {number} has the shape {labels.shape}, expected {(source.height, source.width)} as {source.name}"
            )
        digest.update(repr((number, labels.shape)).encode() + labels.tobytes())
        ids.update(np.unique(labels).tolist())
    digest.update(json.dumps(settings, sort_keys=True, default=str).encode())
    return ids - {0}, digest.hexdigest()
