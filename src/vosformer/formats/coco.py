"""COCO with `track_id`: one JSON file, masks as run lengths or polygons."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from vosformer.errors import InputError
from vosformer.formats.labeled import LabeledFrame, LabeledVideo, Mask, ObjectInfo, categories, read_rate
from vosformer.formats.names import color_text, parse_color
from vosformer.formats.polygons import edge_rings, fill_edges, one_ring
from vosformer.formats.registry import Content, Format, ReadOptions, link_by_order, load_json, pick_video, reading
from vosformer.io import Source
from vosformer.io.order import natural_key

_KIND = "COCO file"


def read_coco(path: Path, options: ReadOptions) -> LabeledVideo:
    """Read a COCO file: run lengths or polygons; `track_id` from the annotation or its attributes, else by order.

    Raises:
        InputError: it cannot be read; the message names the field.
    """
    data = load_json(path)
    with reading(path, _KIND):
        images, video = _images_of_one(path, data, options.video)
        numbers, numbered = _numbers(images)
        sizes = {image["id"]: (int(image["height"]), int(image["width"])) for image in images}
        kinds = {item["id"]: str(item["name"]) for item in data.get("categories", [])}
        masks: dict[int, dict[int, Mask]] = {numbers[image["id"]]: {} for image in images}
        scores: dict[int, dict[int, float]] = {number: {} for number in masks}
        loose: dict[int, list[tuple[str, Mask]]] = {number: [] for number in masks}
        objects = {item["id"]: _track(item) for item in data.get("tracks", [])}
        skipped = 0
        for item in data["annotations"]:
            if item["image_id"] not in sizes:
                continue
            mask = _mask(item.get("segmentation"), *sizes[item["image_id"]])
            if mask is None:
                skipped += 1
                continue
            number, kind = numbers[item["image_id"]], kinds.get(item.get("category_id"), "")
            track = item.get("track_id", (item.get("attributes") or {}).get("track_id"))
            if track is None:
                loose[number].append((kind, mask))
                continue
            track = int(track)
            if track in masks[number]:
                raise ValueError(f"two masks of track {track} in the image {item['image_id']}")
            masks[number][track] = mask
            if item.get("score") is not None:
                scores[number][track] = float(item["score"])
            known = objects.get(track, ObjectInfo(track))
            objects[track] = known._replace(category=known.category or ("" if kind == "object" else kind))
        notes: tuple[str, ...] = ()
        if any(loose.values()):
            if any(masks.values()):
                raise ValueError("some annotations have a track_id and some have none")
            masks, found, notes = link_by_order(loose)
            objects = {item.id: item._replace(category="" if item.category == "object" else item.category) for item in found}
        if skipped:
            notes += (f"{skipped} annotations without a segmentation (boxes, keypoints) were passed over",)
        frames = [
            LabeledFrame(
                numbers[image["id"]],
                Path(str(image["file_name"])).stem if image.get("file_name") else f"{numbers[image['id']]:05d}",
                masks[numbers[image["id"]]],
                scores[numbers[image["id"]]],
                image.get("time"),
                Path(str(image["file_name"])).name if Path(str(image.get("file_name", ""))).suffix else "",
            )
            for image in images
        ]
        size = next(iter(sizes.values()), None)
        fps = video.get("fps")
        return LabeledVideo.of(
            str(video.get("name") or path.stem),
            frames,
            objects.values(),
            size,
            fps=read_rate(fps),
            length=int(video.get("length") or 0),
            numbered=numbered,
            notes=notes,
        )


def _images_of_one(path: Path, data: Mapping[str, Any], name: str | None) -> tuple[list[Any], Mapping[str, Any]]:
    """Return the images of one video, and what is said of it."""
    images, videos = list(data["images"]), list(data.get("videos") or [])
    if not images:
        raise InputError(f"{path} holds no images")
    with_video = [item for item in videos if any(image.get("video_id") == item["id"] for image in images)]
    if not with_video:
        return images, {}
    names = [str(item.get("name") or item["id"]) for item in with_video]
    video = with_video[pick_video(path, names, name)]
    return [image for image in images if image.get("video_id") == video["id"]], video


def _numbers(images: list[Any]) -> tuple[dict[Any, int], bool]:
    """Image id -> frame number, and whether the file says them; else in the order of file names."""
    for key in ("frame_number", "frame_id", "frame_index"):
        if all(isinstance(image.get(key), int) for image in images):
            first = min(image[key] for image in images)
            if first < 0:
                raise ValueError(f"a {key} of {first}")
            return {image["id"]: image[key] for image in images}, True
    ordered = sorted(images, key=lambda image: natural_key(str(image.get("file_name", image["id"]))))
    return {image["id"]: number for number, image in enumerate(ordered)}, False


def _track(item: Mapping[str, Any]) -> ObjectInfo:
    return ObjectInfo(
        int(item["id"]), str(item.get("name") or ""), str(item.get("category") or ""), parse_color(item.get("color"))
    )


def _mask(segmentation: Any, height: int, width: int) -> Mask | None:
    if not segmentation:
        return None
    if isinstance(segmentation, dict):
        mask = Mask.of_rle(segmentation)
        if mask[:2] != (height, width):
            raise ValueError(f"a mask of {mask.width} x {mask.height} pixels in an image of {width} x {height}")
        return mask
    polygons = segmentation if isinstance(segmentation[0], list) else [segmentation]
    return fill_edges(polygons, height, width)


def write_coco(video: LabeledVideo, path: Path, pictures: Source | None = None) -> None:
    """Write a COCO file with run lengths."""
    _write(video, path, polygons=False)


def write_coco_polygons(video: LabeledVideo, path: Path, pictures: Source | None = None) -> None:
    """Write a COCO file with polygons along the edges of pixels, exact by COCO's own rule; holes are joined by bridges."""
    _write(video, path, polygons=True)


