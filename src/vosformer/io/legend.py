"""Which color of a label picture stands for which object."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from vosformer.errors import InputError

NAMES = ("legend.json", "colors.json", "labelmap.txt")
"""Files beside a mask, or in the folder of masks, that are read as its legend."""

Color = tuple[int, int, int]


@dataclass
class ColorIds:
    """How the colors of label pictures become ids; used for several pictures of one video, a color is one object in all of them.

    Attributes:
        legend: file that tells; None: one that lies beside the picture, if any.
        number: which colors are given numbers, in the order in which they are met: none, those of pictures with a color that is
            not of the DAVIS palette, or all. Colors of a legend never are.
        numbers: color as 0xRRGGBB -> the number that it was given.
        ground: the color of the background of numbered pictures, once it is known.
    """

    legend: Path | None = None
    number: Literal["none", "unknown", "all"] = "none"
    numbers: dict[int, int] = field(default_factory=dict)
    ground: int | None = None


def find_legend(mask: Path) -> Path | None:
    """Look for a legend in the folder of a mask, or above it."""
    folders = [mask, mask.parent] if mask.is_dir() else [mask.parent, mask.parent.parent]
    return next((path for folder in folders for name in NAMES if (path := folder / name).is_file()), None)


def read_legend(path: Path) -> dict[Color, int]:
    """Read a legend: color -> id.

    JSON holds {"1": [255, 0, 0]}, {"1": "#ff0000"} or {"#ff0000": 1}; a text file has CVAT's lines "name:255,0,0::", numbered
    from 1 in their order, black being the background.

    Raises:
        InputError: it is something else, or one color stands for two ids.
    """
    try:
        text = path.read_text("utf-8")
        pairs = list(_json(json.loads(text)) if path.suffix.lower() == ".json" else _lines(text))
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f'{path} is no legend ({error}): expected JSON like {{"1": [255, 0, 0], "2": "#00ff00"}}, or lines name:R,G,B::'
        ) from None
    legend: dict[Color, int] = {}
    for color, number in pairs:
        if legend.setdefault(color, number) != number:
            raise InputError(f"{path}: the color {color} stands for the ids {legend[color]} and {number}")
    return legend


def _json(values: Any) -> Iterator[tuple[Color, int]]:
    if not isinstance(values, Mapping):
        raise ValueError("it is no JSON object")
    for key, value in values.items():
        if str(key).isdecimal():
            yield _color(value), int(key)
        else:
            yield _color(key), int(value)


def _lines(text: str) -> Iterator[tuple[Color, int]]:
    number = 0
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        color = _color(line.split(":")[1])
        if color == (0, 0, 0):
            yield color, 0
            continue
        number += 1
        yield color, number


def _color(value: Any) -> Color:
    if isinstance(value, str):
        if match := re.fullmatch(r"#?([0-9a-fA-F]{2})([0-9a-fA-F]{2})([0-9a-fA-F]{2})", value.strip()):
            red, green, blue = (int(part, 16) for part in match.groups())
            return red, green, blue
        value = [int(part) for part in value.split(",")]
    red, green, blue = (int(part) for part in value)
    if not all(0 <= part <= 255 for part in (red, green, blue)):
        raise ValueError(f"{value} is no color of 0 to 255")
    return red, green, blue
