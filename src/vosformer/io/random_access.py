"""Any frame of a source at any time, for people who step to and fro: what was just decoded is kept, within a bound."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator

from vosformer.errors import InputError
from vosformer.io.frames import Frame, Source

_BEHIND = 24  # frames that are decoded before the one that is asked for, once somebody steps backward
_AHEAD = 12  # frames that are passed over by decoding on instead of seeking


class RandomAccess:
    """Reads single frames of a source by number, from several threads.

    A step forward goes on decoding where the last one stopped; the first step backward decodes some frames before it as well, so
    that the next ones are there. Decoded frames are kept up to a bound, the ones used last.

    Args:
        source: that can be read again.
        megabytes: the most that kept frames may take (10^6 bytes); two frames are kept in any case.
    """

    def __init__(self, source: Source, megabytes: float = 160) -> None:
        if source.live or source.count is None:
            raise InputError(f"{source.name} gives its frames once and in order: single frames cannot be had from it")
        self._source, self._count = source, source.count
        self._most = max(2, int(megabytes * 1e6 // (3 * source.height * source.width)))
        self._kept: OrderedDict[int, Frame] = OrderedDict()
        self._running: Iterator[Frame] | None = None
        self._next = -1
        self._lock = threading.Lock()

    def read(self, number: int) -> Frame:
        """Return the frame of that number.

        Raises:
            InputError: there is none.
        """
        if not 0 <= number < self._count:
            raise InputError(f"{self._source.name} has no frame {number}: it has {self._count} frames, 0 to {self._count - 1}")
        with self._lock:
            if number in self._kept:
                self._kept.move_to_end(number)
                return self._kept[number]
            backward = number + 1 in self._kept
            first = max(0, number - min(_BEHIND, self._most // 2)) if backward else number
            if self._running is None or not self._next <= number <= self._next + _AHEAD:
                self._running, self._next = self._source.frames(first, None, 1), first
            while self._next <= number:
                frame = next(self._running, None)
                if frame is None:
                    self._running = None
                    raise InputError(f"{self._source.name} ended before frame {number}")
                self._keep(frame)
                self._next = frame.number + 1
            return self._kept[number]

    def _keep(self, frame: Frame) -> None:
        self._kept[frame.number] = frame
        self._kept.move_to_end(frame.number)
        while len(self._kept) > self._most:
            self._kept.popitem(last=False)
