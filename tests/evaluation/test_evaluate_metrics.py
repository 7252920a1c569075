"""J, F and their statistics: the recorded values, the plain form, and what must hold for any masks."""

from __future__ import annotations

import importlib.util
import math
import os
import re
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from vosformer.errors import InputError
from vosformer.evaluation import bits, metrics
from vosformer.evaluation.metrics import (
    boundary,
    boundary_accuracy,
    boundary_radius,
    frame_scores,
    region_similarity,
    statistics,
)

FIXTURES = Path(os.environ.get("VOSFORMER_FIXTURES", Path(__file__).parents[1] / "fixtures"))
RECORDED = sorted(FIXTURES.glob("*.npz"))
_INPUTS, _OUTPUTS = ("gt", "pred", "shape", "kind"), ("J_MRD", "F_MRD", "J", "F")


def _plain():
    path = Path(__file__).parents[2] / "benchmarks" / "scores.py"
    spec = importlib.util.spec_from_file_location("benchmark_scores", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


plain = _plain()


def plain_frames(truth, result):
    pairs = [plain.plain_scores(*pair) for pair in zip(truth.astype(np.uint8), result.astype(np.uint8), strict=True)]
    return np.array(pairs).reshape(-1, 2)


def test_recordings_are_found():
    if not RECORDED and "VOSFORMER_FIXTURES" in os.environ:
        pytest.skip(f"{FIXTURES} holds no recordings of the scorer")
    assert RECORDED


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.name)
def test_every_recorded_array(path):
    with np.load(path) as file:
        recorded = {name: file[name] for name in file.files}
    cases = set()
    for name in recorded:
        match = re.fullmatch(rf"(.+?)_({'|'.join(_INPUTS + _OUTPUTS)})", name)
        assert match, f"{path} holds the array {name!r}, which this test does not know"
        cases.add(match.group(1))
    assert cases
    for case in cases:
        width = int(recorded[f"{case}_shape"][2])
        truth, result = (np.unpackbits(recorded[f"{case}_{k}"], axis=-1)[..., :width] for k in ("gt", "pred"))
        assert truth.shape == tuple(recorded[f"{case}_shape"])
        scores = frame_scores(truth, result)
        found = {"J": scores.j, "F": scores.f}
        for name, values in (("J", scores.j), ("F", scores.f)):
            one = statistics(values)
            found[f"{name}_MRD"] = np.array([one.mean, one.recall, one.decay])
        for name, values in found.items():
            if f"{case}_{name}" in recorded:
                np.testing.assert_allclose(values, recorded[f"{case}_{name}"], rtol=0, atol=1e-9, err_msg=f"{case}_{name}")


def _pair(shape, kind):
    """Masks that are easily empty, full, thin or speckled."""
    if kind == "noise":
        mask = hnp.arrays(np.bool_, shape)
    else:
        n, height, width = shape
        box = st.tuples(*(st.integers(0, side) for side in (height, height, width, width)))

        def draw(boxes):
            out = np.zeros(shape, np.bool_)
            for frame, (top, bottom, left, right) in zip(out, boxes, strict=True):
                frame[top:bottom, left:right] = True
            return out

        mask = st.lists(box, min_size=n, max_size=n).map(draw)
    return st.tuples(mask, mask)


pairs = st.tuples(
    st.tuples(st.integers(1, 3), st.integers(1, 40), st.one_of(st.integers(1, 40), st.integers(60, 70), st.integers(120, 135))),
    st.sampled_from(["noise", "boxes"]),
).flatmap(lambda args: _pair(*args))


@settings(max_examples=150, deadline=None)
@given(pairs)
def test_fast_equals_plain(pair):
    truth, result = pair
    scores = frame_scores(truth, result)
    expected = plain_frames(truth, result)
    np.testing.assert_array_equal(scores.j, expected[:, 0])
    np.testing.assert_array_equal(scores.f, expected[:, 1])
    assert ((scores.j >= 0) & (scores.j <= 1) & (scores.f >= 0) & (scores.f <= 1)).all()


@pytest.mark.parametrize("size", [(480, 854), (481, 849), (1, 700), (700, 1), (1, 1), (2, 64), (3, 65), (300, 128)])
def test_fast_equals_plain_on_sizes(size):
    rng = np.random.default_rng(0)
    truth = rng.random((5, *size)) < np.array([0, 0.5, 1e-3, 1, 0.02])[:, None, None]
    result = truth ^ (rng.random((5, *size)) < 0.01)
    result[4] = np.roll(truth[4], (3, -5), (0, 1))
    np.testing.assert_array_equal(np.stack(frame_scores(truth, result), 1), plain_frames(truth, result))


