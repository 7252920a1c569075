"""What strangers send to a real server, byte by byte: nothing leaves it, nothing changes, and it goes on serving its owner."""

from __future__ import annotations

import json
import random
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import uvicorn
from annotation import clip, open_workspace

from vosformer.annotate.server import _GESTURE_BYTES, create_app
from vosformer.annotate.workspace import Workspace

TOKEN = "secret-token"


class Running(NamedTuple):
    """A server on a port of this machine."""

    workspace: Workspace
    port: int

    def send(self, data: bytes, wait: float = 3.0) -> bytes:
        """Send bytes as they are; return what comes back until the server closes, or says no more for a while."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=wait) as connection:
            answer = b""
            try:
                connection.sendall(data)
                while piece := connection.recv(65536):
                    answer += piece
                    if _whole(answer):
                        break
            except (TimeoutError, ConnectionError):
                pass
            return answer

    def get(self, path: str, headers: str = "", method: str = "GET", body: bytes = b"") -> bytes:
        """One request with the right host."""
        head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
        return self.send(head.encode() + body)


def _whole(answer: bytes) -> bool:
    """Whether an answer with a length has come to its end."""
    head, gap, body = answer.partition(b"\r\n\r\n")
    for line in head.lower().split(b"\r\n"):
        if gap and line.startswith(b"content-length:"):
            return len(body) >= int(line.split(b":")[1])
    return False


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Running]:
    workspace = open_workspace(tmp_path / "p", clip()[0])
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    _, app, _ = create_app(workspace, {f"127.0.0.1:{port}"}, TOKEN)
    config = uvicorn.Config(app, log_level="error", ws="websockets-sansio", timeout_graceful_shutdown=1)
    running = uvicorn.Server(config)
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    end = time.monotonic() + 30
    while not running.started and time.monotonic() < end:
        time.sleep(0.02)
    yield Running(workspace, port)
    running.should_exit = True
    thread.join(20)


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/") else 0


PATHS = [
    "/",
    "/state",
    "/api/state",
    f"/{TOKEN}/../../../../etc/passwd",
    f"/{TOKEN}/..%2f..%2f..%2fetc/passwd",
    f"/{TOKEN}/%2e%2e/%2e%2e/project.json",
    f"/{TOKEN}//etc/passwd",
    f"/{TOKEN}/js/../../server.py",
    f"/{TOKEN}/js/..%5c..%5cserver.py",
    f"/{TOKEN}/api/frames/0.jpg/../../../project.json",
    f"/{TOKEN}/api/masks/..%2fproject.json.png",
    f"/{TOKEN}/api/frames/99999999999999999999.jpg",
    f"/{TOKEN}/api/masks/-1.png",
    f"/{TOKEN}x/api/state",
    f"/{TOKEN[:-1]}/api/state",
    f"/{TOKEN.upper()}/api/state",
]


@pytest.mark.parametrize("path", PATHS)
def test_no_path_and_no_token_but_the_right_one(server: Running, path: str) -> None:
    answer = server.get(path)
    assert status(answer) in (307, 400, 403, 404, 405, 422), answer[:200]
    for secret in (b"root:", b"vosformer_project", b"create_app", b'"objects"'):
        assert secret not in answer


def test_it_survives_what_is_no_request(server: Running) -> None:
    """Garbage, half requests, lengths that lie, bodies without end: each is refused, and the owner is served as before."""
    host = f"Host: 127.0.0.1:{server.port}\r\n".encode()
    dice = random.Random(0)
    post = f"POST /{TOKEN}/api/stroke HTTP/1.1\r\n".encode() + host
    chunk = b"%x\r\n" % (1 << 20) + b"x" * (1 << 20) + b"\r\n"
    attacks = [
        dice.randbytes(2000),
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + host + host.replace(b"127.0.0.1", b"evil.example") + b"\r\n",
        b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\n" + host + b"\r\n",
        b"GET / HTTP/1.1\r\n" + host + b"X: " + b"a" * 200_000 + b"\r\n\r\n",
        post + b"Content-Length: -5\r\n\r\n",
        post + b"Content-Length: 999999999999\r\n\r\n{}",
        post + b"Content-Length: 2\r\nContent-Length: 20\r\n\r\n{}",
        post + b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk * (_GESTURE_BYTES // (1 << 20) + 2),
        post + b"Content-Type: application/json\r\nContent-Length: 7\r\n\r\n" + b"[" * 7,
        post + b"Content-Type: application/json\r\nContent-Length: 200000\r\n\r\n" + b"[" * 200_000,
        f"GET /{TOKEN}/api/events HTTP/1.1\r\n".encode() + host + b"Upgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nOrigin: http://evil.example\r\n\r\n",
    ]  # fmt: skip
    before = server.workspace.project.version
    for attack in attacks:
        answer = server.send(attack, wait=1.0)
        assert status(answer) not in range(101, 300), (attack[:80], answer[:200])
    assert server.workspace.project.version == before
    assert status(server.get(f"/{TOKEN}/api/state")) == 200
    assert not list((server.workspace.project.folder / ".history").rglob("upload*"))


def test_many_half_open_connections_do_not_keep_the_owner_out(server: Running) -> None:
    waiting = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(100)]
    try:
        for connection in waiting:
            connection.sendall(b"POST / HTTP/1.1\r\nHost: ")
        answer = server.get(f"/{TOKEN}/api/state")
        assert status(answer) == 200
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["video"]["frames"] == 8
    finally:
        for connection in waiting:
            connection.close()
