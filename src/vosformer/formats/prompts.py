"""Masks that a user gives for tracking, from any annotation file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from vosformer.errors import InputError
from vosformer.formats.api import read
from vosformer.formats.archives import Unpacked
from vosformer.formats.labeled import LabeledFrame, LabeledVideo, ObjectInfo
from vosformer.formats.registry import Format, recognize
from vosformer.io import LabelMap, MaskFolder, Source, check_size
from vosformer.io import read_masks as read_picture_masks

# Pictures and folders of pictures are matched with frames by `vosformer.io.read_masks`, unless there is a folder an object.
_PICTURES = frozenset({"masks", "masks16", "objects", "sav", "rgba"})
_FILES = frozenset({".json", ".xml", ".txt", ".mov", ".exr"})


class AnnotatedMasks(MaskFolder):
    """Frame number -> label map, from an annotation file.

    Args:
        path: of the file.
        frames: frame number -> annotated frame.
        source: the frames, for their size.
        objects: id -> what the file says of it.
        notes: what a user should know about how the file was read.
        empty: numbers of frames that are annotated without an object.
    """

    def __init__(
        self, path: Path, frames: Mapping[int, LabeledFrame], source: Source, objects: Mapping[int, ObjectInfo],
        notes: tuple[str, ...] = (), empty: tuple[int, ...] = (),
    ) -> None:  # fmt: skip
        super().__init__(dict.fromkeys(frames, path), source, notes, empty)
        self._frames = dict(sorted(frames.items()))
        self.objects = objects

    def __getitem__(self, number: int) -> LabelMap:
        """Return the label map of that frame.

        Raises:
            KeyError: there is no mask for this frame.
        """
        return LabelMap(self._frames[number].labels(*self._size))

    def __iter__(self) -> Iterator[int]:
        return iter(self._frames)

    def __len__(self) -> int:
        return len(self._frames)


def read_masks(path: Path | str, source: Source, *, frame: int = 0, legend: Path | None = None) -> MaskFolder:
    """Return the masks that a user gives, by frame number: pictures (see `vosformer.io.read_masks`), or any annotation format.

    Annotated frames are matched by the names of their pictures, else by the numbers that the format holds; a lone one is of `frame`.
    Of a file with several videos the one called like the source is read.

    Raises:
        InputError: it cannot be read, its masks have another size than the frames, or its frames are not those of the source.
    """
    path = Path(path)
    if path.suffix.lower() == ".zip" and path.is_file():
        unpacked = Unpacked(path)
        masks = read_masks(unpacked.path, source, frame=frame, legend=legend)
        masks.kept = unpacked  # pictures are read when they are asked for
        return masks
    form, path = _annotation_format(path, source)
    if form is None:
        return read_picture_masks(path, source, frame=frame, legend=legend)
    video = read(path, format=form.name, video=Path(source.name).stem, size=(source.height, source.width))
    notes = list(video.notes)
    given = [item for item in video.frames if any(mask.area for mask in item.masks.values())]
    if not given:
        raise InputError(f"{path} has no object in any of its {len(video.frames)} annotated frames")
    first = next(iter(given[0].masks.values()))
    check_size(given[0].labels(first.height, first.width), source.height, source.width, path)
    pixels = sum(item.overlap() for item in given)
    if pixels:
        notes.append(f"masks overlap on {pixels} pixels: the lowest id was taken")
    frames = _matched(path, given, video, source, frame, notes)
    empty = _empty(video, given, frames, source)
    if len(given) < len(video.frames):
        which = (
            f"with --exact {'they' if len(empty) == len(video.frames) - len(given) else len(empty)} say that nothing is there"
        )
        notes.append(f"{len(video.frames) - len(given)} annotated frames without any object were passed over ({which})")
    return AnnotatedMasks(path, frames, source, video.objects, tuple(notes), empty)


def _empty(
    video: LabeledVideo, given: list[LabeledFrame], matched: Mapping[int, LabeledFrame], source: Source
) -> tuple[int, ...]:
    """Return the frames of the source that are annotated without an object, found in the way in which the others were."""
    rest = [item for item in video.frames if not any(mask.area for mask in item.masks.values())]
    by_name = all(source.find(item.name) == number for number, item in matched.items())
    shift = next(iter(matched)) - given[0].number
    if not by_name and shift and not video.numbered:
        return ()  # a lone mask that was put on a frame by the user: it is not known where the others belong
    found = {source.find(item.name) if by_name else item.number for item in rest} - {None, *matched}
    count = source.count
    return tuple(sorted(number for number in found if number is not None and (count is None or number < count)))


def _annotation_format(path: Path, source: Source) -> tuple[Format | None, Path]:
    """Return the format, or None for pictures of masks; and where it lies."""
    if not path.exists() or (path.is_file() and path.suffix.lower() not in _FILES):
        return None, path
    own = path / Path(source.name).stem
    if path.is_dir() and own.is_dir() and _one_folder_an_object(own, source):  # SA-V keeps many videos in a folder
        path = own
    form = recognize(path)
    if form is None and path.is_file():
        read(path)  # raises with the list of formats
    if form is not None and form.name in _PICTURES and not _one_folder_an_object(path, source):
        form = None
    return form, path


def _one_folder_an_object(path: Path, source: Source) -> bool:
    """Tell whether a folder is OBJECT/FRAME.png, as vosformer writes it, and not FRAME/OBJECT.png."""
    folders = [entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith(".")] if path.is_dir() else []
    if not folders or not all(entry.name.isdecimal() for entry in folders):
        return False
    outer = {entry.name for entry in folders}
    inner = {file.stem for entry in folders for file in entry.iterdir() if not file.name.startswith(".")}
    return bool(inner) and all(_is_frame(name, source) for name in inner) and not all(_is_frame(name, source) for name in outer)


def _is_frame(name: str, source: Source) -> bool:
    number = source.find(name)
    return number is not None and source.name_of(number) == name


def _matched(
    path: Path, given: list[LabeledFrame], video: LabeledVideo, source: Source, frame: int, notes: list[str]
) -> dict[int, LabeledFrame]:
    """Frame number of the source -> annotated frame."""
    named = {source.find(item.name): item for item in given}
    if None not in named and len(named) == len(given) and not (len(given) == 1 and frame):
        return {number: item for number, item in named.items() if number is not None}
    if len(given) == 1 and not (video.numbered and given[0].number and not frame):
        if source.count is not None and not 0 <= frame < source.count:
            raise InputError(f"{path} was given for frame {frame}, but {source.name} has {source.count} frames, from 0 on")
        return {frame: given[0]}
    numbers = [item.number for item in given]
    if source.count is not None and numbers[-1] >= source.count:
        raise InputError(
            f"{path} has masks on frame {numbers[-1]} ({given[-1].name}), but {source.name} has {source.count} frames, from 0 on"
        )
    if not video.numbered:
        if source.count is not None and len(video.frames) != source.count:
            raise InputError(
                f"{path} names frames that {source.name} does not have ({given[0].name}, ...), and its {len(video.frames)} frames "
                f"are not the {source.count} of the video: which is which is unknown"
            )
        notes.append(f"no frame is called {given[0].name}: the annotated frames were taken in the order of their names")
    return dict(zip(numbers, given, strict=True))
