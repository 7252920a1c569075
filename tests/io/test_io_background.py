from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest

from vosformer.errors import InputError, OutputError
from vosformer.formats import FormatSink
from vosformer.io import BackgroundSink, Frame, LabelImages, Prefetch, Sink, open_source

CLIP = np.zeros((50, 4, 5, 3), np.uint8)


def live_threads() -> int:
    return sum(thread.name.startswith("vosformer") for thread in threading.enumerate())


@pytest.fixture(autouse=True)
def no_thread_is_left():
    yield
    assert live_threads() == 0


def test_prefetch_gives_the_same_frames() -> None:
    with Prefetch(open_source(CLIP).frames(3, 40, 2), depth=3) as frames:
        assert [frame.number for frame in frames] == list(range(3, 40, 2))
        assert list(frames) == []


def test_prefetch_is_bounded_and_stops_in_the_middle() -> None:
    made = []

    def generate():
        try:
            for number in range(1000):
                made.append(number)
                yield CLIP[0]
        finally:
            made.append("closed")

    with Prefetch(open_source(generate()), depth=4) as frames:
        next(frames)
        time.sleep(0.05)
        assert 5 <= len(made) <= 7
    assert len(made) <= 8
    assert live_threads() == 0


def test_errors_of_the_source_come_at_their_place() -> None:
    def generate():
        yield CLIP[0]
        yield CLIP[0]
        yield np.zeros((9, 9, 3), np.uint8)

    frames = Prefetch(open_source(generate()))
    assert [next(frames).number, next(frames).number] == [0, 1]
    with pytest.raises(InputError, match="frame 2"):
        next(frames)
    assert list(frames) == []


def test_latest_drops_old_frames_and_never_the_end() -> None:
    gate = threading.Event()

    def generate():
        yield CLIP[0]
        yield CLIP[0]
        gate.wait(5)
        for _ in range(100):
            yield CLIP[0]

    with Prefetch(open_source(generate()), depth=2, latest=True) as frames:
        assert next(frames).number == 0
        gate.set()
        time.sleep(0.1)
        seen = [frame.number for frame in frames]
    assert seen[-1] == 101
    assert len(seen) <= 3
    assert seen == sorted(seen)


def test_frames_to_keep_are_not_dropped() -> None:
    with Prefetch(open_source(CLIP), depth=3, latest=True, keep={0, 7, 20}) as frames:
        time.sleep(0.1)
        seen = [frame.number for frame in frames]
    assert {0, 7, 20, 49} <= set(seen)
    assert seen == sorted(seen)


class Slow(Sink):
    name = "slow"

    def __init__(self, fail_at: int | None = None) -> None:
        self.written: list[int] = []
        self.closed: bool | None = None
        self._fail_at = fail_at
        self.threads: set[str] = set()

    def write(self, frame, labels, scores, probability) -> None:
        time.sleep(0.005)
        self.threads.add(threading.current_thread().name)
        if frame.number == self._fail_at:
            raise OutputError("the disk is full")
        self.written.append(frame.number)

    def checkpoint(self):
        return {"frames": len(self.written)}

    def close(self, complete: bool = True) -> None:
        self.closed = complete


def put(sink: Sink, number: int) -> None:
    sink.write(
        Frame(number, str(number), None, None), np.ones((2, 2), np.int32), {1: 1.0}, lambda _: np.ones((2, 2), np.float32)
    )


def test_writing_goes_on_in_order_in_another_thread() -> None:
    inner = Slow()
    with BackgroundSink(inner, depth=3) as sink:
        for number in range(20):
            put(sink, number)
        assert sink.checkpoint() == {"frames": 20}
    assert inner.written == list(range(20))
    assert inner.threads == {"vosformer-write"}
    assert inner.closed is True


def test_what_waits_is_bounded() -> None:
    inner = Slow()
    with BackgroundSink(inner, depth=2) as sink:
        for number in range(20):
            put(sink, number)
            assert number - len(inner.written) <= 4
    assert len(inner.written) == 20


@pytest.mark.parametrize("how", ["write", "checkpoint", "close"])
def test_errors_come_up_at_the_next_call(how: str) -> None:
    inner = Slow(fail_at=1)
    sink = BackgroundSink(inner, depth=2)
    put(sink, 0)
    put(sink, 1)

    def call() -> None:
        if how == "write":
            for number in range(2, 60):
                put(sink, number)
        elif how == "checkpoint":
            sink.checkpoint()
        else:
            sink.close()

    with pytest.raises(OutputError, match="the disk is full"):
        call()
    if how != "close":
        with pytest.raises(OutputError, match="the disk is full"):
            sink.close()
    assert inner.closed is False
    assert inner.written == [0]


def test_an_error_of_the_caller_closes_the_sink_as_incomplete() -> None:
    inner = Slow()

    def run() -> None:
        with BackgroundSink(inner) as sink:
            put(sink, 0)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run()
    assert inner.closed is False
    assert inner.written == [0]


def test_real_sinks_in_the_background(tmp_path: Path) -> None:
    with BackgroundSink(FormatSink(tmp_path / "m.json", "coco")) as a, BackgroundSink(LabelImages(tmp_path / "masks")) as b:
        for number in range(30):
            put(a, number)
            put(b, number)
    assert len(list((tmp_path / "masks").iterdir())) == 30
    assert (tmp_path / "m.json").stat().st_size > 1000
