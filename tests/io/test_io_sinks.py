from __future__ import annotations

import csv
import errno
import json
import os
import resource
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from io_videos import encode, number_of, picture
from PIL import Image
from pycocotools import mask as coco
from pycocotools.coco import COCO

from vosformer.errors import OutputError
from vosformer.formats import FormatSink
from vosformer.io import (
    DAVIS_PALETTE,
    CutOuts,
    CutOutVideo,
    Frame,
    LabelImages,
    ObjectImages,
    OverlayVideo,
    ScoresFile,
    Sinks,
    VideoFile,
    draw,
    open_source,
    read_labels,
    write_bytes,
)

HEIGHT, WIDTH = 32, 48


def frame(number: int, time: float | None = None, size: tuple[int, int] = (HEIGHT, WIDTH)) -> Frame:
    return Frame(number, f"{number:05d}", picture(number, *size), time)


def labels(number: int, size: tuple[int, int] = (HEIGHT, WIDTH)) -> np.ndarray:
    found = np.zeros(size, np.int32)
    found[2:12, 1 + number : 11 + number] = 1
    found[14:30, 20:40] = 700 if number % 2 else 3
    return found


def feed(sink, numbers, time=None) -> None:
    for number in numbers:
        ids = {1: 0.9, 3: 0.25, 700: 0.123456789}
        sink.write(
            frame(number, time and time(number)), labels(number), ids, lambda _: np.full((HEIGHT, WIDTH), 0.5, np.float32)
        )


def test_label_images(tmp_path: Path) -> None:
    palette = DAVIS_PALETTE[::-1].copy()
    for sink, wanted in [(LabelImages(tmp_path / "a"), DAVIS_PALETTE), (LabelImages(tmp_path / "b", palette), palette)]:
        with sink:
            sink.write(frame(4), labels(4), {}, None)
        found = read_labels(tmp_path / sink.name / "00004.png")
        assert np.array_equal(found.labels, labels(4))
        assert np.array_equal(found.palette, wanted)


def test_ids_that_do_not_fit_are_refused_before_and_while_writing(tmp_path: Path) -> None:
    sink = LabelImages(tmp_path / "a")
    with pytest.raises(OutputError, match=r"the id 700 do not fit|the id 700 .*8-bit PNG.*16-bit PNG.*COCO RLE"):
        sink.check_ids([1, 700])
    with pytest.raises(OutputError, match="700"):
        sink.write(frame(5), labels(5), {}, None)
    assert list((tmp_path / "a").iterdir()) == []
    with LabelImages(tmp_path / "b", bits=16) as wide:
        wide.check_ids([1, 700])
        wide.write(frame(5), labels(5), {}, None)
        with pytest.raises(OutputError, match="70000"):
            wide.check_ids([70_000])
    assert np.array_equal(read_labels(tmp_path / "b" / "00005.png").labels, labels(5))


def test_object_images(tmp_path: Path) -> None:
    with ObjectImages(tmp_path / "objects") as sink:
        feed(sink, range(3))
    assert sorted(path.name for path in (tmp_path / "objects").iterdir()) == ["1", "3", "700"]
    for number in range(3):
        for at in (1, 3, 700):
            image = np.array(Image.open(tmp_path / "objects" / str(at) / f"{number:05d}.png"))
            assert np.array_equal(image, np.where(labels(number) == at, 255, 0))


def test_cut_outs_have_soft_alpha(tmp_path: Path) -> None:
    with CutOuts(tmp_path / "rgba") as sink:
        assert sink.soft
        ramp = np.linspace(0, 1, HEIGHT * WIDTH, dtype=np.float32).reshape(HEIGHT, WIDTH)
        sink.write(frame(0), labels(0), {1: 1.0}, lambda number: ramp * number)
        sink.write(frame(1)._replace(image=None), labels(1), {1: 1.0}, lambda number: ramp)
    image = np.array(Image.open(tmp_path / "rgba" / "1" / "00000.png"))
    assert np.array_equal(image[:, :, :3], picture(0, HEIGHT, WIDTH))
    assert np.array_equal(image[:, :, 3], np.rint(ramp * 255))
    assert not np.array(Image.open(tmp_path / "rgba" / "1" / "00001.png"))[:, :, :3].any()