@settings(max_examples=60, deadline=None)
@given(pairs)
def test_symmetry(pair):
    truth, result = pair
    there, back = frame_scores(truth, result), frame_scores(result, truth)
    np.testing.assert_array_equal(there.j, back.j)
    np.testing.assert_array_equal(there.f, back.f)
    np.testing.assert_array_equal(np.stack(frame_scores(truth, truth)), 1.0)


@settings(max_examples=60, deadline=None)
@given(pairs)
def test_frames_do_not_know_each_other(pair):
    truth, result = pair
    together = frame_scores(truth, result)
    alone = [frame_scores(one, other) for one, other in zip(truth, result, strict=True)]
    np.testing.assert_array_equal(together.j, [one.j for one in alone])
    np.testing.assert_array_equal(together.f, [one.f for one in alone])


@settings(max_examples=60, deadline=None)
@given(pairs, st.integers(0, 9), st.integers(0, 70))
def test_a_common_shift_inside_the_picture_changes_nothing(pair, down, right):
    truth, result = pair
    n, height, width = truth.shape

    def place(masks, top, left):
        out = np.zeros((n, height + 14, width + 75), np.bool_)
        out[:, top : top + height, left : left + width] = masks
        return out

    first = frame_scores(place(truth, 2, 2), place(result, 2, 2))
    moved = frame_scores(place(truth, 2 + down, 2 + right), place(result, 2 + down, 2 + right))
    np.testing.assert_array_equal(first.j, moved.j)
    np.testing.assert_array_equal(first.f, moved.f)


def test_shift_of_the_result():
    truth = np.zeros((120, 160), np.uint8)
    truth[30:90, 40:120] = 1
    radius = boundary_radius(*truth.shape)
    assert radius == 2
    shifted = [np.roll(truth, shift, 1) for shift in range(12)]
    f = [float(boundary_accuracy(truth, one)) for one in shifted]
    j = [float(region_similarity(truth, one)) for one in shifted]
    assert f[: radius + 1] == [1.0] * (radius + 1)
    assert f[radius + 1] < 1
    assert all(a > b for a, b in pairwise(j))
    assert j[4] == (80 - 4) / (80 + 4)


@pytest.mark.parametrize(
    ("truth", "result", "expected"),
    [(0, 0, (1, 1)), (0, 1, (0, 0)), (1, 0, (0, 0)), (1, 1, (1, 1))],
)
def test_empty_masks(truth, result, expected):
    spot = np.zeros((1, 20, 30), np.uint8)
    spot[:, 5:9, 4:11] = 1
    scores = frame_scores(spot * truth, spot * result)
    assert (float(scores.j[0]), float(scores.f[0])) == expected


def test_a_full_mask_has_no_boundary():
    full, empty = np.ones((1, 9, 9), np.uint8), np.zeros((1, 9, 9), np.uint8)
    scores = frame_scores(full, empty)
    assert (scores.j[0], scores.f[0]) == (0, 1)  # as the official scorer has it


def test_touching_disks_radius_is_euclidean():
    # The boundary of a single pixel is 2 x 2 pixels. At 5 px the offset (3, 4) matches, of (4, 4) only the near corners do.
    def dot(y, x):
        mask = np.zeros((64, 64), np.uint8)
        mask[y, x] = 1
        return mask

    def matched(dy, dx):
        return float(boundary_accuracy(dot(20, 20), dot(20 + dy, 20 + dx), tolerance=5))

    assert matched(3, 4) == 1.0
    assert 0 < matched(4, 4) < 1
    assert matched(0, 7) == 0.0


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(np.bool_, st.tuples(st.integers(1, 2), st.integers(1, 30), st.integers(1, 140)), fill=st.just(False)))
def test_boundary_and_packing(masks):
    np.testing.assert_array_equal(bits.unpack(bits.pack(masks)), masks)
    np.testing.assert_array_equal(bits.count(bits.pack(masks).words), masks.sum((1, 2)))
    expected = np.stack([plain.plain_boundary(mask.astype(np.uint8)) for mask in masks])
    np.testing.assert_array_equal(boundary(masks), expected)
    np.testing.assert_array_equal(boundary(masks[0]), expected[0])


