"""Recordings that were cut off or joined: never read shorter without a word. Whole ones are read without one."""

from __future__ import annotations

from pathlib import Path

import av
import pytest
from io_videos import encode, noisy

from vosformer.errors import InputError
from vosformer.io import VideoFile, open_source

CASES = Path(__file__).parents[1] / "fixtures" / "cases"
FRAMES = 20
KINDS = {
    "a.mkv": "libx264",
    "a.webm": "libvpx-vp9",
    "b.webm": "libvpx",
    "a.flv": "libx264",
    "a.avi": "mpeg4",
    "a.wmv": "wmv2",
    "a.mxf": "mpeg2video",
    "a.ivf": "libvpx-vp9",
    "a.ts": "libx264",
    "a.mts": "libx264",
    "a.mpg": "mpeg2video",
    "a.ogv": "libtheora",
    "a.gif": "gif",
    "a.apng": "apng",
    "a.swf": "flv",
}
OPEN_ENDED = {"a.ts", "a.mts", "a.mpg", "a.ogv", "a.gif"}


def film(path: Path) -> bytes:
    codec = KINDS[path.name]
    try:
        av.codec.Codec(codec, "w")
    except ValueError:
        pytest.skip(f"this PyAV has no encoder {codec}")
    if codec in ("gif", "apng"):
        with av.open(str(path), "w") as container:
            stream = container.add_stream(codec, rate=25)
            stream.height, stream.width, stream.pix_fmt = 48, 64, "rgb24" if codec == "apng" else "rgb8"
            for number in range(FRAMES):
                frame = av.VideoFrame.from_ndarray(noisy(number), format="rgb24").reformat(format=stream.pix_fmt)
                frame.pts = number
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    else:
        encode(path, [noisy(number, 64, 96) for number in range(FRAMES)], codec=codec, gop=5)
    return path.read_bytes()


@pytest.mark.parametrize("name", KINDS)
def test_a_whole_file_has_no_note(tmp_path: Path, name: str) -> None:
    film(tmp_path / name)
    with open_source(tmp_path / name) as source:
        assert sum(frame.image is not None for frame in source) == FRAMES
        assert list(source.notes) == []


@pytest.mark.parametrize("share", [0.5, 0.9])
@pytest.mark.parametrize("name", KINDS)
def test_a_file_that_was_cut_off_is_never_read_in_silence(tmp_path: Path, name: str, share: float) -> None:
    path = tmp_path / name
    data = film(path)
    size = int(share * len(data))
    path.write_bytes(data[: size - size % 188 + 71])
    if name not in OPEN_ENDED:
        with pytest.raises(InputError, match="--allow-truncated"):
            open_source(path)
    with open_source(path, allow_truncated=True) as source:
        assert 0 < sum(frame.image is not None for frame in source) < FRAMES
        assert "cut off" in "".join(source.notes) or "as far as it goes" in "".join(source.notes)


def test_a_joined_flv_says_what_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.flv"
    path.write_bytes(2 * film(path))
    with open_source(path) as source:
        assert source.count == FRAMES
        assert "another recording is joined to it" in "".join(source.notes)


@pytest.mark.parametrize("kind", ["ts", "mkv"])
def test_whole_frames_of_h264_are_not_decoded_to_count_them(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A transport stream does not say whether its H.264 is interlaced, and one that may be seldom has fields of their own."""
    options = {"x264-params": "fake-interlaced=1"}
    path = encode(tmp_path / f"a.{kind}", [noisy(number) for number in range(6)], options=options)
    monkeypatch.setattr(VideoFile, "_decode_file", lambda self: pytest.fail("the whole file was decoded"))
    with open_source(path) as source:
        assert source.count == 6


def test_fields_are_paired_without_decoding_the_film(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vosformer.io.video._COMPARED_FRAMES", 1)
    decoded: list[object] = []
    inner = VideoFile._decode_file

    def counted(self: VideoFile):
        for frame in inner(self):
            decoded.append(frame)
            yield frame

    monkeypatch.setattr(VideoFile, "_decode_file", counted)
    with open_source(CASES / "fields.mp4") as source:
        assert source.count == 4
        assert len(decoded) == 1


def test_frames_are_counted_by_decoding_where_the_packets_told_something_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vosformer.io.h264_fields.FieldPairs.completes", lambda self, data: setattr(self, "fields", True))
    with open_source(CASES / "fields.mp4") as source:
        assert source.count == 4
        assert "decoded once to count" in "".join(source.notes)
