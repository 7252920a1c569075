"""Mattes for video editors, decoded and measured."""

from __future__ import annotations

import json
import shutil
import subprocess
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from vosformer.io import CutOuts, Frame
from vosformer.io.edges import EdgedSinks, Edges, closed_form
from vosformer.io.mattes import MatteFilms, MatteImages, start_timecode

RATE = Fraction(24000, 1001)


def write(sink: object, numbers: list[int], size: tuple[int, int] = (30, 50)) -> None:
    sink.check_ids([2, 7])
    for number in numbers:
        labels = np.zeros(size, np.int32)
        labels[5:15, 5 + number : 25 + number] = 7
        frame = Frame(number, f"{number:05d}", None, float(number / RATE))
        sink.write(frame, labels, {7: 1.0}, lambda i, labels=labels: (labels == i).astype(np.float32))
    sink.close()


@pytest.mark.parametrize(("codec", "worst"), [("prores_ks", 60), ("ffv1", 0)])
def test_a_film_is_as_long_as_the_source_and_says_its_time_code(codec: str, worst: int, tmp_path: Path) -> None:
    write(MatteFilms(tmp_path / "matte", "clip", RATE, 8, "01:00:00:00", codec=codec), [2, 3, 4, 5])
    end = "mkv" if codec == "ffv1" else "mov"
    path = tmp_path / "matte" / f"clip_7_matte.{end}"
    assert sorted(p.name for p in (tmp_path / "matte").iterdir()) == [f"clip_2_matte.{end}", f"clip_7_matte.{end}"]
    with av.open(str(path)) as film:
        assert film.streams.video[0].guessed_rate == RATE
        frames = [frame.to_ndarray(format="gray").astype(int) for frame in film.decode(video=0)]
    assert len(frames) == 8
    assert start_timecode(path) == "01:00:00:00"
    for number, gray in enumerate(frames):
        truth = np.zeros((30, 50), int)
        if 2 <= number <= 5:
            truth[5:15, 5 + number : 25 + number] = 255
        inside = abs(gray - truth)
        assert inside.max() <= worst
        assert inside.mean() <= worst / 20
        if number == 3:
            assert gray[10, 15] >= 253
            assert gray[25, 40] <= 2


@pytest.mark.skipif(shutil.which("ffprobe") is None, reason="ffprobe is not installed")
def test_ffprobe_reads_the_film(tmp_path: Path) -> None:
    write(MatteFilms(tmp_path, "clip", RATE, 6, "10:00:00:12"), list(range(6)))
    words = ["ffprobe", "-v", "error", "-count_frames", "-show_streams", "-of", "json", str(tmp_path / "clip_7_matte.mov")]
    streams = json.loads(subprocess.run(words, capture_output=True, check=True).stdout)["streams"]
    video = next(stream for stream in streams if stream["codec_type"] == "video")
    assert (video["pix_fmt"], video["nb_read_frames"], video["r_frame_rate"]) == ("yuv422p10le", "6", "24000/1001")
    assert any(stream.get("tags", {}).get("timecode") == "10:00:00:12" for stream in streams)


def test_pictures_are_numbered_as_the_source_and_edges_grow_and_soften(tmp_path: Path) -> None:
    import cv2

    write(EdgedSinks([MatteImages(tmp_path / "m", "clip")], Edges(grow=2)), [4])
    gray = cv2.imread(str(tmp_path / "m" / "7" / "clip.00004.png"), cv2.IMREAD_UNCHANGED)
    assert gray.ndim == 2
    assert gray[:, 19].nonzero()[0].tolist() == list(range(3, 17))
    assert not cv2.imread(str(tmp_path / "m" / "2" / "clip.00004.png"), cv2.IMREAD_UNCHANGED).any()
    square = np.zeros((40, 40), np.float32)
    square[10:30, 10:30] = 1
    soft = Edges(feather=2)(square)
    assert soft[20, 10] == pytest.approx(0.6, abs=0.05)
    assert soft.sum() == pytest.approx(400, rel=0.01)
    assert Edges(grow=-3)(square).sum() < 14 * 14 + 1


