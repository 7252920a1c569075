"""Broken, cut, swapped and lying input of every kind: each ends with a result or one sentence of ours, soon, in little memory."""

from __future__ import annotations

import importlib.util
import io
import json
import resource
import struct
import time
import zipfile
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
from io_videos import encode, picture
from PIL import Image

from vosformer import formats
from vosformer.errors import VOSError
from vosformer.formats import LabeledFrame, LabeledVideo, ObjectInfo
from vosformer.formats.outputs import Setting, make_sinks
from vosformer.inference.absence import read_absences
from vosformer.io import Frame, indexed_png, open_source, read_labels
from vosformer.io.legend import ColorIds, read_legend

CASES = Path(__file__).parents[1] / "fixtures" / "cases"
MOST_SECONDS = 20.0  # of processor time, for one input
MOST_BYTES = 3 << 30  # of memory that the process may come to hold

LABELS = np.zeros((40, 60), np.uint8)
LABELS[5:20, 5:20], LABELS[10:35, 30:50] = 1, 2


def frames_of(path: Path) -> None:
    with open_source(path, allow_truncated=True) as source:
        for number, _ in enumerate(source):
            if number > 40:
                break
        if source.count:
            source.read(source.count - 1)


def labels_of(path: Path) -> None:
    read_labels(path, allow_empty=True, colors=ColorIds(number="unknown"))


def seeds(folder: Path) -> list[tuple[Path, Callable[[Path], None]]]:
    """(file, its reader): at least one of every kind that is read."""
    folder.mkdir()
    pictures = [Image.fromarray(picture(n)) for n in range(4)]
    for name in ["a.png", "a.jpg", "a.webp", "a.tif", "a.bmp", "a.gif", "a.tga", "a.jp2", "a.avif", "a.ppm", "a.pcx", "a.sgi"]:
        pictures[0].save(folder / name)
    for name in ["stack.tif", "anim.webp", "anim.avif", "anim.gif", "anim.png"]:
        pictures[0].save(folder / name, save_all=True, append_images=pictures[1:])
    wide = np.linspace(500, 3000, 60).astype(np.uint16)[None].repeat(40, 0)
    cv2.imwrite(str(folder / "wide.png"), wide)
    cv2.imwrite(str(folder / "colors.tif"), np.dstack([wide] * 3))
    cv2.imwrite(str(folder / "float.tif"), np.dstack([wide] * 3).astype(np.float32))
    cv2.imwrite(str(folder / "light.hdr"), np.dstack([wide] * 3).astype(np.float32))
    cv2.imwritemulti(str(folder / "colors_stack.tif"), [np.dstack([wide] * 3)] * 3)
    (folder / "cam.mjpeg").write_bytes((folder / "a.jpg").read_bytes() * 4)
    for name, codec in [
        ("a.mp4", "libx264"),
        ("a.mkv", "libx264"),
        ("a.avi", "mpeg4"),
        ("a.webm", "libvpx-vp9"),
        ("a.ts", "libx264"),
    ]:
        encode(folder / name, [picture(n) for n in range(12)], codec=codec, gop=5)
    found: list[tuple[Path, Callable[[Path], None]]] = [(path, frames_of) for path in sorted(folder.iterdir())]
    found += [(CASES / name, frames_of) for name in ("earlier.ts", "cut.ts", "change.ts", "two.mkv", "cut_off.mp4")]
    (folder / "list.txt").write_text("a.png\na.png\n")
    (folder / "indexed.png").write_bytes(indexed_png(LABELS))
    Image.fromarray(LABELS).save(folder / "gray.png")
    np.save(folder / "m.npy", LABELS)
    np.savez_compressed(folder / "m.npz", LABELS)
    found += [(folder / name, labels_of) for name in ("indexed.png", "gray.png", "a.png", "a.tif", "a.gif", "m.npy", "m.npz")]
    (folder / "legend.json").write_text(json.dumps({"1": [255, 0, 0], "2": "#00ff00"}))
    (folder / "absent.json").write_text(json.dumps({"1": [[2, 5]], "2": "7-"}))
    found += [(folder / "legend.json", read_legend), (folder / "absent.json", read_absences)]
    return [*found, (folder / "list.txt", frames_of), *annotations(folder / "annotations")]


def annotations(folder: Path) -> list[tuple[Path, Callable[[Path], None]]]:
    """(file, its reader) of every annotation format that is a file, of one file of those that are folders, of names and of zips."""
    frames = [LabeledFrame.of_labels(n, f"{n:05d}", np.roll(LABELS, n, 1)) for n in range(3)]
    objects = [ObjectInfo(1, "left dog", "dog", (250, 9, 8)), ObjectInfo(2)]
    video = LabeledVideo.of("clip", frames, objects, length=4)
    found: list[tuple[Path, Callable[[Path], None]]] = []
    for name, form in formats.FORMATS.items():
        if form.write is None:
            continue
        path = folder / form.place
        formats.write(video, path, name, pictures=open_source(np.zeros((4, *LABELS.shape, 3), np.uint8)))
        files = sorted(item for item in path.rglob("*") if item.suffix in (".json", ".txt", ".xml")) if form.folder else [path]
        if files and files[0].name != "labels.txt":
            found += [(files[0], partial(masks_of, form=name)), (files[0], partial(masks_of, form=None))]
    with zipfile.ZipFile(folder / "m.zip", "w") as packed:
        for item in sorted((folder / "objects").rglob("*.png")):
            packed.write(item, item.relative_to(folder))
    (folder / "names.json").write_text(json.dumps(formats.names_json(objects)))
    found += [(folder / "m.zip", partial(masks_of, form=None)), (folder / "names.json", formats.read_names)]
    if importlib.util.find_spec("OpenEXR") and importlib.util.find_spec("mmh3"):
        (folder / "exr").mkdir()
        with make_sinks(["exr"], folder, Setting(open_source(np.zeros((4, *LABELS.shape, 3), np.uint8)), "clip"))[0] as sink:
            sink.write(
                Frame(0, "00000", None, None), LABELS.astype(np.int32), {1: 1.0}, lambda i: (i == LABELS).astype(np.float32)
            )
        found.append((folder / "exr" / "clip.00000.exr", partial(masks_of, form="exr")))
    return found


