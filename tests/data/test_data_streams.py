"""Sampling of frames, merging, selection, and the streams of the papers on tiny data sets."""

from __future__ import annotations

import pickle
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from data_folders import davis, gray, picture, squares, youtube
from hypothesis import given
from hypothesis import strategies as st

from vosformer.data.augmentation import pipelines as augment
from vosformer.data.datasets.find import read_stills, read_videos
from vosformer.data.datasets.video import Curriculum, Video
from vosformer.data.mixture import Mixture
from vosformer.data.sampling import EpochOrder, GapSampling, PairSampling, SpreadSampling, keep_objects, merge, without_hidden
from vosformer.data.streams import Selection, StillClips, VideoClips, VideoSource
from vosformer.data.synthetic.assets import Assets
from vosformer.data.synthetic.compose import ComposeConfig, ComposedDataset
from vosformer.data.types import Clip, ClipDataset
from vosformer.errors import DataError

STEADY = Curriculum(((0, 3),))


class FakeVideo(Video):
    """A video of which only the labels are asked for."""

    def labels(self, index):
        return self.maps[index]


def fake(maps) -> Video:
    video = FakeVideo("fake", (Path("x"),) * len(maps), (Path("x"),) * len(maps))
    object.__setattr__(video, "maps", maps)
    return video


def full(length):
    return fake([np.ones((20, 20), np.uint8)] * length)


@given(st.integers(0, 10**6), st.integers(1, 40), st.integers(1, 12), st.integers(2, 6))
def test_gap_sampling(seed, length, max_gap, frames):
    indices = GapSampling(frames)(np.random.default_rng(seed), full(length), max_gap)
    assert len(indices) == frames
    assert all(0 <= i < length for i in indices)
    assert all(abs(a - b) <= max_gap for a, b in pairwise(indices))


def test_gap_sampling_draws_all_gaps_both_ways():
    video = full(100_000)  # the ends, where indices are reflected, are rarely met
    steps = np.concatenate([np.diff(GapSampling(5)(np.random.default_rng(s), video, 3)) for s in range(300)])
    assert set(np.unique(steps)) == {-3, -2, -1, 1, 2, 3}
    counts = np.bincount(abs(steps))[1:]
    assert counts.min() > 320
    assert 0.4 < (steps > 0).mean() < 0.6


def test_gap_sampling_prefers_references_with_objects_and_all_of_them():
    empty, one, two = np.zeros((20, 20), np.uint8), np.ones((20, 20), np.uint8), np.full((20, 20), 2, np.uint8)
    video = fake([empty] * 15 + [one] * 5)
    starts = [GapSampling(2)(np.random.default_rng(s), video, 1)[0] for s in range(50)]
    assert np.mean([s >= 15 for s in starts]) > 0.95
    both = one.copy()
    both[10:] = 2
    video = fake([one, both, both, both, both, both, two])
    clips = [GapSampling(2)(np.random.default_rng(s), video, 1) for s in range(200)]
    assert sum(clip[0] == 0 and clip[1] == 1 for clip in clips) < 5  # object 2 would be missing from the reference


@given(st.integers(0, 10**6), st.integers(1, 40), st.integers(1, 12))
def test_pair_sampling(seed, length, max_gap):
    first, second = PairSampling()(np.random.default_rng(seed), full(length), max_gap)
    assert min(first, second) >= 0
    assert max(first, second) < length
    assert (first != second) == (length > 1)
    assert abs(first - second) <= max(1, max_gap - 1)


def test_pair_sampling_gaps_of_simvos():
    """DAVIS: 1..9; YouTube-VOS, where the largest jump is 10 // 5 = 2: always the next labeled frame."""
    gaps = {abs(np.diff(PairSampling()(np.random.default_rng(s), full(80), 10))[0]) for s in range(300)}
    assert gaps == set(range(1, 10))
    assert {abs(np.diff(PairSampling()(np.random.default_rng(s), full(80), 2))[0]) for s in range(50)} == {1}


@given(st.integers(0, 10**6), st.integers(1, 40), st.integers(1, 15), st.integers(1, 5))
def test_spread_sampling(seed, length, max_gap, frames):
    indices = SpreadSampling(frames)(np.random.default_rng(seed), full(length), max_gap)
    assert len(indices) == frames
    assert all(0 <= i < length for i in indices)
    if length >= frames:
        steps = np.diff(indices)
        assert (steps > 0).all() or (steps < 0).all()
        assert (abs(steps) <= max_gap).all()


