"""Composed video: exact masks, determinism across processes, ids, and the statistics that training relies on."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vosformer.data.datasets.video import Curriculum, frame_times, reflect
from vosformer.data.mixture import Mixture
from vosformer.data.synthetic.assets import Assets
from vosformer.data.synthetic.compose import (
    ComposeConfig,
    ComposedDataset,
    clips_of_crowds,
    clips_of_groups,
    clips_of_stills,
    clips_of_videos,
    settle,
)
from vosformer.data.synthetic.motion import Curve, Motion, object_motion, still
from vosformer.data.synthetic.patches import draw_patch
from vosformer.data.synthetic.scene import Light, Scene, SceneLayer, StillBackdrop, paste
from vosformer.errors import DataError

SMALL = ComposeConfig(size=(64, 80), frames=3)


def digest(dataset, indices) -> str:
    total = hashlib.sha256()
    for index in indices:
        clip = dataset[index]
        total.update(clip.images.numpy().tobytes())
        total.update(clip.labels.numpy().tobytes())
    return total.hexdigest()


def test_items_are_the_same_in_another_process():
    here = digest(ComposedDataset(Assets(), SMALL, 5), [3, 1_000_000])
    code = "from test_data_compose import *;print(digest(ComposedDataset(Assets(), SMALL, 5), [3, 1_000_000]))"
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert here == there


def test_items_do_not_depend_on_order_and_differ():
    dataset = ComposedDataset(Assets(), SMALL, 0)
    forward = [digest(dataset, [i]) for i in range(4)]
    assert [digest(dataset, [i]) for i in reversed(range(4))] == forward[::-1]
    assert len(set(forward)) == 4
    assert digest(ComposedDataset(Assets(), SMALL, 1), [0]) != forward[0]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**9))
def test_clips_keep_their_promises(index):
    clip = ComposedDataset(Assets(), SMALL, 7)[index]
    assert clip.images.shape == (3, 3, 64, 80)
    assert clip.images.dtype == torch.uint8
    assert clip.labels.shape == (3, 64, 80)
    first = set(clip.labels[0].unique().tolist()) - {0, 255}
    assert first == set(range(1, clip.count + 1))
    assert clip.count >= 1
    assert set(clip.labels.unique().tolist()) <= {0, 255, *first}


def test_pasted_masks_are_exact():
    """An opaque red square, moved by whole pixels: the mask is where the picture is red."""
    patch = np.zeros((10, 10, 4), np.uint8)
    patch[..., 0] = patch[..., 3] = 255
    motion = Motion(Curve(0.1, 0.05), Curve(), Curve(), Curve(), Curve(), Curve())
    layer = SceneLayer(lambda time: patch, 3, motion, world=False)
    for time in range(3):
        image, labels = np.zeros((40, 60, 3), np.uint8), np.zeros((40, 60), np.uint8)
        paste(image, labels, layer, time, np.eye(3))
        assert (labels == 3).sum() == 100
        np.testing.assert_array_equal(labels == 3, image[..., 0] > 127)
        rows, columns = np.nonzero(labels)
        assert (rows.min(), columns.min()) == (15, 25 + 4 + 2 * time)


def test_upper_layers_win_and_distractors_erase():
    def square(side, value):
        patch = np.full((side, side, 4), 255, np.uint8)
        patch[..., :3] = value
        return patch

    big, small, cover = square(20, 50), square(10, 100), square(4, 200)
    layers = tuple(SceneLayer(lambda t, p=p: p, i, still(), world=False) for p, i in ((big, 1), (small, 2), (cover, 0)))
    backdrop = StillBackdrop(np.zeros((40, 40, 3), np.uint8), np.zeros((40, 40), np.uint8), still(), (40, 40), 1.0)
    image, labels = Scene(backdrop, layers, Light(), (40, 40)).render(0, np.random.default_rng(0))
    assert np.bincount(labels.ravel()).tolist() == [1600 - 400 + 16, 300, 84]
    assert (image[labels == 1] == 50).all()
    assert (image[labels == 2] == 100).all()


def test_objects_leave_and_return():
    """Some objects are out of sight in the middle of a long clip, and back later."""
    config = ComposeConfig(size=(48, 64), frames=60, max_gap=Curriculum(((0, 1),)), objects=(0, 0, 0, 1), distractors=(1,))
    returned = 0
    for index in range(6):
        clip = ComposedDataset(Assets(), config, 11)[index]
        for label in range(1, clip.count + 1):
            seen = (clip.labels == label).flatten(1).sum(1) > 4
            gone = (~seen).nonzero().flatten()
            returned += bool(len(gone) and seen[gone[0] :].any())
    assert returned >= 1


def test_motion_is_smooth():
    """Over one frame an object moves by a few per cent of the side at most, in 99 of 100 cases."""
    steps = []
    for seed in range(200):
        motion = object_motion(np.random.default_rng(seed), 0.0, 0.0, 1.0)
        steps += [abs(motion.x(t + 1) - motion.x(t)) for t in range(0, 60, 7)]
    assert np.quantile(steps, 0.99) < 0.2
    assert 0.003 < np.mean(steps) < 0.03


def test_settle_drops_small_objects_keeps_ignore_and_limits_numbers():
    labels = np.zeros((20, 20), np.uint8)
    labels[:4, :4], labels[10:14, :4], labels[0, 19], labels[19] = 7, 9, 4, 255
    image = np.zeros((20, 20, 3), np.uint8)
    clip = settle(np.random.default_rng(0), [(image, labels)] * 2, 0.01, 10)
    assert clip.count == 2
    assert sorted(clip.labels.unique().tolist()) == [0, 1, 2, 255]
    assert settle(np.random.default_rng(0), [(image, labels)] * 2, 0.01, 1).count == 1


def test_ids_are_shuffled():
    labels = np.zeros((20, 20), np.uint8)
    labels[:4], labels[10:14] = 1, 2
    image = np.zeros((20, 20, 3), np.uint8)
    firsts = [int(settle(np.random.default_rng(s), [(image, labels)], 0, 10).labels[0, 0, 0]) for s in range(60)]
    assert 15 < firsts.count(1) < 45


@given(st.integers(1, 50), st.integers(-500, 500))
def test_reflect_stays_inside_and_moves_by_one(length, index):
    assert 0 <= reflect(index, length) < length
    assert abs(reflect(index + 1, length) - reflect(index, length)) == (1 if length > 1 else 0)


@given(st.integers(0, 10**6), st.integers(2, 9), st.integers(1, 12))
def test_frame_times_keep_to_the_gap(seed, count, max_gap):
    times = frame_times(np.random.default_rng(seed), count, max_gap)
    gaps = np.diff(times)
    assert times[0] == 0
    assert len(times) == count
    assert (np.sign(gaps) == np.sign(gaps[0])).all()
    assert abs(gaps).max() <= max_gap


def test_frame_times_reverse_half_of_the_clips():
    backward = sum(frame_times(np.random.default_rng(s), 3, 5)[1] < 0 for s in range(400))
    assert 160 < backward < 240


def test_curriculum():
    gaps = Curriculum(((0, 3), (100, 6), (200, 2)))
    assert [gaps.at(i) for i in (0, 99, 100, 199, 200, 10**9)] == [3, 3, 6, 6, 2, 2]


def test_mixture_is_deterministic_and_keeps_its_weights():
    parts = [ComposedDataset(Assets(), ComposeConfig(size=(16, 16 * k), frames=1), 0) for k in (1, 2)]
    mixture = Mixture([(parts[0], 3.0), (parts[1], 1.0)], seed=4)
    widths = [mixture[i].images.shape[-1] for i in range(80)]
    assert widths == [mixture[i].images.shape[-1] for i in range(80)]
    assert 45 < widths.count(16) < 75
    with pytest.raises(DataError, match="weights above 0"):
        Mixture([(parts[0], 0.0)])


def test_what_a_part_of_a_mixture_draws_does_not_depend_on_the_choice():
    class Draws(ComposedDataset):
        def __getitem__(self, index):
            return tuple(np.random.default_rng([self.seed, index]).random(2))

    parts = [Draws(Assets(), ComposeConfig((16, 16), 1), 4 + k) for k in (0, 1)]  # the first has the mixture's own seed
    mixture = Mixture([(parts[0], 1.0), (parts[1], 1.0)], seed=4)
    first = np.array([item for i in range(400) if (item := mixture[i]) == parts[0][i]])
    assert 150 < len(first) < 250
    assert abs(first.mean(0) - 0.5).max() < 0.07


def test_crowds_hold_more_objects_and_smaller_ones():
    def seen(dataset) -> tuple[float, float]:
        clips = [dataset[i] for i in range(60)]
        areas = [(clip.labels[0] == i).float().mean().item() for clip in clips for i in range(1, clip.count + 1)]
        return float(np.mean([clip.count for clip in clips])), float(np.median(areas))

    crowds = seen(clips_of_crowds(Assets(), ComposeConfig((96, 96), 2, Curriculum(((0, 3),))), 3))
    usual = seen(ComposedDataset(Assets(), ComposeConfig(size=(96, 96), frames=2), 3))
    assert crowds[0] > usual[0] + 1
    assert crowds[1] < usual[1]


class RedSquare:
    """A picture of one red square on gray."""

    name = "red square"

    def load(self):
        image, labels = np.full((120, 160, 3), 110, np.uint8), np.zeros((120, 160), np.uint8)
        image[40:80, 60:100] = (220, 20, 20)
        labels[40:80, 60:100] = 1
        return image, labels


@pytest.mark.parametrize(("twins", "red"), [(True, True), (False, False)])
def test_look_alikes_of_what_the_backdrop_shows(twins, red):
    config = ComposeConfig(
        size=(96, 96),
        frames=1,
        backdrops={"still": 1.0},
        objects=(0.0, 1.0),
        distractors=(1.0,),
        look_alike=1.0,
        backdrop_twins=twins,
        sources={"shape": 1.0},
        light=0.0,
    )
    dataset = ComposedDataset(Assets(stills=(RedSquare(),)), config, 1)
    shares = []
    for clip in (dataset[i] for i in range(30)):
        image = clip.images[0].int()
        is_red = (image[0] > 150) & (image[1] < 90) & (image[2] < 90)
        if clip.count == 2:
            shares.append(min(float(is_red[clip.labels[0] == i].float().mean()) for i in (1, 2)))
    assert len(shares) > 10
    assert (np.median(shares) > 0.7) == red


class TwoSquares(RedSquare):
    """The red square and a second object beside it, which touches it."""

    name = "two squares"

    def load(self):
        image, labels = super().load()
        image[40:80, 100:120] = (20, 20, 220)
        labels[40:80, 100:120] = 2
        return image, labels


def test_groups_are_pictures_with_several_objects():
    assets = Assets(stills=(RedSquare(), RedSquare(), TwoSquares()))
    groups = clips_of_groups(assets, ComposeConfig((96, 96), 2), 4)
    groups.config = replace(groups.config, objects=(1.0,), distractors=(1.0,), min_area=0.0)
    counts = [groups[i].count for i in range(40)]
    assert np.mean(np.array(counts) == 2) > 0.7  # else one of them is outside the window


def test_soft_things_bend_from_frame_to_frame():
    def change(bends: float) -> float:
        """How much the objects' shapes differ from the first to the last frame, without any other motion."""
        config = ComposeConfig((96, 96), 4, Curriculum(((0, 6),)), backdrops={"still": 1.0}, objects=(1.0,), distractors=(1.0,))
        dataset = ComposedDataset(Assets(stills=(TwoSquares(),)), replace(config, camera=0.0, light=0.0, bends=bends), 2)
        clips = [dataset[i] for i in range(12)]
        return float(np.mean([(clip.labels[0] != clip.labels[-1]).float().mean().item() for clip in clips]))

    assert change(0.0) < 0.002
    assert change(1.0) > 0.005


