"""SA-V's JSON: one file a video, a list of annotated frames, each with one run length an object."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vosformer.formats.labeled import LabeledFrame, LabeledVideo, Mask, read_rate
from vosformer.formats.registry import Content, Format, ReadOptions, load_json, reading
from vosformer.io import Source


def read_sav_json(path: Path, options: ReadOptions) -> LabeledVideo:
    """Read `VIDEO_manual.json` or `VIDEO_auto.json`.

    SA-V annotates every fourth frame: the step is the one with which its frames fill the video. Its objects are counted from 0;
    object 0 becomes the highest id plus one, since 0 means background.

    Raises:
        InputError: it cannot be read; the message names the field.
    """
    data = load_json(path)
    with reading(path, "SA-V file"):
        masklets, ids = data["masklet"], [int(number) for number in data["masklet_id"]]
        size = (int(data["video_height"]), int(data["video_width"]))
        length = int(data["video_frame_count"])
        notes = []
        if 0 in ids:
            new = max(ids) + 1
            ids = [number or new for number in ids]
            notes.append(f"object 0 became {new}, since 0 means background")
        step = max(1, -(-length // len(masklets))) if masklets else 1
        if step > 1:
            notes.append(f"it has masks of {len(masklets)} of {length} frames: every {step}th, from the first on")
        frames = []
        for at, row in enumerate(masklets):
            masks = {number: Mask.of_rle(rle) for number, rle in zip(ids, row, strict=True)}
            shown = {number: mask for number, mask in masks.items() if mask.area}
            frames.append(LabeledFrame(at * step, f"{at * step:05d}", shown))
        seconds = float(data.get("video_duration") or 0)
        fps = read_rate(length / seconds) if seconds > 0 else None
        return LabeledVideo.of(
            str(data.get("video_id") or path.stem), frames, size=size, fps=fps, length=length, notes=tuple(notes)
        )


def write_sav_json(video: LabeledVideo, path: Path, pictures: Source | None = None) -> list[str]:
    """Write a file of SA-V's fields: all frames of the video, those that are not annotated without masks."""
    ids = list(video.ids)
    empty = Mask(video.height, video.width, _empty_counts(video.height * video.width))
    rows = [[empty.rle] * len(ids) for _ in range(video.length)]
    for frame in video.frames:
        rows[frame.number] = [frame.masks.get(number, empty).rle for number in ids]
    areas = {number: [frame.masks[number].area for frame in video.frames if number in frame.masks] for number in ids}
    sizes = [sum(areas[number]) / max(1, len(areas[number])) for number in ids]
    seen = [[mask_area(row[at]) > 0 for row in rows] for at in range(len(ids))]
    data: dict[str, Any] = {
        "video_id": video.name,
        "video_duration": None if video.fps is None else float(video.length / video.fps),
        "video_frame_count": float(video.length),
        "video_height": float(video.height),
        "video_width": float(video.width),
        "video_resolution": float(video.height * video.width),
        "masklet": rows,
        "masklet_id": ids,
        "masklet_size_rel": [size / (video.height * video.width) for size in sizes],
        "masklet_size_abs": sizes,
        "masklet_size_bucket": ["small" if size < 32**2 else "medium" if size < 96**2 else "large" for size in sizes],
        "masklet_visibility_changes": [_changes(there) for there in seen],
        "masklet_first_appeared_frame": [float(there.index(True)) if True in there else 0.0 for there in seen],
        "masklet_frame_count": [video.length] * len(ids),
        "masklet_edited_frame_count": [0] * len(ids),
        "masklet_type": ["auto"] * len(ids),
        "masklet_stability_score": [None] * len(ids),
        "masklet_num": len(ids),
    }
    path.write_text(json.dumps(data, ensure_ascii=False), encoding="utf-8", errors="surrogateescape")
    notes = ["every frame has masks, where files of SA-V itself have every fourth"]
    bare = video.length - len(video.frames)
    return notes + ([f"{bare} frames that are not annotated look like frames without objects"] if bare else [])


def mask_area(rle: dict[str, Any]) -> int:
    """Return the number of pixels of a run-length object."""
    height, width = rle["size"]
    return Mask(height, width, rle["counts"]).area


def _empty_counts(pixels: int) -> str:
    return Mask.of_rle({"size": [pixels, 1], "counts": [pixels]}).counts


def _changes(there: list[bool]) -> int:
    first = there.index(True) if True in there else len(there)
    return sum(former != latter for former, latter in zip(there[first:], there[first + 1 :], strict=False))


def _is_sav_json(path: Path, content: Content) -> bool:
    return content.has("masklet", "masklet_id")


SAV_JSON = Format(
    "sav-json", "SA-V JSON, one file a video", read_sav_json, write_sav_json, _is_sav_json, "sav.json",
    holds=frozenset({"overlap", "ids", "empty", "shapes", "rate"}), library="pycocotools", checked="",
)  # fmt: skip
