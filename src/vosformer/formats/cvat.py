"""CVAT's XML 1.1: for images (masks as run lengths), and for video (one track an object, a polygon a frame).

CVAT's masks in tracks break its page, so tracks are polygons here. They run along the edges of pixels, which is how CVAT and COCO
fill them; holes and further parts are joined by bridges that enclose nothing, so any mask is held exactly.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, SubElement, indent, tostring

import numpy as np
from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import ParseError, parse

from vosformer.errors import InputError
from vosformer.formats.labeled import LabeledFrame, LabeledVideo, Mask, ObjectInfo, categories, read_rate
from vosformer.formats.names import parse_color, shown_color
from vosformer.formats.polygons import edge_rings, fill_edges, one_ring
from vosformer.formats.registry import Content, Format, ReadOptions, link_by_order, reading
from vosformer.io import Source

_KIND = "CVAT file"
_AREAS = ("mask", "polygon", "box")


def read_cvat(path: Path, options: ReadOptions) -> LabeledVideo:
    """Read CVAT for images or for video: masks, polygons and boxes.

    The id is the attribute `track_id`, else of a track its own id, else by order. Tracks of one `track_id` are joined. Frames of a
    track that are not in the file (between key frames) are not annotated.

    Raises:
        InputError: it cannot be read; the message names the field.
    """
    file = path / "annotations.xml" if path.is_dir() else path
    try:
        root = parse(str(file)).getroot()
    except (ParseError, DefusedXmlException, ValueError, LookupError) as error:  # of encodings that there are not
        raise InputError(f"{file} is no {_KIND} that can be read: {error}") from error
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}") from error
    with reading(file, _KIND):
        colors = {
            label.findtext("name"): label.findtext("color") for label in root.iter("label") if label.find("name") is not None
        }
        if root.find("image") is not None:
            return _read_images(root, file, colors)
        return _read_tracks(root, file, options, colors)


def _read_images(root: Any, file: Path, colors: dict[Any, Any]) -> LabeledVideo:
    frames: dict[int, LabeledFrame] = {}
    loose: dict[int, list[tuple[str, Mask]]] = {}
    objects: dict[int, ObjectInfo] = {}
    size, skipped = None, 0
    for image in root.iter("image"):
        number, name = int(image.get("id")), Path(image.get("name")).name
        height, width = int(image.get("height")), int(image.get("width"))
        size = size or (height, width)
        parts: dict[int, list[Mask]] = {}
        loose[number] = []
        for shape in image:
            if shape.tag not in _AREAS:
                skipped += shape.tag not in ("tag",)
                continue
            mask = _shape_mask(shape, height, width)
            loose[number].append((shape.get("label"), mask))
            track = _attributes(shape).get("track_id")
            if track is not None:
                parts.setdefault(int(track), []).append(mask)
                objects[int(track)] = _object(int(track), shape.get("label"), _attributes(shape), colors)
        if parts and sum(map(len, parts.values())) < len(loose[number]):
            raise ValueError("some shapes have a track_id and some have none")
        masks = {track: _union(found) for track, found in parts.items()}
        frames[number] = LabeledFrame(number, Path(name).stem, masks, file=name if Path(name).suffix else "")
    notes: tuple[str, ...] = ()
    if not objects:
        linked, found, notes = link_by_order(loose)
        frames = {n: LabeledFrame(n, frame.name, linked[n], file=frame.file) for n, frame in frames.items()}
        objects = {item.id: item._replace(category="" if item.category == "object" else item.category) for item in found}
    if skipped:
        notes += (f"{skipped} shapes without an area (points, lines) were passed over",)
    name, fps, length = _about(root, file)
    return LabeledVideo.of(name, frames.values(), objects.values(), size, fps=fps, length=length, notes=notes)


def _read_tracks(root: Any, file: Path, options: ReadOptions, colors: dict[Any, Any]) -> LabeledVideo:
    node = next(root.iter("original_size"), None)
    size = options.size if node is None else (int(node.findtext("height")), int(node.findtext("width")))
    if size is None:
        raise KeyError("meta/original_size")
    name, fps, length = _about(root, file)
    parts: dict[int, dict[int, list[Mask]]] = {}
    objects = {}
    shift = int(any(int(track.get("id")) == 0 for track in root.iter("track")))  # 0 means background
    for track in root.iter("track"):
        for shape in track:
            if shape.tag not in _AREAS:
                continue
            attributes = _attributes(shape)
            number = int(attributes.get("track_id") or int(track.get("id")) + shift)
            objects[number] = _object(number, track.get("label"), attributes, colors)
            if shape.get("outside") != "1":
                found = parts.setdefault(int(shape.get("frame")), {})
                found.setdefault(number, []).append(_shape_mask(shape, *size))
    start = int(root.findtext(".//start_frame") or 0)
    stop = root.findtext(".//stop_frame")
    whole = root.find(".//vosformer_frames")
    listed = {int(text) for text in (whole.text or "").split(",") if text.strip()} if whole is not None else set()
    frames = [
        LabeledFrame(number, f"{number:05d}", {i: _union(masks) for i, masks in parts.get(number, {}).items()})
        for number in sorted(set(parts) | listed)
    ]
    if length == 0 and stop is not None:
        length = int(stop) - start + 1
    return LabeledVideo.of(name, frames, objects.values(), size, fps=fps, length=length)


def _about(root: Any, file: Path) -> tuple[str, Fraction | None, int]:
    """Name, frame rate and length of the video."""
    fps = root.findtext(".//vosformer_fps")
    name = root.findtext(".//task/name") or root.findtext(".//job/name") or file.stem
    return name, read_rate(fps), int(root.findtext(".//task/size") or 0)


def _attributes(shape: Any) -> dict[str, str]:
    return {item.get("name"): item.text or "" for item in shape.findall("attribute")}


def _object(number: int, label: str, attributes: dict[str, str], colors: dict[Any, Any]) -> ObjectInfo:
    color = attributes.get("color")
    return ObjectInfo(number, attributes.get("name", ""), "" if label == "object" else label, parse_color(color))


def _union(masks: list[Mask]) -> Mask:
    return masks[0] if len(masks) == 1 else Mask.of(np.any([mask.pixels() for mask in masks], 0))


def _shape_mask(shape: Any, height: int, width: int) -> Mask:
    if shape.tag == "mask":
        runs = [int(run) for run in shape.get("rle").split(",")]
        left, top, wide, high = (int(float(shape.get(key))) for key in ("left", "top", "width", "height"))
        return decode_mask(runs, left, top, wide, high, height, width)
    if shape.tag == "box":
        x0, y0, x1, y1 = (float(shape.get(key)) for key in ("xtl", "ytl", "xbr", "ybr"))
        return fill_edges([[x0, y0, x1, y0, x1, y1, x0, y1]], height, width)
    points = [float(value) for pair in shape.get("points").split(";") for value in pair.split(",")]
    return fill_edges([points], height, width)


def encode_mask(mask: Mask) -> tuple[list[int], int, int, int, int]:
    """CVAT's run lengths, row by row inside the box, beginning with background; and left, top, width, height of the box."""
    left, top, width, height = (int(value) for value in mask.box)
    piece = mask.pixels()[top : top + height, left : left + width].reshape(-1)
    changes = np.flatnonzero(np.diff(piece.astype(np.int8), prepend=0))
    runs = np.diff(np.concatenate([[0], changes, [len(piece)]]))
    return runs.tolist(), left, top, width, height


