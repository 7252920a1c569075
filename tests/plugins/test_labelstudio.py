"""The Label Studio backend, asked as Label Studio asks: setup, health, predict with the regions that a person drew."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from dummy_models import ColorModel, flat_clip
from starlette.testclient import TestClient

from vosformer import Session
from vosformer.cli import main
from vosformer.plugins.labelstudio import Backend, create_app

CONFIG = """<View><Labels name="kind" toName="clip"><Label value="Square"/></Labels>
<Video name="clip" value="$film" framerate="10"/><VideoRectangle name="box" toName="clip"/></View>"""
HEIGHT, WIDTH, FRAMES = 128, 192, 10
HOST = "127.0.0.1:9090"


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    (tmp_path / "media" / "sub").mkdir(parents=True)
    with av.open(str(tmp_path / "media" / "sub" / "clip.mkv"), "w") as out:
        stream = out.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "bgr0"
        for image in flat_clip((1, 2), FRAMES, gone={2: 6})[0]:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(image[:HEIGHT, :WIDTH]), "rgb24")))
        out.mux(stream.encode())
    (tmp_path / "secret.mkv").write_bytes((tmp_path / "media" / "sub" / "clip.mkv").read_bytes())
    backend = Backend(Session(ColorModel(), device="cpu", dtype="fp32", size=None), tmp_path / "media")
    _, guard = create_app(backend, {HOST}, "Basic secret")
    with TestClient(guard, base_url=f"http://{HOST}", headers={"authorization": "Basic secret"}) as made:  # type: ignore[arg-type]
        yield made


def true_box(labels: np.ndarray, i: int) -> list[float]:
    """x, y, width and height in percent."""
    rows, columns = np.nonzero(labels[:HEIGHT, :WIDTH] == i)
    sides = columns.min() / WIDTH, rows.min() / HEIGHT, np.ptp(columns + 0.0) / WIDTH, np.ptp(rows + 0.0) / HEIGHT
    return [100 * float(v) for v in sides]


def drawn_box(labels: np.ndarray, i: int) -> list[float]:
    """As a person draws it, a little larger."""
    x, y, width, height = true_box(labels, i)
    return [max(x - 1.5, 0), max(y - 1.5, 0), width + 3.5, height + 3.5]


def region(name: str, frame: int, box: list[float]) -> dict:
    entry = {"frame": frame, "enabled": True, "rotation": 0, **dict(zip(("x", "y", "width", "height"), box, strict=True))}
    value = {"sequence": [entry], "labels": ["Square"]}
    return {"id": name, "type": "videorectangle", "from_name": "box", "to_name": "clip", "value": value}


def ask(client: TestClient, regions: list[dict], film: str = "/data/local-files/?d=sub/clip.mkv"):
    body = {
        "tasks": [{"id": 3, "data": {"film": film}}],
        "label_config": CONFIG,
        "project": "1.2",
        "params": {"context": {"result": regions}},
    }
    return client.post("/predict", json=body)


def test_boxes_are_followed_in_one_pass_and_end_where_the_object_leaves(client: TestClient) -> None:
    labels = flat_clip((1, 2), FRAMES, gone={2: 6})[1]
    drawn = [region("one", 1, drawn_box(labels[0], 1)), region("two", 3, drawn_box(labels[2], 2))]
    answer = ask(client, drawn).raise_for_status().json()["results"][0]
    found = {each["id"]: each for each in answer["result"]}
    assert {(each["type"], each["from_name"], each["to_name"]) for each in found.values()} == {
        ("videorectangle", "box", "clip")
    }
    assert found["one"]["value"]["labels"] == ["Square"]
    assert (found["one"]["value"]["framesCount"], found["one"]["value"]["duration"]) == (FRAMES, 1.0)
    assert [each["frame"] for each in found["one"]["value"]["sequence"]] == list(range(1, FRAMES + 1))
    assert [each["frame"] for each in found["two"]["value"]["sequence"]] == [3, 4, 5, 6]
    assert [each["enabled"] for each in found["two"]["value"]["sequence"]] == [True, True, True, False]
    assert all(each["enabled"] for each in found["one"]["value"]["sequence"])
    for each in found["one"]["value"]["sequence"]:
        wanted = true_box(labels[each["frame"] - 1], 1)
        assert np.abs(np.array([each[name] for name in ("x", "y", "width", "height")]) - wanted).max() < 5
        assert each["time"] == pytest.approx((each["frame"] - 1) / 10, abs=1e-3)
    assert 0.5 < answer["score"] <= 1


def test_label_studio_sdk_finds_nothing_wrong_with_a_prediction(client: TestClient) -> None:
    interface = pytest.importorskip(
        "label_studio_sdk.label_interface", reason="label-studio-sdk is not installed (make test-tools)"
    )
    from label_studio_sdk.label_interface.objects import PredictionValue

    labels = flat_clip((1, 2), FRAMES, gone={2: 6})[1]
    drawn = [region("one", 1, drawn_box(labels[0], 1)), region("two", 3, drawn_box(labels[2], 2))]
    answer = ask(client, drawn).raise_for_status().json()
    reads = interface.LabelInterface(CONFIG)
    for prediction in answer["results"]:
        PredictionValue(**prediction)
        assert reads.validate_prediction(prediction, return_errors=True) == []
        prediction["result"][0]["value"]["sequence"][0].pop("x")
        assert reads.validate_prediction(prediction, return_errors=True) != []


def test_the_other_routes(client: TestClient) -> None:
    assert client.get("/health").json() == {"status": "UP", "model_class": "vosformer"}
    assert client.post("/setup", json={"project": "1.2", "schema": CONFIG}).json()["model_version"].startswith("vosformer-")
    assert client.post("/webhook", json={"action": "ANNOTATION_CREATED"}).status_code == 201
    empty = ask(client, []).json()
    assert empty["results"][0]["result"] == []
    assert empty["model_version"] == empty["results"][0]["model_version"]


def test_strangers_and_other_files_are_kept_out(client: TestClient) -> None:
    drawn = [region("one", 1, [10, 10, 20, 20])]
    for film in (
        "/data/local-files/?d=../secret.mkv",
        "/data/local-files/?d=/etc/passwd",
        "http://other.example/x.mp4",
        "file:///etc/passwd",
        "",
    ):
        answer = ask(client, drawn, film)
        assert answer.status_code == 400, film
    assert client.post("/predict", json={}, headers={"authorization": "Basic other"}).status_code == 401
    assert client.get("/health", headers={"host": "rebound.example"}).status_code == 403
    assert (
        client.post("/setup", json={"schema": "<View><Image/></View>"})
        .json()["error"]
        .startswith("the labeling configuration has no")
    )
    assert client.post("/setup", json={"schema": "<View"}).status_code == 400
    broken = region("one", 1, [10, 10, 20, 20])
    del broken["value"]["sequence"][0]["x"]
    assert "has no frame, x, y" in ask(client, [broken]).json()["error"]


def test_the_command_wants_a_password_before_it_listens_to_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["label-studio", "--media", str(tmp_path), "--host", "0.0.0.0"]) == 2
    assert main(["label-studio", "--media", str(tmp_path / "none")]) == 2
    told = capsys.readouterr().err
    assert "set VOSFORMER_PASSWORD" in told
    assert "which is no folder" in told
