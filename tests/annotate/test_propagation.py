"""Propagation in a project: what is given wins, corrections reach to the neighboring given frames, and no further."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from annotation import clip, iou, open_workspace
from dummy_models import ColorModel

from vosformer import Session, track
from vosformer.annotate.project import Project
from vosformer.annotate.propagation import Propagation, PropagationPlan, _Seen, plan_propagation, plan_repair
from vosformer.annotate.workspace import Workspace
from vosformer.errors import InputError
from vosformer.io import LabelImages, open_source, read_masks


def give(workspace: Workspace, frame: int, labels: np.ndarray) -> None:
    for i in np.unique(labels):
        if i:
            while int(i) not in workspace.project.objects:
                workspace.editor.add_object()
            workspace.editor.draw(frame, int(i), labels == i, "replace", "test")


def propagate(workspace: Workspace, plan: PropagationPlan) -> None:
    workspace.propagate(plan, "test")
    assert workspace.wait(60)
    errors = [event for event in EVENTS if event.get("error")]
    assert not errors, errors


EVENTS: list[dict] = []


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    EVENTS.clear()
    made = open_workspace(tmp_path / "p", clip()[0])
    made.listeners.append(EVENTS.append)
    return made


def test_forward_is_what_track_does_with_the_given_masks(workspace: Workspace, tmp_path: Path) -> None:
    images, truth = clip()
    give(workspace, 0, truth[0])
    give(workspace, 4, np.where(truth[4] == 1, 1, 0))
    propagate(workspace, plan_propagation(workspace.project, "forward", 0))
    source = open_source(images)
    masks = read_masks(workspace.project.folder / "given", source)
    track(source, masks, Session(ColorModel(), size=None, dtype="fp32"), [LabelImages(tmp_path / "masks")])
    for n in range(len(images)):
        mine = (workspace.project.folder / "masks" / f"{n:05d}.png").read_bytes()
        assert mine == (tmp_path / "masks" / f"{n:05d}.png").read_bytes(), n


def test_both_ways_from_the_middle(workspace: Workspace) -> None:
    _, truth = clip()
    give(workspace, 3, truth[3])
    propagate(workspace, plan_propagation(workspace.project, "both", 3))
    assert workspace.project.masked().all()
    for n, labels in enumerate(truth):
        for i in (1, 2):
            assert iou(workspace.project.labels(n) == i, labels == i) > 0.8


def test_backward_leaves_later_frames_alone(workspace: Workspace) -> None:
    give(workspace, 5, clip()[1][5])
    propagate(workspace, plan_propagation(workspace.project, "backward", 5))
    assert np.flatnonzero(workspace.project.masked()).tolist() == list(range(6))


def test_a_range(workspace: Workspace) -> None:
    give(workspace, 4, clip()[1][4])
    propagate(workspace, plan_propagation(workspace.project, "both", 4, start=2, stop=6))
    assert np.flatnonzero(workspace.project.masked()).tolist() == [2, 3, 4, 5]


def test_a_repair_changes_only_frames_between_neighboring_given_ones(workspace: Workspace) -> None:
    _, truth = clip()
    for n in (0, 6):
        give(workspace, n, truth[n])
    propagate(workspace, plan_propagation(workspace.project, "both", 0))
    before = {n: workspace.project.mask_path(n).read_bytes() for n in range(8)}
    give(workspace, 3, np.where(truth[3] == 1, 2, 0))  # object 2 is where 1 was: a change that tracking follows
    plan = plan_repair(workspace.project, 3)
    assert (plan.low, plan.high) == (0, 6)
    propagate(workspace, plan)
    after = {n: workspace.project.mask_path(n).read_bytes() for n in range(8)}
    assert [n for n in before if before[n] != after[n]]
    assert {n for n in before if before[n] != after[n]} <= {1, 2, 3, 4, 5}


def test_between_given_frames_the_nearer_one_counts_more(workspace: Workspace) -> None:
    """What both passes say is weighed by distance: where they contradict, the switch lies in the middle."""
    _, truth = clip()
    give(workspace, 0, np.where(truth[0] == 1, 1, 0))
    give(workspace, 7, np.where(truth[7] == 2, 1, 0))  # the same object is said to be the other square there
    propagate(workspace, plan_propagation(workspace.project, "both", 0))
    first = [iou(workspace.project.labels(n) == 1, truth[n] == 1) for n in range(8)]
    second = [iou(workspace.project.labels(n) == 1, truth[n] == 2) for n in range(8)]
    assert first[1] > 0.8
    assert first[3] > 0.8
    assert second[4] > 0.8
    assert second[6] > 0.8
    assert workspace.project.measures.column(1, "agreement")[3] < 0.2


def test_given_and_locked_masks_stay(workspace: Workspace) -> None:
    _, truth = clip()
    give(workspace, 0, truth[0])
    odd = np.zeros_like(truth[4])
    odd[100:110, 100:130] = 2
    give(workspace, 4, odd)
    workspace.editor.change_object(1, locked=True)
    propagate(workspace, plan_propagation(workspace.project, "forward", 0))
    assert ((workspace.project.labels(4) == 2) == (odd == 2)).all()
    assert not any((workspace.project.labels(n) == 1).any() for n in range(1, 8))


def test_an_absent_object_is_not_tracked(workspace: Workspace) -> None:
    _, truth = clip()
    give(workspace, 0, truth[0])
    workspace.editor.absent_from(3, 1)
    workspace.editor.here_again(6, 1)
    propagate(workspace, plan_propagation(workspace.project, "forward", 0))
    there = [bool((workspace.project.labels(n) == 1).any()) for n in range(8)]
    assert there[:6] == [True] * 3 + [False] * 3
    assert workspace.project.measures.column(1, "score")[4] == 0


def test_stopped_it_keeps_what_it_did(workspace: Workspace) -> None:
    give(workspace, 0, clip()[1][0])
    project = workspace.project
    run = Propagation(
        project, Session(ColorModel(), size=None), plan_propagation(project, "forward", 0), project.folder / "work"
    )
    frames: list[int] = []
    with project.begin("test") as action:
        for step in run.run(action, lambda: len(frames) >= 2):
            frames.append(step.frame)
    assert frames == [0, 1]
    assert np.flatnonzero(project.masked()).tolist() == [0, 1]
    assert project.undo() == "test"
    assert np.flatnonzero(project.masked()).tolist() == [0]


def test_an_edit_stops_a_propagation_first(workspace: Workspace) -> None:
    give(workspace, 0, clip()[1][0])
    workspace.propagate(plan_propagation(workspace.project, "forward", 0), "long")
    with workspace.edit() as editor:
        editor.absent(7, 2)
    assert workspace.wait(0)
    assert not (workspace.project.labels(7) == 2).any()
    assert workspace.project.undo() == "absent here"


@pytest.mark.parametrize(
    ("frame", "forward", "backward", "there"),
    [
        (3, 0.97, 0.05, True),  # one pass is sure, and the other has lost the object: it is where the first one says
        (4, 0.05, 0.97, True),
        (4, 0.6, 0.02, False),  # who is sure that it is gone outweighs who is not
        (1, 0.02, 0.9, False),  # near the given frame that the pass forward comes from, that pass decides
        (6, 0.9, 0.02, False),
    ],
)
def test_a_pass_that_has_lost_an_object_says_little_of_where_it_is(
    workspace: Workspace, frame: int, forward: float, backward: float, there: bool
) -> None:
    for n in (0, 7):
        give(workspace, n, clip()[1][n])
    run = Propagation(
        workspace.project, Session(ColorModel()), PropagationPlan(0, 7, "both"), workspace.project.folder / "work"
    )
    size = workspace.project.size
    place = np.zeros(size, np.float32)
    place[4:12, 4:12] = 1

    def says(score: float) -> np.ndarray:
        return place if score > 0.5 else np.zeros(size, np.float32)

    seen = _Seen(frame, None, np.zeros(size, np.int32), {1: backward}, lambda i: says(backward))
    labels, scores, _ = run._blended(seen, {1: (forward, (says(forward) * 255).astype(np.uint8))})
    weight = frame / 7
    odds = (1 - weight) * np.log(forward / (1 - forward)) + weight * np.log(backward / (1 - backward))
    assert scores[1] == pytest.approx(1 / (1 + np.exp(-odds)))
    assert (scores[1] > 0.5) == there
    assert (labels == np.where(place > 0, there, 0)).all()


def test_propagations_look_again_how_many_threads_are_free(tmp_path: Path) -> None:
    where: list[str] = []
    workspace = Workspace(
        Project(tmp_path, open_source(clip()[0])),
        lambda: Session(ColorModel(), size=None),
        prepare=lambda: where.append(threading.current_thread().name),
    )
    give(workspace, 0, clip()[1][0])
    for _ in range(2):
        workspace.propagate(plan_propagation(workspace.project, "forward", 0), "test")
        workspace.wait(60)
    assert where == ["propagation"] * 4  # before the first frame and after it
    assert workspace.project.masked().all()


def test_frames_that_do_not_decode_are_bridged(tmp_path: Path) -> None:
    images, truth = clip()
    frames = [*images]
    frames[3] = None  # type: ignore[call-overload]
    workspace = Workspace(
        Project(tmp_path, open_source(frames)),
        lambda: Session(ColorModel(), size=None),
    )
    give(workspace, 0, truth[0])
    workspace.propagate(plan_propagation(workspace.project, "forward", 0), "test")
    workspace.wait(60)
    assert (workspace.project.labels(3) == workspace.project.labels(2)).all()
    assert workspace.project.measures.column(1, "score")[3] == 0
    assert workspace.project.masked().all()


def test_without_a_mask_there_is_nothing_to_propagate(workspace: Workspace) -> None:
    with pytest.raises(InputError, match="no mask to begin with"):
        plan_propagation(workspace.project, "forward", 0)
    with pytest.raises(InputError, match="nothing is given on frame 2"):
        plan_repair(workspace.project, 2)
    give(workspace, 5, clip()[1][5])
    with pytest.raises(InputError, match="no mask to begin with"):
        plan_propagation(workspace.project, "forward", 0, stop=3)
