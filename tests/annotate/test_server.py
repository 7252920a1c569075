"""The server, request by request: what the page asks for, and what strangers ask for."""

from __future__ import annotations

import io
import json
import socket
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from annotation import clip, open_workspace
from PIL import Image
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from vosformer.annotate.server import PAGE, create_app
from vosformer.annotate.workspace import Workspace
from vosformer.errors import InputError
from vosformer.formats import read
from vosformer.web.listen import listen

HOST = "127.0.0.1:8123"
TOKEN = "secret-token"
API = f"/{TOKEN}/api"


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return open_workspace(tmp_path / "p", clip()[0])


@pytest.fixture
def client(workspace: Workspace) -> Iterator[TestClient]:
    _, app, _ = create_app(workspace, {HOST}, TOKEN)
    with TestClient(app, base_url=f"http://{HOST}") as made:  # type: ignore[arg-type]
        yield made


def ids_of(png: bytes) -> np.ndarray:
    rgb = np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)
    return rgb[..., 0] | rgb[..., 1] << 8 | rgb[..., 2] << 16


def test_a_person_marks_propagates_and_exports(client: TestClient, workspace: Workspace, tmp_path: Path) -> None:
    truth = clip()[1]
    assert client.get(f"{API}/state").json()["video"]["frames"] == 8
    for i in (1, 2):
        assert client.post(f"{API}/add_object", json={"name": f"square {i}", "category": "square"}).json()["result"] == i
        rows, columns = np.nonzero(truth[0] == i)
        box = [int(v) for v in (columns.min() - 3, rows.min() - 3, columns.max() + 3, rows.max() + 3)]
        answer = client.post(f"{API}/add_points", json={"frame": 0, "object": i, "box": box})
        assert answer.status_code == 200, answer.text
    with client.websocket_connect(f"{API}/events", headers={"origin": f"http://{HOST}", "host": HOST}) as events:
        client.post(f"{API}/propagate", json={"direction": "forward", "frame": 0})
        heard = []
        while not heard or heard[-1]["event"] != "done":
            heard.append(events.receive_json())
        assert heard[-1]["error"] is None
        assert {event["frame"] for event in heard if event["event"] == "progress"} >= set(range(8))
    mask = client.get(f"{API}/masks/5.png")
    assert (ids_of(mask.content) == workspace.project.labels(5)).all()
    assert json.loads(mask.headers["x-scores"])["1"] > 0.5
    picture = np.asarray(Image.open(io.BytesIO(client.get(f"{API}/frames/5.jpg").content)))
    assert np.abs(picture.astype(int) - clip()[0][5]).mean() < 4
    assert client.get(f"{API}/lanes?bins=4").json()["edges"] == [0, 2, 4, 6, 8]
    assert len(client.get(f"{API}/suggest?k=2").json()) <= 2
    (tmp_path / "coco.json").write_bytes(client.post(f"{API}/export", json={"format": "coco"}).content)
    video = read(tmp_path / "coco.json")
    assert [(video.objects[i].name, video.objects[i].category) for i in (1, 2)] == [
        ("square 1", "square"),
        ("square 2", "square"),
    ]
    assert (video.frames[5].labels(*truth[0].shape) == workspace.project.labels(5)).all()


def test_every_export_is_written(client: TestClient, workspace: Workspace) -> None:
    client.post(f"{API}/add_object", json={})
    for frame in (0, 3):
        client.post(f"{API}/stroke", json={"frame": frame, "object": 1, "path": [[40, 40], [60, 50]], "radius": 9})
    for name in client.get(f"{API}/formats").json():
        answer = client.post(f"{API}/export", json={"format": name})
        assert answer.status_code == 200, (name, answer.text)
        assert len(answer.content) > 50, name


