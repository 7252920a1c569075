"""The tracker for VOT's toolkit: driven by the protocol's own client, and by the toolkit itself where there is one.

The toolkit wants other versions of OpenCV than the rest, so it lives in an environment of its own: `make test-vot` builds one and
names its `vot` in VOSFORMER_VOT.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from vosformer_on_path import environment

from vosformer.cli import main
from vosformer.cli.session_options import SessionOptions
from vosformer.errors import InputError
from vosformer.evaluation import evaluate_vot
from vosformer.evaluation.trax_tracker import trackers_entry
from vosformer.evaluation.vot_files import encode_region, read_vot, run_file

SIZE = (48, 64)
MODEL = ["--model", "default-fast", "--size", "48", "--threads", "1"]
LENGTHS = (3, 9)


def mask_at(t):
    mask = np.zeros(SIZE, bool)
    mask[10:34, 8 + 2 * t : 30 + 2 * t] = True
    return mask


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    root = tmp_path_factory.mktemp("vot")
    folder = root / "sequences" / "v"
    (folder / "color").mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 60, (*SIZE, 3))
    for t in range(10):
        image = np.where(mask_at(t)[..., None], (200, 80, 40), noise).astype(np.uint8)
        Image.fromarray(image).save(folder / "color" / f"{t + 1:08d}.jpg", quality=95)
    (folder / "groundtruth.txt").write_text("\n".join(encode_region(mask_at(t)) for t in range(10)) + "\n")
    (folder / "sequence").write_text(
        f"name=v\nfps=30\nformat=default\nlength=10\nwidth={SIZE[1]}\nheight={SIZE[0]}\nchannels.color=color/%08d.jpg\n"
    )
    (folder / "anchor.value").write_text("".join(f"{value}\n" for value in [1, *[0] * 8, -1]))
    (root / "sequences" / "list.txt").write_text("v\n")
    return root


def own_masks(workspace, anchor):
    """What the model answers without the protocol."""
    (video,) = read_vot(workspace)
    session = SessionOptions(model="default-fast", size=48, dtype="fp32", memory="paper", threads=1).session()
    images = video.images()
    out = []
    for t in video.order(anchor):
        given = None if out else mask_at(t).astype(np.int32)
        out.append(session.step(np.array(Image.open(images[t])), given).labels == 1)
    return out


def test_the_protocols_client_gets_the_models_masks(workspace):
    """Two runs over one process, the second with an offset mask; the answers are those of a session."""
    trax = pytest.importorskip("trax")
    from trax.client import Client

    command = [sys.executable, "-m", "vosformer", "trax", *MODEL]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment(), bufsize=0) as process:
        client = Client(stream=(process.stdin.fileno(), process.stdout.fileno()), timeout=120, log=lambda _: None)
        (video,) = read_vot(workspace)
        images = video.images()
        for anchor in (0, 9):
            expected = own_masks(workspace, anchor)
            answers = []
            for t in video.order(anchor):
                image = {"color": trax.FileImage.create(str(images[t]))}
                if answers:
                    objects, _ = client.frame(image, {}, [])
                else:
                    part = mask_at(t)[10:34, 8 + 2 * t : 30 + 2 * t].astype(np.uint8)
                    objects, _ = client.initialize(image, [(trax.Mask.create(part, x=8 + 2 * t, y=10), {})], {})
                ((region, _),) = objects
                answers.append(region.array(True) > 0)
            for found, mask in zip(answers, expected, strict=True):
                assert np.array_equal(found, mask)
        client.quit()
        assert process.wait(60) == 0


def test_the_entry(tmp_path, capsys, monkeypatch):
    path = tmp_path / "trackers.ini"
    words = ["trax", *MODEL, "--entry", str(path), "--name", "ours"]
    monkeypatch.setattr(sys, "argv", ["vosformer", *words])
    assert main(words) == 0
    text = path.read_text()
    assert text.startswith("[ours]\n")
    assert "protocol = trax" in text
    (command,) = (line for line in text.splitlines() if line.startswith("command"))
    assert command == f"command = {sys.executable} -m vosformer trax {' '.join(MODEL)}"
    assert main(words) == 2
    assert "has a tracker ours already" in capsys.readouterr().err
    with pytest.raises(InputError, match="expected letters"):
        trackers_entry("two words", "x")


@pytest.mark.skipif("VOSFORMER_VOT" not in os.environ, reason="the toolkit is not there: make test-vot")
def test_the_toolkit_drives_the_tracker_and_scores_it_as_we_do(workspace, monkeypatch):
    vot = os.environ["VOSFORMER_VOT"]
    analyses = "".join(
        f"      - type: {kind}\n        name: {name}\n{more}"
        for kind, name, more in (
            ("multistart_eao_score", "eao", f"        low: {LENGTHS[0]}\n        high: {LENGTHS[1]}\n"),
            ("multistart_average_ar", "ar", ""),
        )
    )
    experiments = "".join(
        f"  {name}:\n    type: multistart\n{more}    analyses:\n{analyses}"
        for name, more in (("baseline", ""), ("realtime", "    realtime:\n      grace: 3\n"))
    )
    (workspace / "stack.yaml").write_text(f"title: test\nexperiments:\n{experiments}")
    (workspace / "config.yaml").write_text("registry:\n- ./trackers.ini\nstack: ./stack.yaml\nsequences: sequences\n")
    words = ["trax", *MODEL, "--entry", str(workspace / "trackers.ini")]
    monkeypatch.setattr(sys, "argv", ["vosformer", *words])
    assert main(words) == 0

    def run(*arguments):
        done = subprocess.run(
            [vot, *arguments, "--workspace", str(workspace)] if arguments[0] != "analysis" else
            [vot, "analysis", "--workspace", str(workspace), "--format", "json", *arguments[1:]],
            env=environment(), capture_output=True, text=True, timeout=600,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    log = run("evaluate", "vosformer")
    results = workspace / "results" / "vosformer"
    assert {path.name for path in results.iterdir()} >= {"baseline", "realtime"}, log
    # Our own run gives the same masks, and the toolkit takes our files for its own.
    assert main(["benchmark", "vot-st", str(workspace), "-o", str(workspace / "own"), *MODEL]) == 0
    ours = evaluate_vot(workspace / "own" / "vosformer" / "baseline", workspace, *LENGTHS)
    theirs = evaluate_vot(results / "baseline", workspace, *LENGTHS)
    assert (ours.eao, ours.accuracy, ours.robustness) == (theirs.eao, theirs.accuracy, theirs.robustness)
    assert 0 < evaluate_vot(results / "realtime", workspace, *LENGTHS).eao <= 1
    for path in results.rglob("*.bin"):
        path.unlink()
    for anchor in (0, 9):
        name = f"v/{run_file('v', anchor)}"
        own = workspace / "own" / "vosformer" / "baseline" / name
        (results / "baseline" / name).write_bytes(own.read_bytes())
        (results / "realtime" / name).write_bytes(own.read_bytes())
    run("analysis", "vosformer")
    (report,) = sorted((workspace / "analysis").rglob("*.json"))[-1:]
    scores = json.loads(Path(report).read_text())
    assert f"{ours.eao:.6f}" in {f"{value:.6f}" for value in _numbers(scores)}


def _numbers(values):
    if isinstance(values, dict):
        values = values.values()
    if isinstance(values, (int, float)):
        yield float(values)
    elif not isinstance(values, str) and values is not None:
        for one in values:
            yield from _numbers(one)
