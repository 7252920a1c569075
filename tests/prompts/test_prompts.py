"""Prompts in Python: what a mask must keep to whatever the network thinks, the fallbacks without weights, and every mistake."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from dummy_models import ColorModel, flat_clip
from hypothesis import given, settings
from hypothesis import strategies as st

import vosformer
from vosformer.errors import InputError
from vosformer.prompts import Marker, Prompt, Scissors, brush, mark, mark_objects, polygon, stroke
from vosformer.prompts.network import ClickNetwork, Segmented
from vosformer.prompts.network_marker import NetworkMarker
from vosformer.prompts.window import window_of

H, W = 60, 90


@pytest.fixture(scope="module")
def network() -> ClickNetwork:
    """One that was never trained: what is promised of every mask must not rest on good weights."""
    torch.manual_seed(3)
    return ClickNetwork(width=48, heads=2).eval()


def scene(height: int = H, width: int = W) -> tuple[np.ndarray, np.ndarray]:
    """A bright ellipse on a dark, noisy ground: frame and mask."""
    rows, columns = np.mgrid[:height, :width]
    mask = ((rows - height / 2) / (height / 4)) ** 2 + ((columns - width / 3) / (width / 5)) ** 2 < 1
    noise = np.random.default_rng(0).integers(0, 30, (height, width, 3))
    frame = np.where(mask[..., None], (200, 160, 40), (30, 50, 90)) + noise
    return frame.astype(np.uint8), mask


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return (a & b).sum() / max(1, (a | b).sum())


places = st.tuples(st.integers(0, W - 1), st.integers(0, H - 1))


@settings(max_examples=20, deadline=None)
@given(first=places, more=st.lists(st.tuples(places, st.booleans()), max_size=3))
def test_every_click_lies_on_its_side_of_the_mask(network, first, more):
    frame, _ = scene()
    points, labels = [first, *(place for place, _ in more)], [1, *(int(positive) for _, positive in more)]
    found = Marker(frame, network=network, side=64).mark(Prompt(points, labels))
    assert found.shape == (H, W)
    assert found.dtype == bool
    radius = 2 * max(1, round(W / 400))
    for number, ((x, y), label) in enumerate(zip(points, labels, strict=True)):
        later = points[number + 1 :]
        if all(max(abs(x - u), abs(y - v)) > radius for u, v in later):  # else the later one wins
            assert found[y, x] == bool(label)


def test_the_later_of_two_clicks_on_one_pixel_wins(network):
    frame, _ = scene()
    assert not Marker(frame, network=network, side=64).mark(Prompt([(30, 30), (30, 30)], [1, 0]))[30, 30]
    assert Marker(frame, network=network, side=64).mark(Prompt([(30, 30), (30, 30)], [0, 1]))[30, 30]


@settings(max_examples=15, deadline=None)
@given(place=places, positive=st.booleans())
def test_a_repair_changes_one_connected_piece_at_the_click(network, place, positive):
    import cv2

    frame, mask = scene()
    found = Marker(frame, network=network, side=64).mark(Prompt([place], [int(positive)], mask=mask))
    changed = found ^ mask
    x, y = place
    assert found[y, x] == positive
    if changed.any():
        near = cv2.dilate(changed.astype(np.uint8), np.ones((7, 7), np.uint8)) > 0
        pieces, _ = cv2.connectedComponents(near.astype(np.uint8))
        assert near[y, x]
        assert pieces == 2  # the ground and one piece
    if positive:
        assert (found | ~mask).all()
    else:
        assert (mask | ~found).all()


def test_what_a_repair_cuts_off_goes_with_it_if_it_is_tiny(network, monkeypatch):
    """The network takes a lump away but for specks of its edge; islands that were there before, or are asked for, stay."""
    frame, mask = scene(240, 360)
    mask[20:100, 240:330] = True  # a lump on something else, with a bridge to the object
    mask[60:64, 150:240] = True
    mask[200:203, 300:303] = True  # a small island of its own
    wanted = mask.copy()
    wanted[20:100, 190:330] = False
    said = wanted.copy()
    for y, x in ((20, 240), (99, 260), (70, 328)):
        said[y : y + 3, x : x + 2] |= mask[y : y + 3, x : x + 2]  # specks
    said[97:100, 240:243] = True
    monkeypatch.setattr(NetworkMarker, "mask", lambda self, prompt: said)
    marker = Marker(frame, network=network)
    assert (marker.mark(Prompt([(280, 50)], [0], mask=mask)) == wanted).all()
    asked = marker.mark(Prompt([(280, 50), (241, 98)], [0, 1], mask=mask))
    assert (asked ^ wanted).sum() == 9
    assert asked[98, 241]
    large = said.copy()
    large[80:100, 240:260] = True  # no speck: a person decides about it
    monkeypatch.setattr(NetworkMarker, "mask", lambda self, prompt: large)
    assert marker.mark(Prompt([(280, 50)], [0], mask=mask))[85, 250]


def test_a_fresh_mask_has_no_specks(network, monkeypatch):
    frame, mask = scene(240, 360)
    said = mask.copy()
    said[10:13, 300:303] = said[200:230, 300:330] = True
    monkeypatch.setattr(NetworkMarker, "mask", lambda self, prompt: said)
    found = Marker(frame, network=network).mark(Prompt([(120, 120), (40, 20)], [1, 0]))
    assert not found[10:13, 300:303].any()
    assert found[200:230, 300:330].all()


def test_a_mask_alone_is_the_answer_and_a_copy(network):
    frame, mask = scene()
    found = Marker(frame, network=network).mark(Prompt(mask=mask))
    assert (found == mask).all()
    found[:] = False
    assert mask.any()


def test_remembering_clicks_changes_nothing(network):
    frame, _ = scene()
    said = [((30, 30), 1), ((60, 10), 0), ((35, 40), 1), ((80, 50), 0)]
    marker = Marker(frame, network=network, side=64)

    def prompt(count: int) -> Prompt:
        return Prompt([place for place, _ in said[:count]], [label for _, label in said[:count]])

    for count in (1, 2, 4, 3, 1, 4):  # forward, back, and over again
        fresh = Marker(frame, network=network, side=64).mark(prompt(count))
        assert (marker.mark(prompt(count)) == fresh).all()
    other = Prompt([(70, 20)], box=(55, 5, 88, 40))
    marker.mark(other)
    assert (marker.mark(prompt(4)) == Marker(frame, network=network, side=64).mark(prompt(4))).all()


def test_one_click_more_costs_two_passes_and_one_of_a_repair(network, monkeypatch):
    frame, _ = scene()
    marker = Marker(frame, network=network, side=64)
    passes = []
    real = ClickNetwork.forward
    monkeypatch.setattr(ClickNetwork, "forward", lambda self, *args: passes.append(1) or real(self, *args))
    marker.mark(Prompt([(30, 30), (35, 30), (60, 5)], [1, 1, 0]))
    passes.clear()
    marker.mark(Prompt([(30, 30), (35, 30), (60, 5), (25, 25)], [1, 1, 0, 1]))
    assert len(passes) == 2
    marker.mark(Prompt([(30, 30), (35, 30)]))
    assert len(passes) == 2
    mask = np.zeros(marker.size, bool)
    mask[20:40, 20:40] = True
    marker.mark(Prompt([(30, 30)], mask=mask))
    passes.clear()
    marker.mark(Prompt([(30, 30), (35, 30)], mask=mask))
    assert len(passes) == 1


class Sayer(torch.nn.Module):
    """In place of the network: the object is what is bright, and the IoU that it expects of a view is what the test says."""

    def __init__(self, frame: np.ndarray, expects: dict[int, float]) -> None:
        super().__init__()
        self.iou_head, self.nothing = torch.nn.Identity(), torch.nn.Parameter(torch.zeros(1))
        self.expects, self.seen = expects, list[int]()

    def look(self, images: torch.Tensor) -> torch.Tensor:
        return images

    def forward(self, images: torch.Tensor, maps: torch.Tensor) -> Segmented:
        """Views are told apart by how much of them is bright: the narrower, the more."""
        bright = (images[:, :1] > 128).float()
        share = 100 * float(bright.mean())
        self.seen.append(round(share))
        expected = self.expects[min(self.expects, key=lambda known: abs(known - share))]
        return Segmented(torch.nn.functional.avg_pool2d(bright - 0.5, 2), torch.tensor([expected]))


def bright_frame() -> np.ndarray:
    """A bright square of 64 pixels and, beside it, in the left half of the frame but not in its left quarter, a second one."""
    frame = np.zeros((256, 512, 3), np.uint8)
    frame[96:160, 32:96] = frame[96:160, 160:224] = 255
    return frame


@pytest.mark.parametrize(
    ("expected", "looks", "square_alone"),
    [
        ((0.9, 1.0, 1.0), 1, False),  # a mask that is good is not doubted
        ((0.3, 0.9, 0.9), 3, False),  # half the frame's length shows both squares
        ((0.3, 0.3, 0.9), 3, True),
        ((0.6, 0.7, 0.9), 3, False),  # too little more: who sees less expects more
    ],
)
def test_the_network_looks_from_nearer_by_while_it_expects_no_good_mask(monkeypatch, expected, looks, square_alone):
    """A click on one of two squares: only the narrowest view shows it alone."""
    frame = bright_frame()
    monkeypatch.setattr("vosformer.prompts.network_marker._CLOSER_LOOKS", 0)
    shares = (2 * 64**2 / (512 * 256), 2 * 64**2 / 256**2 * 2, 64**2 / (128 * 64))
    network = Sayer(frame, dict(zip((100 * share for share in shares), expected, strict=True)))
    found = Marker(frame, network=network, side=256).mark(Prompt([(64, 128)]))
    assert len(network.seen) == looks
    assert found[128, 64]
    assert found[128, 192] != square_alone


def test_a_network_without_the_head_looks_at_the_whole_frame_alone(network, tmp_path):
    from vosformer.prompts.weights import load_network, save_network

    torch.manual_seed(4)
    plain = ClickNetwork(width=48, heads=2, predicts_iou=False).eval()
    save_network(plain, tmp_path / "plain.safetensors", dtype=torch.float32)
    loaded = load_network(tmp_path / "plain.safetensors")
    assert loaded.iou_head is None
    frame, _ = scene()
    assert (
        Marker(frame, network=loaded).mark(Prompt([(30, 30)])) == Marker(frame, network=plain).mark(Prompt([(30, 30)]))
    ).all()
    # What was trained without the head is where a training with it may begin.
    grown = load_network(tmp_path / "plain.safetensors", predicts_iou=True)
    assert grown.iou_head is not None
    assert torch.equal(grown.conv_out.weight, plain.conv_out.weight)


@given(
    place=st.tuples(st.integers(0, 89), st.integers(0, 59)),
    share=st.floats(0.1, 1.0),
)
def test_views_lie_in_the_frame_and_show_the_mark(place, share):
    x, y = place
    view = window_of((x, y, x + 1, y + 1), share * 90, (60, 90), 320, 32)
    assert 0 <= view.x0 <= x < view.x1 <= 90
    assert 0 <= view.y0 <= y < view.y1 <= 60
    assert abs((view.x1 - view.x0) - share * 90) <= 0.5
    assert abs((view.y1 - view.y0) - share * 60) <= 0.5
    assert view.height % 32 == view.width % 32 == 0


def test_the_packaged_network_finds_a_plain_object_by_a_click_or_a_box():
    frame, mask = scene(240, 360)
    assert Marker(frame).method == "network"
    assert iou(mark(frame, [(120, 120)]), mask) > 0.85
    assert iou(mark(frame, box=(45, 58, 195, 182)), mask) > 0.85


@pytest.mark.parametrize("method", ["auto", "network"])
def test_specks_in_a_box_are_doubted(network, monkeypatch, method):
    """A network that fails outside of what it has seen leaves specks: GrabCut's mask is taken if that fills the box."""
    frame, truth = scene()
    rows, columns = np.nonzero(truth)
    box = (columns.min() - 3, rows.min() - 3, columns.max() + 4, rows.max() + 4)
    specks = np.zeros((H, W), bool)
    specks[rows.min(), columns.min()] = specks[rows.max(), columns.max()] = True
    monkeypatch.setattr(NetworkMarker, "mask", lambda self, said: specks)
    found = Marker(frame, method=method, network=network).mark(Prompt(box=box))
    assert np.array_equal(found, specks) == (method == "network")
    assert (iou(found, truth) > 0.9) == (method == "auto")


