"""`evaluate` on folders: layouts, rules, what is missing, reports, and the command line."""

from __future__ import annotations

import csv
import json
import os
import re
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from vosformer.cli.evaluate import evaluate as command
from vosformer.errors import DataError, InputError, OutputError
from vosformer.evaluation import RULES, Rules, evaluate, frame_scores, plan

SIZE = (24, 40)


def write(folder, frames, palette=True):
    """Label maps by frame name as PNGs."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, labels in frames.items():
        image = Image.fromarray(labels)
        if palette:
            image.putpalette([*range(256)] * 3)
        image.save(folder / f"{name}.png")


def clip(frames=8, ids=(1, 2), seed=0, size=SIZE):
    """Label maps of boxes that move."""
    rng = np.random.default_rng(seed)
    out = {}
    for t in range(frames):
        labels = np.zeros(size, np.uint8)
        for k, i in enumerate(ids):
            top, left = 2 + (t + 3 * k + rng.integers(0, 2)) % 8, 3 + (2 * t + 11 * k) % 20
            labels[top : top + 9, left : left + 8] = i
        out[f"{t:05d}"] = labels
    return out


def shaken(frames, seed=1):
    rng = np.random.default_rng(seed)
    return {name: np.roll(labels, rng.integers(-2, 3, 2), (0, 1)) for name, labels in frames.items()}


def expected(truth, result, names, i):
    return frame_scores(np.stack([truth[n] == i for n in names]), np.stack([result[n] == i for n in names]))


@pytest.fixture
def davis(tmp_path):
    """A set in DAVIS's layout with two sequences, and results of it."""
    truth = {"a": clip(8, (1, 2)), "b": clip(7, (1,), seed=5)}
    result = {name: shaken(frames) for name, frames in truth.items()}
    for name in truth:
        write(tmp_path / "DAVIS" / "Annotations" / "480p" / name, truth[name])
        write(tmp_path / "out" / name, result[name])
    return tmp_path, truth, result


def lists(root, **names):
    for path, content in names.items():
        file = root / "ImageSets" / f"{path.replace('__', '/')}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("\n".join(content) + "\n")


def test_davis_rules(davis):
    root, truth, result = davis
    report = evaluate(root / "out", root / "DAVIS")
    assert [s.name for s in report.sequences] == ["a", "b"]
    assert [o.id for s in report.sequences for o in s.objects] == [1, 2, 1]
    means = []
    for sequence in report.sequences:
        names = list(truth[sequence.name])[1:-1]
        for one in sequence.objects:
            scores = expected(truth[sequence.name], result[sequence.name], names, one.id)
            assert one.frames == tuple(names)
            np.testing.assert_array_equal(one.per_frame.j, scores.j)
            np.testing.assert_array_equal(one.per_frame.f, scores.f)
            assert one.scores.j.mean == pytest.approx(scores.j.mean())
            assert one.scores.jf == pytest.approx((scores.j.mean() + scores.f.mean()) / 2)
            means.append(scores.j.mean())
        assert sequence.scores.j.mean == pytest.approx(np.mean([o.scores.j.mean for o in sequence.objects]))
    assert report.overall.j.mean == pytest.approx(np.mean(means))  # every object weighs the same
    assert report.jf == report.score
    assert 0 < report.jf < 1
    assert not report.warnings


@pytest.mark.parametrize("where", ["DAVIS/Annotations/480p", "DAVIS/Annotations", "DAVIS"])
def test_layouts_give_the_same(davis, where):
    root, _, _ = davis
    assert evaluate(root / "out", root / where).overall == evaluate(root / "out", root / "DAVIS").overall


def test_a_single_sequence(davis):
    root, _, _ = davis
    whole = evaluate(root / "out", root / "DAVIS")
    folder = root / "DAVIS" / "Annotations" / "480p" / "a"
    for results, truth in ((root / "out" / "a", folder), (root / "out", folder), (root / "out" / "a", root / "DAVIS")):
        report = evaluate(results, truth)
        assert [s.name for s in report.sequences] == ["a"]
        assert report.overall == whole.sequences[0].scores
    (root / "other").mkdir()
    (root / "out" / "a").rename(root / "other" / "masks")
    assert evaluate(root / "other", folder).overall == whole.sequences[0].scores


