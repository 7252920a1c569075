"""Videos of the benchmarks whose masks lie in JSON files: BURST (exemplar-guided) and YouTube-VIS.

Each object is given on its first frame and followed on its own layer where it overlaps others there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pycocotools import mask as coco

from vosformer.errors import DataError
from vosformer.evaluation.layout import first_of
from vosformer.evaluation.masks import read_labels
from vosformer.evaluation.protocols import Protocol
from vosformer.evaluation.track_files import encoded, load
from vosformer.evaluation.tracks import RunLengths
from vosformer.evaluation.videos import BenchmarkVideo, FirstMask, object_layers
from vosformer.io.records import rle_counts


class TrackSet(NamedTuple):
    """A benchmark of tracks on disk.

    Attributes:
        given: the file with the masks that are given.
        truth: the file with all true masks; None where they are not public.
        videos: what the model sees.
    """

    given: Path
    truth: Path | None
    videos: list[BenchmarkVideo]


def find_tracks(protocol: Protocol, root: Path, split: str | None = None) -> TrackSet:
    """Find the videos of a benchmark of tracks.

    Args:
        protocol: of the benchmark: "burst" or "youtube-vis" is how it is handed in.
        root: the data set.
        split: another part of it than the protocol's.

    Raises:
        DataError: files or frames are missing, or a file has another form.
    """
    return (_burst if protocol.handin == "burst" else _youtube_vis)(root, split or protocol.split or "")


def burst_results(given: Path, masks: Path) -> dict[str, Any]:
    """Gather the masks of a run (``NAME/TRACK/FRAME.png``) in BURST's form, with the true classes; empty masks are left out."""
    data = load(given)
    sequences = []
    for one in data["sequences"]:
        folder = masks / _burst_name(one)
        frames = [dict(_track_masks(folder, Path(path).stem)) for path in one["annotated_image_paths"]]
        found = [{track: {"rle": counts, "is_gt": False, "score": 1.0} for track, counts in frame.items()} for frame in frames]
        sequences.append({**one, "segmentations": found})
    return {**data, "sequences": sequences}


def youtube_vis_results(given: Path, masks: Path) -> list[dict[str, Any]]:
    """Gather the masks of a run (``VIDEO/TRACK/FRAME.png``) as YouTube-VIS's results.json, with the true classes."""
    data = load(given)
    videos = {one["id"]: one for one in data["videos"]}
    results = []
    for track in data["annotations"]:
        video = videos[track["video_id"]]
        folder = masks / _vis_name(video) / str(track["id"])
        if not folder.is_dir():  # a crowd, or without any mask
            continue
        size = [video["height"], video["width"]]
        found = [_counts(folder / f"{Path(name).stem}.png") for name in video["file_names"]]
        segmentations = [None if counts is None else {"size": size, "counts": counts} for counts in found]
        results.append(
            {"video_id": video["id"], "category_id": track["category_id"], "score": 1.0, "segmentations": segmentations}
        )
    return results


def _track_masks(folder: Path, frame: str) -> Iterator[tuple[str, str]]:
    for track in sorted(path.name for path in folder.iterdir() if path.is_dir()):
        counts = _counts(folder / track / f"{frame}.png")
        if counts is not None:
            yield track, counts


def _counts(path: Path) -> str | None:
    """Read a mask as COCO's compressed run lengths; None where there is none, or an empty one."""
    if not path.is_file():
        return None
    mask = read_labels(path) != 0
    return rle_counts(mask) if mask.any() else None


def _burst(root: Path, split: str) -> TrackSet:
    name = "first_frame_annotations.json"
    given = _first([root / folder / name for folder in (f"annotations/{split}", split, "annotations", ".")])
    data = load(given)
    try:
        videos = [_burst_video(one, root, split, given) for one in data["sequences"]]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{given} is not in BURST's format: {error!r}") from error
    truth = given.with_name("all_classes.json")
    return TrackSet(given, truth if truth.is_file() else None, _different(videos, given))


def _burst_name(sequence: Mapping[str, Any]) -> str:
    return f"{sequence['dataset']}-{sequence['seq_name']}".replace("/", "-")


