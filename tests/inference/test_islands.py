"""Islands: what is one, whose are left out of masks and memory, and that nothing of it is silent."""

from __future__ import annotations

from collections import deque
from pathlib import Path

import numpy as np
import pytest
import torch
import tyro
from dummy_models import ColorModel, PerObjectColorModel
from hypothesis import given as for_all
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from vosformer.cli.session_options import SessionOptions
from vosformer.errors import InputError
from vosformer.inference.islands import Whole, islands_of, told
from vosformer.inference.objects import Given
from vosformer.inference.session import Session
from vosformer.inference.tracking import track
from vosformer.io import Arrays
from vosformer.testing import COLORS
from vosformer.weights import build, packaged

MODELS = [ColorModel, PerObjectColorModel]
HEIGHT, WIDTH = 96, 128


def session(model: type = ColorModel, **options) -> Session:
    return Session(model(), device="cpu", dtype="fp32", **{"size": None, "islands": "drop", **options})


def scene(*squares: tuple[int, int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Squares (id, row, column, side) over gray: the picture and its labels."""
    image, labels = np.full((HEIGHT, WIDTH, 3), 110, np.uint8), np.zeros((HEIGHT, WIDTH), np.int32)
    for i, row, column, side in squares:
        place = slice(row, row + side), slice(column, column + side)
        image[place], labels[place] = COLORS[i - 1], i
    return image, labels


BODY, OTHER = (1, 16, 16, 40), (2, 64, 16, 24)
WHOLE = scene(BODY, OTHER)
WITH_STRAY = scene(BODY, OTHER, (1, 64, 96, 12))
WITH_LARGE = scene(BODY, OTHER, (1, 64, 96, 24))


def is_stray(labels: np.ndarray) -> np.ndarray:
    return (labels == 1) & (np.arange(WIDTH) > 80)


def plain_parts(labels: np.ndarray, i: int) -> list[set[tuple[int, int]]]:
    """The parts of an object, flooded one pixel after the other."""
    left, parts = {tuple(p) for p in np.argwhere(labels == i).tolist()}, []
    while left:
        part, edge = set(), deque([left.pop()])
        while edge:
            row, column = edge.popleft()
            part.add((row, column))
            near = {(row + r, column + c) for r in (-1, 0, 1) for c in (-1, 0, 1)} & left
            left -= near
            edge.extend(near)
        parts.append(part)
    return parts


def box_of(pixels: set[tuple[int, int]]) -> tuple[int, int, int, int]:
    rows, columns = zip(*pixels, strict=True)
    return min(columns), min(rows), max(columns) - min(columns) + 1, max(rows) - min(rows) + 1


def box_iou(one: tuple[int, int, int, int], other: tuple[int, int, int, int]) -> float:
    a, b = ({(x, y) for x in range(left, left + w) for y in range(top, top + h)} for left, top, w, h in (one, other))
    return len(a & b) / len(a | b)


@settings(max_examples=80, deadline=None)
@for_all(
    arrays(np.int32, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.sampled_from([0, 0, 1, 1, 2])),
    st.dictionaries(
        st.integers(1, 3),
        st.builds(Whole, st.tuples(*[st.integers(0, 12)] * 2, *[st.integers(1, 6)] * 2), st.integers(0, 4)),
    ),
)
def test_islands_are_small_parts_that_do_not_touch_the_main_one(labels: np.ndarray, wholes: dict[int, Whole]) -> None:
    """Those below a tenth of it at once, those below half of it from the third frame running on."""
    found = islands_of(labels, wholes)
    islands = np.zeros_like(labels) if found.islands is None else found.islands
    assert (found.islands is None) == (not islands.any())
    assert set(found.wholes) == set(wholes)
    assert set(np.unique(islands)) <= {0, *wholes}
    for i, (box, frames) in wholes.items():
        parts = plain_parts(labels, i)
        if not parts:
            assert found.wholes[i] == (box, 0)
            continue
        iou = [box_iou(box_of(part), box) for part in parts]
        score = iou if any(iou) else [len(part) for part in parts]
        mains = [part for part, value in zip(parts, score, strict=True) if value == max(score)]
        (main,) = (part for part in mains if box_of(part) == found.wholes[i].box)  # one of those that are as good
        apart = frames + 1 if any(2 * len(part) < len(main) <= 10 * len(part) for part in parts) else 0
        assert found.wholes[i].apart == apart
        small = [part for part in parts if (2 if apart >= 3 else 10) * len(part) < len(main)]
        assert {tuple(p) for p in np.argwhere(islands == i).tolist()} == set().union(*small)


def test_slips_of_the_pen_are_no_parts() -> None:
    labels = np.zeros((50, 50), np.int32)
    labels[:10, :10], labels[30:35, :10], labels[40, 40] = 1, 2, 1
    labels[30:35, 20:22] = 2
    given = Given(torch.from_numpy(labels), (1, 2, 3))
    assert told({}, given) == {1: Whole((0, 0, 10, 10)), 2: None}
    assert told({1: None, 3: Whole((1, 2, 3, 4), 5), 7: None}, given) == {1: None, 2: None, 3: Whole((1, 2, 3, 4), 5), 7: None}
    assert told({1: None}, None) == {1: None}


@pytest.mark.parametrize("model", MODELS)
def test_an_island_is_neither_shown_nor_remembered(model: type) -> None:
    kept, dropped = session(model, islands="keep"), session(model)
    for s in (kept, dropped):
        s.step(*WHOLE)
    with_it, without = kept.step(WITH_STRAY[0]), dropped.step(WITH_STRAY[0])
    assert is_stray(with_it.labels).sum() > 80
    assert with_it.islands is None
    assert not is_stray(without.labels).any()
    assert np.array_equal(without.islands, np.where(is_stray(with_it.labels), 1, 0))
    assert np.array_equal(np.where(is_stray(with_it.labels), 0, with_it.labels), without.labels)
    assert without.probability(1)[without.islands == 1].max() == 0
    assert without.probability(1)[20:40, 20:40].min() > 0.5
    assert (without.margins()[0][without.islands == 1] <= 0).all()
    clean = session(model)
    for _ in range(2):
        clean.step(*WHOLE)
    with_it, without, wanted = (s.cohorts[0].memory.last(0)["mask"] for s in (kept, dropped, clean))
    assert (with_it - wanted)[0, :, 1].sum() > 5
    assert torch.allclose(without, wanted, atol=0.05)


@pytest.mark.parametrize("views", [{"flip": True}, {"scales": (1.0, 1.5)}, {"closer": 4, "size": 48}])
def test_no_view_and_no_window_remembers_it(views: dict) -> None:
    s = session(**views)
    s.step(*WHOLE)
    for _ in range(4):
        assert not is_stray(s.step(WITH_STRAY[0]).labels).any()


def test_larger_ones_are_given_two_frames_to_come_back(tmp_path: Path) -> None:
    s = session()
    s.step(*WHOLE)
    images = [WITH_LARGE[0]] * 2 + [WITH_STRAY[0]] + [WITH_LARGE[0]] * 2
    assert [is_stray(s.step(image).labels).any() for image in images] == [True, True, False, True, True]
    s.save(tmp_path / "state")
    again = session()
    again.load(tmp_path / "state")
    for one in (s, again):
        out = one.step(WITH_LARGE[0])
        assert not is_stray(out.labels).any()
        assert (out.islands == 1).sum() > 400
    s.step(*WHOLE)  # what the user says begins anew
    assert is_stray(s.step(WITH_LARGE[0]).labels).any()


def test_the_object_is_where_it_was_and_not_what_is_larger() -> None:
    """It shrinks behind something, while what was taken for a part of it stays as it is."""
    s = session()
    s.step(*WHOLE)
    shrunk, _ = scene((1, 16, 16, 16), OTHER, (1, 64, 96, 24))
    for _ in range(4):
        labels = s.step(shrunk).labels
        assert (labels[16:32, 16:32] == 1).mean() > 0.7


def test_what_was_marked_in_parts_keeps_its_parts(tmp_path: Path) -> None:
    s = session()
    s.step(*WITH_STRAY)
    assert is_stray(s.step(WITH_STRAY[0]).labels).any()
    assert s.step(WITH_STRAY[0]).islands is None
    s.save(tmp_path / "state")
    again = session()
    again.load(tmp_path / "state")
    assert is_stray(again.step(WITH_STRAY[0]).labels).any()
    twin = s.fork()
    s.remove(1)
    assert set(s.state.wholes) == {2}
    assert is_stray(twin.step(WITH_STRAY[0]).labels).any()


def test_a_correction_in_parts_counts_and_the_given_mask_is_never_cut() -> None:
    s = session()
    s.step(*WHOLE)
    assert not is_stray(s.step(WITH_STRAY[0]).labels).any()
    out = s.step(*WITH_STRAY)
    assert np.array_equal(out.labels, WITH_STRAY[1])
    assert out.islands is None
    assert is_stray(s.step(WITH_STRAY[0]).labels).any()


def test_halves_are_no_islands() -> None:
    """As of somebody behind a post."""
    image, labels = scene((1, 16, 16, 40))
    s = session()
    s.step(image, labels)
    image[:, 32:40] = 110
    for _ in range(5):
        assert (s.step(image).labels[16:48] == 1).any(0)[[20, 52]].all()


def test_only_packaged_weights_drop_them_by_themselves(tmp_path: Path) -> None:
    for by_itself in (False, True):
        model = ColorModel()
        model.drops_islands = by_itself
        for islands, dropped in (("auto", by_itself), ("keep", False), ("drop", True)):
            s = Session(model, device="cpu", dtype="fp32", size=None, islands=islands)
            s.step(*WHOLE)
            assert (s.step(WITH_STRAY[0]).islands is not None) is dropped
            assert s.bounds["islands"] == ("drop" if dropped else "keep")
    assert build("default-fast").drops_islands
    assert not build("deaot-t", packaged()["default-fast"]).drops_islands


@pytest.mark.parametrize("islands", [None, True, "on", 0.3])
def test_other_words_are_refused(islands: object) -> None:
    with pytest.raises(InputError, match=r"islands is .*, expected one of auto, drop, keep"):
        session(islands=islands)


def test_a_run_says_what_it_left_out() -> None:
    images = [WHOLE[0], WITH_STRAY[0], WHOLE[0], WITH_STRAY[0]]
    report = track(Arrays(images), {0: WHOLE[1]}, session(), [])
    assert report.notes == [
        "of object 1, parts that lay apart and were small were left out (--islands keep leaves them in) on frames: 1, 3"
    ]
    assert not track(Arrays(images), {0: WHOLE[1]}, session(islands="keep"), []).notes


def test_the_command_line_takes_a_word() -> None:
    for words, islands in (([], "auto"), (["--islands", "keep"], "keep"), (["--islands", "drop"], "drop")):
        options = tyro.cli(SessionOptions, args=words)
        assert options.islands == islands
        assert options.decisive["islands"] == islands
