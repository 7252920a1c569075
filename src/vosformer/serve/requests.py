"""What a client may ask for: every field with its bounds."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Id = Annotated[int, Field(ge=-(2**31), le=2**31 - 1)]
Coordinate = Annotated[float, Field(ge=-100_000, le=100_000, allow_inf_nan=False)]
Size = Annotated[int, Field(ge=0)]
Side = Annotated[int, Field(ge=1, le=65_535)]
Counts = str


class _Request(BaseModel):
    """Fields that are not known are refused."""

    model_config = ConfigDict(extra="forbid")


class PromptFields(_Request):
    """Clicks, a box, scribbles or a mask; see `vosformer.Prompt`. Masks are COCO's compressed run lengths at the frame's size.

    Attributes:
        points: clicks (x, y).
        labels: of each point 1 = the object, 0 = not the object.
        box: (x0, y0, x1, y1).
        scribbles: run lengths, under "1" those on the object and under "-1" those that are not.
        mask: run lengths of the mask so far.
    """

    points: Annotated[list[tuple[Coordinate, Coordinate]], Field(max_length=10_000)] = []
    labels: Annotated[list[Literal[0, 1]], Field(max_length=10_000)] | None = None
    box: tuple[Coordinate, Coordinate, Coordinate, Coordinate] | None = None
    scribbles: dict[Literal["1", "-1"], Counts] | None = None
    mask: Counts | None = None


class Said(_Request):
    """What is said about a frame beside its picture.

    Attributes:
        rle: id -> run lengths of its mask on this frame.
        ids: the objects that the labels speak for; see `vosformer.Session.step`.
        prompts: id -> prompt.
        options: of the model, e.g. {"depth": 2} for AOST.
    """

    rle: dict[Id, Counts] | None = None
    ids: list[Id] | None = None
    prompts: dict[Id, PromptFields] = {}
    options: dict[str, Any] = {}


class SentFrame(_Request):
    """The frame behind the header.

    Attributes:
        format: raw: uint8 RGB by rows; jpeg, png: a file.
        bytes: how many.
        height: of a raw frame.
        width: of a raw frame.
    """

    format: Literal["raw", "jpeg", "png"]
    bytes: Size
    height: Side | None = None
    width: Side | None = None


class Step(Said):
    """The next frame.

    Attributes:
        do: "step".
        frame: its picture, behind the header.
        png: bytes of a PNG of labels behind the frame; 0: there is none.
    """

    do: Literal["step"]
    frame: SentFrame
    png: Size = 0


class Remove(_Request):
    """Stop tracking an object."""

    do: Literal["remove"]
    id: Id


class Reset(_Request):
    """Forget everything."""

    do: Literal["reset"]
