"""Datumaro's own layout: `annotations/default.json`, and pictures in `images/default/`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vosformer.errors import InputError
from vosformer.formats.folders import write_pictures
from vosformer.formats.labeled import LabeledFrame, LabeledVideo, Mask, ObjectInfo, categories
from vosformer.formats.names import color_text, parse_color
from vosformer.formats.polygons import fill_edges
from vosformer.formats.registry import Content, Format, ReadOptions, link_by_order, load_json, reading
from vosformer.io import Source
from vosformer.io.files import make_folder


def read_datumaro(path: Path, options: ReadOptions) -> LabeledVideo:
    """Read masks and polygons of a Datumaro folder, or of its JSON.

    Raises:
        InputError: it cannot be read; the message names the field.
    """
    file = _file(path)
    data = load_json(file)
    with reading(file, "Datumaro file"):
        kinds = [str(item["name"]) for item in data["categories"]["label"]["labels"]]
        frames: dict[int, LabeledFrame] = {}
        loose: dict[int, list[tuple[str, Mask]]] = {}
        objects: dict[int, ObjectInfo] = {}
        size = options.size
        for at, item in enumerate(data["items"]):
            number = int((item.get("attr") or {}).get("frame", at))
            height, width = (int(side) for side in (item.get("image") or {}).get("size") or size or (0, 0))
            size = (height, width)
            masks: dict[int, Mask] = {}
            loose[number] = []
            for annotation in item["annotations"]:
                mask = _mask(annotation, height, width)
                if mask is None:
                    continue
                label = annotation.get("label_id")
                kind = kinds[label] if label is not None else ""
                attributes = annotation.get("attributes") or {}
                loose[number].append((kind, mask))
                if attributes.get("track_id") is not None:
                    track = int(attributes["track_id"])
                    masks[track] = mask
                    objects[track] = ObjectInfo(
                        track, str(attributes.get("name") or ""), "" if kind == "object" else kind,
                        parse_color(attributes.get("color")),
                    )  # fmt: skip
            picture = Path(str((item.get("image") or {}).get("path") or "")).name
            frames[number] = LabeledFrame(number, str(item["id"]).rsplit("/", 1)[-1], masks, file=picture)
        notes: tuple[str, ...] = ()
        if not objects and any(loose.values()):
            linked, found, notes = link_by_order(loose)
            frames = {n: LabeledFrame(n, frame.name, linked[n], file=frame.file) for n, frame in frames.items()}
            objects = {item.id: item for item in found}
        return LabeledVideo.of(path.resolve().stem, frames.values(), objects.values(), size, notes=notes)


def _file(path: Path) -> Path:
    if not path.is_dir():
        return path
    files = sorted((path / "annotations").glob("*.json"))
    if len(files) != 1:
        raise InputError(f"{path} has {len(files)} files in annotations/: give the one to read")
    return files[0]


def _mask(annotation: Any, height: int, width: int) -> Mask | None:
    if annotation["type"] == "mask":
        return Mask.of_rle(annotation["rle"])
    if annotation["type"] == "polygon":
        return fill_edges([annotation["points"]], height, width)
    return None


def write_datumaro(video: LabeledVideo, path: Path, pictures: Source | None = None) -> list[str]:
    """Write the folder; the id is the attribute `track_id`."""
    kinds = categories(video)
    items = []
    for frame in video.frames:
        annotations = []
        for at, (number, mask) in enumerate(frame.masks.items()):
            item = video.object(number)
            attributes = {"track_id": number, "name": item.name, "color": color_text(item.color)}
            annotations.append(
                {
                    "id": at,
                    "type": "mask",
                    "attributes": {key: value for key, value in attributes.items() if value},
                    "group": 0,
                    "label_id": kinds.index(item.category or "object"),
                    "rle": {"counts": mask.counts, "size": [mask.height, mask.width]},
                    "z_order": 0,
                }
            )
        image = {"path": frame.picture, "size": [video.height, video.width]}
        items.append({"id": frame.name, "annotations": annotations, "attr": {"frame": frame.number}, "image": image})
    data = {
        "info": {},
        "categories": {
            "label": {"labels": [{"name": kind, "parent": "", "attributes": []} for kind in kinds], "attributes": ["track_id"]}
        },
        "items": items,
    }
    folder = make_folder(path / "annotations")
    text = json.dumps(data, ensure_ascii=False)
    (folder / "default.json").write_text(text, encoding="utf-8", errors="surrogateescape")
    return [] if pictures is None else write_pictures(video, pictures, make_folder(path / "images") / "default")


def _is_datumaro(path: Path, content: Content) -> bool:
    if not path.is_dir():
        return content.has("items", "categories")
    files = sorted((path / "annotations").glob("*.json"))
    return bool(files) and Content(files[0]).has("items", "categories")


DATUMARO = Format(
    "datumaro", "Datumaro's own layout", read_datumaro, write_datumaro, _is_datumaro, "datumaro", True,
    holds=frozenset({"overlap", "ids", "names", "categories", "colors", "empty", "shapes"}),
    library="pycocotools", checked="datumaro", pictures="can",
)  # fmt: skip
