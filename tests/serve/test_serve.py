"""Sessions over the network give what sessions here give; strangers, fools and large things are kept out."""

from __future__ import annotations

import io
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from dummy_models import ColorModel, flat_clip
from PIL import Image
from serving import TOKEN, Running, running
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from vosformer import Client, Session
from vosformer.errors import InputError, ServerError
from vosformer.prompts import Prompt
from vosformer.serve import wire
from vosformer.serve.store import Limits

LIMITS = Limits(sessions=3, objects=4, pixels=300 * 300, message_bytes=400_000, idle_seconds=30)
HEAD = {"authorization": f"Bearer {TOKEN}"}


def session() -> Session:
    return Session(ColorModel(), device="cpu", dtype="fp32", size=None)


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running(session(), LIMITS) as found:
        yield found


@pytest.fixture
def http(server: Running) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, headers=HEAD, timeout=120) as client:
        yield client


def as_png(array: np.ndarray, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("frames", "masks", "ids"), [("raw", "rle", (-7, 1, 90_000)), ("png", "png", (1, 300)), ("raw", "png", (1, 2))]
)
def test_a_client_is_a_session(server: Running, tmp_path: Path, frames, masks, ids) -> None:
    images, labels = flat_clip(ids, 8)
    here = session()
    with Client(server.url, TOKEN, frames=frames, masks=masks) as there:
        assert there.about["limits"]["objects"] == 4
        for n, image in enumerate(images):
            given = labels[n] if n in (0, 4) else None
            one, other = here.step(image, given), there.step(image, given)
            assert other.labels.dtype == np.int32
            assert np.array_equal(one.labels, other.labels)
            assert (one.ids, one.given, other.number) == (other.ids, other.given, n)
            assert {i: one.score(i) for i in one.ids} == {i: other.score(i) for i in other.ids}
            assert one.boxes() == other.boxes()
            if n == 5:
                for each in (here, there):
                    each.remove(ids[0])
                assert there.ids == here.ids
            if n == 6:
                there.save(tmp_path / "state.safetensors")
        local = session()
        local.load(tmp_path / "state.safetensors")  # a state of the server serves here
        assert np.array_equal(local.step(images[7]).labels, other.labels)
        there.reset()
        assert there.ids == ()
        there.load(tmp_path / "state.safetensors")
        assert there.ids == local.ids
        assert np.array_equal(there.step(images[7]).labels, other.labels)
        with pytest.raises(InputError, match="no probabilities"):
            other.probability(other.ids[0])


def test_jpeg_frames_are_nearly_the_same(server: Running) -> None:
    images, labels = flat_clip((1, 2), 3)
    with Client(server.url, TOKEN, frames="jpeg") as there:
        for n, image in enumerate(images):
            out = there.step(image, labels[0] if n == 0 else None)
        assert (out.labels == labels[2]).mean() > 0.97


def test_prompts_travel(server: Running) -> None:
    images, labels = flat_clip((1, 2), 3)
    rows, columns = np.nonzero(labels[0] == 1)
    box = tuple(float(v) for v in (columns.min() - 3, rows.min() - 3, columns.max() + 3, rows.max() + 3))
    scribbles = np.zeros(labels[0].shape, np.int8)
    scribbles[labels[0] == 2], scribbles[:4] = 1, -1
    first = {1: Prompt(points=[(columns.mean(), rows.mean())], labels=[1], box=box), 2: Prompt(scribbles=scribbles)}
    repair = {2: Prompt(points=[(3, 3)], labels=[0], mask=labels[1] == 2)}
    here = session()
    with Client(server.url, TOKEN) as there:
        for image, prompts in zip(images, (first, repair, None), strict=True):
            assert np.array_equal(here.step(image, prompts=prompts).labels, there.step(image, prompts=prompts).labels)
        with pytest.raises(InputError, match="outside of the frame"):
            there.step(images[0], prompts={1: Prompt(points=[(1000, 3)])})


