"""The project's folder: nothing is lost, everything can be undone, whatever ends the program."""

from __future__ import annotations

import math
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vosformer.annotate.label_files import labels_png, read_png
from vosformer.annotate.project import Project
from vosformer.annotate.records import GivenFrame, TrackedObject, measure, merged_ranges
from vosformer.errors import InputError, OutputError
from vosformer.io import open_source, read_masks

SIZE = (12, 16)
FRAMES = 5


def make_source() -> Any:
    return open_source(np.random.default_rng(0).integers(0, 255, (FRAMES, *SIZE, 3)).astype(np.uint8))


def blob(seed: int, i: int) -> np.ndarray:
    labels = np.zeros(SIZE, np.int32)
    row, column = seed % 7, seed * 5 % 9
    labels[row : row + 4, column : column + 5] = i
    return labels


def snapshot(project: Project) -> dict[str, Any]:
    return {
        "objects": dict(project.objects),
        "given": {n: (g.ids, dict(g.prompts), project.given_labels(n).tolist()) for n, g in sorted(project.given.items())},
        "masks": {int(n): project.labels(int(n)).tolist() for n in np.flatnonzero(project.masked())},
        "rows": [
            {i: tuple(None if math.isnan(v) else round(v, 3) for v in row) for i, row in project.measures.at(n).items()}
            for n in range(FRAMES)
        ],
    }


def apply(project: Project, kind: str, frame: int, seed: int) -> None:
    """One gesture of a user, or a piece of a propagation."""
    i = 1 + seed % 3
    if kind == "mark":
        labels = blob(seed, i)
        with project.action(f"mark {seed}") as act:
            if i not in project.objects:
                act.set_object(TrackedObject(i, f"object {i}"))
            act.set_given(frame, labels, GivenFrame((i,), {i: {"points": [[seed, 2]]}}))
            act.set_mask(frame, labels, measure(labels, {i: 1.0}))
    elif kind == "rename":
        with project.action("rename") as act:
            act.set_object(TrackedObject(i, f"name {seed}", absent=((seed, None),)))
    elif kind == "clear":
        with project.action("clear") as act:
            act.set_given(frame, np.zeros(SIZE, np.int32), GivenFrame(()))
            act.set_mask(frame, None, {})
    elif kind == "propagate":
        with project.begin("propagate") as act:
            for n in range(frame, FRAMES):
                act.set_mask(n, blob(seed + n, i), measure(blob(seed + n, i), {i: 0.5}, {i: 0.25}))
    elif kind == "undo":
        project.undo()
    else:
        project.redo()