def test_cryptomatte_picks_each_object_by_its_name(tmp_path: Path) -> None:
    """Read as a compositing program does: the id of a name from the manifest, then the coverage of its pairs."""
    exr = pytest.importorskip("OpenEXR", reason="OpenEXR is not installed")
    pytest.importorskip("mmh3", reason="mmh3 is not installed")
    from vosformer.io.cryptomatte import CryptomatteImages

    write(CryptomatteImages(tmp_path, "clip", {7: "left dog"}), [4])
    with exr.File(str(tmp_path / "clip.00004.exr"), separate_channels=True) as file:
        header = dict(file.header())
        channels = {name: np.array(channel.pixels) for name, channel in file.channels().items()}
    key = next(name for name in header if name.startswith("cryptomatte/") and name.endswith("/manifest"))
    manifest = json.loads(header[key])
    assert set(manifest) == {"left dog", "object 2"}
    code = np.array([int(manifest["left dog"], 16)], np.uint32).view(np.float32)[0]
    matte = sum(
        np.where(channels[f"CryptoObject{layer:02d}.{i}"] == code, channels[f"CryptoObject{layer:02d}.{c}"], 0)
        for layer in range(3)
        for i, c in ("RG", "BA")
    )
    truth = np.zeros((30, 50), np.float32)
    truth[5:15, 9:29] = 1
    assert np.array_equal(matte, truth)


def soft_disk(size: int = 60) -> np.ndarray:
    """How much of each pixel a disk covers whose edge is 6 pixels wide."""
    y, x = np.mgrid[:size, :size]
    return np.clip((20 - np.hypot(y - size / 2, x - size / 2)) / 6 + 0.5, 0, 1).astype(np.float32)


def test_closed_form_matting_finds_a_soft_edge_in_the_band() -> None:
    """A disk of one color over another: the picture itself says how much of each pixel is the disk (equation 1 of the paper)."""
    pytest.importorskip("pymatting", reason="pymatting is not installed")
    truth = soft_disk()
    near, far = np.array([220, 60, 40]), np.array([30, 90, 200])
    image = np.rint(truth[..., None] * near + (1 - truth[..., None]) * far).astype(np.uint8)
    hard = (truth >= 0.5).astype(np.float32)
    found = closed_form(hard, image, 6)
    assert np.abs(found - truth).max() < 0.1
    assert np.abs(found - truth).mean() < 0.01 < np.abs(hard - truth).mean()
    beside = closed_form(np.concatenate([hard, hard], 1), np.concatenate([image, image], 1), 6)
    assert np.abs(beside - np.concatenate([found, found], 1)).max() < 0.02
    assert np.array_equal(closed_form(np.ones_like(hard), image, 6), np.ones_like(hard)), "no edge, nothing to find"


def test_edges_are_those_of_all_soft_outputs_and_found_once(tmp_path: Path) -> None:
    """Cut-outs and mattes get the same alpha; each object's edge is looked for once a frame."""
    asked = []

    class Counting(Edges):
        def __call__(self, matte, image=None):
            asked.append(1)
            return super().__call__(matte, image)

    sinks = EdgedSinks([MatteImages(tmp_path / "m", "clip"), CutOuts(tmp_path / "c")], Counting(grow=3))
    labels = np.zeros((30, 50), np.int32)
    labels[10:20, 10:20] = 7
    with sinks:
        sinks.check_ids([7])
        sinks.write(
            Frame(0, "00000", np.zeros((30, 50, 3), np.uint8), 0.0),
            labels,
            {7: 1.0},
            lambda i: (labels == i).astype(np.float32),
        )
    matte = np.asarray(Image.open(tmp_path / "m" / "7" / "clip.00000.png"))
    alpha = np.asarray(Image.open(tmp_path / "c" / "7" / "00000.png"))[..., 3]
    assert np.array_equal(matte, alpha)
    assert (matte > 0).sum() > 220
    assert len(asked) == 1
