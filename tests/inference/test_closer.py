"""Windows that look closer at small objects: where they lie, what they say, and that a session with them keeps its promises."""

from __future__ import annotations

import itertools
import json

import cv2
import numpy as np
import pytest
import torch
import tyro
from dummy_models import ColorModel, PerObjectColorModel
from hypothesis import given as for_all
from hypothesis import settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

from vosformer.cli.session_options import SessionOptions
from vosformer.data.synthetic.assets import Assets
from vosformer.data.synthetic.render import composed_clip
from vosformer.errors import InputError
from vosformer.geometry import Geometry, Placement
from vosformer.inference import prediction
from vosformer.inference.closer import Closer, CloserWindow, box_of, closer_of, moved, opened
from vosformer.inference.objects import Given
from vosformer.inference.prediction import Answer, CloserAnswer
from vosformer.inference.session import Session
from vosformer.inference.tracking import track
from vosformer.io import Arrays
from vosformer.protocol import Presence
from vosformer.testing import COLORS

MODELS = [ColorModel, PerObjectColorModel]
HEIGHT, WIDTH = 192, 256


def session(model: type = ColorModel, **options) -> Session:
    """A model that sees the frames at a quarter of their size: what is smaller than 16 pixels falls between its places."""
    return Session(model(), device="cpu", dtype="fp32", **{"size": 48, "closer": 4, **options})


def clip(frames: int, dots: dict[int, tuple[int, int, int]], speed: int = 3, big: bool = True):
    """Colored squares, id -> (row, column, side), that move to the right over gray, and a large one that rests."""
    images, labels = [], []
    for t in range(frames):
        image, label = np.full((HEIGHT, WIDTH, 3), 110, np.uint8), np.zeros((HEIGHT, WIDTH), np.int32)
        if big:
            image[100:180, 20:140], label[100:180, 20:140] = COLORS[0], 1
        for i, (row, column, side) in dots.items():
            place = slice(row, row + side), slice(column + speed * t, column + speed * t + side)
            image[place], label[place] = COLORS[i - 1], i
        images.append(image)
        labels.append(label)
    return images, labels


def iou(labels: np.ndarray, truth: np.ndarray, i: int) -> float:
    return ((labels == i) & (truth == i)).sum() / max(((labels == i) | (truth == i)).sum(), 1)


@pytest.mark.parametrize("model", MODELS)
def test_small_objects_are_followed_where_the_whole_frame_loses_them(model):
    images, labels = clip(12, {2: (20, 20, 11), 3: (40, 26, 9)})
    worst = {}
    for closer in ("off", 4):
        s = session(model, closer=closer)
        s.step(images[0], labels[0])
        found = [
            iou(s.step(image).labels, truth, i) for image, truth in zip(images[1:], labels[1:], strict=True) for i in (2, 3)
        ]
        worst[closer] = min(found)
    assert worst["off"] < 0.3
    assert worst[4] > 0.5


def test_the_window_goes_where_its_homes_go_and_others_are_left_to_the_whole_frame():
    images, labels = clip(20, {2: (20, 20, 11)}, speed=8)
    s = session()
    s.step(images[0], labels[0])
    (window,) = s.state.windows
    assert window.homes == (2,)
    lefts = []
    for image, truth in zip(images[1:], labels[1:], strict=True):
        out = s.step(image)
        (window,) = s.state.windows
        lefts.append(window.left)
        assert iou(out.labels, truth, 2) > 0.6
        assert iou(out.labels, truth, 1) > 0.8
    assert lefts == sorted(lefts)
    assert lefts[-1] > 120
    assert s.notes == [
        "object 2 is small or thin: followed in a window of 42 x 42 pixels that the model sees 4 times larger, "
        "besides the whole frame"
    ]


