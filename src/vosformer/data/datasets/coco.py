"""COCO's pictures with instance masks."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as rle
from pycocotools.coco import COCO

from vosformer.data.datasets.media import read_image
from vosformer.data.types import Image, Labels
from vosformer.errors import DataError

_MOST = 254


@dataclass(frozen=True)
class CocoPicture:
    """A picture and its instances, largest first.

    Attributes:
        image: the picture.
        height: of the annotations, pixels.
        width: of the annotations, pixels.
        segments: polygons or run lengths of each instance, as COCO stores them.
    """

    image: Path
    height: int
    width: int
    segments: tuple[Any, ...]

    @property
    def name(self) -> str:
        """The picture's path."""
        return str(self.image)

    def load(self) -> tuple[Image, Labels]:
        """Picture uint8 [H,W,3] and labels uint8 [H,W]: instance numbers, smaller instances over larger ones.

        Raises:
            DataError: the picture cannot be read or has another size than its annotations, or one of these is malformed.
        """
        image = read_image(self.image)
        if image.shape[:2] != (self.height, self.width):
            raise DataError(
                f"{self.image}: the picture is {image.shape[0]} x {image.shape[1]} pixels, its annotations say "
                f"{self.height} x {self.width}"
            )
        labels = np.zeros((self.height, self.width), np.uint8)
        for number, segment in enumerate(self.segments, 1):
            labels[_decoded(self.image, number - 1, segment, self.height, self.width)] = number
        return image, labels


def coco_pictures(images: Path, annotations: Path) -> list[CocoPicture]:
    """Return all pictures that have instances; crowds are left out.

    Raises:
        DataError: the annotations cannot be read.
    """
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            index = COCO(str(annotations))
        pictures = []
        for number, about in sorted(index.imgs.items()):
            instances = [a for a in index.imgToAnns.get(number, []) if not a.get("iscrowd") and a.get("segmentation")]
            instances.sort(key=lambda a: -float(a.get("area", 0)))
            if instances:
                segments = tuple(a["segmentation"] for a in instances[:_MOST])
                pictures.append(CocoPicture(images / about["file_name"], int(about["height"]), int(about["width"]), segments))
    except (OSError, ValueError, KeyError, TypeError, AssertionError) as error:
        raise DataError(f"{annotations}: not COCO instance annotations that can be read ({error!r})") from None
    return pictures


def _decoded(path: Path, number: int, segment: Any, height: int, width: int) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    try:
        return _decode(segment, height, width)
    except Exception as error:  # pycocotools raises plain exceptions
        raise DataError(
            f"{path}: the segmentation of its annotation {number} (largest first, from 0) is neither polygons of 3 points or more nor"
            f" run lengths: {str(segment)[:60]} ({error})"
        ) from None


def _decode(segment: Any, height: int, width: int) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    if isinstance(segment, list):
        runs = rle.merge(rle.frPyObjects(segment, height, width))
    elif isinstance(segment["counts"], list):
        if sum(segment["counts"]) != height * width:  # pycocotools would leave the rest of the mask to chance
            raise ValueError(f"its runs are {sum(segment['counts'])} pixels in all, not {height} x {width}")
        runs = rle.frPyObjects(segment, height, width)
    else:
        runs = segment
    return np.asarray(rle.decode(runs), bool)
