"""`benchmark`: what a model sees and is given by each protocol, what is written, and resuming."""

from __future__ import annotations

import json
import shutil
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from vosformer.errors import DataError, InputError
from vosformer.evaluation import evaluate
from vosformer.evaluation.benchmark import benchmark
from vosformer.evaluation.protocols import PROTOCOLS

SIZE = (20, 30)


class Oracle:
    """Sees the labels in the red channel of a frame, and follows the ids that it was given."""

    def __init__(self, stop_after=None):
        self.clips = []
        self.stop_after = stop_after
        self.options = []

    def reset(self):
        self.clips.append([])
        self.known = set()

    def step(self, frame, labels=None, **options):
        if self.stop_after is not None and sum(map(len, self.clips)) == self.stop_after:
            raise KeyboardInterrupt
        assert frame.dtype == np.uint8
        assert labels is None or (labels.dtype == np.int32 and labels.any())
        given = None if labels is None else sorted(set(np.unique(labels).tolist()) - {0})
        self.known |= set(given or ())
        self.clips[-1].append((int(frame[0, 0, 1]), given))
        self.options.append(options)
        truth = frame[..., 0].astype(np.int32)
        return SimpleNamespace(labels=np.where(np.isin(truth, list(self.known)), truth, 0).astype(np.int32))


def frame_labels(t, ids, seed=0):
    labels = np.zeros(SIZE, np.uint8)
    for k, i in enumerate(ids):
        labels[2 + (t + seed) % 5 + 4 * k :, 3 + t % 3 + 9 * k : 10 + t % 3 + 9 * k] = i
    return labels


def write(root, images, masks, name, ids_at, labelled=None, seed=0, size=SIZE):
    """Frames whose red channel is the truth (frame number in green), and masks of the frames `labelled`."""
    (root / images / name).mkdir(parents=True)
    (root / masks / name).mkdir(parents=True)
    for t, ids in ids_at.items():
        labels = frame_labels(t, ids, seed)[: size[0], : size[1]]
        Image.fromarray(np.dstack([labels, np.full_like(labels, t), labels * 0])).save(root / images / name / f"{t:05d}.png")
        if labelled is None or t in labelled:
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
    write(root, "valid/JPEGImages", "valid/Annotations", "v", {t: every[t] for t in range(0, 21, 5)}, labelled={5, 10})
    write(root, "valid_all_frames/JPEGImages", "unused", "v", every, labelled=set())
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
    (root / "b" / "frames").rename(root / "b" / "pictures")
    with pytest.raises(DataError, match=r"b/frames is missing: a clip has its frames in frames/"):
        run("folder", root, tmp_path / "other")


def test_own_clips_are_scored_where_they_have_true_masks(tmp_path):
    root = tmp_path / "mine"
    for name, labelled in (("none", [0]), ("two", [0, 3]), ("all", None)):
        write(root, "images", "masks", name, dict.fromkeys(range(5), (7,)), labelled=labelled)
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

    from vosformer.cli.evaluate import Dataset, RuleName
    from vosformer.evaluation import RULES
    from vosformer.evaluation.track_report import TRACK_RULES

    assert get_args(Dataset) == tuple(PROTOCOLS)
    assert set(get_args(RuleName)) == {*RULES, *TRACK_RULES, "vot"}
