"""YouTube-VIS: one JSON file, an annotation a track with one run length (or nothing) a frame."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vosformer.formats.labeled import LabeledFrame, LabeledVideo, Mask, ObjectInfo, categories, read_rate
from vosformer.formats.polygons import fill_edges
from vosformer.formats.registry import Content, Format, ReadOptions, load_json, pick_video, reading
from vosformer.io import Source


def read_ytvis(path: Path, options: ReadOptions) -> LabeledVideo:
    """Read one video of a YouTube-VIS file.

    The track is `track_id` if the annotations have it, else the annotation's id.

    Raises:
        InputError: it cannot be read; the message names the field.
    """
    data = load_json(path)
    with reading(path, "YouTube-VIS file"):
        videos = data["videos"]
        video = videos[pick_video(path, [_video_name(item) for item in videos], options.video)]
        height, width = int(video["height"]), int(video["width"])
        kinds = {item["id"]: str(item["name"]) for item in data.get("categories", [])}
        files = [str(name) for name in video.get("file_names") or []]
        chosen = [item for item in data.get("annotations") or [] if item["video_id"] == video["id"]]
        length = max([len(files), int(video.get("length") or 0), *(len(item["segmentations"]) for item in chosen)])
        masks: list[dict[int, Mask]] = [{} for _ in range(length)]
        objects = []
        for item in chosen:
            track = int(item.get("track_id", item["id"]))
            kind = kinds.get(item.get("category_id"), "")
            objects.append(ObjectInfo(track, str(item.get("name") or ""), "" if kind == "object" else kind))
            for at, segmentation in enumerate(item["segmentations"]):
                if segmentation:
                    if isinstance(segmentation, dict):
                        masks[at][track] = Mask.of_rle(segmentation)
                    else:
                        masks[at][track] = fill_edges(segmentation, height, width)
        if len({item.id for item in objects}) < len(objects):
            raise ValueError("two annotations of one track")
        frames = [
            LabeledFrame(
                at,
                Path(files[at]).stem if at < len(files) else f"{at:05d}",
                found,
                file=Path(files[at]).name if at < len(files) else "",
            )
            for at, found in enumerate(masks)
        ]
        fps = video.get("fps")
        return LabeledVideo.of(
            _video_name(video), frames, objects, (height, width), length=length,
            fps=read_rate(fps),
        )  # fmt: skip


def _video_name(video: Any) -> str:
    files = video.get("file_names") or []
    folder = Path(str(files[0])).parent.name if files else ""
    return str(video.get("name") or folder or video["id"])


def write_ytvis(video: LabeledVideo, path: Path, pictures: Source | None = None) -> list[str]:
    """Write a YouTube-VIS file, run lengths as numbers like its own.

    Its frames are all frames of the video; those that are not annotated have no masks.
    """
    kinds = categories(video)
    names = [f"{number:05d}.jpg" for number in range(video.length)]
    tracks: dict[int, list[Mask | None]] = {number: [None] * video.length for number in video.ids}
    annotated = 0
    for frame in video.frames:
        names[frame.number] = frame.picture
        annotated += 1
        for number, mask in frame.masks.items():
            tracks[number][frame.number] = mask if mask.area else None
    about: dict[str, Any] = {
        "id": 1,
        "name": video.name,
        "width": video.width,
        "height": video.height,
        "length": video.length,
        "file_names": [f"{video.name}/{name}" for name in names],
    } | ({} if video.fps is None else {"fps": float(video.fps)})
    annotations = [
        {
            "id": number,
            "video_id": 1,
            "category_id": kinds.index(video.object(number).category or "object") + 1,
            "iscrowd": 0,
            "width": video.width,
            "height": video.height,
            "length": 1,
            "segmentations": [None if mask is None else {**mask.rle, "counts": mask.runs} for mask in masks],
            "bboxes": [None if mask is None else mask.box for mask in masks],
            "areas": [None if mask is None else mask.area for mask in masks],
        }
        | ({"name": video.object(number).name} if video.object(number).name else {})
        for number, masks in tracks.items()
    ]
    data = {
        "info": {"description": "vosformer"},
        "videos": [about],
        "annotations": annotations,
        "categories": [{"id": at, "name": kind, "supercategory": "object"} for at, kind in enumerate(kinds, 1)],
    }
    path.write_text(json.dumps(data, ensure_ascii=False), encoding="utf-8", errors="surrogateescape")
    bare = video.length - annotated
    return [f"ytvis lists every frame: {bare} that are not annotated look like frames without objects"] if bare else []


def _is_ytvis(path: Path, content: Content) -> bool:
    return content.has("videos", "annotations") and not content.has("images")


YTVIS = Format(
    "ytvis", "YouTube-VIS JSON", read_ytvis, write_ytvis, _is_ytvis, "ytvis.json",
    holds=frozenset({"overlap", "ids", "names", "categories", "rate", "empty", "shapes"}),
    library="pycocotools", checked="trackeval",
)  # fmt: skip
