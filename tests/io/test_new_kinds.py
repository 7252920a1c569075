"""HEIC, JPEG XL, and pictures of high dynamic range."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from io_videos import number_of, picture
from PIL import Image

from vosformer.errors import InputError
from vosformer.io import hdr, open_source
from vosformer.io.images import read_image

PICTURES = Path(__file__).parents[1] / "fixtures" / "pictures"


@pytest.mark.parametrize("suffix", [".heic", ".HEIF", ".hif"])
def test_pictures_of_telephones(tmp_path: Path, suffix: str) -> None:
    """A folder of them, and a single one."""
    heif = pytest.importorskip("pillow_heif", reason="pillow-heif is not installed")
    for number in range(3):
        heif.from_pillow(Image.fromarray(picture(number))).save(tmp_path / f"{number}{suffix}", quality=-1)
    with open_source(tmp_path) as source:
        frames = list(source)
    assert [number_of(frame.image) for frame in frames] == [0, 1, 2]
    assert all(np.abs(frame.image.astype(int) - picture(n)).mean() < 2 for n, frame in enumerate(frames))
    with open_source(tmp_path / f"0{suffix}") as source:
        assert [frame.image.shape for frame in source] == [(48, 64, 3)]


def test_jpeg_xl(tmp_path: Path) -> None:
    """A picture without loss, and gray of 16 bits (2000 to 3000), which are not cut to 8."""
    pytest.importorskip("pillow_jxl", reason="pillow-jxl-plugin is not installed")
    with open_source(PICTURES / "rgb8.jxl") as source:
        assert np.array_equal(source.read(0).image, picture(3))
    with open_source(str(PICTURES / "gray*.jxl")) as source:
        assert len(np.unique(source.read(0).image)) > 50
        assert "values 2000 to 3000" in "".join(source.notes)


@pytest.mark.parametrize(("suffix", "head"), [("heic", b"\0\0\0\x18ftypheic"), ("jxl", b"\xff\x0a\0\0")])
def test_a_kind_without_its_package_says_which_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, head: bytes
) -> None:
    for name in ("pillow_heif", "pillow_jxl"):
        monkeypatch.setitem(sys.modules, name, None)
    (tmp_path / f"a.{suffix}").write_bytes(head + bytes(100))
    monkeypatch.setattr(Image, "ID", [kind for kind in Image.ID if kind not in ("HEIF", "JXL")])  # as before any was read
    with pytest.raises(InputError, match=r"install vosformer\[pictures\]"):
        read_image(tmp_path / f"a.{suffix}")


def light(path: Path, values: np.ndarray) -> Path:
    assert cv2.imwrite(str(path), values[..., ::-1].astype(np.float32))
    return path


def scene(scale: float, sun: float) -> np.ndarray:
    """Gray steps of linear light, and a small sun."""
    values = np.repeat(np.linspace(0.02, 0.6, 96, dtype=np.float32)[None], 64, 0)[..., None].repeat(3, 2)
    values[2:8, 2:8] = sun
    return values * scale


def test_light_of_radiance_is_shown_as_srgb(tmp_path: Path) -> None:
    """Nothing above white: as an ordinary picture, without a word."""
    with open_source(light(tmp_path / "a.hdr", scene(1, 0.6)).parent) as source:
        image = source.read(0).image
        assert list(source.notes) == []
    wanted = hdr.srgb(scene(1, 0.6)) * 255
    assert np.abs(image - wanted).max() < 3


@pytest.mark.parametrize("scale", [1.0, 500.0, 1e-4])
def test_a_sun_does_not_make_the_rest_black(tmp_path: Path, scale: float) -> None:
    """In ordinary exposure, and in files of other units: the steps stay apart, the sun is white, and it is said."""
    light(tmp_path / "0.hdr", scene(scale, 5000))
    light(tmp_path / "1.hdr", scene(scale, 0.5))
    with open_source(tmp_path) as source:
        first, second = (frame.image.astype(int) for frame in source)
        assert "toned down" in "".join(source.notes)
    assert np.array_equal(first[20:], second[20:]), "one range for the whole source"
    assert first[4, 4].min() >= 250
    steps = first[40, :, 0]
    assert (np.diff(steps) >= 0).all()
    assert 20 < steps[0] < 90 < steps[-1] < 250
    assert len(np.unique(steps)) > 60


def test_a_range_of_linear_light_is_chosen_in_values_of_the_file(tmp_path: Path) -> None:
    light(tmp_path / "0.hdr", scene(1, 5000))
    with open_source(tmp_path, value_range=(0, 0.5)) as source:
        image = source.read(0).image
    wanted = hdr.srgb((scene(1, 5000) / 0.5).clip(0, 1)) * 255
    assert np.abs(image - wanted).max() < 3


def test_a_folder_of_videos_says_what_follows_many(tmp_path: Path) -> None:
    """Case 19."""
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(InputError, match=r"one is read at a time.*vosformer batch"):
        open_source(tmp_path)
