"""Doubtful frames: each sign is seen where it is, given frames are none, and suggestions are diverse."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from annotation import clip
from dummy_models import ColorModel

from vosformer import Session, track
from vosformer.annotate.records import Measures, Row
from vosformer.annotate.review import doubts_of, measures_of_results, rank, signs_of, suggest
from vosformer.cli import main
from vosformer.errors import InputError
from vosformer.io import LabelImages, ScoresFile, open_source

FRAMES = 60
CALM = {"score": 0.98, "pixels": 400, "x": 50.0, "y": 50.0, "agreement": math.nan, "color": 0.05}


def measures(changes: dict[int, dict[int, dict[str, float]]], ids: tuple[int, ...] = (1,)) -> Measures:
    """A calm video, but for `changes`: object -> frame -> what is otherwise from there on, or on that frame alone (score, ...)."""
    made = Measures(FRAMES)
    now = {i: dict(CALM, x=50.0 + 30 * i) for i in ids}
    for frame in range(FRAMES):
        rows = {}
        for i in ids:
            said = changes.get(i, {}).get(frame, {})
            now[i].update({k: v for k, v in said.items() if k not in ("score", "agreement", "color")})
            row = {**now[i], **said}
            rows[i] = Row(**{**row, "pixels": int(row["pixels"]), "x": row["x"] + 0.2 * frame})
        made.put(frame, rows)
    return made


@pytest.mark.parametrize(
    ("sign", "said"),
    [
        ("presence", {"score": 0.2}),
        ("area", {"pixels": 1600}),
        ("area", {"pixels": 0, "x": math.nan, "y": math.nan}),
        ("place", {"x": 140.0}),
        ("color", {"color": 0.22}),
        ("disagreement", {"agreement": 0.1}),
    ],
)
def test_a_sign_is_seen_on_its_frame(sign: str, said: dict[str, float]) -> None:
    made = measures({1: {30: said}})
    assert signs_of(made, 1)[sign][30] > 0.6
    first = rank(made)[0]
    assert (first.frame, first.id) == (30, 1)
    assert sign in first.signs
    assert first.reason


def test_a_calm_video_has_no_doubtful_frame() -> None:
    assert rank(measures({}, (1, 2))) == []


def test_objects_that_take_pixels_from_each_other() -> None:
    made = measures({1: {20: {"pixels": 150}}, 2: {20: {"pixels": 650}}}, (1, 2))
    assert signs_of(made, 1)["competition"][20] > 0.5
    apart = measures({1: {20: {"pixels": 150}}, 2: {0: {"x": 900.0}, 20: {"pixels": 650}}}, (1, 2))
    assert signs_of(apart, 1)["competition"][20] == 0


def test_what_is_surely_gone_is_not_doubtful_on_every_frame() -> None:
    gone = {n: {"score": 0.01, "pixels": 0, "x": math.nan, "y": math.nan} for n in range(30, FRAMES)}
    made = measures({1: gone})
    curve = doubts_of(made, 1)
    assert curve[30] > 0.9
    assert curve[32:].max() < 0.1


def test_given_frames_are_not_doubtful() -> None:
    made = measures({1: {30: {"score": 0.2}}})
    assert doubts_of(made, 1, [30])[30] == 0
    assert 30 not in suggest(made, 3, {1: [30]})


def test_suggestions_are_doubtful_and_far_apart() -> None:
    bad = {n: {"score": 0.3} for n in (20, 21, 22)} | {50: {"score": 0.5}}
    chosen = suggest(measures({1: bad}), 2, {1: [0]})
    assert chosen[0] in (20, 21, 22)
    assert chosen[1] == 50
    assert suggest(measures({1: bad}), 2, {1: [0]}) == chosen
    assert suggest(Measures(FRAMES), 3) == []


def test_review_of_what_track_wrote(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images, truth = clip(frames=8, gone={2: 4})
    sinks = [LabelImages(tmp_path / "masks"), ScoresFile(tmp_path / "scores.csv")]
    track(open_source(images), {0: truth[0]}, Session(ColorModel(), size=None, dtype="fp32"), sinks)
    assert not np.isnan(measures_of_results(tmp_path).column(1, "x")).any()
    assert main(["review", str(tmp_path)]) == 0
    written = json.loads((tmp_path / "review.json").read_text())
    assert any(entry["frame"] == 4 and entry["id"] == 2 for entry in written["doubtful"])
    assert "correct these first" in capsys.readouterr().out


def test_a_folder_without_scores_is_explained(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no scores\.csv"):
        measures_of_results(tmp_path)