KINDS = st.sampled_from(["mark", "rename", "clear", "propagate"])
GESTURES = st.lists(st.tuples(KINDS, st.integers(0, FRAMES - 1), st.integers(0, 20)), min_size=1, max_size=6)
ANY = st.lists(
    st.tuples(st.sampled_from(["mark", "rename", "clear", "propagate", "undo", "redo"]), st.integers(0, 4), st.integers(0, 20)),
    min_size=1,
    max_size=8,
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(gestures=GESTURES)
def test_undo_goes_back_through_all_states_and_redo_forth(tmp_path: Path, gestures: list[tuple[str, int, int]]) -> None:
    shutil.rmtree(tmp_path / "p", ignore_errors=True)
    project = Project(tmp_path / "p", make_source())
    states = [snapshot(project)]
    for gesture in gestures:
        apply(project, *gesture)
        if snapshot(project) != states[-1]:
            states.append(snapshot(project))
        elif gesture[0] == "propagate":  # is an action even where it changes nothing
            states.append(states[-1])
    for state in reversed(states[:-1]):
        assert project.undo() is not None
        assert snapshot(project) == state
    assert project.undo() is None
    for state in states[1:]:
        assert project.redo() is not None
        assert snapshot(project) == state
    assert project.redo() is None
    project.close()


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(gestures=ANY)
def test_opened_again_it_is_the_same_with_the_same_history(tmp_path: Path, gestures: list[tuple[str, int, int]]) -> None:
    shutil.rmtree(tmp_path / "p", ignore_errors=True)
    project = Project(tmp_path / "p", make_source())
    for gesture in gestures:
        apply(project, *gesture)
    state, undoable, redoable = snapshot(project), project.undoable, project.redoable
    project.folder_lock.release()  # killed: no last checkpoint
    again = Project(tmp_path / "p", make_source())
    assert (snapshot(again), again.undoable, again.redoable) == (state, undoable, redoable)
    again.undo()
    again.close()


class _Killed(BaseException):
    pass


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(before=ANY, last=ANY.map(lambda gestures: gestures[0]), after=st.integers(0, 9))
def test_a_kill_at_any_moment_loses_at_most_the_gesture_under_way(
    tmp_path: Path, before: list[tuple[str, int, int]], last: tuple[str, int, int], after: int
) -> None:
    shutil.rmtree(tmp_path / "p", ignore_errors=True)
    project = Project(tmp_path / "p", make_source())
    for gesture in before:
        apply(project, *gesture)
    old, replace = snapshot(project), os.replace
    left = [after]

    def killing(source: Any, target: Any) -> None:
        if left[0] == 0:
            raise _Killed
        left[0] -= 1
        replace(source, target)

    os.replace = killing  # type: ignore[assignment]
    try:
        apply(project, *last)
    except _Killed:
        pass
    finally:
        os.replace = replace  # type: ignore[assignment]
    project.folder_lock.release()
    again = Project(tmp_path / "p", make_source())
    found = snapshot(again)
    if found != old:  # then the gesture is there whole, but for the frames that a propagation did not get to
        assert (again.redo() if last[0] == "undo" else again.undo()) is not None
        assert snapshot(again) == old
    again.close()


def test_a_killed_propagation_keeps_the_frames_it_did(tmp_path: Path) -> None:
    project = Project(tmp_path, make_source())
    act = project.begin("propagate")
    for n in (1, 2):
        act.set_mask(n, blob(n, 1), measure(blob(n, 1), {1: 0.9}))
    project.folder_lock.release()
    again = Project(tmp_path, make_source())
    assert np.flatnonzero(again.masked()).tolist() == [1, 2]
    assert again.measures.column(1, "score")[1] == pytest.approx(0.9)
    assert again.undo() == "propagate"
    assert not again.masked().any()
    assert not list((tmp_path / "masks").glob("*.png"))


def test_track_takes_the_given_masks(tmp_path: Path) -> None:
    source = make_source()
    project = Project(tmp_path, source)
    apply(project, "mark", 3, 1)
    masks = read_masks(tmp_path / "given", source)
    assert list(masks) == [3]
    assert (masks[3].labels == blob(1, 2)).all()


def test_masks_that_others_put_into_given_are_taken_over(tmp_path: Path) -> None:
    (tmp_path / "given").mkdir()
    (tmp_path / "given" / "00002.png").write_bytes(labels_png(blob(3, 7)))
    project = Project(tmp_path, make_source())
    assert project.adopted == [2]
    assert set(project.objects) == {7}
    assert (project.labels(2) == blob(3, 7)).all()


def test_only_one_program_at_a_time(tmp_path: Path) -> None:
    project = Project(tmp_path, make_source())
    with pytest.raises(InputError, match=f"open in another annotator .*{os.getpid()}"):
        Project(tmp_path, make_source())
    project.close()
    Project(tmp_path, make_source()).close()


def test_other_frames_are_refused(tmp_path: Path) -> None:
    Project(tmp_path, make_source()).close()
    with pytest.raises(InputError, match="has other frames"):
        Project(tmp_path, open_source(np.zeros((FRAMES, *SIZE, 3), np.uint8)))


def test_a_broken_project_file_is_named(tmp_path: Path) -> None:
    Project(tmp_path, make_source()).close()
    (tmp_path / "project.json").write_text('{"vosformer_project": 1}')
    with pytest.raises(InputError, match=r"project\.json is no project file"):
        Project(tmp_path, make_source())


def test_a_folder_without_history_opens_with_all_masks(tmp_path: Path) -> None:
    project = Project(tmp_path, make_source())
    apply(project, "mark", 1, 4)
    state = snapshot(project)
    project.close()
    shutil.rmtree(tmp_path / ".history")
    again = Project(tmp_path, make_source())
    assert again.undo() is None
    # The journal starts anew, and with it how far it is contained.
    assert snapshot(again) == state
    apply(again, "clear", 1, 0)
    again.undo()
    assert snapshot(again) == state


@pytest.mark.parametrize("most", [3, 255, 256, 65535])
def test_label_maps_come_back(tmp_path: Path, most: int) -> None:
    labels = np.zeros(SIZE, np.int32)
    labels[2, 3], labels[4:6] = most, 1
    (tmp_path / "x.png").write_bytes(labels_png(labels))
    assert (read_png(tmp_path / "x.png") == labels).all()


def test_ids_that_no_png_holds_are_refused() -> None:
    with pytest.raises(OutputError, match="65536"):
        labels_png(np.full(SIZE, 65536, np.int32))


SPANS = st.lists(st.tuples(st.integers(0, 20), st.integers(1, 6) | st.none()), max_size=5)


@given(spans=SPANS, back=st.integers(0, 30))
def test_ranges_of_absence(spans: list[tuple[int, int | None]], back: int) -> None:
    ranges = [(start, None if length is None else start + length) for start, length in spans]
    thing = TrackedObject(1, "x")
    for start, stop in ranges:
        thing = thing.leaving(start, stop)
    inside = [any(a <= f and (b is None or f < b) for a, b in ranges) for f in range(40)]
    assert [thing.is_absent(f) for f in range(40)] == inside
    assert thing.absent == merged_ranges(thing.absent)
    returned = thing.returning(back)
    assert not returned.is_absent(back)
    assert [returned.is_absent(f) for f in range(back)] == inside[:back]
    assert TrackedObject.from_json(returned.to_json()) == returned
