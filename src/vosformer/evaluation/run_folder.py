"""The folder of a benchmark run: what was asked for and what is done."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vosformer.errors import InputError
from vosformer.evaluation.run_video import Timing
from vosformer.io import write_bytes
from vosformer.io.files import make_folder, output_errors, remove, taking_turns


@dataclass(frozen=True)
class RunFolder:
    """A run: ``Annotations`` with a folder for each video that is done, ``timing`` with a file for each, and run.json.

    Attributes:
        out: the folder.
        given: what was asked for, as plain values.
        inside: the folder of the results in it.
    """

    out: Path
    given: dict[str, Any]
    inside: str = "Annotations"

    @staticmethod
    def open(out: Path, given: dict[str, Any], resume: bool, inside: str = "Annotations", file: str = "run.json") -> RunFolder:
        """Begin a run, or go on with one.

        Args:
            out: the folder.
            given: what is asked for, as plain values.
            resume: go on with a run in it.
            inside: the folder of the results in it.
            file: the file that keeps what was asked for.

        Raises:
            InputError: the folder holds another run, or one that is not to be resumed.
            OutputError: it cannot be written.
        """
        path, results = make_folder(out) / file, out / inside
        given = json.loads(json.dumps(given))
        if path.is_file():
            try:
                former = json.loads(path.read_text(encoding="utf-8"))
                former = {name: former[name] for name in given}
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise InputError(f"{path} cannot be read, so the run cannot be resumed: {error!r}") from error
            # A run without any video yet, e.g. for a mistake in its settings, may be written over.
            begun = any(entry.name[0] != "." for entry in results.glob("*"))
            if begun and not resume:
                raise InputError(f"{out} already holds the results of a run; resume it, or choose another folder")
            if begun and former != given:
                raise InputError(f"{out} holds a run of other settings: {former}; asked for are {given}")
        elif results.exists():
            raise InputError(f"{results} is in the way: it is of no run that could be resumed; choose another folder")
        run = RunFolder(out, given, inside)
        write_bytes(path, _text(given))
        make_folder(run.masks)
        make_folder(out / "timing")
        return run

    @staticmethod
    def alone(out: Path) -> AbstractContextManager[None]:
        """Keep other processes and machines out of a run's common files while one of them writes them.

        Raises:
            OutputError: the folder cannot be written.
        """
        return taking_turns(make_folder(out) / ".lock")

    @property
    def masks(self) -> Path:
        """The folder of the masks."""
        return self.out / self.inside

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


def _text(values: Any) -> bytes:
    return (json.dumps(values, indent=1) + "\n").encode()
