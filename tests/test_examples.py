"""The examples run as a reader would run them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from dummy_models import flat_clip
from PIL import Image

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_follow_prints_a_line_for_each_frame(tmp_path: Path) -> None:
    images, labels = flat_clip((1,), 4)
    for n, image in enumerate(images):
        (tmp_path / "clip").mkdir(exist_ok=True)
        Image.fromarray(image).save(tmp_path / "clip" / f"{n:05d}.png")
    Image.fromarray(labels[0].astype(np.uint8)).save(tmp_path / "first.png")
    command = [sys.executable, str(EXAMPLES / "follow.py"), str(tmp_path / "clip"), "--size", "128"]
    done = subprocess.run([*command, "--mask", str(tmp_path / "first.png")], capture_output=True, text=True, check=True)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["frame"] for line in lines] == [0, 1, 2, 3]
    rows, columns = np.nonzero(labels[0])
    assert lines[0]["box"] == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert lines[0]["area"] == labels[0].sum()
    wrong = subprocess.run(command, capture_output=True, text=True, check=False)
    assert wrong.returncode == 2
    assert "--mask or --box" in wrong.stderr