def test_other_resolutions_are_named(davis):
    root, _, _ = davis
    annotations = root / "DAVIS" / "Annotations"
    write(annotations / "360p" / "c", clip(5))
    assert len(evaluate(root / "out", root / "DAVIS").sequences) == 2  # 480p is DAVIS's own
    (annotations / "480p").rename(annotations / "Full-Resolution")
    with pytest.raises(DataError, match="360p, Full-Resolution"):
        evaluate(root / "out", root / "DAVIS")
    assert len(evaluate(root / "out", annotations / "Full-Resolution").sequences) == 2


def test_lists(davis):
    root, _, _ = davis
    lists(root / "DAVIS", **{"2016__val": ["a"], "2017__val": ["a", "b"], "2017__train": ["b"]})
    truth = root / "DAVIS"
    assert evaluate(root / "out", truth).split == "2017/val"
    assert [s.name for s in evaluate(root / "out", truth, split="train").sequences] == ["b"]
    assert [s.name for s in evaluate(root / "out", truth / "Annotations" / "480p", split="2016/val").sequences] == ["a"]
    assert [s.name for s in evaluate(root / "out", truth, split=["b"]).sequences] == ["b"]
    file = truth / "ImageSets" / "2017" / "train.txt"
    assert [s.name for s in evaluate(root / "out", truth, split=file).sequences] == ["b"]
    with pytest.raises(DataError, match="several lists 'val'"):
        evaluate(root / "out", truth, split="val")
    with pytest.raises(DataError, match=r"no list 'nope'.*2017/train"):
        evaluate(root / "out", truth, split="nope")
    with pytest.raises(DataError, match="no true masks for c"):
        evaluate(root / "out", truth, split=["c"])


def test_davis2016_merges_all_labels(davis):
    root, truth, result = davis
    report = evaluate(root / "out", root / "DAVIS", rules="davis2016")
    one = report.sequences[0].objects
    assert [o.id for o in one] == [1]
    names = list(truth["a"])[1:-1]
    merged = [np.stack([(frames[n] > 0) for n in names]) for frames in (truth["a"], result["a"])]
    np.testing.assert_array_equal(one[0].per_frame.j, frame_scores(*merged).j)


@pytest.mark.parametrize("value", [1, 255, 9])
def test_black_and_white_truth_is_one_object(tmp_path, value):
    truth = clip(6, (255,))
    write(tmp_path / "truth" / "a", truth, palette=False)
    write(tmp_path / "result" / "a", {n: np.where(m, value, 0).astype(np.uint8) for n, m in truth.items()})
    for rules in ("davis", "davis2016", "plain", "all"):
        report = evaluate(tmp_path / "result", tmp_path / "truth", rules=rules)
        assert report.jf == 1
        assert not report.warnings


def test_void(tmp_path):
    truth, result = clip(6, (1,)), clip(6, (1,))
    for labels in truth.values():
        labels[:6, :12] = 255
    write(tmp_path / "truth" / "a", truth)
    write(tmp_path / "result" / "a", result)
    names = list(truth)[1:-1]
    background = evaluate(tmp_path / "result", tmp_path / "truth", rules="davis")
    np.testing.assert_array_equal(background.sequences[0].objects[0].per_frame.j, expected(truth, result, names, 1).j)
    assert background.jf < 1
    # VOST's own code takes it for background, too; it can be left out by rules of ours.
    vost = evaluate(tmp_path / "result", tmp_path / "truth", rules="vost")
    np.testing.assert_array_equal(vost.sequences[0].objects[0].per_frame.j, expected(truth, result, names, 1).j)
    assert evaluate(tmp_path / "result", tmp_path / "truth", rules="plain-void").jf == 1
    assert [
        o.id for o in evaluate(tmp_path / "result", tmp_path / "truth", rules="all", missing="zero").sequences[0].objects
    ] == [1, 255]


