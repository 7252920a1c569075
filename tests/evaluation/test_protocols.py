"""Scores that the benchmarks' own scorers gave for synthetic masks: every number of every recording that is found.

The folder is ``$VOSFORMER_FIXTURES/protocols`` (default: the one beside these tests) with NAME/{data.npz,layout.json,expected.json}
in it, as its README tells; further recordings can be dropped in without touching this file.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vosformer.evaluation import RULES, evaluate, evaluate_tracks
from vosformer.evaluation.tracks import ALPHAS
from vosformer.evaluation.vot import VotRun, run_overlaps, vot_scores
from vosformer.evaluation.vot_files import encode_region, evaluate_vot, find_anchors, read_vot, run_file, run_text

FIXTURES = Path(os.environ.get("VOSFORMER_FIXTURES", Path(__file__).parents[1] / "fixtures")) / "protocols"
KNOWN = ("davis2016", "davis2017", "vost", "lvos", "mosev2", "sav", "visor", "viposeg", "burst", "ytvis", "vot")
FOUND = sorted(path.parent.name for path in FIXTURES.glob("*/expected.json"))
TOLERANCE = 1e-9
PER_CENT = 1e-6


def test_recordings_are_found():
    if not FOUND and "VOSFORMER_FIXTURES" in os.environ:
        pytest.skip(f"{FIXTURES} holds no recordings of the protocols")
    assert FOUND
    assert not set(FOUND) - set(KNOWN), "a recording that this test does not know"


def recorded(name):
    if name not in FOUND:
        pytest.skip(f"{FIXTURES} holds no recording of {name}")
    return json.loads((FIXTURES / name / "expected.json").read_text())


def lay_out(name, root):
    """Write the masks and files of a recording as its benchmark has them; returns the folders of results and truth."""
    layout = json.loads((FIXTURES / name / "layout.json").read_text())
    with np.load(FIXTURES / name / "data.npz") as arrays:
        for folder in layout["folders"]:
            place = root / folder["side"] / folder["path"]
            place.mkdir(parents=True)
            masks = arrays[folder["array"]]
            assert len(masks) == len(folder["frames"])
            for frame, mask in zip(folder["frames"], masks, strict=True):
                image = Image.fromarray(mask, "L")
                if folder["mode"] == "P":
                    image.putpalette(list(range(256)) * 3)
                image.save(place / f"{frame}.png")
    for path, content in layout["files"].items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(content if isinstance(content, str) else json.dumps(content))
    return root / "result", root / "truth"


def agree(found, expected, tolerance, where=""):
    """Every number of `expected` is in `found`; None stands for what is not defined."""
    for name, value in expected.items():
        at = f"{where} {name}"
        assert name in found, at
        if isinstance(value, dict):
            agree(found[name], value, tolerance, at)
        elif value is None:
            assert math.isnan(found[name]), at
        else:
            np.testing.assert_allclose(found[name], value, rtol=0, atol=tolerance, err_msg=at)


def one_by_one(report):
    return {one.name: one for sequence in report.sequences for one in sequence.objects}


def agree_per_object(report, expected, tolerance, lists):
    """The numbers and the values by frame of each object; `lists` gives the latter by their names."""
    objects = one_by_one(report)
    assert set(objects) == set(expected)
    for name, numbers in expected.items():
        values = {key: of(objects[name]) for key, of in lists.items()}
        agree(report.official.objects[name] | values, {k: v for k, v in numbers.items() if k != "unseen"}, tolerance, name)


J_AND_F = {"J": lambda one: one.per_frame.j, "F": lambda one: one.per_frame.f}


def test_davis2016(tmp_path):
    expected = recorded("davis2016")
    report = evaluate(*lay_out("davis2016", tmp_path), rules="davis2016", split="2016/val")
    agree(report.official.overall, expected["overall"], TOLERANCE)
    agree_per_object(report, expected["objects"], TOLERANCE, J_AND_F)


@pytest.mark.parametrize(("name", "rules", "lists"), [("davis2017", "davis", "2017"), ("visor", "visor", "2022")])
def test_davis2017_and_visor(name, rules, lists, tmp_path):
    expected = recorded(name)
    result, truth = lay_out(name, tmp_path)
    for split, numbers in expected.items():
        report = evaluate(result, truth, rules=rules, split=f"{lists}/{split}")
        agree(report.official.overall, numbers["overall"], TOLERANCE, split)
        agree_per_object(report, numbers["objects"], TOLERANCE, J_AND_F)
        assert report.score == report.official.overall["J&F-Mean"]


def test_vost(tmp_path):
    expected = recorded("vost")
    report = evaluate(*lay_out("vost", tmp_path), rules="vost", split="val")
    agree(report.official.overall, expected["overall"], TOLERANCE)
    last = {"J_last": lambda one: one.per_frame.j[math.floor(0.75 * len(one.frames)) :]}
    agree_per_object(report, expected["objects"], TOLERANCE, {"J": J_AND_F["J"]} | last)
    assert report.score == report.official.overall["J-Mean"]


@pytest.mark.parametrize(("version", "rules"), [("head", "lvos"), ("nov2022", "lvos-2022")])
def test_lvos(version, rules, tmp_path):
    expected = recorded("lvos")
    report = evaluate(*lay_out("lvos", tmp_path), rules=rules)
    agree(report.official.overall, expected[version]["overall"], TOLERANCE)
    agree_per_object(report, expected[version]["objects"], TOLERANCE, J_AND_F)
    objects = one_by_one(report)
    assert {name: str(one.id) for name, one in objects.items()} == expected["ids"]
    assert {name: one.group == "unseen" for name, one in objects.items()} == {
        name: one["unseen"] for name, one in expected[version]["objects"].items()
    }


def test_mosev2(tmp_path):
    expected = recorded("mosev2")
    result, truth = lay_out("mosev2", tmp_path)
    report = evaluate(result, truth, rules="mosev2")
    agree(report.official.overall, expected["overall"], PER_CENT)
    lists = {
        "J_frames": J_AND_F["J"],
        "F_new_frames": J_AND_F["F"],
        "F_frames": lambda one: one.extra["F"],
        "truth_empty": lambda one: ~one.shown,
    }
    agree_per_object(report, expected["objects"], PER_CENT, lists)
    without = expected["without_video"]
    (result / without["video"]).rename(tmp_path / "elsewhere")
    report = evaluate(result, truth, rules="mosev2", missing="zero")
    agree(report.official.overall, without["overall"], PER_CENT)


@pytest.mark.parametrize("case", ["standard", "first_and_last_count"])
def test_sav(case, tmp_path):
    expected = recorded("sav")
    every = case == "first_and_last_count"
    report = evaluate(*lay_out("sav", tmp_path), rules=replace(RULES["sav"], given=every, last=every))
    agree(report.official.overall, expected[case]["overall"], PER_CENT)
    agree_per_object(report, expected[case]["objects"], PER_CENT, {})


def test_sav_on_label_maps(tmp_path):
    expected = recorded("sav").get("davis_layout_on_davis2017_fixture")
    recorded("davis2017")
    if expected is None:
        pytest.skip("not recorded")
    report = evaluate(*lay_out("davis2017", tmp_path), rules="sav")
    agree(report.official.overall, expected["overall"], PER_CENT)
    agree_per_object(report, expected["objects"], PER_CENT, {})


def test_viposeg(tmp_path):
    expected = recorded("viposeg")
    report = evaluate(*lay_out("viposeg", tmp_path), rules="viposeg")
    agree(report.official.overall, expected["overall"], TOLERANCE)


def track_classes(report):
    """The numbers of each class under TrackEval's names."""
    names = {"HOTA": "hota", "DetA": "det", "AssA": "ass", "LocA": "loc", "AP_all": "ap", "AR_all": "ar"}
    return {name: {key: getattr(one, at) for key, at in names.items()} for name, one in report.classes.items()}