def test_objects_that_come_later_get_a_window_and_leave_it_when_removed():
    images, labels = clip(4, {2: (20, 20, 11), 3: (20, 200, 11)})
    s = session()
    s.step(images[0], np.where(labels[0] == 1, 1, 0))
    assert not s.state.windows
    s.step(images[1], np.where(labels[1] > 1, labels[1], 0))
    assert [window.homes for window in s.state.windows] == [(2,), (3,)]
    out = s.step(images[2])
    assert min(iou(out.labels, labels[2], i) for i in (1, 2, 3)) > 0.6
    s.remove(2)
    assert [window.homes for window in s.state.windows] == [(3,)]
    out = s.step(images[3])
    assert out.ids == (1, 3)
    assert not (out.labels == 2).any()
    s.reset()
    assert not s.state.windows


def test_a_mask_given_elsewhere_takes_the_window_along():
    images, labels = clip(3, {2: (20, 20, 11)}, speed=0)
    s = session()
    s.step(images[0], labels[0])
    before = s.state.windows[0]
    _, elsewhere = clip(1, {2: (150, 220, 11)}, big=False)
    image, _ = clip(1, {2: (150, 220, 11)})
    out = s.step(image[0], elsewhere[0])
    assert np.array_equal(out.labels == 2, elsewhere[0] == 2)
    (window,) = s.state.windows
    assert (window.top, window.left) != (before.top, before.left)
    assert window.frames == 1
    assert iou(s.step(image[0]).labels, elsewhere[0], 2) > 0.6


def test_what_outgrows_its_window_is_followed_in_the_whole_frame_again():
    s = session()
    for side in range(11, 60, 4):
        images, labels = clip(1, {2: (20, 20, side)})
        out = s.step(images[0], labels[0] if side == 11 else None)
        assert iou(out.labels, labels[0], 2) > 0.45
    assert not s.state.windows


@pytest.mark.parametrize("model", MODELS)
def test_probabilities_labels_and_margins_agree(model):
    images, labels = clip(3, {2: (20, 20, 11), 3: (40, 30, 11), 4: (130, 150, 11)})
    s = session(model)
    s.step(images[0], labels[0])
    out = s.step(images[1])
    assert [set(window.homes) for window in s.state.windows] == [{2, 3}, {4}]
    chances = np.stack([out.probability(i) for i in out.ids])
    assert chances.min() >= 0
    assert chances.sum(0).max() <= 1 + 1e-5
    best = np.array(out.ids)[chances.argmax(0)]
    sure = chances.max(0) > 0.5
    assert sure.sum() > 9000
    assert np.array_equal(out.labels[sure], best[sure])
    for n, margin in enumerate(out.margins()):
        assert np.array_equal(margin > 0, out.labels == out.ids[n])
    assert all(out.score(i) == next(c for c in out._closer if i in c.homes).answer.scores[i] > 0.3 for i in (2, 3, 4))


def test_a_home_that_leaves_scores_low_and_is_not_invented():
    images, labels = clip(2, {2: (20, 20, 11)})
    s = session()
    s.step(images[0], labels[0])
    gone, _ = clip(1, {})
    out = s.step(gone[0])
    assert out.score(2) < 0.2
    assert not (out.labels == 2).any()


@pytest.mark.parametrize("model", MODELS)
def test_a_state_with_windows_is_branched_saved_and_bounded(model, tmp_path):
    images, labels = clip(30, {2: (20, 20, 11), 3: (150, 150, 11)})
    s = session(model)
    s.step(images[0], labels[0])
    s.step(images[1])
    branch = s.state
    s.save(tmp_path / "state")
    straight = [s.step(image).probability(3) for image in images[2:6]]
    s.state = branch
    again = [s.step(image).probability(3) for image in images[2:6]]
    fresh = session(model)
    fresh.load(tmp_path / "state")
    assert fresh.state.windows[0].homes == branch.windows[0].homes
    assert fresh.state.windows[0].zoom == branch.windows[0].zoom
    assert fresh.state.windows[0].last == branch.windows[0].last
    restored = [fresh.step(image).probability(3) for image in images[2:6]]
    for a, b, c in zip(straight, again, restored, strict=True):
        assert np.array_equal(a, b)
        assert np.array_equal(a, c)
    with pytest.raises(InputError, match="another closer"):
        session(model, closer="off").load(tmp_path / "state")
    bounded = session(model, max_memory_mb=0.3, memory="every-1")
    held = []
    for t, image in enumerate(images):
        bounded.step(image, labels[0] if t == 0 else None)
        held.append(bounded.memory_bytes)
    assert len(set(held[20:])) == 1
    assert sum(cohort.memory.nbytes for cohort in bounded.cohorts) < held[-1]