def test_coco_rle_is_read_by_pycocotools(tmp_path: Path) -> None:
    path = tmp_path / "masks.json"
    with FormatSink(path, "coco") as sink:
        feed(sink, [2, 1, 0, 3, 4], lambda number: number / 7)
        sink.write(frame(5), np.zeros((HEIGHT, WIDTH), np.int32), {1: 0.0}, None)
        assert not path.exists()
    assert [entry.name for entry in tmp_path.iterdir()] == ["masks.json"]
    data = COCO(str(path))
    assert [image["frame_number"] for image in data.dataset["images"]] == [0, 1, 2, 3, 4, 5]
    assert data.dataset["tracks"] == [{"id": 1}, {"id": 3}, {"id": 700}]
    for number in range(5):
        found = np.zeros((HEIGHT, WIDTH), np.int32)
        for annotation in data.loadAnns(data.getAnnIds(imgIds=number)):
            mask = coco.decode(annotation["segmentation"])
            found[mask > 0] = annotation["track_id"]
            assert annotation["area"] == mask.sum()
            assert annotation["bbox"] == list(map(float, cv2.boundingRect(mask)))
            assert annotation["score"] == pytest.approx({1: 0.9, 3: 0.25, 700: 0.123457}[annotation["track_id"]])
        assert np.array_equal(found, labels(number))
    assert data.getAnnIds(imgIds=5) == []


@pytest.mark.parametrize("kind", ["csv", "json"])
def test_scores(tmp_path: Path, kind: str) -> None:
    with ScoresFile(tmp_path / f"scores.{kind}") as sink:
        feed(sink, [1, 0], lambda number: number / 4)
    text = (tmp_path / f"scores.{kind}").read_text()
    if kind == "csv":
        rows = list(csv.DictReader(text.splitlines()))
        assert [(row["frame"], row["id"]) for row in rows] == [(n, i) for n in "01" for i in ("1", "3", "700")]
        assert rows[5] == {"frame": "1", "name": "00001", "time": "0.250000", "id": "700", "score": "0.123457", "pixels": "320"}
    else:
        found = json.loads(text)
        assert [record["frame"] for record in found] == [0, 1]
        assert found[0]["objects"][0] == {"id": 1, "score": 0.9, "pixels": 100}
    with pytest.raises(OutputError, match=r"\.csv or \.json"):
        ScoresFile(tmp_path / "scores.txt")


def test_an_empty_run_leaves_valid_files(tmp_path: Path) -> None:
    for sink in (ScoresFile(tmp_path / "b.json"), ScoresFile(tmp_path / "c.csv")):
        sink.close()
    assert json.loads((tmp_path / "b.json").read_text()) == []


@pytest.mark.parametrize("size", [(64, 96), (65, 97)])
def test_cut_out_video_has_soft_alpha_and_true_colors(tmp_path: Path, size: tuple[int, int]) -> None:
    ramp = np.zeros(size, np.float32)
    ramp[:, 40:60] = np.linspace(0, 1, 20)
    ramp[:, 60:] = 1
    times = [0.5, 0.54, 0.7]
    with CutOutVideo(tmp_path / "c.mov") as sink:
        assert sink.soft
        for number in (2, 1, 0):  # backwards
            found = frame(number, times[number], size)._replace(
                image=np.full((*size, 3), (200, 60, 20 + 90 * number), np.uint8)
            )
            sink.write(found, (ramp >= 0.5).astype(np.int32), {1: 1.0, 8: 0.1}, lambda i: ramp * (0.75 if i == 1 else 0.25))
        sink.write(frame(3, 0.8, size)._replace(image=None), np.ones(size, np.int32), {1: 1.0}, lambda i: ramp)
    with av.open(str(tmp_path / "c.mov")) as container:
        assert container.streams.video[0].codec_context.name == "prores"
        shown = list(container.decode(video=0))
    assert [found.time for found in shown] == pytest.approx([0, 0.04, 0.2, 0.3], abs=2e-5)
    for number, found in enumerate(shown):
        rgba = found.reformat(format="rgba", src_colorspace="ITU709", threads=1).to_ndarray()[: size[0], : size[1]].astype(int)
        assert np.abs(rgba[..., 3] - ramp * 255).max() <= 2
        wanted = (200, 60, 20 + 90 * number) if number < 3 else (0, 0, 0)
        assert np.abs(rgba[:, 45:, :3] - wanted).max() <= 6
        assert rgba[:, :16, :3].max() <= 3  # far from any object


def test_cut_out_video_needs_a_mov(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"c\.mp4: ProRes video goes into a \.mov"):
        CutOutVideo(tmp_path / "c.mp4")


