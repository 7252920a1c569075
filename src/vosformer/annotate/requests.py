"""What the page may ask for: every field with its bounds."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Frame = Annotated[int, Field(ge=0, le=10_000_000)]
Id = Annotated[int, Field(ge=1, le=65_535)]
Coordinate = Annotated[float, Field(ge=-100_000, le=100_000, allow_inf_nan=False)]
Point = tuple[Coordinate, Coordinate]
Points = Annotated[list[Point], Field(max_length=100_000)]
Name = Annotated[str, Field(min_length=1, max_length=200)]


class Request(BaseModel):
    """Fields that are not known are refused."""

    model_config = ConfigDict(extra="forbid")


class OnFrame(Request):
    """A frame and an object."""

    frame: Frame
    object: Id


class AddPoints(OnFrame):
    """Clicks, 1 = on the object, 0 = not on it; a box starts anew."""

    points: Points = []
    labels: Annotated[list[Literal[0, 1]], Field(max_length=100_000)] = []
    box: tuple[Coordinate, Coordinate, Coordinate, Coordinate] | None = None


class Stroke(OnFrame):
    """A brush stroke."""

    path: Points
    radius: Annotated[float, Field(gt=0, le=5000, allow_inf_nan=False)]
    erase: bool = False


class Polygon(OnFrame):
    """A polygon, or what a lasso went around."""

    points: Points
    mode: Literal["add", "subtract", "replace"] = "add"


class Fill(OnFrame):
    """A hole, or an area of one color."""

    x: Coordinate
    y: Coordinate
    tolerance: Annotated[int, Field(ge=0, le=255)] = 12


class Move(OnFrame):
    """A shift in pixels."""

    dx: Annotated[int, Field(ge=-100_000, le=100_000)]
    dy: Annotated[int, Field(ge=-100_000, le=100_000)]


class Clear(Request):
    """Of one object, or of all."""

    frame: Frame
    object: Id | None = None


class Scissors(Request):
    """A path along edges."""

    frame: Frame
    start: Point
    end: Point


class AddObject(Request):
    """A new object."""

    name: Name | None = None
    category: Name = "object"


class ChangeObject(Request):
    """Fields that are None stay as they are."""

    object: Id
    name: Name | None = None
    category: Name | None = None
    color: Annotated[str, Field(pattern=r"^#[0-9a-f]{6}$")] | None = None
    visible: bool | None = None
    locked: bool | None = None


class OneObject(Request):
    """An object."""

    object: Id


class Merge(Request):
    """Two objects that are one."""

    kept: Id
    gone: Id


class Swap(Request):
    """Two objects that were mistaken for each other."""

    one: Id
    other: Id
    frame: Frame


class Propagate(Request):
    """Where to go from a frame."""

    direction: Literal["forward", "backward", "both"]
    frame: Frame
    start: Frame | None = None
    stop: Frame | None = None


class OneFrame(Request):
    """A frame."""

    frame: Frame


class Export(Request):
    """A format by its name."""

    format: Name
