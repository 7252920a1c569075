"""What a data set's layout is: where it lies, how it is recognized, what a reader of it returns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from vosformer.data.datasets.picture import Still
from vosformer.data.datasets.video import Video


class Problem(NamedTuple):
    """Something wrong with a data set.

    Attributes:
        path: the file or folder.
        text: what was found and what was expected.
        severity: an "error" cannot be trained on; a "warning" may be meant so.
    """

    path: Path
    text: str
    severity: Literal["error", "warning"] = "error"


@dataclass
class Found:
    """What a reader found: videos or pictures, and what is wrong with the folder (not inside the files: see `check`)."""

    videos: list[Video] = field(default_factory=list)
    stills: list[Still] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


Reader = Callable[[Path, str | None], Found]


@dataclass(frozen=True)
class Layout:
    """A data set that can be read.

    Attributes:
        name: what recipes and users call it.
        kind: videos, or single pictures.
        folders: where it may lie below the root of all data, upper and lower case alike.
        expected: the layout in one line.
        signs: patterns of paths that must exist inside its folder ("|" between alternatives).
        read: (folder, split; None = everything) -> what is there.
        distinct: the signs alone tell it from other sets; else the folder's name must.
    """

    name: str
    kind: Literal["video", "still"]
    folders: tuple[str, ...]
    expected: str
    signs: tuple[str, ...]
    read: Reader
    distinct: bool = False

    def locate(self, root: Path) -> Path | None:
        """Its folder: one of the usual names below `root`, or `root` itself if its signs or its name tell so."""
        for name in self.folders:
            for path in (name, f"static/{name}"):
                folder = descend(root, path)
                if folder is not None and self.fits(folder):
                    return folder
        return root if (self.distinct or self._is_named(root)) and self.fits(root) else None

    def fits(self, folder: Path) -> bool:
        """Whether all its signs are in this folder."""
        return folder.is_dir() and all(any(any(folder.glob(sign)) for sign in signs.split("|")) for signs in self.signs)

    def _is_named(self, root: Path) -> bool:
        path = f"/{root.resolve().as_posix().lower()}"
        return any(path.endswith(f"/{name.lower()}") for name in self.folders)


def descend(root: Path, path: str) -> Path | None:
    """`root`/`path` with upper and lower case alike, or None."""
    here = root
    for part in Path(path).parts:
        if not here.is_dir():
            return None
        exact = here / part
        match = exact if exact.is_dir() else next((p for p in here.iterdir() if p.name.lower() == part.lower()), None)
        if match is None:
            return None
        here = match
    return here