def test_grabcut_finds_what_is_in_a_box():
    frame, mask = scene()
    assert iou(mark(frame, box=(10, 12, 50, 48), method="classical"), mask) > 0.9


def test_grabcut_scales_large_frames_and_keeps_to_the_box():
    frame, mask = scene(600, 900)
    found = mark(frame, box=(100, 120, 500, 480), method="classical")
    assert iou(found, mask) > 0.95
    assert not found[:, 510:].any()


def test_the_same_box_gives_the_same_mask():
    frame, _ = scene()
    first = mark(frame, box=(5, 5, 60, 55), method="classical")
    assert (first == mark(frame, box=(5, 5, 60, 55), method="classical")).all()


def test_the_random_walker_follows_scribbles():
    frame, mask = scene()
    scribbles = np.zeros((H, W), np.int8)
    scribbles[30, 22:38] = 1
    scribbles[5, :] = scribbles[55, :] = -1
    assert iou(mark(frame, scribbles=scribbles, method="classical"), mask) > 0.9


def test_clicks_without_weights_are_walked_from():
    frame, mask = scene()
    assert iou(mark(frame, [(30, 30)], method="classical"), mask) > 0.8


@pytest.mark.parametrize("positive", [True, False])
def test_a_classical_repair_mends_what_is_clicked_and_keeps_the_rest(positive):
    frame, mask = scene()
    wrong = mask.copy()
    if positive:
        wrong[:, :24] = False
    else:
        wrong[10:25, 55:75] = True
    found = mark(frame, [(17, 30) if positive else (65, 17)], [int(positive)], mask=wrong, method="classical")
    assert iou(found, mask) > iou(wrong, mask) + 0.05


