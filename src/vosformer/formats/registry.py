"""The formats by name: who reads and writes them, what they hold, and which one a file is of."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

from vosformer.errors import InputError
from vosformer.formats.labeled import LabeledVideo, Mask, ObjectInfo
from vosformer.io import Source

_MOST_BYTES = 1 << 30  # of a JSON or XML file


@dataclass(frozen=True)
class ReadOptions:
    """What a reader may need besides the file.

    Attributes:
        video: name of the one to read of a file with several.
        size: (height, width) of the frames, for formats that do not say.
        legend: file that tells which color of label pictures stands for which object.
    """

    video: str | None = None
    size: tuple[int, int] | None = None
    legend: Path | None = None


FormatReader = Callable[[Path, ReadOptions], LabeledVideo]
Writer = Callable[[LabeledVideo, Path, "Source | None"], "list[str] | None"]


@dataclass(frozen=True)
class Format:
    """One annotation format.

    Attributes:
        name: as users type it.
        summary: one line for lists.
        read: path, options -> labeled video.
        write: labeled video, path, source of pictures or None -> notes or None. It writes to a path that does not exist yet.
        recognize: whether a file or folder is of this format; gets the path and `Content`.
        place: name of the file, or of the folder, in a folder of results.
        folder: whether it is a folder.
        holds: what it has a place for: overlapping masks, ids over time, names, categories, colors, scores, the frame rate, frames
            that are annotated as empty, and masks of any shape exactly.
        library: that reads and writes it.
        checked: the tool that the tests check it by.
        pictures: whether it can hold the frames' pictures; "needed" if it cannot be written without them.
    """

    name: str
    summary: str
    read: FormatReader | None
    write: Writer | None
    recognize: Callable[[Path, Content], bool]
    place: str
    folder: bool = False
    holds: frozenset[str] = frozenset()
    library: str = "json"
    checked: str = ""
    pictures: Literal["no", "can", "needed"] = "no"


@dataclass
class Content:
    """What lies at a path, looked at once for all formats.

    Attributes:
        path: of the file or folder.
        data: what a JSON file holds, else None.
        head: beginning of any other file, as text; of a folder, empty.
    """

    path: Path
    data: Any = field(init=False, default=None)
    head: str = field(init=False, default="")

    def __post_init__(self) -> None:
        """Read it.

        Raises:
            InputError: the file is missing, or is called .json and holds none.
        """
        if not self.path.exists():
            raise InputError(f"{self.path}: there is no such file or folder")
        if self.path.is_dir():
            return
        if self.path.suffix.lower() == ".json":
            self.data = load_json(self.path)
            return
        try:
            with self.path.open("rb") as file:
                self.head = file.read(4096).decode("utf-8", "replace")
        except OSError as error:
            raise InputError(f"{self.path} cannot be read: {error.strerror}") from error

    def has(self, *keys: str) -> bool:
        """Tell whether it is a JSON object with all of these keys."""
        return isinstance(self.data, dict) and all(key in self.data for key in keys)


FORMATS: dict[str, Format] = {}


def register(*formats: Format) -> None:
    """Add formats to the list, in the order in which they are tried on a file."""
    for item in formats:
        FORMATS[item.name] = item


def find_format(name: str) -> Format:
    """Look a format up by its name.

    Raises:
        InputError: there is none; close names and the list are shown.
    """
    if name in FORMATS:
        return FORMATS[name]
    near = get_close_matches(name, FORMATS, 1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise InputError(f"there is no format {name!r}; {hint}known are {', '.join(FORMATS)}")


def recognize(path: Path) -> Format | None:
    """Return the format of a file or folder, or None if it is of none that is known.

    Raises:
        InputError: there is no such file, or it is called .json and holds none.
    """
    content = Content(path)
    return next((item for item in FORMATS.values() if item.read is not None and item.recognize(path, content)), None)


def load_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        InputError: it cannot be read, is too large, or holds no JSON.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise InputError(f"{path} has {path.stat().st_size} bytes: expected an annotation file of at most {_MOST_BYTES}")
        return json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is no JSON file: {error}") from error


@contextmanager
def reading(path: Path, kind: str) -> Iterator[None]:
    """Turn what goes wrong with a malformed file into an `InputError` that names the file and the field."""
    try:
        yield
    except InputError:
        raise
    except KeyError as error:
        raise InputError(f"{path} is no {kind} that can be read: the field {error} is missing") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    except (TypeError, ValueError, IndexError, AttributeError, OverflowError, ZeroDivisionError, RecursionError) as error:
        raise InputError(f"{path} is no {kind} that can be read: {error}") from error


def pick_video(path: Path, names: list[str], name: str | None) -> int:
    """Choose one of several videos in a file by its name.

    Raises:
        InputError: there are several and none is named, or none of that name.
    """
    if not names:
        raise InputError(f"{path} holds no video")
    if name is not None and name in names:
        return names.index(name)
    if len(names) == 1:
        return 0
    shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
    asked = "" if name is None else f", none of them called {name!r}"
    raise InputError(f"{path} holds {len(names)} videos ({shown}){asked}: say which one by its name")


def losses(video: LabeledVideo, form: Format) -> list[str]:
    """Say what a format cannot hold of a labeled video."""
    said: list[str] = []
    objects = list(video.objects.values())
    missing = {
        "names": any(item.name for item in objects),
        "categories": any(item.category for item in objects),
        "colors": any(item.color for item in objects),
        "scores": "scores" not in form.holds and any(frame.scores for frame in video.frames),
        "ids": True,
        "rate": video.fps is not None,
    }
    words = {
        "names": "names of objects",
        "categories": "categories",
        "colors": "colors",
        "scores": "scores",
        "ids": "ids of objects over time",
        "rate": "the frame rate",
    }
    lost = [words[what] for what, there in missing.items() if there and what not in form.holds]
    if lost:
        said.append(f"{form.name} has no place for {', '.join(lost)}: left out")
    if "overlap" not in form.holds:
        pixels = sum(frame.overlap() for frame in video.frames)
        if pixels:
            said.append(f"{form.name} has one object a pixel: of masks that overlap on {pixels} pixels the lowest id was taken")
    if "empty" not in form.holds:
        bare = sum(not frame.masks for frame in video.frames)
        if bare:
            said.append(f"{form.name} has no place for frames without objects: {bare} were left out")
    return said


def link_by_order(
    frames: Mapping[int, Sequence[tuple[str, Mask]]],
) -> tuple[dict[int, dict[int, Mask]], list[ObjectInfo], tuple[str, ...]]:
    """Give ids to the masks of formats without them: the n-th mask of a category in each frame is the same object.

    Args:
        frames: frame number -> (category, mask) in order.

    Returns:
        Frame number -> id -> mask; the objects; what to say about it.
    """
    known: dict[tuple[str, int], int] = {}
    linked: dict[int, dict[int, Mask]] = {}
    for number in sorted(frames):
        seen: dict[str, int] = {}
        linked[number] = {}
        for category, mask in frames[number]:
            seen[category] = seen.get(category, 0) + 1
            linked[number][known.setdefault((category, seen[category]), len(known) + 1)] = mask
    objects = [ObjectInfo(i, "", category) for (category, _), i in known.items()]
    several = sum(bool(items) for items in frames.values()) > 1
    note = "it has no ids over time: the n-th mask of a category in each frame was taken as the same object"
    return linked, objects, (note,) if several else ()
