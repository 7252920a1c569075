"""Results in time: the newest frame wins, nothing is passed over in silence, ages add up."""

from __future__ import annotations

import csv
import json
import time
from pathlib import Path

import numpy as np
import pytest
from dummy_models import ColorModel, flat_clip
from PIL import Image

from vosformer import LatencyBudget, Session, track
from vosformer.cli import main
from vosformer.errors import InputError
from vosformer.inference.latency import parse_seconds
from vosformer.io import Arrays, Frame, LabelImages, Source
from vosformer.testing import tiny_model
from vosformer.weights import save_weights

EMPTY = np.zeros((4, 4, 3), np.uint8)


def rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.open()))


def test_a_slow_consumer_gets_the_newest_and_the_log_has_every_frame(tmp_path: Path) -> None:
    frames = [Frame(n, f"{n:05d}", EMPTY, n * 0.02) for n in range(60)]
    budget, taken, ages = LatencyBudget(0.05, tmp_path / "latency.csv"), [], []
    with budget, budget.newest(iter(frames), keep={7, 8}) as newest:
        for frame in newest:
            taken.append(frame.number)
            time.sleep(0.1)
            ages.append(budget.done(frame))
    dropped = [int(row["frame"]) for row in rows(tmp_path / "latency.csv") if row["dropped"] == "1"]
    assert taken == sorted(taken)
    assert sorted(taken + dropped) == list(range(60))
    assert {0, 7, 8, 59} <= set(taken)
    assert len(dropped) > 30
    summary = budget.summary
    assert (summary["results"], summary["dropped"], summary["over_budget"]) == (len(taken), len(dropped), len(taken))
    assert summary["age_ms"]["max"] == round(max(ages) * 1000)
    assert summary["age_ms"]["p50"] == pytest.approx(np.percentile(ages, 50, method="inverted_cdf") * 1000, abs=1)
    logged = [float(row["age_ms"]) / 1000 for row in rows(tmp_path / "latency.csv") if row["dropped"] == "0"]
    assert logged == pytest.approx(ages, abs=1e-3)
    assert min(ages) >= 0.1
    # Frames 7 and 8 may make others wait; besides them, one frame waits at most, and less than 20 ms and a step.
    assert np.median(ages) < 0.1 + 0.1 + 0.06


def test_a_quick_consumer_gets_every_frame_at_its_time() -> None:
    frames = [Frame(n, f"{n:05d}", EMPTY, n * 0.03) for n in range(10)]
    budget, begin = LatencyBudget(5.0), time.monotonic()
    with budget, budget.newest(iter(frames)) as newest:
        assert [frame.number for frame in newest if budget.done(frame) < 5] == list(range(10))
    assert time.monotonic() - begin >= 0.27  # it was played, not read
    assert (budget.summary["dropped"], budget.summary["over_budget"]) == (0, 0)


class Camera(Source):
    """Frames that come every 10 ms whether anybody takes them or not."""

    name, height, width, live, real_time, count = "camera", 129, 193, True, True, None

    def __init__(self, images: list[np.ndarray]) -> None:
        self.images = images

    def frames(self, start=None, stop=None, step=1):
        for n, image in enumerate(self.images):
            time.sleep(0.01)
            yield Frame(n, f"{n:05d}", image, n * 0.01)


class Slow(ColorModel):
    def encode(self, image):
        time.sleep(0.05)
        return super().encode(image)


def test_a_camera_is_tracked_with_the_masks_that_it_has_time_for(tmp_path: Path) -> None:
    images, labels = flat_clip((1, 2), 40)
    budget = LatencyBudget(0.001, tmp_path / "latency.csv")
    session = Session(Slow(), device="cpu", dtype="fp32", size=None)
    report = track(Camera(images), {0: labels[0], 20: labels[20]}, session, [LabelImages(tmp_path / "masks")], latency=budget)
    budget.close()
    done = [row["name"] for row in rows(tmp_path / "latency.csv") if row["dropped"] == "0"]
    assert done == sorted(path.stem for path in (tmp_path / "masks").iterdir())
    assert {"00000", "00020"} <= set(done)
    assert report.frames == budget.summary["results"] == len(done) < 40
    assert report.frames + budget.summary["dropped"] == 40
    assert "passed over" in budget.describe()


def test_the_command_logs_ages_and_what_it_passed_over(tmp_path: Path) -> None:
    images, labels = flat_clip((1, 2), 12)
    for n, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f"{n:05d}.png")
    Image.fromarray(labels[0].astype(np.uint8)).save(tmp_path / "m.png")
    (tmp_path / "clip").mkdir()
    for path in tmp_path.glob("0*.png"):
        path.rename(tmp_path / "clip" / path.name)
    save_weights(tiny_model("aot-t"), "aot-t", tmp_path / "w.safetensors", overrides={"tiny": True})
    command = ["track", str(tmp_path / "clip"), "--mask", str(tmp_path / "m.png"), "-o", str(tmp_path / "out"), "--outputs", "masks",
               "--model", "aot-t", "--weights", str(tmp_path / "w.safetensors"), "--size", "64", "--dtype", "fp32", "--threads", "1",
               "--latency-budget", "100ms"]  # fmt: skip
    assert main(command) == 0
    told = json.loads((tmp_path / "out" / "run.json").read_text())
    assert told["latency"]["budget_ms"] == 100
    assert told["latency"]["results"] == told["frames"] == len(list((tmp_path / "out" / "masks").iterdir()))
    assert told["frames"] + told["latency"]["dropped"] == 12 == len(rows(tmp_path / "out" / "latency.csv"))
    assert any("passed over" in note for note in told["notes"])
    assert main([*command, "--direction", "both"]) == 2
    assert main([*command[:-1], "soon"]) == 2


def test_what_is_no_budget_is_told() -> None:
    assert [parse_seconds(text) for text in ("100ms", "0.1s", "100", " 1.5 s")] == pytest.approx([0.1, 0.1, 0.1, 1.5])
    for text in ("", "fast", "-1ms", "0", "1min"):
        with pytest.raises(InputError, match="expected a time above 0"):
            parse_seconds(text)
    with pytest.raises(InputError, match="expected a number above 0"):
        LatencyBudget(0)
    images, labels = flat_clip((1,), 2)
    with pytest.raises(InputError, match="depends on the clock"):
        track(Arrays(np.stack(images)), {0: labels[0]}, Session(ColorModel(), dtype="fp32"), [], direction="backward",
              latency=LatencyBudget(1))  # fmt: skip
