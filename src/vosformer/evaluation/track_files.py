"""Tracks in the JSON files of BURST and YouTube-VIS, truth and results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pycocotools import mask as coco

from vosformer.errors import DataError
from vosformer.evaluation.tracks import RunLengths, Track, TrackedSequence


def _numbers(text: str) -> frozenset[int]:
    return frozenset(int(number) for number in text.split())


# BURST's classes that COCO has, too, by their TAO ids: the "common" ones. All others are "uncommon".
BURST_COMMON = _numbers(
    "4 13 34 35 36 41 45 58 60 78 79 81 91 95 99 118 126 133 139 154 174 185 211 221 229 235 237 276 299 347 371 382 392 "
    "428 429 452 475 480 502 544 579 621 625 642 699 714 717 729 747 779 805 829 852 896 926 937 961 979 980 982 993 1001 "
    "1018 1038 1057 1091 1097 1099 1115 1117 1122 1132 1135 1144 1155 1162 1215 1229"
)
# Classes that BURST does not score: they look like others.
_BURST_DISTRACTORS = _numbers(
    "20 63 108 180 188 204 212 247 303 403 407 415 490 504 507 513 529 567 569 588 672 691 702 708 711 720 736 737 798 813 "
    "815 827 831 851 877 883 912 971 976 1130 1133 1134 1169 1184 1220"
)


def read_burst(truth: Path, results: Path) -> tuple[list[TrackedSequence], dict[int, str]]:
    """Read BURST's all_classes.json and a result file in its format, for the exemplar-guided task.

    A result track has the class of the true track with its id; result frames without a true mask in the sequence do not count.

    Returns:
        The sequences, and the names of the classes that have a true track.

    Raises:
        DataError: a file cannot be read, has another form, or names unknown sequences.
    """
    true, found = load(truth), load(results)
    try:
        by_name = {(one["dataset"], one["seq_name"]): one for one in found["sequences"]}
        known = {(one["dataset"], one["seq_name"]) for one in true["sequences"]}
        strangers = [name for _, name in by_name.keys() - known]
        if strangers:
            raise DataError(f"{results} has the sequence {strangers[0]!r}, which {truth} has not")
        counter = iter(range(1, 1 << 62))
        sequences = [_burst_sequence(one, by_name.get((one["dataset"], one["seq_name"])), counter) for one in true["sequences"]]
        names = {one["id"]: one["name"] for one in true["categories"]}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{truth} or {results} is not in BURST's format: {error!r}") from error
    used = {track.category for sequence in sequences for track in sequence.truth}
    return sequences, {number: name for number, name in names.items() if number in used}


def _burst_sequence(true: dict[str, Any], found: dict[str, Any] | None, counter: Any) -> TrackedSequence:
    size = [true["height"], true["width"]]
    classes = {track: int(number) for track, number in true["track_category_ids"].items()}
    positions = {_stem(path): at for at, path in enumerate(true["annotated_image_paths"])}
    masks = _burst_masks(true, positions, size)
    truth = {
        track: Track(next(counter), classes[track], frames)
        for track, (frames, _) in masks.items()
        if classes[track] not in _BURST_DISTRACTORS
    }
    result = {} if found is None else _burst_masks(found, positions, size)
    tracks = tuple(
        Track(truth[track].number, truth[track].category, frames, sum(scores) / len(scores))
        for track, (frames, scores) in result.items()
        if track in truth
    )
    shown = tuple(sorted({frame for track in truth.values() for frame in track.masks}))
    return TrackedSequence(
        f"{true['dataset']}-{true['seq_name']}",
        shown,
        tuple(truth.values()),
        tracks,
        frozenset(true["not_exhaustive_category_ids"]),
        boxes=True,  # surely not meant, but what the official code compares
    )


def _burst_masks(
    sequence: dict[str, Any], positions: dict[str, int], size: list[int]
) -> dict[str, tuple[dict[int, RunLengths], list[float]]]:
    """Masks and scores of each track on the frames that have a position, in the order in which tracks come up."""
    tracks: dict[str, tuple[dict[int, RunLengths], list[float]]] = {}
    for path, objects in zip(sequence["annotated_image_paths"], sequence["segmentations"], strict=True):
        for track, one in objects.items():
            if _stem(path) in positions:
                frames, scores = tracks.setdefault(track, ({}, []))
                frames[positions[_stem(path)]] = encoded(one["rle"], size)
                scores.append(float(one.get("score", 1.0)))
    return tracks


def read_youtube_vis(truth: Path, results: Path) -> tuple[list[TrackedSequence], dict[int, str]]:
    """Read YouTube-VIS's annotations and a results.json.

    Returns:
        The sequences, and the names of all classes.

    Raises:
        DataError: a file cannot be read or has another form.
    """
    true, found = load(truth), load(results)
    try:
        videos = sorted(true["videos"], key=lambda one: one["file_names"][0].split("/")[0])
        number = 0
        sequences = []
        for video in videos:
            size = [video["height"], video["width"]]
            marked = tuple(
                Track(one["id"], one["category_id"], _vis_masks(one, size), ignored=bool(one.get("iscrowd", 0)))
                for one in true["annotations"]
                if one["video_id"] == video["id"]
            )
            answers = [one for one in found if one["video_id"] == video["id"]]
            tracks = tuple(
                Track(number + at, one["category_id"], _vis_masks(one, size), float(one["score"]))
                for at, one in enumerate(answers)
            )
            number += len(answers)
            frames = tuple(range(len(video["file_names"])))
            sequences.append(TrackedSequence(video["file_names"][0].split("/")[0], frames, marked, tracks))
        return sequences, {one["id"]: one["name"] for one in true["categories"]}
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise DataError(f"{truth} or {results} is not in YouTube-VIS's format: {error!r}") from error


def _vis_masks(track: dict[str, Any], size: list[int]) -> dict[int, RunLengths]:
    return {t: encoded(one["counts"], size) for t, one in enumerate(track["segmentations"]) if one}


def encoded(counts: Any, size: list[int]) -> RunLengths:
    """COCO's compressed run lengths of a mask in any of their forms; None is an empty mask."""
    if counts is None:
        counts = [size[0] * size[1]]
    if isinstance(counts, list):
        return dict(coco.frPyObjects({"size": size, "counts": counts}, *size))
    return {"size": size, "counts": counts.encode() if isinstance(counts, str) else counts}


def _stem(path: str) -> str:
    return path.rsplit(".", 1)[0]


def load(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as JSON: {error}") from error
