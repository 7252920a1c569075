from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from vosformer.errors import InputError
from vosformer.io import open_source
from vosformer.io.images import read_image
from vosformer.io.order import natural_key

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (12, 20, 3)).astype(np.uint8)


def save(path: Path, pixels: np.ndarray = PIXELS, **options: object) -> Path:
    Image.fromarray(pixels).save(path, **options)
    return path


def test_natural_order() -> None:
    names = [
        "frame 10.png",
        "frame 9.png",
        "Frame 1.png",
        "frame 2b.png",
        "frame 2a.png",
        "a.png",
        "10.png",
        "9.png",
        "007.png",
    ]
    wanted = [
        "007.png",
        "9.png",
        "10.png",
        "a.png",
        "Frame 1.png",
        "frame 2a.png",
        "frame 2b.png",
        "frame 9.png",
        "frame 10.png",
    ]
    assert sorted(names, key=natural_key) == wanted


def test_a_folder_with_any_names_and_kinds(tmp_path: Path) -> None:
    names = ["shot2.png", "shot10.bmp", "shot1.tiff", "shot3.webp", "shot20.PNG"]
    for number, name in enumerate(names):
        image = np.full_like(PIXELS, 10 * number)
        Image.fromarray(image).save(tmp_path / name, **({"lossless": True} if name.endswith("webp") else {}))
    for name in [".hidden.png", "Thumbs.db", "notes.txt"]:
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "sub").mkdir()
    with open_source(tmp_path) as source:
        assert (source.height, source.width, source.count, source.fps) == (12, 20, 5, None)
        assert [frame.name for frame in source] == ["shot1", "shot2", "shot3", "shot10", "shot20"]
        assert [int(frame.image[0, 0, 0]) for frame in source] == [20, 0, 30, 10, 40]
        assert [frame.number for frame in source.frames(4, 0, -2)] == [4, 2]
        assert source.find("shot10") == 3
        assert source.find("shot11") is None
        assert source.read(1).time is None


def test_every_pixel_kind_becomes_rgb(tmp_path: Path) -> None:
    gray = PIXELS[:, :, 0]
    assert np.array_equal(read_image(save(tmp_path / "rgb.png")), PIXELS)
    assert np.array_equal(read_image(save(tmp_path / "gray.png", gray)), gray[:, :, None].repeat(3, 2))
    wide = gray.astype(np.uint16) * 257
    cv2.imwrite(str(tmp_path / "gray16.png"), wide)
    assert np.array_equal(read_image(tmp_path / "gray16.png"), gray[:, :, None].repeat(3, 2))
    for kind in ("png", "tiff"):
        cv2.imwrite(str(tmp_path / f"rgb16.{kind}"), PIXELS[:, :, ::-1].astype(np.uint16) * 257)
        assert np.array_equal(read_image(tmp_path / f"rgb16.{kind}"), PIXELS)
    alpha = np.dstack([PIXELS, np.where(np.arange(20) < 10, 255, 0)[None].repeat(12, 0)]).astype(np.uint8)
    assert np.array_equal(
        read_image(save(tmp_path / "rgba.png", alpha)), np.where(np.arange(20)[None, :, None] < 10, PIXELS, 0)
    )
    Image.fromarray(gray).convert("1").save(tmp_path / "one.png")
    assert set(np.unique(read_image(tmp_path / "one.png"))) == {0, 255}
    Image.fromarray(PIXELS).convert("P", palette=Image.Palette.ADAPTIVE).save(tmp_path / "p.png")
    assert np.abs(read_image(tmp_path / "p.png").astype(int) - PIXELS).mean() < 30
    Image.fromarray((gray / 255).astype(np.float32)).save(tmp_path / "f.tiff")
    assert np.array_equal(read_image(tmp_path / "f.tiff")[:, :, 0], gray)
    Image.fromarray((gray * 9.0 - 5).astype(np.float32)).save(tmp_path / "f.tiff")
    stretched = (gray.astype(float) - gray.min()) / np.ptp(gray) * 255
    assert np.abs(read_image(tmp_path / "f.tiff")[:, :, 0] - stretched).max() <= 2


def test_exif_rotation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    image = np.zeros((16, 32, 3), np.uint8)
    image[:, :16] = 255
    save(tmp_path / "a.jpg", image, exif=exif)
    source = open_source(tmp_path / "a.jpg")
    assert (source.height, source.width, source.count) == (32, 16, 1)
    assert np.abs(source.read(0).image.astype(int) - np.rot90(image, -1)).max() < 9


