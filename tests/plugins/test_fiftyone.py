"""The FiftyOne model over FiftyOne's own samples; where FiftyOne is not installed (it is large) this is skipped."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from dummy_models import ColorModel, flat_clip

fo = pytest.importorskip("fiftyone")

from vosformer import Session, VideoPredictor  # noqa: E402
from vosformer.errors import InputError  # noqa: E402
from vosformer.io import open_source  # noqa: E402
from vosformer.plugins.fiftyone import VideoTracker  # noqa: E402

HEIGHT, WIDTH = 128, 192


def session() -> Session:
    return Session(ColorModel(), device="cpu", dtype="fp32", size=None)


@pytest.fixture
def sample(tmp_path: Path):
    with av.open(str(tmp_path / "clip.mkv"), "w") as out:
        stream = out.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "bgr0"
        for image in flat_clip((1, 2), 8)[0]:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(image[:HEIGHT, :WIDTH]), "rgb24")))
        out.mux(stream.encode())
    made = fo.Sample(filepath=str(tmp_path / "clip.mkv"))
    for number in range(1, 9):
        made.frames[number] = fo.Frame(detections=None)
    return made


def detection(labels: np.ndarray, i: int, **more):
    rows, columns = np.nonzero(labels == i)
    top, bottom, left, right = rows.min(), rows.max() + 1, columns.min(), columns.max() + 1
    box = [left / WIDTH, top / HEIGHT, (right - left) / WIDTH, (bottom - top) / HEIGHT]
    return fo.Detection(label=f"square {i}", bounding_box=box, mask=(labels == i)[top:bottom, left:right], **more)


def test_masks_are_those_of_a_session_with_objects_that_come_later(sample) -> None:
    labels = [each[:HEIGHT, :WIDTH] for each in flat_clip((1, 2), 8)[1]]
    sample.frames[1] = fo.Frame(detections=fo.Detections(detections=[detection(labels[0], 1, index=4)]))
    sample.frames[4] = fo.Frame(detections=fo.Detections(detections=[detection(labels[3], 2, index=7)]))
    model = VideoTracker(VideoPredictor(session()))
    model.needs_fields = {"prompt_field": "frames.detections"}
    found, here = model.predict(None, sample), session()
    assert sorted(found) == list(range(1, 9))
    given = {0: np.where(labels[0] == 1, 4, 0), 3: np.where(labels[3] == 2, 7, 0)}
    for frame in open_source(sample.filepath):
        shown = np.zeros((HEIGHT, WIDTH), int)
        for each in found[frame.number + 1].detections:
            x, y, _, _ = each.bounding_box
            left, top = round(x * WIDTH), round(y * HEIGHT)
            shown[top : top + each.mask.shape[0], left : left + each.mask.shape[1]][each.mask] = each.index
            assert each.label == {4: "square 1", 7: "square 2"}[each.index]
        assert np.array_equal(shown, here.step(frame.image, given.get(frame.number)).labels)


def test_nothing_marked_is_told(sample) -> None:
    model = VideoTracker(VideoPredictor(session()))
    with pytest.raises(InputError, match="expected a field of frames"):
        model.predict(None, sample)
    model.needs_fields = {"prompt_field": "frames.detections"}
    with pytest.raises(InputError, match="empty on all frames"):
        model.predict(None, sample)
