"""Names, categories and colors of objects in a small JSON file."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vosformer.formats.labeled import ObjectInfo
from vosformer.formats.registry import load_json, reading
from vosformer.io import DAVIS_PALETTE

_EXPECTED = 'expected {"7": {"name": "left dog", "category": "dog", "color": "#ff8800"}, ...} or {"7": "left dog", ...}'


def read_names(path: Path | str) -> dict[int, ObjectInfo]:
    """Read names, categories and colors of objects.

    Args:
        path: JSON file: id -> name, or id -> {name, category, color}, or a list of {id, name, category, color}; the same may lie
            below "objects". Colors are "#rrggbb" or [r,g,b].

    Raises:
        InputError: it cannot be read, or holds something else.
    """
    path = Path(path)
    data = load_json(path)
    if isinstance(data, dict) and isinstance(data.get("objects"), dict | list):
        data = data["objects"]
    with reading(path, f"list of objects ({_EXPECTED})"):
        if isinstance(data, dict):
            pairs = [(key, value if isinstance(value, dict) else {"name": value}) for key, value in data.items()]
        elif isinstance(data, list):
            pairs = [(item["id"], item) for item in data]
        else:
            raise TypeError(f"it holds {type(data).__name__}")
        return {item.id: item for item in (_object(int(key), value) for key, value in pairs)}


def names_json(objects: Iterable[ObjectInfo]) -> dict[str, Any]:
    """Turn objects into what `read_names` reads, without what is not known."""
    return {
        str(item.id): {
            key: value
            for key, value in {"name": item.name, "category": item.category, "color": color_text(item.color)}.items()
            if value
        }
        for item in objects
    }


def color_text(color: tuple[int, int, int] | None) -> str:
    """Write a color as #rrggbb; None is empty."""
    return "" if color is None else "#{:02x}{:02x}{:02x}".format(*color)


def parse_color(value: Any) -> tuple[int, int, int] | None:
    """Read "#rrggbb" or [r,g,b]; None and empty text are none.

    Raises:
        ValueError: it is something else.
    """
    if value in (None, ""):
        return None
    if isinstance(value, str) and re.fullmatch(r"#[0-9a-fA-F]{6}", value):
        return int(value[1:3], 16), int(value[3:5], 16), int(value[5:7], 16)
    if isinstance(value, list | tuple) and len(value) == 3 and all(isinstance(part, int) and 0 <= part < 256 for part in value):
        return value[0], value[1], value[2]
    raise ValueError(f"the color {value!r}, expected #rrggbb or three numbers of 0 to 255")


def shown_color(item: ObjectInfo) -> tuple[int, int, int]:
    """Return the color of an object: its own, or its place in the DAVIS palette."""
    if item.color is not None:
        return item.color
    red, green, blue = DAVIS_PALETTE[(item.id - 1) % 255 + 1].tolist()
    return red, green, blue


def palette_of(objects: Mapping[int, ObjectInfo], base: NDArray[np.uint8] | None = None) -> NDArray[np.uint8] | None:
    """Return a palette uint8 [256,3] in which objects of ids up to 255 have their colors; `base` if none has one."""
    colored = {number: item.color for number, item in objects.items() if item.color is not None and number < 256}
    if not colored:
        return base
    palette = np.array(DAVIS_PALETTE if base is None else base, np.uint8)
    for number, color in colored.items():
        palette[number] = color
    return palette


def _object(number: int, value: Mapping[str, Any]) -> ObjectInfo:
    if not 0 < number < 1 << 31:
        raise ValueError(f"the id {number}, expected 1 or more")
    name, category = value.get("name") or "", value.get("category") or ""
    if not isinstance(name, str) or not isinstance(category, str):
        raise TypeError(f"the name {name!r} and category {category!r} of object {number}, expected texts")
    return ObjectInfo(number, name, category, parse_color(value.get("color")))