def test_mistakes_are_told_as_a_session_tells_them_and_change_nothing(server: Running, tmp_path: Path) -> None:
    images, labels = flat_clip((1, 2), 4)
    here = session()
    with Client(server.url, TOKEN) as there:
        for act in (
            lambda s: s.step(images[0]),
            lambda s: s.step(images[0], labels[0][:5]),
            lambda s: s.step(images[0], labels[0].astype(float)),
            lambda s: s.step(images[0][..., 0]),
            lambda s: s.step(images[0], np.zeros_like(labels[0])),
            lambda s: s.step(images[0], labels[0], ids=[1]),
            lambda s: s.step(images[0], labels[0], ids=["a"]),
            lambda s: s.step(images[0], labels[0], ids=[1.5, 2]),
            lambda s: s.step(images[0], labels[0], blur=3),
            lambda s: s.step(images[0], prompts=[Prompt([(5, 5)])]),
            lambda s: s.remove(9),
        ):
            with pytest.raises(InputError) as one:
                act(here)
            with pytest.raises(InputError) as other:
                act(there)
            assert str(other.value) == str(one.value)
        for n, image in enumerate(images):
            given = labels[0] if n == 0 else None
            assert np.array_equal(here.step(image, given).labels, there.step(image, given).labels)
        with pytest.raises(InputError, match="call reset"):
            there.step(images[0][:64])
        for options, told in (
            ({"mask_size": (20_000, 20_000)}, r"\['mask_size'\] are not the model's"),
            ({"sharpness": float("nan")}, "cannot be sent: Out of range"),
            ({"sharpness": labels[0]}, "is a ndarray, expected a number"),
        ):
            with pytest.raises(InputError, match=told):
                there.step(images[0], **options)
        there.step(images[0], sharpness=np.float32(4))
        with pytest.raises(InputError, match=r"id are .* expected a list of whole numbers"):
            there.remove("x")
        (tmp_path / "broken").write_bytes(b"no state")
        with pytest.raises(InputError, match=r"^the state: no session can be read"):
            there.load(tmp_path / "broken")
    with pytest.raises(InputError, match="jpeg_quality is 0, expected a whole number from 1 to 100"):
        Client(server.url, TOKEN, jpeg_quality=0)


def test_limits(server: Running) -> None:
    images, labels = flat_clip((1, 2), 1)
    with Client(server.url, TOKEN) as there:
        with pytest.raises(InputError, match=r"90601|301 x 301"):
            there.step(np.zeros((301, 301, 3), np.uint8), np.ones((301, 301), np.int32))
        with pytest.raises(InputError, match=r"takes 400000: send it as jpeg"):
            there.step(np.zeros((600, 300, 3), np.uint8), np.ones((600, 300), np.int32))
        many = labels[0].copy()
        many[0, :5] = range(11, 16)
        with pytest.raises(InputError, match="7 objects in one session are too many; this server follows 4"):
            there.step(images[0], many)
        others = [Client(server.url, TOKEN) for _ in range(2)]
        with pytest.raises(ServerError, match="all 3 sessions of this server are in use"):
            Client(server.url, TOKEN)
        for other in others:
            other.close()
        there.step(images[0], labels[0])


def test_who_is_let_in(server: Running) -> None:
    with pytest.raises(ServerError, match="token is missing or wrong"):
        Client(server.url, "another-token-of-that-length")
    with pytest.raises(ServerError, match="cannot be reached"):
        Client("http://127.0.0.1:1", TOKEN)
    with pytest.raises(InputError, match="expected an address"):
        Client("127.0.0.1:8123", TOKEN)
    assert httpx.get(f"{server.url}/health").json() == {"status": "ok", "sessions": 0, "most_sessions": 3}
    assert httpx.get(f"{server.url}/v1").status_code == 401
    assert httpx.get(f"{server.url}/v1", headers=HEAD).json()["limits"]["sessions"] == 3
    assert httpx.get(f"{server.url}/health", headers={"host": "rebound.example"}).status_code == 403
    assert httpx.get(f"{server.url}/v1", headers={**HEAD, "origin": "http://page.example"}).status_code == 403
    large = b"x" * 400_001
    assert httpx.post(f"{server.url}/v1/sessions", headers=HEAD, content=large).status_code == 413
    assert httpx.post(f"{server.url}/v1/sessions", headers=HEAD, content=iter([large])).status_code in (201, 413)
    address = f"ws{server.url.removeprefix('http')}/v1/stream"
    for headers in ({}, {**HEAD, "origin": "http://page.example"}):
        with pytest.raises(InvalidStatus):
            connect(address, additional_headers=headers)
    for held in list(server.service.store._held):
        server.service.store.close(held)


