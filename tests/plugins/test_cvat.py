"""CVAT's functions, driven as its agent drives them: pictures of Pillow's, shapes as lists of numbers, one call a shape."""

from __future__ import annotations

import json

import numpy as np
import pytest
from dummy_models import ColorModel, flat_clip
from PIL import Image

cvataa = pytest.importorskip("cvat_sdk.auto_annotation")
from cvat_sdk.masks import decode_mask, encode_mask  # noqa: E402

from vosformer import Session  # noqa: E402
from vosformer.formats.labeled import Mask  # noqa: E402
from vosformer.formats.polygons import edge_rings, fill_edges, one_ring  # noqa: E402
from vosformer.plugins import cvat, cvat_interactor  # noqa: E402
from vosformer.prompts import mark  # noqa: E402


class Context:
    def __init__(self, kind: str) -> None:
        self.original_shape_type = kind


def session() -> Session:
    return Session(ColorModel(), device="cpu", dtype="fp32", size=None)


def shape_of(mask: np.ndarray, kind: str) -> cvataa.TrackableShape:
    if kind == "mask":
        return cvataa.TrackableShape(type=kind, points=encode_mask(mask))
    if kind == "polygon":
        return cvataa.TrackableShape(type=kind, points=one_ring(edge_rings(Mask.of(mask))).ravel().tolist())
    rows, columns = np.nonzero(mask)
    return cvataa.TrackableShape(type=kind, points=[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])


def pixels(shape: cvataa.TrackableShape, size: tuple[int, int]) -> np.ndarray:
    json.dumps(shape.points)  # it is sent to the server
    if shape.type == "mask":
        return decode_mask(shape.points, image_width=size[1], image_height=size[0])
    return fill_edges([shape.points], *size).pixels()


def run(function: cvat.Tracker, images: list[np.ndarray], shapes: list[cvataa.TrackableShape]):
    """What `cvat_cli`'s agent does for a request to begin, and then one for each frame."""
    contexts = [Context(shape.type) for shape in shapes]
    first = function.preprocess_image(object(), Image.fromarray(images[0]))
    states = [function.init_tracking_state(context, first, shape) for context, shape in zip(contexts, shapes, strict=True)]
    for image in images[1:]:
        picture = function.preprocess_image(object(), Image.fromarray(image))
        yield [function.track(context, picture, state) for context, state in zip(contexts, states, strict=True)]


@pytest.mark.parametrize("kind", ["mask", "polygon"])
def test_shapes_of_a_frame_are_tracked_as_one_session_does(kind: str) -> None:
    images, labels = flat_clip((1, 2, 3), 6)
    steps: list[int] = []

    class Counting(ColorModel):
        def encode(self, image):
            steps.append(1)
            return super().encode(image)

    here = session()
    here.step(images[0], labels[0])
    function = cvat.Tracker(Session(Counting(), device="cpu", dtype="fp32", size=None), presence=0.0)
    for image, found in zip(
        images[1:], run(function, images, [shape_of(labels[0] == i, kind) for i in (1, 2, 3)]), strict=True
    ):
        wanted = here.step(image).labels
        for i, shape in enumerate(found, 1):
            assert shape.type == kind
            assert np.array_equal(pixels(shape, wanted.shape), wanted == i)
    assert len(steps) == 6  # one pass a frame for all three


def test_rectangles_are_what_is_in_them() -> None:
    images, labels = flat_clip((1,), 3)
    for frame, found in enumerate(run(cvat.Tracker(session()), images, [shape_of(labels[0] == 1, "rectangle")]), 1):
        rows, columns = np.nonzero(labels[frame] == 1)
        wanted = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert found[0].type == "rectangle"
        assert np.abs(np.array(found[0].points) - wanted).max() <= 6


def test_what_left_is_not_there_and_runs_do_not_mix() -> None:
    images, labels = flat_clip((1, 2), 8, gone={2: 3})
    function = cvat.Tracker(session())
    other = flat_clip((1,), 8)
    both = zip(
        run(function, images, [shape_of(labels[0] == i, "mask") for i in (1, 2)]),
        run(function, other[0], [shape_of(other[1][0] == 1, "mask")]),
        strict=True,
    )
    for frame, (one, two) in enumerate(both, 1):
        assert one[0] is not None
        assert (one[1] is None) == (frame >= 3)
        wanted = other[1][frame] == 1
        found = pixels(two[0], wanted.shape)
        assert (found & wanted).sum() > 0.8 * (found | wanted).sum()


def test_a_shape_that_is_covered_is_not_there() -> None:
    images, labels = flat_clip((1,), 2)
    shape = shape_of(labels[0] == 1, "mask")
    assert [each is None for each in next(run(cvat.Tracker(session()), images, [shape, shape]))] == [True, False]


def test_the_modules_are_what_cvat_looks_for() -> None:
    assert cvat.Tracker.spec.supported_shape_types == {"mask", "polygon", "rectangle"}
    assert isinstance(cvat.create(model="default-fast", device="cpu", size=64), cvat.Tracker)
    assert isinstance(cvat_interactor.create(), cvat_interactor.Interactor)


class Prompts:
    def __init__(self, pos_points=(), neg_points=(), bounding_box=None) -> None:
        self.pos_points, self.neg_points, self.bounding_box = pos_points, neg_points, bounding_box


def test_clicks_and_boxes_become_masks() -> None:
    images, labels = flat_clip((1,), 1)
    rows, columns = np.nonzero(labels[0])
    inside, outside = (float(columns.mean()), float(rows.mean())), (2.0, 2.0)
    corners = ((columns.min() - 2.0, rows.min() - 2.0), (columns.max() + 3.0, rows.max() + 3.0))
    function = cvat_interactor.create()
    picture = function.preprocess_image(object(), Image.fromarray(images[0]))
    for prompts, arguments in (
        (Prompts((inside,)), {"points": [inside]}),
        (Prompts((inside,), (outside,)), {"points": [inside, outside], "labels": [1, 0]}),
        (Prompts(bounding_box=corners), {"box": [*corners[0], *corners[1]]}),
    ):
        shape = function.detect(object(), picture, prompts)[0]
        json.dumps(shape.points)
        assert np.array_equal(pixels(shape, labels[0].shape), mark(images[0], **arguments))
    assert function.detect(object(), picture, Prompts((), (outside,))) == []
    edge = Prompts((inside, (193.0, 129.0)))
    assert function.detect(object(), picture, edge)[0].type == "mask"