def test_no_scikit_image_is_told(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "skimage.segmentation", None)
    with pytest.raises(InputError, match=r"vosformer\[prompts\]"):
        mark(scene()[0], [(30, 30)], method="classical")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({}, "says nothing"),
        ({"points": [(90, 5)]}, r"\(90, 5\) is outside of the frame of 90 x 60"),
        ({"points": [(-1, 5)]}, "outside"),
        ({"points": [(float("nan"), 5)]}, "outside"),
        ({"points": [(1, 2, 3)]}, "pairs"),
        ({"points": "here"}, "pairs"),
        ({"points": [(1, 2)], "labels": [1, 0]}, "2 labels were given for 1 points"),
        ({"points": [(1, 2)], "labels": [2]}, "a label is 2"),
        ({"points": [(1, 2)], "labels": [0]}, "only where the object is not"),
        ({"box": (5, 5, 5, 9)}, "no area"),
        ({"box": (9, 9, 5, 5)}, "no area"),
        ({"box": (100, 5, 120, 9)}, "no pixel of the frame"),
        ({"box": (1, 2, 3)}, "four numbers"),
        ({"scribbles": np.zeros((H, W), np.int8)}, "empty"),
        ({"scribbles": np.full((H, W), 7)}, "scribbles must be"),
        ({"scribbles": np.ones((3, 3), bool)}, "scribbles of shape"),
        ({"mask": np.ones((3, 3), bool)}, "a mask of shape"),
        ({"mask": np.ones((H, W))}, "a mask of type float64"),
        ({"points": [(1, 2)], "method": "magic"}, "method is 'magic'"),
    ],
)
def test_mistakes_are_told(words, message):
    with pytest.raises(InputError, match=message):
        mark(scene()[0], **words)


