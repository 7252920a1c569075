from __future__ import annotations

import gc
import http.server
import threading
import tracemalloc
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from io_videos import encode, noisy, number_of, packets, picture, spoil

from vosformer.errors import InputError
from vosformer.io import LiveStream, VideoFile, open_source
from vosformer.io import video as video_module
from vosformer.io.decoded import turn


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return encode(tmp_path_factory.mktemp("clip") / "clip.mp4", [picture(n) for n in range(40)])


def numbers(frames) -> list[int]:
    found = []
    for frame in frames:
        assert frame.image is not None
        assert number_of(frame.image) == frame.number
        found.append(frame.number)
    return found


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("a.mp4", "libx264"),
        ("a.mov", "libx264"),
        ("a.mkv", "libx264"),
        ("a.ts", "libx264"),
        ("a.webm", "libvpx-vp9"),
        ("b.webm", "libvpx"),
        ("a.avi", "mpeg4"),
        ("b.avi", "libx264"),
        ("b.mkv", "mpeg4"),
        ("a file: 100%d é.mp4", "libx264"),
    ],
)
def test_every_container_gives_all_frames_in_both_directions(tmp_path: Path, name: str, codec: str) -> None:
    path = encode(tmp_path / name, [picture(n) for n in range(24)], codec=codec)
    with open_source(path) as source:
        assert (source.height, source.width, source.count, source.live) == (48, 64, 24, False)
        assert source.fps == 25
        assert numbers(source) == list(range(24))
        assert numbers(reversed(source)) == list(range(23, -1, -1))
        assert numbers(source.frames(7, 20, 3)) == [7, 10, 13, 16, 19]
        assert numbers(source.frames(17, 3, -4)) == [17, 13, 9, 5]
        assert number_of(source.read(15).image) == 15
        times = [frame.time for frame in source]
        assert times == pytest.approx([n / 25 for n in range(24)], abs=1.1e-3)


def test_frames_are_contiguous_rgb(clip: Path) -> None:
    frame = VideoFile(clip).read(3)
    assert frame.name == "00003"
    assert frame.image.dtype == np.uint8
    assert frame.image.flags["C_CONTIGUOUS"]
    assert np.abs(frame.image[4, 4].astype(int) - (200, 20, 20)).max() < 12


def test_a_range_outside_the_video_is_refused(clip: Path) -> None:
    source = VideoFile(clip)
    with pytest.raises(InputError, match=r"no frame 40: it has 40 frames, 0 to 39"):
        source.read(40)
    with pytest.raises(InputError, match="step of 0"):
        source.frames(0, 5, 0)
    assert numbers(source.frames(38, 500)) == [38, 39]
    assert numbers(source.frames(5, 5)) == []


def test_variable_frame_rate_is_kept(tmp_path: Path) -> None:
    times = [0, 0.04, 0.08, 0.3, 0.31, 0.5, 1.2, 1.25]
    path = encode(tmp_path / "v.mp4", [picture(n) for n in range(8)], times=times)
    source = VideoFile(path)
    assert source.variable_rate
    assert [frame.time for frame in source] == pytest.approx(times, abs=1e-3)
    assert float(source.fps) == pytest.approx(7 / 1.25, rel=0.01)


def test_a_constant_rate_is_not_called_variable(clip: Path) -> None:
    assert not VideoFile(clip).variable_rate