def everything(folder: Path) -> Sinks:
    return Sinks(
        [
            ObjectImages(folder / "objects"),
            FormatSink(folder / "masks.json", "coco"),
            ScoresFile(folder / "scores.csv"),
            OverlayVideo(folder / "overlay.mp4"),
            CutOutVideo(folder / "cutout.mov"),
        ]
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def assert_same(a: Path, b: Path) -> None:
    wanted, found = contents(a), contents(b)
    assert list(found) == list(wanted)
    assert [name for name in wanted if wanted[name] != found[name]] == []


@pytest.mark.parametrize("order", [range(30), range(29, -1, -1), [*range(12, 30), *range(11, -1, -1)]])
def test_a_run_that_goes_back_to_a_checkpoint_writes_the_same(tmp_path: Path, order) -> None:
    order = list(order)
    with everything(tmp_path / "straight") as sink:
        feed(sink, order[:10])
        sink.checkpoint()
        feed(sink, order[10:])
    broken = everything(tmp_path / "resumed")
    feed(broken, order[:10])
    token = json.loads(json.dumps(broken.checkpoint()))
    feed(broken, order[10:25])  # and then the process is killed: nothing is closed
    (tmp_path / "resumed" / ".masks.json.part").open("ab").write(b'{"frame": 7, "obj')
    with everything(tmp_path / "resumed") as sink:
        sink.restore(token)
        feed(sink, order[10:])
    assert_same(tmp_path / "straight", tmp_path / "resumed")


def test_an_interrupted_run_is_readable_and_can_go_on(tmp_path: Path) -> None:
    sink = everything(tmp_path / "a")
    feed(sink, range(10))
    token = sink.checkpoint()
    feed(sink, range(10, 14))
    sink.close(complete=False)
    assert len(json.loads((tmp_path / "a" / "masks.json").read_text())["images"]) == 14
    assert VideoFile(tmp_path / "a" / "overlay.mp4").count == 14
    with everything(tmp_path / "a") as again:
        again.restore(token)
        feed(again, range(10, 20))
    with everything(tmp_path / "b") as straight:
        feed(straight, range(10))
        straight.checkpoint()
        feed(straight, range(10, 20))
    assert_same(tmp_path / "a", tmp_path / "b")


@pytest.mark.parametrize("told", [True, False])
def test_a_new_run_forgets_the_former(tmp_path: Path, told: bool) -> None:
    sink = everything(tmp_path)
    feed(sink, range(8))
    sink.checkpoint()
    with everything(tmp_path) as again:
        if told:
            again.restore(None)
        feed(again, range(3))
    assert len(json.loads((tmp_path / "masks.json").read_text())["images"]) == 3
    assert VideoFile(tmp_path / "overlay.mp4").count == 3


def test_closing_twice_is_harmless(tmp_path: Path) -> None:
    with everything(tmp_path) as sink:
        feed(sink, range(4))
        sink.close()
    assert len(json.loads((tmp_path / "masks.json").read_text())["images"]) == 4
    assert len((tmp_path / "scores.csv").read_text().splitlines()) == 13
    assert VideoFile(tmp_path / "overlay.mp4").count == 4
    assert not list(tmp_path.glob(".*"))


def test_part_files_that_are_gone_are_named(tmp_path: Path) -> None:
    sink = everything(tmp_path)
    feed(sink, range(4))
    token = sink.checkpoint()
    sink.close(complete=True)
    with pytest.raises(OutputError, match="start it anew"):
        everything(tmp_path).restore(token)


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
@pytest.mark.parametrize("backwards", [False, True])
def test_the_overlay_keeps_times_and_order(tmp_path: Path, codec: str, backwards: bool) -> None:
    times = [0.5, 0.54, 0.58, 0.8, 0.81, 1.0, 1.7, 1.75]
    with OverlayVideo(tmp_path / "o.mp4", codec=codec) as sink:
        numbers = list(range(8))[:: -1 if backwards else 1]
        feed(sink, numbers[:3], lambda number: times[number])
        sink.checkpoint()
        feed(sink, numbers[3:], lambda number: times[number])
    video = VideoFile(tmp_path / "o.mp4")
    assert [found.time for found in video] == pytest.approx([time - 0.5 for time in times], abs=2e-5)
    for found in video:
        wanted = draw(picture(found.number, HEIGHT, WIDTH), labels(found.number))
        assert np.abs(found.image.astype(int) - wanted).mean() < 8
        assert number_of(found.image) == found.number
    assert [path.name for path in tmp_path.iterdir()] == ["o.mp4"]


def test_the_overlay_keeps_ntsc_rates(tmp_path: Path) -> None:
    rate = Fraction(30000, 1001)
    with OverlayVideo(tmp_path / "o.mp4", fps=rate) as sink:
        for start in (0, 10):
            feed(sink, range(start, start + 10))
            sink.checkpoint()
    video = VideoFile(tmp_path / "o.mp4")
    assert not video.variable_rate
    assert [found.time for found in video] == pytest.approx([float(n / rate) for n in range(20)], abs=1e-6)
    assert float(video.fps) == pytest.approx(float(rate), rel=1e-4)


@pytest.mark.parametrize("size", [(1, 1), (33, 47), (3, 200), (501, 333)])
def test_overlays_of_odd_sizes(tmp_path: Path, size: tuple[int, int]) -> None:
    with OverlayVideo(tmp_path / "o.mp4") as sink:
        for number in range(3):
            sink.write(frame(number, None, size), np.ones(size, np.int32), {1: 1.0}, None)
        sink.write(frame(3, None, size)._replace(image=None), np.ones(size, np.int32), {1: 1.0}, None)
    video = VideoFile(tmp_path / "o.mp4")
    assert (video.height, video.width, video.count) == (size[0] + size[0] % 2, size[1] + size[1] % 2, 4)


def test_an_encoder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="no encoder h777"):
        OverlayVideo(tmp_path / "o.mp4", codec="h777")


