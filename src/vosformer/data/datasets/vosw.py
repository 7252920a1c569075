"""VOSW out of VIPSeg (AOST, Sec. 5): things and stuff of panoptic masks become objects of a benchmark.

The paper's list of 348 videos and its corrections by hand are not public, so what comes out is VOSW's form, not VOSW itself.
"""

from __future__ import annotations

import json
import shutil
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from vosformer.data.datasets.catalogue import LAYOUTS
from vosformer.data.datasets.media import read_image, read_values
from vosformer.data.datasets.video import Video
from vosformer.data.types import Labels
from vosformer.errors import DataError, InputError
from vosformer.io.files import make_folder, output_errors, replacing_folder, write_json
from vosformer.io.sinks import indexed_png

_INSTANCES = 125  # values from here on are class * 100 + instance; below, the class of a region (both count classes from 1)
_MOST = 254  # 255 is no object in label maps
_JPEG = 95


@dataclass(frozen=True)
class VoswVideo:
    """What became of one video.

    Attributes:
        name: of the video.
        objects: id -> the value that it has in VIPSeg's masks.
        later: ids that enter after the first frame.
        dropped: objects that did not fit, or of which only specks were there.
    """

    name: str
    objects: dict[int, int]
    later: tuple[int, ...]
    dropped: int


