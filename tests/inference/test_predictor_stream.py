"""The streaming form of Transformers' names: frames that come one by one give the masks of `Session.step`."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from dummy_models import ColorModel, flat_clip
from PIL import Image

from vosformer.errors import InputError
from vosformer.inference.predictor import VideoPredictor
from vosformer.inference.session import Session
from vosformer.prompts import Prompt

SIZE = (129, 193)


def session() -> Session:
    return Session(ColorModel(), device="cpu", dtype="fp32")


def middle(labels: np.ndarray, i: int) -> list[int]:
    return [int(v) for v in np.argwhere(labels == i).mean(0)[::-1]]


def as_labels(out) -> np.ndarray:
    return sum(i * (out.pred_masks[n, 0] > 0).numpy().astype(np.int32) for n, i in enumerate(out.object_ids))


def test_a_loop_over_a_camera_as_programs_for_transformers_write_it():
    """Clicks on the first picture, an object that comes later by its mask, a repair; all as `Session.step` has it."""
    images, labels = flat_clip((1, 2), 6)
    model = processor = VideoPredictor(session())
    stream = processor.init_video_session(inference_device="cpu", dtype=torch.float32)
    here, click = session(), middle(labels[0], 1)
    for n, image in enumerate(images):
        inputs = processor(images=Image.fromarray(image), device="cpu", return_tensors="pt").to(model.device)
        prompts = {}
        if n == 0:
            processor.add_inputs_to_inference_session(
                inference_session=stream,
                frame_idx=0,
                obj_ids=1,
                input_points=[[[click, [2, 2]]]],
                input_labels=[[[1, 0]]],
                original_size=inputs.original_sizes[0],
            )
            assert (stream.video_height, stream.video_width) == SIZE
            prompts = {1: Prompt([click, (2, 2)], [1, 0])}
        if n == 3:
            processor.add_inputs_to_inference_session(stream, 3, [2], input_masks=[labels[3] == 2])
            processor.add_inputs_to_inference_session(
                stream, 3, 1, input_points=[[[middle(labels[3], 1)]]], input_labels=[[[1]]]
            )
            prompts = {2: Prompt(mask=labels[3] == 2), 1: Prompt([middle(labels[3], 1)], [1])}
        out = model(inference_session=stream, frame=inputs.pixel_values[0])
        wanted = here.step(image, prompts=prompts or None)
        masks = processor.post_process_masks([out.pred_masks], original_sizes=inputs.original_sizes)[0]
        assert (out.frame_idx, out.object_ids, tuple(masks.shape[1:])) == (n, [1] if n < 3 else [1, 2], (1, *SIZE))
        assert np.array_equal(as_labels(out), wanted.labels)
        scores = [wanted.score(i) for i in out.object_ids]
        assert np.allclose(torch.sigmoid(out.object_score_logits), scores, atol=1e-5)
    assert stream.obj_ids == [1, 2]
    assert stream.said == {}  # nothing of frames that have passed is kept


def test_boxes_two_objects_in_one_call_and_an_object_of_id_zero():
    images, labels = flat_clip((1, 2), 3)
    model = VideoPredictor(session())
    boxes = []
    for i in (1, 2):
        rows, columns = np.nonzero(labels[0] == i)
        boxes.append([columns.min() - 2.0, rows.min() - 2.0, columns.max() + 3.0, rows.max() + 3.0])
    stream, here = model.init_video_session(), session()
    model.add_inputs_to_inference_session(stream, 0, [0, 7], input_boxes=torch.tensor([boxes]).clip(0))
    for n, image in enumerate(images):
        out = model(inference_session=stream, frame=image)
        prompts = {i: Prompt(box=np.clip(box, 0, None)) for i, box in zip((5, 7), boxes, strict=True)} if n == 0 else None
        wanted = here.step(image, prompts=prompts).labels
        assert out.object_ids == [0, 7]
        for m, i in enumerate((5, 7)):
            assert np.array_equal(out.pred_masks[m, 0] > 0, wanted == i)


def test_two_streams_of_one_model_do_not_mix_and_neither_do_two_propagations():
    clips = [flat_clip((1, 2), 4), flat_clip((1,), 4)]
    model = VideoPredictor(session())
    streams, states, alone = [], [], [session(), session()]
    for images, labels in clips:
        streams.append(model.init_video_session())
        model.add_inputs_to_inference_session(streams[-1], 0, 1, input_masks=labels[0] == 1)
        states.append(model.init_video_session(images))
        model.add_new_mask(states[-1], 0, 1, labels[0] == 1)
    propagations = [model.propagate_in_video_iterator(state) for state in states]
    for n in range(4):
        for (images, labels), stream, propagation, one in zip(clips, streams, propagations, alone, strict=True):
            wanted = one.step(images[n], (labels[0] == 1).astype(int) if n == 0 else None).labels
            assert np.array_equal(as_labels(model(inference_session=stream, frame=images[n])), wanted)
            assert np.array_equal(as_labels(next(propagation)), wanted)


def test_frames_may_be_left_out_and_objects_wait_for_theirs():
    images, labels = flat_clip((1,), 8)
    model = VideoPredictor(session())
    stream = model.init_video_session()
    model.add_inputs_to_inference_session(stream, 2, 1, input_masks=labels[2] == 1)
    assert (model(inference_session=stream, frame=images[0]).pred_masks == -1024).all()
    assert (as_labels(model(stream, 2, images[2])) == labels[2]).all()
    assert model(stream, frame_idx=6, frame=images[6]).frame_idx == 6
    with pytest.raises(InputError, match="frame 5 came after frame 6"):
        model(stream, frame_idx=5, frame=images[5])
    with pytest.raises(InputError, match="frame 6 has passed"):
        model.add_inputs_to_inference_session(stream, 6, 1, input_masks=labels[6] == 1)
    stream.reset_inference_session()
    with pytest.raises(InputError, match="no object is marked"):
        model(stream, frame=images[7])
    assert stream.next == 7  # the frame that was refused does not count


def test_points_are_added_to_or_replace_those_before():
    images, labels = flat_clip((1,), 1)
    model = VideoPredictor(session())
    stream = model.init_video_session()
    for clear, points in ((True, [9, 9]), (True, middle(labels[0], 1)), (False, [3, 3])):
        given = {"input_points": [[[points]]], "input_labels": [[[int(points != [3, 3])]]], "clear_old_inputs": clear}
        model.add_inputs_to_inference_session(stream, 0, 1, **given, original_size=SIZE)
    wanted = session().step(images[0], prompts={1: Prompt([middle(labels[0], 1), (3, 3)], [1, 0])}).labels
    assert np.array_equal(as_labels(model(stream, frame=images[0])), wanted)


def test_what_does_not_fit_is_told():
    images, labels = flat_clip((1,), 3)
    model = VideoPredictor(session())
    stream, video = model.init_video_session(), model.init_video_session(images)
    for where, given, told in (
        (stream, {"obj_ids": [1, 2], "input_points": [[[[5, 5]]]]}, "input_points speaks of 1 objects, but obj_ids names 2"),
        (video, {"obj_ids": [1, 2], "input_masks": [labels[0] == 1]}, "input_masks speaks of 1 objects"),
        (video, {"obj_ids": [1], "input_points": [[[5, 5]], [[6, 6]]]}, "input_points has 2 entries for pictures"),
        (stream, {"obj_ids": 1}, "a prompt says nothing"),
        (stream, {"obj_ids": 1, "input_points": [[[[5, 5]]]], "input_labels": [[[1, 1]]]}, "2 labels were given for 1 points"),
        (stream, {"obj_ids": 1, "input_points": [[[[5, 5]]]], "input_labels": [[[0.5]]]}, r"labels are \[0.5\]"),
        (stream, {"obj_ids": "ab", "input_masks": labels[0] == 1}, "obj_ids are 'ab', expected a list of whole numbers"),
        (stream, {"obj_ids": None, "input_masks": labels[0] == 1}, "obj_ids are None"),
        (stream, {"obj_ids": 2**40, "input_masks": labels[0] == 1}, "that fits 32 bits"),
        (stream, {"obj_ids": 1, "input_points": [[[[500, 5]]]], "original_size": SIZE}, "500"),
    ):
        with pytest.raises(InputError, match=told):
            model.add_inputs_to_inference_session(where, 0, **given)
    assert (stream.obj_ids, video.obj_ids) == ([], [])
    model.add_inputs_to_inference_session(stream, 0, 1, input_masks=labels[0] == 1)
    with pytest.raises(InputError, match="float32"):  # of a processor that normalizes
        model(stream, frame=torch.zeros(3, 64, 64))
    with pytest.raises(InputError, match="a frame of 50 x 60 pixels came, expected 129 x 193"):
        model(stream, frame=np.zeros((50, 60, 3), np.uint8))
    with pytest.raises(InputError, match="frame_idx is 'a'"):
        model(stream, frame_idx="a", frame=images[0])
    with pytest.raises(InputError, match="no picture was given"):
        model(images=[])
    with pytest.raises(InputError, match="wants frame="):
        model(stream, frame_idx=0)
    with pytest.raises(InputError, match="without a video"):
        model(video, frame=images[0])
    with pytest.raises(InputError, match="frames are not kept"):
        next(model.propagate_in_video_iterator(stream))
    with pytest.raises(InputError, match="expected one size"):
        model(images=[images[0], images[0][:9]])
    out = model(stream, frame=images[0])
    with pytest.warns(UserWarning, match="masks stay as they are"):
        model.post_process_masks([out.pred_masks], [SIZE], max_hole_area=8)
