"""Gestures: each does what it says to one object, respects locks, and can be undone."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from annotation import clip, iou, open_workspace

from vosformer.annotate.editor import Editor
from vosformer.annotate.project import Project
from vosformer.errors import InputError
from vosformer.prompts import mark


@pytest.fixture
def editor(tmp_path: Path) -> Editor:
    workspace = open_workspace(tmp_path / "p", clip()[0])
    for _ in range(2):
        workspace.editor.add_object()
    return workspace.editor


@pytest.fixture
def project(editor: Editor) -> Project:
    return editor._project


TRUTH = clip()[1]


def center(frame: int, i: int) -> tuple[float, float]:
    rows, columns = np.nonzero(TRUTH[frame] == i)
    return float(columns.mean()), float(rows.mean())


def box(frame: int, i: int, room: int = 3) -> tuple[float, float, float, float]:
    rows, columns = np.nonzero(TRUTH[frame] == i)
    return float(columns.min() - room), float(rows.min() - room), float(columns.max() + room), float(rows.max() + room)


def test_a_box_marks_and_clicks_are_remembered(editor: Editor, project: Project) -> None:
    editor.click(0, 1, [], [], box(0, 1))
    assert ((project.labels(0) == 1) == mark(clip()[0][0], box=box(0, 1))).all()
    assert iou(project.labels(0) == 1, TRUTH[0] == 1) > 0.85
    editor.click(0, 1, [center(0, 1)], [1])
    assert project.given[0].prompts[1]["points"] == [[*center(0, 1)]]
    assert project.given[0].prompts[1]["box"] == [*box(0, 1)]
    assert project.undo() == "click"
    assert project.given[0].prompts[1]["points"] == []
    editor.stroke(0, 1, [(5, 5)], 3)
    assert 1 not in project.given[0].prompts  # a stroke is no prompt: the next click repairs the mask that is there


@pytest.mark.parametrize("lost", [".history", "bases"])
def test_clicks_go_on_from_the_mask_that_they_repair(editor: Editor, project: Project, lost: str) -> None:
    """The mask before the first click is part of the project; if somebody removes it, the mask that is there is repaired."""
    editor.polygon(0, 1, [(10, 10), (60, 10), (60, 60), (10, 60)])
    drawn = project.labels(0) == 1
    editor.click(0, 1, [(80, 80)], [1])
    clicked = project.labels(0) == 1
    project.close()
    shutil.rmtree(project.folder / lost)
    again = open_workspace(project.folder, clip()[0])
    again.editor.click(0, 1, [(30, 30)], [0])
    assert not again.project.labels(0)[30, 30]
    points = again.project.given[0].prompts[1]["points"]
    assert points == ([[80, 80], [30, 30]] if lost == ".history" else [[30, 30]])
    base = again.project.base(again.project.given[0].prompts[1]["base"])
    assert base is not None
    assert (base == (drawn if lost == ".history" else clicked)).all()
    again.close()


def test_brush_and_eraser(editor: Editor, project: Project) -> None:
    editor.stroke(2, 1, [(50, 50), (80, 50)], 6)
    mask = project.labels(2) == 1
    assert mask[50, 65]
    assert mask[45, 65]
    assert not mask[60, 65]
    assert not mask[50, 92]
    editor.stroke(2, 1, [(65, 40), (65, 60)], 2, erase=True)
    assert not (project.labels(2) == 1)[50, 65]
    assert (project.given_labels(2) == project.labels(2)).all()


def test_polygon_fill_and_move(editor: Editor, project: Project) -> None:
    editor.polygon(0, 2, [(20, 80), (60, 80), (60, 120), (20, 120)])
    editor.polygon(0, 2, [(30, 90), (50, 90), (50, 110), (30, 110)], "subtract")
    assert not (project.labels(0) == 2)[100, 40]
    editor.fill(0, 2, 40, 100)
    assert (project.labels(0) == 2)[85:115, 25:55].all()
    before = project.labels(0) == 2
    editor.move(0, 2, 7, -5)
    assert ((project.labels(0) == 2)[:-5, 7:] == before[5:, :-7]).all()
    assert (project.labels(0) == 2).sum() == before.sum()


def test_fill_takes_the_area_of_one_color(editor: Editor, project: Project) -> None:
    editor.fill(0, 1, *center(0, 1))
    assert iou(project.labels(0) == 1, TRUTH[0] == 1) == 1


def test_copy_takes_the_nearest_mask_before(editor: Editor, project: Project) -> None:
    with pytest.raises(InputError, match="no frame before 3 has a mask"):
        editor.copy(3, 1)
    editor.stroke(0, 1, [(20, 20)], 5)
    editor.stroke(1, 1, [(40, 20)], 5)
    editor.stroke(2, 2, [(90, 90)], 5)
    assert editor.copy(3, 1) == 1
    assert (project.labels(3) == 1)[20, 40]


def test_an_object_takes_pixels_from_another_but_not_from_a_locked_one(editor: Editor, project: Project) -> None:
    editor.stroke(0, 1, [(50, 50)], 10)
    editor.stroke(0, 2, [(58, 50)], 10)
    assert project.labels(0)[50, 53] == 2
    assert project.given_labels(0)[50, 53] == 2
    editor.change_object(2, locked=True)
    editor.stroke(0, 1, [(58, 50)], 10)
    assert project.labels(0)[50, 58] == 2
    with pytest.raises(InputError, match="locked"):
        editor.stroke(0, 2, [(0, 0)], 10)


def test_absent_here_and_clear(editor: Editor, project: Project) -> None:
    editor.stroke(0, 1, [(50, 50)], 10)
    editor.stroke(0, 2, [(90, 90)], 10)
    editor.absent(0, 1)
    assert project.given[0].ids == (1, 2)
    assert project.measures.at(0)[1][:2] == (0.0, 0)
    editor.clear(0, 1)
    assert project.given[0].ids == (2,)
    editor.clear(0)
    assert not project.given
    assert not project.masked().any()
    for _ in range(3):
        project.undo()
    assert project.labels(0)[50, 50] == 1


def test_merge_swap_and_remove(editor: Editor, project: Project) -> None:
    for n in range(3):
        editor.stroke(n, 1, [(50, 50)], 10)
        editor.stroke(n, 2, [(90, 90)], 10)
    editor.swap(1, 2, 1)
    assert [project.labels(n)[50, 50] for n in range(3)] == [1, 2, 2]
    assert [project.given_labels(n)[90, 90] for n in range(3)] == [2, 1, 1]
    editor.merge(1, 2)
    assert set(project.objects) == {1}
    assert all(project.labels(n)[50, 50] == 1 and project.labels(n)[90, 90] == 1 for n in range(3))
    project.undo()
    assert [project.labels(n)[50, 50] for n in range(3)] == [1, 2, 2]
    editor.remove_object(2)
    assert set(project.objects) == {1}
    assert project.given[1].ids == (1,)
    assert [project.labels(n)[50, 50] for n in range(3)] == [1, 0, 0]
    project.undo()
    project.undo()
    assert [project.labels(n)[50, 50] for n in range(3)] == [1, 1, 1]


def test_scissors_hold_on_to_edges(editor: Editor) -> None:
    x0, y0, x1, y1 = (int(v) for v in box(0, 1, 0))
    path = np.array(editor.scissors(0, (x0, y0), (x1, y1)))
    onto = np.minimum(np.abs(path[:, 0] - x0), np.abs(path[:, 0] - x1)) <= 2
    onto |= np.minimum(np.abs(path[:, 1] - y0), np.abs(path[:, 1] - y1)) <= 2
    assert onto.mean() > 0.9
    assert len(path) > 20


@pytest.mark.parametrize(
    ("gesture", "words"),
    [
        (lambda e: e.click(0, 9, [(1, 1)], [1]), "no object 9"),
        (lambda e: e.click(99, 1, [(1, 1)], [1]), "no frame 99"),
        (lambda e: e.click(0, 1, [], []), "or give a box"),
        (lambda e: e.click(0, 1, [(1, 1)], [2]), "label"),
        (lambda e: e.click(0, 1, [], [], (9, 9, 3, 3)), "expected x0, y0, x1, y1"),
        (lambda e: e.click(0, 1, [(1e6, 1)], [1]), "outside of the frame"),
        (lambda e: e.polygon(0, 1, [(1, 1), (2, 2)]), "3"),
        (lambda e: e.fill(0, 1, -1, 5), "outside"),
        (lambda e: e.move(0, 1, 4000, 0), "leaves the frame"),
        (lambda e: e.merge(1, 1), "with itself"),
        (lambda e: e.swap(1, 1, 0), "with itself"),
    ],
)
def test_what_makes_no_sense_is_refused_and_changes_nothing(editor: Editor, project: Project, gesture, words: str) -> None:
    before = project.version
    with pytest.raises(InputError, match=words):
        gesture(editor)
    assert project.version == before
