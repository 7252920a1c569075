"""Results in time: the newest frame wins, and the age of every result and every frame that was passed over is known."""

from __future__ import annotations

import csv
import re
import threading
import time
from collections.abc import Container, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from vosformer.errors import InputError
from vosformer.io import Frame, Prefetch
from vosformer.io.files import make_folder, output_errors

if TYPE_CHECKING:
    from typing_extensions import Self

_BINS = 60_000  # milliseconds whose counts are kept; what is older counts as that old
_TIME = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(ms|s)?\s*")


def parse_seconds(text: str) -> float:
    """Read "100ms", "0.1s" or "100" (milliseconds) as seconds.

    Raises:
        InputError: it is something else, or 0.
    """
    found = _TIME.fullmatch(text)
    seconds = 0.0 if found is None else float(found[1]) / (1 if found[2] == "s" else 1000)
    if seconds <= 0:
        raise InputError(f"the latency budget is {text!r}, expected a time above 0 like 100ms or 0.1s")
    return seconds


class LatencyBudget:
    """Gives the newest frame to whoever is too slow for all of them, and keeps a log of how old the results were.

    Frames of a camera come when they come. Those of a recording come at their own times, as if it were played: the age of a result is
    the time from when its frame came to when its masks were there.

    Example:
        >>> budget = LatencyBudget(0.1)                                         # doctest: +SKIP
        >>> with budget, budget.newest(source) as frames:                       # doctest: +SKIP
        ...     for frame in frames:
        ...         out = session.step(frame.image)
        ...         age = budget.done(frame)                                    # seconds
        >>> budget.summary                                                      # doctest: +SKIP
    """

    def __init__(self, seconds: float, path: str | Path | None = None) -> None:
        """Begin a log.

        Args:
            seconds: how old a result may be; older ones are given all the same, and counted.
            path: CSV file with a line for each frame: frame, name, time, dropped (0 or 1), age_ms; None: no file.

        Raises:
            InputError: the budget is not above 0.
            OutputError: the file cannot be written.
        """
        if not seconds > 0:
            raise InputError(f"the latency budget is {seconds!r} seconds, expected a number above 0")
        self.seconds = seconds
        self._came: dict[int, float] = {}  # of the frames that wait or are being worked on
        self._counts = np.zeros(_BINS + 1, np.int64)
        self._dropped = self._late = 0
        self._path = None if path is None else Path(path)
        self._file: IO[str] | None = None
        self._lock = threading.Lock()  # frames are passed over in the thread that reads them
        if self._path is not None:
            make_folder(self._path.parent)
            with output_errors(self._path):
                self._file = self._path.open("w", encoding="utf-8", newline="")
            self._row("frame", "name", "time", "dropped", "age_ms")

    def newest(self, frames: Iterable[Frame], real_time: bool | None = None, keep: Container[int] = ()) -> Prefetch:
        """Return the frames that there is time for, read in a thread; close it, or use it with `with`.

        Args:
            frames: a source, or frames of one.
            real_time: whether they come by themselves, as from a camera; None: as the source says.
            keep: numbers of frames that are never passed over.
        """
        live = getattr(frames, "real_time", False) if real_time is None else real_time
        return Prefetch(self._coming(frames, live), depth=1, latest=True, keep=keep, dropped=self._passed_over)

    def done(self, frame: Frame) -> float:
        """Note that the masks of a frame are there; return its age in seconds."""
        age = time.monotonic() - self._came.pop(frame.number, time.monotonic())
        self._counts[min(round(age * 1000), _BINS)] += 1
        self._late += age > self.seconds
        self._row(frame.number, frame.name, _seconds(frame), 0, f"{age * 1000:.1f}")
        return age

    @property
    def summary(self) -> dict[str, Any]:
        """Return counts, and ages in milliseconds (whole ones): budget_ms, results, dropped, over_budget, age_ms by percentile."""
        total = int(self._counts.sum())
        shares = np.cumsum(self._counts) / max(total, 1)
        ages = {f"p{p}": int(np.searchsorted(shares, p / 100)) for p in (50, 90, 99)} if total else {}
        if total:
            ages["max"] = int(np.flatnonzero(self._counts)[-1])
        budget = round(self.seconds * 1000, 3)
        return {"budget_ms": budget, "results": total, "dropped": self._dropped, "over_budget": self._late, "age_ms": ages}

    def describe(self) -> str:
        """Say in a sentence what came of it, for people."""
        summary = self.summary
        ages = ", ".join(f"{name} {age}" for name, age in summary["age_ms"].items())
        return (
            f"{summary['dropped']} frames were passed over; of {summary['results']} results {summary['over_budget']} were older than "
            f"{summary['budget_ms']:g} ms (age in ms: {ages or 'none'})"
        )

    def close(self) -> None:
        """Close the log; may be called more than once."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _coming(self, frames: Iterable[Frame], live: bool) -> Iterator[Frame]:
        """Yield frames when they come, and note the time."""
        begin: float | None = None
        for frame in frames:
            if not live and frame.time is not None:
                begin = time.monotonic() - frame.time if begin is None else begin
                time.sleep(max(0.0, begin + frame.time - time.monotonic()))
                # What was read too late came in time all the same: the recording does not wait for its reader.
                self._came[frame.number] = begin + frame.time
            else:
                self._came[frame.number] = time.monotonic()
            yield frame

    def _passed_over(self, frame: Frame) -> None:
        self._came.pop(frame.number, None)
        self._dropped += 1
        self._row(frame.number, frame.name, _seconds(frame), 1, "")

    def _row(self, *values: object) -> None:
        with self._lock:
            if self._file is None or self._path is None:
                return
            with output_errors(self._path):
                csv.writer(self._file, lineterminator="\n").writerow(values)
                self._file.flush()


def _seconds(frame: Frame) -> str:
    return "" if frame.time is None else f"{frame.time:.6f}"
