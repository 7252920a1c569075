"""Label maps in PNG files: what evaluation reads and writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vosformer.errors import DataError

Labels = NDArray[Any]


def read_labels(path: Path) -> Labels:
    """The label map of a PNG: palette index or grey value of each pixel.

    Returns:
        uint8 [H,W], or uint16 for files of 16 bits.

    Raises:
        DataError: the file does not decode, or is a colour picture.
    """
    try:
        with Image.open(path) as image:
            labels = np.asarray(image)
    except Exception as error:  # Pillow's readers raise nearly every kind of exception on broken files.
        raise DataError(f"{path} does not decode as a PNG mask: {error}") from error
    if labels.ndim != 2:
        raise DataError(
            f"{path} is a colour picture of shape {labels.shape}; expected an indexed or grey PNG whose values are labels"
        )
    if labels.dtype == np.bool_:
        return labels.astype(np.uint8)
    return labels if labels.dtype == np.uint8 else labels.astype(np.uint16)


def labels_present(labels: Labels) -> frozenset[int]:
    """The labels that occur, 0 left out."""
    if labels.dtype == np.uint8:
        # Four times as fast as np.unique, and threads can run it side by side.
        counts = cv2.calcHist([labels], [0], None, [256], [0, 256])
        return frozenset((np.flatnonzero(np.ravel(counts)[1:]) + 1).tolist())
    return frozenset(np.unique(labels).tolist()) - {0}
