"""The folder layouts of the standard data sets, and reading them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

from vosformer.data.datasets.coco import coco_pictures
from vosformer.data.datasets.folders import ClipFolders, clip_folders, files_by_stem, read_meta, read_names
from vosformer.data.datasets.layout import Found, Problem, Reader
from vosformer.data.datasets.picture import PICTURES, MaskedPicture
from vosformer.data.datasets.video import Video
from vosformer.errors import DataError
from vosformer.io.images import image_size
from vosformer.io.order import natural_key

_LOOKED_AT = 1000  # pictures of a folder, to see whether they have masks

# ---- Readers of videos ----


def paired_videos(
    images: Path,
    masks: Path,
    names: Iterable[str] | None,
    binary: bool | None = False,
    stride: int = 1,
    things_from: int | None = None,
) -> Found:
    """Videos of which `images`/NAME holds the frames and `masks`/NAME the PNG label maps of all or some of them."""
    found = Found()
    listed = names is not None
    chosen = list(names) if names is not None else sorted((p.name for p in images.iterdir() if p.is_dir()), key=natural_key)
    for name in chosen:
        frames, labels = files_by_stem(images / name, PICTURES), files_by_stem(masks / name, (".png",))
        both = [stem for stem in frames if stem in labels]
        found.problems += [
            Problem(labels[stem], f"this mask has no frame of the same name in {images / name}")
            for stem in labels
            if stem not in frames
        ]
        if both:
            pairs = [(frames[stem], labels[stem]) for stem in both]
            video = Video(name, tuple(f for f, _ in pairs), tuple(m for _, m in pairs), binary, stride, things_from)
            found.videos.append(video)
        elif listed and not frames:
            found.problems.append(Problem(images / name, "this sequence is listed, but has no frames"))
        else:
            found.problems.append(Problem(masks / name, _no_masks(masks / name)))
    return found


def folder_videos(stride: int = 1) -> Reader:
    """Reader of `JPEGImages/NAME/*.jpg` and `Annotations/NAME/*.png`; lists in ImageSets/SPLIT.txt are followed if they exist."""

    def read(folder: Path, split: str | None) -> Found:
        listed = folder / "ImageSets" / f"{split}.txt"
        names = read_names(listed) if split and listed.is_file() else None
        return paired_videos(folder / "JPEGImages", folder / "Annotations", names, stride=stride)

    return read


def davis(year: str, binary: bool = False) -> Reader:
    """Reader of DAVIS (and VISOR): `JPEGImages/480p/NAME`, `Annotations/480p/NAME`, `ImageSets/YEAR/SPLIT.txt`."""

    def read(folder: Path, split: str | None) -> Found:
        lists = folder / "ImageSets" / year
        lists_of_split = sorted(lists.glob("*.txt")) if split is None else [lists / f"{split}.txt"]
        missing = [path for path in lists_of_split if not path.is_file()]
        if missing:
            return Found(problems=[Problem(missing[0], "this list of sequences is missing")])
        names = list(dict.fromkeys(name for path in lists_of_split for name in read_names(path)))
        found = Found()
        for name in names:
            resolution = _resolution(folder, name)
            part = paired_videos(folder / "JPEGImages" / resolution, folder / "Annotations" / resolution, [name], binary)
            found.videos += part.videos
            found.problems += part.problems
        return found

    return read


def youtube(folder: Path, split: str | None) -> Found:
    """Reader of YouTube-VOS: `JPEGImages/NAME`, `Annotations/NAME` and `meta.json`; every fifth frame is labeled."""
    try:
        meta = read_meta(folder / "meta.json")["videos"]
        listed = {name: {i: about["frames"] for i, about in entry["objects"].items()} for name, entry in meta.items()}
        names = sorted(listed)
    except (DataError, KeyError) as error:
        return Found(problems=[Problem(folder / "meta.json", f'not a list {{"videos": {{...}}}} that can be read ({error})')])
    found = paired_videos(folder / "JPEGImages", folder / "Annotations", names, stride=5)
    for video in found.videos:
        found.problems += _listed_frames(video, listed[video.name], folder)
    return found


def vipseg(folder: Path, split: str | None) -> Found:
    """Reader of VIPSeg: `imgs/NAME` (or `images/NAME`), `panomasks/NAME` and `SPLIT.txt`."""
    images = folder / "imgs" if (folder / "imgs").is_dir() else folder / "images"
    listed = folder / f"{split}.txt"
    names = read_names(listed) if split and listed.is_file() else None
    return paired_videos(images, folder / "panomasks", names, things_from=125)


_CLIP_FOLDERS = (("JPEGImages", "Annotations"), ("frames", "masks"), ("images", "masks"))


def own_videos(folder: Path, split: str | None) -> Found:
    """Reader of a user's clips: CLIP/frames (or images) + CLIP/masks, or frames/CLIP + masks/CLIP, or frames + masks of one clip.

    Black and white masks (0 and 255) are those of one object.
    """
    for frames, masks in _CLIP_FOLDERS:
        images = folder / frames
        if images.is_dir() and (folder / masks).is_dir():
            if any(p.is_dir() for p in images.iterdir()):
                return paired_videos(images, folder / masks, None, binary=None)
            if frames != "images":
                return _renamed(paired_videos(images, folder / masks, ["."], binary=None), folder.name)
    found = Found()
    for name, clip in _clips(folder).items():
        part = _renamed(paired_videos(clip.frames, clip.masks, ["."], binary=None), name)
        found.videos += part.videos
        found.problems += part.problems
    return found


def has_clips(folder: Path) -> bool:
    """Tell whether a folder holds a user's clips, as `own_videos` reads them; `images` + `masks` of mere pictures are none."""
    for frames, masks in _CLIP_FOLDERS:
        images = folder / frames
        if images.is_dir() and (folder / masks).is_dir():
            if frames != "images":
                return True
            if any(p.is_dir() and (folder / masks / p.name).is_dir() for p in images.iterdir()):
                return True
    return bool(_clips(folder))


