"""Sampling of frames, merging, selection, and the streams of the papers on tiny data sets."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from data_folders import davis, grey, picture, squares, youtube
from hypothesis import given
from hypothesis import strategies as st

from vosformer.data.papers import ClipShape, PaperSet, Switch, paper_clips
from vosformer.data.sampling import EpochOrder, GapSampling, PairSampling, SpreadSampling, keep_objects, merge
from vosformer.data.streams import StillClips, VideoClips
from vosformer.data.types import Clip, ClipDataset, collate
from vosformer.data.video import Curriculum, Video
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
    """DAVIS: 1..9; YouTube-VOS, where the largest jump is 10 // 5 = 2: always the next labelled frame."""
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
        grey(tmp_path / f"ECSSD/ground_truth_mask/{name}.png", squares((255,)))
    return tmp_path


VIDEOS = [PaperSet("davis2017", 5, STEADY), PaperSet("youtubevos2019", 1, Curriculum(((0, 1),)))]


@pytest.mark.parametrize(
    ("pipeline", "frames", "objects"), [("aot", 5, 10), ("deaot", 5, 10), ("simvos", 2, 2), ("jointformer", 4, 3)]
)
def test_streams_of_videos(pipeline, frames, objects, root):
    stream = paper_clips(
        pipeline, VIDEOS, [root], ClipShape(frames, 64, merge=0.3 if "aot" in pipeline else 0, max_objects=objects), 3
    )
    batch = collate([stream[i] for i in range(4)])
    assert batch.images.shape == (4, frames, 3, 64, 64)
    assert all(1 <= count <= objects for count in batch.counts.tolist())
    assert (stream[2].images == batch.images[2]).all()
    assert (stream[2].labels == batch.labels[2]).all()
    assert len(stream._entries) == 5 * 2 + 2


@pytest.mark.parametrize(("pipeline", "frames", "objects"), [("aot", 5, 10), ("onevos", 4, 10), ("jointformer", 3, 1)])
def test_streams_of_pictures(pipeline, frames, objects, root):
    shape = ClipShape(frames, 64, merge=0.0 if pipeline == "jointformer" else 1.0, max_objects=objects)
    stream = paper_clips(pipeline, [PaperSet("ecssd", 5)], [root / "elsewhere", root], shape)
    assert len(stream.stills) == 15
    clip = stream[7]
    assert clip.images.shape == (frames, 3, 64, 64)
    assert set(clip.labels[0].unique().tolist()) - {0} == set(range(1, clip.count + 1))
    counts = {stream[i].count for i in range(8)}
    assert max(counts) == (1 if pipeline == "jointformer" else 2)  # a second picture's object is pasted on top


def test_gaps_follow_the_curriculum(root):
    """The same item drawn with larger gaps shows other frames; below the change it is the same."""
    shape = ClipShape(4, 64, max_objects=3)
    near, far = (
        paper_clips("jointformer", [PaperSet("davis2017", 1, c)], [root], shape) for c in (STEADY, Curriculum(((0, 3), (9, 1))))
    )
    assert (near[5].images == far[5].images).all()
    assert any((near[i].images != far[i].images).any() for i in range(9, 14))


def test_jointformer_ends_without_rotation(root):
    shape = ClipShape(4, 64, max_objects=3)
    stream = paper_clips("jointformer", VIDEOS, [root], shape, plain_from=10)
    assert isinstance(stream, Switch)
    before, after = stream.before.augment.affine, stream.after.augment.affine
    assert (before.degrees, before.shear, after.degrees, after.shear) == (15, 10, 0, 0)
    assert (stream[9].images == stream.before[9].images).all()
    assert (stream[10].images == stream.after[10].images).all()


def test_wrong_stages_are_refused(root):
    shape = ClipShape(4, 64)
    with pytest.raises(DataError, match="videos or on pictures"):
        paper_clips("aot", [VIDEOS[0], PaperSet("ecssd")], [root], shape)
    with pytest.raises(DataError, match="'simvos' is not trained on pictures"):
        paper_clips("simvos", [PaperSet("ecssd")], [root], shape)
    with pytest.raises(DataError, match="2 frames, but 4"):
        paper_clips("simvos", VIDEOS, [root], shape)
    with pytest.raises(DataError, match="'mose' is not there; expected MOSE/train/ with"):
        paper_clips("aot", [PaperSet("mose")], [root], shape)
    with pytest.raises(DataError, match="plain_from is JointFormer's"):
        paper_clips("aot", VIDEOS, [root], shape, plain_from=3)


def test_a_set_without_any_object_is_an_error(tmp_path):
    picture(tmp_path / "ECSSD/images/a.jpg")
    grey(tmp_path / "ECSSD/ground_truth_mask/a.png", squares(()))
    stream = paper_clips("aot", [PaperSet("ecssd")], [tmp_path], ClipShape(2, 32, merge=1.0))
    with pytest.raises(DataError, match=r"show no object, the last .*a.jpg"):
        stream[0]
    davis(tmp_path / "DAVIS", ids=())
    stream = paper_clips("aot", [VIDEOS[0]], [tmp_path], ClipShape(2, 32))
    with pytest.raises(DataError, match="show no object, the last of video"):
        stream[0]


def test_streams_start_at_zero_and_need_data():
    class Empty(ClipDataset):
        def draw(self, rng, index) -> Clip:
            raise AssertionError

    with pytest.raises(IndexError, match="start at 0"):
        Empty()[-1]
    with pytest.raises(DataError, match="no labelled picture"):
        StillClips([], None, None, 2)
    with pytest.raises(DataError, match="no video"):
        VideoClips([], None, None, None)
