"""What a project knows besides pictures: its objects, the frames that a user gave, and numbers of every tracked frame."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Row(NamedTuple):
    """The numbers of an object on a frame; NaN where nothing is known.

    Attributes:
        score: how surely it is there, in [0,1].
        pixels: of its mask.
        x: of the mask's center, in pixels.
        y: likewise.
        agreement: intersection over union of both directions' masks.
        color: how far its colors are from those of its given masks, in [0,1]; see `vosformer.annotate.colors`.
    """

    score: float
    pixels: int
    x: float = math.nan
    y: float = math.nan
    agreement: float = math.nan
    color: float = math.nan


_ROW = np.dtype([("score", "f4"), ("pixels", "i4"), ("x", "f4"), ("y", "f4"), ("agreement", "f4"), ("color", "f4")])
_NOTHING = Row(math.nan, 0)
_GOLDEN = 0.618034  # steps of hue by the golden ratio: neighbors differ, and there is no limit


def distinct_color(i: int) -> str:
    """Return a bright color "#rrggbb" for object `i`, unlike those of its neighbors."""
    red, green, blue = colorsys.hsv_to_rgb((0.02 + _GOLDEN * (i - 1)) % 1, 0.75 if i % 2 else 0.55, 1.0)
    return f"#{round(255 * red):02x}{round(255 * green):02x}{round(255 * blue):02x}"


@dataclass(frozen=True)
class TrackedObject:
    """An object of a project.

    Attributes:
        id: its value in all masks, from 1 on.
        name: shown in the page, written by exports.
        category: likewise.
        color: "#rrggbb".
        visible: whether the page shows its mask.
        locked: whether its masks stay as they are, whatever is drawn or tracked over them.
        absent: frame ranges (start, stop) in which the user says that it is not there; stop None = to the end.
    """

    id: int
    name: str
    category: str = "object"
    color: str = "#ff4000"
    visible: bool = True
    locked: bool = False
    absent: tuple[tuple[int, int | None], ...] = ()

    def is_absent(self, frame: int) -> bool:
        """Tell whether the user said that the object is not in this frame."""
        return any(start <= frame and (stop is None or frame < stop) for start, stop in self.absent)

    def leaving(self, start: int, stop: int | None) -> TrackedObject:
        """Return the same, absent in another range as well."""
        return replace(self, absent=merged_ranges([*self.absent, (start, stop)]))

    def returning(self, frame: int) -> TrackedObject:
        """Return the same, back from that frame on, up to where another range of absence begins."""
        kept = [(start, stop) for start, stop in self.absent if start > frame or (stop is not None and stop <= frame)]
        cut: list[tuple[int, int | None]] = [
            (start, frame) for start, stop in self.absent if start < frame and (stop is None or stop > frame)
        ]
        return replace(self, absent=tuple(sorted(kept + cut, key=lambda span: span[0])))

    def to_json(self) -> dict[str, Any]:
        """Return what `project.json` holds of it."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> TrackedObject:
        """From `project.json`; unknown keys of later versions are passed over."""
        known = {key: value[key] for key in cls.__dataclass_fields__ if key in value}
        known["absent"] = tuple((int(start), None if stop is None else int(stop)) for start, stop in known.get("absent", ()))
        return cls(**known)


def merged_ranges(spans: Iterable[tuple[int, int | None]]) -> tuple[tuple[int, int | None], ...]:
    """Ranges in order, those that touch put together."""
    result: list[tuple[int, int | None]] = []
    for start, stop in sorted(spans, key=lambda span: span[0]):
        if result and (result[-1][1] is None or start <= result[-1][1]):
            last = result[-1]
            result[-1] = (last[0], None if stop is None or last[1] is None else max(stop, last[1]))
        else:
            result.append((start, stop))
    return tuple(result)


@dataclass(frozen=True)
class GivenFrame:
    """What a user says about a frame; its masks lie in `given/`.

    Attributes:
        ids: the objects whose masks on this frame are exactly as given, even if empty.
        prompts: object -> the clicks and the box that its mask comes from, as the page sent them.
    """

    ids: tuple[int, ...]
    prompts: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return what `project.json` holds of it."""
        return {"ids": list(self.ids), "prompts": {str(i): dict(prompt) for i, prompt in self.prompts.items()}}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> GivenFrame:
        """From `project.json`."""
        prompts = {int(i): dict(prompt) for i, prompt in value.get("prompts", {}).items()}
        return cls(tuple(int(i) for i in value["ids"]), prompts)


class Measures:
    """The numbers of every tracked frame and object: 24 bytes each, whatever the length of the video.

    Args:
        frames: of the video.
    """

    def __init__(self, frames: int) -> None:
        self.frames = frames
        self._tables: dict[int, NDArray[Any]] = {}

    @property
    def ids(self) -> tuple[int, ...]:
        """The objects with any number, ascending."""
        return tuple(sorted(self._tables))

    def column(self, i: int, name: str) -> NDArray[Any]:
        """One number of an object over all frames [frames], by its name in `Row`."""
        table = self._tables.get(i)
        if table is None:
            return np.full(self.frames, 0 if name == "pixels" else np.nan, _ROW[name])
        return np.asarray(table[name])

    def at(self, frame: int) -> dict[int, Row]:
        """Return the rows of a frame by object, those that are known."""
        rows = {i: table[frame] for i, table in self._tables.items() if not np.isnan(table[frame]["score"])}
        return {i: Row(*row.tolist()) for i, row in sorted(rows.items())}

    def put(self, frame: int, rows: Mapping[int, Row]) -> None:
        """Replace what is known about a frame."""
        for i in rows:
            if i not in self._tables:
                self._tables[i] = np.full(self.frames, np.array(_NOTHING, _ROW), _ROW)
        for i, table in self._tables.items():
            table[frame] = rows.get(i, _NOTHING)


def measure(
    labels: NDArray[np.int32],
    scores: Mapping[int, float],
    agreement: Mapping[int, float] | None = None,
    colors: Mapping[int, float] | None = None,
) -> dict[int, Row]:
    """Return the rows of a frame: scores of the objects known there, with areas and centers from its masks.

    Args:
        labels: integers [H,W].
        scores: object -> presence score, of all objects that are known on the frame, also of those without a pixel.
        agreement: object -> intersection over union of both directions' masks, where both went.
        colors: object -> distance of its colors from the given ones.
    """
    rows: dict[int, Row] = {}
    for i, score in sorted(scores.items()):
        mask = labels == i
        pixels = int(np.count_nonzero(mask))
        x, y = math.nan, math.nan
        if pixels:
            x = float((mask.sum(0) * np.arange(mask.shape[1])).sum() / pixels)
            y = float((mask.sum(1) * np.arange(mask.shape[0])).sum() / pixels)
        rows[i] = Row(float(score), pixels, x, y, (agreement or {}).get(i, math.nan), (colors or {}).get(i, math.nan))
    return rows
