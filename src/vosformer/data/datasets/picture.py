"""Pictures with label maps, whatever data set they come from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from vosformer.data.datasets.media import read_image, read_labels
from vosformer.data.types import Image, Labels
from vosformer.errors import DataError

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")


class Still(Protocol):
    """A picture whose objects are labeled."""

    @property
    def name(self) -> str:
        """How messages call it."""
        ...

    def load(self) -> tuple[Image, Labels]:
        """Picture uint8 [H,W,3] and instance labels uint8 [H,W]; raises `DataError` naming the bad file."""
        ...


@dataclass(frozen=True)
class MaskedPicture:
    """A picture and its label map in two files.

    Attributes:
        image: the picture.
        mask: its label map.
        binary: every label above 0 means object 1 (saliency sets); None: if the mask holds nothing but 0 and 255.
    """

    image: Path
    mask: Path
    binary: bool | None = False

    @property
    def name(self) -> str:
        """The picture's path."""
        return str(self.image)

    def load(self) -> tuple[Image, Labels]:
        """Picture uint8 [H,W,3] and labels uint8 [H,W].

        Raises:
            DataError: a file cannot be read, or the two differ in size.
        """
        image, labels = read_image(self.image), read_labels(self.mask, self.binary)
        if image.shape[:2] != labels.shape:
            raise DataError(
                f"{self.mask}: the mask is {labels.shape[0]} x {labels.shape[1]} pixels, "
                f"its picture {self.image} is {image.shape[0]} x {image.shape[1]}"
            )
        return image, labels