def test_merge_pastes_objects_and_their_pixels():
    lower, upper = np.full((2, 4, 3), 10, np.uint8), np.full((2, 4, 3), 90, np.uint8)
    labels, upper_labels = np.array([[1, 1, 0, 255]] * 2, np.uint8), np.array([[0, 2, 1, 255]] * 2, np.uint8)
    images, merged = merge(([lower], [labels]), ([upper], [upper_labels]))
    assert merged[0][0].tolist() == [1, 3, 2, 255]
    assert images[0][0, :, 0].tolist() == [10, 90, 90, 10]


@given(st.integers(0, 10**6), st.integers(1, 10), st.integers(0, 40))
def test_keep_objects(seed, limit, min_pixels):
    rng = np.random.default_rng(seed)
    first, second = (rng.choice(np.array([0, 1, 3, 7, 200, 255], np.uint8), (12, 12)) for _ in range(2))
    labels, count = keep_objects(rng, [first, second], min_pixels, limit)
    large = [i for i in (1, 3, 7, 200) if (first == i).sum() > min_pixels]
    assert count == min(limit, len(large))
    assert set(np.unique(labels[0])) - {0, 255} == set(range(1, count + 1))
    np.testing.assert_array_equal(labels[1] == 255, second == 255)
    for number in range(1, count + 1):
        old = first[labels[0] == number]
        assert len(np.unique(old)) == 1
        np.testing.assert_array_equal(labels[1] == number, second == old[0])


@given(st.integers(1, 30), st.integers(0, 100))
def test_every_epoch_has_every_entry_once(count, seed):
    order = EpochOrder(count, seed)
    epochs = [[order[epoch * count + i] for i in range(count)] for epoch in range(3)]
    assert all(sorted(epoch) == list(range(count)) for epoch in epochs)
    if count > 8:
        assert epochs[0] != epochs[1]


@pytest.fixture
def root(tmp_path):
    davis(tmp_path / "DAVIS")
    youtube(tmp_path / "YouTube/train")
    for name in ("a", "b", "c"):
        picture(tmp_path / f"ECSSD/images/{name}.jpg")
        gray(tmp_path / f"ECSSD/ground_truth_mask/{name}.png", squares((255,)))
    return tmp_path


NEXT = Curriculum(((0, 1),))


def sources(root, gaps=STEADY):
    return [
        VideoSource("davis2017", read_videos("davis2017", root), gaps, repeat=5),
        VideoSource("youtube2019", read_videos("youtube2019", root), NEXT),
    ]


AOT = (GapSampling(5), replace(augment.AOT_VIDEO, crop=64), Selection(10, 20, 0.3))
DEAOT = (GapSampling(5), replace(augment.DEAOT_VIDEO, crop=64), Selection(10, 20, 0.3))
SIMVOS = (PairSampling(), replace(augment.SIMVOS_VIDEO, crop=64), Selection(2, 0))
JOINTFORMER = (SpreadSampling(4), replace(augment.JOINTFORMER_VIDEO, crop=64), Selection(3, 0))


@pytest.mark.parametrize("paper", [AOT, DEAOT, SIMVOS, JOINTFORMER])
def test_streams_of_videos(paper, root):
    stream = VideoClips(sources(root), *paper, seed=3)
    clips = [stream[i] for i in range(4)]
    for clip in clips:
        assert clip.images.shape == (paper[0].frames, 3, 64, 64)
        assert 1 <= clip.count <= paper[2].max_objects
        assert set(clip.labels[0].unique().tolist()) - {0} == set(range(1, clip.count + 1))
    again = VideoClips(sources(root), *paper, seed=3)[2]
    assert (again.images == clips[2].images).all()
    assert (again.labels == clips[2].labels).all()


def test_an_epoch_repeats_the_sets_as_asked(root):
    stream = VideoClips(sources(root), *JOINTFORMER)
    names = [stream._entries[stream._order[i]][1].name for i in range(12)]
    assert {name: names.count(name) for name in names} == {"bear": 5, "dog": 5, "0a": 1, "0b": 1}


MERGED, SINGLE = Selection(10, 20, 1.0), Selection(1, 0)
PICTURES = [(augment.AOT_STILL, MERGED), (augment.DEAOT_STILL, MERGED), (augment.JOINTFORMER_STILL, SINGLE)]


