"""Recordings of robots: an image topic of a ROS 1 or ROS 2 bag as a source, with the stamps of its messages."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs

import numpy as np
from numpy.typing import NDArray

from vosformer.errors import InputError
from vosformer.io.bag_images import KINDS, Stamp, pixels, read_stamp
from vosformer.io.container import check_pixels
from vosformer.io.files import file_mark
from vosformer.io.frames import Frame, Image, Source, frame_name, frame_range, frame_rate
from vosformer.io.images import to_rgb
from vosformer.io.levels import SAMPLES, Levels, find_levels

SCHEME = "bag:"
_BLOCK = 16  # frames that are held while going backward
_SUFFIXES = (".bag", ".mcap", ".db3")


class _Index(NamedTuple):
    """Where the pictures of a topic are.

    Attributes:
        recorded: nanoseconds of each message, ascending.
        taken: seconds and nanoseconds of each header, one after the other.
        names: of the frame of reference of each, as places in `frame_ids`.
        frame_ids: all names.
    """

    recorded: array[int]
    taken: array[int]
    names: array[int]
    frame_ids: list[str]


class BagFile(Source):
    """Pictures of one topic of a ROS bag, in the order in which they were recorded.

    Read are ROS 1 (.bag) and ROS 2 (a folder, .mcap or .db3), raw (sensor_msgs/Image) and compressed messages (CompressedImage). A
    picture that does not decode is a frame without an image. `Frame.time` is that of the messages' headers.

    Args:
        address: bag:PATH, or bag:PATH?topic=/camera/image where the bag has several image topics.
        levels: values that become black and white; None: values of more than 8 bits are stretched as some of the frames need it.

    Raises:
        InputError: no such file, topic or picture, or the package rosbags is missing.
    """

    def __init__(self, address: str, levels: Levels | None = None) -> None:
        place, _, query = address.removeprefix(SCHEME).partition("?")
        options = parse_qs(query)
        if set(options) - {"topic"} or not place:
            raise InputError(f"{address}: expected bag:PATH?topic=/TOPIC")
        self.name, self._path, self._levels = address, Path(place), levels
        if not self._path.exists():
            raise InputError(f"{place}: there is no such bag")
        if not self._path.is_dir() and self._path.suffix not in _SUFFIXES:
            raise InputError(f"{place} is no bag: expected a file {', '.join(_SUFFIXES)}, or a folder that ROS 2 recorded")
        with self._open() as reader:
            self.topic = _topic(reader, self.name, options.get("topic", [""])[0])
            self.ros2 = bool(reader.is2)
            self._index = self._survey(reader)
        if not self.count:
            raise InputError(f"{self.name}: the topic {self.topic} has no messages")
        self.height, self.width = self._look()
        seconds = self.stamp(self.count - 1).time - self.stamp(0).time
        self.fps = frame_rate((self.count - 1) / seconds) if seconds > 0 else None

    @property
    def count(self) -> int:
        """Number of messages of the topic."""
        return len(self._index.recorded)

    def stamp(self, number: int) -> Stamp:
        """Return when and where the picture of a frame was taken."""
        index = self._index
        return Stamp(
            index.taken[2 * number], index.taken[2 * number + 1], index.frame_ids[index.names[number]], index.recorded[number]
        )

    def frames(self, start: int | None = None, stop: int | None = None, step: int = 1) -> Iterator[Frame]:
        """See `Source.frames`."""
        numbers = frame_range(self, start, stop, step)
        if not numbers:
            return
        if step > 0:
            yield from (self._frame(n, message) for n, message in self._messages(numbers[0], numbers[-1] + 1) if n in numbers)
            return
        top = numbers[0] + 1
        while top > numbers[-1]:  # backward in blocks, since messages are only read forward
            bottom = max(top - _BLOCK, numbers[-1])
            for n, message in reversed([item for item in self._messages(bottom, top) if item[0] in numbers]):
                yield self._frame(n, message)
            top = bottom

    def fingerprint(self) -> str:
        """Hash of the size, first and last megabyte of every file, and of the topic."""
        files = sorted(path for path in self._path.rglob("*") if path.is_file()) if self._path.is_dir() else [self._path]
        return f"bag:{hashlib.sha256(''.join(map(file_mark, files)).encode()).hexdigest()} {self.topic}"

    @contextmanager
    def _open(self) -> Iterator[Any]:
        """Open the bag anew: its readers have one place, and belong to one thread."""
        try:
            from rosbags.highlevel import AnyReader
            from rosbags.typesys import Stores, get_typestore
        except ImportError:
            raise InputError("bags need the package rosbags: pip install 'vosformer[robotics]'") from None
        try:
            reader = AnyReader([self._path], default_typestore=get_typestore(Stores.LATEST))
            reader.open()
        except Exception as error:  # of the container, the data base, the compression, the definitions of messages
            raise InputError(f"{self._path} is no bag that can be read: {error or type(error).__name__}") from None
        try:
            yield reader
        finally:
            reader.close()

    def _survey(self, reader: Any) -> _Index:
        index, known = _Index(array("q"), array("q"), array("l"), []), dict[str, int]()
        for _, recorded, data in self._read(reader, {}):
            try:
                stamp = read_stamp(data, recorded, self.ros2)
            except ValueError:
                stamp = Stamp(0, 0, "", recorded)  # the frame will not decode either
            index.recorded.append(recorded)
            index.taken.extend(stamp[:2])
            index.names.append(known.setdefault(stamp.frame_id, len(known)))
        index.frame_ids.extend(known)
        return index

    def _read(self, reader: Any, span: dict[str, int]) -> Iterator[tuple[Any, int, bytes]]:
        try:
            yield from reader.messages([each for each in reader.connections if each.topic == self.topic], **span)
        except (InputError, GeneratorExit):
            raise
        except Exception as error:  # as in `_open`
            raise InputError(f"{self._path} breaks off: {error or type(error).__name__}") from None

    def _messages(self, begin: int, end: int) -> Iterator[tuple[int, Any]]:
        """Yield (number, message or what is wrong with it) of the frames from `begin` to before `end`."""
        recorded = self._index.recorded
        first = begin
        while first and recorded[first - 1] == recorded[begin]:  # several may have been recorded at once
            first -= 1
        with self._open() as reader:
            span = {"start": recorded[begin], "stop": recorded[end - 1] + 1}
            for number, (connection, _, data) in enumerate(self._read(reader, span), first):
                if number >= end:
                    return
                if number >= begin:
                    yield number, _decode(reader, data, connection.msgtype)

    def _frame(self, number: int, picture: NDArray[np.generic] | str) -> Frame:
        time = self.stamp(number).time - self.stamp(0).time
        if isinstance(picture, str):
            return Frame(number, frame_name(number), None, time, picture)
        if picture.shape[:2] != (self.height, self.width):
            height, width = picture.shape[:2]
            raise InputError(
                f"{self.name}: frame {number} is {width} x {height} pixels, but the first is {self.width} x {self.height}"
            )
        return Frame(number, frame_name(number), self._image(picture, number), time)

    def _image(self, picture: NDArray[np.generic], number: int) -> Image:
        return to_rgb(picture, f"frame {number} of {self.name}", self._levels)

    def _look(self) -> tuple[int, int]:
        """Return the size of the first picture that decodes; find the range of values of more than 8 bits."""
        problem = ""
        for _, picture in self._messages(0, self.count):
            if isinstance(picture, str):
                problem = problem or picture
                continue
            check_pixels(self.name, *picture.shape[:2])
            if picture.dtype != np.uint8 and self._levels is None:
                self._levels = self._stretched()
            return picture.shape[0], picture.shape[1]
        raise InputError(f"{self.name}: none of the {self.count} pictures of {self.topic} decodes: {problem}")

    def _stretched(self) -> Levels:
        samples = []
        for number in range(0, self.count, -(-self.count // SAMPLES)):
            samples += [picture for _, picture in self._messages(number, number + 1) if not isinstance(picture, str)]
        levels = find_levels(samples)
        if levels.stretched:
            self.notes.add(f"{self.name}: {levels.describe(len(samples))}")
        return levels


def _decode(reader: Any, data: bytes, kind: str) -> NDArray[np.generic] | str:
    try:
        return pixels(reader.deserialize(data, kind))
    except Exception as error:  # whatever a damaged message makes its readers raise
        return f"{error or type(error).__name__}"


def _topic(reader: Any, name: str, topic: str) -> str:
    images: list[str] = sorted({each.topic for each in reader.connections if each.msgtype in KINDS})
    if topic:
        if topic in images:
            return topic
        kinds = {each.msgtype for each in reader.connections if each.topic == topic}
        found = f"holds {kinds.pop()}" if kinds else "is not in it"
        raise InputError(f"{name}: the topic {topic} {found}; image topics are {', '.join(images) or 'none'}")
    if len(images) == 1:
        return images[0]
    path = name.partition("?")[0]
    if not images:
        raise InputError(f"{name} has no image topic; it has {', '.join(sorted({each.topic for each in reader.connections}))}")
    raise InputError(f"{name} has several image topics: choose one with {path}?topic=...: {', '.join(images)}")