def test_a_frame_that_is_none_is_told():
    with pytest.raises(InputError, match="expected uint8"):
        mark(np.zeros((5, 5), np.uint8), [(1, 1)])


def test_objects_that_meet_go_to_the_later_one_and_it_is_said():
    frame, mask = scene()
    left, right = mask.copy(), mask.copy()
    left[:, 32:], right[:, :28] = False, False
    marked = mark_objects(Marker(frame, method="classical"), {9: Prompt(mask=left), 4: Prompt(mask=right)})
    assert ((marked.labels == 4) == right).all()
    assert ((marked.labels == 9) == (left & ~right)).all()
    assert f"objects 9 and 4 both claim {(left & right).sum()} pixels" in marked.notes[0]
    with pytest.raises(InputError, match="object 9: a prompt says nothing"):
        mark_objects(Marker(frame, method="classical"), {9: Prompt()})
    with pytest.raises(InputError, match="the object 0"):
        mark_objects(Marker(frame, method="classical"), {0: Prompt(mask=left)})


def session() -> vosformer.Session:
    return vosformer.Session(ColorModel(), device="cpu", dtype="fp32", size=None)


@pytest.fixture
def classical(monkeypatch):
    """Sessions mark without weights."""
    monkeypatch.setattr("vosformer.prompts.marker.default_network", lambda: None)


