"""Colors inside masks: another exposure is the same thing still, another thing is not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from annotation import clip, iou, open_workspace

from vosformer.annotate.actions import rows_from_json, rows_to_json
from vosformer.annotate.colors import color_distance, color_histogram
from vosformer.annotate.project import Project
from vosformer.annotate.propagation import plan_propagation, plan_repair
from vosformer.annotate.records import Row
from vosformer.annotate.review import signs_of
from vosformer.io import open_source

WHOLE = np.ones((40, 60), bool)


def textured(color: tuple[int, int, int], gain: float = 1.0) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, 12, (*WHOLE.shape, 1))
    return np.clip((np.array(color) + noise) * gain, 0, 255).astype(np.uint8)


def colors_of(image: np.ndarray, mask: np.ndarray = WHOLE) -> np.ndarray:
    found = color_histogram(image, mask)
    assert found is not None
    return found


def test_a_shadow_changes_colors_less_than_another_thing_does() -> None:
    red, dark_red = (colors_of(textured((170, 60, 50), gain)) for gain in (1.0, 0.92))
    blue, green = (colors_of(textured(color)) for color in ((60, 70, 160), (70, 140, 60)))
    assert red.shape == (128,)
    assert red.sum() == pytest.approx(1)
    assert color_distance(red, red) == pytest.approx(0, abs=1e-6)
    assert color_distance(red, dark_red) < 0.15  # too little for the list
    assert color_distance(red, blue) == color_distance(blue, red) > 0.5
    assert color_distance(red, green) > 0.5


def test_colors_are_those_inside_the_mask_at_any_size() -> None:
    image = np.full((1080, 1920, 3), (30, 30, 200), np.uint8)
    mask = np.zeros(image.shape[:2], bool)
    mask[200:700, 300:900] = True
    image[mask] = (200, 40, 30)
    small, large = colors_of(image[::4, ::4], mask[::4, ::4]), colors_of(image, mask)
    assert color_distance(small, large) == pytest.approx(0, abs=1e-6)
    few = np.zeros(WHOLE.shape, bool)
    few[0, :5] = True
    assert color_histogram(textured((1, 2, 3)), few) is None


def test_a_mask_on_other_colors_is_doubtful_until_they_are_given(tmp_path: Path) -> None:
    images, truth = clip((1,))
    for n in range(4, len(images)):  # followed still, but by now it could be something else
        images[n][truth[n] == 1] = np.clip(images[n][truth[n] == 1] + np.array([-40, 50, 30]), 0, 255)
    workspace = open_workspace(tmp_path / "p", images)
    workspace.editor.add_object()
    workspace.editor.draw(0, 1, truth[0] == 1, "replace", "test")
    workspace.propagate(plan_propagation(workspace.project, "forward", 0), "test")
    assert workspace.wait(60)
    assert min(iou(workspace.project.labels(n) == 1, truth[n] == 1) for n in range(8)) > 0.6
    color = signs_of(workspace.project.measures, 1)["color"]
    assert color[1:4].max() == 0
    assert color[4:].min() > 0.3
    assert any(entry["frame"] >= 4 and "color" in entry["signs"] for entry in workspace.review())

    workspace.editor.draw(5, 1, truth[5] == 1, "replace", "test")
    workspace.propagate(plan_repair(workspace.project, 5), "test")
    assert workspace.wait(60)
    assert signs_of(workspace.project.measures, 1)["color"][6:].max() == 0
    kept = workspace.project.measures.column(1, "color")
    workspace.close()
    again = Project(tmp_path / "p", open_source(images))
    assert np.allclose(again.measures.column(1, "color"), kept, atol=1e-3, equal_nan=True)
    again.close()


def test_journals_without_colors_are_read() -> None:
    rows = {3: Row(0.5, 7, 1.0, 2.0, 0.25, 0.125)}
    written = rows_to_json(rows)
    assert rows_from_json(written) == rows
    old = rows_from_json({"3": written["3"][:5]})[3]
    assert old[:5] == rows[3][:5]
    assert np.isnan(old.color)
