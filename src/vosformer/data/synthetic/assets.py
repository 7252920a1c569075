"""What composed video is made of: labeled videos, pictures with instance masks, and sprites with transparency."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass
from pathlib import Path

from vosformer.data.datasets.find import expectations, read_training, recognize
from vosformer.data.datasets.media import has_alpha
from vosformer.data.datasets.picture import Still
from vosformer.data.datasets.video import Video
from vosformer.errors import DataError


@dataclass(frozen=True)
class Assets:
    """Everything that scenes may be composed of; all may be empty, then procedural textures and shapes do.

    Attributes:
        videos: labeled clips, backdrops as well as a source of moving cut-outs.
        stills: photographs with instance masks, backdrops as well as a source of cut-outs.
        sprites: pictures with transparency.
    """

    videos: tuple[Video, ...] = ()
    stills: tuple[Still, ...] = ()
    sprites: tuple[Path, ...] = ()

    def split(self, every: int = 10) -> tuple[Assets, Assets]:
        """Return (for training, held out for evaluation): every `every`-th picture and sprite is held out; videos are in both.

        A picture that is there with several label maps is held out with all of them. The pictures or sprites of a set of fewer than
        `every` are in both parts: too few to do without one.
        """
        pictures = list(dict.fromkeys(still.name for still in self.stills))
        out, gone = set(pictures[::every]), set(self.sprites[::every])
        stills = tuple(s for s in self.stills if len(pictures) < every or s.name not in out)
        sprites = tuple(s for s in self.sprites if len(self.sprites) < every or s not in gone)
        held = tuple(s for s in self.stills if s.name in out)
        return Assets(self.videos, stills, sprites), Assets(self.videos, held, self.sprites[::every])

    def without(self, files: Set[Path]) -> Assets:
        """Return these assets less some files: pictures, sprites, and videos by their first frame."""
        return Assets(
            tuple(v for v in self.videos if v.frames[0] not in files),
            tuple(s for s in self.stills if Path(s.name) not in files),
            tuple(s for s in self.sprites if s not in files),
        )

    def files(self) -> set[Path]:
        """Return all pictures and sprites, and the first frame of each video."""
        return {*(v.frames[0] for v in self.videos), *(Path(s.name) for s in self.stills), *self.sprites}


def find_assets(root: Path) -> Assets:
    """Look for assets in `root`: the training parts of all data sets that are recognized there, and folders of sprites.

    Sprites are PNG or WebP pictures with transparency, in `root` or in a folder directly inside it.

    Raises:
        DataError: `root` is missing, nothing in it is recognized, or a data set is incomplete.
    """
    if not root.is_dir():
        raise DataError(f"{root}: there is no such folder of assets")
    found = [read_training(layout, folder) for layout, folder in recognize(root)]
    folders = [root, *sorted(p for p in root.iterdir() if p.is_dir())]
    assets = Assets(
        tuple(video for part in found for video in part.videos),
        tuple(still for part in found for still in part.stills),
        tuple(sprite for folder in folders for sprite in _sprites(folder)),
    )
    if not (assets.videos or assets.stills or assets.sprites):
        raise DataError(
            f"{root}: no assets found; expected {expectations()}, or a folder of PNG or WebP sprites with transparency"
        )
    return assets


def split_assets(folders: Sequence[Path]) -> tuple[Assets, Assets]:
    """Return the assets of several folders together, (for training, held out for evaluation): see `find_assets` and
    `Assets.split`.

    Each folder is split by itself, so that what is held out does not depend on what is given beside it. Where one folder lies in
    another, both hold the same files: for training each counts once, and not at all if one of the folders holds it out.
    """
    parts = [find_assets(folder).split() for folder in folders]
    # The few of a small set are in both of its parts, and stay in training.
    gone = set().union(*(held.files() - train.files() for train, held in parts))
    training = []
    for train, _ in parts:
        training.append(train.without(gone))
        gone |= train.files()
    return _joined(training), _joined([held for _, held in parts])


def _joined(parts: Sequence[Assets]) -> Assets:
    return Assets(
        tuple(video for assets in parts for video in assets.videos),
        tuple(still for assets in parts for still in assets.stills),
        tuple(sprite for assets in parts for sprite in assets.sprites),
    )


def _sprites(folder: Path) -> list[Path]:
    """Return the pictures of a folder, if the first one has transparency (frames and masks have none)."""
    files = sorted(p for p in folder.iterdir() if p.suffix.lower() in (".webp", ".png"))
    return files if files and has_alpha(files[0]) else []
