"""Label maps as NumPy files: `.npy`, and `.npz` with one of them or one mask an object."""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vosformer.errors import InputError
from vosformer.io.container import MAX_PIXELS

_MAX_BYTES = 8 * MAX_PIXELS
_LARGEST = int(np.iinfo(np.int32).max)


def read_label_array(path: Path) -> tuple[NDArray[np.int32], tuple[str, ...]]:
    """Read ids [H,W] from a NumPy file: as they are, or numbered from 1 where there is one mask [N,H,W] an object.

    Returns:
        int32 [H,W], and notes on how the file was read.

    Raises:
        InputError: the file is broken or holds something else.
    """
    if path.suffix.lower() == ".npy":
        return _labels(path, path.name, _load(path, _read(path))), ()
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.endswith(".npy")]
            arrays = {name.removesuffix(".npy"): _member(path, archive, name) for name in names}
    except (OSError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, ValueError, EOFError) as error:
        raise InputError(f"{path} is no .npz archive that can be read: {error}") from error
    maps = {name: array for name, array in arrays.items() if array.dtype.kind in "biu" and array.ndim in (2, 3) and array.size}
    if len(maps) != 1:
        shown = ", ".join(f"{name} {array.dtype}{list(array.shape)}" for name, array in list(arrays.items())[:5]) or "nothing"
        raise InputError(f"{path} holds {shown}: expected one array of ids [H,W], or of one mask [N,H,W] an object")
    name, array = next(iter(maps.items()))
    notes = (f"{path}: the array {name!r} was read",) if len(arrays) > 1 else ()
    if array.ndim == 3:
        return _stacked(path, array), (*notes, f"{path}: its {len(array)} masks are the objects 1 to {len(array)}")
    return _labels(path, name, array), notes


def _read(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > _MAX_BYTES:
            raise InputError(f"{path} is {size} bytes large: expected at most {_MAX_BYTES}")
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error


def _member(path: Path, archive: zipfile.ZipFile, name: str) -> NDArray[np.generic]:
    with archive.open(name) as file:
        data = file.read(_MAX_BYTES + 1)
    if len(data) > _MAX_BYTES:
        raise InputError(f"{path}: {name} is more than {_MAX_BYTES} bytes large when unpacked")
    return _load(path, data)


def _load(path: Path, data: bytes) -> NDArray[np.generic]:
    """Return an array, whose header must not promise more than the data hold: NumPy would reserve the memory first."""
    stream = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(stream)
        header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = header(stream)
        if dtype.hasobject or math.prod(shape) * dtype.itemsize > len(data):
            raise ValueError(f"its header says {dtype}{list(shape)}, which its {len(data)} bytes do not hold")
        stream.seek(0)
        array = np.load(stream, allow_pickle=False)
    except Exception as error:  # of many kinds, on broken headers
        raise InputError(f"{path} is no .npy array that can be read: {error}") from error
    return np.asarray(array)


def _labels(path: Path, name: str, values: NDArray[np.generic]) -> NDArray[np.int32]:
    if values.ndim != 2 or 0 in values.shape or values.dtype.kind not in "biu":
        raise InputError(
            f"{path} is no label map (shape {values.shape}, dtype {values.dtype}): expected whole numbers of shape [H,W]"
        )
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > _LARGEST:
        raise InputError(f"{path} has ids {low} to {high}: expected 0 to {_LARGEST}")
    return values.astype(np.int32)


def _stacked(path: Path, masks: NDArray[np.generic]) -> NDArray[np.int32]:
    if len(np.unique(masks)) > 2:
        raise InputError(f"{path} holds masks [N,H,W] of more than two values: expected one mask an object")
    labels = np.zeros(masks.shape[1:], np.int32)
    for number in range(len(masks), 0, -1):  # where they overlap the lowest id wins, as everywhere
        labels[masks[number - 1] != 0] = number
    return labels
