"""Decoding and writing in threads of their own, with bounded queues, while the model runs."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vosformer.io.frames import Frame
from vosformer.io.sinks import Sink

if TYPE_CHECKING:
    from typing_extensions import Self

_POLL_SECONDS = 0.1
# A camera that hangs is given up by its own time-out (`live`), after which the thread ends by itself.
_JOIN_SECONDS = 2.0


class _End:
    """The last thing in the queue of a `Prefetch`."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


class Prefetch:
    """Frames decoded ahead in a thread; what the source raises is raised here, at its place in the order.

    Args:
        frames: a source, or any iterable of frames (`source.frames(10, 90)`).
        depth: frames that wait at most.
        latest: drop the oldest waiting frame if the consumer is slow, instead of making the source wait. For cameras: the frames
            that come out then have gaps in their numbers, and are never old.
    """

    def __init__(self, frames: Iterable[Frame], depth: int = 4, latest: bool = False) -> None:
        self._queue: queue.Queue[Frame | _End] = queue.Queue(max(1, depth))
        self._stopped = threading.Event()
        self._latest = latest
        self._done = False
        self._thread = threading.Thread(target=self._run, args=(frames,), name="vosformer-prefetch", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[Frame]:
        return self

    def __next__(self) -> Frame:
        if self._done:
            raise StopIteration
        item = self._queue.get()
        if isinstance(item, _End):
            self.close()
            if item.error is not None:
                raise item.error
            raise StopIteration
        return item

    def close(self) -> None:
        """Stop decoding and let go of the source; may be called at any time, and more than once."""
        self._done = True
        self._stopped.set()
        self._thread.join(_JOIN_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _run(self, frames: Iterable[Frame]) -> None:
        end = _End(None)
        iterator = iter(frames)
        try:
            for frame in iterator:
                if not self._put(frame):
                    break
        except BaseException as error:  # whatever it is, it belongs to the thread that consumes
            end = _End(error)
        close = getattr(iterator, "close", None)
        if close is not None:
            close()
        self._put(end)

    def _put(self, item: Frame | _End) -> bool:
        while not self._stopped.is_set():
            try:
                self._queue.put(item, timeout=0 if self._latest and isinstance(item, Frame) else _POLL_SECONDS)
                return True
            except queue.Full:
                if self._latest and isinstance(item, Frame):
                    try:
                        self._queue.get_nowait()
                    except queue.Empty:
                        continue
        return False


class BackgroundSink(Sink):
    """Writes to another sink in a thread; what that raises is raised by the next call here.

    Args:
        sink: the one that does the work.
        depth: results that wait at most; then `write` waits.
    """

    def __init__(self, sink: Sink, depth: int = 4) -> None:
        self.name, self.soft = sink.name, sink.soft
        self._sink = sink
        self._queue: queue.Queue[tuple[Any, ...] | None] = queue.Queue(max(1, depth))
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="vosformer-write", daemon=True)
        self._thread.start()

    def check_ids(self, ids: Iterable[int]) -> None:
        """See `Sink.check_ids`."""
        self._sink.check_ids(ids)

    def write(
        self,
        frame: Frame,
        labels: NDArray[np.int32],
        scores: Mapping[int, float],
        probability: Callable[[int], NDArray[np.float32]],
    ) -> None:
        """See `Sink.write`. The arrays must not be changed afterwards.

        Raises:
            OutputError: an earlier result could not be written.
        """
        self._raise()
        self._queue.put((frame, labels, scores, probability))

    def flush(self) -> None:
        """Wait until all results are written.

        Raises:
            OutputError: one could not be written.
        """
        self._queue.join()
        self._raise()

    def checkpoint(self) -> dict[str, Any]:
        """See `Sink.checkpoint`; waits until all results are written."""
        self.flush()
        return self._sink.checkpoint()

    def restore(self, token: Mapping[str, Any] | None) -> None:
        """See `Sink.restore`."""
        self.flush()
        self._sink.restore(token)

    def close(self, complete: bool = True) -> None:
        """See `Sink.close`. If a result could not be written, that is raised after the sink was closed as incomplete."""
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()
        try:
            self._sink.close(complete and self._error is None)
        finally:
            self._raise()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        while True:
            item = self._queue.get()
            try:
                if item is None:
                    return
                if self._error is None:  # after an error the rest is thrown away, so that nobody waits for the queue
                    self._sink.write(*item)
            except BaseException as error:  # whatever it is, it belongs to the thread that produces
                self._error = error
            finally:
                self._queue.task_done()
