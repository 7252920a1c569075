"""CVAT's own agent, `cvat-cli function run-agent`, with our functions; only the server is a stand-in, a hundred lines of HTTP.

The agent's process, its worker process, its drivers, cvat-sdk's client and its task data sets are CVAT's code as it is installed.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from dummy_models import flat_clip
from PIL import Image

pytest.importorskip("cvat_cli", reason="cvat-cli is not installed")
from cvat_sdk.masks import decode_mask, encode_mask
from cvat_sdk.version import VERSION

from vosformer import Session
from vosformer.formats.polygons import fill_edges
from vosformer.prompts import mark

pytestmark = pytest.mark.slow  # two processes that import PyTorch
TASK, FUNCTION, SIZE = 5, 3, 64


class StandIn(ThreadingHTTPServer):
    """What the agent asks of a CVAT server: its version, a task's frames, a function, and a queue of annotation requests."""

    def __init__(self, images: list[np.ndarray], requests: list[dict], function: dict | None = None) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.images, self.waiting, self.function = images, requests, function
        self.states: list[str] = []
        self.results: list[dict] = []
        self.errors: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def task(self) -> dict:
        frames = {"data_chunk_size": 72, "data_original_chunk_type": "imageset", "data_compressed_chunk_type": "imageset"}
        jobs = {"count": 0, "completed": 0, "validation": 0, "url": f"{self.url}/api/jobs"}
        about = {
            "id": TASK,
            "name": "clip",
            "size": len(self.images),
            "mode": "interpolation",
            "updated_date": "2026-11-25T00:00:00Z",
            "organization": None,
        }
        return {**about, **frames, "jobs": jobs, "labels": {"url": f"{self.url}/api/labels"}}

    def answer(self, path: str, query: dict, body: dict | None) -> dict | bytes:
        if path == "/api/server/about":
            return {"name": "stand-in", "description": "", "version": VERSION, "logo_url": "", "subtitle": ""}
        if path == "/api/functions":
            self.function = {"id": FUNCTION, **(body or {})}
            return self.function
        if path == f"/api/functions/{FUNCTION}":
            return {"min_neg_points": -1, "startswith_box": False, "startswith_box_optional": False, **(self.function or {})}
        if path == "/api/labels":
            return {"count": 0, "next": None, "previous": None, "results": []}
        if path == f"/api/tasks/{TASK}":
            return self.task()
        if path == f"/api/tasks/{TASK}/data/meta":
            size = {"height": self.images[0].shape[0], "width": self.images[0].shape[1]}
            frames = [{"name": f"{n}.png", "related_files": 0, **size} for n in range(len(self.images))]
            return {"frames": frames, "deleted_frames": [], "chunks_updated_date": "2026-11-25T00:00:00Z", "size": len(frames)}
        if path == f"/api/tasks/{TASK}/data/":
            assert query["type"] == ["frame"]
            written = io.BytesIO()
            Image.fromarray(self.images[int(query["number"][0])]).save(written, "png")
            return written.getvalue()
        return self.queue(path, body or {})

    def queue(self, path: str, body: dict) -> dict:
        _, _, end = path.partition(f"/api/functions/queues/function:{FUNCTION}/requests/")
        assert end, f"the agent asked for {path}"
        if end == "acquire":
            if body["request_category"] != "interactive" or not self.waiting:
                return {"ar_assignment": None}
            wanted = self.waiting.pop(0)
            given = {"states": self.states} if wanted["type"] == "track" else {}
            return {"ar_assignment": {"ar_id": "r", "ar_params": {"task": TASK, **wanted, **given}}}
        if end == "r/complete":
            self.states = body.get("states", self.states)
            self.results.append(body)
        if end == "r/fail":
            self.errors.append(body["exc_info"])
        return {}


