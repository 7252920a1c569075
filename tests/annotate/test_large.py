"""Long and large video: memory stays flat, and any frame comes at once.

A short form runs always, on the parts themselves; the long one is the program with its page: an hour's worth of frames, and 4K.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from annotation import iou, open_workspace
from annotator_page import Driver, Server, chromium
from io_videos import encode

from vosformer.annotate.label_files import read_png
from vosformer.annotate.pictures import frame_jpeg, labels_as_rgb_png
from vosformer.io import open_source
from vosformer.io.random_access import RandomAccess


class Moving(Sequence[np.ndarray]):
    """A red square that moves over a checkered ground; frames are made when they are asked for."""

    def __init__(self, frames: int, height: int, width: int) -> None:
        self._frames = frames
        blocks = np.random.default_rng(0).integers(60, 200, (height // 8 + 1, width // 8 + 1, 3)).astype(np.uint8)
        self._ground = blocks.repeat(8, 0).repeat(8, 1)[:height, :width]
        self.side = height // 4

    def __len__(self) -> int:
        return self._frames

    def corner(self, number: int) -> tuple[int, int]:
        """(x, y) of the square; it goes to and fro."""
        room = self._ground.shape[1] - self.side
        way = 2 * number % (2 * room)
        return min(way, 2 * room - way), self.side

    def mask(self, number: int) -> np.ndarray:
        x, y = self.corner(number)
        mask = np.zeros(self._ground.shape[:2], bool)
        mask[y : y + self.side, x : x + self.side] = True
        return mask

    def __getitem__(self, number: Any) -> np.ndarray:
        if not 0 <= number < self._frames:
            raise IndexError(number)
        image = self._ground.copy()
        image[self.mask(number)] = (230, 20, 20)
        return image


def resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


needs_proc = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory and CPU time are read from /proc")


@needs_proc
def test_any_frame_of_a_long_clip_comes_at_once_and_memory_stays_flat(tmp_path: Path) -> None:
    frames = 1500
    source = open_source(encode(tmp_path / "clip.mp4", Moving(frames, 96, 160), gop=250))
    access = RandomAccess(source, megabytes=5)
    dice = random.Random(0)

    def look(number: int) -> float:
        begun = time.process_time()
        found = access.read(number)
        frame_jpeg(found, (96, 160), 1080)
        assert found.number == number
        return time.process_time() - begun

    for _ in range(20):
        look(dice.randrange(frames))
    before = resident_mb()
    seconds = [look(dice.randrange(frames)) for _ in range(40)]
    seconds += [look(n) for n in range(900, 700, -1)]  # and step by step backward
    assert max(seconds) < 0.5
    assert resident_mb() - before < 40


@needs_proc
def test_edits_all_over_a_long_project_keep_memory_and_state_small(tmp_path: Path) -> None:
    """What the page is sent grows with given frames and objects, not with the video; a project of 20,000 frames opens at once."""
    images = np.zeros((1, 24, 32, 3), np.uint8)
    workspace = open_workspace(tmp_path / "p", np.broadcast_to(images, (20_000, 24, 32, 3)))
    before = resident_mb()
    for _ in range(3):
        workspace.editor.add_object()
    for n in range(0, 20_000, 1000):
        workspace.editor.stroke(n, 1 + n // 1000 % 3, [(4, 4), (20, 9)], 3)
    begun = time.process_time()
    state = workspace.state()
    lanes = workspace.lanes(0, 1 << 30, 800)
    workspace.review()
    workspace.suggest(5)
    assert time.process_time() - begun < 0.5
    assert len(str(state)) < 20_000
    assert len(lanes["edges"]) == 801
    assert resident_mb() - before < 60
    workspace.close()


@pytest.mark.slow
@needs_proc
@pytest.mark.timeout(3600)
def test_twenty_thousand_frames(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The program and its page on a clip of 13 minutes: seeking, stepping, marking, following, and the memory of it all."""
    frames, size = 20_000, (180, 320)
    clip = Moving(frames, *size)
    video = encode(tmp_path / "clip.mp4", clip, gop=250, options={"preset": "ultrafast", "crf": "28"})
    server = Server(video, "-o", tmp_path / "p")
    dice = random.Random(1)
    with chromium() as context:
        try:
            page = Driver(context, server.url, size)
            for number in [dice.randrange(frames) for _ in range(10)]:
                page.frame(number)
            memory, seconds = [server.memory_mb()], list[float]()
            for number in [dice.randrange(frames) for _ in range(40)]:
                begun = server.cpu_seconds()
                page.frame(number)
                seconds.append(server.cpu_seconds() - begun)
            memory.append(server.memory_mb())
            middle = 15_000
            page.frame(middle)
            page.click_middle(clip.mask(middle))
            page.begin("f")
            page.until(lambda: (tmp_path / "p" / "masks" / f"{middle + 20:05d}.png").exists(), 900)
            memory.append(server.memory_mb())
            page.until(lambda: (tmp_path / "p" / "masks" / f"{middle + 60:05d}.png").exists(), 1800)
            memory.append(server.memory_mb())
            page.press("Escape")
            page.page.wait_for_selector("#job", state="hidden")
            scores = [
                iou(read_png(tmp_path / "p" / "masks" / f"{n:05d}.png") == 1, clip.mask(n)) for n in (middle, middle + 60)
            ]
            assert not page.errors, page.errors
        finally:
            server.stop()
    with capsys.disabled():
        print(f"\n{frames} frames of {size[1]} x {size[0]}, CPU seconds of the server for a frame anywhere:", end=" ")
        print(f"median {np.median(seconds):.3f}, most {max(seconds):.3f}; IoU {np.round(scores, 2)}; memory", end=" ")
        print(", ".join(f"{m:.0f}" for m in memory), "MB after 10 frames, 50 frames, following 20, following 60")
    assert max(seconds) < 0.5
    assert memory[1] - memory[0] < 200  # frames that were looked at are kept, up to 160 MB
    assert memory[3] - memory[2] < 60
    assert min(scores) > 0.8


