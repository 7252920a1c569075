"""Videos from real trouble: what other tools write, cut, join and mark, and how many frames everybody else counts."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from io_videos import encode, number_of, picture

from vosformer.errors import InputError
from vosformer.io import CutOutVideo, OverlayVideo, VideoFile, hdr, open_source

CASES = Path(__file__).parents[1] / "fixtures" / "cases"


def disk(image: np.ndarray) -> float:
    """Where the red disk of the cases is: 40 at t = 0, 4 pixels further to the right in every frame."""
    red = image[..., 0].astype(int) - image[..., 1:].max(-1)
    return float(np.nonzero(red > 0.6 * red.max())[1].mean())


def moments(source) -> list[int]:
    """The time t of each frame as its picture shows it; the same backwards and by seeking."""
    frames = list(source)
    assert [frame.number for frame in frames] == list(range(source.count))
    for again in (*reversed(source), source.read(len(frames) // 2)):
        assert np.array_equal(again.image, frames[again.number].image)
    return [round((disk(frame.image) - 40) / 4) for frame in frames]


def opencv_count(path: Path) -> int:
    capture = cv2.VideoCapture(str(path))
    count = 0
    while capture.read()[0]:
        count += 1
    return count


def remux(path: Path, target: Path, packets: slice = slice(None), form: str | None = None) -> Path:
    with av.open(str(path)) as source, av.open(str(target), "w", format=form) as output:
        stream = output.add_stream_from_template(source.streams.video[0])
        for packet in [packet for packet in source.demux(video=0) if packet.size][packets]:
            packet.stream = stream
            output.mux(packet)
    return target


@pytest.mark.parametrize("kind", ["mp4", "mkv", "mts", "mov", "h264"])
def test_two_fields_are_one_frame(tmp_path: Path, kind: str) -> None:
    path = remux(CASES / "fields.mp4", tmp_path / f"fields.{kind}", form={"mts": "mpegts", "h264": "h264"}.get(kind))
    source = open_source(path)
    assert source.count == opencv_count(path) == 4
    assert source.fps == 25
    assert moments(source) == [0, 1, 2, 3]
    if kind != "h264":
        assert [frame.time for frame in source] == pytest.approx([0, 0.04, 0.08, 0.12], abs=1e-3)
        assert "4 frames in 8 packets" in "".join(source.notes)


def test_joined_recordings_are_in_the_order_of_the_file() -> None:
    source = open_source(CASES / "earlier.ts")
    assert moments(source) == list(range(12))
    assert source.fps == 25
    assert "go back" in "".join(source.notes)


@pytest.mark.parametrize(("kind", "codec"), [("ts", "libx264"), ("ts", "libx265"), ("ts", "mpeg4"), ("mkv", "libx264")])
@pytest.mark.parametrize("shift", [0.1, 5.0])
def test_any_joined_recordings(tmp_path: Path, kind: str, codec: str, shift: float) -> None:
    """The second part has time stamps among (0.1 s) or before those of the first."""
    parts = []
    for part, start in enumerate([shift if shift > 1 else 0, 0 if shift > 1 else shift]):
        times = [start + n * 0.04 + 0.01 * part for n in range(6)]
        images = [picture(6 * part + n) for n in range(6)]
        parts.append(encode(tmp_path / f"{part}.{kind}", images, codec=codec, times=times, b_frames=0))
    path = tmp_path / f"joined.{kind}"
    path.write_bytes(parts[0].read_bytes() + parts[1].read_bytes())
    source = open_source(path)
    assert [number_of(frame.image) for frame in source] == list(range(12))
    assert [number_of(frame.image) for frame in reversed(source)] == list(range(11, -1, -1))


def test_what_lies_before_the_first_key_frame_is_not_counted() -> None:
    source = open_source(CASES / "cut.ts")
    assert source.count == opencv_count(CASES / "cut.ts") == 7
    assert moments(source) == list(range(5, 12))
    assert next(iter(source)).time == 0
    assert "the first 3 frames of" in "".join(source.notes)


@pytest.mark.parametrize("codec", ["libx264", "libx265", "mpeg2video"])
@pytest.mark.parametrize("kind", ["ts", "mkv"])
def test_any_recording_that_begins_before_a_key_frame(tmp_path: Path, codec: str, kind: str) -> None:
    options = {"x265-params": "open-gop=1:keyint=10:min-keyint=10:scenecut=0:bframes=2:log-level=error"}
    whole = encode(tmp_path / f"a.{kind}", [picture(n) for n in range(30)], codec=codec)
    if codec == "libx265":
        with av.open(str(whole), "w") as container:
            stream = container.add_stream(codec, rate=25, options=options)
            stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
            for n in range(30):
                frame = av.VideoFrame.from_ndarray(picture(n), format="rgb24")
                frame.pts, frame.time_base = n, Fraction(1, 25)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    path = remux(whole, tmp_path / f"cut.{kind}", slice(4, None))
    source = open_source(path)
    numbers = [number_of(frame.image) for frame in source]
    assert numbers == list(range(numbers[0], 30))
    assert numbers[0] >= 8 or codec == "mpeg2video"  # whose decoder shows frames that lack the ones they are predicted from
    assert abs(source.count - opencv_count(path)) <= 2  # of leading B-frames OpenCV shows some that are patched up
    assert [number_of(frame.image) for frame in reversed(source)] == numbers[::-1]


def test_the_default_stream_is_read_and_others_can_be_chosen() -> None:
    source = open_source(CASES / "two.mkv")
    assert (source.width, source.height) == (160, 120)
    assert moments(source) == list(range(12))
    assert "2 video streams (0: 64 x 48; 1: 160 x 120, default)" in "".join(source.notes)
    other = open_source(CASES / "two.mkv", stream=0)
    assert (other.width, other.height) == (64, 48)
    assert other.fingerprint() != source.fingerprint()
    with pytest.raises(InputError, match=r"no video stream 2: expected one of 0: 64 x 48"):
        open_source(CASES / "two.mkv", stream=2)


def test_of_streams_without_a_mark_the_largest_is_read(tmp_path: Path) -> None:
    path = tmp_path / "two.ts"
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("libx264", rate=25) for _ in range(2)]
        for stream, side in zip(streams, (32, 64), strict=True):
            stream.height, stream.width, stream.pix_fmt = side, side, "yuv420p"
        for n in range(4):
            for stream in streams:
                frame = av.VideoFrame.from_ndarray(picture(n, stream.height, stream.width), format="rgb24")
                frame.pts, frame.time_base = n, Fraction(1, 25)
                container.mux(stream.encode(frame))
        for stream in streams:
            container.mux(stream.encode(None))
    assert open_source(path).height == 64
    assert open_source(path, stream=0).height == 32


def test_a_cut_off_recording_names_the_option_and_gives_what_is_there() -> None:
    with pytest.raises(InputError, match=r"1 of the 10 entries.*--allow-truncated"):
        open_source(CASES / "cut_off.mp4")
    source = open_source(CASES / "cut_off.mp4", allow_truncated=True)
    assert moments(source) == list(range(9))
    assert "cut off" in "".join(source.notes)


def test_frames_of_another_size_are_scaled_to_the_first() -> None:
    source = open_source(CASES / "change.ts")
    assert moments(source) == list(range(12))
    assert {frame.image.shape for frame in source} == {(120, 160, 3)}
    assert "frames of 80 x 60 pixels were scaled to 160 x 120, the size of the first: 6, 7, 8, 9, 10, 11" in list(source.notes)


@pytest.mark.parametrize("kind", ["mp4", "mkv", "ts", "mov"])
@pytest.mark.parametrize("rotation", [None, 90])
def test_pixels_that_are_not_square_stay_so(tmp_path: Path, kind: str, rotation: int | None) -> None:
    if rotation is not None and kind == "ts":
        pytest.skip("transport streams have no display matrix")
    path = tmp_path / f"a.{kind}"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)
        if rotation is not None:
            stream.set_display_rotation(rotation)
        for n in range(20):
            frame = av.VideoFrame.from_ndarray(picture(n), format="rgb24")
            frame.pts, frame.time_base = n, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    source = open_source(path)
    aspect = Fraction(4, 3) if rotation is None else Fraction(3, 4)
    assert source.pixel_aspect == aspect
    sinks = [
        OverlayVideo(tmp_path / "o.mp4", 25, pixel_aspect=source.pixel_aspect),
        CutOutVideo(tmp_path / "o.mov", 25, source.pixel_aspect),
    ]
    labels = np.ones((source.height, source.width), np.int32)
    for sink in sinks:
        with sink:
            for frame in source:
                sink.write(frame, labels, {1: 1.0}, lambda i: (labels == i).astype(np.float32))
        assert VideoFile(tmp_path / sink.name).pixel_aspect == aspect


def gray_clip(path: Path, top: int, low: int, high: int, form: str) -> Path:
    """A ramp that moves, from `low` to `high` of 0 to `top`."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.height, stream.width, stream.pix_fmt = 32, 64, form
        for n in range(6):
            ramp = np.roll(np.linspace(low, high, 64), 4 * n)[None].repeat(32, 0) * (65535 / top)
            wide = np.rint(ramp).astype(np.uint16)
            if "gray" in form:
                frame = av.VideoFrame.from_ndarray(wide, format="gray16le").reformat(format=form)
            else:
                frame = av.VideoFrame.from_ndarray(np.dstack([wide] * 3), format="rgb48le").reformat(format=form)
            frame.pts, frame.time_base = n, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(
    ("form", "top", "low", "high"),
    [
        ("gray16le", 65535, 29000, 31000),
        ("gray16le", 65535, 0, 1023),
        ("gray10le", 1023, 400, 480),
        ("gray12le", 4095, 100, 900),
        ("gbrp10le", 1023, 100, 300),
        ("gbrp16le", 65535, 29000, 31000),
        ("rgb48le", 65535, 500, 4000),
    ],
)
def test_values_that_fill_a_part_of_their_range_are_stretched(tmp_path: Path, form: str, top: int, low: int, high: int) -> None:
    source = open_source(gray_clip(tmp_path / "a.mkv", top, low, high, form))
    image = source.read(0).image
    assert np.abs(image[0, :, 0].astype(float) - np.linspace(0, 255, 64)).max() < 4
    assert np.array_equal(np.roll(image, 8, 1), source.read(2).image)
    note = "".join(source.notes)
    assert "were stretched to 0 to 255" in note
    found = [float(word) for word in note.split("the values ")[1].split(" (")[0].split(" to ")]
    assert found == pytest.approx([low, high], rel=0.05)
    middle = (low + high) / 2
    narrow = open_source(tmp_path / "a.mkv", value_range=(middle, high)).read(0).image[0, :, 0]
    assert narrow[:31].max() == 0
    assert narrow[-1] >= 253