def _youtube(tmp_path):
    truth = clip(9, (1, 2, 7))
    for t, labels in enumerate(truth.values()):
        if t < 2:
            labels[:] = 0
        if t < 4:
            labels[labels == 7] = 0
    result = shaken(truth)
    base = tmp_path / "youtube" / "valid"
    write(base / "Annotations" / "v", truth)
    write(tmp_path / "out" / "v", {name: labels for name, labels in result.items() if int(name) >= 3})
    objects = {"1": "dog", "2": "yak", "7": "yak"}
    entries = {i: {"category": name, "frames": list(truth)} for i, name in objects.items()}
    (base / "meta.json").write_text(json.dumps({"videos": {"v": {"objects": entries}}}))
    return truth, result, base


def test_youtube_rules(tmp_path):
    truth, result, base = _youtube(tmp_path)
    report = evaluate(tmp_path / "out", base, rules="youtube")
    first = {1: 2, 2: 2, 7: 4}
    for one in report.sequences[0].objects:
        names = list(truth)[first[one.id] + 1 :]
        assert one.frames == tuple(names)
        np.testing.assert_array_equal(one.per_frame.f, expected(truth, result, names, one.id).f)
    assert not report.groups
    assert any("seen and unseen" in text for text in report.warnings)
    assert report.sequences[0].objects[0].category == "dog"


@pytest.mark.parametrize("how", ["names", "meta", "text", "beside"])
def test_seen_and_unseen(tmp_path, how):
    _, _, base = _youtube(tmp_path)
    train = {"videos": {"w": {"objects": {"1": {"category": "dog", "frames": []}}}}}
    seen = {"names": ["dog"], "meta": tmp_path / "train.json", "text": tmp_path / "seen.txt", "beside": None}[how]
    (tmp_path / "train.json").write_text(json.dumps(train))
    (tmp_path / "seen.txt").write_text("dog\n\n")
    if how == "beside":
        (base.parent / "train").mkdir()
        (base.parent / "train" / "meta.json").write_text(json.dumps(train))
    report = evaluate(tmp_path / "out", base, rules="youtube", seen=seen)
    one, two, seven = (o.scores for o in report.sequences[0].objects)
    assert report.groups["seen"].jf == pytest.approx(one.jf)
    assert report.groups["unseen"].j.mean == pytest.approx((two.j.mean + seven.j.mean) / 2)
    assert report.score == pytest.approx((one.jf + (two.jf + seven.jf) / 2) / 2)
    assert report.score != pytest.approx(report.jf)


def test_broken_meta(tmp_path):
    _, _, base = _youtube(tmp_path)
    (base / "meta.json").write_text("{")
    with pytest.raises(DataError, match=r"meta\.json cannot be read"):
        evaluate(tmp_path / "out", base, rules="youtube")
    (base / "meta.json").write_text('{"videos": [1]}')
    with pytest.raises(DataError, match="not in the form of YouTube-VOS"):
        evaluate(tmp_path / "out", base, rules="youtube")


def test_missing_frames(davis):
    root, _, _ = davis
    folder = root / "out" / "a"
    (folder / "00000.png").unlink()
    (folder / "00007.png").unlink()
    evaluate(root / "out", root / "DAVIS")  # the first and the last do not count
    before = evaluate(root / "out", root / "DAVIS").overall.j.mean
    (folder / "00002.png").unlink()
    (folder / "00003.png").unlink()
    with pytest.raises(DataError, match=r"lacks 2 of 11 frames, in 1 of 2 sequences: a/00002.png, a/00003.png"):
        evaluate(root / "out", root / "DAVIS")
    report = evaluate(root / "out", root / "DAVIS", missing="zero")
    assert report.sequences[0].objects[0].per_frame.j[1:3].tolist() == [0, 0]
    assert report.overall.j.mean < before
    assert any("a (2)" in text for text in report.warnings)


def test_missing_sequences(davis):
    root, _, _ = davis
    (root / "out" / "b").rename(root / "out" / "c")
    with pytest.raises(DataError, match=r"lacks 1 of the 2 sequences of .*: b \(it has a, c\)"):
        evaluate(root / "out", root / "DAVIS")
    report = evaluate(root / "out", root / "DAVIS", missing="zero")
    assert report.sequences[1].scores.j.mean == 0


