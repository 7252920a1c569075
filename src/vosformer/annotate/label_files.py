"""A project's own label maps as PNG."""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from vosformer.errors import InputError, OutputError
from vosformer.io import indexed_png

Labels = NDArray[np.int32]

MOST_IDS = 65535  # what 16-bit PNG holds


def labels_png(labels: Labels) -> bytes:
    """Return a label map [H,W] as PNG: indexed for ids up to 255, else gray with 16 bits.

    Raises:
        OutputError: an id above 65535, or below 0.
    """
    most = int(labels.max(initial=0))
    if most > MOST_IDS or labels.min(initial=0) < 0:
        raise OutputError(f"ids {int(labels.min())} to {most} do not fit a PNG, which holds 0 to {MOST_IDS}")
    if most < 256:
        return indexed_png(labels)
    return bytes(cv2.imencode(".png", labels.astype(np.uint16))[1])


def read_png(path: Path) -> Labels:
    """Return a label map that `labels_png` wrote.

    Raises:
        InputError: it does not decode.
    """
    try:
        with Pillow.open(io.BytesIO(path.read_bytes())) as image:
            return np.asarray(image).astype(np.int32)
    except Exception as error:  # Pillow's readers raise nearly every kind of exception on broken files.
        raise InputError(f"{path} is damaged: {error}") from error