class Answers(BaseHTTPRequestHandler):
    server: StandIn

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        length = int(self.headers.get("content-length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        made = self.server.answer(parts.path.replace("%3A", ":"), parse_qs(parts.query), body)
        data = made if isinstance(made, bytes) else json.dumps(made).encode()
        self.send_response(201 if parts.path == "/api/functions" else 200)
        self.send_header("content-type", "image/png" if isinstance(made, bytes) else "application/vnd.cvat+json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def serve() -> Iterator:
    servers: list[StandIn] = []

    def start(*given) -> StandIn:
        servers.append(StandIn(*given))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return servers[-1]

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def cvat_cli(server: StandIn, *words: str) -> str:
    command = [sys.executable, "-m", "cvat_cli", "--server-host", server.url, "function", *words]
    done = subprocess.run(command, env={**os.environ, "CVAT_ACCESS_TOKEN": "t"}, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr[-3000:]
    assert server.errors == [], done.stderr[-3000:]
    return done.stdout.strip()


def test_the_agent_tracks_masks_and_polygons_as_a_session_does(serve) -> None:
    images, labels = flat_clip((1, 2), 4)
    polygon = [20.0, 20.0, 60.0, 20.0, 60.0, 60.0, 20.0, 60.0]
    drawn = [
        {"type": "mask", "points": encode_mask(labels[0] == 1)},
        {"type": "polygon", "points": polygon},
    ]
    wanted = [{"type": "init_tracking", "frame": 0, "shapes": drawn}, *({"type": "track", "frame": n} for n in (1, 2, 3))]
    server = serve(images, wanted)
    module = ["--function-module", "vosformer.plugins.cvat", "-p", "model=str:default-fast", "-p", f"size=int:{SIZE}"]
    module += ["-p", "device=str:cpu", "-p", "presence=float:0"]
    assert cvat_cli(server, "create-native", "vosformer", *module) == str(FUNCTION)
    assert server.function["kind"] == "tracker"
    assert server.function["supported_shape_types"] == ["mask", "polygon", "rectangle"]
    cvat_cli(server, "run-agent", str(FUNCTION), "--burst", *module)
    assert len(server.states) == 2
    here, size = Session("default-fast", device="cpu", size=SIZE), labels[0].shape
    first = np.where(labels[0] == 1, 1, 0)
    first[fill_edges([polygon], *size).pixels()] = 2
    here.step(images[0], first)
    for image, result in zip(images[1:], server.results[1:], strict=True):
        out = here.step(image).labels
        mask, ring = result["shapes"]
        assert (out == 1).any()
        assert np.array_equal(decode_mask(mask["points"], image_width=size[1], image_height=size[0]), out == 1)
        assert ring is None or (ring["type"], len(ring["points"]) % 2) == ("polygon", 0)


def test_the_agent_marks_by_clicks_and_boxes(serve) -> None:
    images, labels = flat_clip((1,), 1)
    rows, columns = np.nonzero(labels[0])
    click = [float(columns.mean()), float(rows.mean())]
    box = [[columns.min() - 2.0, rows.min() - 2.0], [columns.max() + 3.0, rows.max() + 3.0]]
    kinds = [([click], [], []), ([click], [[2.0, 2.0]], []), ([], [], box), ([], [[2.0, 2.0]], [])]
    wanted = [
        {"type": "interact", "frame": 0, "pos_points": pos, "neg_points": neg, "obj_bbox": corners}
        for pos, neg, corners in kinds
    ]
    server = serve(images, wanted)
    module = ["--function-module", "vosformer.plugins.cvat_interactor"]
    cvat_cli(server, "create-native", "vosformer clicks", *module)
    assert server.function["kind"] == "interactor"
    cvat_cli(server, "run-agent", str(FUNCTION), "--burst", *module)
    for result, (pos, neg, corners) in zip(server.results[:3], kinds, strict=False):
        found = mark(images[0], [*pos, *neg], [1] * len(pos) + [0] * len(neg), box=np.ravel(corners) if corners else None)
        (shape,) = result["shapes"]
        assert np.array_equal(decode_mask(shape["points"], image_width=193, image_height=129), found)
    assert server.results[3]["shapes"] == []
