"""Clicks, boxes, scribbles and polygons as text on the command line: `7:320,200` is a place for object 7."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import tyro
from numpy.typing import NDArray

from vosformer.cli.command_line import values_in_order
from vosformer.errors import InputError
from vosformer.formats import AnnotatedMasks, ObjectInfo, read_masks
from vosformer.io import LabelMap, MaskFolder, Source
from vosformer.prompts import MarkedObjects, Marker, Prompt, mark_objects, polygon, stroke
from vosformer.prompts.weights import load_network


@dataclass(frozen=True)
class Marks:
    """What is said about objects on a frame, as texts; `7:` in front means object 7 (without it: object 1).

    Attributes:
        point: a place on an object, 7:X,Y for object 7; may be given several times, as may those that follow. Where two objects
            claim the same pixels, they go to the one that is named later.
        not_: a place that is not the object.
        box: around an object: 7:LEFT,TOP,RIGHT,BOTTOM.
        polygon: corners of an object, drawn by hand: 7:X,Y,X,Y,X,Y,...
        scribble: a line drawn on an object: 7:X,Y,X,Y,...
        not_scribble: a line drawn beside it, on what is not the object.
    """

    point: tuple[str, ...] = ()
    not_: Annotated[tuple[str, ...], tyro.conf.arg(name="not")] = ()
    box: tuple[str, ...] = ()
    polygon: tuple[str, ...] = ()
    scribble: tuple[str, ...] = ()
    not_scribble: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return any(getattr(self, field.name) for field in fields(self))


class GivenMasks(NamedTuple):
    """The user's masks.

    Attributes:
        labels: frame number -> int32 [H,W], or masks of files, which also know of frames that are empty.
        palette: uint8 RGB [256,3] of their files, or None.
        objects: what an annotation file says of the objects.
        notes: what a user should know about them.
    """

    labels: Mapping[int, NDArray[np.int32]] | MaskFolder
    palette: NDArray[np.uint8] | None
    objects: Mapping[int, ObjectInfo]
    notes: tuple[str, ...]


def given_masks(source: Source, mask: Path | None, number: int, marks: Marks, legend: Path | None = None) -> GivenMasks:
    """Return the masks of files, and on frame `number` what is marked by clicks and the like.

    Args:
        source: the frames.
        mask: picture, folder or annotation file, or None.
        number: the frame that a single mask belongs to, and that objects are marked on.
        marks: what is marked.
        legend: file that tells which color of pictures stands for which object.

    Raises:
        InputError: nothing is given, or what is given cannot be used.
    """
    if mask is None:
        if not marks:
            raise InputError(
                "nothing is marked: give masks with --mask, or say where objects are with --point, --box, --scribble or --polygon"
            )
        made = mark_frame(source, number, marks)
        return GivenMasks({number: made.labels}, None, {}, made.notes)
    masks = read_masks(mask, source, frame=number, legend=legend)
    palette = masks[next(iter(masks))].palette
    objects = masks.objects if isinstance(masks, AnnotatedMasks) else {}
    if marks:
        made = mark_frame(source, number, marks, masks.labels.get(number))
        masks = masks.amended(number, LabelMap(made.labels, palette, made.notes))
    return GivenMasks(masks, palette, objects, masks.notes)


def mark_frame(
    source: Source,
    number: int,
    marks: Marks,
    held: NDArray[np.int32] | None = None,
    *,
    classical: bool = False,
    network: Path | None = None,
) -> MarkedObjects:
    """Mark objects on one frame.

    Args:
        source: the frames.
        number: of the frame.
        marks: what is said about the objects.
        held: int32 [H,W], masks of that frame that exist: points repair them, objects without a prompt stay as they are.
        classical: GrabCut and a random walker in place of the click network.
        network: weights of a click network of one's own.

    Returns:
        The label map; objects are marked in the order in which the command names them, else of their ids.

    Raises:
        InputError: a text that cannot be read, a place outside the frame, or a frame that does not decode.
    """
    if source.live:
        raise InputError(
            f"{source.name} is live, so no frame of it can be marked before it is tracked: give a mask with --mask"
        )
    frame = source.read(number)
    if frame.image is None:
        raise InputError(f"{source.name}: frame {number} cannot be marked: {frame.problem}")
    height, width = frame.image.shape[:2]
    held = np.zeros((height, width), np.int32) if held is None else held
    prompts = read_prompts(marks, held)
    own = None if network is None else load_network(network)
    marker = Marker(frame.image, method="classical" if classical else "auto", network=own)
    marked = mark_objects(marker, prompts)
    kept = np.where(np.isin(held, list(prompts)), 0, held)
    return MarkedObjects(np.where(marked.labels != 0, marked.labels, kept), marked.notes)


def read_prompts(marks: Marks, held: NDArray[np.int32]) -> dict[int, Prompt]:
    """Return the prompts of all objects, in the order in which the command names them; else by ascending id.

    Args:
        marks: what is said about them.
        held: int32 [H,W], masks that exist: of these objects, points repair them; a box or polygon marks them anew.

    Raises:
        InputError: a text that cannot be read, or two boxes of one object.
    """
    height, width = held.shape
    clicks: dict[int, list[tuple[float, float]]] = {}
    labels: dict[int, list[int]] = {}
    boxes: dict[int, tuple[float, ...]] = {}
    masks: dict[int, NDArray[np.bool_]] = {}
    for flag, texts, label in (("--point", marks.point, 1), ("--not", marks.not_, 0)):
        for text in texts:
            i, (x, y) = _numbers(flag, text, "X,Y", 2)
            clicks.setdefault(i, []).append((x, y))
            labels.setdefault(i, []).append(label)
    for text in marks.box:
        i, values = _numbers("--box", text, "X0,Y0,X1,Y1", 4)
        if i in boxes:
            raise InputError(f"--box {text}: object {i} has a box already")
        boxes[i] = values
    for text in marks.polygon:
        i, values = _numbers("--polygon", text, "X,Y,X,Y,X,Y,...", None)
        corners = list(zip(values[::2], values[1::2], strict=True))
        masks[i] = masks.get(i, np.zeros((height, width), bool)) | polygon(corners, height, width)
    scribbles = _scribbles(marks, height, width)
    prompts = {}
    for i in _in_order({*clicks, *boxes, *masks, *scribbles}):
        known = masks.get(i)
        if known is None and i not in boxes and (held == i).any():
            known = held == i
        prompts[i] = Prompt(clicks.get(i, ()), labels.get(i), boxes.get(i), scribbles.get(i), known)
    return prompts


_FLAGS = ("--point", "--not", "--box", "--polygon", "--scribble", "--not-scribble")
_WIDTH = 200  # of the frame's long side is the radius of a scribble's line


def _scribbles(marks: Marks, height: int, width: int) -> dict[int, NDArray[np.int8]]:
    """Return the lines that are drawn on objects and beside them, as `Prompt` takes them; where they cross, beside wins."""
    drawn: dict[int, NDArray[np.int8]] = {}
    for flag, texts, value in (("--scribble", marks.scribble, 1), ("--not-scribble", marks.not_scribble, -1)):
        for text in texts:
            i, values = _numbers(flag, text, "X,Y,X,Y,...", None, least=4)
            line = list(zip(values[::2], values[1::2], strict=True))
            outside = [(x, y) for x, y in line if not (0 <= x < width and 0 <= y < height)]
            if outside:
                raise InputError(f"{flag} {text}: the point {outside[0]} is outside of the frame of {width} x {height} pixels")
            covered = stroke(line, max(1.0, max(height, width) / _WIDTH), height, width)
            drawn.setdefault(i, np.zeros((height, width), np.int8))[covered] = value
    return drawn


def _in_order(ids: Collection[int]) -> list[int]:
    """Return the objects in the order in which the command names them first; those that it does not name, by id, in front."""
    named = [_numbers("", text, "", None, least=0)[0] for text in values_in_order(_FLAGS)]
    return sorted(ids, key=lambda i: (named.index(i) if i in named else -1, i))


def _numbers(flag: str, text: str, form: str, count: int | None, least: int = 6) -> tuple[int, tuple[float, ...]]:
    """Object and numbers of `ID:N,N,...`, so many, or pairs of at least so many; without `ID:` it is object 1."""
    head, colon, tail = text.rpartition(":")
    try:
        i = int(head) if colon else 1
        values = tuple(float(part) for part in tail.split(","))
    except ValueError:
        raise InputError(f"{flag} {text}: expected ID:{form}, e.g. 7:320,200") from None
    wrong = len(values) != count if count is not None else len(values) % 2 or len(values) < least
    if wrong:
        raise InputError(f"{flag} {text}: {len(values)} numbers were given, expected ID:{form}")
    return i, values
