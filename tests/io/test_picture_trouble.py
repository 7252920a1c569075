"""Pictures of every kind, depth and name, several of them in a file, and what lies beside them."""

from __future__ import annotations

import io
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from io_videos import number_of, picture
from PIL import Image

from vosformer.errors import InputError
from vosformer.io import image_folder, open_source
from vosformer.io.images import read_image
from vosformer.io.order import in_order

RNG = np.random.default_rng(0)


def gray_picture(number: int) -> np.ndarray:
    """As `picture`, without color, and from black to white."""
    image = picture(number)[..., 1].copy()
    image[:2, :2], image[:2, 2:4] = 0, 255
    return image


def write(path: Path, number: int, **options) -> None:
    Image.fromarray(picture(number)).save(path, **options)


@pytest.mark.parametrize(
    ("suffix", "form"),
    [
        (".jfif", "JPEG"),
        (".jpe", "JPEG"),
        (".JPG", "JPEG"),
        (".tga", "TGA"),
        (".jp2", "JPEG2000"),
        (".avif", "AVIF"),
        (".gif", "GIF"),
        (".pcx", "PCX"),
        (".sgi", "SGI"),
        (".dib", "DIB"),
        (".frame", "PNG"),
        ("", "PNG"),
    ],
)
def test_every_kind_that_pillow_reads_is_a_frame(tmp_path: Path, suffix: str, form: str) -> None:
    for n in range(4):
        write(tmp_path / f"{n:05d}{suffix}", n, format=form)
    source = open_source(tmp_path)
    assert [number_of(frame.image) for frame in source] == [0, 1, 2, 3]
    assert not list(source.notes)


def ffmpeg_picture(path: Path, codec: str, form: str, values: np.ndarray, kind: str) -> None:
    with av.open(str(path), "w", format="image2", options={"update": "1"}) as container:
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width, stream.pix_fmt = *values.shape[:2], form
        frame = av.VideoFrame.from_ndarray(values, format=kind)
        container.mux(stream.encode(frame if form == kind else frame.reformat(format=form)))
        container.mux(stream.encode(None))


def test_dpx_and_exr(tmp_path: Path) -> None:
    ramp = np.linspace(0, 1, 64)[None, :, None].repeat(32, 0).repeat(3, 2)
    ffmpeg_picture(tmp_path / "a.dpx", "dpx", "gbrp10le", np.rint(ramp * 65535).astype(np.uint16), "rgb48le")
    assert np.abs(read_image(tmp_path / "a.dpx") - ramp * 255).max() < 2
    # OpenEXR holds linear light.
    linear = np.where(ramp <= 0.04045, ramp / 12.92, ((ramp + 0.055) / 1.055) ** 2.4).astype(np.float32)
    ffmpeg_picture(tmp_path / "a.exr", "exr", "gbrpf32le", linear, "gbrpf32le")
    assert np.abs(read_image(tmp_path / "a.exr") - ramp * 255).max() < 2