def test_missing_objects(davis):
    root, _, result = davis
    write(root / "out" / "a", {n: np.where(m == 2, 0, m).astype(np.uint8) for n, m in result["a"].items()})
    with pytest.raises(DataError, match="never shows 1 of the objects: a 2"):
        evaluate(root / "out", root / "DAVIS", rules="plain")
    # By a benchmark's rules it counts as empty, as in its own scorer; and it is said.
    for report in (
        evaluate(root / "out", root / "DAVIS"),
        evaluate(root / "out", root / "DAVIS", rules="plain", missing="zero"),
    ):
        assert report.sequences[0].objects[1].scores.j.mean == 0
        assert any("never shown" in text and "a 2" in text for text in report.warnings)


def test_gaps_in_ids_are_counted_as_the_official_scorer_counts(tmp_path):
    truth = clip(6, (1, 4))
    write(tmp_path / "truth" / "a", truth)
    write(tmp_path / "result" / "a", truth)
    report = evaluate(tmp_path / "result", tmp_path / "truth")
    assert [(one.id, one.scores.jf) for one in report.sequences[0].objects] == [(1, 1), (2, 1), (3, 1), (4, 1)]
    assert any("1 to the highest" in text and "a 2, a 3" in text for text in report.warnings)
    for labels in truth.values():
        labels[0, 0] = 3  # an id that only the answer has costs
    write(tmp_path / "result" / "a", truth)
    assert evaluate(tmp_path / "result", tmp_path / "truth").sequences[0].objects[2].scores.j.mean == 0
    assert [one.id for one in evaluate(tmp_path / "result", tmp_path / "truth", rules="plain").sequences[0].objects] == [1, 4]


def test_white_results_are_the_only_object(tmp_path):
    truth = clip(6, (1,))
    write(tmp_path / "truth" / "a", truth)
    write(
        tmp_path / "result" / "a", {name: (labels > 0).astype(np.uint8) * 255 for name, labels in truth.items()}, palette=False
    )
    for rules in ("davis", "plain", "youtube", "visor"):
        report = evaluate(tmp_path / "result", tmp_path / "truth", rules=rules)
        assert report.jf == 1
        assert any("0 and 255" in text and text.endswith(": a") for text in report.warnings)
    # White beside other ids is a label like any other, and so it is where there are several objects.
    write(tmp_path / "result" / "a", {"00003": np.where(truth["00003"] > 0, np.uint8(1), np.uint8(255))})
    assert evaluate(tmp_path / "result", tmp_path / "truth").jf < 0.5
    write(tmp_path / "truth" / "b", clip(6, (1, 2)))
    write(tmp_path / "result" / "b", {name: (labels > 0).astype(np.uint8) * 255 for name, labels in clip(6, (1, 2)).items()})
    assert evaluate(tmp_path / "result", tmp_path / "truth", split=["b"]).jf == 0


def test_names_that_are_one_off_are_told(tmp_path):
    truth = clip(6, (1,))
    write(tmp_path / "truth" / "a", truth)
    write(tmp_path / "result" / "a", {f"{int(name) + 1:05d}": labels for name, labels in truth.items()})
    (text,) = evaluate(tmp_path / "result", tmp_path / "truth").warnings
    assert "a: 00006.png belongs to no true mask, and 00000.png is missing; all names are one higher" in text
    # Results of more frames than there are true masks of are nothing to tell.
    write(tmp_path / "result" / "a", truth)
    assert not evaluate(tmp_path / "result", tmp_path / "truth").warnings


def test_an_object_that_left_may_be_missing(tmp_path):
    truth = clip(6, (1, 2))
    for labels in list(truth.values())[1:]:
        labels[labels == 2] = 0
    write(tmp_path / "truth" / "a", truth)
    write(tmp_path / "result" / "a", {n: np.where(m == 2, 0, m).astype(np.uint8) for n, m in truth.items()})
    assert evaluate(tmp_path / "result", tmp_path / "truth").jf == 1


