"""The sound of a video in the overlay film: the same, at the same moments of the pictures."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from io_videos import picture

from vosformer.io import OverlayVideo, open_source

RATE, FPS = 16_000, 25


def film(path: Path, codec: str, seconds: float = 2.0, late: float = 0.0) -> Path:
    """A film whose sound is silent but for a tone from 1.0 to 1.2 s; frame 0 is at `late`."""
    times = np.arange(int((seconds + late) * RATE)) / RATE - late
    wave = np.where((times >= 1.0) & (times < 1.2), 0.5 * np.sin(2 * np.pi * 1000 * times), 0).astype(np.float32)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        stream.codec_context.max_b_frames = 0
        sound = container.add_stream(codec, rate=RATE, layout="mono")
        resampler = av.AudioResampler(format=sound.codec_context.format.name, layout="mono", rate=RATE, frame_size=1024)
        block = av.AudioFrame.from_ndarray(wave[None], format="fltp", layout="mono")
        block.sample_rate, block.pts, block.time_base = RATE, 0, Fraction(1, RATE)
        for frame in [*resampler.resample(block), *resampler.resample(None)]:
            container.mux(sound.encode(frame))
        container.mux(sound.encode(None))
        for number in range(int(seconds * FPS)):
            frame = av.VideoFrame.from_ndarray(picture(number % 40), format="rgb24")
            frame.pts, frame.time_base = round((number / FPS + late) * 1000), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def tone(path: Path) -> tuple[str, float, float]:
    """(codec, begin, end) of what is loud."""
    with av.open(str(path)) as container:
        (stream,) = container.streams.audio
        loud = []
        for frame in container.decode(stream):
            values = np.abs(frame.to_ndarray().astype(np.float64)).reshape(-1)
            values /= 1 if "flt" in frame.format.name else 32768
            loud += [frame.time + at / RATE for at in np.flatnonzero(values > 0.2)]
        return stream.codec_context.name, min(loud), max(loud)


@pytest.mark.parametrize(
    ("name", "codec", "kept"),
    [("a.mp4", "aac", "aac"), ("a.mkv", "pcm_s16le", "aac"), ("a.mkv", "flac", "flac"), ("a.mov", "pcm_s16le", "aac")],
)
@pytest.mark.parametrize(("first", "late"), [(0, 0.0), (10, 0.0), (0, 0.6), (10, 0.6)])
def test_the_sound_keeps_its_place(tmp_path: Path, name: str, codec: str, kept: str, first: int, late: float) -> None:
    labels = np.ones((48, 64), np.int32)
    with open_source(film(tmp_path / name, codec, late=late)) as source:
        assert source.sound is not None
        with OverlayVideo(tmp_path / "o.mp4", source.fps, sound=source.sound) as sink:
            for frame in source.frames(first, 45):
                sink.write(frame, labels, {1: 1.0}, None)
    found, begin, end = tone(tmp_path / "o.mp4")
    assert found == kept
    assert begin == pytest.approx(1.0 - first / FPS, abs=0.07)
    assert end == pytest.approx(1.2 - first / FPS, abs=0.07)
    with av.open(str(tmp_path / "o.mp4")) as container:
        assert float(container.streams.audio[0].duration * container.streams.audio[0].time_base) < (45 - first) / FPS + 0.1
        assert sum(packet.size > 0 for packet in container.demux(video=0)) == 45 - first


def test_a_silent_film_has_no_sound(tmp_path: Path) -> None:
    with open_source(Path(__file__).parents[1] / "fixtures" / "cases" / "anamorphic.mp4") as source:
        assert source.sound is None
