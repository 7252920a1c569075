"""CVAT's tracking function: `cvat-cli function create-native NAME --function-module vosformer.plugins.cvat`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from cvat_sdk.auto_annotation import TrackableShape, TrackingFunctionSpec
from cvat_sdk.masks import decode_mask, encode_mask

from vosformer.errors import InputError
from vosformer.formats.labeled import Mask as Encoded
from vosformer.formats.polygons import edge_rings, fill_edges, one_ring
from vosformer.inference.session import Session
from vosformer.plugins.shapes import Group, Groups, Mask, Picture, points_of_box
from vosformer.prompts import mark


@dataclass(eq=False)
class Tracked:
    """What CVAT keeps for a shape that is tracked.

    Attributes:
        group: the shapes that were on the same frame.
        number: of this one in it.
    """

    group: Group
    number: int


class Tracker:
    """Tracks masks, polygons and rectangles (what is in them) through the frames of a CVAT task.

    Shapes that CVAT hands over on one frame are tracked together: one pass of the model a frame, and a pixel goes to one of them.

    Args:
        session: has seen nothing.
        presence: a shape whose presence score is below this is reported as not there.
    """

    spec = TrackingFunctionSpec(supported_shape_types=["mask", "polygon", "rectangle"])

    def __init__(self, session: Session, presence: float = 0.5) -> None:
        self._groups, self._presence = Groups(session), presence

    def preprocess_image(self, context: Any, image: Any) -> Picture:
        """Take a frame over; the shapes on it are recognized by it."""
        return Picture.of(image)

    def init_tracking_state(self, context: Any, pp_image: Picture, shape: TrackableShape) -> Tracked:
        """Begin to track a shape on its frame."""
        return Tracked(*self._groups.add(pp_image, _mask(shape, pp_image)))

    def track(self, context: Any, pp_image: Picture, state: Tracked) -> TrackableShape | None:
        """Return the shape on the next frame, of the kind that it was drawn as; None if it is not there."""
        found = state.group.find(state.number, pp_image, self._presence)
        return None if found is None else TrackableShape(type=context.original_shape_type, points=_points(context, found))


def create(model: str = "default", device: str = "auto", size: int = 480, presence: float = 0.5) -> Tracker:
    """Make the function; CVAT calls this with what `-p NAME=TYPE:VALUE` says.

    Args:
        model: packaged weights, or a folder that `save_pretrained` wrote.
        device: auto, cpu, cuda, cuda:N or mps.
        size: short side in pixels that the model sees.
        presence: a shape whose presence score is below this is reported as not there.
    """
    return Tracker(session_of(model, device, size), presence)


def session_of(model: str, device: str, size: int) -> Session:
    """Build a session of packaged weights or of a folder that `save_pretrained` wrote."""
    from vosformer.weights import from_pretrained, packaged

    return Session(model if model in packaged() else from_pretrained(model), device=device, size=size)


def _mask(shape: TrackableShape, picture: Picture) -> Mask:
    height, width = picture.image.shape[:2]
    if shape.type == "mask":
        return np.asarray(decode_mask(shape.points, image_width=width, image_height=height), bool)
    if shape.type == "polygon":
        return fill_edges([shape.points], height, width).pixels()
    if shape.type == "rectangle":
        return mark(picture.image, box=points_of_box(shape.points[:4]))
    raise InputError(f"a shape of type {shape.type!r} cannot be tracked; expected mask, polygon or rectangle")


def _points(context: Any, found: Mask) -> list[float]:
    if context.original_shape_type == "mask":
        return list(encode_mask(found))
    if context.original_shape_type == "polygon":
        return [float(v) for v in one_ring(edge_rings(Encoded.of(found))).ravel()]
    rows, columns = np.nonzero(found)
    return [float(columns.min()), float(rows.min()), float(columns.max() + 1), float(rows.max() + 1)]