@pytest.mark.slow
@needs_proc
@pytest.mark.timeout(3600)
def test_4k(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Frames of 3840 x 2160: a click, a stroke and a propagation; masks in the frame's own resolution."""
    frames, size = 8, (2160, 3840)
    clip = Moving(frames, *size)
    video = encode(tmp_path / "clip.mp4", clip, gop=8, options={"preset": "ultrafast", "crf": "28"})
    server = Server(video, "-o", tmp_path / "p", size=240)
    with chromium() as context:
        try:
            page = Driver(context, server.url, size)
            begun = server.cpu_seconds()
            page.click_middle(clip.mask(0))
            click = server.cpu_seconds() - begun
            begun = server.cpu_seconds()
            page.frame(frames - 1)
            seek = server.cpu_seconds() - begun
            page.frame(0)
            page.press("d")
            begun = server.cpu_seconds()
            page.drag((100.0, 2000.0), (700.0, 2000.0))
            stroke = server.cpu_seconds() - begun
            assert read_png(tmp_path / "p" / "given" / "00000.png")[2000, 400] == 1
            page.press("Control+z", changes=True)
            page.propagate("f")
            masks = [read_png(tmp_path / "p" / "masks" / f"{n:05d}.png") for n in range(frames)]
            memory = server.memory_mb()
            assert not page.errors, page.errors
        finally:
            server.stop()
    scores = [iou(labels == 1, clip.mask(n)) for n, labels in enumerate(masks)]
    with capsys.disabled():
        print(f"\n4K, CPU seconds of the server for a click {click:.2f}, a frame {seek:.2f}, a stroke {stroke:.2f};", end=" ")
        print(f"memory {memory:.0f} MB; IoU {np.round(scores, 2)}")
    assert masks[0].shape == size
    assert min(scores) > 0.85
    assert memory < 3000


def test_masks_of_a_4k_frame_are_sent_no_larger_than_the_page_asks() -> None:
    labels = np.zeros((2160, 3840), np.int32)
    labels[:1000] = 300
    whole, small = labels_as_rgb_png(labels, None), labels_as_rgb_png(labels, 1080)
    assert len(small) < len(whole)