def test_burst():
    expected = recorded("burst")
    report = evaluate_tracks(FIXTURES / "burst" / "results.json", FIXTURES / "burst", rules="burst")
    found = {name: {group: 100 * one[name] for group, one in report.groups.items()} for name in expected["overall"]}
    agree(found, expected["overall"], PER_CENT)
    agree(track_classes(report), expected["classes"], TOLERANCE)
    np.testing.assert_allclose(ALPHAS, expected["alphas"])


def test_youtube_vis():
    expected = recorded("ytvis")
    report = evaluate_tracks(FIXTURES / "ytvis" / "results.json", FIXTURES / "ytvis" / "truth.json", rules="youtube-vis")
    agree(report.groups["all"], expected["overall"], TOLERANCE)
    agree(track_classes(report), expected["classes"], TOLERANCE)


def vot_runs(name, sequence, expected):
    """The overlaps of the recorded runs: of masks taken anew, else (`long`) as they are recorded; and the truths that are empty."""
    length = expected["length"]
    empty = np.zeros(length, bool)
    empty[expected["empty_truth"]] = True
    runs = {}
    for anchor, run in expected["runs"].items():
        start = int(anchor)
        order = np.arange(start, length) if run["direction"] > 0 else np.arange(start, -1, -1)
        overlaps = np.array(run["overlaps"], float)
        if name == "masks":
            with np.load(FIXTURES / "vot" / "data.npz") as arrays:
                truth, result = arrays[f"truth_{sequence}"] > 0, arrays[f"run_{sequence}_{anchor}"] > 0
            assert (~truth.any((1, 2))).tolist() == empty.tolist()
            overlaps = run_overlaps(truth[order], result)
            np.testing.assert_allclose(overlaps, run["overlaps"], rtol=0, atol=TOLERANCE, err_msg=f"{sequence} {anchor}")
        runs[anchor] = VotRun(overlaps, empty[order])
    return runs


