"""Models as folders: saved, moved, loaded again, and fetched from a hub only when that is asked for."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from dummy_models import ColorModel, flat_clip
from safetensors.torch import load_file, save_file

import vosformer
from vosformer import VideoPredictor
from vosformer.errors import InputError, WeightsError
from vosformer.protocol import Presence
from vosformer.testing import tiny_model

SETTINGS = {"device": "cpu", "dtype": "fp32", "size": 64}


def masks(predictor: VideoPredictor) -> list[np.ndarray]:
    images, labels = flat_clip((1, 2), 3)
    state = predictor.init_state(np.stack(images))
    for i in (1, 2):
        predictor.add_new_mask(state, 0, i, labels[0] == i)
    return [logits.numpy() for _, _, logits in predictor.propagate_in_video(state)]


@pytest.mark.parametrize("name", ["aost", "simvos-tiny"])
def test_a_folder_round_trip_keeps_everything(name: str, tmp_path: Path) -> None:
    model = tiny_model(name)
    model.looks_closer, model.drops_islands, model.presence = True, True, Presence(2.0, -0.5)
    vosformer.save_pretrained(model, tmp_path / "m o d e l")
    again = vosformer.from_pretrained(tmp_path / "m o d e l")
    assert (again.variant, again.built_with, again.looks_closer, again.drops_islands, again.presence) == (
        name,
        model.built_with,
        True,
        True,
        Presence(2, -0.5),
    )
    assert not again.training
    for key, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[key], tensor), key
    config = json.loads((tmp_path / "m o d e l" / "config.json").read_text())
    assert (config["variant"], config["library_name"], config["overrides"]) == (name, "vosformer", {"tiny": True})
    one, other = (
        VideoPredictor.from_pretrained(tmp_path / "m o d e l", **SETTINGS),
        VideoPredictor(vosformer.Session(model, **SETTINGS)),
    )
    for here, there in zip(masks(one), masks(other), strict=True):
        assert np.array_equal(here, there)


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_a_predictor_is_saved_as_it_runs(dtype: str, tmp_path: Path) -> None:
    settings = {**SETTINGS, "dtype": dtype}
    one = VideoPredictor(vosformer.Session(tiny_model("aot-t"), **settings))
    one.save_pretrained(tmp_path)
    other = VideoPredictor.from_pretrained(tmp_path, **settings)
    for here, there in zip(masks(one), masks(other), strict=True):
        assert np.array_equal(here, there)


def test_a_card_of_the_users_stays(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine")
    vosformer.save_pretrained(tiny_model("aot-t"), tmp_path)
    assert (tmp_path / "README.md").read_text() == "mine"


def test_packaged_names_files_and_variants() -> None:
    assert vosformer.from_pretrained("default").looks_closer
    from vosformer.weights import packaged

    assert vosformer.from_pretrained(packaged()["default-fast"]).variant == vosformer.from_pretrained("default-fast").variant
    assert vosformer.from_pretrained("aot-t", tiny=True).variant == "aot-t"
    with pytest.raises(InputError, match="no variant 'aot-tt'"):
        vosformer.from_pretrained("aot-tt")


def test_what_cannot_be_loaded_is_told(tmp_path: Path) -> None:
    for name in ("facebook/sam2-hiera-large", "runs/mine"):
        with pytest.raises(InputError, match=r"no such folder; to look this name up .* give hub=True"):
            VideoPredictor.from_pretrained(name)
    with pytest.raises(InputError, match="no name on the Hugging Face Hub, expected OWNER/NAME"):
        vosformer.from_pretrained("default", hub=True)
    with pytest.raises(WeightsError, match=r"holds 0 weights files, expected model\.safetensors"):
        vosformer.from_pretrained(tmp_path)
    with pytest.raises(InputError, match="not built by a variant's name"):
        vosformer.save_pretrained(ColorModel(), tmp_path)
    vosformer.save_pretrained(tiny_model("aot-t"), tmp_path)
    (tmp_path / "config.json").write_text('{"library_name": "transformers"}')
    with pytest.raises(WeightsError, match="describes no model of vosformer"):
        vosformer.from_pretrained(tmp_path)
    for config, told in (
        ("[" * 100_000, "cannot be read"),
        ('{"overrides": [1]}', r"config.json: 'overrides' is no JSON object: \[1\]"),
        ('{"overrides": {"gap_": 1}}', "there is no option 'gap_'"),
        ('{"presence": [0, 1]}', r"config.json: 'presence' is \[0, 1\], expected \[scale above 0, bias\]"),
    ):
        (tmp_path / "config.json").write_text(config)
        with pytest.raises((WeightsError, InputError), match=told):
            vosformer.from_pretrained(tmp_path)
    with pytest.raises(InputError, match="this Linear was not built by a variant's name"):
        vosformer.save_pretrained(torch.nn.Linear(2, 2), tmp_path)


def test_the_folder_knows_the_model_when_the_weights_have_lost_their_metadata(tmp_path: Path) -> None:
    model = vosformer.build("deaot-t", tiny=True, gap=7)
    model.presence = Presence(2.0, -0.5)
    vosformer.save_pretrained(model, tmp_path)
    save_file(load_file(tmp_path / "model.safetensors"), tmp_path / "model.safetensors")
    again = vosformer.from_pretrained(tmp_path)
    assert (again.built_with, again.presence) == (model.built_with, model.presence)
    assert repr(again.policy) == repr(model.policy)


class _Hub(BaseHTTPRequestHandler):
    """What the hub's client asks for: what a repository holds, and its files."""

    commit = "a" * 40

    def __init__(self, folder: Path, *rest) -> None:
        self.folder = folder
        super().__init__(*rest)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path.startswith("/api/models/me/tracker"):
            files = [{"rfilename": file.name} for file in sorted(self.folder.iterdir())]
            self.reply(json.dumps({"id": "me/tracker", "sha": self.commit, "siblings": files}).encode(), "application/json")
        elif path.startswith("/me/tracker/resolve/"):
            self.reply((self.folder / path.rsplit("/", 1)[1]).read_bytes(), "application/octet-stream")
        else:
            self.send_error(404)

    def reply(self, data: bytes, kind: str) -> None:
        self.send_response(200)
        for name, value in (("content-type", kind), ("content-length", str(len(data))), ("x-repo-commit", self.commit),
                            ("etag", f'"{hashlib.sha1(data).hexdigest()}"')):  # fmt: skip
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


def test_the_hub_is_asked_only_with_hub(tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub")
    vosformer.save_pretrained(tiny_model("aot-t"), tmp_path / "model")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Hub, tmp_path / "model"))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    code = """
import sys, vosformer
from vosformer.errors import WeightsError
model = vosformer.from_pretrained("me/tracker", hub=True)
print(model.variant, sum(float(p.double().sum()) for p in model.parameters()))
try:
    vosformer.from_pretrained("me/other", hub=True)
except WeightsError as error:
    print("refused", "me/other cannot be had from the Hugging Face Hub" in str(error))
"""
    settings = {
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
        "HF_HOME": str(tmp_path / "cache"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, **settings}, capture_output=True, text=True)
    server.shutdown()
    assert done.returncode == 0, done.stderr[-3000:]
    variant, total, *refused = done.stdout.split()
    assert (variant, refused) == ("aot-t", ["refused", "True"])
    assert float(total) == sum(float(p.double().sum()) for p in vosformer.from_pretrained(tmp_path / "model").parameters())
