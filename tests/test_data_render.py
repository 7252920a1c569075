"""Composed clips on disk: the DAVIS layout, the same files for the same seed, ids from the first frame on."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from vosformer.cli.data import compose, parse_size
from vosformer.data.assets import Assets, davis_training_videos, find_assets
from vosformer.data.preview import contact_sheet
from vosformer.data.render import composed_clip, render_clips
from vosformer.data.types import Clip, to_clip
from vosformer.errors import DataError, InputError
from vosformer.io.palette import DAVIS_PALETTE


def files(root):
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def test_same_seed_same_files(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        render_clips(tmp_path / name, Assets(), 1, 3, (48, 64), seed)
    assert files(tmp_path / "a") == files(tmp_path / "b")
    assert files(tmp_path / "a") != files(tmp_path / "c")


def test_layout_is_that_of_davis(tmp_path):
    compose(tmp_path, clips=2, frames=4, size="64x96", split="train")
    assert (tmp_path / "ImageSets/2017/train.txt").read_text() == "composed-000\ncomposed-001\n"
    with Image.open(tmp_path / "Annotations/64p/composed-001/00003.png") as mask:
        assert mask.mode == "P"
        assert mask.size == (96, 64)
        assert mask.getpalette()[:12] == DAVIS_PALETTE.ravel()[:12].tolist()
    videos = davis_training_videos(tmp_path)
    assert [len(video) for video in videos] == [4, 4]
    assert videos[0].load(0)[0].shape == (64, 96, 3)
    assert find_assets(tmp_path).videos == tuple(videos)


def test_all_objects_are_in_the_first_frame():
    for index in range(5):
        frames = list(composed_clip(Assets(), 4, 3, index))
        first = set(np.unique(frames[0][1])) - {0}
        assert len(first) >= 2
        assert first == set(range(1, len(first) + 1))
        assert all(set(np.unique(labels)) <= {0, *first} for _, labels in frames)


def test_sheet_paints_masks():
    image, labels = np.full((8, 10, 3), 100, np.uint8), np.zeros((8, 10), np.uint8)
    labels[2, 3], labels[0, 0] = 1, 255
    clip = to_clip([image, image], [labels, labels * 0], 1)
    sheet = contact_sheet([clip, Clip(*clip)], opacity=0.5)
    assert sheet.shape == (16, 20, 3)
    assert sheet[2, 3].tolist() == [114, 50, 50]
    assert sheet[0, 0].tolist() == [177] * 3
    assert (sheet[:8, 10:] == 100).all()


def test_bad_arguments_are_named(tmp_path):
    with pytest.raises(InputError, match="'480' is not understood"):
        parse_size("480")
    with pytest.raises(InputError, match="0 clips"):
        render_clips(tmp_path, Assets(), 0, 3, (48, 64), 1)
    with pytest.raises(DataError, match="no such folder"):
        find_assets(tmp_path / "nothing")
    with pytest.raises(DataError, match="no assets found"):
        find_assets(tmp_path)
