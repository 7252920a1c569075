"""FiftyOne's own `apply_model` over a video data set; only its MongoDB is a stand-in, in memory (`pip install mongomock`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from dummy_models import ColorModel, flat_clip

fo = pytest.importorskip("fiftyone")
mongomock = pytest.importorskip("mongomock")

import mongoengine  # noqa: E402
import mongoengine.connection  # noqa: E402
import pymongo  # noqa: E402
from mongomock import aggregate  # noqa: E402
from mongomock.store import ServerStore  # noqa: E402

from vosformer import Session, VideoPredictor  # noqa: E402
from vosformer.plugins.fiftyone import VideoTracker  # noqa: E402

HEIGHT, WIDTH, FRAMES = 128, 192, 6
STORE = ServerStore()


class InMemory(mongomock.MongoClient):
    _closed = False

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **{**more, "_store": STORE})

    def server_info(self) -> dict[str, Any]:
        return {"version": "7.0.0", "versionArray": [7, 0, 0, 0]}


def attach_frames(documents, database, options):
    """Join samples with their frames, the one kind of `$lookup` with a pipeline that `apply_model` asks for."""
    assert options["let"] == {"sample_id": "$_id"}
    frames = database[options["from"]]
    return [
        {**each, options["as"]: sorted(frames.find({"_sample_id": each["_id"]}), key=lambda frame: frame["frame_number"])}
        for each in documents
    ]


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch) -> None:
    connect = mongoengine.connect
    monkeypatch.setattr(pymongo, "MongoClient", InMemory)
    monkeypatch.setattr(mongoengine.connection, "MongoClient", InMemory)
    monkeypatch.setattr(mongoengine, "connect", lambda *a, **more: connect(*a, mongo_client_class=InMemory, **more))
    monkeypatch.setitem(aggregate._PIPELINE_HANDLERS, "$lookup", attach_frames)
    for name, value in {"uri": "mongodb://localhost:27017", "validation": False, "admin": False}.items():
        monkeypatch.setattr(fo.config, f"database_{name}", value)


def test_apply_model_writes_the_masks_of_a_session(database: None, tmp_path: Path) -> None:
    images, labels = ([each[:HEIGHT, :WIDTH] for each in part] for part in flat_clip((1, 2), FRAMES))
    with av.open(str(tmp_path / "clip.mkv"), "w") as out:
        stream = out.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "bgr0"
        for image in images:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(image), "rgb24")))
        out.mux(stream.encode())
    sample = fo.Sample(filepath=str(tmp_path / "clip.mkv"))  # its metadata would need ffprobe
    sample.metadata = fo.VideoMetadata(frame_width=WIDTH, frame_height=HEIGHT, frame_rate=10.0, total_frame_count=FRAMES)
    square = labels[0] == 1
    drawn = fo.Detection.from_mask(square, label="square")
    drawn.index = 4
    sample.frames[1] = fo.Frame(detections=fo.Detections(detections=[drawn]))
    dataset = fo.Dataset("clips")
    dataset.add_sample(sample)
    here, settings = Session(ColorModel(), device="cpu", dtype="fp32", size=None), {"prompt_field": "frames.detections"}
    dataset.apply_model(VideoTracker(VideoPredictor(here.fork())), "tracked", **settings)
    frames = dataset.first().frames
    for number, image in enumerate(images, 1):
        wanted = here.step(np.ascontiguousarray(image), np.where(square, 4, 0) if number == 1 else None).labels
        shown = np.zeros((HEIGHT, WIDTH), int)
        for each in frames[number]["tracked"].detections:
            left, top = round(each.bounding_box[0] * WIDTH), round(each.bounding_box[1] * HEIGHT)
            shown[top : top + each.mask.shape[0], left : left + each.mask.shape[1]][each.mask] = each.index
            assert each.label == "square"
        assert np.array_equal(shown, wanted)
