"""Decoding and writing in threads of their own, with bounded queues, while the model runs."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vosformer.io.frames import Frame
from vosformer.io.sinks import Sink

if TYPE_CHECKING:
    from typing_extensions import Self

# A camera that hangs is given up by its own time-out (`live`), after which the thread ends by itself.
_JOIN_SECONDS = 2.0


class Prefetch:
    """Frames decoded ahead in a thread; what the source raises is raised here, at its place in the order.

    Args:
        frames: a source, or any iterable of frames (`source.frames(10, 90)`).
        depth: frames that wait at most.
        latest: drop the oldest waiting frame if the consumer is slow, instead of making the source wait. For cameras: the frames
            that come out then have gaps in their numbers, and are never old.
        keep: numbers of frames that are not dropped.
        dropped: is called with each frame that is, from the thread that decodes.
    """

    def __init__(
        self,
        frames: Iterable[Frame],
        depth: int = 4,
        latest: bool = False,
        keep: Container[int] = (),
        dropped: Callable[[Frame], None] | None = None,
    ) -> None:
        self._depth, self._latest, self._keep, self._dropped = max(1, depth), latest, keep, dropped
        self._waiting: deque[Frame] = deque()
        self._changed = threading.Condition()
        self._stopped = False  # by the consumer
        self._ended = False  # by the source
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(frames,), name="vosformer-prefetch", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[Frame]:
        return self

    def __next__(self) -> Frame:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._ended or self._stopped)
            if self._waiting and not self._stopped:
                self._changed.notify_all()
                return self._waiting.popleft()
            error, self._error = self._error, None
        self.close()
        raise StopIteration if error is None else error

    def close(self) -> None:
        """Stop decoding and let go of the source; may be called at any time, and more than once."""
        with self._changed:
            self._stopped = True
            self._waiting.clear()
            self._changed.notify_all()
        self._thread.join(_JOIN_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _run(self, frames: Iterable[Frame]) -> None:
        iterator = iter(frames)
        try:
            for frame in iterator:
                if not self._put(frame):
                    break
            close = getattr(iterator, "close", None)
            if close is not None:
                close()
        except BaseException as error:  # whatever it is, it belongs to the thread that consumes
            self._error = error
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _put(self, frame: Frame) -> bool:
        with self._changed:
            if self._latest and len(self._waiting) >= self._depth:
                old = next((old for old in self._waiting if old.number not in self._keep), None)
                if old is not None:
                    self._waiting = deque(other for other in self._waiting if other is not old)
                    if self._dropped is not None:
                        self._dropped(old)
            self._changed.wait_for(lambda: len(self._waiting) < self._depth or self._stopped)
            if self._stopped:
                return False
            self._waiting.append(frame)
            self._changed.notify_all()
        return True


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

    def set_aside(self) -> None:
        """See `Sink.set_aside`."""
        self.flush()
        self._sink.set_aside()

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

    def clean(self) -> None:
        """See `Sink.clean`."""
        self._sink.clean()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        while True:
            item = self._queue.get()
            try:
                if item is None:
                    return
                if self._error is None:  # after an error the rest is thrown away, so that no producer waits for the queue
                    self._sink.write(*item)
            except BaseException as error:  # whatever it is, it belongs to the thread that produces
                self._error = error
            finally:
                self._queue.task_done()
