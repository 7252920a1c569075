"""ROS bags: pictures of every encoding as frames, labels with the pictures' own stamps as messages."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from bags import COMPRESSED, RAW, START, STEP, Bag
from dummy_models import flat_clip
from mcap.reader import make_reader
from PIL import Image
from rosbags.highlevel import AnyReader

from vosformer.cli import main
from vosformer.errors import InputError
from vosformer.io import Frame, LabelBag, open_source
from vosformer.testing import tiny_model
from vosformer.weights import save_weights


def write(path: Path, kind: str, images: list[np.ndarray]) -> None:
    with Bag(path, kind) as bag:
        for n, image in enumerate(images):
            bag.raw("/camera/image", n, image, "rgb8")


@pytest.mark.parametrize("kind", ["mcap", "db3", "ros1"])
def test_frames_of_every_kind_of_bag(kind: str, tmp_path: Path) -> None:
    images = flat_clip((1, 2), 40)[0]
    path = tmp_path / ("run.bag" if kind == "ros1" else "run")
    write(path, kind, images)
    for address in (f"bag:{path}", f"bag:{path}?topic=/camera/image", *[f"bag:{file}" for file in path.glob(f"*.{kind}")]):
        with open_source(address) as source:
            assert (source.count, source.height, source.width, float(source.fps)) == (
                40,
                129,
                193,
                pytest.approx(1 / 0.033, rel=1e-3),
            )
            for frame, image in zip(source, images, strict=True):
                assert np.array_equal(frame.image, image)
                assert frame.time == pytest.approx(frame.number * 0.033, abs=1e-6)
            assert [f.number for f in source.frames(37, 3, -7)] == [37, 30, 23, 16, 9]
            assert all(np.array_equal(f.image, images[f.number]) for f in reversed(source))
            assert np.array_equal(source.read(17).image, images[17])
            taken = START + 3 * STEP
            assert source.stamp(3) == (taken // 10**9, taken % 10**9, "camera_left", taken + 5_000_000)
    assert open_source(f"bag:{path}").fingerprint() == open_source(f"bag:{path}").fingerprint()


def bayer(rgb: np.ndarray, pattern: str) -> np.ndarray:
    channel = {"r": 0, "g": 1, "b": 2}
    mosaic = np.zeros(rgb.shape[:2], rgb.dtype)
    for n, color in enumerate(pattern):
        mosaic[n // 2 :: 2, n % 2 :: 2] = rgb[n // 2 :: 2, n % 2 :: 2, channel[color]]
    return mosaic


FLAT = np.zeros((32, 48, 3), np.uint8)
FLAT[:, :24], FLAT[:, 24:] = (200, 60, 20), (10, 90, 180)
BGR = FLAT[..., ::-1]
GRAY = np.repeat(cv2.cvtColor(FLAT, cv2.COLOR_RGB2GRAY)[..., None], 3, 2)


@pytest.mark.parametrize(
    ("values", "encoding", "wanted"),
    [
        (FLAT, "rgb8", FLAT),
        (BGR, "bgr8", FLAT),
        (BGR, "8UC3", FLAT),
        (np.dstack([FLAT, np.full((32, 48), 255, np.uint8)]), "rgba8", FLAT),
        (np.dstack([BGR, np.full((32, 48), 255, np.uint8)]), "bgra8", FLAT),
        (GRAY[..., 0], "mono8", GRAY),
        (FLAT.astype(np.uint16) * 257, "rgb16", FLAT),
        (BGR.astype(np.uint16) * 257, "bgr16", FLAT),
        *[(bayer(FLAT, pattern), f"bayer_{pattern}8", FLAT) for pattern in ("rggb", "bggr", "gbrg", "grbg")],
        (cv2.cvtColor(FLAT, cv2.COLOR_RGB2YUV_UYVY), "yuv422", FLAT),
        (cv2.cvtColor(FLAT, cv2.COLOR_RGB2YUV_YUY2), "yuv422_yuy2", FLAT),
        (GRAY[..., 0].astype(np.float32) / 255, "32FC1", GRAY),
        (GRAY[..., 0].astype(np.uint16) * 257, "mono16", GRAY),
        (GRAY[..., 0].astype(np.uint16) * 257, "16UC1", GRAY),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize("padding", [0, 13])
def test_encodings(values: np.ndarray, encoding: str, wanted: np.ndarray, padding: int, tmp_path: Path) -> None:
    with Bag(tmp_path / "run") as bag:
        bag.raw("/image", 0, values, encoding, padding, big=padding > 0)
    most = {"f": 1, "u": np.iinfo(values.dtype).max if values.dtype.kind == "u" else 0}[values.dtype.kind]
    found = open_source(f"bag:{tmp_path / 'run'}", value_range=(0, most)).read(0).image.astype(int)
    inner = np.abs(found - wanted.astype(int))[2:-2, np.r_[2:22, 26:46]]  # mosaics and halved colors blur edges
    assert inner.max() <= 5


def test_values_that_fill_a_part_of_their_range_are_stretched_and_that_is_told(tmp_path: Path) -> None:
    with Bag(tmp_path / "run") as bag:
        for n in range(3):
            bag.raw("/image", n, np.linspace(1000 + n, 3000, 600).reshape(20, 30).astype(np.uint16), "mono16")
    source = open_source(f"bag:{tmp_path / 'run'}")
    assert (source.read(1).image.min(), source.read(1).image.max()) == (0, 255)
    assert "were stretched to 0 to 255" in next(iter(source.notes))


def test_nv12_has_half_as_many_rows_of_colors(tmp_path: Path) -> None:
    planes = cv2.cvtColor(FLAT, cv2.COLOR_RGB2YUV_I420)
    half = planes[32:].ravel().reshape(2, -1)
    nv12 = np.vstack([planes[:32], half.T.reshape(16, 48)])
    with Bag(tmp_path / "run") as bag:
        bag.raw("/image", 0, nv12, "nv12", height=32)
    found = open_source(f"bag:{tmp_path / 'run'}").read(0).image.astype(int)
    assert np.abs(found - FLAT)[2:-2, np.r_[2:22, 26:46]].max() <= 5


def test_compressed_pictures_and_damaged_ones(tmp_path: Path) -> None:
    with Bag(tmp_path / "run") as bag:
        bag.put("/image/compressed", 0, COMPRESSED, format="jpeg", data=np.arange(50, dtype=np.uint8))
        bag.compressed("/image/compressed", 1, BGR, ".png", "rgb8; png compressed bgr8")
        bag.compressed("/image/compressed", 2, BGR, ".jpg", "rgb8; jpeg compressed bgr8")
        bag.compressed("/image/compressed", 3, GRAY[..., 0], ".png", "mono8; png compressed")
    frames = list(open_source(f"bag:{tmp_path / 'run'}"))
    assert "does not decode" in frames[0].problem
    assert np.array_equal(frames[1].image, FLAT)
    assert np.abs(frames[2].image.astype(int) - FLAT)[:, np.r_[2:20, 28:46]].max() < 12
    assert np.array_equal(frames[3].image, GRAY)


def test_messages_recorded_at_the_same_time_stay_apart(tmp_path: Path) -> None:
    with Bag(tmp_path / "run") as bag:
        for n in range(6):
            bag.raw("/image", n, np.full((4, 6, 3), 40 * n, np.uint8), "rgb8", recorded=START + n // 3)
    source = open_source(f"bag:{tmp_path / 'run'}")
    assert [int(source.read(n).image[0, 0, 0]) for n in range(6)] == [0, 40, 80, 120, 160, 200]
    assert [int(f.image[0, 0, 0]) for f in source.frames(4, None, -1)] == [160, 120, 80, 40, 0]


def test_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    with Bag(tmp_path / "two") as bag:
        bag.raw("/left", 0, FLAT, "rgb8")
        bag.raw("/right", 0, FLAT, "cmyk")
        bag.put("/depth", 0, COMPRESSED, format="16UC1; compressedDepth png", data=np.zeros(9, np.uint8))
        bag.raw("/sizes", 0, FLAT, "rgb8")
        bag.raw("/sizes", 1, FLAT[:8], "rgb8")
    (tmp_path / "cut.mcap").write_bytes(next((tmp_path / "two").glob("*.mcap")).read_bytes()[:200])
    (tmp_path / "x.txt").write_text("x")
    two = f"bag:{tmp_path / 'two'}"
    for address, message in (
        (two, r"several image topics: choose one with bag:.*\?topic=\.\.\.: /depth, /left, /right, /sizes"),
        (f"{two}?topic=/up", "the topic /up is not in it; image topics are /depth"),
        (f"{two}?topik=/left", "expected bag:PATH"),
        (f"{two}?topic=/right", "none of the 1 pictures of /right decodes: the encoding 'cmyk' is not known"),
        (f"{two}?topic=/depth", "a depth picture"),
        (f"bag:{tmp_path / 'none.mcap'}", "there is no such bag"),
        ("bag:", "expected bag:PATH"),
        (f"bag:{tmp_path / 'x.txt'}", "is no bag: expected a file .bag, .mcap, .db3"),
        (f"bag:{tmp_path / 'cut.mcap'}", "no bag that can be read"),
    ):
        with pytest.raises(InputError, match=message):
            open_source(address)
    with pytest.raises(InputError, match="frame 1 is 48 x 8 pixels, but the first is 48 x 32"):
        list(open_source(f"{two}?topic=/sizes"))


@pytest.mark.parametrize("kind", ["mcap", "ros1"])
def test_a_recording_is_tracked_and_labels_come_back_with_its_stamps(kind: str, tmp_path: Path) -> None:
    images, labels = flat_clip((1, 300), 6)
    path = tmp_path / ("run.bag" if kind == "ros1" else "run")
    write(path, kind, images)
    Image.fromarray(labels[2].astype(np.uint16)).save(tmp_path / "first.png")
    save_weights(tiny_model("aot-t"), "aot-t", tmp_path / "w.safetensors", overrides={"tiny": True})
    command = ["track", f"bag:{path}", "--mask", str(tmp_path / "first.png"), "--mask-frame", "2", "-o", str(tmp_path / "out"),
               "--outputs", "ros", "masks16", "--model", "aot-t", "--weights", str(tmp_path / "w.safetensors"), "--size", "64",
               "--dtype", "fp32", "--threads", "1"]  # fmt: skip
    assert main(command) == 0
    wanted = [np.asarray(Image.open(tmp_path / "out" / "masks16" / f"{n:05d}.png")) for n in range(2, 6)]
    out = tmp_path / "out" / "ros"
    with AnyReader([out / "labels.bag" if kind == "ros1" else out]) as reader:
        assert [(each.topic, each.msgtype) for each in reader.connections] == [("/camera/image/labels", RAW)]
        found = [(time, reader.deserialize(data, each.msgtype)) for each, time, data in reader.messages()]
    assert len(found) == 4
    for n, (time, message) in enumerate(found, 2):
        taken = START + n * STEP
        assert (message.header.stamp.sec, message.header.stamp.nanosec) == (taken // 10**9, taken % 10**9)
        assert (message.header.frame_id, time, message.encoding) == ("camera_left", taken + 5_000_000, "mono16")
        assert np.array_equal(message.data.view("<u2").reshape(message.height, message.width), wanted[n - 2])
    if kind == "mcap":
        with next(out.glob("*.mcap")).open("rb") as file:
            assert make_reader(file).get_summary().statistics.message_count == 4


def test_labels_of_any_source_with_any_ids(tmp_path: Path) -> None:
    source = open_source(np.zeros((2, 8, 8, 3), np.uint8), fps=10)
    sink = LabelBag(tmp_path / "ros", source)
    labels = np.zeros((8, 8), np.int32)
    labels[2:4] = -5
    for n in range(2):
        sink.write(Frame(n, "x", None, n / 10), labels, {}, lambda i: labels)
    sink.close()
    with AnyReader([tmp_path / "ros"]) as reader:
        messages = [reader.deserialize(data, each.msgtype) for each, _, data in reader.messages()]
    assert [(m.encoding, m.header.stamp.nanosec) for m in messages] == [("32SC1", 0), ("32SC1", 100_000_000)]
    assert np.array_equal(messages[1].data.view("<i4").reshape(8, 8), labels)