@pytest.mark.parametrize("kind", ["float", "16 bits", "gray float"])
def test_tiff_of_other_depths(tmp_path: Path, kind: str) -> None:
    for n in range(3):
        values = picture(n)[..., ::-1]
        if kind == "16 bits":
            values = values.astype(np.uint16) * 257
        else:
            values = (values if kind == "float" else gray_picture(n)).astype(np.float32) / 255
        cv2.imwrite(str(tmp_path / f"{n}.tif"), values)
    source = open_source(tmp_path)
    assert [number_of(frame.image) for frame in source] == [0, 1, 2]
    assert (
        np.abs(source.read(1).image.astype(int) - (picture(1) if kind != "gray float" else gray_picture(1)[..., None])).max()
        <= 1
    )


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("colors", [False, True])
@pytest.mark.parametrize(("low", "high"), [(29000, 31000), (0, 1023), (100, 4095)])
def test_16_bits_are_stretched_alike_in_all_frames(tmp_path: Path, suffix: str, colors: bool, low: int, high: int) -> None:
    """The frames have other contents, so that a range of each would differ."""
    ramp = np.rint(np.linspace(low, high, 64)).astype(np.uint16)[None].repeat(32, 0)
    for n in range(4):
        values = np.clip(ramp + (high - low) // 8 * n, low, high).astype(np.uint16)
        cv2.imwrite(str(tmp_path / f"{n}{suffix}"), np.dstack([values] * 3) if colors else values)
    source = open_source(tmp_path)
    for n in range(4):
        wanted = np.clip(np.linspace(0, 255, 64) + 255 / 8 * n, 0, 255)
        assert np.abs(source.read(n).image[0, :, 0] - wanted).max() < 3
    assert "were stretched to 0 to 255, the same for every frame; --range LOW:HIGH" in "".join(source.notes)
    chosen = open_source(tmp_path, value_range=(low, 2 * high - low)).read(0).image[0, :, 0]
    assert np.abs(chosen - np.linspace(0, 127.5, 64)).max() < 2


def test_arrays_of_16_bits_are_stretched_alike(tmp_path: Path) -> None:
    arrays = np.stack([np.full((8, 9), 1000 + 100 * n, np.uint16) for n in range(5)])
    source = open_source(arrays)
    assert [int(frame.image[0, 0, 0]) for frame in source] == pytest.approx([0, 64, 128, 191, 255], abs=1)
    assert len(source.notes) == 1


def together(frames: list[np.ndarray], form: str) -> bytes:
    data = b""
    for frame in frames:
        buffer = io.BytesIO()
        Image.fromarray(frame).save(buffer, form)
        data += buffer.getvalue()
    return data


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.webp", {"lossless": True, "duration": 40}),
        ("a.avif", {"duration": 40, "quality": 95}),
        ("a.gif", {"duration": 40}),
        ("a.png", {"duration": 40}),
        ("a.tif", {}),
        ("lzw.tif", {"compression": "tiff_lzw"}),
    ],
)
def test_files_of_several_pictures_are_many_frames(tmp_path: Path, name: str, options: dict) -> None:
    frames = [Image.fromarray(picture(n)) for n in range(7)]
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], **options)
    source = open_source(tmp_path / name)
    assert source.count == 7
    assert [number_of(frame.image) for frame in source] == list(range(7))
    assert [number_of(frame.image) for frame in reversed(source)] == list(range(6, -1, -1))
    assert number_of(source.read(5).image) == 5
    if "duration" in options:
        assert [frame.time for frame in source] == pytest.approx([0.04 * n for n in range(7)], abs=1e-3)
        assert source.fps == 25


