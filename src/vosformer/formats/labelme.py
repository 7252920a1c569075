"""labelme and X-AnyLabeling: one JSON a frame; the track is `group_id`, the kind is `label`, the name is `description`."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as Pillow

from vosformer.errors import InputError
from vosformer.formats.folders import frame_numbers, write_pictures
from vosformer.formats.labeled import LabeledFrame, LabeledVideo, Mask, ObjectInfo
from vosformer.formats.polygons import center_rings, fill_centers
from vosformer.formats.registry import Content, Format, ReadOptions, link_by_order, load_json, reading
from vosformer.io import Source
from vosformer.io.files import make_folder
from vosformer.io.order import natural_key
from vosformer.io.sinks import png


def read_labelme(path: Path, options: ReadOptions) -> LabeledVideo:
    """Read one JSON, or a folder with one JSON a frame.

    Shapes are polygons, rectangles, circles and masks; others are passed over with a note. Shapes of one `group_id` in a frame are
    one object. Without group ids shapes are numbered by their labels and order.

    Raises:
        InputError: it cannot be read; the message names the field.
    """
    files = sorted(path.glob("*.json"), key=lambda file: natural_key(file.name)) if path.is_dir() else [path]
    if not files:
        raise InputError(f"{path} has no labelme files in it: expected NAME.json")
    numbers, numbered = frame_numbers([file.stem for file in files])
    frames: dict[int, dict[int, Mask]] = {}
    loose: dict[int, list[tuple[str, Mask]]] = {}
    objects: dict[int, ObjectInfo] = {}
    pictures: dict[int, str] = {}
    size, skipped, ids = None, 0, False
    for number, file in zip(numbers, files, strict=True):
        with reading(file, "labelme file"):
            data = load_json(file)
            height, width = _size(data)
            size = size or (height, width)
            pictures[number] = Path(str(data.get("imagePath") or "")).name
            parts: dict[int, list[Mask]] = {}
            loose[number] = []
            for shape in data["shapes"]:
                mask = _mask(shape, height, width)
                if mask is None:
                    skipped += 1
                    continue
                loose[number].append((str(shape["label"]), mask))
                if shape.get("group_id") is not None:
                    ids = True
                    track = int(shape["group_id"])
                    parts.setdefault(track, []).append(mask)
                    objects[track] = _object(track, shape)
            frames[number] = {track: _union(masks) for track, masks in parts.items()}
            if ids and sum(map(len, parts.values())) < len(loose[number]):
                raise ValueError("some shapes have a group_id and some have none")
    notes: tuple[str, ...] = ()
    if not ids:
        frames, found, notes = link_by_order(loose)
        objects = {item.id: item._replace(category=_kind(item.category)) for item in found}
    if skipped:
        notes += (f"{skipped} shapes without an area (points, lines) were passed over",)
    with reading(path, "labelme folder"):
        stems = {number: file.stem for number, file in zip(numbers, files, strict=True)}
        labeled = [LabeledFrame(n, stems[n], masks, file=_file(pictures[n], stems[n])) for n, masks in frames.items()]
        return LabeledVideo.of(path.resolve().stem, labeled, objects.values(), size, numbered=numbered, notes=notes)


def _file(picture: str, stem: str) -> str:
    return picture if Path(picture).stem == stem else ""


def _kind(label: str) -> str:
    return "" if label == "object" else label


def _object(track: int, shape: Mapping[str, Any]) -> ObjectInfo:
    return ObjectInfo(track, str(shape.get("description") or ""), _kind(str(shape["label"])))


def _size(data: Mapping[str, Any]) -> tuple[int, int]:
    if data.get("imageHeight") and data.get("imageWidth"):
        return int(data["imageHeight"]), int(data["imageWidth"])
    if not data.get("imageData"):
        raise KeyError("imageHeight")
    with Pillow.open(io.BytesIO(base64.b64decode(data["imageData"]))) as image:
        return image.height, image.width


def _mask(shape: Mapping[str, Any], height: int, width: int) -> Mask | None:
    points = np.array(shape["points"], np.float64).reshape(-1, 2)
    kind = shape.get("shape_type") or "polygon"
    if kind == "mask" or shape.get("mask"):
        pixels = np.zeros((height, width), bool)
        with Pillow.open(io.BytesIO(base64.b64decode(shape["mask"]))) as image:
            piece = np.asarray(image.convert("L")) > 0
        left, top = (int(value) for value in np.rint(points[0]))
        if left < 0 or top < 0:
            raise ValueError(f"a mask at {left}, {top}, outside of the picture")
        room = pixels[top : top + piece.shape[0], left : left + piece.shape[1]]
        room[:] = piece[: room.shape[0], : room.shape[1]]
        return Mask.of(pixels)
    if kind == "polygon" and len(points) >= 3:
        return fill_centers([points.reshape(-1).tolist()], height, width)
    if kind in ("rectangle", "rotation") and len(points) in (2, 4):
        (x0, y0), (x1, y1) = points[0], points[1]
        corners = [x0, y0, x1, y0, x1, y1, x0, y1] if len(points) == 2 else points.reshape(-1).tolist()
        return fill_centers([corners], height, width)
    if kind == "circle" and len(points) == 2:
        turn = np.linspace(0, 2 * np.pi, 90, endpoint=False)
        radius = float(np.hypot(*(points[1] - points[0])))
        ring = points[0] + radius * np.stack([np.cos(turn), np.sin(turn)], 1)
        return fill_centers([ring.reshape(-1).tolist()], height, width)
    return None


def _union(masks: list[Mask]) -> Mask:
    if len(masks) == 1:
        return masks[0]
    return Mask.of(np.any([mask.pixels() for mask in masks], 0))


def write_labelme(video: LabeledVideo, path: Path, pictures: Source | None = None) -> list[str]:
    """Write a JSON a frame: polygons, and masks where a polygon cannot be exact (holes); with pictures, these beside."""
    return _write(video, path, pictures, whole=False)


def write_xanylabeling(video: LabeledVideo, path: Path, pictures: Source | None = None) -> list[str]:
    """Write a JSON a frame with polygons only, as X-AnyLabeling wants them; holes are filled."""
    return _write(video, path, pictures, whole=True)


def _write(video: LabeledVideo, path: Path, pictures: Source | None, whole: bool) -> list[str]:
    make_folder(path)
    filled = 0
    for frame in video.frames:
        shapes: list[dict[str, Any]] = []
        for number, mask in frame.masks.items():
            item = video.object(number)
            base = {"label": item.category or "object", "group_id": number, "description": item.name, "flags": {}}
            outer, holes = center_rings(mask)
            filled += bool(holes) and whole
            if holes and not whole:
                shapes.append({**base, **_mask_shape(mask)})
                continue
            for ring in outer:
                corners = np.concatenate([ring, np.repeat(ring[-1:], max(0, 3 - len(ring)), 0)])
                shapes.append({**base, "points": corners.astype(float).tolist(), "shape_type": "polygon"})
        data: dict[str, Any] = {
            "version": "5.5.0",
            "flags": {},
            "shapes": shapes,
            "imagePath": frame.picture,
            "imageData": None,
            "imageHeight": video.height,
            "imageWidth": video.width,
        }
        text = json.dumps(data, ensure_ascii=False, indent=1)
        (path / f"{frame.name}.json").write_text(text, encoding="utf-8", errors="surrogateescape")
    notes = [f"polygons have no holes: those of {filled} masks are filled"] if filled else []
    return notes if pictures is None else notes + write_pictures(video, pictures, path)


def _mask_shape(mask: Mask) -> dict[str, Any]:
    left, top, width, height = (int(value) for value in mask.box)
    piece = mask.pixels()[top : top + height, left : left + width]
    data = base64.b64encode(png(piece.astype(np.uint8) * np.uint8(255))).decode()
    return {"points": [[left, top], [left + width - 1, top + height - 1]], "shape_type": "mask", "mask": data}


def _is_labelme(path: Path, content: Content) -> bool:
    if not path.is_dir():
        return content.has("shapes")
    first = next(iter(sorted(path.glob("*.json"))), None)
    return first is not None and Content(first).has("shapes")


_HOLDS = frozenset({"overlap", "ids", "names", "categories", "empty"})

LABELME = Format(
    "labelme", "labelme JSON a frame", read_labelme, write_labelme, _is_labelme, "labelme", True,
    holds=_HOLDS | {"shapes"}, library="OpenCV", checked="labelme", pictures="can",
)  # fmt: skip
XANYLABELING = Format(
    "xanylabeling", "X-AnyLabeling JSON a frame, polygons only", read_labelme, write_xanylabeling, lambda path, content: False,
    "xanylabeling", True, holds=_HOLDS, library="OpenCV", checked="labelme", pictures="can",
)  # fmt: skip