def _burst_video(one: Mapping[str, Any], root: Path, split: str, given: Path) -> BenchmarkVideo:
    name, size = _burst_name(one), [one["height"], one["width"]]
    inside = f"{one['dataset']}/{one['seq_name']}"
    folder = _first([root / place / inside for place in (f"frames/{split}", f"images/{split}", split, "frames", ".")])
    asked = [Path(path).name for path in one["annotated_image_paths"]]
    first: dict[str, FirstMask] = {}
    for file, tracks in zip(asked, one["segmentations"], strict=True):
        for track, mask in tracks.items():
            first.setdefault(str(track), (Path(file).stem, encoded(mask["rle"], size)))
    every = [Path(path).name for path in one["all_image_paths"]]
    return _video(name, [folder / file for file in every], first, {Path(file).stem for file in asked}, given)


def _youtube_vis(root: Path, split: str) -> TrackSet:
    names = (f"{split}/instances.json", f"{split}.json", f"annotations/instances_{split}.json", f"{split}/{split}.json")
    given = _first([root / name for name in (*names, "instances.json", "truth.json")])
    data = load(given)
    try:
        videos = []
        for one in data["videos"]:
            size, files = [one["height"], one["width"]], [str(name) for name in one["file_names"]]
            first: dict[str, FirstMask] = {}
            for track in (t for t in data["annotations"] if t["video_id"] == one["id"] and not t.get("iscrowd", 0)):
                place = next((at for at, mask in enumerate(track["segmentations"]) if mask), None)
                if place is not None:
                    mask = encoded(track["segmentations"][place]["counts"], size)
                    first[str(track["id"])] = (Path(files[place]).stem, mask)
            frames = _first([root / place for place in (f"{split}/JPEGImages", split, "JPEGImages", ".")], files[0])
            videos.append(
                _video(_vis_name(one), [frames / file for file in files], first, {Path(file).stem for file in files}, given)
            )
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise DataError(f"{given} is not in YouTube-VIS's format: {error!r}") from error
    return TrackSet(given, given, _different(videos, given))


def _vis_name(video: Mapping[str, Any]) -> str:
    return (
        str(video["file_names"][0]).rsplit("/", 1)[0].replace("/", "-") if "/" in video["file_names"][0] else str(video["id"])
    )


def _video(name: str, files: Sequence[Path], first: Mapping[str, FirstMask], asked: set[str], given: Path) -> BenchmarkVideo:
    """Make a video that begins at the first mask and ends at the last frame that is asked for."""
    stems = [path.stem for path in files]
    known = {track: one for track, one in first.items() if _area(one[1])}
    if not known:
        raise DataError(f"{given} gives no mask of any object of {name}")
    strangers = [frame for frame, _ in known.values() if frame not in stems]
    if strangers:
        raise DataError(f"{given} gives a mask of {name} on {strangers[0]}, which is none of its frames")
    start = min(stems.index(frame) for frame, _ in known.values())
    end = max(at for at, stem in enumerate(stems) if stem in asked) + 1
    shown = tuple(files[start:end])
    absent = [path.name for path in shown if not path.is_file()]
    if absent:
        raise DataError(f"{shown[0].parent} lacks {len(absent)} of {len(shown)} frames of {name}: {first_of(absent)}")
    return BenchmarkVideo(name, shown, frozenset(asked), object_layers(known), frozenset(frame for frame, _ in known.values()))


def _area(mask: Path | Mapping[str, Any] | RunLengths) -> int:
    return int(np.asarray(coco.area(mask)))


def _different(videos: list[BenchmarkVideo], given: Path) -> list[BenchmarkVideo]:
    names = [video.name for video in videos]
    if len(set(names)) < len(names):
        raise DataError(f"{given} has two sequences {next(name for name in names if names.count(name) > 1)!r}")
    if not videos:
        raise DataError(f"{given} has no sequences")
    return videos


def _first(paths: Sequence[Path], inside: str = "") -> Path:
    found = next((path for path in paths if (path / inside if inside else path).exists()), None)
    if found is None:
        raise DataError(f"there is neither {' nor '.join(str(path / inside if inside else path) for path in paths)}")
    return found