def masks_of(path: Path, form: str | None) -> None:
    """Read annotations as the format they were, or (None) as what they look like; decode every mask, and write them again."""
    video = formats.read(path, format=form, size=LABELS.shape)
    for frame in video.frames:
        frame.labels(video.height, video.width)
    if video.height * video.width < 1 << 20 and video.length < 1000:
        formats.write(video, path.with_name("again.json"), "coco", overwrite=True)


def spoiled(data: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    """The data with bytes flipped, cut, doubled, swapped for those of another kind, or a header field that lies."""
    bad = bytearray(data)
    kind = int(rng.integers(6))
    at = int(rng.integers(len(bad) + 1))
    near = int(rng.integers(min(len(bad), 200) + 1))
    if kind == 0:
        for place in rng.integers(0, max(1, len(bad)), int(rng.integers(1, 20))):
            bad[place] ^= 1 << int(rng.integers(8))
    elif kind == 1:
        del bad[at:]
    elif kind == 2:
        del bad[at : at + int(rng.integers(1, 64))]
    elif kind == 3:
        bad[at:at] = bad[at : at + int(rng.integers(1, 4096))]
    elif kind == 4:
        bad[at:] = other[int(rng.integers(len(other) + 1)) :]
    else:
        values = [
            b"\xff\xff\xff\xff",
            b"\x00\x00\x00\x00",
            b"\x7f\xff\xff\xff",
            struct.pack("<I", 100_000),
            struct.pack(">I", 100_000),
        ]
        bad[near : near + 4] = values[int(rng.integers(len(values)))]
    return bytes(bad)


def endures(read: Callable[[Path], None], path: Path) -> None:
    """Read a file: whatever is in it, the end is a result or one sentence."""
    begin, sentence = time.process_time(), "none"
    try:
        read(path)
    except VOSError as error:
        sentence = str(error)
    assert sentence
    assert "\n" not in sentence
    assert time.process_time() - begin < MOST_SECONDS


def fuzz(tmp_path: Path, count: int, seed: int) -> None:
    files = seeds(tmp_path / "seeds")
    contents = [path.read_bytes() for path, _ in files]
    rng = np.random.default_rng(seed)
    for number in range(count):
        at = number % len(files)
        path, read = files[at]
        target = tmp_path / f"{path.stem}{path.suffix}"
        target.write_bytes(spoiled(contents[at], contents[int(rng.integers(len(files)))], rng))
        try:
            endures(read, target)
        except BaseException:
            print(f"input {number} of seed {seed}, made of {path.name}")
            raise
        target.unlink()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 < MOST_BYTES


@pytest.mark.filterwarnings("ignore")
def test_a_few_hundred_broken_inputs(tmp_path: Path) -> None:
    fuzz(tmp_path, 240, seed=1)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("seed", range(2, 12))
def test_ten_thousand_broken_inputs(tmp_path: Path, seed: int) -> None:
    fuzz(tmp_path, 1000, seed)


def png_of(height: int, width: int) -> bytes:
    """A PNG of a size that its pixels, all black, are compressed for a thousandfold or not there at all."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = zlib.compress(bytes(50_000_000), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def tiff_of(height: int, width: int) -> bytes:
    tags = [(256, width), (257, height), (258, 16), (259, 1), (262, 2), (273, 8), (277, 3), (278, height), (279, 100)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(tags)) + entries + bytes(4)


def bomb(size: int) -> bytes:
    buffer = io.BytesIO()
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (40_000, 60_000)})
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", header.getvalue() + bytes(size))
    return buffer.getvalue()


@pytest.mark.parametrize("reader", [frames_of, labels_of])
@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("tall.png", png_of(100_000, 100_000)),
        ("long.png", png_of(1, 2_000_000_000)),
        ("tall.tif", tiff_of(100_000, 100_000)),
        ("none.png", png_of(0, 5)),
        ("tall.ppm", b"P6 100000 100000 255\n" + bytes(1000)),
        ("wide.pgm", b"P5 100000 100000 65535\n" + bytes(1000)),
        (
            "tall.bmp",
            b"BM" + struct.pack("<IHHI", 1000, 0, 0, 54) + struct.pack("<IiiHHI", 40, 100_000, 100_000, 1, 24, 0) + bytes(900),
        ),
        (
            "tall.gif",
            b"GIF89a" + struct.pack("<HH", 65535, 65535) + b"\x80\0\0" + bytes(6) + b",\0\0\0\0\xff\xff\xff\xff\0\2\1D\0;",
        ),
        ("bomb.npz", bomb(1_000_000)),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_sizes_that_lie(tmp_path: Path, reader: Callable[[Path], None], name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    endures(reader, tmp_path / name)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 20  # kilobytes
