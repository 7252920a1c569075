"""The one decoder of label pictures: their raw values, before anybody decides what they mean.

Three readers judge them, each in its own way: `vosformer.io.read_labels` takes masks that people made and guards against what is no
label map; data sets (`vosformer.data.datasets.media`) and results (`vosformer.evaluation.masks`) are trusted.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from vosformer.errors import InputError
from vosformer.io.images import open_picture

VALUES_ARE_IDS = "255 is the id of an object"
"""The comment of PNGs that vosformer writes: every value but 0 is an id, while elsewhere 255 beside other ids is void and values of a
gray picture may be a smoothed edge."""

_GRAY_MODES = {"1", "L", "F"}
_LOSSY_CHUNK = b"VP8 "


@dataclass(frozen=True)
class RawLabels:
    """What a label picture holds.

    Attributes:
        values: indices or gray values [H,W] (bool, uint8, uint16, int32 or float32), or uint8 RGBA [H,W,4] of a color picture.
        palette: uint8 RGB [256,3] of an indexed picture, else None.
        hidden: indices that the palette makes transparent.
        form: Pillow's name of the format.
        mode: Pillow's name of the kind of pixels.
        lossy: the format changes values while compressing.
        values_are_ids: see `VALUES_ARE_IDS`.
    """

    values: NDArray[np.generic]
    palette: NDArray[np.uint8] | None
    hidden: tuple[int, ...]
    form: str
    mode: str
    lossy: bool
    values_are_ids: bool = False

    @property
    def colored(self) -> bool:
        """Whether the values are colors."""
        return self.values.ndim == 3


def read_raw_labels(path: Path) -> RawLabels:
    """Decode a label picture.

    Raises:
        InputError: it is missing, broken, too large by its header, or no picture.
    """
    with open_picture(path) as image:
        try:
            image.load()
            form, mode = image.format or "", image.mode
            ids = image.info.get("Comment") == VALUES_ARE_IDS
            if mode == "P":
                raw = np.array(image.getpalette("RGB") or [], np.uint8).reshape(-1, 3)[:256]
                palette = np.zeros((256, 3), np.uint8)
                palette[: len(raw)] = raw
                return RawLabels(np.asarray(image), palette, _hidden(image), form, mode, False, ids)
            gray = mode in _GRAY_MODES or mode.startswith("I")
            values = np.asarray(image if gray else image.convert("RGBA"))
        except Exception as error:  # Pillow's decoders raise nearly every kind of exception on broken files.
            raise InputError(f"{path} does not decode: {error}") from error
    return RawLabels(values, None, (), form, mode, _is_lossy(path, form), ids)


def _hidden(image: Pillow.Image) -> tuple[int, ...]:
    alpha = image.info.get("transparency")
    if isinstance(alpha, bytes):
        return tuple(index for index, value in enumerate(alpha) if value == 0)
    return () if alpha is None else (int(alpha),)


def _is_lossy(path: Path, form: str) -> bool:
    if form != "WEBP":
        return form in ("JPEG", "MPO")
    data = path.read_bytes()  # the lossless kind of chunk may come after others
    return data[12:16] == _LOSSY_CHUNK or (data[12:16] == b"VP8X" and b"VP8L" not in data)