@pytest.mark.parametrize("rotation", [90, 180, -90])
@pytest.mark.parametrize("kind", ["mp4", "mkv"])
def test_rotation_is_applied(tmp_path: Path, rotation: int, kind: str) -> None:
    path = encode(tmp_path / f"r.{kind}", [picture(2)] * 3, rotation=rotation)
    source = VideoFile(path)
    image = source.read(1).image
    # FFmpeg's angles are counterclockwise, as NumPy's.
    wanted = np.rot90(picture(2), rotation // 90)
    assert image.shape == wanted.shape == (source.height, source.width, 3)
    assert np.abs(image.astype(int) - wanted).mean() < 3


def test_display_matrices_turn_and_mirror() -> None:
    image = np.arange(6, dtype=np.uint8).reshape(2, 3)[:, :, None].repeat(3, 2)
    one = 1 << 16
    # The matrix that telephones write for a clip that is shown turned clockwise: (a, b, c, d) = (0, 1, -1, 0).
    assert np.array_equal(turn(image, (0, one, -one, 0)), np.rot90(image, -1))
    assert np.array_equal(turn(image, (0, -one, one, 0)), np.rot90(image))
    assert np.array_equal(turn(image, (-one, 0, 0, one)), image[:, ::-1])
    assert np.array_equal(turn(image, (one, 0, 0, -one)), image[::-1])
    assert np.array_equal(turn(image, (0, one, one, 0)), image.swapaxes(0, 1))


@pytest.mark.parametrize("kind", ["mp4", "mkv"])
def test_frames_that_do_not_decode_are_numbered_and_passed_over(tmp_path: Path, kind: str) -> None:
    path = encode(tmp_path / f"broken.{kind}", [noisy(n) for n in range(40)], b_frames=0)
    spoil(path, [13, 14])
    source = VideoFile(path)
    frames = list(source)
    assert [frame.number for frame in frames] == list(range(40))
    bad = [frame.number for frame in frames if frame.image is None]
    assert {13, 14} <= set(bad) <= {13, 14, 15}
    assert frames[13].problem
    assert [frame.number for frame in reversed(source)] == list(range(39, -1, -1))
    assert source.read(13).image is None
    for number in (12, 20, 39):
        assert np.array_equal(source.read(number).image, frames[number].image)


def test_what_follows_a_broken_key_frame_is_the_same_wherever_one_starts(tmp_path: Path) -> None:
    path = encode(tmp_path / "broken.mp4", [noisy(n) for n in range(40)], b_frames=0)
    assert [place for place, packet in enumerate(packets(path)) if packet[1]] == [0, 10, 20, 30]
    spoil(path, [20])
    source = VideoFile(path)
    straight = list(source)
    assert straight[20].image is None
    for number in (21, 25, 29):
        again = source.read(number)
        assert (again.image is None) == (straight[number].image is None)
        if again.image is not None:
            assert np.array_equal(again.image, straight[number].image)
    for frame in source.frames(30, 15, -1):
        assert np.array_equal(frame.image, straight[frame.number].image)


def test_backwards_holds_a_bounded_number_of_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = encode(tmp_path / "long.mp4", [picture(n % 40) for n in range(60)], gop=60)
    monkeypatch.setattr(video_module, "_BACKWARD_BYTES", 8 * 48 * 64 * 3 // 2)
    source = VideoFile(path)
    held, most = 0, 0
    original = VideoFile._decode_until

    def counted(self, first, last):
        nonlocal held, most
        held = last - first + 1
        most = max(most, held)
        yield from original(self, first, last)

    monkeypatch.setattr(VideoFile, "_decode_until", counted)
    assert [frame.number for frame in reversed(source)] == list(range(59, -1, -1))
    assert most == 8


@pytest.mark.parametrize("step", [1, -1])
def test_decoded_frames_are_freed_without_the_garbage_collector(clip: Path, step: int) -> None:
    source = VideoFile(clip)
    gc.collect()
    gc.disable()
    try:
        for _ in source.frames(step=step):
            pass
        # PyAV may still hold the last one; with a cycle there would be all 40.
        assert sum(type(thing).__name__ == "VideoFrame" for thing in gc.get_objects()) <= 1
    finally:
        gc.enable()


def test_reading_on_does_not_gather_memory(clip: Path) -> None:
    source = VideoFile(clip)
    tracemalloc.start()
    frames = iter(source)
    next(frames)
    before = tracemalloc.get_traced_memory()[0]
    for _ in frames:
        pass
    assert tracemalloc.get_traced_memory()[0] - before < 100_000
    tracemalloc.stop()


def test_a_truncated_mp4_is_refused_or_used_on_request(tmp_path: Path) -> None:
    whole = encode(tmp_path / "a.mp4", [noisy(n) for n in range(30)], container_options={"movflags": "faststart"})
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size * 6 // 10])
    with pytest.raises(InputError, match=r"cut\.mp4.*cut off"):
        open_source(cut)
    with open_source(cut, allow_truncated=True) as source:
        assert 10 < len([frame for frame in source if frame.image is not None]) < 25


def test_a_truncated_mkv_is_refused(tmp_path: Path) -> None:
    whole = encode(tmp_path / "a.mkv", [noisy(n) for n in range(40)])
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with pytest.raises(InputError, match=r"cut\.mkv.*announces 1\.60 s"):
        open_source(cut)


def test_an_mp4_without_its_index_says_so(tmp_path: Path, clip: Path) -> None:
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(clip.read_bytes()[: clip.stat().st_size * 6 // 10])
    with pytest.raises(InputError, match="without its index"):
        open_source(cut)


def test_files_that_are_no_video_are_refused_by_name_and_content(tmp_path: Path) -> None:
    def refused(name: str, data: bytes, match: str) -> None:
        path = tmp_path / name
        path.write_bytes(data)
        with pytest.raises(InputError, match=match) as caught:
            open_source(path)
        assert str(path) in str(caught.value)

    with pytest.raises(InputError, match=r"nothere\.mp4: there is no such file"):
        open_source(tmp_path / "nothere.mp4")
    refused("empty.mp4", b"", "the file is empty")
    refused("text.mp4", b"hello world\n" * 50, "text that begins with 'hello world")
    refused("text.txt", b"hello world\n" * 50, "text that begins with 'hello world")
    refused("image.png", b"hello world\n" * 50, "text that begins with 'hello world")
    refused("list.ffconcat", b"ffconcat version 1.0\nfile /etc/passwd\n", "is no video")
    refused("list.m3u8", b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", "is no video")
    refused("junk.mkv", bytes(range(256)) * 40, "unknown or broken kind")


def test_sound_without_video_is_refused(tmp_path: Path) -> None:
    import av

    path = tmp_path / "sound.wav"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
    with pytest.raises(InputError, match=r"no video in it \(found: audio\)"):
        open_source(path)


def test_a_video_without_frames_is_refused(tmp_path: Path) -> None:
    import av

    path = tmp_path / "none.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        container.start_encoding()
    with pytest.raises(InputError, match=r"without a single frame|no video"):
        open_source(path)


def test_the_fingerprint_follows_the_content(tmp_path: Path, clip: Path) -> None:
    same = tmp_path / "renamed.mp4"
    same.write_bytes(clip.read_bytes())
    other = encode(tmp_path / "other.mp4", [picture(n) for n in range(39)])
    assert VideoFile(same).fingerprint() == VideoFile(clip).fingerprint() != VideoFile(other).fingerprint()


def test_names_find_their_frames(clip: Path) -> None:
    source = VideoFile(clip)
    names = {"00007": 7, "000007": 7, "007": 7, "000": 0, "07": None, "7": None, "00040": None, "x": None, "x_007": None}
    assert {name: source.find(name) for name in names} == names


@pytest.fixture
def server(tmp_path: Path):
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path))) as http_server:
        thread = threading.Thread(target=http_server.serve_forever, daemon=True)
        thread.start()
        yield f"127.0.0.1:{http_server.server_port}"
        http_server.shutdown()


def test_an_address_is_read_once_and_in_order(tmp_path: Path, server: str) -> None:
    encode(tmp_path / "a.ts", [picture(n) for n in range(20)])
    with open_source(f"http://{server}/a.ts") as source:
        assert isinstance(source, LiveStream)
        assert (source.height, source.width, source.count, source.live) == (48, 64, None, True)
        assert numbers(source.frames(2, 5)) == [2, 3, 4]
        assert numbers(source) == list(range(5, 20))
        with pytest.raises(InputError, match="once and in order"):
            source.frames(step=-1).__next__()
        assert source.fingerprint() is None


def test_an_address_that_does_not_answer_is_named_without_its_password(server: str) -> None:
    with pytest.raises(InputError, match=r"http://127.*missing\.mp4 cannot be opened") as caught:
        open_source(f"http://me:secret@{server}/missing.mp4")
    assert "secret" not in str(caught.value)


def test_a_camera_that_is_not_there_is_named() -> None:
    with pytest.raises(InputError, match="camera:97 cannot be opened"):
        open_source("camera:97")


def test_devices_are_read_like_streams() -> None:
    with LiveStream("testsrc=size=32x16:rate=30", kind="lavfi") as source:
        frames = list(source.frames(stop=4))
    assert [frame.number for frame in frames] == [0, 1, 2, 3]
    assert frames[0].image.shape == (16, 32, 3)
    assert frames[3].time == pytest.approx(0.1)
    assert source.fps == Fraction(30)