@pytest.mark.parametrize("name", ["cam.mjpeg", "cam.mjpg", "cam.jpg", "cam.mjpeg.txt"])
def test_raw_mjpeg_is_many_frames(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(together([picture(n) for n in range(6)], "JPEG"))
    source = open_source(tmp_path / name)
    assert source.count == 6
    assert [number_of(frame.image) for frame in source] == list(range(6))
    assert [number_of(frame.image) for frame in reversed(source)] == list(range(5, -1, -1))


@pytest.mark.parametrize("form", ["PNG", "PPM", "BMP"])
def test_pictures_one_after_the_other_are_many_frames(tmp_path: Path, form: str) -> None:
    (tmp_path / "a.bin").write_bytes(together([picture(n) for n in range(6)], form))
    assert [number_of(frame.image) for frame in open_source(tmp_path / "a.bin")] == list(range(6))


def test_a_saved_multipart_stream_is_many_frames(tmp_path: Path) -> None:
    data = b""
    for n in range(5):
        jpeg = together([picture(n)], "JPEG")
        data += b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%s\r\n" % (len(jpeg), jpeg)
    (tmp_path / "cam.mjpg").write_bytes(data)
    assert [number_of(frame.image) for frame in open_source(tmp_path / "cam.mjpg")] == list(range(5))


def test_pictures_that_belong_to_another_are_no_frames(tmp_path: Path) -> None:
    """A smaller preview behind a JPEG, the thumbnail in its EXIF data, the video of a telephone, the other eye of an MPO."""
    one, small = together([picture(3)], "JPEG"), together([picture(4, 24, 32)], "JPEG")
    thumbnail = b"\xff\xe1" + (len(small) + 8).to_bytes(2, "big") + b"Exif\0\0" + small
    (tmp_path / "preview.jpg").write_bytes(one + small)
    (tmp_path / "thumbnail.jpg").write_bytes(one[:2] + thumbnail + one[2:])
    (tmp_path / "motion.jpg").write_bytes(one + b"\0\0\0\x18ftypmp42" + bytes(1000))
    Image.fromarray(picture(3)).save(tmp_path / "stereo.mpo", "MPO", save_all=True, append_images=[Image.fromarray(picture(4))])
    for name in ("preview.jpg", "thumbnail.jpg", "motion.jpg", "stereo.mpo"):
        source = open_source(tmp_path / name)
        assert source.count == 1
        assert number_of(source.read(0).image) == 3


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("colors", [False, True])
def test_stacks_of_every_depth(tmp_path: Path, dtype: type, colors: bool) -> None:
    scale = {np.uint8: 1, np.uint16: 257, np.float32: 1 / 255}[dtype]
    pages = [(picture(n) if colors else gray_picture(n)).astype(np.float64) * scale for n in range(5)]
    cv2.imwritemulti(
        str(tmp_path / "a.tif"), [np.rint(p).astype(dtype) if dtype != np.float32 else p.astype(dtype) for p in pages]
    )
    source = open_source(tmp_path / "a.tif")
    assert source.count == 5
    assert [number_of(frame.image) for frame in source] == list(range(5))
    assert [number_of(frame.image) for frame in reversed(source)] == list(range(4, -1, -1))


def test_a_thermal_stack_is_stretched(tmp_path: Path) -> None:
    ramp = np.linspace(29000, 31000, 64)[None].repeat(32, 0)
    cv2.imwritemulti(str(tmp_path / "a.tif"), [np.roll(ramp, n, 1).astype(np.uint16) for n in range(5)])
    source = open_source(tmp_path / "a.tif")
    assert np.abs(source.read(0).image[0, :, 0] - np.linspace(0, 255, 64)).max() < 3
    assert "29000 to 31000" in "".join(source.notes)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif", ".avif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_of_every_format(tmp_path: Path, suffix: str, orientation: int) -> None:
    flat = np.zeros((32, 48, 3), np.uint8)
    flat[:16, :24], flat[:16, 24:], flat[16:, :24] = (200, 0, 0), (0, 200, 0), (0, 0, 200)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(flat).save(tmp_path / f"a{suffix}", exif=exif)
    turned = {1: flat, 2: flat[:, ::-1], 3: flat[::-1, ::-1], 4: flat[::-1], 5: flat.swapaxes(0, 1)}
    turned |= {6: np.rot90(flat, -1), 7: np.rot90(flat, 2).swapaxes(0, 1), 8: np.rot90(flat)}
    source = open_source(tmp_path)
    assert (source.height, source.width) == turned[orientation].shape[:2]
    assert np.abs(source.read(0).image.astype(int) - turned[orientation]).mean() < 12


def test_exif_behind_the_pixels_of_a_png(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    write(tmp_path / "a.png", 1, exif=exif)
    data = (tmp_path / "a.png").read_bytes()
    at = data.index(b"eXIf") - 4
    chunk = data[at : at + 12 + int.from_bytes(data[at : at + 4], "big")]
    end = data.index(b"IEND") - 4
    (tmp_path / "a.png").write_bytes(data[:at] + data[at + len(chunk) : end] + chunk + data[end:])
    source = open_source(tmp_path)
    assert (source.height, source.width) == (64, 48)
    assert np.array_equal(source.read(0).image, np.rot90(picture(1), -1))


def test_what_is_left_out_of_a_folder_is_named(tmp_path: Path) -> None:
    for n in range(4):
        write(tmp_path / f"{n:05d}.png", n)
    write(tmp_path / "00004.jfif", 4, format="JPEG")
    (tmp_path / "00005.png").symlink_to(tmp_path / "store" / "5f3a")
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "masks").mkdir()
    Image.fromarray(picture(0, 24, 32)).save(tmp_path / "cover.jpg")
    (tmp_path / "Thumbs.db").write_bytes(b"x")
    source = open_source(tmp_path)
    frames = list(source)
    assert [None if frame.image is None else number_of(frame.image) for frame in frames] == [0, 1, 2, 3, 4, None]
    assert "link to" in frames[5].problem
    assert "DVC" in frames[5].problem
    notes = "\n".join(source.notes)
    assert "no frames and were not used: masks/, notes.txt" in notes
    assert "another size than its frames, which were not used: cover.jpg" in notes
    assert "Thumbs.db" not in notes


def test_a_folder_of_broken_links_or_pointers_says_so(tmp_path: Path) -> None:
    for n in range(3):
        (tmp_path / f"{n}.png").symlink_to("../.git/annex/objects/x")
    with pytest.raises(InputError, match=r"none of its 3 images can be read.*link to .*git-annex"):
        open_source(tmp_path)
    for n in range(3):
        (tmp_path / f"{n}.png").unlink()
        (tmp_path / f"{n}.png").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(InputError, match="pointer of Git LFS"):
        open_source(tmp_path)


def test_frames_of_two_sizes_are_refused_with_their_names(tmp_path: Path) -> None:
    for n in range(4):
        Image.fromarray(picture(n, 24 if n == 2 else 48)).save(tmp_path / f"{n}.png")
    with pytest.raises(InputError, match=r"one size \(1 of 4 differ: 2\.png\)"):
        open_source(tmp_path)


@pytest.mark.parametrize(
    ("names", "noted"),
    [
        (["1700000000.3", "1700000000.35", "1700000000.4", "1700000000.45"], True),  # str() of seconds
        (["0.05", "0.1", "0.15", "0.2", "10.0"], True),
        (["1700000000.5000000", "1700000000.40000000", "1700000000.950000000"], True),  # sec.nsec without zeros in front
        (["1.000", "1.500", "2.000"], False),
        (["frame_0.5", "frame_0.25"][::-1], True),
        (["-2", "-1", "0", "1"], True),
        (["clip-1", "clip-2", "clip-10"], False),
        (["1e-05", "0.001", "0.01"], True),
        (["08", "09", "0a", "0f", "10", "1a"], True),
        (["0e", "0f", "10", "1a", "1b", "20"], True),
        (["a1", "a2", "a10"], False),
        (["2024.1.9", "2024.1.10", "2024.2.1"], False),
        (["0,5", "0,75", "1,0"], False),
    ],
)
def test_names_are_ordered_as_numbers(tmp_path: Path, names: list[str], noted: bool) -> None:
    for n, name in enumerate(names):
        write(tmp_path / f"{name}.png", n)
    source = image_folder(tmp_path)
    assert [frame.name for frame in source] == names
    assert bool(list(source.notes)) == noted


def test_the_order_does_not_depend_on_the_order_of_the_files() -> None:
    paths = [Path(f"{n / 20:g}.png") for n in range(60)]
    shuffled = [paths[at] for at in RNG.permutation(60)]
    assert in_order(shuffled) == paths


def test_lists_and_patterns(tmp_path: Path) -> None:
    frames = tmp_path / "frames"
    frames.mkdir()
    for n in range(12):
        write(frames / f"{n:05d}.png", n)
        write(frames / f"x{n}.jpg", n + 20)
    (tmp_path / "list.txt").write_text("# mine\nframes/00003.png\n\nframes/00001.png\n")
    assert [number_of(f.image) for f in open_source(tmp_path / "list.txt")] == [3, 1]
    assert [number_of(f.image) for f in open_source(f"{frames}/%05d.png")] == list(range(12))
    assert [number_of(f.image) for f in open_source(f"{frames}/x%d.jpg")] == list(range(20, 32))
    assert [number_of(f.image) for f in open_source(f"{frames}/*.png")] == list(range(12))
    assert [number_of(f.image) for f in open_source(f"{frames}/x1?.jpg")] == [30, 31]
    with pytest.raises(InputError, match="no file has a name of this pattern"):
        open_source(f"{frames}/%04d.bmp")
    (tmp_path / "list.txt").write_text("frames/00003.png\nframes/nothere.png\n")
    with pytest.raises(InputError, match=r"lists .*nothere\.png"):
        open_source(tmp_path / "list.txt")
