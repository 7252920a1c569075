"""Frames and masks as the page gets them."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from vosformer.errors import InputError
from vosformer.io import Frame
from vosformer.io.sinks import indexed_png

_QUALITY = 90
_REDS = bytes(value for red in range(256) for value in (red, 0, 0))


def frame_jpeg(frame: Frame, size: tuple[int, int], height: int | None) -> bytes:
    """Return a frame as JPEG, no higher than `height`; one that did not decode is dark gray with the words why."""
    if frame.image is None:
        image = np.full((*size, 3), 48, np.uint8)
        cv2.putText(
            image, f"frame {frame.number} does not decode", (10, size[0] // 2), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (230,) * 3
        )
    else:
        image = frame.image[:, :, ::-1]
    if height is not None and height < image.shape[0]:
        width = max(1, round(image.shape[1] * height / image.shape[0]))
        image = np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    return bytes(cv2.imencode(".jpg", np.ascontiguousarray(image), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1])


def labels_as_rgb_png(labels: NDArray[np.int32], height: int | None) -> bytes:
    """Ids as a PNG whose color is red + 256 green + 65536 blue, which a canvas gives back exactly; no higher than `height`.

    Up to 255 it is an indexed one with shades of red, which costs a fifth of the time.
    """
    if labels.min(initial=0) < 0:
        raise InputError("ids below 0 cannot be shown")
    if height is not None and height < labels.shape[0]:
        width = max(1, round(labels.shape[1] * height / labels.shape[0]))
        labels = cv2.resize(labels, (width, height), interpolation=cv2.INTER_NEAREST).astype(np.int32)
    if labels.max(initial=0) < 256:
        return indexed_png(labels, _REDS)
    bgr = np.stack([labels >> 16, labels >> 8 & 255, labels & 255], -1).astype(np.uint8)
    return bytes(cv2.imencode(".png", bgr, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1])