def test_sessions_by_plain_http(server: Running, http: httpx.Client) -> None:
    images, labels = flat_clip((1, 2), 3)
    here = session()
    name = http.post("/v1/sessions").raise_for_status().json()["id"]
    path = f"/v1/sessions/{name}"
    files = {"frame": as_png(images[0]), "labels": as_png(labels[0].astype(np.uint8))}
    first = http.post(f"{path}/step", files=files).raise_for_status().json()
    assert np.array_equal(wire.decode_masks(first["masks"], 129, 193), here.step(images[0], labels[0]).labels)
    raw = {"frame": images[1].tobytes()}
    second = http.post(f"{path}/step?masks=png", files=raw, data={"height": 129, "width": 193}).raise_for_status()
    out = here.step(images[1])
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(second.content))), out.labels)
    assert json.loads(second.headers["x-result"])["scores"] == {str(i): out.score(i) for i in out.ids}
    corner = np.zeros((129, 193), bool)
    corner[:9, :9] = True
    said = {"said": json.dumps({"prompts": {"3": {"mask": wire.rle_counts(corner)}}})}
    http.post(f"{path}/step", files={"frame": as_png(images[2])}, data=said).raise_for_status()
    assert http.get(path).json()["ids"] == [1, 2, 3]
    http.delete(f"{path}/objects/3").raise_for_status()
    assert http.get(path).json()["ids"] == [1, 2]
    for fields, files, message in (
        ({"said": '{"colour": 1}'}, {"frame": b"x"}, "colour: Extra inputs are not permitted"),
        ({"said": '{"ids": [1e12]}'}, {"frame": b"x"}, "ids.0"),
        ({}, {"frame": b"no picture"}, "10 bytes does not decode: it is no JPEG, PNG or WebP"),
        ({"width": 193}, {"frame": images[1].tobytes()}, "raw frame was sent without its height and width"),
        ({"said": '{"options": {"ids": [1]}}'}, {"frame": as_png(images[2])}, "['ids'] are not the model's"),
        ({"height": 4, "width": 4}, {"frame": b"x"}, "expected 4 x 4 x 3 = 48"),
        ({}, {"frame": as_png(images[2]), "labels": as_png(images[2])}, "expected an indexed or gray PNG"),
        ({"said": '{"rle": {"1": "04"}}'}, {"frame": as_png(images[2])}, "mask of object"),
        ({"said": '{"rle": {"1": "zzzzzzzzzzz"}}'}, {"frame": as_png(images[2])}, "mask of object"),
    ):
        answer = http.post(f"{path}/step", data=fields, files=files)
        assert (answer.status_code, answer.json()["kind"]) == (400, "InputError")
        assert message in answer.json()["error"]
    http.post(f"{path}/reset").raise_for_status()
    http.delete(path).raise_for_status()
    assert http.get(path).status_code == 404


def test_a_header_that_announces_a_giant_picture_is_not_believed(http: httpx.Client) -> None:
    bomb = as_png(np.zeros((3000, 3000), np.uint8))  # 9 KB
    path = f"/v1/sessions/{http.post('/v1/sessions').json()['id']}"
    answer = http.post(f"{path}/step", files={"frame": bomb})
    assert answer.status_code == 400
    assert "3000 x 3000 pixels was sent; this server takes 90000" in answer.json()["error"]
    http.delete(path)


def test_broken_messages(server: Running) -> None:
    address = f"ws{server.url.removeprefix('http')}/v1/stream"
    with connect(address, additional_headers=HEAD) as raw:
        raw.recv()
        for message in (b"", b"\0\0\0\x09{}", b"\xff\xff\xff\xff{}", wire.pack({}), wire.pack({"do": "step"}), b"\0\0\0\x02[]",
                        wire.pack({"do": "step", "frame": {"format": "raw", "bytes": 5}}, b"12"),
                        wire.pack({"do": "remove", "id": "x"}), b"\0\1\x86\xa0" + b"[" * 100_000):  # fmt: skip
            raw.send(message)
            answer = wire.unpack(raw.recv())[0]
            assert answer["kind"] == "InputError", answer
        raw.send(wire.pack({"do": "reset"}))
        assert wire.unpack(raw.recv())[0] == {"ids": []}
        raw.send("a text")
        with pytest.raises(ConnectionClosed, match=r"1003.*bytes here, not text"):
            raw.recv()