def test_masks_come_back_by_import(client: TestClient, workspace: Workspace) -> None:
    client.post(f"{API}/add_object", json={"name": "left", "category": "thing"})
    client.post(f"{API}/polygon", json={"frame": 2, "object": 1, "points": [[10, 10], [50, 12], [30, 60]]})
    kept = workspace.project.labels(2)
    for form, name in (("coco", "x.json"), ("masks", "masks.zip"), ("cvat-images", "x.xml")):
        data = client.post(f"{API}/export", json={"format": form}).content
        client.post(f"{API}/remove_object", json={"object": 1})
        assert not workspace.project.objects
        answer = client.post(f"{API}/import?name={name}&frame=2&given=true", content=data)
        assert answer.status_code == 200, (form, answer.text)
        assert (workspace.project.labels(2) == kept).all(), form
        assert workspace.project.given[2].ids == (1,)
        client.post(f"{API}/undo")
        client.post(f"{API}/undo")
        assert workspace.project.objects[1].name == "left"


def test_undo_and_redo(client: TestClient) -> None:
    client.post(f"{API}/add_object", json={})
    client.post(f"{API}/stroke", json={"frame": 1, "object": 1, "path": [[40, 40]], "radius": 5})
    assert client.post(f"{API}/undo").json()["undone"] == "brush"
    assert client.get(f"{API}/state").json()["given"] == {}
    assert client.post(f"{API}/redo").json()["redone"] == "brush"
    assert list(client.get(f"{API}/state").json()["given"]) == ["1"]


def test_two_pages_are_told_of_each_other(client: TestClient) -> None:
    def join():
        return client.websocket_connect(f"{API}/events", headers={"origin": f"http://{HOST}", "host": HOST})

    with join() as one:
        assert one.receive_json() == {"event": "clients", "count": 1}
        with join() as other:
            assert one.receive_json() == other.receive_json() == {"event": "clients", "count": 2}
            client.post(f"{API}/add_object", json={})
            assert one.receive_json()["event"] == other.receive_json()["event"] == "changed"


@pytest.mark.parametrize("path", ["/", "/api/state", f"/{TOKEN}x/api/state", "/secret/api/state", f"/{TOKEN[:-1]}/"])
def test_without_the_token_there_is_nothing(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8123", "127.0.0.1", "127.0.0.1:9", "", "127.0.0.1:8123.evil.example"]
)
def test_another_host_is_refused(client: TestClient, host: str) -> None:
    assert client.get(f"{API}/state", headers={"host": host}).status_code == 403


@pytest.mark.parametrize("origin", ["http://evil.example", "null", f"https://{HOST}", f"http://{HOST}.evil.example"])
def test_another_origin_is_refused(client: TestClient, origin: str) -> None:
    assert client.post(f"{API}/undo", headers={"origin": origin}).status_code == 403
    with (
        pytest.raises(WebSocketDisconnect),
        client.websocket_connect(f"{API}/events", headers={"origin": origin, "host": HOST}),
    ):
        pass


def test_a_socket_without_an_origin_is_refused(client: TestClient) -> None:
    with pytest.raises(WebSocketDisconnect), client.websocket_connect(f"{API}/events", headers={"host": HOST}):
        pass


