"""A frame, and what every source of frames can do."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from fractions import Fraction
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vosformer.errors import InputError
from vosformer.io.notes import Notes
from vosformer.io.sound import Sound

if TYPE_CHECKING:
    from typing_extensions import Self

Image = NDArray[np.uint8]


class Frame(NamedTuple):
    """One frame of a source.

    Attributes:
        number: its place in the source, from 0.
        name: of the files written for it: the file's stem for a folder of images, else the number with at least five digits.
        image: uint8 RGB [H,W,3], C-contiguous; None if it did not decode.
        time: seconds since the first frame, or None where the source knows no time.
        problem: why the image is None.
    """

    number: int
    name: str
    image: Image | None
    time: float | None
    problem: str | None = None


def frame_name(number: int) -> str:
    """Return the name of a frame that has none of its own: "00042"."""
    return f"{number:05d}"


def frame_rate(fps: Fraction | float) -> Fraction:
    """Frames per second as a fraction with a small denominator, as of 24000/1001.

    Raises:
        InputError: not above 0, or without end.
    """
    if not 0 < fps < math.inf:
        raise InputError(f"fps is {fps}, expected a number above 0")
    return Fraction(fps).limit_denominator(1001) or Fraction(1, 1001)  # never 0


class Source(ABC):
    """Frames of one size, in order.

    Iterating starts over each time, unless the source is `live`: then there is one pass, forwards.

    Attributes:
        name: what messages call it: the path, or the address without a password.
        height: of every frame, pixels.
        width: of every frame, pixels.
        fps: mean frames per second, or None if the source has no time.
        live: frames come once and cannot be asked for again.
        real_time: frames come whether anybody takes them or not, so that a slow consumer must drop some.
        pixel_aspect: width of a pixel divided by its height, for the videos that are written.
        sound: where the sound that belongs to the frames lies, or None.
    """

    name: str
    height: int
    width: int
    fps: Fraction | None = None
    live: bool = False
    real_time: bool = False
    pixel_aspect: Fraction = Fraction(1)
    sound: Sound | None = None

    @property
    def notes(self) -> Notes:
        """What was guessed, left out, stretched or repaired while reading; `track` reports it."""
        notes: Notes = self.__dict__.setdefault("_notes", Notes())
        return notes

    @property
    @abstractmethod
    def count(self) -> int | None:
        """Number of frames, or None if it is unknown (cameras, streams, iterators)."""

    @abstractmethod
    def frames(self, start: int | None = None, stop: int | None = None, step: int = 1) -> Iterator[Frame]:
        """Return the frames whose numbers `range(start, stop, step)` has; None stands for the end that `step` comes from or
        goes to.

        Backwards (a negative step), too, only a bounded number of frames is in memory at once.

        Raises:
            InputError: the range does not fit the source, or a frame has another size than the first.
        """

    def __iter__(self) -> Iterator[Frame]:
        return self.frames()

    def __reversed__(self) -> Iterator[Frame]:
        return self.frames(step=-1)

    def read(self, number: int) -> Frame:
        """One frame by its number; a video seeks to it.

        Raises:
            InputError: the source has no such frame, or cannot go there.
        """
        for frame in self.frames(number, number + 1):
            return frame
        raise InputError(f"{self.name} has no frame {number}")

    def name_of(self, number: int) -> str:
        """Return the name of a frame, `Frame.name`, without reading it."""
        return frame_name(number)

    def find(self, name: str) -> int | None:
        """Return the number of the frame of that name, or None. Zeros in front may be more or fewer, but 7 or 07 is no
        frame's name.
        """
        padded = len(name) > 2 and name.startswith("0")
        if not (name.isascii() and name.isdecimal()) or not (padded or frame_name(int(name)) == name):
            return None
        return int(name) if self.count is None or int(name) < self.count else None

    def fingerprint(self) -> str | None:
        """Text that changes if the frames do (see each source for how far), or None where that is unknown (live)."""
        return None

    def close(self) -> None:  # noqa: B027 (most sources hold nothing open)
        """Let go of files and devices."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def frame_range(source: Source, start: int | None, stop: int | None, step: int) -> range:
    """Return the frame numbers that `Source.frames` is asked for, for sources that know their count.

    Raises:
        InputError: the start does not exist or the step is 0.
    """
    count = source.count
    if step == 0:
        raise InputError("a step of 0 frames goes nowhere: expected a step of 1, -1 or another whole number")
    if count is None:
        raise InputError(f"{source.name} does not say how many frames it has")
    if start is None:
        start = 0 if step > 0 else count - 1
    if not 0 <= start < count:
        raise InputError(f"{source.name} has no frame {start}: it has {count} frames, 0 to {count - 1}")
    if stop is None:
        stop = count if step > 0 else -1
    return range(start, min(stop, count) if step > 0 else max(stop, -1), step)


def check_live_range(source: Source, start: int | None, step: int) -> None:
    """Refuse ranges that a single pass forwards cannot give.

    Raises:
        InputError: the range goes backwards or starts before the first frame.
    """
    if step < 1 or (start or 0) < 0:
        raise InputError(
            f"{source.name} gives its frames once and in order: start {start} with step {step} cannot be had from it"
        )
