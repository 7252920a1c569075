"""A video with its objects' masks, as annotation files hold it: what every format is read to and written from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco

from vosformer.io.frames import frame_rate
from vosformer.io.records import rle_counts

_MOST_PIXELS = 1 << 30  # a mask above this is a header that lies


class Mask(NamedTuple):
    """The mask of one object in one frame, as COCO's compressed run lengths (columns first, beginning with background).

    Attributes:
        height: pixels.
        width: pixels.
        counts: run lengths as COCO's JSON files hold them.
    """

    height: int
    width: int
    counts: str

    @classmethod
    def of(cls, pixels: NDArray[Any]) -> Mask:
        """Encode an array [H,W] whose pixels that are not 0 belong to the object."""
        return cls(pixels.shape[0], pixels.shape[1], rle_counts(pixels))

    @classmethod
    def of_rle(cls, rle: Mapping[str, Any]) -> Mask:
        """Take over a COCO run-length object: `size` [H,W], and `counts` as text (compressed) or as a list of numbers.

        Raises:
            ValueError: its lengths do not fill its size.
        """
        height, width = (int(side) for side in rle["size"])
        check_sides(height, width)
        counts = rle["counts"]
        if isinstance(counts, bytes):
            counts = counts.decode("ascii")
        runs = _parse(counts) if isinstance(counts, str) else np.array([int(run) for run in counts], np.int64)
        if len(runs) and (int(runs.min()) < 0 or int(runs.max()) > height * width):
            raise ValueError("a run length is out of range")
        if int(runs.sum()) != height * width:
            raise ValueError(f"run lengths of {int(runs.sum())} pixels in all, expected {height} x {width} = {height * width}")
        if not isinstance(counts, str):
            packed = coco.frPyObjects({"size": [height, width], "counts": [int(run) for run in runs]}, height, width)
            counts = packed["counts"].decode()
        return cls(height, width, counts)

    @property
    def rle(self) -> dict[str, Any]:
        """The COCO run-length object, ready for JSON."""
        return {"size": [self.height, self.width], "counts": self.counts}

    @property
    def runs(self) -> list[int]:
        """The run lengths as numbers, beginning with background."""
        return [int(run) for run in _parse(self.counts)]

    @property
    def area(self) -> int:
        """Number of pixels."""
        return int(coco.area(self.rle))

    @property
    def box(self) -> list[float]:
        """x, y, width, height of the smallest box around the pixels."""
        return [float(value) for value in coco.toBbox(self.rle)]

    def pixels(self) -> NDArray[np.bool_]:
        """Decode to bool [H,W]."""
        return np.asarray(coco.decode(self.rle), bool)


def _parse(counts: str) -> NDArray[np.int64]:
    """Return the run lengths in COCO's compressed text: groups of 5 bits, and differences from the fourth run on."""
    digits = np.frombuffer(counts.encode("ascii"), np.uint8).astype(np.int64) - 48
    if len(digits) and (digits.min() < 0 or digits.max() > 63 or digits[-1] & 32):
        raise ValueError("run lengths that are no compressed COCO text")
    ends = np.flatnonzero(digits & 32 == 0)
    starts = np.concatenate([[0], ends[:-1] + 1]).astype(np.int64)[: len(ends)]
    if len(ends) and int((ends - starts).max()) > 6:
        raise ValueError("a run length is out of range")
    within = np.arange(len(digits)) - np.repeat(starts, ends - starts + 1)
    values = np.add.reduceat((digits & 31) << (5 * within), starts) if len(ends) else np.zeros(0, np.int64)
    negative = (digits[ends] & 16) > 0
    values = values - (negative.astype(np.int64) << (5 * (ends - starts + 1)))
    # Each of these is a difference to the run two places before it: two running sums, over odd and even places.
    values[2::2] = np.cumsum(values[2::2])
    values[1::2] = np.cumsum(values[1::2])
    return values


class ObjectInfo(NamedTuple):
    """What is known of an object besides its masks.

    Attributes:
        id: as in label maps, above 0.
        name: of this one thing ("left dog"); empty: none was given.
        category: its kind ("dog"); empty: none was given.
        color: RGB, 0 to 255, or None.
    """

    id: int
    name: str = ""
    category: str = ""
    color: tuple[int, int, int] | None = None

    @property
    def label(self) -> str:
        """The name, or else the category with the id, or the id alone: never empty, and of no two objects by chance."""
        return self.name or (f"{self.category} {self.id}" if self.category else f"object {self.id}")


