"""How frames, masks and prompts travel between client and server.

A message over the WebSocket is a JSON header and the bytes of the pictures it names: four bytes with the header's length (most
significant first), the header, then the pictures in the order of the header's fields.
"""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Mapping
from typing import Any, Literal, cast, get_args

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image as Pillow
from PIL import ImageOps, UnidentifiedImageError

from vosformer.errors import InputError
from vosformer.formats import Mask
from vosformer.io import indexed_png
from vosformer.io.records import rle_counts
from vosformer.io.sinks import png
from vosformer.prompts.objects import check_prompts
from vosformer.prompts.prompt import Prompt

FrameFormat = Literal["raw", "jpeg", "png"]
MaskFormat = Literal["rle", "png"]
Image = NDArray[np.uint8]
Labels = NDArray[np.int32]

_LENGTH = struct.Struct(">I")
_PICTURES = ("JPEG", "PNG", "WEBP")  # JPEG opens MPO, too


def pack(header: Mapping[str, Any], *pictures: bytes) -> bytes:
    """Return one message.

    Raises:
        InputError: the header holds what JSON cannot say, such as NaN or an array.
    """
    try:
        text = json.dumps(header, separators=(",", ":"), allow_nan=False, default=_plain).encode()
    except (TypeError, ValueError) as error:
        raise InputError(f"this cannot be sent: {error}") from None
    return b"".join((_LENGTH.pack(len(text)), text, *pictures))


def _plain(value: Any) -> Any:
    """Return a number of NumPy's as one of Python's."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{value!r} is a {type(value).__name__}, expected a number, a text, or lists of these")


def unpack(message: bytes) -> tuple[dict[str, Any], memoryview]:
    """Return the header of a message, and the bytes behind it.

    Raises:
        InputError: it is no message of this kind.
    """
    size = _LENGTH.unpack_from(message)[0] if len(message) >= _LENGTH.size else -1
    if not 0 <= size <= len(message) - _LENGTH.size:
        raise InputError(
            f"a message of {len(message)} bytes is cut off or no message: expected a length, a JSON header, pictures"
        )
    body = memoryview(message)[_LENGTH.size :]
    try:
        header = json.loads(bytes(body[:size]))
    except (ValueError, RecursionError) as error:
        raise InputError(f"the header of a message is no JSON that can be read: {error}") from None
    if not isinstance(header, dict):
        raise InputError(f"the header of a message is a {type(header).__name__}, expected an object")
    return header, body[size:]


def encode_frame(image: Image, form: FrameFormat, quality: int) -> tuple[dict[str, Any], bytes]:
    """Return (its entry in the header, its bytes) of uint8 RGB [H,W,3]; `quality` is that of JPEG.

    Raises:
        InputError: there is no such format.
    """
    if form == "raw":
        data = np.ascontiguousarray(image).tobytes()
        return {"format": "raw", "height": image.shape[0], "width": image.shape[1], "bytes": len(data)}, data
    if form not in get_args(FrameFormat):
        raise InputError(f"frames are to be sent as {form!r}; expected {', '.join(get_args(FrameFormat))}")
    options = [cv2.IMWRITE_JPEG_QUALITY, quality] if form == "jpeg" else [cv2.IMWRITE_PNG_COMPRESSION, 1]
    done, encoded = cv2.imencode(".jpg" if form == "jpeg" else ".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)
    if not done:
        raise InputError(f"a frame of shape {image.shape} cannot be sent as {form}")
    return {"format": form, "bytes": encoded.nbytes}, encoded.tobytes()


def decode_raw(data: bytes | memoryview, height: int, width: int) -> Image:
    """Return uint8 RGB [H,W,3] of its bytes.

    Raises:
        InputError: there are more or fewer.
    """
    if len(data) != height * width * 3:
        raise InputError(
            f"a raw frame of {len(data)} bytes was sent, expected {height} x {width} x 3 = {height * width * 3} (uint8 RGB, by rows)"
        )
    return np.frombuffer(data, np.uint8).reshape(height, width, 3)


def decode_picture(data: bytes | memoryview, most_pixels: int) -> Image:
    """Return uint8 RGB [H,W,3] of a JPEG, PNG or WebP; EXIF rotation is applied.

    Raises:
        InputError: it does not decode, or is larger than `most_pixels` by its header.
    """
    with _open(data, most_pixels, "a frame") as picture:
        return np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))


def decode_labels(data: bytes | memoryview, most_pixels: int) -> Labels:
    """Return int32 [H,W] of a PNG whose values are ids: indexed, gray, or gray of 16 bits.

    Raises:
        InputError: it does not decode, is too large, or is a picture in color.
    """
    with _open(data, most_pixels, "labels") as picture:
        if picture.format != "PNG" or not (picture.mode in ("P", "L", "1") or picture.mode.startswith("I")):
            raise InputError(f"labels are a {picture.format} of kind {picture.mode}: expected an indexed or gray PNG of ids")
        return np.asarray(picture).astype(np.int32)


def _open(data: bytes | memoryview, most_pixels: int, what: str) -> Pillow.Image:
    try:
        picture = Pillow.open(io.BytesIO(data), formats=_PICTURES)
    except UnidentifiedImageError:
        raise InputError(f"{what} of {len(data)} bytes does not decode: it is no JPEG, PNG or WebP") from None
    except Exception as error:  # Pillow's readers raise nearly every kind of exception on broken data
        raise InputError(f"{what} of {len(data)} bytes does not decode: {error}") from None
    if picture.width * picture.height > most_pixels:
        picture.close()
        raise InputError(
            f"{what} of {picture.width} x {picture.height} pixels was sent; this server takes {most_pixels} at most"
        )
    try:
        picture.load()
    except Exception as error:  # as above
        picture.close()
        raise InputError(f"{what} of {len(data)} bytes does not decode: {error}") from None
    return picture


def encode_masks(labels: Labels, ids: tuple[int, ...]) -> dict[str, str]:
    """Return id -> COCO's compressed run lengths, for the ids that have a pixel."""
    present = {int(i) for i in np.unique(labels)} & set(ids)
    return {str(i): rle_counts(labels == i) for i in sorted(present)}


