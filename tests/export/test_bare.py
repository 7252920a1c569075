"""The packaged model in an environment that has NumPy and onnxruntime, and neither PyTorch nor vosformer."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from export_clip import clip

from vosformer.cli import main
from vosformer.inference.session import Session

FRAMES, SIZE = 100, 240

PROGRAM = """
import importlib.util, sys
from pathlib import Path
import numpy as np

assert importlib.util.find_spec("torch") is None and importlib.util.find_spec("vosformer") is None
sys.path.insert(0, "out")
from runner import Session

session, found = Session("out", size=240, threads=1), []
with np.load("clip.npz") as file:
    for t, frame in enumerate(file["frames"]):
        for i in file["gone"][file["gone"][:, 0] == t, 1].tolist():
            session.remove(i)
        labels = file[f"labels{t}"] if f"labels{t}" in file else None
        found.append(session.step(frame, labels, ids=file[f"ids{t}"].tolist() if labels is not None else None).labels)
np.savez_compressed("found.npz", labels=np.stack(found).astype(np.int16))
"""


@pytest.mark.slow
@pytest.mark.parametrize("size", ["241x321", "dynamic"])
def test_labels_are_those_of_a_session(size: str, tmp_path: Path) -> None:
    python = Path(os.environ.get("VOSFORMER_BARE_PYTHON", tmp_path / "bare" / "bin" / "python"))
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", tmp_path / "bare"], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", "numpy", "onnxruntime"], check=True)
    assert main(["export", "default", "-o", str(tmp_path / "out"), "--size", size]) == 0
    steps = list(clip(FRAMES, 300, 400))
    given = {f"labels{t}": step.labels for t, step in enumerate(steps) if step.labels is not None}
    ids = {
        f"ids{t}": step.ids or [i for i in np.unique(step.labels) if i]
        for t, step in enumerate(steps)
        if step.labels is not None
    }
    gone = np.array([(t, i) for t, step in enumerate(steps) for i in step.gone])
    np.savez(tmp_path / "clip.npz", frames=np.stack([step.frame for step in steps]), gone=gone, **given, **ids)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run([python, "-c", PROGRAM], cwd=tmp_path, env=environment, check=True)

    session = Session("default", device="cpu", dtype="fp32", size=SIZE, closer="off", islands="keep")
    found = np.load(tmp_path / "found.npz")["labels"]
    same = 0
    for t, step in enumerate(steps):
        for i in step.gone:
            session.remove(i)
        labels = session.step(step.frame, step.labels, ids=step.ids).labels
        same += int((labels == found[t]).sum())
    share = same / found.size
    print(f"{share:.6f} of the pixels have the same label; ids at the end: {np.unique(found[-1]).tolist()}")
    assert share > 0.9999