@pytest.mark.parametrize(
    "path",
    [
        f"/{TOKEN}/../project.json",
        f"/{TOKEN}/..%2f..%2fproject.json",
        f"/{TOKEN}/js/%2e%2e/%2e%2e/server.py",
        f"/{TOKEN}/..%5c..%5cserver.py",
        f"/{TOKEN}//etc/passwd",
        f"{API}/frames/..%2f..%2fproject.jpg",
        f"{API}/masks/-1.png",
        f"{API}/masks/99999999999999999999.png",
        f"{API}/frames/8.jpg",
    ],
)
def test_no_path_leads_out(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code in (400, 404, 422), answer.text
    assert b"vosformer_project" not in answer.content
    assert b"create_app" not in answer.content


BAD = [
    ("add_points", {"frame": -1, "object": 1, "points": [[1, 1]], "labels": [1]}),
    ("add_points", {"frame": 0, "object": 10**9, "points": [[1, 1]], "labels": [1]}),
    ("add_points", {"frame": 0, "object": 1, "points": [[1, 1]], "labels": [7]}),
    ("add_points", {"frame": 0, "object": 1, "points": [["a", 1]], "labels": [1]}),
    ("add_points", {"frame": 0, "object": 1, "points": [[1, 1]], "labels": []}),
    ("stroke", {"frame": 0, "object": 1, "path": [[1, 1]], "radius": 0}),
    ("stroke", {"frame": 0, "object": 1, "path": [], "radius": 3}),
    ("stroke", {"frame": 0, "object": 1, "path": [[1, 1]], "radius": 3, "extra": 1}),
    ("polygon", {"frame": 0, "object": 1, "points": [[1, 1]], "mode": "explode"}),
    ("fill", {"frame": 0, "object": 1, "x": 1e9, "y": 0}),
    ("change_object", {"object": 1, "color": "red; background: url(//x)"}),
    ("change_object", {"object": 1, "name": "n" * 500}),
    ("propagate", {"direction": "sideways", "frame": 0}),
    ("propagate", {"direction": "forward", "frame": 0, "start": 5, "stop": 2}),
    ("propagate", {"direction": "forward", "frame": 0}),
    ("repair", {"frame": 3}),
    ("export", {"format": "../../etc/passwd"}),
    ("export", {"format": "coco"}),
    ("merge", {"kept": 1, "gone": 2}),
    ("swap", {"one": 1, "other": 1, "frame": 0}),
]


@pytest.mark.parametrize(("path", "body"), BAD)
def test_bad_requests_are_explained_and_change_nothing(client: TestClient, workspace: Workspace, path: str, body: dict) -> None:
    client.post(f"{API}/add_object", json={})
    before = workspace.project.version
    answer = client.post(f"{API}/{path}", json=body)
    assert answer.status_code in (400, 422), answer.text
    assert answer.json().get("error") or answer.json().get("detail")
    assert workspace.project.version == before


def test_large_bodies_are_refused(client: TestClient) -> None:
    body = b'{"name": "' + b"x" * (5 << 20) + b'"}'
    assert client.post(f"{API}/add_object", content=body, headers={"content-type": "application/json"}).status_code == 413

    def pieces() -> Iterator[bytes]:  # without an announced length
        for _ in range(80):
            yield b"x" * (1 << 16)

    assert client.post(f"{API}/add_object", content=pieces(), headers={"content-type": "application/json"}).status_code in (
        400,
        413,
    )


def packed(name: str, data: bytes = b"x") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr(name, data)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.zip", packed("../../evil.png")),
        ("a.zip", packed("/evil.png")),
        ("a.zip", b"PK no zip"),
        ("a.png", b"no picture"),
        ("a.json", b"{"),
        ("a.json", b'{"images": [], "annotations": [{"segmentation": {}}]}'),
        ("../../evil.sh", b""),
        ("noending", b""),
        ("a.npy", b"\x93NUMPY\x01\x00 bad"),
    ],
)
def test_bad_uploads_are_refused_and_leave_nothing(client: TestClient, workspace: Workspace, name: str, data: bytes) -> None:
    answer = client.post(f"{API}/import", params={"name": name}, content=data)
    assert answer.status_code == 400, answer.text
    assert not list((workspace.project.folder / ".history" / "uploads").glob("*"))
    assert not list(workspace.project.folder.parent.rglob("evil*"))
    assert not workspace.project.given


def test_pages_of_others_may_not_embed_it(client: TestClient) -> None:
    answer = client.get(f"/{TOKEN}/")
    assert answer.status_code == 200
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["referrer-policy"] == "no-referrer"


def test_the_page_asks_nobody_else() -> None:
    for path in PAGE.rglob("*"):
        if path.is_file():
            text = path.read_text().replace("http://www.w3.org/2000/svg", "")
            assert "http://" not in text, path
            assert "https://" not in text, path


def test_a_port_that_is_taken_is_told(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"127.0.0.1:{port} cannot be listened on"):
            listen("127.0.0.1", port)
