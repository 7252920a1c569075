"""`benchmarks/one_step.py`: what is scored, by which classes, and that copying scores as a model that copies does."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from data_folders import mask, picture

from vosformer.errors import InputError

FILE = Path(__file__).parents[2] / "benchmarks" / "one_step.py"
spec = importlib.util.spec_from_file_location("one_step", FILE)
one_step = importlib.util.module_from_spec(spec)
sys.modules["one_step"] = one_step  # its dataclasses look there for their annotations
spec.loader.exec_module(one_step)


def labels(left: int = 2) -> np.ndarray:
    """Two squares of 10 pixels that touch, and one that does not."""
    found = np.zeros((48, 80), np.uint8)
    found[5:15, left : left + 10] = 1
    found[5:15, left + 10 : left + 20] = 2
    found[30:40, 60:70] = 3
    return found


class Copier:
    """A session that says of every frame what it was told of the first one."""

    def __init__(self) -> None:
        self.told: np.ndarray | None = None

    def reset(self) -> None:
        self.told = None

    def step(self, frame, given=None):
        if given is not None:
            if self.told is not None:
                raise InputError("told twice")
            self.told = given
        return SimpleNamespace(labels=self.told)

    @property
    def state(self):
        return self.told

    @state.setter
    def state(self, told) -> None:
        self.told = told


@pytest.fixture
def clip(tmp_path):
    for time in range(7):
        picture(tmp_path / f"frames/walk/{time:05d}.jpg", size=(48, 80))
        mask(tmp_path / f"masks/walk/{time:05d}.png", labels(2 + time) if time < 5 else labels(2 + time) % 3)
    return tmp_path / "frames/walk", tmp_path / "masks/walk"


def test_copying_scores_as_a_model_that_copies(clip):
    scores = list(one_step.follow(Copier(), *clip, [0, 1, 6], 1, single=False))
    assert [(s.j, s.f) for s in scores] == [(s.copy_j, s.copy_f) for s in scores]
    by = {(s.after, s.object): s for s in scores}
    assert all(by[0, i].j == 1 for i in (1, 2, 3))
    assert by[1, 1].j == pytest.approx(90 / 110)
    assert by[1, 3].j == 1
    assert (6, 3) not in by  # out of sight there
    assert (by[0, 1].touches, by[0, 3].touches) == (True, False)
    assert by[0, 1].area == pytest.approx(100 * 10**2)
    assert by[0, 1].objects == 3


def test_single_objects_and_several_references(clip):
    scores = list(one_step.follow(Copier(), *clip, [1], 3, single=True))
    assert [s.after for s in scores] == [1, 1, 1]
    assert all(s.objects == 1 and not s.touches for s in scores)


def test_classes_and_table():
    assert one_step.bucket((500, 1_000), 499, " px") == "below 500 px"
    assert one_step.bucket((500, 1_000), 500, " px") == "500 to 1,000 px"
    assert one_step.bucket((500, 1_000), 1_000, " px") == "1,000 px and more"
    scores = list(one_step.score("walk", 1, labels(), labels(3), labels(3)))
    shown = one_step.table(scores, [0, 1])
    assert [column.header for column in shown.columns][3:] == ["same picture", "1 after"]
    assert list(shown.columns[4].cells)[-1].startswith("100.0 100.0 (87.")
