"""Reading the PNG masks of data sets and results, exactly as they are and fast.

`io.read_labels` takes masks that people made and guards against what is no label map; that costs many times as long a frame, and it
takes 255 to be white. Here every index is a label, and 255 may mean void.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from vosformer.errors import DataError, InputError
from vosformer.io import labels as io_labels
from vosformer.io.label_png import read_raw_labels

Labels = NDArray[Any]


def read_labels(path: Path) -> Labels:
    """Return the label map of a PNG: palette index or gray value of each pixel; colors of the DAVIS palette are its labels.

    Returns:
        uint8 [H,W], or a wider type for labels above 255.

    Raises:
        DataError: the file does not decode, or is a picture in other colors.
    """
    try:
        raw = read_raw_labels(path)
    except InputError as error:
        raise DataError(
            f"{path} does not decode as a PNG mask: {str(error).removeprefix(f'{path} does not decode: ')}"
        ) from error
    if raw.colored:
        return _from_colors(path)
    labels = np.asarray(raw.values)
    if labels.dtype == np.bool_:
        return labels.astype(np.uint8)
    return labels if labels.dtype == np.uint8 else labels.astype(np.int32)


def _from_colors(path: Path) -> Labels:
    try:
        return io_labels.read_labels(path, allow_empty=True).labels
    except InputError as error:
        raise DataError(str(error)) from error


def labels_present(labels: Labels) -> frozenset[int]:
    """Return the labels that occur, 0 left out."""
    if labels.dtype == np.uint8:
        # Four times as fast as np.unique, and threads can run it side by side.
        counts = cv2.calcHist([labels], [0], None, [256], [0, 256])
        return frozenset((np.flatnonzero(np.ravel(counts)[1:]) + 1).tolist())
    return frozenset(np.unique(labels).tolist()) - {0}
