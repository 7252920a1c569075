"""The annotator as a person has it: the command in a process of its own, and its page in Chromium."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from vosformer.data.synthetic.assets import Assets
from vosformer.data.synthetic.render import EVALUATION, composed_clip
from vosformer.io import OverlayVideo
from vosformer.io.frames import Frame, frame_name

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_QUIET = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync",
          "--no-first-run", "--no-proxy-server", "--disable-dev-shm-usage", "--font-render-hinting=none"]  # fmt: skip


def composed(folder: Path, size: tuple[int, int], frames: int, seed: int = 2) -> tuple[Path, list[np.ndarray]]:
    """A composed clip as mp4, and its exact masks."""
    config = replace(EVALUATION, size=size)
    truth = []
    with OverlayVideo(folder / "clip.mp4", Fraction(24), opacity=0) as video:
        for n, (image, labels) in enumerate(composed_clip(Assets(), frames, seed, 0, config)):
            truth.append(labels.astype(np.int32))
            video.write(
                Frame(n, frame_name(n), image, n / 24), np.zeros_like(truth[-1]), {}, lambda i: np.zeros(size, np.float32)
            )
    return folder / "clip.mp4", truth


class Server:
    """`vosformer annotate` in a process of its own."""

    def __init__(self, *arguments: str | Path, size: int | None = 192) -> None:
        own = [] if size is None else ["--threads", "1", "--size", str(size)]
        words = [*map(str, arguments), "--no-browser", *own]
        code = "import sys; from vosformer.cli import main; sys.exit(main(sys.argv[1:]))"
        environment = {**os.environ, "COLUMNS": "300", "OMP_NUM_THREADS": "1"}
        if size is None:
            del environment["OMP_NUM_THREADS"]  # as a user has it; the others share the cores with the rest of the tests
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, "annotate", *words], stderr=subprocess.PIPE, text=True, env=environment
        )
        self.said: list[str] = []
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said.append(line)
            if match := re.search(r"http://127\.0\.0\.1:\d+/\S+/", line):
                self.url = match.group()
                return
        raise AssertionError(f"the annotator did not start: {''.join(self.said)}")

    def cpu_seconds(self) -> float:
        """What its work has cost so far, whatever else the machine does (Linux)."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory_mb(self) -> float:
        """Its resident memory (Linux)."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.kill()


@contextmanager
def chromium(**options: Any) -> Iterator[Any]:
    """A context of a fresh Chromium; the test is skipped where there is none."""
    if CHROMIUM is None:
        pytest.skip("there is no Chromium: apt-get install chromium")
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=_QUIET)
        yield browser.new_context(viewport={"width": 1200, "height": 760}, **options)
        browser.close()


class Driver:
    """What a person does on the page."""

    def __init__(self, context: Any, url: str, size: tuple[int, int]) -> None:
        self.page = context.new_page()
        self.size = size
        self.errors: list[str] = []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.set_default_timeout(60_000)
        self.page.goto(url)
        self.page.wait_for_selector("body[data-ready=yes]")
        self.page.wait_for_selector("#canvas[data-frame='0']")

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Where a pixel of the source is on the screen; the frame is shown whole."""
        box = self.page.locator("#canvas").bounding_box()
        scale = min(box["width"] / self.size[1], box["height"] / self.size[0]) * 0.98
        left = box["x"] + (box["width"] - self.size[1] * scale) / 2
        top = box["y"] + (box["height"] - self.size[0] * scale) / 2
        return left + (x + 0.5) * scale, top + (y + 0.5) * scale

    @property
    def version(self) -> str:
        return str(self.page.evaluate("document.body.dataset.version"))

    @contextmanager
    def change(self) -> Iterator[None]:
        """Wait until what is done inside has changed the project."""
        before = self.version
        yield
        self.page.wait_for_selector(f"body:not([data-version='{before}']):not([data-busy=yes])")

    def press(self, key: str, changes: bool = False) -> None:
        if changes:
            with self.change():
                self.page.keyboard.press(key)
        else:
            self.page.keyboard.press(key)

    def drag(self, start: tuple[float, float], stop: tuple[float, float]) -> None:
        with self.change():
            self.page.mouse.move(*self.at(*start))
            self.page.mouse.down()
            self.page.mouse.move(*self.at(*stop), steps=5)
            self.page.mouse.up()

    def click(self, x: float, y: float, button: str = "left") -> None:
        with self.change():
            self.page.mouse.click(*self.at(x, y), button=button)

    def click_middle(self, mask: np.ndarray, button: str = "left") -> None:
        """Click where a mask is thickest."""
        distance = cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, 5)[1:-1, 1:-1]
        y, x = np.unravel_index(int(distance.argmax()), mask.shape)
        self.click(float(x), float(y), button)

    def box(self, mask: np.ndarray, room: int = 4) -> None:
        """Drag a box around a mask."""
        rows, columns = np.nonzero(mask)
        height, width = self.size
        self.drag(
            (max(0, columns.min() - room), max(0, rows.min() - room)),
            (min(width - 1, columns.max() + room), min(height - 1, rows.max() + room)),
        )

    def propagate(self, key: str = "f") -> None:
        """Press a key that propagates, and wait for the end."""
        self.begin(key)
        self.page.wait_for_selector("#job", state="hidden", timeout=240_000)
        self.page.wait_for_selector("body:not([data-busy=yes])")

    def begin(self, key: str = "f") -> None:
        self.page.keyboard.press(key)
        self.page.wait_for_selector("#job", state="visible")

    def frame(self, number: int) -> None:
        """Type a frame's number."""
        self.page.fill("#frame-number", str(number))
        self.page.press("#frame-number", "Enter")
        self.page.wait_for_selector(f"#canvas[data-frame='{number}']")
        self.page.locator("#stage").focus()

    def export(self, form: str, path: Path) -> Path:
        self.page.keyboard.press("Control+e")
        with self.page.expect_download() as download:
            self.page.click(f"[data-format='{form}']")
        download.value.save_as(path)
        self.page.keyboard.press("Escape")
        return path

    def until(self, condition: Any, seconds: float = 60) -> None:
        """Wait for a condition outside of the page."""
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, "it took too long"
            self.page.wait_for_timeout(50)
