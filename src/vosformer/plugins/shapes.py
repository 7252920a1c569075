"""Objects that a host hands over on one frame and asks for one by one on the next ones, tracked together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vosformer.errors import InputError
from vosformer.inference.prediction import Prediction
from vosformer.inference.session import Session

Mask = NDArray[np.bool_]


@dataclass(eq=False)
class Picture:
    """A frame that a host hands over; its identity says which shapes belong together.

    Attributes:
        image: uint8 RGB [H,W,3].
    """

    image: NDArray[np.uint8]

    @classmethod
    def of(cls, picture: Any) -> Picture:
        """Take over a picture of Pillow's."""
        return cls(np.ascontiguousarray(np.asarray(picture.convert("RGB"))))


@dataclass(eq=False)
class Group:
    """Shapes of one frame: one session, one step a frame, whichever of them is asked for.

    Attributes:
        session: has seen nothing yet.
        start: the frame that the shapes are on.
        masks: id -> mask; where they overlap, the later one wins.
    """

    session: Session
    start: Picture
    masks: dict[int, Mask] = field(default_factory=dict)
    _seen: Picture | None = None
    _out: Prediction | None = None

    def add(self, mask: Mask) -> int:
        """Add a shape; return its id."""
        number = len(self.masks) + 1
        self.masks[number] = mask
        return number

    def find(self, number: int, picture: Picture, least: float) -> Mask | None:
        """Return the mask of a shape on a frame, or None where it is surely enough not there.

        Args:
            number: its id.
            picture: the frame; one that was seen last is not tracked again.
            least: the presence score below which a shape is not there.
        """
        if self._out is None:
            labels = np.zeros(self.start.image.shape[:2], np.int32)
            for i, mask in self.masks.items():
                labels[mask] = i
            if not labels.any():
                return None
            self._out, self._seen = self.session.step(self.start.image, labels), self.start
        if picture is not self._seen:
            self._out, self._seen = self.session.step(picture.image), picture
        if number not in self._out.ids or self._out.score(number) < least:
            return None
        found = self._out.labels == number
        return found if found.any() else None


class Groups:
    """Makes groups: shapes that are added on the same picture, before it is tracked, are of one group."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._latest: Group | None = None

    def add(self, picture: Picture, mask: Mask) -> tuple[Group, int]:
        """Add a shape; return its group, and its id there.

        Raises:
            InputError: the mask has another size than the picture.
        """
        if mask.shape != picture.image.shape[:2]:
            raise InputError(f"a mask of shape {mask.shape} was given for a frame of {picture.image.shape[:2]}")
        if self._latest is None or self._latest.start is not picture:
            self._latest = Group(self._session.fork(), picture)
        return self._latest, self._latest.add(mask)


def points_of_box(points: Sequence[float]) -> tuple[float, float, float, float]:
    """Return (x0, y0, x1, y1) of two corners in any order."""
    x0, y0, x1, y1 = points
    return min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)
