"""CVAT's interaction function: clicks and boxes become masks; `--function-module vosformer.plugins.cvat_interactor`."""

from __future__ import annotations

from typing import Any

from cvat_sdk.auto_annotation import InteractionFunctionSpec, InteractionResultShape
from cvat_sdk.masks import encode_mask

from vosformer.plugins.shapes import Picture
from vosformer.prompts import Marker, Prompt


class Interactor:
    """Marks one object by clicks on it, clicks beside it, and a box around it.

    Args:
        method: see `vosformer.Marker`.
    """

    spec = InteractionFunctionSpec(min_pos_points=0, min_neg_points=0, min_bounding_boxes=0)

    def __init__(self, method: Any = "auto") -> None:
        self._method = method

    def preprocess_image(self, context: Any, image: Any) -> Marker:
        """Take a picture over; what the network sees of it is kept for the next click."""
        return Marker(Picture.of(image).image, method=self._method)

    def detect(self, context: Any, pp_image: Marker, prompts: Any) -> list[InteractionResultShape]:
        """Return the mask that the prompts show, or nothing where they show no object."""
        height, width = pp_image.size
        places = [*prompts.pos_points, *prompts.neg_points]
        # CVAT's coordinates may lie on the right and lower edge.
        points = [(min(max(x, 0), width - 1), min(max(y, 0), height - 1)) for x, y in places]
        labels = [1] * len(prompts.pos_points) + [0] * len(prompts.neg_points)
        box = None if prompts.bounding_box is None else [v for corner in prompts.bounding_box for v in corner]
        if box is None and not prompts.pos_points:
            return []
        found = pp_image.mark(Prompt(points, labels, box))
        return [InteractionResultShape(type="mask", points=encode_mask(found))] if found.any() else []


def create(method: str = "auto") -> Interactor:
    """Make the function; CVAT calls this with what `-p NAME=TYPE:VALUE` says.

    Args:
        method: how objects are marked, see `vosformer.Marker`.
    """
    return Interactor(method)