@pytest.mark.parametrize("form", ["gray16le", "gray10le", "gbrp12le"])
def test_values_that_fill_their_range_keep_their_scale(tmp_path: Path, form: str) -> None:
    source = open_source(gray_clip(tmp_path / "a.mkv", 65535, 6000, 60000, form))
    assert np.abs(source.read(0).image[0, :, 0] - np.linspace(6000, 60000, 64) / 257).max() < 2
    assert not list(source.notes)


@pytest.mark.parametrize("transfer", ["smpte2084", "arib-std-b67"])
def test_high_dynamic_range_is_toned_down(tmp_path: Path, transfer: str) -> None:
    """A page of paper (203 nits) is nearly white, what is brighter is no brighter than white, and dark stays as it was."""
    nits = np.repeat([5.0, 20, 100, 203, 800], 16)[None].repeat(32, 0)
    if transfer == "smpte2084":
        power = (nits / 10000) ** (2610 / 16384)
        signal = ((3424 / 4096 + 2413 / 128 * power) / (1 + 2392 / 128 * power)) ** (2523 / 32)
    else:
        scene = (nits / 1000) ** (1 / 1.2)
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        signal = np.where(scene <= 1 / 12, np.sqrt(3 * scene), a * np.log(np.maximum(12 * scene - b, 1e-9)) + c)
    wide = np.rint(signal * 65535).astype(np.uint16)[..., None].repeat(3, 2)
    path = tmp_path / "hdr.mkv"
    with av.open(str(path), "w") as container:
        params = f"colorprim=bt2020:transfer={transfer}:colormatrix=bt2020nc:log-level=error:crf=1:bframes=0"
        stream = container.add_stream("libx265", rate=25, options={"x265-params": params})
        stream.height, stream.width, stream.pix_fmt = *nits.shape, "yuv420p10le"
        frame = av.VideoFrame.from_ndarray(wide, format="rgb48le").reformat(format="yuv420p10le", dst_colorspace="BT2020")
        frame.pts, frame.time_base = 0, Fraction(1, 25)
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    source = open_source(path)
    found = source.read(0).image[16, 8::16, 0].astype(float)
    sdr = hdr.srgb(np.array([5, 20, 100]) / 203) * 255
    assert np.abs(found[:3] - sdr).max() < 5
    assert 228 < found[3] < 245 < found[4] <= 255
    assert "high dynamic range" in "".join(source.notes)


def test_the_inverses_of_the_transfer_functions() -> None:
    """Points from the standards: 100 nits are 0.5081 in PQ (ST 2084); half of HLG's signal is a twelfth of the scene's light."""
    pq = hdr._decoding(hdr.PQ)
    assert pq[round(0.5081 * 65535)] * 203 == pytest.approx(100, rel=0.005)
    assert pq[65535] * 203 == pytest.approx(10000, rel=1e-3)
    hlg = hdr._decoding(hdr.HLG)
    assert hlg[32768] == pytest.approx(1 / 12, rel=1e-3)
    assert hlg[65535] == pytest.approx(1, rel=1e-3)