def convert_vipseg(
    root: Path,
    out: Path,
    *,
    split: str | Path | None = "val",
    short_side: int | None = None,
    specks: int = 0,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> list[VoswVideo]:
    """Write videos of VIPSeg as `JPEGImages/NAME`, `Annotations/NAME` and `meta.json`, as the benchmark "vosw" takes them.

    Each instance of a thing and each region of stuff becomes an object, in an order that is shuffled anew for each video. Masks are
    whole; the benchmark gives each object on the first frame on which it appears. A video that is there already is kept, so that a
    run that was stopped goes on.

    Args:
        root: VIPSeg, or a folder that holds it: ``imgs/NAME/*.jpg``, ``panomasks/NAME/*.png``.
        out: the folder for VOSW.
        split: a list of VIPSeg's ("val" for val.txt), or a file with a name on each line; None = all videos.
        short_side: of the frames in pixels, e.g. 720; None = as they are.
        specks: pieces of an object with fewer pixels than this are left out (the paper removed them by hand).
        seed: of the order of ids.
        progress: called with (videos done, videos in all).

    Raises:
        DataError: VIPSeg is not there, or a file of it is missing or does not decode.
        InputError: a negative number, or `out` holds videos that were made with other settings.
        OutputError: a file cannot be written.
    """
    if specks < 0 or (short_side is not None and short_side < 1):
        raise InputError(f"specks is {specks} and the short side {short_side}, expected at least 0 and 1")
    folder = LAYOUTS["vipseg"].locate(root)
    if folder is None:
        raise DataError(f"{root} holds no VIPSeg: expected {LAYOUTS['vipseg'].expected}")
    videos = _videos(folder, split)
    _same_settings(make_folder(out) / "conversion.json", {"short_side": short_side, "specks": specks, "seed": seed})
    classes = _class_names(folder)
    made = []
    for done, video in enumerate(videos, 1):
        made.append(_convert(video, out, short_side, specks, seed))
        if progress is not None:
            progress(done, len(videos))
    about = {one.name: {"objects": {str(i): _about(v, classes) for i, v in one.objects.items()}} for one in made}
    write_json(out / "meta.json", {"videos": about})
    return made


def _videos(folder: Path, split: str | Path | None) -> list[Video]:
    path = Path(f"{split}.txt" if split is not None else "")
    listed = next((p for p in (Path(split or ""), folder / path) if split is not None and p.is_file()), None)
    if split is not None and listed is None:
        raise DataError(f"{folder} has no list {path}, and {split} is no file")
    found = LAYOUTS["vipseg"].read(folder, None)
    if listed is None:
        return found.videos
    names = listed.read_text(encoding="utf-8").split()
    known = {video.name: video for video in found.videos}
    absent = [name for name in names if name not in known]
    if absent:
        raise DataError(f"{folder} lacks frames or masks of {len(absent)} of the {len(names)} videos of {listed}: {absent[0]}")
    return [known[name] for name in names]


def _same_settings(path: Path, settings: dict[str, int | None]) -> None:
    """Keep how the videos of a folder were made; refuse to add videos that are made otherwise."""
    try:
        former = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else settings
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as JSON: {error}") from error
    if former != settings:
        raise InputError(f"{path.parent} holds videos made with {former}; asked for are {settings}: choose another folder")
    write_json(path, settings)


def _convert(video: Video, out: Path, short_side: int | None, specks: int, seed: int) -> VoswVideo:
    first: dict[int, int] = {}
    areas: dict[int, int] = {}
    for time, values in enumerate(_values(video, short_side, specks)):
        for value, count in zip(*np.unique(values, return_counts=True), strict=True):
            if value:
                first.setdefault(int(value), time)
                areas[int(value)] = areas.get(int(value), 0) + int(count)
    if not areas:
        raise DataError(f"{video.masks[0].parent} has no object of at least {max(specks, 1)} pixels in any of its masks")
    kept = sorted(sorted(areas, key=lambda value: -areas[value])[:_MOST])
    np.random.default_rng([seed, zlib.crc32(video.name.encode())]).shuffle(kept)
    objects = dict(enumerate(kept, 1))
    masks = out / "Annotations" / video.name
    if not masks.is_dir():
        make_folder(masks.parent)
        make_folder(out / "JPEGImages")
        with replacing_folder(out / "JPEGImages" / video.name) as folder:
            for frame in video.frames:
                _write_frame(frame, folder, short_side)
        with replacing_folder(masks) as folder:
            for path, values in zip(video.masks, _values(video, short_side, specks), strict=True):
                (folder / f"{path.stem}.png").write_bytes(indexed_png(_numbered(values, objects)))
    present = {value for mask in video.masks for value in np.unique(read_values(mask)).tolist()} - {0}
    later = tuple(number for number, value in objects.items() if first[value] > 0)
    return VoswVideo(video.name, objects, later, len(present) - len(objects))


def _values(video: Video, short_side: int | None, specks: int) -> Iterator[NDArray[np.int32]]:
    """Yield the values of each mask, resized and without specks: int32 [H,W]."""
    for path in video.masks:
        values = read_values(path).astype(np.int32)
        if short_side is not None:
            height, width = _size(values.shape, short_side)
            values = np.asarray(cv2.resize(values, (width, height), interpolation=cv2.INTER_NEAREST_EXACT), np.int32)
        for value in np.unique(values) if specks > 1 else ():
            count, pieces, statistics, _ = cv2.connectedComponentsWithStats((values == value).astype(np.uint8))
            small = np.flatnonzero(statistics[:count, cv2.CC_STAT_AREA] < specks)
            values[np.isin(pieces, small[small > 0])] = 0
        yield values


def _numbered(values: NDArray[np.int32], objects: dict[int, int]) -> Labels:
    labels = np.zeros(values.shape, np.uint8)
    for number, value in objects.items():
        labels[values == value] = number
    return labels


def _write_frame(frame: Path, folder: Path, short_side: int | None) -> None:
    with output_errors(folder):
        if short_side is None:
            shutil.copyfile(frame, folder / frame.name)
            return
        image = read_image(frame)
        height, width = _size(image.shape[:2], short_side)
        way = cv2.INTER_AREA if height < image.shape[0] else cv2.INTER_LINEAR
        resized = cv2.cvtColor(np.asarray(cv2.resize(image, (width, height), interpolation=way)), cv2.COLOR_RGB2BGR)
        _, data = cv2.imencode(".jpg", resized, [cv2.IMWRITE_JPEG_QUALITY, _JPEG])
        (folder / f"{frame.stem}.jpg").write_bytes(data.tobytes())


def _size(shape: tuple[int, ...], short_side: int) -> tuple[int, int]:
    scale = short_side / min(shape)
    return round(shape[0] * scale), round(shape[1] * scale)


def _about(value: int, names: dict[int, str]) -> dict[str, str]:
    number = (value // 100 if value >= _INSTANCES else value) - 1
    return {"category": names.get(number, str(number)), "kind": "thing" if value >= _INSTANCES else "stuff"}


def _class_names(folder: Path) -> dict[int, str]:
    """Read the names of VIPSeg's classes, where its list is there."""
    path = folder / "panoVIPSeg_categories.json"
    try:
        return (
            {int(one["id"]): str(one["name"]) for one in json.loads(path.read_text(encoding="utf-8"))} if path.is_file() else {}
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is not VIPSeg's list of classes ([{{id, name}}, ...]): {error!r}") from error
