"""From a video file to every kind of result, killed by force again and again."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from dummy_models import ColorModel, flat_clip
from io_videos import encode, packets, spoil

from vosformer.errors import InputError
from vosformer.formats import FormatSink
from vosformer.inference import tracking
from vosformer.inference.session import Session
from vosformer.inference.tracking import track
from vosformer.io import (
    CutOuts,
    LabelImages,
    ObjectImages,
    OverlayVideo,
    ScoresFile,
    Sink,
    Stream,
    VideoFile,
    open_source,
    read_labels,
)

FRAMES = 24
SIZE = (65, 97)
BAD = (5, 13)


def make_clip(path: Path) -> Path:
    images, _ = flat_clip((1, 2), FRAMES, SIZE)
    # Odd sides do not survive 4:2:0; real noise makes packets that can be found in the file.
    rng = np.random.default_rng(0)
    noisy = [
        np.clip(image[:64, :96].astype(int) + rng.integers(-6, 7, (64, 96, 3)), 0, 255).astype(np.uint8) for image in images
    ]
    times = [number / 25 + (number % 3) * 0.011 for number in range(FRAMES)]
    encode(path, noisy, times=times, gop=6)
    assert sum(key for _, key, _ in packets(path)) >= 3
    spoil(path, BAD)
    return path


def first_masks(number: int = 8) -> dict[int, np.ndarray]:
    return {number: flat_clip((1, 2), FRAMES, SIZE)[1][number][:64, :96]}


def run(clip: Path, out: Path, *, resume: bool = True, progress=None):
    folders: list[Sink] = [LabelImages(out / "masks"), ObjectImages(out / "objects"), CutOuts(out / "rgba")]
    files: list[Sink] = [
        FormatSink(out / "rle.json", "coco"),
        ScoresFile(out / "scores.csv"),
        OverlayVideo(out / "overlay.mp4"),
    ]
    session = Session(ColorModel(), device="cpu", dtype="fp32")
    state = out / ".vosformer"
    with open_source(clip) as source:
        return track(
            source, first_masks(), session, folders + files, direction="both", state=state, resume=resume, progress=progress
        )


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_damaged_video_both_ways_into_every_sink(tmp_path: Path) -> None:
    report = run(make_clip(tmp_path / "clip.mp4"), tmp_path / "out", resume=False)
    assert report.frames == FRAMES
    assert set(BAD) <= set(report.bridged)
    truth = flat_clip((1, 2), FRAMES, SIZE)[1]
    for number in range(FRAMES):
        found = read_labels(tmp_path / "out" / "masks" / f"{number:05d}.png").labels
        if number not in report.bridged:
            assert (found == truth[number][:64, :96]).mean() > 0.95
    # Bridged with what was tracked just before: going forward after frame 8, going backward before it.
    for number, before in ((5, 6), (13, 12)):
        if before not in report.bridged:
            same = [read_labels(tmp_path / "out" / "masks" / f"{at:05d}.png").labels for at in (number, before)]
            assert np.array_equal(*same)
    overlay = VideoFile(tmp_path / "out" / "overlay.mp4")
    assert overlay.count == FRAMES
    with open_source(tmp_path / "clip.mp4") as source:
        assert [frame.time for frame in overlay] == pytest.approx([frame.time for frame in source], abs=2e-5)
    hidden = [path.name for path in (tmp_path / "out").iterdir() if path.name.startswith(".")]
    assert hidden == [".vosformer"]


CHILD = """
import sys, time
from pathlib import Path
import test_track_video
from vosformer.inference import tracking
tracking.CHECKPOINT_FRAMES = 3
clip, out, slow = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])
test_track_video.run(clip, out, progress=lambda done, total: (print(done, flush=True), time.sleep(slow)))
print("done", flush=True)
"""


def child(clip: Path, out: Path, slow: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", CHILD, str(clip), str(out), str(slow)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def kill_after(process: subprocess.Popen[str], frames: int, wait: float) -> bool:
    """SIGKILL some time after that many frames; whether the process was still at work."""
    for at, line in enumerate(process.stdout):
        if line.strip() == "done":
            process.wait(60)
            return False
        if at + 1 == frames:
            break
    time.sleep(wait)
    process.kill()
    process.wait(60)
    return True


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_video_run_killed_again_and_again_gives_the_same_files(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4")
    assert not kill_after(child(clip, tmp_path / "whole", 0), 999, 0)
    rng = random.Random(7)
    kills = 0
    while kill_after(child(clip, tmp_path / "part", 0.02), rng.randint(4, 9), rng.random() * 0.1):
        kills += 1
        assert kills < 30
    assert kills >= 2
    assert contents(tmp_path / "part") == contents(tmp_path / "whole")


class KillAt(Sink):
    """Ends the process by force at one of the last steps of a run."""

    name = "kill"

    def __init__(self, where: str) -> None:
        self._where = where

    def write(self, frame, labels, scores, probability):
        pass

    def finish(self):
        if self._where == "finish":
            os._exit(9)

    def clean(self):
        if self._where == "clean":
            os._exit(9)


def records(folder: Path, *more: Sink, resume: bool = False) -> None:
    """Track a clip into two files that are put together at the end."""
    images, labels = flat_clip((1, 2), 6, SIZE)
    sinks = [ScoresFile(folder / "a.csv"), *more, FormatSink(folder / "b.json", "coco")]
    session = Session(ColorModel(), device="cpu", dtype="fp32")
    track(open_source(np.stack(images)), {0: labels[0]}, session, sinks, state=folder / "state", resume=resume)


KILLED = """
import sys
from pathlib import Path
import test_track_video as here
here.records(Path(sys.argv[1]), here.KillAt(sys.argv[2]))
"""


@pytest.mark.parametrize("where", ["finish", "clean"])
def test_a_run_killed_while_its_files_are_put_together(tmp_path: Path, where: str) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path), where]
    assert subprocess.run(command, check=False, timeout=120).returncode == 9
    records(tmp_path, resume=True)
    assert len((tmp_path / "a.csv").read_text().splitlines()) == 13
    assert '"image_id":5' in (tmp_path / "b.json").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "b.json", "state"]


def test_a_new_run_is_not_mixed_with_a_former_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "CHECKPOINT_FRAMES", 4)
    clip = make_clip(tmp_path / "clip.mp4")

    def stop_at(limit: int):
        def stop(done: int, total: int | None) -> None:
            if done == limit:
                raise KeyboardInterrupt

        return stop

    for limit in (10, 2):  # the second run, not resumed, ends before its first checkpoint
        with pytest.raises(KeyboardInterrupt):
            run(clip, tmp_path / "out", resume=False, progress=stop_at(limit))
    assert VideoFile(tmp_path / "out" / "overlay.mp4").count == 2  # what an interrupted run leaves can be looked at
    run(clip, tmp_path / "out", resume=True)
    run(clip, tmp_path / "whole", resume=False)
    found = contents(tmp_path / "out")
    aside = [name for name in found if ".old-" in name]
    assert len(aside) >= 10, "what the first run left is kept beside"
    assert {name: data for name, data in found.items() if name not in aside} == contents(tmp_path / "whole")


def test_what_comes_only_once_cannot_be_resumed(tmp_path: Path) -> None:
    images, labels = flat_clip((1,), 3, SIZE)
    session = Session(ColorModel(), device="cpu", dtype="fp32")
    with pytest.raises(InputError, match="can be read again"):
        track(Stream(images), {0: labels[0]}, session, [], state=tmp_path, resume=True)


def test_no_thread_is_left_when_a_run_breaks_off() -> None:
    images, labels = flat_clip((1,), 30, SIZE)

    def stop(done: int, total: int | None) -> None:
        if done == 3:
            raise KeyboardInterrupt

    session = Session(ColorModel(), device="cpu", dtype="fp32")
    with pytest.raises(KeyboardInterrupt) as caught:
        track(open_source(np.stack(images)), {0: labels[0]}, session, [], progress=stop)
    assert caught.value is not None
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("vosformer")]


def test_a_camera_drops_frames_instead_of_lagging(tmp_path: Path) -> None:
    class Camera(Stream):
        real_time = True

    images, labels = flat_clip((1,), 40, SIZE)
    session = Session(ColorModel(), device="cpu", dtype="fp32")
    done = []
    track(
        Camera(images),
        {0: labels[0], 20: labels[20]},
        session,
        [LabelImages(tmp_path / "masks")],
        progress=lambda count, total: (done.append(count), time.sleep(0.02)),
    )
    names = sorted(path.stem for path in (tmp_path / "masks").iterdir())
    assert {"00000", "00020", "00039"} <= set(names)
    assert len(names) < 40
