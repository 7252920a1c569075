"""Label Studio: one image task a frame with brush masks (`brushlabels`), and the labeling configuration that fits.

Label Studio has no brush masks in videos, so every frame is a task of its own. Its run lengths are rle-pack's: words of 8 bits of the
RGBA picture, in blocks of equal or of different words.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np
from numpy.typing import NDArray

from vosformer.formats.folders import frame_numbers
from vosformer.formats.labeled import LabeledFrame, LabeledVideo, Mask, ObjectInfo, categories, check_sides
from vosformer.formats.names import parse_color, shown_color
from vosformer.formats.polygons import fill_edges
from vosformer.formats.registry import Content, Format, ReadOptions, link_by_order, load_json, reading
from vosformer.io import Source
from vosformer.io.files import make_folder

_WORD = 8
_SIZES = (3, 4, 8, 16)  # bits of a block's length


def encode_rle(pixels: NDArray[np.bool_]) -> list[int]:
    """Label Studio's run lengths of a mask [H,W], as bytes."""
    words = np.repeat(pixels.reshape(-1).astype(np.uint8) * np.uint8(255), 4)
    changes = np.flatnonzero(np.diff(words))
    ends = np.concatenate([changes + 1, [len(words)]])
    bits = [f"{len(words):032b}", f"{_WORD - 1:05b}", *(f"{size - 1:04b}" for size in _SIZES)]
    start = 0
    for end in ends.tolist():
        value = f"{int(words[start]):08b}"
        while start < end:
            run = min(end - start, 1 << _SIZES[-1])
            row = next(at for at, size in enumerate(_SIZES) if run <= 1 << size)
            bits.append(f"1{row:02b}{run - 1:0{_SIZES[row]}b}{value}")
            start += run
    text = "".join(bits)
    text += "0" * (-len(text) % 8)
    return np.packbits(np.frombuffer(text.encode(), np.uint8) - 48).tolist()


def decode_rle(data: list[int], height: int, width: int) -> NDArray[np.bool_]:
    """Return the mask [H,W] of Label Studio's run lengths: where alpha is above 0.

    Raises:
        ValueError: they do not give a picture of this size.
    """
    check_sides(height, width)
    if not all(isinstance(value, int) and 0 <= value < 256 for value in data):
        raise ValueError("run lengths that are no bytes")
    bits = np.unpackbits(np.array(data, np.uint8))
    weights = 1 << np.arange(31, -1, -1, dtype=np.int64)
    offset = 0

    def take(count: int) -> int:
        nonlocal offset
        if offset + count > len(bits):
            raise ValueError("run lengths that break off")
        value = int(bits[offset : offset + count] @ weights[32 - count :])
        offset += count
        return value

    total = take(32)
    if total != 4 * height * width:
        raise ValueError(f"run lengths of {total} values, expected {height} x {width} x 4")
    word = take(5) + 1
    sizes = [take(4) + 1 for _ in range(4)]
    words = np.zeros(total, np.uint32)
    done = 0
    while done < total:
        same = take(1)
        count = take(sizes[take(2)]) + 1
        if done + count > total:
            raise ValueError("run lengths that are longer than the picture")
        if same:
            words[done : done + count] = take(word)
        else:
            if offset + count * word > len(bits):
                raise ValueError("run lengths that break off")
            block = bits[offset : offset + count * word].reshape(count, word)
            words[done : done + count] = block @ weights[32 - word :]
            offset += count * word
        done += count
    return np.asarray(words.reshape(height, width, 4)[:, :, 3] > 0)


def read_labelstudio(path: Path, options: ReadOptions) -> LabeledVideo:
    """Read tasks with brush masks or polygons, from annotations or else predictions; the first of each task.

    The id is `track_id=7` in the region's text (`meta`), else by order.

    Raises:
        InputError: it cannot be read; the message names the field.
    """
    file = path / "tasks.json" if path.is_dir() else path
    data = load_json(file)
    with reading(file, "Label Studio file"):
        tasks = data if isinstance(data, list) else [data]
        files = [_picture(task) for task in tasks]
        meta = [(task.get("data") or {}).get("frame") for task in tasks]
        if all(isinstance(number, int) for number in meta):
            numbers, numbered = [int(number or 0) for number in meta], True
        else:
            numbers, numbered = frame_numbers([Path(name).stem for name in files])
        frames: dict[int, dict[int, Mask]] = {}
        loose: dict[int, list[tuple[str, Mask]]] = {}
        objects: dict[int, ObjectInfo] = {}
        size, skipped = options.size, 0
        for task, number in zip(tasks, numbers, strict=True):
            sheets = task.get("annotations") or task.get("completions") or task.get("predictions") or []
            masks: dict[int, Mask] = {}
            loose[number] = []
            if (task.get("data") or {}).get("width"):
                size = (int(task["data"]["height"]), int(task["data"]["width"]))
            for region in sheets[0]["result"] if sheets else []:
                mask = _region_mask(region)
                if mask is None:
                    skipped += 1
                    continue
                size = mask[:2]
                item = _object(region)
                loose[number].append((item.category, mask))
                if item.id:
                    masks[item.id] = mask
                    objects[item.id] = item
            frames[number] = masks
        notes: tuple[str, ...] = ()
        if not objects:
            frames, found, notes = link_by_order(loose)
            objects = {item.id: item for item in found}
        if skipped:
            notes += (f"{skipped} regions without a mask were passed over",)
        labeled = [
            LabeledFrame(number, Path(name).stem, frames[number], file=name if Path(name).suffix else "")
            for name, number in zip(files, numbers, strict=True)
        ]
        return LabeledVideo.of(path.stem, labeled, objects.values(), size, numbered=numbered, notes=notes)