@pytest.mark.parametrize("name", ["masks", "long"])
def test_vot(name):
    expected = recorded("vot")[name]
    sequences = {
        sequence: (one["length"], list(vot_runs(name, sequence, one).values()))
        for sequence, one in expected["sequences"].items()
    }
    report = vot_scores(sequences, expected["low"], expected["high"])
    agree(vars(report), expected["overall"], TOLERANCE)
    np.testing.assert_allclose(report.curve, expected["eao_curve"], rtol=0, atol=TOLERANCE)
    for sequence, one in expected["sequences"].items():
        found = report.sequences[sequence]
        agree(vars(found), {key: one[key] for key in ("accuracy", "robustness", "frames_before_failure", "length")}, TOLERANCE)
        if "eao_curve" in one:
            np.testing.assert_allclose(found.curve, one["eao_curve"], rtol=0, atol=TOLERANCE)
            np.testing.assert_array_equal(found.weights, one["eao_active"])


def test_vot_files(tmp_path):
    """The toolkit's own files are read, and written to the letter."""
    expected = recorded("vot")["masks"]
    files = json.loads((FIXTURES / "vot" / "files.json").read_text())
    for path, text in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    (results,) = {path.parents[1] for path in (tmp_path / "results").glob("*/*/*/*.txt")}
    report = evaluate_vot(results, tmp_path, expected["low"], expected["high"])
    assert report.sequences
    for video in read_vot(tmp_path):
        known = expected["sequences"][video.name]
        found = report.sequences[video.name]
        agree(vars(found), {key: known[key] for key in ("accuracy", "robustness", "frames_before_failure")}, TOLERANCE)
        assert {str(anchor): direction for anchor, direction in video.anchors.items()} == {
            anchor: run["direction"] for anchor, run in known["runs"].items()
        }
        empty = ~video.truth(range(len(video.regions))).any((1, 2))
        # Anchors are missing where the truth is empty, so which gap it was cannot be read off the first two.
        assert any(find_anchors(empty.tolist(), gap) == video.anchors for gap in range(1, len(empty) + 1))
        with np.load(FIXTURES / "vot" / "data.npz") as arrays:
            truth = arrays[f"truth_{video.name}"] > 0
            np.testing.assert_array_equal(video.truth(range(len(truth))), truth)
            assert "\n".join(encode_region(mask) for mask in truth).split() == list(video.regions)
            for anchor in video.anchors:
                name = f"{video.name}/{run_file(video.name, anchor)}"
                assert "".join(run_text(arrays[f"run_{video.name}_{anchor}"] > 0)) == (results / name).read_text()
