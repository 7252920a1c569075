"""The wheel builds, installs into an environment outside the source tree, and works there."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_the_wheel_installs_elsewhere_and_its_demo_runs(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def run(*command: object) -> str:
        words = [str(word) for word in command]
        done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", tmp_path / "dist", ROOT)
    (wheel,) = (tmp_path / "dist").glob("vosformer-*.whl")
    run(sys.executable, "-m", "venv", tmp_path / "venv")
    python = tmp_path / "venv" / "bin" / "python"
    # Dependencies are those of the tests' own environment (no network); a path in a .pth file brings no editable install with it.
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])").strip())
    (site / "dependencies.pth").write_text(f"{sysconfig.get_paths()['purelib']}\n")
    run(python, "-m", "pip", "install", "-q", "--no-deps", "--no-index", wheel)
    where = run(python, "-c", "import vosformer; print(vosformer.__file__)")
    assert str(tmp_path) in where
    shown = run(tmp_path / "venv" / "bin" / "vosformer", "demo", "--out", tmp_path / "demo", "--frames", 6, "--size", 160)
    assert "J&F" in shown
    assert len(list((tmp_path / "demo" / "result" / "masks").glob("*.png"))) == 6