def test_ids_that_do_not_belong_are_reported(davis):
    root, truth, result = davis
    for labels in result["b"].values():
        labels[0, 0] = 77
    write(root / "out" / "b", result["b"])
    late = dict(truth["a"])
    late["00004"] = late["00004"].copy()
    late["00004"][0, 0] = 5
    write(root / "DAVIS" / "Annotations" / "480p" / "a", late)
    texts = evaluate(root / "out", root / "DAVIS").warnings
    assert any("b 77" in text for text in texts)
    assert any("a 5" in text and "after the first" in text for text in texts)


def test_objects_that_come_too_late(tmp_path):
    truth = clip(5, (1,))
    truth["00004"][0, 0] = 2
    write(tmp_path / "truth" / "a", truth)
    write(tmp_path / "result" / "a", truth)
    report = evaluate(tmp_path / "result", tmp_path / "truth", rules="youtube")
    assert [o.id for o in report.sequences[0].objects] == [1]
    assert any("no frame that counts" in text and "a 2" in text for text in report.warnings)


def test_sizes_must_fit(davis):
    root, _, result = davis
    write(root / "out" / "b", {"00003": result["b"]["00003"][:, :-1].copy()})
    with pytest.raises(DataError, match=r"out/b/00003.png is 39 x 24 pixels; .* is 40 x 24"):
        evaluate(root / "out", root / "DAVIS")


def test_broken_and_unusable_files(davis, tmp_path):
    root, _, _ = davis
    path = root / "out" / "b" / "00003.png"
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(DataError, match=r"b/00003.png does not decode"):
        evaluate(root / "out", root / "DAVIS")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (*SIZE, 3), dtype=np.uint8)).save(path)
    with pytest.raises(DataError, match=r"b/00003.png is no label map"):
        evaluate(root / "out", root / "DAVIS")


@pytest.mark.parametrize(("kind", "text"), [("none", "is not a folder"), ("empty", "holds no PNG masks")])
def test_no_masks(davis, kind, text):
    root, _, _ = davis
    folder = root / kind
    if kind == "empty":
        (folder / "x").mkdir(parents=True)
    with pytest.raises(DataError, match=text):
        evaluate(folder, root / "DAVIS")
    with pytest.raises(DataError, match=text):
        evaluate(root / "out", folder)


def test_truth_that_cannot_be_scored(tmp_path):
    write(tmp_path / "truth" / "a", dict(list(clip(6).items())[:1]))
    write(tmp_path / "result" / "a", clip(6))
    with pytest.raises(DataError, match="has 1 true masks, of which the davis rules count none"):
        evaluate(tmp_path / "result", tmp_path / "truth")
    write(tmp_path / "truth" / "a", {f"{t:05d}": np.zeros(SIZE, np.uint8) for t in range(6)})
    with pytest.raises(DataError, match="a has no object in any of its 6 true masks"):
        evaluate(tmp_path / "result", tmp_path / "truth")


def test_arguments(davis):
    root, _, _ = davis
    for arguments, text in (
        ({"rules": "x"}, "no rules 'x'"),
        ({"missing": "x"}, "missing is 'x'"),
        ({"workers": 0}, "workers is 0"),
    ):
        with pytest.raises(InputError, match=text):
            evaluate(root / "out", root / "DAVIS", **arguments)


def test_own_rules_and_names(davis):
    root, _, _ = davis
    assert set(RULES) >= {"davis", "davis2016", "youtube", "mose", "lvos", "vost", "plain", "all"}
    every = evaluate(root / "out", root / "DAVIS", rules=Rules("mine", "", objects="every", given=True, last=True))
    assert [len(s.objects[0].frames) for s in every.sequences] == [8, 7]


def test_labels_above_255(tmp_path):
    truth = {name: labels.astype(np.uint16) * 700 for name, labels in clip(5, (1,)).items()}
    for folder in ("truth", "result"):
        (tmp_path / folder / "a").mkdir(parents=True)
        for name, labels in truth.items():
            Image.fromarray(labels).save(tmp_path / folder / "a" / f"{name}.png")
    report = evaluate(tmp_path / "result", tmp_path / "truth")
    assert report.sequences[0].objects[0].id == 700
    assert report.jf == 1