def test_the_description_matches_the_routes(server: Running) -> None:
    described = httpx.get(f"{server.url}/openapi.json").json()
    assert described["info"]["title"] == "vosformer"
    routes = {(method, path) for path, methods in described["paths"].items() for method in methods}
    assert routes == {
        ("get", "/health"),
        ("get", "/v1"),
        ("post", "/v1/sessions"),
        ("get", "/v1/sessions/{session}"),
        ("delete", "/v1/sessions/{session}"),
        ("post", "/v1/sessions/{session}/step"),
        ("delete", "/v1/sessions/{session}/objects/{object_id}"),
        ("post", "/v1/sessions/{session}/reset"),
        ("get", "/v1/sessions/{session}/state"),
        ("put", "/v1/sessions/{session}/state"),
    }


class _Failing(ColorModel):
    def read(self, features, memory, sharpness: float = 50.0):
        raise RuntimeError("out of memory, for example")


def test_an_unforeseen_failure_ends_the_session_and_not_the_server() -> None:
    images, labels = flat_clip((1,), 2)
    with running(Session(_Failing(), device="cpu", dtype="fp32", size=None), LIMITS) as server:
        with Client(server.url, TOKEN) as there:
            there.step(images[0], labels[0])
            with pytest.raises(ServerError, match=r"failed \(RuntimeError\), and the session is closed"):
                there.step(images[1])
            with pytest.raises(ServerError, match="no such session"):
                there.step(images[1])
        assert httpx.get(f"{server.url}/health").json()["sessions"] == 0


def test_idle_sessions_are_closed() -> None:
    images, labels = flat_clip((1,), 2)
    with running(session(), Limits(idle_seconds=0.4)) as server:
        name = httpx.post(f"{server.url}/v1/sessions", headers=HEAD).json()["id"]
        there = Client(server.url, TOKEN)
        there.step(images[0], labels[0])
        slow = socket.create_connection(("127.0.0.1", int(server.url.rsplit(":", 1)[1])))
        slow.sendall(b"POST /v1/sessions/x/step HTTP/1.1\r\nhost: %s\r\nauthorization: Bearer %s\r\ncontent-length: 99\r\n\r\nx"
                     % (server.url.removeprefix("http://").encode(), TOKEN.encode()))  # fmt: skip
        time.sleep(1.2)
        assert httpx.get(f"{server.url}/v1/sessions/{name}", headers=HEAD).status_code == 404
        with pytest.raises(ServerError, match=r"idle for 0\.4 s"):
            there.step(images[1])
        assert httpx.get(f"{server.url}/health").json()["sessions"] == 0
        slow.settimeout(5)
        assert slow.recv(100).startswith(b"HTTP/1.1 4")  # given up, whichever of the two reasons came first


def test_the_command_serves_until_it_is_stopped(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    command = [
        sys.executable,
        "-m",
        "vosformer",
        "serve",
        "--port",
        "0",
        "--token-file",
        str(tmp_path / "token"),
        "--threads",
        "1",
    ]
    process = subprocess.Popen([*command, "--size", "64", "--dtype", "fp32"], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        address = process.stderr.readline().split()[0]
        images, labels = flat_clip((1, 2), 2)
        here = Session("default", size=64, dtype="fp32")
        with Client(address, TOKEN) as there:
            for n, image in enumerate(images):
                given = labels[0] if n == 0 else None
                assert np.array_equal(here.step(image, given).labels, there.step(image, given).labels)
    finally:
        process.terminate()
        assert process.wait(30) in (0, -15)


def test_what_the_command_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from vosformer.cli import main

    (tmp_path / "token").write_text("short\n")
    assert main(["serve", "--token-file", str(tmp_path / "token")]) == 2
    assert main(["serve", "--token-file", str(tmp_path / "none")]) == 2
    assert main(["serve", "--max-objects", "0"]) == 2
    assert main(["serve", "--max-megapixels", "nan"]) == 2
    assert main(["serve", "--idle", "inf"]) == 2
    told = capsys.readouterr().err
    assert "the token has 5 characters" in told
    assert "the token cannot be read" in told
    assert "--max-objects is 0" in told
    assert "--max-megapixels is nan, expected a number above 0" in told
    assert "--idle is inf" in told