@dataclass(frozen=True)
class LabeledFrame:
    """One annotated frame.

    Attributes:
        number: its place in the video, from 0.
        name: of files written for it, without suffix.
        masks: id -> mask; they may overlap. Empty: the frame was looked at, and no object is in it.
        scores: id -> how surely the object is in the frame, 0 to 1, where known.
        time: seconds since the first frame, or None.
        file: name of its picture, or empty.
    """

    number: int
    name: str
    masks: Mapping[int, Mask]
    scores: Mapping[int, float] = field(default_factory=dict)
    time: float | None = None
    file: str = ""

    @classmethod
    def of_labels(cls, number: int, name: str, labels: NDArray[Any], **rest: Any) -> LabeledFrame:
        """Take the masks from a label map, integers [H,W]."""
        return cls(number, name, {int(i): Mask.of(labels == i) for i in np.unique(labels) if i}, **rest)

    @property
    def picture(self) -> str:
        """Name of its picture: the one that was given, or a JPEG of the frame's name."""
        return self.file or f"{self.name}.jpg"

    def labels(self, height: int, width: int) -> NDArray[np.int32]:
        """Return the label map int32 [H,W]; where masks overlap the lowest id wins."""
        labels = np.zeros((height, width), np.int32)
        for number in sorted(self.masks, reverse=True):
            labels[self.masks[number].pixels()] = number
        return labels

    def overlap(self) -> int:
        """Return how many pixels belong to several objects."""
        if len(self.masks) < 2:
            return 0
        union = coco.merge([mask.rle for mask in self.masks.values()])
        return sum(mask.area for mask in self.masks.values()) - int(coco.area(union))


class Frames(Protocol):
    """Frames in ascending order of numbers that can be gone through again and again; a list is one."""

    def __iter__(self) -> Iterator[LabeledFrame]:
        """Begin anew."""
        ...

    def __len__(self) -> int:
        """Return their number."""
        ...


@dataclass(frozen=True)
class LabeledVideo:
    """A video's annotation: some or all of its frames with masks, and its objects. It holds no pictures.

    Attributes:
        name: of the video.
        height: pixels.
        width: pixels.
        frames: the annotated ones, ascending. Masks lie in memory as run lengths, about a kilobyte each.
        objects: id -> what is known of it, of all ids that occur.
        fps: frames per second, or None.
        length: frames of the whole video.
        numbered: whether the format says which frames of the video these are; else they are counted in the order of their names.
        notes: what a user should know about how it was read.
    """

    name: str
    height: int
    width: int
    frames: Frames
    objects: Mapping[int, ObjectInfo]
    fps: Fraction | None = None
    length: int = 0
    numbered: bool = True
    notes: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        name: str,
        frames: Iterable[LabeledFrame],
        objects: Iterable[ObjectInfo] = (),
        size: tuple[int, int] | None = None,
        **rest: Any,
    ) -> LabeledVideo:
        """Put frames in order, complete the objects by those that only occur in frames, and check sizes.

        Args:
            name: of the video.
            frames: in any order.
            objects: those that more is known of than the id.
            size: (height, width), where there may be frames without masks only.
            rest: `fps`, `length`, `numbered`, `notes`.

        Raises:
            ValueError: sizes differ, an id is below 1, two frames have one number, or there is no frame.
        """
        ordered = sorted(frames, key=lambda frame: frame.number)
        sizes = {mask[:2] for frame in ordered for mask in frame.masks.values()} | ({size} if size else set())
        if len(sizes) > 1:
            shown = ", ".join(f"{width} x {height}" for height, width in sorted(sizes)[:3])
            raise ValueError(f"frames of several sizes ({shown}), expected one")
        if not ordered or not sizes:
            raise ValueError("no annotated frame")
        for former, latter in pairwise(ordered):
            if former.number == latter.number:
                raise ValueError(f"two frames of number {former.number} ({former.name} and {latter.name})")
        height, width = check_sides(*sizes.pop())
        rest["length"] = max(rest.get("length") or 0, ordered[-1].number + 1)
        return cls(name, height, width, ordered, complete(objects, ordered), **rest)

    @property
    def ids(self) -> tuple[int, ...]:
        """The ids of all objects, ascending."""
        return tuple(sorted(self.objects))

    def object(self, number: int) -> ObjectInfo:
        """Return what is known of an object."""
        return self.objects.get(number, ObjectInfo(number))


def complete(objects: Iterable[ObjectInfo], frames: Iterable[LabeledFrame]) -> dict[int, ObjectInfo]:
    """Return id -> object, with those added that only occur in frames.

    Raises:
        ValueError: an id is below 1 or above 2^31 - 1.
    """
    known = {item.id: item for item in objects}
    for number in sorted({number for frame in frames for number in frame.masks} - set(known)):
        known[number] = ObjectInfo(number)
    for number in known:
        if not 0 < number < 1 << 31:
            raise ValueError(f"the id {number}, expected 1 to {(1 << 31) - 1}")
    return dict(sorted(known.items()))


def read_rate(fps: Any) -> Fraction | None:
    """Return frames per second as a file gives them, as a number or text; None for 0 and nothing.

    Raises:
        ValueError: it is no number above 0.
    """
    rate = Fraction(str(fps or 0))
    if rate < 0:
        raise ValueError(f"{fps} frames per second")
    return frame_rate(rate) if rate else None


def check_sides(height: int, width: int) -> tuple[int, int]:
    """Return both.

    Raises:
        ValueError: not above 0, or more pixels than any picture has.
    """
    if height < 1 or width < 1 or height * width > _MOST_PIXELS:
        raise ValueError(f"a size of {width} x {height} pixels")
    return height, width


def categories(video: LabeledVideo, default: str = "object") -> Sequence[str]:
    """Return the categories of the objects in the order of their ids, each once; objects without one are of the `default`."""
    return tuple(dict.fromkeys(video.objects[number].category or default for number in video.ids)) or (default,)
