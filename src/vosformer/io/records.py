"""Sinks that gather all frames in one file. Memory stays flat: results lie in a part file of JSON lines."""

from __future__ import annotations

import csv
import json
from array import array
from collections.abc import Iterator, Mapping
from io import StringIO
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco

from vosformer.errors import OutputError
from vosformer.io.files import make_folder, output_errors, remove, replacing
from vosformer.io.frames import Frame
from vosformer.io.sinks import Labels, Probability, Sink


def rle_counts(mask: NDArray[Any]) -> str:
    """Encode a mask [H,W], not 0 = the object, as the compressed run lengths that COCO's JSON files hold as `counts`."""
    counts: bytes = coco.encode(np.asfortranarray(mask != 0, np.uint8))["counts"]
    return counts.decode()


class Lines:
    """A file of JSON lines, one per frame, that can be cut back to a checkpoint and read in the order of frames."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[bytes] | None = None
        self.begun = False  # what an earlier run left is only kept if it was asked for by `cut`

    def append(self, record: dict[str, Any]) -> None:
        with output_errors(self._path):
            if self._file is None:
                self._file = self._path.open("ab" if self.begun else "wb")
                self.begun = True
            self._file.write(
                json.dumps(record, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogateescape") + b"\n"
            )
            self._file.flush()

    def size(self) -> int:
        return self._path.stat().st_size if self.begun and self._path.exists() else 0

    def cut(self, size: int) -> None:
        """Keep the first `size` bytes."""
        self.close()
        self.begun = True
        if self.size() < size:
            raise OutputError(
                f"{self._path} has {self.size()} bytes, but {size} were written by the run to resume: start it anew"
            )
        with output_errors(self._path):
            if size == 0:
                remove(self._path)
            else:
                with self._path.open("r+b") as file:
                    file.truncate(size)

    def sorted(self) -> Iterator[dict[str, Any]]:
        """Yield all records by frame number; only one is in memory at a time, and 16 bytes for each."""
        self.close()
        if not self.begun or not self._path.exists():
            return
        with self._path.open("rb") as file:
            offsets = array("q")
            while line := file.readline():
                if line.endswith(b"\n"):  # a killed run, or a full disk, leaves half a line at most at the end
                    offsets.extend((json.loads(line)["frame"], file.tell() - len(line)))
            table = np.frombuffer(offsets, np.int64).reshape(-1, 2) if offsets else np.zeros((0, 2), np.int64)
            for offset in table[np.argsort(table[:, 0], kind="stable"), 1]:
                file.seek(int(offset))
                yield json.loads(file.readline())

    def close(self) -> None:
        if self._file is not None:
            with output_errors(self._path):
                self._file.close()
            self._file = None

    def remove(self) -> None:
        self.close()
        remove(self._path)


class Records(Sink):
    """A sink of one file that is put together from JSON lines when it is closed."""

    def __init__(self, path: str | Path) -> None:
        path = Path(path)
        self.name = path.name
        self._path = path
        make_folder(path.parent)
        self._lines = Lines(path.with_name(f".{path.name}.part"))
        self._finished = False

    def checkpoint(self) -> dict[str, Any]:
        """See `Sink.checkpoint`."""
        return {"bytes": self._lines.size()}

    def restore(self, token: Mapping[str, Any] | None) -> None:
        """See `Sink.restore`."""
        self._lines.cut(0 if token is None else int(token["bytes"]))

    def finish(self) -> None:
        """See `Sink.finish`."""
        if self._finished or (not self._lines.begun and self._path.exists()):
            return  # closed twice: the lines may be gone already; or nothing was written: a former run's file stays
        self._lines.close()
        self._put_together(self._path)
        self._finished = True

    def present(self, frames: int) -> bool:
        """See `Sink.present`."""
        return self._path.exists()

    def clean(self) -> None:
        """See `Sink.clean`."""
        self._lines.remove()

    def _put_together(self, path: Path) -> None:
        """Write the file from the lines; a sink that does not write it piece by piece replaces this."""
        with (
            replacing(path) as temporary,
            temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file,
        ):
            self._assemble(file)

    def _assemble(self, file: IO[str]) -> None:
        raise NotImplementedError


class ScoresFile(Records):
    """The presence score of every object at every frame, as CSV or JSON by the path's suffix.

    CSV has the columns frame, name, time, id, score, pixels; JSON is a list of the same with the objects nested per frame.

    Args:
        path: ends in .csv or .json.

    Raises:
        OutputError: another suffix, or the folder cannot be created.
    """

    def __init__(self, path: str | Path) -> None:
        if Path(path).suffix.lower() not in (".csv", ".json"):
            raise OutputError(f"{path}: scores are written as .csv or .json")
        super().__init__(path)

    def write(self, frame: Frame, labels: Labels, scores: Mapping[int, float], probability: Probability) -> None:
        """See `Sink.write`."""
        used, counts = np.unique(labels, return_counts=True)
        pixels = dict(zip(used.tolist(), counts.tolist(), strict=True))
        objects = [
            {"id": int(number), "score": round(float(score), 6), "pixels": pixels.get(number, 0)}
            for number, score in sorted(scores.items())
        ]
        self._lines.append(
            {"frame": frame.number, "name": frame.name, "time": frame.time, "decoded": frame.image is not None}
            | {"objects": objects}
        )

    def _assemble(self, file: IO[str]) -> None:
        if self._path.suffix.lower() == ".json":
            file.write("[")
            for at, record in enumerate(self._lines.sorted()):
                file.write(("," if at else "") + "\n" + json.dumps(record, ensure_ascii=False))
            file.write("\n]\n")
            return
        file.write(_row(["frame", "name", "time", "id", "score", "pixels"]))
        for record in self._lines.sorted():
            time = "" if record["time"] is None else f"{record['time']:.6f}"
            for item in record["objects"]:
                file.write(_row([record["frame"], record["name"], time, item["id"], item["score"], item["pixels"]]))


def _row(values: list[Any]) -> str:
    text = StringIO()
    csv.writer(text, lineterminator="\n").writerow(values)
    return text.getvalue()
