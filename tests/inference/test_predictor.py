"""SAM 2's names: code written against them gives the masks of `vosformer.track`."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from dummy_models import ColorModel, PerObjectColorModel, flat_clip
from PIL import Image
from pycocotools import mask as coco

from vosformer.errors import InputError
from vosformer.inference.predictor import VideoPredictor
from vosformer.inference.session import Session
from vosformer.inference.tracking import track
from vosformer.io import Arrays, Sink


class Collect(Sink):
    """Keeps the labels of every frame."""

    name = "collect"

    def __init__(self) -> None:
        self.labels: dict[int, np.ndarray] = {}

    def write(self, frame, labels, scores, probability) -> None:
        self.labels[frame.number] = labels.copy()


def predictor(model=None) -> VideoPredictor:
    return VideoPredictor(Session(model or ColorModel(), device="cpu", dtype="fp32"))


def tracked(images, masks, direction, model=None) -> dict[int, np.ndarray]:
    sink = Collect()
    track(Arrays(images), masks, Session(model or ColorModel(), device="cpu", dtype="fp32"), [sink], direction=direction)
    return sink.labels


def as_labels(ids, logits) -> np.ndarray:
    assert logits.dtype is torch.float32
    assert ((logits > 0).sum(0) <= 1).all()  # objects do not overlap
    return sum(i * (logits[n, 0] > 0).numpy().astype(np.int32) for n, i in enumerate(ids))


@pytest.mark.parametrize("model", [ColorModel, PerObjectColorModel])
def test_propagation_gives_the_masks_of_track(model):
    images, labels = flat_clip((1, 7), 6)
    video = predictor(model())
    state = video.init_state(np.stack(images))
    for i in (7, 1):
        number, ids, logits = video.add_new_mask(state, 0, i, labels[0] == i)
    assert (number, ids) == (0, [7, 1])
    assert np.array_equal(as_labels(ids, logits), labels[0])
    assert (state["num_frames"], state["video_height"], state["video_width"], state["obj_ids"]) == (6, 129, 193, [7, 1])
    wanted = tracked(images, {0: labels[0]}, "forward", model())
    frames = list(video.propagate_in_video(state))
    assert [number for number, _, _ in frames] == list(range(6))
    for number, ids, logits in frames:
        assert np.array_equal(as_labels(ids, logits), wanted[number])


def test_backward_from_the_last_marked_frame_and_only_as_far_as_asked():
    images, labels = flat_clip((1, 2), 8)
    video = predictor()
    state = video.init_state(np.stack(images))
    video.add_new_mask(state, 4, 1, labels[4] == 1)
    video.add_new_mask(state, 6, 2, torch.from_numpy(labels[6] == 2))
    wanted = tracked(images, {4: np.where(labels[4] == 1, 1, 0), 6: np.where(labels[6] == 2, 2, 0)}, "backward")
    frames = list(video.propagate_in_video(state, reverse=True))
    assert [number for number, _, _ in frames] == [4, 3, 2, 1, 0]  # SAM 2 begins at the earliest marked frame
    for number, ids, logits in frames:
        assert np.array_equal(as_labels(ids, logits), wanted[number])
    assert [n for n, _, _ in video.propagate_in_video(state, 5, 2, reverse=True)] == [5, 4, 3]
    assert [n for n, _, _ in video.propagate_in_video(state, 5, 1)] == [5, 6]
    before = next(iter(video.propagate_in_video(state, 4)))
    assert (before[2][1] == -1024).all()  # object 2 comes later


def test_a_correction_is_taken_into_account_and_an_absence_too():
    images, labels = flat_clip((1, 2), 6)
    video = predictor()
    state = video.init_state(np.stack(images))
    for i in (1, 2):
        video.add_new_mask(state, 0, i, labels[0] == i)
    video.add_new_mask(state, 3, 2, np.zeros((129, 193), bool))
    for number, ids, logits in video.propagate_in_video(state):
        if number == 3:
            assert not (as_labels(ids, logits) == 2).any()
    video.clear_all_prompts_in_frame(state, 3, 2)
    assert all((as_labels(ids, logits) == 2).any() for _, ids, logits in video.propagate_in_video(state))


def test_objects_are_removed_and_everything_is_reset():
    images, labels = flat_clip((1, 2), 3)
    video = predictor()
    state = video.init_state(np.stack(images))
    for i in (1, 2):
        video.add_new_mask(state, 0, i, labels[0] == i)
    left, changed = video.remove_object(state, 1)
    assert left == [2]
    assert np.array_equal(as_labels(*changed[0][1:]), np.where(labels[0] == 2, 2, 0))
    assert video.remove_object(state, 9)[0] == [2]
    with pytest.raises(InputError, match="no object with id 9"):
        video.remove_object(state, 9, strict=True)
    video.reset_state(state)
    with pytest.raises(InputError, match="nothing is marked"):
        next(video.propagate_in_video(state))


def test_points_and_boxes():
    images, labels = flat_clip((1,), 3)
    video = predictor()
    state = video.init_state(np.stack(images))
    rows, columns = np.nonzero(labels[0])
    box = [columns.min() - 3, rows.min() - 2, columns.max() + 4, rows.max() + 4]
    box = np.clip(box, 0, None)
    _, ids, logits = video.add_new_points_or_box(state, 0, 1, points=[[columns.mean(), rows.mean()]], labels=[1], box=box)
    found = as_labels(ids, logits) == 1
    assert (found & (labels[0] == 1)).sum() > 0.8 * (found | (labels[0] == 1)).sum()
    outside = [int(columns.max()) + 20, int(rows.max()) + 20]
    _, ids, again = video.add_new_points_or_box(state, 0, 1, points=[outside], labels=[0], clear_old_points=False)
    assert again[0, 0, outside[1], outside[0]] < 0


def test_the_names_of_transformers():
    images, labels = flat_clip((1, 2), 3)
    video = predictor()
    session = video.init_video_session(video=np.stack(images))
    video.add_inputs_to_inference_session(session, 0, [1, 2], input_masks=[labels[0] == 1, labels[0] == 2])
    frames = list(video.propagate_in_video_iterator(session))
    assert [frame.frame_idx for frame in frames] == [0, 1, 2]
    assert np.array_equal(as_labels(frames[0].object_ids, frames[0].pred_masks), labels[0])


def test_what_does_not_fit_is_told():
    images, labels = flat_clip((1,), 3)
    video = predictor()
    state = video.init_state(np.stack(images))
    with pytest.raises(InputError, match=r"shape \(3, 3\) was given, expected \(129, 193\)"):
        video.add_new_mask(state, 0, 1, np.ones((3, 3)))
    with pytest.raises(InputError, match=r"no frame 3: .* frames 0 to 2"):
        video.add_new_mask(state, 3, 1, labels[0])
    with pytest.raises(InputError, match="no known number of frames"):
        video.init_state(iter(images))
    mask = labels[0] == 1
    for act, told in (
        (lambda: video.add_new_mask(state, 0, "dog", mask), "obj_id is 'dog', expected a whole number"),
        (lambda: video.add_new_mask(state, 0, 1.5, mask), "obj_id is 1.5"),
        (lambda: video.add_new_mask(state, 0, 2**40, mask), "that fits 32 bits"),
        (lambda: video.add_new_mask(state, 0, -(2**31), mask), "that fits 32 bits"),  # what an object of id 0 is called inside
        (lambda: video.add_new_mask(state, 1.5, 1, mask), "frame_idx is 1.5"),
        (lambda: video.add_new_mask(state, 0, 1, np.full(mask.shape, np.nan)), "numbers without NaN"),
        (
            lambda: video.add_new_points_or_box(state, 0, 1, [1, 2, 3], [1]),
            r"points is \[1, 2, 3\], expected numbers in rows of 2",
        ),
        (lambda: video.add_new_points_or_box(state, 0, 1, [[1, 2]], ["a"]), "labels is"),
        (lambda: video.add_new_points_or_box(state, 0, 1, [[9, 9]], [0.7]), r"labels are \[0.7\], expected 1"),
        (lambda: video.add_new_points_or_box(state, 0, 1, box=[1, 2, 3]), "rows of 4"),
        (lambda: next(video.propagate_in_video(state, "a")), "nothing is marked"),
    ):
        with pytest.raises(InputError, match=told):
            act()
    assert state.obj_ids == []  # what was refused leaves no trace
    video.add_new_mask(state, np.int64(0), np.int64(3), mask.tolist())
    assert [n for n, _, _ in video.propagate_in_video(state)] == [0, 1, 2]


@pytest.mark.parametrize("settings", [{}, {"scales": (1.0, 1.25), "flip": True}])
def test_margins_are_above_zero_exactly_where_the_label_is(settings):
    images, labels = flat_clip((3, 5, 9), 3)
    session = Session(ColorModel(), device="cpu", dtype="fp32", **settings)
    for n, image in enumerate(images):
        prediction = session.step(image, labels[0] if n == 0 else None)
        margins = prediction.margins()
        assert margins.shape == (3, 129, 193)
        for m, i in zip(margins, prediction.ids, strict=True):
            assert np.array_equal(m > 0, prediction.labels == i)


def test_boxes_and_coco():
    images, labels = flat_clip((3, 5), 2)
    prediction = Session(ColorModel(), device="cpu", dtype="fp32").step(images[0], labels[0])
    rows, columns = np.nonzero(labels[0] == 5)
    assert prediction.boxes()[5] == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    for annotation in prediction.to_coco(image_id=4, category_id=2):
        mask = labels[0] == annotation["track_id"]
        assert np.array_equal(coco.decode(annotation["segmentation"]), mask)
        assert (annotation["image_id"], annotation["category_id"], annotation["area"]) == (4, 2, mask.sum())


def test_supervision():
    supervision = pytest.importorskip("supervision", reason="the package supervision is not installed")
    images, labels = flat_clip((3, 5), 2)
    prediction = Session(ColorModel(), device="cpu", dtype="fp32").step(images[0], labels[0])
    found = prediction.to_supervision()
    assert isinstance(found, supervision.Detections)
    assert found.tracker_id.tolist() == [3, 5]
    assert np.array_equal(found.mask[1], labels[0] == 5)


@pytest.mark.parametrize("model", [ColorModel, PerObjectColorModel])
def test_an_object_may_have_the_id_zero_as_in_programs_that_count_from_it(model):
    images, labels = flat_clip((1, 2), 5)
    video = predictor(model())
    state = video.init_state(np.stack(images))
    for i in (0, 1):
        _, ids, logits = video.add_new_mask(inference_state=state, frame_idx=0, obj_id=i, mask=labels[0] == i + 1)
    assert ids == [0, 1]
    assert [(logits[n, 0] > 0).sum() for n in (0, 1)] == [(labels[0] == n + 1).sum() for n in (0, 1)]
    wanted = tracked(images, {0: labels[0]}, "forward", model())
    for number, ids, logits in video.propagate_in_video(state):
        assert ids == [0, 1]
        assert np.array_equal((logits[0, 0] > 0).numpy(), wanted[number] == 1)
        assert np.array_equal((logits[1, 0] > 0).numpy(), wanted[number] == 2)
    assert video.remove_object(state, 0)[0] == [1]


def test_the_calls_of_transformers_examples():
    """Pictures of Pillow's, one call for two objects, masks of a frame, post-processing, a reset, a refining click."""
    images, labels = flat_clip((2, 3), 4)
    model = processor = predictor().to("cpu", dtype=torch.float32).eval()
    session = processor.init_video_session(
        video=[Image.fromarray(image) for image in images], inference_device="cpu", dtype=torch.float32
    )
    places = [[int(v) for v in np.argwhere(labels[0] == i).mean(0)[::-1]] for i in (2, 3)]
    processor.add_inputs_to_inference_session(
        inference_session=session,
        frame_idx=0,
        obj_ids=[2, 3],
        input_points=[[[places[0]], [places[1]]]],
        input_labels=[[[1], [1]]],
    )
    size = [[session.video_height, session.video_width]]
    outputs = model(inference_session=session, frame_idx=0)
    shown = processor.post_process_masks([outputs.pred_masks], original_sizes=size, binarize=False)[0]
    assert tuple(shown.shape) == (2, 1, 129, 193)
    assert all(shown[n, 0, y, x] > 0 for n, (x, y) in enumerate(places))
    given = sum(
        i * processor.post_process_masks([outputs.pred_masks], size)[0][n, 0].int() for n, i in enumerate((2, 3))
    ).numpy()
    wanted = tracked(images, {0: given}, "forward")
    for output in model.propagate_in_video_iterator(session):
        masks = processor.post_process_masks([output.pred_masks], original_sizes=size)[0]
        assert np.array_equal(
            sum(i * masks[n, 0].int() for n, i in enumerate(session.obj_ids)).numpy(), wanted[output.frame_idx]
        )
    processor.add_inputs_to_inference_session(session, 2, 2, input_points=[[[places[0]]]], input_labels=[[[1]]])
    assert len(list(model.propagate_in_video_iterator(session))) == 4
    session.reset_inference_session()
    assert session.obj_ids == []
    with pytest.raises(InputError, match="nothing is marked on frame 0"):
        model(inference_session=session, frame_idx=0)
    with pytest.raises(InputError, match="they have the video's size already"):
        processor.post_process_masks([outputs.pred_masks], original_sizes=[[10, 10]])