def _picture(task: Any) -> str:
    values = task["data"]
    text = str(values.get("image") or next(iter(values.values())))
    return re.split(r"[/\\=]", text)[-1]


def _object(region: Any) -> ObjectInfo:
    """Id (0: not said), name, category and color of a region."""
    value = region["value"]
    kind = (value.get("brushlabels") or value.get("polygonlabels") or [""])[0]
    texts = dict(text.split("=", 1) for text in (region.get("meta") or {}).get("text") or [] if "=" in text)
    return ObjectInfo(
        int(texts.get("track_id", 0)), texts.get("name", ""), "" if kind == "object" else str(kind),
        parse_color(texts.get("color")),
    )  # fmt: skip


def _region_mask(region: Any) -> Mask | None:
    value = region["value"]
    height, width = int(region.get("original_height") or 0), int(region.get("original_width") or 0)
    if value.get("format") == "rle":
        return Mask.of(decode_rle(value["rle"], height, width))
    if region.get("type") == "polygonlabels":
        points = np.array(value["points"], np.float64) * [width / 100, height / 100]
        return fill_edges([points.reshape(-1).tolist()], height, width)
    return None


def write_labelstudio(video: LabeledVideo, path: Path, pictures: Source | None = None) -> None:
    """Write `tasks.json` to import, with the masks as predictions, and `config.xml`, the labeling configuration."""
    make_folder(path)
    tasks = []
    for frame in video.frames:
        result = [
            {
                "id": f"{frame.number}-{number}",
                "type": "brushlabels",
                "from_name": "tag",
                "to_name": "image",
                "original_width": video.width,
                "original_height": video.height,
                "image_rotation": 0,
                "meta": {"text": _texts(video.object(number))},
                "value": {
                    "format": "rle",
                    "rle": encode_rle(mask.pixels()),
                    "brushlabels": [video.object(number).category or "object"],
                },
            }
            for number, mask in frame.masks.items()
            if mask.area
        ]
        image = f"/data/local-files/?d={frame.picture}"
        data = {"image": image, "frame": frame.number, "width": video.width, "height": video.height}
        tasks.append({"data": data, "predictions": [{"model_version": "vosformer", "result": result}]})
    text = json.dumps(tasks, ensure_ascii=False)
    (path / "tasks.json").write_text(text, encoding="utf-8", errors="surrogateescape")
    (path / "config.xml").write_text(_config(video), encoding="utf-8")


def _texts(item: ObjectInfo) -> list[str]:
    color = "" if item.color is None else "#{:02x}{:02x}{:02x}".format(*item.color)
    pairs = (("track_id", str(item.id)), ("name", item.name), ("color", color))
    return [f"{key}={value}" for key, value in pairs if value]


def _config(video: LabeledVideo) -> str:
    labels = []
    for kind in categories(video):
        item = next(item for item in video.objects.values() if (item.category or "object") == kind)
        color = "#{:02x}{:02x}{:02x}".format(*shown_color(item))
        labels.append(f"    <Label value={quoteattr(kind)} background={quoteattr(color)}/>\n")
    return (
        '<View>\n  <Image name="image" value="$image" zoom="true"/>\n'
        '  <BrushLabels name="tag" toName="image">\n' + "".join(labels) + "  </BrushLabels>\n</View>\n"
    )


def _is_labelstudio(path: Path, content: Content) -> bool:
    if path.is_dir():
        return (path / "tasks.json").is_file()
    task = content.data[0] if isinstance(content.data, list) and content.data else content.data
    return (
        isinstance(task, dict) and "data" in task and any(key in task for key in ("annotations", "predictions", "completions"))
    )


LABEL_STUDIO = Format(
    "labelstudio", "Label Studio tasks with brush masks, config.xml", read_labelstudio, write_labelstudio, _is_labelstudio,
    "labelstudio", True, holds=frozenset({"overlap", "ids", "names", "categories", "colors", "empty", "shapes"}),
    library="json", checked="label-studio-sdk's brush converter and label interface",
)  # fmt: skip