def decode_mask(runs: list[int], left: int, top: int, wide: int, high: int, height: int, width: int) -> Mask:
    """Return the mask of CVAT's run lengths in a box, in a frame of `height` x `width`.

    Raises:
        ValueError: the runs do not fill the box, or the box does not lie in the frame.
    """
    if min(runs, default=0) < 0 or sum(runs) > wide * high or wide < 1 or high < 1:
        raise ValueError(f"run lengths of {sum(runs)} pixels in a box of {wide} x {high}")
    if left < 0 or top < 0 or left + wide > width or top + high > height:
        raise ValueError(f"a box of {wide} x {high} at {left}, {top} in a frame of {width} x {height}")
    piece = np.repeat(np.arange(len(runs)) % 2, runs)
    pixels = np.zeros((height, width), np.uint8)
    pixels[top : top + high, left : left + wide] = np.pad(piece, (0, wide * high - len(piece))).reshape(high, wide)
    return Mask.of(pixels)


def write_cvat_images(video: LabeledVideo, path: Path, pictures: Source | None = None) -> None:
    """Write CVAT for images: one mask an object and frame."""
    root = _root(video)
    for frame in video.frames:
        image = SubElement(
            root, "image", id=str(frame.number), name=frame.picture, width=str(video.width), height=str(video.height)
        )
        for number, mask in frame.masks.items():
            if mask.area:
                runs, left, top, width, height = encode_mask(mask)
                values = {"label": video.object(number).category or "object", "source": "auto", "occluded": "0"}
                values |= {"rle": ", ".join(map(str, runs)), "left": str(left), "top": str(top)}
                shape = SubElement(image, "mask", values | {"width": str(width), "height": str(height), "z_order": "0"})
                _put_attributes(shape, video.object(number))
    _save(root, path)