def test_a_broken_image_in_the_middle_is_numbered_and_passed_over(tmp_path: Path) -> None:
    for number in range(5):
        save(tmp_path / f"{number}.jpg", RNG.integers(0, 256, (64, 64, 3)).astype(np.uint8))
    whole = (tmp_path / "2.jpg").read_bytes()
    (tmp_path / "2.jpg").write_bytes(whole[: len(whole) // 3])
    (tmp_path / "3.jpg").write_bytes(b"")
    frames = list(open_source(tmp_path))
    assert [frame.number for frame in frames if frame.image is None] == [2, 3]
    assert str(tmp_path / "2.jpg") in frames[2].problem


def test_folders_that_are_no_video_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no images \(found: no files\)"):
        open_source(tmp_path)
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(InputError, match=r"has no images \(found: a.txt\)"):
        open_source(tmp_path)
    (tmp_path / "a.png").write_text("x")
    with pytest.raises(InputError, match=r"none of its 1 images can be read"):
        open_source(tmp_path)
    save(tmp_path / "a.png")
    save(tmp_path / "b.png", PIXELS[:10])
    with pytest.raises(InputError, match=r"b\.png is 20 x 10 pixels, but a\.png is 20 x 12"):
        open_source(tmp_path)
    save(tmp_path / "b.png")
    save(tmp_path / "b.bmp")
    with pytest.raises(InputError, match=r"several images named 'b'"):
        open_source(tmp_path)


def test_a_single_image_that_does_not_decode_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png")
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(InputError, match=r"a\.png does not decode"):
        open_source(path)


def test_a_list_of_images(tmp_path: Path) -> None:
    paths = [save(tmp_path / name) for name in ("b.png", "a.png")]
    assert [frame.name for frame in open_source(paths)] == ["b", "a"]
    with pytest.raises(InputError, match=r"c\.png: there is no such file"):
        open_source([*paths, tmp_path / "c.png"])


@pytest.mark.parametrize("kind", ["array", "list", "gray", "uint16"])
def test_arrays(kind: str) -> None:
    clip = RNG.integers(0, 256, (6, 9, 11, 3)).astype(np.uint8)
    given = {"array": clip, "list": list(clip), "gray": clip[..., 0], "uint16": clip.astype(np.uint16) * 257}[kind]
    wanted = clip[..., :1].repeat(3, -1) if kind == "gray" else clip
    assert open_source(given, fps=29.97).fps == Fraction(2997, 100)
    with pytest.raises(InputError, match="fps is 0"):
        open_source(given, fps=0)
    source = open_source(given, fps=Fraction(10))
    assert (source.height, source.width, source.count, source.live) == (9, 11, 6, False)
    frames = list(source)
    assert np.array_equal([frame.image for frame in frames], wanted)
    assert [frame.time for frame in frames] == pytest.approx([n / 10 for n in range(6)])
    assert [frame.name for frame in reversed(source)][:2] == ["00005", "00004"]
    assert source.fingerprint() == open_source(given).fingerprint() != open_source(given[:5]).fingerprint()


def test_one_image_as_an_array() -> None:
    assert open_source(PIXELS).count == 1


def test_an_iterator_is_read_once_and_may_fill_the_same_buffer_again() -> None:
    def generate():
        buffer = np.zeros((4, 5, 3), np.uint8)
        for number in range(6):
            buffer[:] = number
            yield None if number == 3 else buffer

    source = open_source(generate())
    assert (source.height, source.width, source.count, source.live) == (4, 5, None, True)
    frames = list(source)
    assert [None if frame.image is None else int(frame.image.max()) for frame in frames] == [0, 1, 2, None, 4, 5]
    assert frames[3].problem
    assert list(source) == []
    with pytest.raises(InputError, match="once and in order"):
        next(open_source(generate()).frames(step=-1))
    assert [frame.number for frame in open_source(generate()).frames(1, 5, 2)] == [1, 3]


def test_arrays_that_are_no_frames_are_refused() -> None:
    for given, match in [
        (np.zeros((2, 4, 5, 3)), "dtype float64"),
        (np.zeros((2, 4, 5, 7), np.uint8), r"shape \(4, 5, 7\)"),
        (np.zeros((4, 5), np.uint8), r"shape \(4, 5\)"),
        (np.zeros((0, 4, 5, 3), np.uint8), "empty"),
        (np.zeros((2, 0, 5, 3), np.uint8), r"shape \(0, 5, 3\)"),
        ([], "empty"),
        (iter([]), "empty"),
        (7, "int holds no frames"),
    ]:
        with pytest.raises(InputError, match=match):
            open_source(given)
    mixed = [np.zeros((4, 5, 3), np.uint8), np.zeros((4, 6, 3), np.uint8)]
    for given in (mixed, iter(mixed)):
        with pytest.raises(InputError, match=r"frame 1 of .* is 6 x 4 pixels: expected 5 x 4"):
            list(open_source(given))