def decode_masks(masks: Mapping[Any, Any], height: int, width: int) -> Labels:
    """Return int32 [H,W] of what `encode_masks` made; of two masks on one pixel the later one wins.

    Raises:
        InputError: an id is no integer, or run lengths do not fill the frame.
    """
    labels = np.zeros((height, width), np.int32)
    for name, counts in masks.items():
        try:
            labels[Mask.of_rle({"size": [height, width], "counts": counts}).pixels()] = int(name)
        except (ValueError, OverflowError, TypeError) as error:
            raise InputError(f"the mask of object {name!r} cannot be used: {error}") from None
    return labels


def labels_png(labels: Labels) -> bytes:
    """Return a PNG of ids: indexed up to 255, gray of 16 bits up to 65535.

    Raises:
        InputError: an id fits neither.
    """
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high > 65535:
        raise InputError(f"the id {low if low < 0 else high} does not fit a PNG: ask for the masks as rle")
    return indexed_png(labels) if high < 256 else png(labels.astype(np.uint16))


def encode_prompts(prompts: Mapping[int, Prompt], height: int, width: int) -> dict[str, Any]:
    """Return the prompts of a frame of this size as JSON.

    Raises:
        InputError: one does not fit.
    """
    check_prompts(prompts)
    return {str(i): _encode_prompt(prompt, height, width) for i, prompt in prompts.items()}


def _encode_prompt(prompt: Prompt, height: int, width: int) -> dict[str, Any]:
    if not isinstance(prompt, Prompt):
        raise InputError(f"a prompt is a {type(prompt).__name__}, expected a vosformer.Prompt")
    prompt.checked(height, width)
    points = [[float(x), float(y)] for x, y in cast(Any, np.asarray(prompt.points, float).reshape(-1, 2))]
    entry: dict[str, Any] = {"points": points} if points else {}
    if prompt.labels is not None:
        entry["labels"] = [int(label) for label in prompt.labels]
    if prompt.box is not None:
        entry["box"] = [float(side) for side in prompt.box]
    if prompt.scribbles is not None:
        drawn = np.asarray(prompt.scribbles).astype(np.int8)
        entry["scribbles"] = {"1": rle_counts(drawn == 1), "-1": rle_counts(drawn == -1)}
    if prompt.mask is not None:
        entry["mask"] = rle_counts(np.asarray(prompt.mask))
    return entry


def decode_prompt(entry: Mapping[str, Any], height: int, width: int) -> Prompt:
    """Return the prompt of one object.

    Raises:
        InputError: its masks do not fit the frame.
    """
    scribbles: ArrayLike | None = None
    if entry.get("scribbles") is not None:
        scribbles = decode_masks(entry["scribbles"], height, width)
    mask: ArrayLike | None = None
    if entry.get("mask") is not None:
        mask = decode_masks({"1": entry["mask"]}, height, width) > 0
    box = entry.get("box")
    return Prompt(entry.get("points") or (), entry.get("labels"), None if box is None else tuple(box), scribbles, mask)
