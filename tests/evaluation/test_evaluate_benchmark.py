"""`benchmark`: what a model sees and is given by each protocol, what is written, and resuming."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
from oracle import DeadlyOracle, Oracle
from PIL import Image
from vosformer_on_path import environment

from vosformer.cli import main
from vosformer.errors import DataError, InputError
from vosformer.evaluation import evaluate
from vosformer.evaluation.benchmark import benchmark
from vosformer.evaluation.presets import find_preset
from vosformer.evaluation.protocols import PROTOCOLS
from vosformer.inference.session import Session
from vosformer.policy import EveryK, FirstAndPrevious, OneVOSQueue, named_policy

SIZE = (20, 30)


def frame_labels(t, ids, seed=0):
    labels = np.zeros(SIZE, np.uint8)
    for k, i in enumerate(ids):
        labels[2 + (t + seed) % 5 + 4 * k :, 3 + t % 3 + 9 * k : 10 + t % 3 + 9 * k] = i
    return labels


def write(root, images, masks, name, ids_at, labeled=None, seed=0, size=SIZE):
    """Frames whose red channel is the truth (frame number in green), and masks of the frames `labeled`."""
    (root / images / name).mkdir(parents=True)
    (root / masks / name).mkdir(parents=True)
    for t, ids in ids_at.items():
        labels = frame_labels(t, ids, seed)[: size[0], : size[1]]
        Image.fromarray(np.dstack([labels, np.full_like(labels, t), labels * 0])).save(root / images / name / f"{t:05d}.png")
        if labeled is None or t in labeled:
            Image.fromarray(labels).save(root / masks / name / f"{t:05d}.png")


def run(dataset, root, out, session=None, **options):
    session = session or Oracle()
    return session, benchmark(dataset, root, lambda: session, out, **options)


@pytest.fixture
def davis(tmp_path):
    root = tmp_path / "DAVIS"
    for seed, name in enumerate(("a", "b", "c")):
        write(root, "JPEGImages/480p", "Annotations/480p", name, dict.fromkeys(range(6), (1, 2)), seed=seed)
    for year, split, names in (("2016", "val", "ab"), ("2017", "val", "ab"), ("2017", "test-dev", "c"), ("2017", "train", "c")):
        path = root / "ImageSets" / year / f"{split}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(names))
    return root


def test_davis2017(davis, tmp_path):
    session, result = run("davis2017-val", davis, tmp_path / "out", options={"depth": 2})
    assert session.clips == [[(0, [1, 2])] + [(t, None) for t in range(1, 6)]] * 2
    assert session.options[0] == {"depth": 2}
    assert result.report.jf == 1
    assert [len(s.objects[0].frames) for s in result.report.sequences] == [4, 4]
    assert result.frames == 12
    assert result.fps > 0
    with zipfile.ZipFile(result.archive) as archive:
        assert archive.namelist() == [f"{name}/{t:05d}.png" for name in "ab" for t in range(6)]
    with Image.open(result.folder / "a" / "00000.png") as image:
        assert image.mode == "P"
        np.testing.assert_array_equal(np.asarray(image), frame_labels(0, (1, 2)))
    assert json.loads((tmp_path / "out" / "scores.json").read_text())["score"] == 1
    assert json.dumps(result.to_dict())


def test_davis2016_merges(davis, tmp_path):
    class Merged(Oracle):
        def step(self, frame, labels=None, **options):
            return super().step(np.dstack([(frame[..., 0] > 0).astype(np.uint8), frame[..., 1:]]), labels)

    session, result = run("davis2016-val", davis, tmp_path / "out", Merged())
    assert session.clips[0][0] == (0, [1])
    assert result.report.jf == 1
    assert result.report.rules == "davis2016"


def test_test_dev_is_not_scored(davis, tmp_path):
    for t in range(1, 6):
        (davis / "Annotations" / "480p" / "c" / f"{t:05d}.png").unlink()
    session, result = run("davis2017-test-dev", davis, tmp_path / "out")
    assert result.report is None
    assert len(session.clips[0]) == 6
    with pytest.raises(DataError, match="true masks are not public"):
        run("davis2017-test-dev", davis, tmp_path / "again", score=True)


def test_another_split(davis, tmp_path):
    _, result = run("davis2017-val", davis, tmp_path / "out", split="train")
    assert [s.name for s in result.report.sequences] == ["c"]


def _youtube(root):
    seen = {t: (1,) if t < 10 else (1, 4) for t in range(5, 22)}
    every = dict.fromkeys(range(5), ()) | seen
    write(root, "valid/JPEGImages", "valid/Annotations", "v", {t: every[t] for t in range(0, 21, 5)}, labeled={5, 10})
    write(root, "valid_all_frames/JPEGImages", "unused", "v", every, labeled=set())
    objects = {"1": ["00005", "00010", "00015"], "4": ["00010", "00015"]}
    entries = {i: {"category": "x", "frames": frames} for i, frames in objects.items()}
    (root / "valid" / "meta.json").write_text(json.dumps({"videos": {"v": {"objects": entries}}}))


@pytest.mark.parametrize("inside", ["", "valid"])
def test_youtube(tmp_path, inside):
    root = tmp_path / "youtube"
    _youtube(root)
    session, result = run("youtube2019-val", root / inside, tmp_path / "out")
    # From the first mask to the last frame that meta.json names; object 4 is given where it enters, object 1 not again.
    assert session.clips == [[(5, [1]), (10, [4]), (15, None)]]
    assert result.report is None
    with zipfile.ZipFile(result.archive) as archive:
        assert archive.namelist() == [f"Annotations/v/{t:05d}.png" for t in (5, 10, 15)]
    with Image.open(result.folder / "v" / "00015.png") as image:
        np.testing.assert_array_equal(np.asarray(image), frame_labels(15, (1, 4)))


@pytest.mark.parametrize("inside", ["", "valid"])
def test_youtube_all_frames(tmp_path, inside):
    root = tmp_path / "youtube"
    _youtube(root)
    session, result = run("youtube2018-val-all-frames", root / inside, tmp_path / "out")
    assert [t for t, _ in session.clips[0]] == list(range(5, 16))
    assert sorted(path.name for path in (result.folder / "v").iterdir()) == ["00005.png", "00010.png", "00015.png"]


def test_youtube_is_scored_where_truth_is_there(tmp_path):
    root = tmp_path / "youtube"
    _youtube(root)
    Image.fromarray(frame_labels(15, (1, 4))).save(root / "valid" / "Annotations" / "v" / "00015.png")
    _, result = run("youtube2019-val", root, tmp_path / "out")
    assert result.report.jf == 1
    assert {o.id: len(o.frames) for o in result.report.sequences[0].objects} == {1: 2, 4: 1}


def test_youtube_needs_its_frames(tmp_path):
    root = tmp_path / "youtube"
    _youtube(root)
    (root / "valid" / "JPEGImages" / "v" / "00015.png").unlink()
    with pytest.raises(DataError, match=r"lacks 1 of the 3 frames that meta\.json names: 00015"):
        run("youtube2019-val", root, tmp_path / "out")
    (root / "valid" / "meta.json").unlink()
    with pytest.raises(DataError, match=r"has no meta\.json"):
        run("youtube2019-val", root, tmp_path / "out2")


@pytest.mark.parametrize(
    ("objects", "message"),
    [({}, "names no frame of the video v"), ({"1": {"frames": []}}, "names no frame"), ({"1": 7}, "form of YouTube-VOS")],
)
def test_youtube_meta_that_names_nothing(tmp_path, objects, message):
    _youtube(tmp_path)
    path = next(tmp_path.rglob("meta.json"))
    meta = json.loads(path.read_text())
    name = next(iter(meta["videos"]))
    path.write_text(json.dumps({"videos": meta["videos"] | {name: {"objects": objects}}}))
    with pytest.raises(DataError, match=message):
        run("youtube2019-val", tmp_path, tmp_path / "out")


def test_mose_and_lvos(tmp_path):
    root = tmp_path / "set"
    write(root, "valid/JPEGImages", "valid/Annotations", "v", {t: (1,) if t < 3 else (1, 2) for t in range(12)})
    with pytest.raises(DataError, match=r"has no valid_meta\.json"):
        run("lvos-val", root, tmp_path / "lvos")
    limits = {"start": "00000001", "end": "00000012", "frame_nums": "3"}
    meta = {"videos": {"v": {"objects": {i: {"frame_range": limits} for i in "12"}}}}
    (root / "valid" / "valid_meta.json").write_text(json.dumps(meta))
    (root / "valid" / "unseen_videos.txt").write_text("v\n")
    session, result = run("lvos-val", root, tmp_path / "lvos")
    assert session.clips[0][3] == (3, [2])
    assert result.report.rules == "lvos"
    session, result = run("mose-val", root, tmp_path / "mose")
    assert [given for _, given in session.clips[0]] == [[1]] + [None] * 11
    assert result.report.rules == "mose"


def test_void_is_never_given(tmp_path):
    root = tmp_path / "vost"
    write(root, "JPEGImages", "Annotations", "v", dict.fromkeys(range(5), (1, 255)))
    (root / "ImageSets").mkdir()
    (root / "ImageSets" / "val.txt").write_text("v\n")
    session, result = run("vost-val", root, tmp_path / "out")
    assert session.clips[0][0] == (0, [1])
    assert result.report.jf == 1


def test_own_clips(tmp_path):
    root = tmp_path / "mine"
    write(root, "images", "masks", "v", {t: () if t < 2 else (7,) if t < 4 else (7, 9) for t in range(8)})
    session, result = run("folder", root, tmp_path / "out")
    assert session.clips[0][:3] == [(2, [7]), (3, None), (4, [9])]
    assert result.report.jf == 1
    assert {o.id: len(o.frames) for o in result.report.sequences[0].objects} == {7: 5, 9: 3}


def test_own_clips_may_lie_as_for_training(tmp_path):
    root = tmp_path / "mine"
    for name, ids in (("a", (7,)), ("b", (7, 9))):
        write(root, "images", "masks", name, dict.fromkeys(range(5), ids))
        for kind, place in (("images", "frames"), ("masks", "masks")):
            (root / name / place).parent.mkdir(exist_ok=True)
            (root / kind / name).rename(root / name / place)
    for kind in ("images", "masks"):
        (root / kind).rmdir()
    session, result = run("folder", root, tmp_path / "out")
    assert [clip[0] for clip in session.clips] == [(0, [7]), (0, [7, 9])]
    assert result.report.jf == 1
    assert [len(sequence.objects) for sequence in result.report.sequences] == [1, 2]
    assert evaluate(root, root).jf == 1  # so may results, as several runs of `vosformer track` leave them
    (root / "b" / "frames").rename(root / "b" / "images")
    assert run("folder", root, tmp_path / "images")[1].report.jf == 1
    (root / "b" / "images").rename(root / "b" / "pictures")
    with pytest.raises(DataError, match=r"b/frames is missing: a clip has its frames in frames/"):
        run("folder", root, tmp_path / "other")


def test_own_clips_are_scored_where_they_have_true_masks(tmp_path):
    root = tmp_path / "mine"
    for name, labeled in (("none", [0]), ("two", [0, 3]), ("all", None)):
        write(root, "images", "masks", name, dict.fromkeys(range(5), (7,)), labeled=labeled)
    report = run("folder", root, tmp_path / "out")[1].report
    assert [sequence.name for sequence in report.sequences] == ["all", "two"]
    assert report.jf == 1
    assert "not scored, for lack of true masks: none" in report.warnings[-1]
    for name in ("two", "all"):
        shutil.rmtree(root / "masks" / name)
    assert run("folder", root, tmp_path / "other")[1].report is None


@pytest.mark.parametrize("stop_after", [0, 4, 6, 11])
def test_resuming_gives_the_same(davis, tmp_path, stop_after):
    _, whole = run("davis2017-val", davis, tmp_path / "whole", settings={"size": 480})
    with pytest.raises(KeyboardInterrupt):
        run("davis2017-val", davis, tmp_path / "out", Oracle(stop_after), settings={"size": 480})
    done = [] if stop_after < 6 else ["a"]
    assert [path.name for path in sorted((tmp_path / "out" / "Annotations").iterdir()) if path.name[0] != "."] == done
    if done:
        with pytest.raises(InputError, match="already holds the results of a run"):
            run("davis2017-val", davis, tmp_path / "out", settings={"size": 480})
        with pytest.raises(InputError, match="run of other settings"):
            run("davis2017-val", davis, tmp_path / "out", settings={"size": 300}, resume=True)
        shutil.copytree(davis, tmp_path / "copy")
        with pytest.raises(InputError, match="run of other settings"):
            run("davis2017-val", tmp_path / "copy", tmp_path / "out", settings={"size": 480}, resume=True)
    calls = []
    session, result = run(
        "davis2017-val", davis, tmp_path / "out", settings={"size": 480}, resume=True, progress=lambda *at: calls.append(at)
    )
    assert len(session.clips) == 2 - len(done)
    assert calls[-1] == (12, 12)
    assert result.frames == 12
    assert result.archive.read_bytes() == whole.archive.read_bytes()
    assert result.report.overall == whole.report.overall
    assert not list((tmp_path / "out" / "Annotations").glob(".*"))
    session, again = run("davis2017-val", davis, tmp_path / "out", settings={"size": 480}, resume=True)
    assert not session.clips
    assert again.archive.read_bytes() == whole.archive.read_bytes()


def test_a_mistake_does_not_spoil_the_folder(davis, tmp_path):
    def no_session():
        raise InputError("there is no policy 'evry-5'")

    with pytest.raises(InputError, match="evry-5"):
        benchmark("davis2017-val", davis, no_session, tmp_path / "out", settings={"memory": "evry-5"})
    _, result = run("davis2017-val", davis, tmp_path / "out", settings={"memory": "every-5"})
    assert result.report.jf == 1


def test_a_folder_of_something_else_is_left_alone(davis, tmp_path):
    (tmp_path / "out" / "Annotations").mkdir(parents=True)
    with pytest.raises(InputError, match="is in the way"):
        run("davis2017-val", davis, tmp_path / "out")


def test_data_that_is_missing(davis, tmp_path):
    with pytest.raises(InputError, match="no benchmark 'x'"):
        run("x", davis, tmp_path / "out")
    with pytest.raises(DataError, match="has no frames of mose-val: expected valid/JPEGImages or JPEGImages"):
        run("mose-val", tmp_path, tmp_path / "out")
    (davis / "JPEGImages" / "480p" / "b" / "00004.png").unlink()
    with pytest.raises(DataError, match=r"lacks 1 frames that .* has masks of: 00004"):
        run("davis2017-val", davis, tmp_path / "out")
    (davis / "JPEGImages" / "480p" / "b").rename(davis / "x")
    with pytest.raises(DataError, match="lacks the frames of 1 of 2 videos: b"):
        run("davis2017-val", davis, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_frame_that_does_not_decode(davis, tmp_path):
    path = davis / "JPEGImages" / "480p" / "a" / "00003.png"
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(DataError, match="frame 00003 of the video a does not decode"):
        run("davis2017-val", davis, tmp_path / "out")


def test_a_mask_of_another_size(davis, tmp_path):
    Image.fromarray(np.ones((4, 5), np.uint8)).save(davis / "Annotations" / "480p" / "a" / "00000.png")
    with pytest.raises(DataError, match=r"a/00000.png is 5 x 4 pixels, its frame .* 30 x 20"):
        run("davis2017-val", davis, tmp_path / "out")


def test_names_of_the_command_are_the_ones_of_the_library():
    from typing import get_args

    from vosformer.cli.benchmark import Dataset
    from vosformer.cli.evaluate import RuleName
    from vosformer.evaluation import RULES
    from vosformer.evaluation.track_report import TRACK_RULES

    assert get_args(Dataset) == (*PROTOCOLS, "vot-st", "vot-st-realtime")
    assert set(get_args(RuleName)) == {*RULES, *TRACK_RULES, "vot"}


@pytest.mark.parametrize("factory", ["plain", "deadly"])
def test_workers_give_what_one_gives(davis, tmp_path, factory):
    """Also if one of them is killed in the middle of a video."""
    _, serial = run("davis2017-val", davis, tmp_path / "serial")
    make = Oracle if factory == "plain" else partial(DeadlyOracle, tmp_path / "died")
    calls = []
    result = benchmark("davis2017-val", davis, make, tmp_path / "out", workers=2, progress=lambda *at: calls.append(at))
    assert (tmp_path / "died").exists() is (factory == "deadly")
    assert result.archive.read_bytes() == serial.archive.read_bytes()
    assert result.report.overall == serial.report.overall
    assert result.frames == 12
    assert calls[-1] == (12, 12)


def test_shards_make_the_whole(davis, tmp_path):
    _, serial = run("davis2017-val", davis, tmp_path / "serial")
    first, one = run("davis2017-val", davis, tmp_path / "out", part="1/2")
    assert (len(first.clips), one.missing, one.archive, one.report) == (1, ("a",), None, None)
    second, whole = run("davis2017-val", davis, tmp_path / "out", part="0/2")
    assert len(second.clips) == 1
    assert whole.archive.read_bytes() == serial.archive.read_bytes()
    assert whole.report.overall == serial.report.overall
    assert whole.frames == 12
    with pytest.raises(InputError, match="run of other settings"):
        run("davis2017-val", davis, tmp_path / "out", part="0/2", settings={"size": 1})


def test_frames_in_full_resolution(davis, tmp_path):
    for name in "ab":
        folder = davis / "JPEGImages" / "Full-Resolution" / name
        folder.mkdir(parents=True)
        for path in (davis / "JPEGImages" / "480p" / name).iterdir():
            with Image.open(path) as image:
                image.resize((SIZE[1] * 2, SIZE[0] * 2), Image.Resampling.NEAREST).save(folder / path.name)
    session, result = run("davis2017-val-full", davis, tmp_path / "out")
    assert session.shapes == {(2 * SIZE[0], 2 * SIZE[1])}
    assert result.report.jf == 1


def test_frames_at_twice_the_rate(tmp_path):
    root = tmp_path / "vost"
    write(root, "JPEGImages_10fps", "unused", "v", dict.fromkeys(range(9), (1,)), labeled=set())
    write(root, "JPEGImages", "Annotations", "v", dict.fromkeys(range(0, 9, 2), (1,)))
    (root / "ImageSets").mkdir()
    (root / "ImageSets" / "val.txt").write_text("v\n")
    session, result = run("vost-val-10fps", root, tmp_path / "out")
    assert [t for t, _ in session.clips[0]] == list(range(9))
    assert sorted(path.stem for path in (result.folder / "v").iterdir()) == [f"{t:05d}" for t in range(0, 9, 2)]
    assert result.report.score == 1


def test_mosev2_and_viposeg(tmp_path):
    root = tmp_path / "set"
    write(root, "valid/JPEGImages", "valid/Annotations", "v", dict.fromkeys(range(7), (1, 2)))
    (root / "valid" / "meta.json").write_text(json.dumps({"videos": {"v": {"length": 7, "objects": ["1", "2"]}}}))
    _, result = run("mosev2-val", root, tmp_path / "mosev2")
    assert result.report.rules == "mosev2"
    assert result.report.official.overall["J"] == 100  # F-dot is 0 in pictures as small as these, as its disk has no pixel
    (root / "valid" / "Annotations").rename(root / "valid" / "Annotations_gt")
    (root / "valid" / "Annotations" / "v").mkdir(parents=True)
    shutil.copy(root / "valid" / "Annotations_gt" / "v" / "00000.png", root / "valid" / "Annotations" / "v")
    with pytest.raises(DataError, match=r"obj_class\.json"):
        run("viposeg-val", root, tmp_path / "viposeg")
    (root / "valid" / "obj_class.json").write_text(json.dumps({"v": {"1": 60, "2": 28}}))
    _, result = run("viposeg-val", root, tmp_path / "viposeg2")
    assert {name: group.jf for name, group in result.report.groups.items()} == {"stuff_seen": 1, "thing_seen": 1}


def test_objects_that_overlap_are_followed_in_layers(tmp_path):
    """SA-V: a folder of masks for each object; two of them overlap, and the third enters later."""
    root = tmp_path / "sav"
    (root / "JPEGImages_24fps" / "v").mkdir(parents=True)
    boxes = {"000": (2, 2, 12, 12), "001": (8, 8, 18, 18), "002": (2, 20, 8, 28)}
    for t in range(13):
        image = np.zeros((*SIZE, 3), np.uint8)
        image[..., 1] = t
        Image.fromarray(image).save(root / "JPEGImages_24fps" / "v" / f"{t:05d}.png")
        for name, (top, left, bottom, right) in boxes.items():
            if t % 4 == 0:
                mask = np.zeros(SIZE, np.uint8)
                mask[top:bottom, left:right] = 0 if name == "002" and t < 4 else 255
                path = root / "Annotations_6fps" / "v" / name / f"{t:05d}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(mask).save(path)
    (root / "sav_val.txt").write_text("v\n")

    class Still(Oracle):
        """Nothing moves, so what was given is the answer."""

        def reset(self):
            super().reset()
            self.last = np.zeros(SIZE, np.int32)

        def step(self, frame, labels=None, **options):
            self.clips[-1].append((int(frame[0, 0, 1]), None if labels is None else sorted(set(np.unique(labels)) - {0})))
            if labels is not None:
                self.last = np.where(labels > 0, labels, self.last)
            return SimpleNamespace(labels=self.last)

    session, result = run("sav-val", root, tmp_path / "out", Still())
    assert [[given for given in clip if given[1]] for clip in session.clips] == [[(0, [1]), (4, [2])], [(0, [1])]]
    assert result.report.score == 1
    assert sorted(one.name for one in result.report.sequences[0].objects) == ["v/000", "v/001", "v/002"]
    with zipfile.ZipFile(result.archive) as archive:
        assert archive.namelist() == [f"v/{name}/{t:05d}.png" for name in boxes for t in (0, 4, 8, 12)]


def test_speed_is_kept_with_the_run(davis, tmp_path):
    with pytest.warns(UserWarning, match="random weights"):
        session = Session("aot-t", memory="paper", size=64, dtype="fp32")
    _, result = run("davis2017-val", davis, tmp_path / "out", session)
    speed = json.loads((tmp_path / "out" / "run.json").read_text())["speed"]
    assert speed["machine"] == "cpu, float32"
    assert speed["objects"] == 2
    assert 0 < speed["fps"] < speed["model_fps"]  # the model alone is faster than with all that is around it
    assert result.timing.model_frames == 12 - 3 - 1  # without the first three steps, and the second video's first frame
    assert "encode" not in vars(session.model)  # the clock is gone


@pytest.mark.parametrize(
    ("system", "dataset", "memory", "topk"),
    [
        ("jointformer", "davis2017-val", "first-and-previous", 60),
        ("jointformer", "youtube2019-val", "queue-3-every-5", 120),
        ("jointformer", "mose-val", "queue-3-every-5", 180),
        ("jointformer", "vost-val", "queue-3-every-5", 30),
        ("jointformer", "visor-val", "first-and-previous", 600),
        ("onevos", "davis2017-val", "cap-5-every-10", None),
        ("onevos", "davis2017-test-dev", "cap-4-every-10", None),
        ("onevos", "youtube2018-val", "cap-3-every-11", None),
        ("onevos", "mose-val", "cap-5-every-5", None),
        ("deaot", "davis2017-val", "paper", None),
    ],
)
def test_presets(system, dataset, memory, topk):
    preset = find_preset(system, PROTOCOLS[dataset].family, dataset)
    assert (preset.memory, preset.options.get("topk")) == (memory, topk)
    papers = {"jointformer": FirstAndPrevious(), "onevos": OneVOSQueue(), "deaot": EveryK(5, None)}
    policy = named_policy(preset.memory, papers[system])
    if system == "onevos":
        assert preset.memory == f"cap-{policy.cap}-every-{policy.gap}"


def test_benchmark_command(davis, tmp_path, capsys):
    """Settings are those of the paper, shown, and can be changed one by one."""
    arguments = ["benchmark", "davis2017-val", str(davis), "-o", str(tmp_path / "out"), "--size", "64"]
    assert main([*arguments, "--model", "default-fast"]) == 0
    out = capsys.readouterr().out
    assert "memory paper" in out
    assert "dtype fp32" in out
    assert "preset" in out
    assert "model FPS" in out
    settings = json.loads((tmp_path / "out" / "run.json").read_text())["settings"]
    assert settings["memory"] == "paper"
    assert main([*arguments, "--model", "default-fast", "--memory", "every-3"]) == 2
    assert (
        main([*arguments[:-3], str(tmp_path / "other"), "--size", "64", "--model", "default-fast", "--memory", "every-3"]) == 0
    )
    assert "preset" not in capsys.readouterr().out


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="kills processes as POSIX systems do")
@pytest.mark.parametrize("seed", [0, 1])
def test_killing_the_command_at_a_random_moment_loses_nothing(davis, tmp_path, seed):
    """The parent of two workers is killed while they work, once or twice; resumed, all is as one process makes it, to the byte."""
    (davis / "ImageSets" / "2017" / "val.txt").write_text("a\nb\nc\n")
    _, serial = run("davis2017-val", davis, tmp_path / "one")
    code = (
        "import sys\nfrom functools import partial\nfrom oracle import SlowOracle\n"
        "from vosformer.evaluation.benchmark import benchmark\n"
        "if __name__ == '__main__':\n"
        "    benchmark('davis2017-val', sys.argv[1], partial(SlowOracle, 0.05), sys.argv[2], workers=2, resume=True)\n"
    )
    (tmp_path / "main.py").write_text(code)
    command = [sys.executable, str(tmp_path / "main.py"), str(davis), str(tmp_path / "out")]
    random = np.random.default_rng(seed)
    for _ in range(1 + seed):
        with subprocess.Popen(command, env=environment()) as parent:
            while parent.poll() is None and not list((tmp_path / "out").rglob("*.png")):
                time.sleep(0.01)
            time.sleep(random.uniform(0, 0.4))
            parent.send_signal(signal.SIGKILL)
    subprocess.run(command, env=environment(), check=True)
    files = {p.relative_to(serial.folder): p.read_bytes() for p in serial.folder.rglob("*.png")}
    again = {p.relative_to(tmp_path / "out" / "Annotations"): p.read_bytes() for p in (tmp_path / "out").rglob("*.png")}
    assert again == files
    for name in ("davis2017-val.zip", "scores.csv"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()