def test_a_session_marks_by_prompts_and_follows(classical):
    images, labels = flat_clip((3, 7), 4, size=(64, 96))
    boxes = {}
    for i in (3, 7):
        rows, columns = np.nonzero(labels[0] == i)
        box = (columns.min() - 2, rows.min() - 2, columns.max() + 3, rows.max() + 3)
        boxes[i] = Prompt(box=box)
    one = session()
    out = one.step(images[0], prompts=boxes)
    assert out.ids == (3, 7)
    assert iou(out.labels == 7, labels[0] == 7) > 0.9
    given = session()
    given.step(images[0], out.labels)
    for image in images[1:]:
        assert (one.step(image).labels == given.step(image).labels).all()


def test_a_prompt_on_a_followed_object_repairs_its_predicted_mask(classical):
    images, labels = flat_clip((3, 7), 3, size=(64, 96))
    one, plain = session(), session()
    one.step(images[0], labels[0])
    plain.step(images[0], labels[0])
    predicted = plain.step(images[1]).labels
    rows, columns = np.nonzero(predicted == 0)
    at = len(rows) // 2
    out = one.step(images[1], prompts={7: Prompt([(columns[at], rows[at])])})
    assert out.labels[rows[at], columns[at]] == 7
    assert ((predicted == 7) <= (out.labels == 7)).all()  # a positive click takes nothing away
    negative = session()
    negative.step(images[0], labels[0])
    rows, columns = np.nonzero(predicted == 7)
    out = negative.step(images[1], prompts={7: Prompt([(columns[0], rows[0])], [0])})
    assert out.labels[rows[0], columns[0]] != 7
    assert ((out.labels == 7) <= (predicted == 7)).all()


def test_prompts_and_labels_on_one_frame(classical):
    images, labels = flat_clip((3, 7), 2, size=(64, 96))
    both = session()
    mask = labels[0] == 7
    out = both.step(images[0], np.where(labels[0] == 3, 3, 0), prompts={7: Prompt(mask=mask)})
    assert (out.labels == labels[0]).all()
    with pytest.warns(UserWarning, match="both claim"):
        session().step(images[0], prompts={3: Prompt(mask=mask), 7: Prompt(mask=mask)})


def test_a_prompt_that_does_not_fit_leaves_the_session_as_it_was(classical):
    images, labels = flat_clip((3,), 2, size=(64, 96))
    one = session()
    one.step(images[0], labels[0])
    with pytest.raises(InputError, match="object 9: the point"):
        one.step(images[1], prompts={9: Prompt([(500, 1)])})
    assert one.ids == (3,)
    with pytest.raises(InputError, match=r"expected a vosformer\.Prompt"):
        one.step(images[1], prompts={9: [(5, 1)]})


def test_drawing():
    square = polygon([(10, 10), (19, 10), (19, 19), (10, 19)], 30, 40)
    assert square.sum() == 100
    assert polygon([(-50, -50), (80, -50), (80, 80), (-50, 80)], 30, 40).all()
    painted = brush(square, [(30, 15)], 3)
    rows, columns = np.mgrid[:30, :40]
    away = np.hypot(rows - 15, columns - 30)
    assert painted[away <= 3].all()
    assert (painted == square)[away >= 4].all()
    assert not (brush(painted, [(0, 15), (39, 15)], 4, erase=True))[12:19].any()
    assert (stroke([(5, 5), (25, 5)], 1, 30, 40)[5, 5:26]).all()
    for wrong in (lambda: polygon([(1, 1), (2, 2)], 9, 9), lambda: brush(square, [], 2), lambda: brush(square, [(1, 1)], 0)):
        with pytest.raises(InputError):
            wrong()


def test_scissors_hold_on_to_an_edge():
    frame = np.full((80, 120, 3), 30, np.uint8)
    frame[20:60, 30:90] = 220
    scissors = Scissors(frame)
    with pytest.raises(InputError, match="start"):
        scissors.to(5, 5)
    scissors.start(30, 20)
    path = np.array(scissors.to(89, 59))
    # Along the border of the rectangle, not through it: every place lies within 2 pixels of an edge.
    across = np.minimum(abs(path[:, 0] - 29.5), abs(path[:, 0] - 89.5)) <= 2
    down = np.minimum(abs(path[:, 1] - 19.5), abs(path[:, 1] - 59.5)) <= 2
    assert (across | down).all()
    assert tuple(path[0]) == (30, 20)
    assert tuple(path[-1]) == (89, 59)
    with pytest.raises(InputError, match="outside"):
        scissors.start(200, 5)