def test_chunks_and_threads_do_not_matter(davis, monkeypatch):
    root, _, _ = davis
    calls = []
    whole = evaluate(root / "out", root / "DAVIS", workers=1, progress=lambda *at: calls.append(at))
    assert calls[-1] == (15, 15)
    monkeypatch.setattr(plan, "_CHUNK_FRAMES", 1)
    calls.clear()
    for workers in (1, 3):
        assert (
            evaluate(root / "out", root / "DAVIS", workers=workers, progress=lambda *at: calls.append(at)).overall
            == whole.overall
        )
    assert calls[:15] == [(t, 15) for t in range(1, 16)]


def test_memory_does_not_grow_with_the_sequence(tmp_path):
    frames, size = 200, (480, 854)
    for folder in ("truth", "result"):
        write(tmp_path / folder / "a", {"00000": clip(1, (1,), size=size)["00000"]})
        for t in range(1, frames):
            os.link(tmp_path / folder / "a" / "00000.png", tmp_path / folder / "a" / f"{t:05d}.png")
    tracemalloc.start()
    try:
        assert evaluate(tmp_path / "result", tmp_path / "truth", workers=2).jf == 1
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 40e6  # all masks together are 164 MB


def test_json_and_csv(davis):
    root, _, _ = davis
    report = evaluate(root / "out", root / "DAVIS")
    report.write_json(root / "scores.json", per_frame=True)
    found = json.loads((root / "scores.json").read_text())
    assert found == report.to_dict(per_frame=True)
    assert found["overall"]["J&F"] == report.jf
    assert found["sequences"][0]["objects"][1]["per_frame"]["names"][0] == "00001"
    assert "per_frame" not in report.to_dict()["sequences"][0]["objects"][0]
    report.write_csv(root / "scores.csv")
    with (root / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["level"] for row in rows] == ["object", "object", "sequence", "object", "sequence", "overall"]
    assert float(rows[-1]["J&F-Mean"]) == report.jf
    assert float(rows[1]["F-Decay"]) == report.sequences[0].objects[1].scores.f.decay
    with pytest.raises(OutputError, match="cannot be written"):
        report.write_json(root / "nowhere" / "scores.json")
    assert not list(root.glob(".tmp*"))


def test_command(davis, capsys):
    root, _, _ = davis
    code = command(root / "out", truth=root / "DAVIS", output=root / "s.json", csv=root / "s.csv", objects=True)
    report = evaluate(root / "out", root / "DAVIS")
    out = capsys.readouterr().out
    assert code == 0
    assert f"{100 * report.jf:.1f}" in out
    assert "id 2" in out
    assert json.loads((root / "s.json").read_text())["score"] == report.score
    assert (root / "s.csv").stat().st_size


def test_page(davis):
    """One self-contained page, also for two runs."""
    root, truth, _ = davis
    page = root / "page.html"
    with pytest.raises(InputError, match="name one with --report"):
        command(root / "out", truth=root / "DAVIS", compare=root / "out")
    for name, frames in truth.items():
        write(root / "better" / name, frames)
    assert command(root / "better", truth=root / "DAVIS", report=page, compare=root / "out") == 0
    text = page.read_text()
    report, other = evaluate(root / "better", root / "DAVIS"), evaluate(root / "out", root / "DAVIS")
    assert f"{100 * report.score:.2f}" in text
    assert f"{100 * (report.score - other.score):+.1f}" in text
    assert text.count("<polyline") == 3 * 4  # J and F of three objects in two runs
    assert text.count("data:image/png;base64,") == 6 * 3  # two frames of each object, three pictures
    assert not re.search(r"(src|href)=.(?!data:)", text)
    assert command(root / "out", truth=root / "DAVIS", report=page) == 0
    every = [(s.name, one) for s in other.sequences for one in s.objects]
    name, one = min(every, key=lambda pair: (pair[1].per_frame.j + pair[1].per_frame.f).min())
    at = int((one.per_frame.j + one.per_frame.f).argmin())
    first = page.read_text().split("<figcaption>")[1]
    assert first.startswith(f"{name}_{one.id}, {one.frames[at]}: J {100 * one.per_frame.j[at]:.1f}")
