"""What composed video is made of: labelled videos, pictures with instance masks, and sprites with transparency."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from vosformer.data.media import read_image, read_labels
from vosformer.data.types import Image, Labels
from vosformer.data.video import Video
from vosformer.errors import DataError

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
_DAVIS_LISTS = ("ImageSets/2017/train.txt", "ImageSets/2016/train.txt", "ImageSets/train.txt")


class Still(Protocol):
    """A picture whose objects are labelled."""

    @property
    def name(self) -> str:
        """How messages call it."""
        ...

    def load(self) -> tuple[Image, Labels]:
        """Picture uint8 [H,W,3] and instance labels uint8 [H,W]; raises `DataError` naming the bad file."""
        ...


@dataclass(frozen=True)
class MaskedPicture:
    """A picture and its label map in two files.

    Attributes:
        image: the picture.
        mask: its label map.
        binary: every label above 0 means object 1 (saliency sets).
    """

    image: Path
    mask: Path
    binary: bool = False

    @property
    def name(self) -> str:
        """The picture's path."""
        return str(self.image)

    def load(self) -> tuple[Image, Labels]:
        """Picture uint8 [H,W,3] and labels uint8 [H,W].

        Raises:
            DataError: a file cannot be read, or the two differ in size.
        """
        image, labels = read_image(self.image), read_labels(self.mask, self.binary)
        if image.shape[:2] != labels.shape:
            raise DataError(
                f"{self.mask}: the mask is {labels.shape[0]} x {labels.shape[1]} pixels, "
                f"its picture {self.image} is {image.shape[0]} x {image.shape[1]}"
            )
        return image, labels


@dataclass(frozen=True)
class Assets:
    """Everything that scenes may be composed of; all may be empty, then procedural textures and shapes do.

    Attributes:
        videos: labelled clips, backdrops as well as a source of moving cut-outs.
        stills: photographs with instance masks, backdrops as well as a source of cut-outs.
        sprites: pictures with transparency.
    """

    videos: tuple[Video, ...] = ()
    stills: tuple[Still, ...] = ()
    sprites: tuple[Path, ...] = ()

    def split(self, every: int = 10) -> tuple[Assets, Assets]:
        """(for training, held out for evaluation): every `every`-th still and sprite is held out; videos are in both."""
        kept = Assets(
            self.videos,
            tuple(s for i, s in enumerate(self.stills) if i % every),
            tuple(s for i, s in enumerate(self.sprites) if i % every),
        )
        return kept, Assets(self.videos, self.stills[::every], self.sprites[::every])


def find_assets(root: Path) -> Assets:
    """Look for assets in `root` and the folders directly inside it.

    Recognised are: the DAVIS layout (only the sequences of its training lists), a folder with `images/` and `masks/` of the same
    names (label = instance number), and a folder of sprites (PNG or WebP with transparency).

    Raises:
        DataError: `root` is missing, or nothing in it is recognised.
    """
    if not root.is_dir():
        raise DataError(f"{root}: there is no such folder of assets")
    videos: list[Video] = []
    stills: list[Still] = []
    sprites: list[Path] = []
    for folder in [root, *sorted(p for p in root.iterdir() if p.is_dir())]:
        if (folder / "JPEGImages").is_dir() and (folder / "Annotations").is_dir():
            videos += davis_training_videos(folder)
        elif (folder / "images").is_dir() and (folder / "masks").is_dir():
            stills += masked_pictures(folder / "images", folder / "masks")
        else:
            sprites += sorted(p for p in folder.iterdir() if p.suffix.lower() in (".webp", ".png"))
    if not (videos or stills or sprites):
        raise DataError(
            f"{root}: no assets found; expected a DAVIS folder (JPEGImages/, Annotations/, ImageSets/2016/train.txt), a folder with "
            "images/ and masks/, or a folder of PNG or WebP sprites, here or one level deeper"
        )
    return Assets(tuple(videos), tuple(stills), tuple(sprites))


def davis_training_videos(root: Path) -> list[Video]:
    """The sequences of a DAVIS folder's training list, at the smallest resolution that each exists in.

    Raises:
        DataError: there is no training list, or a listed sequence has no frames or misses masks.
    """
    listed = next((root / name for name in _DAVIS_LISTS if (root / name).is_file()), None)
    if listed is None:
        raise DataError(f"{root}: no training list; expected one of {', '.join(_DAVIS_LISTS)} with one sequence name a line")
    binary = "2016" in listed.parts
    folders = sorted((p for p in (root / "JPEGImages").iterdir() if p.is_dir()), key=_resolution)
    return [_davis_video(root, folders, name, binary) for name in listed.read_text().split()]


def masked_pictures(images: Path, masks: Path, binary: bool = False) -> list[Still]:
    """Pictures of a folder whose mask of the same stem, a PNG, exists in another one."""
    pictures = sorted(p for p in images.iterdir() if p.suffix.lower() in PICTURES)
    return [MaskedPicture(p, masks / f"{p.stem}.png", binary) for p in pictures if (masks / f"{p.stem}.png").is_file()]


def _resolution(folder: Path) -> int:
    digits = "".join(c for c in folder.name if c.isdigit())
    return int(digits) if digits else 1 << 30


def _davis_video(root: Path, folders: list[Path], name: str, binary: bool) -> Video:
    for folder in folders:
        frames = sorted((folder / name).glob("*.jpg"))
        if frames:
            masks = tuple(root / "Annotations" / folder.name / name / f"{frame.stem}.png" for frame in frames)
            missing = [mask for mask in masks if not mask.is_file()]
            if missing:
                raise DataError(
                    f"{missing[0]}: this mask of a training sequence is missing ({len(missing)} of {len(masks)} are)"
                )
            return Video(name, tuple(frames), masks, binary)
    raise DataError(f"{root / 'JPEGImages'}: sequence {name!r} of the training list has no frames in any resolution")