def test_drawing() -> None:
    image = np.full((20, 20, 3), 100, np.uint8)
    field = np.zeros((20, 20), np.int64)
    field[5:15, 5:15] = 1
    field[8:12, 8:12] = 100_000
    drawn = draw(image, field)
    assert drawn[0, 0].tolist() == [100, 100, 100]
    assert drawn[5, 9].tolist() == [128, 0, 0]  # contour
    assert drawn[10, 6].tolist() == [114, 50, 50]  # inside
    assert drawn[8, 8].tolist() == DAVIS_PALETTE[1 + 99_999 % 255].tolist()
    assert (image == 100).all()


def small_disk(call) -> None:
    """Run with files of 3000 bytes at most: the same error path as a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, before[1]))
    try:
        call()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_disk_that_is_full_is_named_and_what_is_there_stays_whole(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 3, (200, 200)).astype(np.int32)
    flat = np.ones((200, 200), np.int32)
    moment = frame(0, None, (200, 200))

    def sinks(folder: Path) -> list:
        images = [LabelImages(folder / "masks"), ObjectImages(folder / "objects")]
        return [*images, FormatSink(folder / "m.json", "coco"), OverlayVideo(folder / "o.mp4")]

    for sink in sinks(tmp_path):
        with sink:
            sink.write(moment, flat, {1: 1.0}, None)
    before = contents(tmp_path)

    def fill_with(sink) -> None:
        for _ in range(9):
            sink.write(moment, noise, {1: 1.0}, None)
            sink.checkpoint()

    def fill() -> None:
        for sink in sinks(tmp_path):
            sink.restore(None)
            with pytest.raises(OutputError, match=rf"{sink.name}.*cannot be written: the file would be larger"):
                fill_with(sink)

    small_disk(fill)
    assert {name: data for name, data in contents(tmp_path).items() if name in before} == before
    assert not list(tmp_path.rglob(".tmp-*"))


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES, errno.EROFS])
def test_errors_of_the_disk_in_plain_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def fail(self: Path, data: bytes) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(Path, "write_bytes", fail)
    words = {errno.ENOSPC: "the disk is full", errno.EACCES: "no permission", errno.EROFS: "read-only"}[code]
    with pytest.raises(OutputError, match=rf"x\.png cannot be written: .*{words}"):
        write_bytes(tmp_path / "x.png", b"data")
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_place_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("x")
    for make in (LabelImages, ObjectImages):
        with pytest.raises(OutputError, match=r"out.*cannot be written"):
            make(tmp_path / "out" / "masks")


WRITER = """
import itertools
from pathlib import Path
from test_io_sinks import everything, feed
sink = everything(Path({out!r}))
for start in itertools.count(0, 4):
    feed(sink, range(start % 30, start % 30 + 4))
    sink.checkpoint()
    print(start, flush=True)
"""


def test_a_killed_process_leaves_only_whole_files(tmp_path: Path) -> None:
    code = WRITER.format(out=str(tmp_path))
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    process.stdout.readline()
    time.sleep(0.3)
    process.kill()
    process.wait()
    process.stdout.close()
    images = list((tmp_path / "objects").rglob("[0-9]*.png"))
    parts = list((tmp_path / ".overlay.mp4.parts").glob("[0-9]*.mp4"))
    assert images
    assert parts
    for path in images:
        Image.open(path).load()
    for path in parts:
        with av.open(str(path)) as container:
            assert sum(1 for _ in container.decode(video=0)) == 4


def test_source_to_sink(tmp_path: Path) -> None:
    path = encode(tmp_path / "v.mp4", [picture(n) for n in range(5)])
    with open_source(path) as source, OverlayVideo(tmp_path / "o.mp4", fps=source.fps) as sink:
        for found in source:
            sink.write(found, np.zeros((48, 64), np.int32), {}, None)
    assert [number_of(found.image) for found in VideoFile(tmp_path / "o.mp4")] == list(range(5))