@pytest.mark.parametrize("outlined", [True, False])
def test_what_people_outlined_in_a_photograph_may_be_left_out(outlined):
    config = ComposeConfig(
        (96, 96),
        1,
        backdrops={"still": 1.0},
        labeled=("video", "still") if outlined else ("video",),
        objects=(0.0, 1.0),
        sources={"shape": 1.0},
    )
    dataset = ComposedDataset(Assets(stills=(RedSquare(),)), config, 1)
    assert max(clip.count for clip in (dataset[i] for i in range(20))) == 1 + outlined


def test_bars_are_long_and_thin():
    rng = np.random.default_rng(0)

    def shapes(bars: float) -> list[float]:
        sides = [draw_patch(rng, Assets(), {"shape": 1.0}, bars, 60.0).shape[:2] for _ in range(20)]
        return [max(side) / min(side) for side in sides]

    assert min(shapes(1.0)) > 5
    assert max(shapes(0.0)) < 5


def test_asked_for_assets_that_are_not_there():
    with pytest.raises(DataError, match="no labeled video"):
        clips_of_videos(Assets(), ComposeConfig((32, 32), 2))
    with pytest.raises(DataError, match="no picture with masks"):
        clips_of_stills(Assets(), ComposeConfig((32, 32), 2))
    with pytest.raises(DataError, match="no picture with masks"):
        clips_of_groups(Assets(), ComposeConfig((32, 32), 2))