def _write(video: LabeledVideo, path: Path, polygons: bool) -> None:
    """Write piece by piece, so that a long video needs no more memory than one frame."""
    kinds = categories(video)
    with path.open("w", encoding="utf-8", errors="surrogateescape") as file:
        about = {
            "id": 1,
            "name": video.name,
            "width": video.width,
            "height": video.height,
            "length": video.length,
        } | ({} if video.fps is None else {"fps": float(video.fps)})
        file.write(f'{{"info":{{"description":"vosformer"}},"licenses":[],"videos":[{_text(about)}],"images":[')
        _items(file, (_image(frame, video) for frame in video.frames))
        file.write('],\n"annotations":[')
        _items(file, _annotations(video, kinds, polygons))
        listed = [{"id": at, "name": kind, "supercategory": ""} for at, kind in enumerate(kinds, 1)]
        tracks = [
            {"id": item.id}
            | {
                key: value
                for key, value in (("name", item.name), ("category", item.category), ("color", color_text(item.color)))
                if value
            }
            for item in video.objects.values()
        ]
        file.write(f'],\n"categories":{_text(listed)},\n"tracks":{_text(tracks)}}}\n')


def _image(frame: LabeledFrame, video: LabeledVideo) -> dict[str, Any]:
    image = {"id": frame.number, "file_name": frame.picture, "height": video.height, "width": video.width}
    image |= {"video_id": 1, "frame_id": frame.number, "frame_number": frame.number}
    return image if frame.time is None else image | {"time": frame.time}


def _annotations(video: LabeledVideo, kinds: Any, polygons: bool) -> Iterable[dict[str, Any]]:
    at = 0
    for frame in video.frames:
        for number, mask in frame.masks.items():
            if not mask.area:
                continue
            at += 1
            kind = kinds.index(video.object(number).category or "object") + 1
            segmentation: Any = [one_ring(edge_rings(mask)).reshape(-1).tolist()] if polygons else mask.rle
            yield {
                "id": at,
                "image_id": frame.number,
                "category_id": kind,
                "track_id": number,
                "attributes": {"track_id": number},
                "iscrowd": 0,
                "segmentation": segmentation,
                "area": mask.area,
                "bbox": mask.box,
            } | ({"score": frame.scores[number]} if number in frame.scores else {})


def _items(file: Any, items: Iterable[Any]) -> None:
    for at, item in enumerate(items):
        file.write(("," if at else "") + "\n" + _text(item))


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _is_coco(path: Path, content: Content) -> bool:
    return content.has("images", "annotations")


_HOLDS = frozenset({"overlap", "ids", "names", "categories", "colors", "scores", "rate", "empty", "shapes"})

COCO = Format(
    "coco", "COCO JSON with track_id, run lengths", read_coco, write_coco, _is_coco, "coco.json",
    holds=_HOLDS, library="pycocotools", checked="pycocotools, datumaro, supervision",
)  # fmt: skip
COCO_POLYGONS = Format(
    "coco-polygons", "COCO JSON with track_id, polygons", read_coco, write_coco_polygons, lambda path, content: False,
    "coco-polygons.json", holds=_HOLDS, library="pycocotools", checked="pycocotools",
)  # fmt: skip
