"""What a data set's layout is: where it lies, how it is recognized, what a reader of it returns."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
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
        holds: what its folder must hold besides the signs; None: nothing more.
    """

    name: str
    kind: Literal["video", "still"]
    folders: tuple[str, ...]
    expected: str
    signs: tuple[str, ...]
    read: Reader
    distinct: bool = False
    holds: Callable[[Path], bool] | None = None

    def locate(self, root: Path) -> Path | None:
        """Its folder: one of the usual names below `root`, `root` itself if its signs or its name tell so, or further below.

        At every depth folders are looked through before what is in them; what a set is found in is not entered.
        """
        for folder in folders_below(root):
            own = self.at(folder)
            if own is not None:
                return own
            if self.distinct and self.fits(folder):
                return folder
        return None

    def at(self, folder: Path) -> Path | None:
        """Its folder if `folder` is called like it, or holds one of its usual names."""
        for name in self.folders:
            for path in (name, f"static/{name}"):
                own = descend(folder, path)
                if own is not None and self.fits(own):
                    return own
        return folder if self._is_named(folder) and self.fits(folder) else None

    def fits(self, folder: Path) -> bool:
        """Tell whether all its signs are in this folder, and what it must hold."""
        signs = folder.is_dir() and all(any(any(folder.glob(sign)) for sign in signs.split("|")) for signs in self.signs)
        return signs and (self.holds is None or self.holds(folder))

    def _is_named(self, root: Path) -> bool:
        path = f"/{root.resolve().as_posix().lower()}"
        return any(path.endswith(f"/{name.lower()}") for name in self.folders)


def folders_below(root: Path) -> Iterator[Path]:
    """`root` and all folders below it, level by level, in the order of their names; hidden ones and circles of links are left out."""
    level, seen = [root], set()
    while level:
        found = []
        for folder in level:
            real = folder.resolve()
            if real in seen:
                continue
            seen.add(real)
            yield folder
            with suppress(OSError):
                found += sorted(Path(entry.path) for entry in os.scandir(folder) if entry.is_dir() and entry.name[0] != ".")
        level = found


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