@pytest.mark.parametrize(("pipeline", "selection"), PICTURES)
def test_streams_of_pictures(pipeline, selection, root):
    stream = StillClips(read_stills("ecssd", root) * 5, replace(pipeline, crop=64), selection, 3)
    assert len({stream._order[i] for i in range(15)}) == 15
    clip = stream[7]
    assert clip.images.shape == (3, 3, 64, 64)
    assert set(clip.labels[0].unique().tolist()) - {0} == set(range(1, clip.count + 1))
    # With merging, the object of a second picture is pasted on top.
    assert max(stream[i].count for i in range(8)) == (2 if selection.merge else 1)


def test_streams_can_be_sent_to_worker_processes(root):
    """DataLoader pickles data sets where processes are spawned (macOS, Windows)."""
    for stream in (
        VideoClips(sources(root), *AOT),
        StillClips(read_stills("ecssd", root), replace(augment.AOT_STILL, crop=32), MERGED, 2),
        Mixture([(ComposedDataset(Assets(), ComposeConfig((32, 32), 2)), 1.0)]),
    ):
        first = stream[0]
        twin = pickle.loads(pickle.dumps(stream))
        assert (twin[0].images == first.images).all()


def test_gaps_follow_the_curriculum(root):
    """Below the change of the largest gap an item is the same; from there on it shows other frames."""
    later = Curriculum(((0, 3), (9, 1)))
    near, far = (VideoClips(sources(root, gaps)[:1], *JOINTFORMER) for gaps in (STEADY, later))
    assert (near[5].images == far[5].images).all()
    assert any((near[i].images != far[i].images).any() for i in range(9, 14))


def test_a_set_without_any_object_is_an_error(tmp_path):
    picture(tmp_path / "ECSSD/images/a.jpg")
    gray(tmp_path / "ECSSD/ground_truth_mask/a.png", squares(()))
    stream = StillClips(read_stills("ecssd", tmp_path), replace(augment.AOT_STILL, crop=32), Selection(merge=1.0), 2)
    with pytest.raises(DataError, match=r"show no object, the last .*a.jpg"):
        stream[0]
    davis(tmp_path / "DAVIS", ids=())
    stream = VideoClips([VideoSource("davis2017", read_videos("davis2017", tmp_path), NEXT)], *JOINTFORMER)
    with pytest.raises(DataError, match="show no object, the last of video"):
        stream[0]


def test_streams_start_at_zero_and_need_data():
    class Empty(ClipDataset):
        def draw(self, rng, index) -> Clip:
            raise AssertionError

    with pytest.raises(IndexError, match="start at 0"):
        Empty()[-1]
    with pytest.raises(DataError, match="no labeled picture"):
        StillClips([], None, None, 2)
    with pytest.raises(DataError, match="no video"):
        VideoClips([], None, None, None)


def test_objects_that_are_small_first_and_large_later_do_not_count_in_bl30k():
    def frame(**sides):
        labels = np.zeros((100, 200), np.uint8)
        for i, side in enumerate(sides.values()):
            labels[:side, 50 * i : 50 * i + side] = i + 1
        labels[-1] = 255
        return labels

    first, second = frame(large=31, hidden=30, steady=12, dot=10), frame(large=31, hidden=30, steady=19, dot=5)
    found = without_hidden([first, second, second])
    assert sorted(np.unique(found[0]).tolist()) == [0, 1, 3, 255]
    assert np.array_equal(found[1] > 0, (second == 1) | (second == 3) | (second == 255))


def test_clips_with_much_ignored_area_are_drawn_again(tmp_path):
    """Half of the frames are ignored for the most part; clips with more than a fifth of such pixels are rare with the limit."""
    maps = [np.ones((20, 20), np.uint8) for _ in range(8)]
    for labels in maps[4:]:
        labels[:, 5:] = 255

    class Half(FakeVideo):
        def load(self, index):
            return np.zeros((20, 20, 3), np.uint8), self.maps[index]

    video = Half("half", (Path("x"),) * 8, (Path("x"),) * 8)
    object.__setattr__(video, "maps", maps)

    class Same:
        crop = 20

        def __call__(self, rng, images, labels):
            return list(images), list(labels)

    def share(limit):
        sources = [VideoSource("half", (video,), STEADY)]
        stream = VideoClips(sources, SpreadSampling(1), Same(), Selection(3, 0, ignored=limit))
        return np.mean([(stream[i].labels == 255).any().item() for i in range(60)])

    assert share(1.0) > 0.3
    assert share(0.2) < 0.15