def write_cvat_video(video: LabeledVideo, path: Path, pictures: Source | None = None) -> None:
    """Write CVAT for video: one track of polygons an object, ended by an `outside` shape where it leaves."""
    root = _root(video)
    for number in video.ids:
        item = video.object(number)
        track = SubElement(root, "track", id=str(number), label=item.category or "object", source="auto")
        for frame, ring, outside in _shapes(video, number):
            points = ";".join(f"{x},{y}" for x, y in ring.tolist())
            shape = SubElement(
                track, "polygon", frame=str(frame), keyframe="1", outside=str(int(outside)), occluded="0", points=points,
                z_order="0",
            )  # fmt: skip
            _put_attributes(shape, item)
    _save(root, path)


def _shapes(video: LabeledVideo, number: int) -> Iterator[tuple[int, Any, bool]]:
    """Yield (frame, ring, outside) of an object."""
    last: tuple[int, Any] | None = None
    for frame in video.frames:
        mask = frame.masks.get(number)
        if last is not None and (mask is None or not mask.area or frame.number > last[0] + 1):
            yield last[0] + 1, last[1], True
            last = None
        if mask is not None and mask.area:
            last = (frame.number, one_ring(edge_rings(mask)))
            yield *last, False
    if last is not None and last[0] + 1 < video.length:
        yield last[0] + 1, last[1], True


def _root(video: LabeledVideo) -> Element:
    root = Element("annotations")
    SubElement(root, "version").text = "1.1"
    task = SubElement(SubElement(root, "meta"), "task")
    for key, value in (
        ("name", video.name), ("size", video.length), ("mode", "interpolation"), ("start_frame", 0),
        ("stop_frame", video.length - 1), ("vosformer_frames", ",".join(str(frame.number) for frame in video.frames)),
    ):  # fmt: skip
        SubElement(task, key).text = str(value)
    if video.fps is not None:
        SubElement(task, "vosformer_fps").text = str(video.fps)
    size = SubElement(task, "original_size")
    SubElement(size, "width").text, SubElement(size, "height").text = str(video.width), str(video.height)
    labels = SubElement(task, "labels")
    for kind in categories(video):
        label = SubElement(labels, "label")
        SubElement(label, "name").text = kind
        item = next((item for item in video.objects.values() if (item.category or "object") == kind), None)
        if item is not None:
            SubElement(label, "color").text = "#{:02x}{:02x}{:02x}".format(*shown_color(item))
        attributes = SubElement(label, "attributes")
        for name, kind_of_input in (("track_id", "number"), ("name", "text"), ("color", "text")):
            attribute = SubElement(attributes, "attribute")
            for key, value in (
                ("name", name), ("mutable", "False"), ("input_type", kind_of_input), ("default_value", ""), ("values", ""),
            ):  # fmt: skip
                SubElement(attribute, key).text = value
    return root


def _put_attributes(shape: Element, item: ObjectInfo) -> None:
    color = "" if item.color is None else "#{:02x}{:02x}{:02x}".format(*item.color)
    for key, value in (("track_id", str(item.id)), ("name", item.name), ("color", color)):
        if value:
            SubElement(shape, "attribute", name=key).text = value


def _save(root: Element, path: Path) -> None:
    indent(root)
    path.write_bytes(b'<?xml version="1.0" encoding="utf-8"?>\n' + tostring(root, encoding="utf-8") + b"\n")


def _is_cvat(path: Path, content: Content) -> bool:
    if path.is_dir():
        return (path / "annotations.xml").is_file()
    return path.suffix.lower() == ".xml" and "<annotations" in content.head


_HOLDS = frozenset({"overlap", "ids", "names", "categories", "colors", "rate", "empty", "shapes"})

CVAT_IMAGES = Format(
    "cvat-images", "CVAT for images 1.1, masks", read_cvat, write_cvat_images, _is_cvat, "cvat-images.xml",
    holds=_HOLDS, library="defusedxml", checked="cvat-sdk's mask codec, datumaro",
)  # fmt: skip
CVAT_VIDEO = Format(
    "cvat-video", "CVAT for video 1.1, polygon tracks", read_cvat, write_cvat_video, lambda path, content: False,
    "cvat-video.xml", holds=_HOLDS, library="defusedxml", checked="datumaro",
)  # fmt: skip