def _clips(folder: Path) -> dict[str, ClipFolders]:
    """Find the clips that are folders of their own; mere pictures with masks are none."""
    clips = clip_folders(folder)
    return {name: clip for name, clip in clips.items() if clip.frames.name == "frames" or _is_numbered(clip.frames)}


_SIZES_LOOKED_AT = 12


def _is_numbered(images: Path) -> bool:
    """Tell frames from mere pictures: their names differ in a number only, and they have one size (a few are looked at)."""
    pictures = files_by_stem(images, PICTURES) if not (images.parent / "parts").is_dir() else {}
    stems = list(pictures)
    if len(stems) < 2 or len({re.sub(r"[0-9]+$", "", stem) for stem in stems}) > 1 or not stems[0][-1:].isdecimal():
        return False
    some = stems[:: max(1, len(stems) // _SIZES_LOOKED_AT)]
    return len({image_size(pictures[stem]) for stem in some}) == 1


# ---- Readers of pictures ----


def saliency(pairs: Sequence[tuple[str, str]], binary: bool | None = True) -> Reader:
    """Reader of pictures with masks: in one of these pairs of folders, or next to each other (x.jpg + x.png, x_im.jpg + x_gt.png)."""

    def read(folder: Path, split: str | None) -> Found:
        for images, masks in pairs:
            if (folder / images).is_dir() and (folder / masks).is_dir():
                return _two_folders(folder / images, folder / masks, binary)
        return _one_folder(folder, binary)

    return read


def has_pictures(pairs: Sequence[tuple[str, str]]) -> Callable[[Path], bool]:
    """Make a test of whether a folder holds pictures with masks as `saliency` reads them; its name alone says nothing."""

    def holds(folder: Path) -> bool:
        for images, masks in pairs:
            if (folder / images).is_dir() and (folder / masks).is_dir():
                named = files_by_stem(folder / masks, (".png",))
                return any(stem in named for stem in files_by_stem(folder / images, PICTURES))
        pictures = (p for p in folder.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg"))
        return any(_mask_beside(picture) is not None for picture in islice(pictures, _LOOKED_AT))

    return holds


def own_stills(folder: Path, split: str | None) -> Found:
    """Reader of a user's pictures: `images` + `masks`, and `parts` where some of them are there a second time, cut into their parts.

    Black and white masks (0 and 255) are those of one object.
    """
    found = _two_folders(folder / "images", folder / "masks", None)
    parts = files_by_stem(folder / "parts", (".png",))
    pictures = files_by_stem(folder / "images", PICTURES)
    found.stills += [MaskedPicture(pictures[stem], mask, None) for stem, mask in parts.items() if stem in pictures]
    found.problems += [
        Problem(mask, f"this mask has no picture of the same name in {folder / 'images'}")
        for stem, mask in parts.items()
        if stem not in pictures
    ]
    return found


def voc(folder: Path, split: str | None) -> Found:
    """Reader of VOC 2012: `JPEGImages/*.jpg` for each of `SegmentationObject/*.png` (255 = ignored border)."""
    found = Found()
    for mask in sorted((folder / "SegmentationObject").glob("*.png")):
        image = folder / "JPEGImages" / f"{mask.stem}.jpg"
        if image.is_file():
            found.stills.append(MaskedPicture(image, mask))
        else:
            found.problems.append(Problem(image, f"the picture of {mask} is missing"))
    return found


def coco(folder: Path, split: str | None) -> Found:
    """Reader of COCO: `train2017/*.jpg` and `annotations/instances_train2017.json`."""
    try:
        pictures = coco_pictures(folder / "train2017", folder / "annotations" / "instances_train2017.json")
    except DataError as error:
        return Found(problems=[Problem(folder / "annotations", str(error))])
    missing = [picture for picture in pictures if not picture.image.is_file()]
    return Found(
        stills=[picture for picture in pictures if picture.image.is_file()],
        problems=[Problem(p.image, "this picture has annotations, but is missing") for p in missing],
    )


def _two_folders(images: Path, masks: Path, binary: bool | None) -> Found:
    pictures, labels = files_by_stem(images, PICTURES), files_by_stem(masks, (".png",))
    found = Found(stills=[MaskedPicture(pictures[stem], labels[stem], binary) for stem in pictures if stem in labels])
    found.problems += [
        Problem(labels[s], f"this mask has no picture of the same name in {images}") for s in labels if s not in pictures
    ]
    found.problems += [Problem(pictures[s], f"this picture has no PNG mask in {masks}") for s in pictures if s not in labels]
    return found


def _one_folder(folder: Path, binary: bool | None) -> Found:
    found = Found()
    for picture in sorted(p for p in folder.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg")):
        mask = _mask_beside(picture)
        if mask is None:
            found.problems.append(Problem(picture, f"this picture has no mask {picture.stem}.png next to it"))
        else:
            found.stills.append(MaskedPicture(picture, mask, binary))
    return found


# ---- Small helpers ----


def _mask_beside(picture: Path) -> Path | None:
    names = (f"{picture.stem}.png", f"{picture.stem.removesuffix('_im')}_gt.png")
    return next((mask for name in names if (mask := picture.with_name(name)).is_file()), None)


def _no_masks(folder: Path) -> str:
    if any(folder.glob("*.jp*g")):
        return "the masks are JPEG, whose compression changes labels; PNG label maps are expected"
    return "no frame of this sequence has a PNG mask of the same name"


def _resolution(folder: Path, name: str) -> str:
    """Return the resolution of DAVIS that has this sequence: 480p, else the first one."""
    there = sorted(p.name for p in (folder / "JPEGImages").iterdir() if (p / name).is_dir())
    return "480p" if "480p" in there or not there else there[0]


def _renamed(found: Found, name: str) -> Found:
    found.videos = [replace(video, name=name) for video in found.videos]
    return found


def _listed_frames(video: Video, objects: dict[str, list[str]], folder: Path) -> list[Problem]:
    """Frames that meta.json lists for an object, but that are not there."""
    stems = {path.stem for path in video.masks}
    problems = []
    for number, frames in objects.items():
        gone = [frame for frame in frames if frame not in stems]
        if gone:
            text = f"meta.json lists object {number} in this mask of {video.name}, but frame and mask are not both there"
            problems.append(Problem(folder / "Annotations" / video.name / f"{gone[0]}.png", text))
    return problems
