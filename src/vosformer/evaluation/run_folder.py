"""The folder of a benchmark run: what was asked for, what is done, and the zip file for the server."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from vosformer.errors import InputError
from vosformer.evaluation.run_video import Timing
from vosformer.io import write_bytes
from vosformer.io.files import make_folder, output_errors, remove, replacing

_ZIP_TIME = (1980, 1, 1, 0, 0, 0)  # the same results give the same bytes


@dataclass(frozen=True)
class RunFolder:
    """A run: ``Annotations`` with a folder for each video that is done, ``timing`` with a file for each, and run.json.

    Attributes:
        out: the folder.
        given: what was asked for, as plain values.
    """

    out: Path
    given: dict[str, Any]

    @staticmethod
    def open(out: Path, given: dict[str, Any], resume: bool) -> RunFolder:
        """Begin a run, or go on with one.

        Raises:
            InputError: the folder holds another run, or one that is not to be resumed.
            OutputError: it cannot be written.
        """
        path = make_folder(out) / "run.json"
        given = json.loads(json.dumps(given))
        if path.is_file():
            try:
                former = json.loads(path.read_text(encoding="utf-8"))
                former = {name: former[name] for name in given}
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise InputError(f"{path} cannot be read, so the run cannot be resumed: {error!r}") from error
            # A run without any video yet, e.g. for a mistake in its settings, is in nobody's way.
            begun = any(entry.name[0] != "." for entry in (out / "Annotations").glob("*"))
            if begun and not resume:
                raise InputError(f"{out} already holds the results of a run; resume it, or choose another folder")
            if begun and former != given:
                raise InputError(f"{out} holds a run of other settings: {former}; asked for are {given}")
        elif (out / "Annotations").exists():
            raise InputError(
                f"{out / 'Annotations'} is in the way: it is of no run that could be resumed; choose another folder"
            )
        run = RunFolder(out, given)
        write_bytes(path, _text(given))
        make_folder(run.masks)
        make_folder(out / "timing")
        return run

    @property
    def masks(self) -> Path:
        """The folder of the masks."""
        return self.out / "Annotations"

    def has(self, name: str) -> bool:
        """Tell whether a video is done."""
        return (self.masks / name).is_dir()

    def add(self, name: str, run: Callable[[Path], Timing]) -> None:
        """Run a video into a folder that gets its name when it is complete."""
        part = self.masks / f".part-{name}"
        remove(part)
        timing = run(part)
        write_bytes(self.out / "timing" / f"{name}.json", _text(asdict(timing)))
        with output_errors(part):
            part.rename(self.masks / name)

    def timings(self, names: Sequence[str]) -> dict[str, Timing]:
        """Read how long videos took, as far as that is known."""
        files = {name: self.out / "timing" / f"{name}.json" for name in names}
        try:
            return {name: Timing(**json.loads(file.read_text())) for name, file in files.items() if file.is_file()}
        except (OSError, ValueError, TypeError) as error:
            raise InputError(f"a file in {self.out / 'timing'} cannot be read: {error}") from error

    def summarize(self, more: dict[str, Any], timings: dict[str, Timing]) -> None:
        """Write run.json: what was asked for, and what came of it."""
        videos = {name: asdict(timing) for name, timing in timings.items()}
        write_bytes(self.out / "run.json", _text({**self.given, **more, "videos": videos}))

    def pack(self, dataset: str, names: Sequence[str], prefix: str) -> Path:
        """Write the zip file; PNGs do not get smaller, so they are only stored."""
        path = self.out / f"{dataset}.zip"
        with replacing(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
            for file in chain.from_iterable(sorted((self.masks / name).rglob("*.png")) for name in names):
                entry = zipfile.ZipInfo(f"{prefix}{file.relative_to(self.masks).as_posix()}", _ZIP_TIME)
                archive.writestr(entry, file.read_bytes())
        return path


def _text(values: Any) -> bytes:
    return (json.dumps(values, indent=1) + "\n").encode()
