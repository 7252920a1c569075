"""BURST: one JSON file of sequences, each with a list of frames of track -> run length."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vosformer.formats.labeled import LabeledFrame, LabeledVideo, Mask, ObjectInfo, categories, read_rate
from vosformer.formats.names import parse_color
from vosformer.formats.registry import Content, Format, ReadOptions, load_json, pick_video, reading
from vosformer.io import Source


def read_burst(path: Path, options: ReadOptions) -> LabeledVideo:
    """Read one sequence of a BURST file. Frames are the indices of the annotated pictures among all pictures.

    Raises:
        InputError: it cannot be read; the message names the field.
    """
    data = load_json(path)
    with reading(path, "BURST file"):
        sequences = data["sequences"]
        sequence = sequences[pick_video(path, [str(item["seq_name"]) for item in sequences], options.video)]
        height, width = int(sequence["height"]), int(sequence["width"])
        every = [Path(str(name)).name for name in sequence.get("all_image_paths") or sequence["annotated_image_paths"]]
        numbers = {name: number for number, name in enumerate(every)}
        kinds = {item["id"]: str(item["name"]) for item in data.get("categories") or []}
        names, colors = sequence.get("track_names") or {}, sequence.get("track_colors") or {}
        objects = [
            ObjectInfo(int(track), str(names.get(track, "")), _kind(kinds.get(kind, "")), parse_color(colors.get(track)))
            for track, kind in (sequence.get("track_category_ids") or {}).items()
        ]
        frames = []
        for name, tracks in zip(sequence["annotated_image_paths"], sequence["segmentations"], strict=True):
            file = Path(str(name)).name
            masks = {
                int(track): Mask.of_rle({"size": [height, width], "counts": item["rle"]}) for track, item in tracks.items()
            }
            scores = {int(track): float(item["score"]) for track, item in tracks.items() if item.get("score") is not None}
            frames.append(LabeledFrame(numbers[file], Path(file).stem, masks, scores, file=file))
        fps = sequence.get("fps")
        return LabeledVideo.of(
            str(sequence["seq_name"]), frames, objects, (height, width), length=len(every),
            fps=read_rate(fps),
        )  # fmt: skip


def _kind(name: str) -> str:
    return "" if name == "object" else name


def write_burst(video: LabeledVideo, path: Path, pictures: Source | None = None) -> None:
    """Write a BURST file; objects without a pixel in a frame have no entry there, since empty masks cost score."""
    kinds = categories(video)
    every = [f"{number:05d}.jpg" for number in range(video.length)]
    annotated, segmentations = [], []
    for frame in video.frames:
        every[frame.number] = frame.picture
        annotated.append(frame.picture)
        segmentations.append(
            {
                str(number): {"rle": mask.counts, "is_gt": False}
                | ({"score": frame.scores[number]} if number in frame.scores else {})
                for number, mask in frame.masks.items()
                if mask.area
            }
        )
    objects = video.objects.values()
    sequence: dict[str, Any] = {
        "id": 1,
        "seq_name": video.name,
        "dataset": "vosformer",
        "width": video.width,
        "height": video.height,
        "fps": None if video.fps is None else float(video.fps),
        "all_image_paths": every,
        "annotated_image_paths": annotated,
        "neg_category_ids": [],
        "not_exhaustive_category_ids": [],
        "track_category_ids": {str(item.id): kinds.index(item.category or "object") + 1 for item in objects},
        "segmentations": segmentations,
        "track_names": {str(item.id): item.name for item in objects if item.name},
        "track_colors": {str(item.id): list(item.color) for item in objects if item.color},
    }
    data = {
        "split": "test",
        "categories": [{"id": at, "name": kind} for at, kind in enumerate(kinds, 1)],
        "sequences": [sequence],
    }
    path.write_text(json.dumps(data, ensure_ascii=False), encoding="utf-8", errors="surrogateescape")


def _is_burst(path: Path, content: Content) -> bool:
    return content.has("sequences")


BURST = Format(
    "burst", "BURST JSON", read_burst, write_burst, _is_burst, "burst.json",
    holds=frozenset({"overlap", "ids", "names", "categories", "colors", "scores", "rate", "empty", "shapes"}),
    library="pycocotools", checked="trackeval",
)  # fmt: skip
