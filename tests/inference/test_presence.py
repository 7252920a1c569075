"""Presence scores: their calibration, where weights keep it, and the benchmark that measures and fits it."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from dummy_models import ColorModel, PerObjectColorModel, flat_clip

import vosformer
from vosformer.errors import WeightsError
from vosformer.inference.session import Session
from vosformer.protocol import Presence
from vosformer.weights import save_weights

FILE = Path(__file__).parents[2] / "benchmarks" / "presence.py"
SPEC = importlib.util.spec_from_file_location("presence_benchmark", FILE)
assert SPEC is not None
assert SPEC.loader is not None
benchmark = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(benchmark)


def test_a_mean_becomes_a_chance_on_the_log_odds():
    mean = 0.83
    expected = 1 / (1 + np.exp(-1.7 * np.log(mean / (1 - mean)) + 0.6))
    assert Presence(1.7, -0.6).chance(mean) == pytest.approx(expected, abs=1e-12)
    assert Presence().chance(mean) == mean
    assert 0 < Presence(3, 5).chance(0.0) < 1e-6 < Presence(3, -5).chance(1.0) <= 1


@pytest.mark.parametrize("model", [ColorModel, PerObjectColorModel])
def test_scores_are_calibrated_and_masks_are_not(model):
    images, labels = flat_clip((1, 2), gone={2: 1})
    outs = []
    for calibration in (Presence(), Presence(2.0, 1.0)):
        network = model()
        network.presence = calibration
        s = Session(network, device="cpu", dtype="fp32", closer="off")
        s.step(images[0], labels[0])
        outs.append(s.step(images[1]))
    plain, calibrated = outs
    assert np.array_equal(plain.probability(1), calibrated.probability(1))
    for i in (1, 2):
        assert calibrated.score(i) == Presence(2.0, 1.0).chance(plain.score(i))
    assert calibrated.score(2) != plain.score(2)


def test_weights_keep_their_calibration(tmp_path):
    model = vosformer.build("aot-t", tiny=True)
    save_weights(model, "aot-t", tmp_path / "w.safetensors", {"presence": [1.5, -0.25]})
    assert vosformer.build("aot-t", tmp_path / "w.safetensors").presence == Presence(1.5, -0.25)
    assert model.presence == Presence()
    for wrong in ("[0, 1]", "[1]", "[1, NaN]", "high", "[[1], 2]"):
        save_weights(model, "aot-t", tmp_path / "w.safetensors", {"presence": wrong})
        with pytest.raises(WeightsError, match="metadata 'presence'"):
            vosformer.build("aot-t", tmp_path / "w.safetensors")


def test_the_area_under_the_curve_counts_pairs():
    generator = np.random.default_rng(0)
    scores, present = generator.integers(0, 12, 200) / 11, generator.random(200) < 0.7
    pairs = [(a > b) + 0.5 * (a == b) for a in scores[present] for b in scores[~present]]
    assert benchmark.auc(scores, present) == pytest.approx(np.mean(pairs), abs=1e-12)


def test_the_fit_finds_the_odds_that_made_the_data():
    generator = np.random.default_rng(1)
    scores = generator.random(40_000) * 0.98 + 0.01
    wanted = Presence(1.8, -0.7)
    present = generator.random(len(scores)) < [wanted.chance(score) for score in scores]
    scale, bias = benchmark.fit(scores, present)
    assert scale == pytest.approx(1.8, abs=0.06)
    assert bias == pytest.approx(-0.7, abs=0.06)
    again = benchmark.fit(np.array([Presence(scale, bias).chance(score) for score in scores]), present)
    assert again == pytest.approx((1, 0), abs=0.01)


def test_the_default_weights_are_calibrated():
    model = vosformer.build("default")
    assert model.presence.scale > 0
    assert model.presence != Presence()
    assert model.presence.chance(0.5) < 0.5, "unsure masks are mostly of absent objects"


def test_scores_of_other_clips_can_be_added(tmp_path, monkeypatch, capsys):
    shown = [(frame, 1, score, present) for frame, (score, present) in enumerate([(0.9, True), (0.2, False)], 1)]
    monkeypatch.setattr(benchmark, "Session", lambda *args, **options: None)
    monkeypatch.setattr(benchmark, "follow", lambda *args: shown)
    for words in (["--json", str(tmp_path / "one.json")], ["--add", str(tmp_path / "one.json")]):
        monkeypatch.setattr("sys.argv", ["presence.py", "out", "--clips", "a", *words])
        benchmark.main()
    alone, both = [line for line in capsys.readouterr().out.splitlines() if "absent" in line]
    assert alone.startswith("1 of 2 absent")
    assert both.startswith("2 of 4 absent")