def test_a_state_that_does_not_say_where_homes_were_is_read(tmp_path):
    images, labels = clip(3, {2: (20, 20, 11)})
    s = session()
    s.step(images[0], labels[0])
    s.save(tmp_path / "state")
    with safe_open(tmp_path / "state", "pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    about = json.loads(metadata["state"])
    del about["windows"][0]["last"]
    save_file(tensors, tmp_path / "older", {**metadata, "state": json.dumps(about)})
    fresh = session()
    fresh.load(tmp_path / "older")
    assert fresh.state.windows[0].last == {2: None}
    assert np.array_equal(fresh.step(images[1]).labels, s.step(images[1]).labels)


@pytest.mark.parametrize("views", [{"flip": True}, {"scales": (1.0, 1.5)}])
def test_several_views_look_closer_together(views):
    images, labels = clip(6, {2: (20, 20, 11)})
    s = session(**views)
    s.step(images[0], labels[0])
    assert min(iou(s.step(image).labels, truth, 2) for image, truth in zip(images[1:], labels[1:], strict=True)) > 0.6


def test_only_packaged_weights_look_closer_by_themselves():
    images, labels = clip(1, {2: (20, 20, 11)})
    for by_itself in (False, True):
        model = ColorModel()
        model.looks_closer = by_itself
        for closer, windows in (("auto", by_itself), ("off", False), (2, True)):
            s = Session(model, device="cpu", dtype="fp32", size=48, closer=closer)
            s.step(images[0], labels[0])
            assert bool(s.state.windows) is windows


@pytest.mark.parametrize("closer", [1, 0, -2, 9, "on", True, None, float("nan")])
def test_other_factors_are_refused(closer):
    with pytest.raises(InputError, match="closer is"):
        session(closer=closer)


def test_what_windows_say_is_put_in_place():
    """Equation: spoken-for objects take the window's probability (0 outside), and away from where they were what of it the whole
    frame does not see as other objects; the rest shares what is left in proportion.
    """
    generator = torch.Generator().manual_seed(0)
    place = Placement((4, 5), (4, 5), (4, 5), 0, 0)
    whole = torch.randn(1, 4, 4, 5, generator=generator, dtype=torch.float64)
    inner = torch.randn(1, 3, 2, 3, generator=generator, dtype=torch.float64)
    answers = [Answer((whole,), lambda maps: maps[0], (5, 6, 7), place, True, torch.zeros(3), Presence())]
    window = Placement((2, 3), (2, 3), (2, 3), 0, 0)
    around = slice(1, 9), slice(0, 2)
    near = [
        CloserAnswer(
            1, 2, {6: around}, Answer((inner,), lambda maps: maps[0], (6, 7), window, True, torch.zeros(2), Presence())
        )
    ]
    p, q = whole[0].softmax(0).numpy(), np.zeros((4, 5))
    q[1:3, 2:5] = inner[0].softmax(0)[1].numpy()
    q[1, 2:5] *= 1 - p[1, 1, 2:5] - p[3, 1, 2:5]
    q[2, 4] *= 1 - p[1, 2, 4] - p[3, 2, 4]
    expected = p * (1 - q) / (1 - p[2])
    expected[2] = q
    ((_, found),) = prediction._probabilities(answers, near)
    assert np.allclose(found.numpy(), expected, atol=1e-12)
    assert np.allclose(found.numpy().sum(0), 1)
    for rows in (slice(0, 1), slice(1, 2), slice(2, 4)):  # in strips, of which one ends inside the window
        part = prediction._refined(whole[0].softmax(0)[:, rows], rows, (5, 6, 7), near)
        assert np.allclose(part.numpy(), expected[:, rows], atol=1e-12)


@pytest.mark.parametrize("model", MODELS)
def test_a_window_does_not_take_what_comes_in_for_its_home(model):
    """The window never saw the large object, whose color is more like its home's than like the background's."""
    s = session(model, size=96, closer=2)
    for t in range(8):
        image, truth = np.full((HEIGHT, WIDTH, 3), 110, np.uint8), np.zeros((HEIGHT, WIDTH), np.int32)
        for i, color, place in (
            (1, (230, 120, 40), (slice(20, 100), slice(160 - 12 * t, 240 - 12 * t))),
            (2, (230, 40, 40), (slice(52, 64), slice(28, 40))),
        ):
            image[place], truth[place] = color, i
        out = s.step(image, truth if t == 0 else None)
        assert iou(out.labels, truth, 1) > 0.8
        assert iou(out.labels, truth, 2) > 0.45
    (window,) = s.state.windows
    assert window.homes == (2,)
    assert window.left + window.side > 76, "the large object has come in"


def drawn(*pieces: tuple[int, slice, slice]) -> torch.Tensor:
    """Labels of a frame of 480 x 854: rectangles, each (id, rows, columns)."""
    labels = torch.zeros(480, 854, dtype=torch.int32)
    for i, rows, columns in pieces:
        labels[rows, columns] = i
    return labels


def windows_on(labels: torch.Tensor, closer: Closer | None = None) -> list[CloserWindow]:
    placement = Geometry().place(*labels.shape, None)
    return opened(closer or Closer(), placement, Given(labels, tuple(i for i in labels.unique().tolist() if i)), [])


def test_specks_neither_move_a_window_nor_keep_it_from_opening():
    blob, half, speck = (
        (1, slice(200, 230), slice(300, 340)),
        (1, slice(240, 250), slice(310, 330)),
        (1, slice(20, 25), slice(800, 805)),
    )
    clean, spotted = drawn(blob, half), drawn(blob, half, speck)
    assert box_of(clean.numpy(), 1) == box_of(spotted.numpy(), 1) == (200, 300, 250, 340)
    assert box_of(drawn(speck).numpy(), 1) == (20, 800, 25, 805)
    assert box_of(clean.numpy(), 2) is None
    (window,) = windows_on(clean)
    assert windows_on(spotted) == [window]
    assert moved([window], spotted, None) == moved([window], clean, None) == [window]


def test_thin_objects_get_a_window_as_large_as_they_are_whatever_their_area():
    """The bar of `make demo` has 171 x 28 pixels, 2,822 of them its own."""
    bar = (1, slice(100, 271), slice(300, 317))
    (window,) = windows_on(drawn(bar))
    assert (window.side, window.zoom) == (214, 3)
    assert box_of(drawn(bar).numpy(), 1).inside(window, 20)
    whole = Geometry().place(480, 854, 480)
    assert window.size(whole) == pytest.approx(642, abs=2)
    assert windows_on(drawn((1, slice(100, 292), slice(300, 317))))[0].size(whole) == pytest.approx(720, abs=2)
    for other in (
        (1, slice(100, 171), slice(300, 340)),  # as many pixels, but wide
        (1, slice(100, 293), slice(300, 317)),  # too long for the largest window
    ):
        assert not windows_on(drawn(other))
    # In half the pixels the same scene has the same window.
    half_size = Geometry().place(240, 427, 480)
    (half,) = opened(Closer(), half_size, Given(drawn(bar)[::2, ::2].contiguous(), (1,)), [])
    assert (half.side, half.zoom) == (108, 3)
    assert half.size(half_size) == pytest.approx(642, abs=8)
    assert closer_of(2.5, False) == Closer(zoom=2.5, thin_zoom=2.5)


def test_thin_objects_do_not_share_windows_that_look_less_closely():
    bar, dot = (1, slice(100, 271), slice(300, 317)), (2, slice(150, 170), slice(330, 350))
    assert [(window.homes, window.zoom) for window in windows_on(drawn(bar, dot))] == [((2,), 2), ((1,), 3)]
    smaller = (1, slice(100, 250), slice(300, 317))  # small and thin: small ones go first
    assert [(window.homes, window.zoom) for window in windows_on(drawn(smaller, dot))] == [((2,), 2), ((1,), 3)]


def test_an_object_may_grow_in_its_window_but_not_suddenly_fill_it():
    """A small one that is as long as no small one was is a mistake of the window, which would go on with it."""
    for first, longest in ((171, 203), (40, 166)):
        (window,) = windows_on(drawn((1, slice(100, 100 + first), slice(300, 317))))
        for length, kept in ((longest, True), (longest + 1, False)):
            assert bool(moved([window], drawn((1, slice(100, 100 + length), slice(300, 317))), None)) is kept


def test_homes_that_part_do_not_share_a_window_until_its_border_cuts_one_of_them():
    def apart(by: int) -> torch.Tensor:
        return drawn((1, slice(200, 220), slice(300, 320)), (2, slice(200, 220), slice(300 + by, 330 + by)))

    (window,) = windows_on(apart(30))
    assert window.homes == (1, 2)
    homes = []
    for by in range(30, 190, 4):
        (window,) = moved([window], apart(by), None)
        homes.append(window.homes)
        both = box_of(apart(by).numpy(), 1).joined(box_of(apart(by).numpy(), 2))
        assert window.homes == (1,) or both.inside(window, 1)
    assert homes == sorted(homes, reverse=True)
    assert homes[-1] == (1,)
    assert box_of(apart(190).numpy(), 1).inside(window, 80)


def test_a_window_knows_where_its_homes_were_and_looks_everywhere_for_lost_ones():
    far, near = (1, slice(100, 140), slice(300, 320)), (2, slice(150, 160), slice(330, 340))
    (window,) = windows_on(drawn(far, near))
    assert window.last == {1: (100, 300, 140, 320), 2: (150, 330, 160, 340)}
    (window,) = moved([window], drawn((1, slice(104, 144), slice(300, 320)), near), None)
    assert window.last == {1: (104, 300, 144, 320), 2: (150, 330, 160, 340)}
    for i, (rows, columns) in {1: ((94, 154), (290, 330)), 2: ((141, 169), (321, 349))}.items():  # a quarter, or 9 pixels, more
        around = window.around(i)
        assert (around[0].start + window.top, around[0].stop + window.top) == rows
        assert (around[1].start + window.left, around[1].stop + window.left) == columns
    (window,) = moved([window], drawn(near), None)
    assert window.last == {1: None, 2: (150, 330, 160, 340)}
    assert window.around(1) == (slice(0, 208), slice(0, 208))
    corner = windows_on(drawn((1, slice(0, 20), slice(0, 20))))[0]
    assert corner.around(1) == (slice(0, 29), slice(0, 29))


SQUARES = st.lists(
    st.tuples(st.integers(0, HEIGHT - 2), st.integers(0, WIDTH - 2), st.integers(1, 40), st.integers(1, 40)),
    min_size=1,
    max_size=6,
)


@for_all(SQUARES, SQUARES)
@settings(max_examples=60, deadline=None)
def test_windows_lie_in_the_frame_around_their_homes_and_are_few(now, then):
    def scene(squares):
        labels = torch.zeros(HEIGHT, WIDTH, dtype=torch.int32)
        for i, (row, column, rows, columns) in enumerate(squares, 1):
            labels[row : row + rows, column : column + columns] = i
        return labels

    closer, first, second = Closer(), scene(now), scene(then)
    placement = Geometry().place(HEIGHT, WIDTH, 240)
    windows = opened(closer, placement, Given(first, tuple(i for i in first.unique().tolist() if i)), [])
    assert len(windows) <= closer.windows
    homes = [i for window in windows for i in window.homes]
    assert len(homes) == len(set(homes))

    def fits(window: CloserWindow, labels) -> None:
        assert 0 <= window.top <= HEIGHT - window.side
        assert 0 <= window.left <= WIDTH - window.side
        assert window.side == closer.side(placement) or window.zoom == closer.thin_zoom
        assert window.size(placement) <= closer.thin_reach * min(placement.inner) + 1
        seen = [box for i in window.homes if (box := box_of(labels.numpy(), i)) is not None]
        assert all(box.inside(window) for box in seen)

    for window in windows:
        fits(window, first)
        assert all(box_of(first.numpy(), i) is not None for i in window.homes)
    for window in moved(windows, second, None):
        fits(window, second)


def test_a_run_says_what_it_looks_closer_at():
    images, labels = clip(3, {2: (20, 20, 11)})
    report = track(Arrays(images), {0: labels[0]}, session(), [])
    assert [
        note for note in report.notes if note.startswith("object 2 is small or thin: followed in a window of 42 x 42 pixels")
    ]
    report = track(Arrays(images), {0: labels[0]}, session(closer="off"), [])
    assert not report.notes


def test_the_command_line_takes_a_factor_or_a_word():
    for words, closer in (([], "auto"), (["--closer", "off"], "off"), (["--closer", "2.5"], 2.5)):
        assert tyro.cli(SessionOptions, args=words).closer == closer


@pytest.mark.slow
def test_the_packaged_weights_keep_small_objects():
    generator = np.random.default_rng(3)
    ground = cv2.GaussianBlur(generator.integers(0, 256, (240, 426, 3)).astype(np.float32), (0, 0), 6)
    ground = cv2.normalize(ground, None, 40, 200, cv2.NORM_MINMAX).astype(np.uint8)
    images, labels = [], []
    for t in range(4):
        image, label = ground.copy(), np.zeros((240, 426), np.int32)
        for i, (x, y) in enumerate([(60, 60), (76, 64), (330, 170)], 1):
            place = (x + 2 * t, y + t)
            cv2.ellipse(image, place, (5, 9), 20 * i, 0, 360, COLORS[i - 1], -1, cv2.LINE_AA)
            cv2.ellipse(label, place, (5, 9), 20 * i, 0, 360, i, -1)
        images.append(image)
        labels.append(label)
    found = {}
    for closer in ("off", "auto"):
        s = Session("default", dtype="fp32", closer=closer)
        s.step(images[0], labels[0])
        results = [s.step(image).labels for image in images[1:]]
        found[closer] = np.mean([iou(r, truth, i) for r, truth in zip(results, labels[1:], strict=True) for i in (1, 2, 3)])
    assert s.notes
    assert found["auto"] > max(0.8, found["off"] + 0.03), found


@pytest.mark.slow
def test_the_packaged_weights_keep_the_thin_bar_of_the_demo():
    (first, given), *rest = [
        (image, labels.astype(np.int32)) for image, labels in itertools.islice(composed_clip(Assets(), 40, 2), 4)
    ]
    kept = {}
    for closer in ("off", "auto"):
        s = Session("default", dtype="fp32", closer=closer)
        s.step(first, given)
        kept[closer] = [iou(s.step(image).labels, truth, 1) for image, truth in rest][-1]
    assert kept["auto"] > max(0.75, kept["off"] + 0.3), kept