@pytest.mark.parametrize("radius", [0, 1, 2, 3, 8, 36, 63, 64, 70, 150])
def test_dilation_is_a_disk(radius):
    mask = np.zeros((1, 330, 400), np.bool_)
    mask[0, 160, 200] = mask[0, 3, 399] = True
    packed = bits.pack(mask)
    words = np.concatenate([packed.words, np.zeros((1, 330, bits.gap_words(radius)), packed.words.dtype)], -1)
    found = bits.unpack(bits.Packed(bits.dilate(words, radius)[..., : packed.words.shape[-1]], 400))[0]
    y, x = np.mgrid[:330, :400]
    near = ((y - 160) ** 2 + (x - 200) ** 2 <= radius**2) | ((y - 3) ** 2 + (x - 399) ** 2 <= radius**2)
    np.testing.assert_array_equal(found, near)


def test_counting_without_bitwise_count(monkeypatch):
    words = np.random.default_rng(0).integers(0, 1 << 63, (3, 4, 5), dtype=np.uint64)
    expected = bits.count(words)
    monkeypatch.delattr(np, "bitwise_count", raising=False)
    np.testing.assert_array_equal(bits.count(words), expected)


def test_void_pixels_do_not_count():
    rng = np.random.default_rng(3)
    truth, result, void = (rng.random((4, 40, 70)) < share for share in (0.4, 0.4, 0.2))
    ignoring = frame_scores(truth, result, void=void)
    without = frame_scores(truth & ~void, result & ~void)
    np.testing.assert_array_equal(ignoring.j, without.j)
    np.testing.assert_array_equal(ignoring.f, without.f)
    assert (ignoring.j != frame_scores(truth, result).j).any()


def test_any_dtype_is_taken(monkeypatch):
    monkeypatch.setattr(metrics, "_CHUNK_PIXELS", 1)  # one frame at a time
    rng = np.random.default_rng(1)
    truth, result = rng.integers(0, 2, (2, 6, 20, 30))
    expected = frame_scores(truth.astype(bool), result.astype(bool))
    for kind in (np.uint8, np.int32, np.float32, np.int64):
        np.testing.assert_array_equal(frame_scores(truth.astype(kind), result.astype(kind) * 7), expected)
    assert region_similarity(truth[0], result[0]) == expected.j[0]


@pytest.mark.parametrize(
    ("truth", "result", "text"),
    [
        (np.zeros((2, 4, 4)), np.zeros((2, 4, 5)), r"\(2, 4, 4\).*\(2, 4, 5\)"),
        (np.zeros(4), np.zeros(4), r"truth has shape \(4,\)"),
        (np.zeros((1, 0, 3)), np.zeros((1, 0, 3)), "at least one pixel"),
    ],
)
def test_masks_that_do_not_fit(truth, result, text):
    with pytest.raises(InputError, match=text):
        frame_scores(truth, result)


def test_tolerance_must_be_positive():
    with pytest.raises(InputError, match="tolerance is 0"):
        boundary_accuracy(np.zeros((2, 2)), np.zeros((2, 2)), tolerance=0)


@pytest.mark.parametrize(("size", "radius"), [((480, 854), 8), ((1, 1), 1), ((1080, 1920), 18), ((2160, 3840), 36)])
def test_radius(size, radius):
    assert boundary_radius(*size) == radius
    assert boundary_radius(*size, tolerance=3) == 3


def test_statistics():
    values = np.array([0.9, 0.8, 0.5, 0.51, 0.2, 0.1, 0.0, 0.0])
    found = statistics(values)
    assert found.mean == pytest.approx(values.mean())
    assert found.recall == 3 / 8  # 0.5 itself is not above 0.5
    # n = 8: cuts 0, 2, 4, 5, 7; the first quarter is values[0:3], the last values[5:8].
    assert found.decay == pytest.approx(values[:3].mean() - values[5:].mean())
    assert found.last_quarter == pytest.approx(values[5:].mean())


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_statistics_of_few_frames(n):
    found = statistics(np.full(n, 0.25))
    assert (found.mean, found.recall, found.decay) == (0.25, 0, 0)


@pytest.mark.parametrize("n", [255, 256, 257, 258, 600, 3000])
def test_decay_of_long_sequences_is_that_of_their_quarters(n):
    values = np.linspace(1, 0, n)
    assert statistics(values).decay == pytest.approx(0.75, abs=2 / n)
    if n > 258:  # the official cuts in 8 bits wrap around and look at other frames
        cuts = (np.round(np.linspace(1, n, 5) + 1e-10) - 1).astype(np.int64).astype(np.uint8).astype(int)
        bins = [values[cuts[i] : cuts[i + 1] + 1] for i in (0, 3)]
        wrapped = bins[0].mean() - bins[1].mean() if all(map(len, bins)) else math.nan
        assert not abs(wrapped - 0.75) < 0.01


def test_no_frames_have_no_statistics():
    with pytest.raises(InputError, match="at least one frame"):
        statistics([])
