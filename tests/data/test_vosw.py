"""VOSW out of VIPSeg: a tiny VIPSeg, converted by the command and run through the benchmark."""

from __future__ import annotations

import json

import numpy as np
import pytest
from data_folders import gray, picture
from oracle import Oracle
from PIL import Image

from vosformer.cli import main
from vosformer.data.datasets.vosw import convert_vipseg
from vosformer.errors import DataError, InputError
from vosformer.evaluation.benchmark import benchmark
from vosformer.evaluation.masks import read_labels

SIZE = (24, 32)
SKY, CAR, CAR_2, DOG = 17, 12501, 12502, 6102  # one region of stuff and three instances


def values_at(time):
    values = np.zeros(SIZE, np.uint16)
    values[:4] = SKY
    values[5:10, 2 + time : 8 + time] = CAR
    if time >= 2:
        values[12:18, 20:28] = CAR_2
    values[14:20, 2:8] = DOG
    values[22, 30] = DOG  # a speck
    return values


@pytest.fixture
def vipseg(tmp_path):
    root = tmp_path / "VIPSeg"
    for name in ("a", "b", "unlisted"):
        for time in range(4):
            picture(root / "imgs" / name / f"{time:08d}.jpg", time)
            gray(root / "panomasks" / name / f"{time:08d}.png", values_at(time))
    (root / "val.txt").write_text("a\nb\n")
    (root / "panoVIPSeg_categories.json").write_text(json.dumps([{"id": 124, "name": "car"}, {"id": 16, "name": "sky"}]))
    return root


def test_things_and_stuff_become_objects(vipseg, tmp_path, capsys):
    out = tmp_path / "VOSW"
    assert main(["data", "vosw", str(vipseg.parent), str(out)]) == 0
    said = capsys.readouterr().out
    assert "2 videos with 8 objects (4.0 a video), 2 of which enter later" in said
    assert "not public" in said
    meta = json.loads((out / "meta.json").read_text())["videos"]
    assert sorted(meta) == ["a", "b"]
    for name in ("a", "b"):
        objects = meta[name]["objects"]
        assert sorted(objects) == ["1", "2", "3", "4"]
        kinds = sorted((one["category"], one["kind"]) for one in objects.values())
        assert kinds == [("60", "thing"), ("car", "thing"), ("car", "thing"), ("sky", "stuff")]
        for time in range(4):
            labels, values = read_labels(out / "Annotations" / name / f"{time:08d}.png"), values_at(time)
            pairs = set(zip(values.ravel().tolist(), labels.ravel().tolist(), strict=True))
            assert len(pairs) == len({v for v, _ in pairs}) == len({i for _, i in pairs})  # one id for each value
            assert (0, 0) in pairs  # what is annotated as nothing is no object
        original = (vipseg / "imgs" / name / "00000000.jpg").read_bytes()
        assert (out / "JPEGImages" / name / "00000000.jpg").read_bytes() == original


def test_the_order_is_shuffled_for_each_video_and_can_be_repeated(vipseg, tmp_path):
    orders = [
        [tuple(video.objects.values()) for video in convert_vipseg(vipseg, tmp_path / f"out{n}", seed=seed)]
        for n, seed in enumerate((0, 0, 1))
    ]
    assert orders[0] == orders[1]
    assert len({*orders[0], *orders[2]}) > 1


def test_each_object_is_given_where_it_appears(vipseg, tmp_path):
    """With frames that show the truth, everything is found, and late objects are given late."""
    (video, _) = convert_vipseg(vipseg, tmp_path / "VOSW")
    for path in sorted((tmp_path / "VOSW" / "Annotations").rglob("*.png")):
        labels = np.array(Image.open(path))
        frame = tmp_path / "VOSW" / "JPEGImages" / path.parent.name / f"{path.stem}.jpg"
        Image.fromarray(np.dstack([labels, labels * 0, labels * 0])).save(frame, "PNG")
    session = Oracle()
    report = benchmark("vosw", tmp_path / "VOSW", lambda: session, tmp_path / "run").report
    assert report.jf == 1
    given = [ids for _, ids in session.clips[0]]
    late = next(number for number, value in video.objects.items() if value == CAR_2)
    assert given == [sorted({1, 2, 3, 4} - {late}), None, [late], None]
    assert video.later == (late,)


def test_size_and_specks(vipseg, tmp_path):
    (video, _) = convert_vipseg(vipseg, tmp_path / "large", short_side=48, specks=5)
    dog = next(number for number, value in video.objects.items() if value == DOG)
    labels = read_labels(tmp_path / "large" / "Annotations" / "a" / "00000000.png")
    assert labels.shape == (48, 64)
    assert Image.open(tmp_path / "large" / "JPEGImages" / "a" / "00000000.jpg").size == (64, 48)
    assert (labels == dog).sum() == 4 * 6 * 6  # without the speck of 2 x 2 pixels
    with pytest.raises(InputError, match="choose another folder"):
        convert_vipseg(vipseg, tmp_path / "large")


def test_a_run_that_was_stopped_goes_on(vipseg, tmp_path):
    broken = vipseg / "panomasks" / "b" / "00000002.png"
    kept = broken.read_bytes()
    broken.write_bytes(kept[:40])
    with pytest.raises(DataError, match=r"b/00000002\.png"):
        convert_vipseg(vipseg, tmp_path / "out")
    done = tmp_path / "out" / "Annotations" / "a" / "00000000.png"
    before = done.stat().st_mtime_ns
    broken.write_bytes(kept)
    assert [video.name for video in convert_vipseg(vipseg, tmp_path / "out")] == ["a", "b"]
    assert done.stat().st_mtime_ns == before


def test_what_is_not_there(vipseg, tmp_path):
    with pytest.raises(DataError, match="holds no VIPSeg"):
        convert_vipseg(tmp_path / "nothing", tmp_path / "out")
    with pytest.raises(DataError, match=r"has no list test\.txt"):
        convert_vipseg(vipseg, tmp_path / "out", split="test")
    (vipseg / "val.txt").write_text("a\nz\n")
    with pytest.raises(DataError, match="lacks frames or masks of 1 of the 2 videos"):
        convert_vipseg(vipseg, tmp_path / "out")
