"""Tracking whole sources: directions, masks on several frames, frames that do not decode, interruption and resumption."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from dummy_models import ColorModel, flat_clip

from vosformer.errors import InputError, OutputError
from vosformer.inference import tracking
from vosformer.inference.session import Session
from vosformer.inference.tracking import track
from vosformer.io import (
    Arrays,
    Frame,
    LabelImages,
    ScoresFile,
    Sink,
    indexed_png,
    open_source,
    read_labels,
    read_masks,
    write_bytes,
)


class Collect(Sink):
    """Keeps what is written to it."""

    name = "collect"

    def __init__(self) -> None:
        self.labels: dict[int, np.ndarray] = {}
        self.scores: dict[int, dict[int, float]] = {}
        self.order: list[int] = []
        self.complete: bool | None = None

    def write(self, frame, labels, scores, probability):
        self.labels[frame.number], self.scores[frame.number] = labels, dict(scores)
        self.order.append(frame.number)

    def close(self, complete=True):
        self.complete = False

    def clean(self):
        self.complete = True


def session() -> Session:
    return Session(ColorModel(), device="cpu", dtype="fp32")


def run(masks, frames=10, **options):
    images, labels = flat_clip((1, 2), frames)
    sink = Collect()
    report = track(Arrays(images), {n: labels[n] for n in masks}, session(), [sink], **options)
    return sink, report, labels


def good(sink: Collect, labels) -> bool:
    return all((sink.labels[n] == labels[n]).mean() > 0.97 for n in sink.labels)


def test_forward_starts_at_the_first_mask():
    sink, report, labels = run([3])
    assert sink.order == list(range(3, 10))
    assert report.frames == 7
    assert good(sink, labels)
    assert sink.complete


def test_backward_starts_at_the_last_mask():
    sink, _, labels = run([3, 6], direction="backward")
    assert sink.order == list(range(6, -1, -1))
    assert good(sink, labels)


def test_both_ways_writes_every_frame_once():
    seen = []
    sink, report, labels = run([4], direction="both", progress=lambda done, total: seen.append((done, total)))
    assert sink.order == [*range(4, 10), *range(3, -1, -1)]
    assert report.frames == 10
    assert good(sink, labels)
    assert seen[-1] == (10, 10)


def test_a_start_behind_the_masks():
    seen = []
    sink, report, labels = run([1, 3], start=5, progress=lambda done, total: seen.append((done, total)))
    assert sink.order == list(range(5, 10))
    assert report.frames == 5
    assert seen[-1] == (5, 5)
    assert good(sink, labels)


def test_masks_as_they_were_read(tmp_path):
    images, labels = flat_clip((1, 2), 6)
    write_bytes(tmp_path / "00000.png", indexed_png(labels[0]))
    source, sink = Arrays(images), Collect()
    track(source, read_masks(tmp_path, source), session(), [sink])
    assert good(sink, labels)
    for wrong in (labels[0], {"0": labels[0]}, None):
        with pytest.raises(InputError, match=r"like \{0: labels\}"):
            track(source, wrong, session(), [])


def test_a_stream_that_ends_before_its_mask():
    images, labels = flat_clip((1,), 4)
    with pytest.raises(InputError, match="ended before frame 20"):
        track(open_source(iter(images)), {20: labels[0]}, session(), [Collect()])


@pytest.mark.parametrize("direction", ["forward", "backward", "both"])
def test_ranges(direction):
    sink, _, labels = run([4], direction=direction, start=2, stop=8)
    wanted = {"forward": range(4, 8), "backward": range(2, 5), "both": range(2, 8)}[direction]
    assert sorted(sink.order) == list(wanted)
    assert good(sink, labels)


class Broken(Arrays):
    """A source some of whose frames do not decode."""

    broken = (4, 5)

    def frames(self, start=None, stop=None, step=1):
        for frame in super().frames(start, stop, step):
            yield Frame(frame.number, frame.name, None, frame.time, "torn") if frame.number in self.broken else frame


def test_frames_that_do_not_decode_are_bridged():
    images, labels = flat_clip((1, 2), 8)
    sink = Collect()
    report = track(Broken(images), {0: labels[0]}, session(), [sink])
    assert report.bridged == [4, 5]
    assert np.array_equal(sink.labels[5], sink.labels[3])
    assert sink.scores[5] == {1: 0.0, 2: 0.0}
    del sink.labels[4], sink.labels[5]
    assert good(sink, labels)
    with pytest.raises(InputError, match="frame 4 has a mask but does not decode"):
        track(Broken(images), {4: labels[4]}, session(), [Collect()])


def test_doubts_name_the_frames_to_look_at():
    images, labels = flat_clip((1, 2), 9, gone={2: 4})
    report = track(Arrays(images), {0: labels[0]}, session(), [Collect()])
    assert [(doubt.object, doubt.first, doubt.last) for doubt in report.doubts] == [(2, 4, 8)]
    assert report.doubts[0].score < 0.2


class StopError(Exception):
    pass


def folders(out: Path) -> list:
    return [LabelImages(out / "masks"), ScoresFile(out / "scores.csv")]


@pytest.mark.parametrize("stop_at", [1, 4, 7, 9, 12, 17])
def test_a_stopped_run_resumes_to_the_same_result(tmp_path, monkeypatch, stop_at):
    monkeypatch.setattr(tracking, "CHECKPOINT_FRAMES", 3)
    images, labels = flat_clip((1, 2), 10)
    masks = {4: labels[4], 7: labels[7]}

    def go(out, **options):
        return track(Arrays(images), masks, session(), folders(out), direction="both", state=out / "state", **options)

    def stop(done, total):
        if done == stop_at:
            raise StopError

    whole = go(tmp_path / "whole")
    if stop_at <= 10:
        with pytest.raises(StopError):
            go(tmp_path / "part", progress=stop)
    else:
        go(tmp_path / "part")
    again = go(tmp_path / "part", resume=True)
    assert again == whole
    names = sorted(p.name for p in (tmp_path / "whole" / "masks").iterdir())
    assert len(names) == 10
    for name in names:
        a, b = (read_labels(tmp_path / which / "masks" / name).labels for which in ("whole", "part"))
        assert np.array_equal(a, b)
    assert (tmp_path / "whole/scores.csv").read_text() == (tmp_path / "part/scores.csv").read_text()
    assert sorted(p.name for p in (tmp_path / "part" / "state").iterdir()) == ["run.json"]


@pytest.mark.parametrize("sinks", [None, "masks", ["masks"]])
def test_sinks_that_are_none_are_refused(sinks):
    images, labels = flat_clip((1,), frames=2)
    with pytest.raises(InputError, match=r"sinks are .*expected a list of sinks"):
        track(Arrays(images), {0: labels[0]}, Session(ColorModel(), device="cpu", dtype="fp32"), sinks)


def test_a_run_goes_on_with_its_own_sinks_and_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(tracking, "CHECKPOINT_FRAMES", 3)
    images, labels = flat_clip((1,), 10)

    def go(sinks, memory="default", **more):
        following = Session(ColorModel(), device="cpu", dtype="fp32", memory=memory)
        return track(Arrays(images), {0: labels[0]}, following, sinks, state=str(tmp_path / "state"), **more)

    with pytest.raises(StopError):
        go([LabelImages(str(tmp_path / "masks"))], progress=interrupt_at(7))
    with pytest.raises(InputError, match=r"wrote masks, not masks, scores\.csv"):
        go([LabelImages(tmp_path / "masks"), ScoresFile(tmp_path / "scores.csv")], resume=True)
    with pytest.raises(InputError, match="other settings"):
        go([LabelImages(tmp_path / "masks")], memory="every-3", resume=True)
    assert go([LabelImages(tmp_path / "masks")], resume=True).frames == 10
    with pytest.raises(InputError, match="a name of its own"):
        go([LabelImages(tmp_path / "a" / "masks"), LabelImages(tmp_path / "b" / "masks")])


def test_another_run_is_not_resumed(tmp_path):
    images, labels = flat_clip((1, 2), 6)
    source = Arrays(images)

    def go(labels, **options):
        return track(source, {0: labels}, session(), folders(tmp_path), state=tmp_path / "state", resume=True, **options)

    go(labels[0])
    with pytest.raises(InputError, match="other masks or other settings"):
        go(labels[1])
    with pytest.raises(InputError, match="other masks or other settings"):
        go(labels[0], stop=3)
    (tmp_path / "state" / "run.json").write_text("{")
    with pytest.raises(InputError, match="broken"):
        go(labels[0])


def test_a_run_that_fails_at_once_leaves_the_former_one_as_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr(tracking, "CHECKPOINT_FRAMES", 3)
    images, labels = flat_clip((1, 2), 8)
    source = Arrays(images)
    state, half = tmp_path / "state", {"state": tmp_path / "state"}
    with pytest.raises(StopError):
        track(source, {0: labels[0]}, session(), folders(tmp_path), progress=interrupt_at(5), **half)
    before = {path: path.read_bytes() for path in sorted(tmp_path.rglob("*")) if path.is_file()}
    with pytest.raises(InputError, match="options"):
        track(source, {0: labels[0]}, session(), folders(tmp_path), options={"depth": 2}, **half)
    with pytest.raises(OutputError, match="300"):
        track(source, {0: labels[0] * 300}, session(), folders(tmp_path), **half)
    assert {path: path.read_bytes() for path in sorted(tmp_path.rglob("*")) if path.is_file()} == before
    assert state.exists()
    assert track(source, {0: labels[0]}, session(), folders(tmp_path), resume=True, **half).frames == 8


def interrupt_at(frame: int):
    def progress(done: int, total: int | None) -> None:
        if done == frame:
            raise StopError

    return progress


def test_resuming_a_finished_run_makes_what_is_missing_again(tmp_path):
    images, labels = flat_clip((1, 2), 5)

    resumed = {"state": tmp_path / "state", "resume": True}

    def again(out: Path) -> int:
        stepped = []
        note = {"progress": lambda done, total: stepped.append(done)}
        track(Arrays(images), {0: labels[0]}, session(), folders(out), **note, **resumed)
        return len(stepped)

    assert again(tmp_path) == 5
    assert again(tmp_path) == 0
    for gone in ("masks/00003.png", "scores.csv"):
        (tmp_path / gone).unlink()
        with pytest.raises(StopError):
            track(Arrays(images), {0: labels[0]}, session(), folders(tmp_path), progress=interrupt_at(3), **resumed)
        assert again(tmp_path) == 5
        assert (tmp_path / gone).exists()


def test_a_session_of_another_model_does_not_go_on_with_a_run(tmp_path):
    images, labels = flat_clip((1,), 4)
    track(Arrays(images), {0: labels[0]}, session(), [], state=tmp_path)
    other = Session(ColorModel(), device="cpu", dtype="fp32", size=48)
    with pytest.raises(InputError, match="other settings"):
        track(Arrays(images), {0: labels[0]}, other, [], state=tmp_path, resume=True)


def test_masks_that_belong_to_no_frame_are_refused():
    images, labels = flat_clip((1,), 4)
    with pytest.raises(InputError, match=r"frames \[9\], but .* has 4 frames"):
        track(Arrays(images), {0: labels[0], 9: labels[0]}, session(), [])
    with pytest.raises(InputError, match=r"mask of frame 2 has the shape \(3, 3\)"):
        track(Arrays(images), {0: labels[0], 2: labels[0][:3, :3]}, session(), [])
    with pytest.raises(InputError, match="open_source"):
        track("clip.mp4", {0: labels[0]}, session(), [])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"start": 20}, "cannot start at 20"),
        ({"start": 4, "stop": 4}, "no range"),
        ({"start": 6, "direction": "backward"}, "there is no mask between"),
        ({"direction": "forwards"}, "expected one of forward, backward, both"),
        ({"resume": True}, "keeps its state"),
    ],
)
def test_mistakes(options, message):
    with pytest.raises(InputError, match=message):
        run([3], **options)


def test_what_was_written_stays_when_a_sink_fails(tmp_path):
    class Full(Collect):
        def write(self, frame, labels, scores, probability):
            if frame.number == 4:
                raise OutputError("disk full")
            super().write(frame, labels, scores, probability)

    images, labels = flat_clip((1,), 8)
    full = Full()
    with pytest.raises(OutputError, match="disk full"):
        track(Arrays(images), {0: labels[0]}, session(), [LabelImages(tmp_path / "masks"), full])
    assert full.complete is False
    written = sorted((tmp_path / "masks").glob("*.png"))
    assert len(written) >= 4
    assert all(read_labels(path).labels.any() for path in written)


CHILD = """
import sys, time
from pathlib import Path
from dummy_models import ColorModel, flat_clip
from vosformer.io import Arrays, LabelImages, ScoresFile
from vosformer.inference import tracking
from vosformer.inference.session import Session
from vosformer.inference import tracking
tracking.CHECKPOINT_FRAMES = 4
out = Path(sys.argv[1])
images, labels = flat_clip((1, 2), 30)
session = Session(ColorModel(), device="cpu", dtype="fp32")
slow = float(sys.argv[2])
tracking.track(Arrays(images), {0: labels[0]}, session, [LabelImages(out / "masks"), ScoresFile(out / "scores.csv")],
    state=out / "state", resume=True, progress=lambda done, total: (print(done, flush=True), time.sleep(slow)))
"""


def test_killed_by_force_and_resumed(tmp_path):
    """SIGKILL in the middle, then the same command again: the files are those of a run that was left alone."""

    def start(name, slow):
        command = [sys.executable, "-c", CHILD, str(tmp_path / name), str(slow)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    assert start("whole", 0).wait(120) == 0
    child = start("part", 0.05)
    while child.stdout.readline().strip() != "11":
        time.sleep(0.001)
    os.kill(child.pid, signal.SIGKILL)
    child.wait(10)
    assert len(list((tmp_path / "part/masks").glob("*.png"))) < 30
    assert start("part", 0).wait(120) == 0
    whole = {
        p.relative_to(tmp_path / "whole"): p.read_bytes() for p in (tmp_path / "whole").rglob("*.*") if "state" not in str(p)
    }
    part = {p.relative_to(tmp_path / "part"): p.read_bytes() for p in (tmp_path / "part").rglob("*.*") if "state" not in str(p)}
    assert len(whole) == 31
    assert whole == part
