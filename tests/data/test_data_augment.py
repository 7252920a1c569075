"""Augmentation: the numbers of the specification, masks exact under every operation, frames that share what they should share."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vosformer.data.augmentation import pipelines as augment
from vosformer.data.augmentation.geometric import (
    FILL,
    Affine,
    interpolate_plate,
    pad_to,
    random_area,
    random_box,
    remap,
    resize,
    thin_plate,
    warp,
)
from vosformer.data.augmentation.photometric import Jitter, JitterValues, blur, grayscale

VIDEO = [augment.AOT_VIDEO, augment.DEAOT_VIDEO, augment.ONEVOS_VIDEO, augment.SIMVOS_VIDEO, augment.JOINTFORMER_VIDEO]
STILL = [augment.AOT_STILL, augment.DEAOT_STILL, augment.ONEVOS_STILL, augment.JOINTFORMER_STILL]


def scene(height=90, width=120):
    """A picture whose red channel tells the label: 0, 100 or 200."""
    labels = np.zeros((height, width), np.uint8)
    labels[20:60, 30:80], labels[50:80, 60:110] = 1, 2
    image = np.stack([labels * 100, np.full_like(labels, 60), np.full_like(labels, 30)], -1)
    return image, labels


def test_constants_of_aot_and_onevos():
    """aot-family.md sec. 11; vit-family.md sec. 3."""
    video, still = augment.AOT_VIDEO, augment.AOT_STILL
    assert (video.crop, video.scale, video.short_edge, video.flip, video.tries, video.min_pixels) == (
        465,
        (0.7, 1.3),
        480,
        0.5,
        5,
        100,
    )
    assert video.looks == augment.Looks(None, 0.0, 0.0)
    assert (still.crop, still.flip, still.frame_flip, still.area, still.aspect) == (465, 0.5, 0.3, (0.8, 1.0), (3 / 4, 4 / 3))
    assert still.affine == Affine(20, 0.1, (0.9, 1.1), 10)
    assert still.looks == augment.Looks(Jitter(0.1, 0.1, 0.1, 0.03, 1.0), 0.0, 0.0)
    assert (augment.ONEVOS_VIDEO.crop, augment.ONEVOS_STILL.crop) == (464, 464)
    assert augment.ONEVOS_VIDEO.scale == (0.7, 1.3)


_STILL_COLORS = replace(augment.DEAOT_STILL.looks, jitter=Jitter(0, 0, 0, 0, 0.8))
_PARTS = [
    (augment.AOT_VIDEO, {"flip": 0.0}),
    (augment.AOT_VIDEO, {"scale": (1.0, 1.0)}),
    (augment.ONEVOS_VIDEO, {"scale": (1.0, 1.0)}),
    (augment.DEAOT_VIDEO, {"looks": _STILL_COLORS}),
    (augment.DEAOT_VIDEO, {"looks": replace(augment.DEAOT_VIDEO.looks, gray=0.0)}),
    (augment.DEAOT_VIDEO, {"looks": replace(augment.DEAOT_VIDEO.looks, blur=0.0)}),
    *((pipeline, {part: 0.0}) for pipeline in (augment.AOT_STILL, augment.DEAOT_STILL) for part in ("flip", "frame_flip")),
    (augment.AOT_STILL, {"affine": Affine()}),
    (augment.AOT_STILL, {"looks": augment.Looks(Jitter(0, 0, 0, 0))}),
    *(
        (pipeline, off)
        for pipeline in (augment.SIMVOS_VIDEO, augment.JOINTFORMER_VIDEO, augment.JOINTFORMER_STILL)
        for off in (
            {"flip": 0.0},
            {"gray": 0.0},
            {"affine": Affine()},
            {"jitter": Jitter(0, 0, 0, 0)},
            {"frame_jitter": Jitter(0, 0, 0, 0)},
        )
    ),
    (augment.JOINTFORMER_STILL, {"scale": (1.0, 1.0)}),
    (augment.JOINTFORMER_STILL, {"plate_scale": 0.0}),
]


@pytest.mark.parametrize(("pipeline", "off"), _PARTS, ids=lambda part: "-".join(part) if isinstance(part, dict) else "")
def test_every_part_of_a_pipeline_does_something(pipeline, off):
    """The same random numbers without one part give other frames at times."""
    rng = np.random.default_rng(3)
    image, labels = rng.integers(0, 256, (90, 120, 3), np.uint8), scene()[1]
    with_it = replace(pipeline, crop=65)
    without = replace(with_it, **off)

    def frames(made, seed):
        draws = np.random.default_rng(seed)
        video = pipeline in VIDEO
        # One frame of a video, two of a picture: parts that are off may draw less, which would change all that comes after.
        return made(draws, [image], [labels])[0][0] if video else made(draws, image, labels, 2)[0][-1]

    assert any(not np.array_equal(frames(with_it, seed), frames(without, seed)) for seed in range(60))


def test_constants_of_deaot():
    """aot-family.md sec. 11, v2."""
    looks = augment.Looks(Jitter(0.4, 0.4, 0.2, 0.1, 0.8), gray=0.2, blur=0.3, blur_radius=(0.1, 2))
    assert augment.DEAOT_VIDEO.looks == augment.DEAOT_STILL.looks == looks
    assert augment.DEAOT_STILL.affine == augment.AOT_STILL.affine


def test_constants_of_simvos_and_jointformer():
    """vit-family.md sec. 1 and 2."""
    sim, joint, still = augment.SIMVOS_VIDEO, augment.JOINTFORMER_VIDEO, augment.JOINTFORMER_STILL
    assert (sim.crop, sim.flip, sim.area, sim.aspect, sim.gray, sim.way) == (
        384,
        0.5,
        (0.36, 1.0),
        (3 / 4, 4 / 3),
        0.05,
        "bicubic",
    )
    assert (sim.jitter, sim.frame_jitter) == (Jitter(0.1, 0.03, 0.03, 0), Jitter(0.01, 0.01, 0.01, 0))
    assert sim.affine == Affine(degrees=15, shear=10)
    assert (joint.way, joint.affine, joint.area) == ("bilinear", sim.affine, sim.area)
    assert augment.JOINTFORMER_FINETUNE.affine == Affine()
    assert (still.crop, still.affine, still.scale) == (384, Affine(20, 0, (0.9, 1.1), 10), (0.8, 1.5))
    assert (still.jitter, still.frame_jitter) == (Jitter(0.1, 0.05, 0.05, 0.05), Jitter(0.1, 0.05, 0.05, 0))
    assert (still.plate, still.plate_scale) == (0.33, 0.02)
    blender = augment.JOINTFORMER_BL30K
    assert (blender.area, blender.affine, blender.way) == ((0.25, 1.0), Affine(), "bilinear")


def test_plates_of_jointformer_come_after_the_crop():
    """Empty parts that a plate leaves at the border are the mean color, whatever the jitter: nothing comes after it."""
    image = np.full((80, 120, 3), 200, np.uint8)
    made = replace(augment.JOINTFORMER_STILL, crop=64, affine=Affine(), scale=(1.0, 1.0), plate=1.0, plate_scale=0.1)
    borders = set()
    for seed in range(12):
        images, _ = made(np.random.default_rng(seed), image, np.ones((80, 120), np.uint8), 1)
        borders |= {tuple(pixel) for pixel in images[0].reshape(-1, 3).tolist()}
    assert (124, 116, 104) in borders


@pytest.mark.parametrize("pipeline", VIDEO)
def test_video_pipelines_keep_labels_on_their_pixels(pipeline):
    """Where the label is 1 or 2 the red channel says so (colors are left alone here), but for interpolation at edges."""
    from dataclasses import replace

    plain = (
        {"looks": augment.Looks()}
        if hasattr(pipeline, "looks")
        else {"jitter": Jitter(), "frame_jitter": Jitter(), "gray": 0.0}
    )
    pipeline = replace(pipeline, crop=100, **plain)
    if hasattr(pipeline, "short_edge"):
        pipeline = replace(pipeline, short_edge=100)
    image, labels = scene()
    wrong = total = 0
    for seed in range(10):
        images, ids = pipeline(np.random.default_rng(seed), [image] * 3, [labels] * 3)
        for picture, label in zip(images, ids, strict=True):
            assert picture.shape == (100, 100, 3)
            assert label.shape == (100, 100)
            for number in (1, 2):
                wrong += (abs(picture[label == number][:, 0].astype(int) - 100 * number) > 40).sum()
                total += (label == number).sum()
    assert total > 1000
    assert wrong < 0.08 * total


@pytest.mark.parametrize("pipeline", STILL)
def test_still_pipelines_move_each_frame(pipeline):
    from dataclasses import replace

    image, labels = scene()
    images, ids = replace(pipeline, crop=96)(np.random.default_rng(1), image, labels, 4)
    assert [p.shape for p in images] == [(96, 96, 3)] * 4
    assert len({p.tobytes() for p in ids}) == 4
    assert {int(i) for label in ids for i in np.unique(label)} == {0, 1, 2}


def test_scaled_crop_is_shared_by_the_frames():
    image, labels = scene()
    images, ids = augment.AOT_VIDEO(np.random.default_rng(3), [image] * 3, [labels] * 3)
    assert (images[0] == images[1]).all()
    assert (ids[0] == ids[2]).all()


def test_balanced_crop_shows_an_object():
    """A small object in a large frame: five tries find it much more often than one."""
    from dataclasses import replace

    labels = np.zeros((400, 400), np.uint8)
    labels[300:320, 300:320] = 1
    image = np.zeros((400, 400, 3), np.uint8)
    found = []
    for tries in (1, 5):
        pipeline = replace(augment.AOT_VIDEO, crop=160, short_edge=400, scale=(1.0, 1.0), tries=tries)
        hits = [(pipeline(np.random.default_rng(s), [image], [labels])[1][0] > 0).sum() > 100 for s in range(60)]
        found.append(sum(hits))
    assert found[0] < 35
    assert found[1] > found[0] + 15


def test_small_frames_are_padded_with_the_mean_color():
    image, labels = np.full((10, 20, 3), 7, np.uint8), np.ones((10, 20), np.uint8)
    for offset, (top, left) in (((0.0, 0.0), (0, 0)), ((0.999, 0.999), (22, 12)), ((0.5, 0.5), (11, 6))):
        picture, ids = pad_to(image, labels, 32, offset)
        assert (ids[top : top + 10, left : left + 20] == 1).all()
        assert ids.sum() == 200
        assert (picture[ids == 0] == FILL).all()
        assert (picture[ids == 1] == 7).all()


def test_affine_turns_scales_and_shifts_about_the_center():
    class Fixed:
        def __init__(self, *values):
            self.values = list(values)

        def uniform(self, low, high):
            return self.values.pop(0)

    # A quarter turn maps the right of the center to below it.
    matrix = Affine(degrees=90).draw(Fixed(90, 0, 0, 1, 0), (11, 11))
    np.testing.assert_allclose(matrix @ [8, 5, 1], [5, 8], atol=1e-9)
    matrix = Affine(shift=0.5, scale=(1, 2)).draw(Fixed(0, 0.2, -0.1, 2, 0), (21, 11))
    np.testing.assert_allclose(matrix @ [5, 10, 1], [5 + 2, 10 - 2], atol=1e-9)
    np.testing.assert_allclose(matrix @ [6, 10, 1], [9, 8], atol=1e-9)


def test_warp_by_whole_pixels_is_exact_and_fills():
    image, labels = scene()
    moved, ids = warp(image, labels, np.array([[1.0, 0, 5], [0, 1, 0]]))
    np.testing.assert_array_equal(ids[:, 5:], labels[:, :-5])
    np.testing.assert_array_equal(moved[:, 5:], image[:, :-5])
    assert (ids[:, :5] == 0).all()
    assert (moved[:, :5] == FILL).all()


@given(st.integers(0, 10**6), st.integers(20, 300), st.integers(20, 300))
def test_random_area_is_inside_and_within_its_limits(seed, height, width):
    box = random_area(np.random.default_rng(seed), (height, width), (0.36, 1.0))
    assert box.top >= 0
    assert box.left >= 0
    assert box.top + box.height <= height
    assert box.left + box.width <= width
    assert 0.7 < box.width / box.height < 1.43
    assert box.height * box.width > 0.2 * min(height, width) ** 2


def test_random_area_statistics():
    rng = np.random.default_rng(0)
    boxes = [random_area(rng, (400, 400), (0.36, 1.0)) for _ in range(500)]
    shares = [box.height * box.width / 160000 for box in boxes]
    assert min(shares) < 0.4
    assert 0.55 < np.mean(shares) < 0.68
    assert abs(np.mean([np.log(box.width / box.height) for box in boxes])) < 0.03


@given(st.integers(0, 10**6), st.integers(1, 60), st.integers(1, 60), st.integers(1, 60))
def test_random_box(seed, height, width, side):
    box = random_box(np.random.default_rng(seed), (height, width), side)
    assert (box.height, box.width) == (min(side, height), min(side, width))
    assert 0 <= box.top <= height - box.height
    assert 0 <= box.left <= width - box.width


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_thin_plates_bend_a_little_and_invent_no_labels(seed):
    image, labels = scene()
    field = thin_plate(np.random.default_rng(seed), (90, 120), 0.02)
    rest = np.stack(np.meshgrid(np.arange(120), np.arange(90)), -1)
    assert 0.05 < abs(field - rest).mean() < 12
    assert set(np.unique(remap(image, labels, field)[1])) <= {0, 1, 2}
    still = thin_plate(np.random.default_rng(seed), (90, 120), 0.0)
    np.testing.assert_allclose(still, rest, atol=0.07)  # OpenCV interpolates at 1/32 of a cell


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_a_plate_goes_through_its_points_and_is_a_plane_where_they_lie_in_one(seed):
    rng = np.random.default_rng(seed)
    lattice = np.stack(np.meshgrid(np.linspace(0, 1, 4), np.linspace(0, 1, 4)), -1).reshape(-1, 2)
    centers = lattice + rng.uniform(-0.1, 0.1, lattice.shape)
    values = rng.normal(size=(16, 3))
    np.testing.assert_allclose(interpolate_plate(centers, values, centers), values, atol=1e-8)
    plane, at = rng.normal(size=(2, 1)), rng.uniform(-1, 2, (5, 7, 2))
    np.testing.assert_allclose(interpolate_plate(centers, centers @ plane, at), at @ plane, atol=1e-8)


def test_resize_takes_labels_from_the_nearest_pixel():
    image, labels = scene()
    assert set(np.unique(resize(image, labels, 53, 71)[1])) == {0, 1, 2}
    small, _ = resize(
        np.tile(np.array([[0, 255]], np.uint8), (64, 32))[..., None].repeat(3, 2), np.zeros((64, 64), np.uint8), 16, 16
    )
    assert abs(small.astype(int) - 127).max() <= 1  # stripes average out and do not alias


def test_jitter_factors_and_order():
    values = [Jitter(0.4, 0.3, 0.2, 0.1).draw(np.random.default_rng(s)) for s in range(400)]
    for name, width in (("brightness", 0.4), ("contrast", 0.3), ("saturation", 0.2)):
        drawn = np.array([getattr(v, name) for v in values])
        assert 1 - width <= drawn.min() < 1 - 0.9 * width
        assert 1 + 0.9 * width < drawn.max() <= 1 + width
    assert len({v.order for v in values}) == 24
    off = [Jitter(0.4, probability=0.8).draw(np.random.default_rng(s)).brightness == 1 for s in range(400)]
    assert 50 < sum(off) < 110


def test_jitter_operations():
    image = np.array([[[200, 100, 50], [10, 20, 30]]], np.uint8)
    np.testing.assert_array_equal(JitterValues(0.5, 1, 1, 0, (0, 1, 2, 3))(image), image // 2)
    np.testing.assert_array_equal(JitterValues(2, 1, 1, 0, (0, 1, 2, 3))(image)[0, 0], [255, 200, 100])
    gray = JitterValues(1, 1, 0, 0, (0, 1, 2, 3))(image)
    assert abs(gray[0, 0].astype(int) - 124).max() <= 1  # 0.299 R + 0.587 G + 0.114 B
    flat = JitterValues(1, 0, 1, 0, (0, 1, 2, 3))(image)
    assert len(np.unique(flat)) == 1
    turned = JitterValues(1, 1, 1, 1 / 3, (0, 1, 2, 3))(np.array([[[255, 0, 0]]], np.uint8))
    assert abs(turned[0, 0].astype(int) - [0, 255, 0]).max() <= 8
    assert (grayscale(image)[..., 0] == grayscale(image)[..., 2]).all()
    point = np.zeros((21, 21, 3), np.uint8)
    point[10, 10] = 255
    assert blur(point, 2.0)[10, 10, 0] < 15
