"""What is pasted into composed scenes: sprites, cut-outs of pictures and clips, textured shapes, and look-alikes of all these."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from vosformer.data.datasets.media import bounding_box, cut_out, read_sprite
from vosformer.data.synthetic.assets import Assets
from vosformer.data.synthetic.scene import CutVideo, Patch, Size, StillBackdrop, VideoBackdrop, rescale
from vosformer.data.synthetic.textures import shape
from vosformer.data.types import IGNORE, Labels


def choose(rng: np.random.Generator, weights: dict[str, float], usable: Sequence[str]) -> str:
    """One of the usable names, by weight."""
    names = [name for name in weights if name in usable and weights[name] > 0]
    shares = np.array([weights[name] for name in names])
    return str(names[int(rng.choice(len(names), p=shares / shares.sum()))])


def own_object(rng: np.random.Generator, backdrop: VideoBackdrop | StillBackdrop, size: Size) -> Patch | CutVideo | None:
    """Return an object of the backdrop about as large as it is seen, at most half the canvas; None if there is none."""
    if isinstance(backdrop, VideoBackdrop):
        labels, factor = backdrop.video.labels(backdrop.start), math.sqrt(abs(np.linalg.det(backdrop.window)))
    else:
        image, labels, _ = backdrop.frame(0)
        factor = 1.0
    found = _any_object(rng, labels)
    if found is None:
        return None
    label, extent = found
    factor = min(factor, 0.5 * min(size) / extent)
    if isinstance(backdrop, VideoBackdrop):
        return CutVideo(backdrop.video, label, backdrop.start, factor, _colors(rng, 0.3))
    patch = cut_out(image, labels == label)
    return None if patch is None else rescale(patch, factor)


def _any_object(rng: np.random.Generator, labels: Labels) -> tuple[int, int] | None:
    """Return (label, long side in pixels) of one of the objects; None if there is none."""
    ids = np.setdiff1d(np.unique(labels), [0, IGNORE])
    if not len(ids):
        return None
    label = int(rng.choice(ids))
    box = bounding_box(labels == label)
    return None if box is None else (label, max(box[1] - box[0], box[3] - box[2]))


def draw_patch(
    rng: np.random.Generator, assets: Assets, sources: dict[str, float], bars: float, side: float
) -> Patch | CutVideo | None:
    """Something to paste, its long side about `side` pixels; None if the picture drawn has nothing to cut out.

    Args:
        rng: decides.
        assets: what it is cut from.
        sources: weights of "sprite", "still", "video", "shape".
        bars: probability that a shape is drawn out into a bar.
        side: pixels.
    """
    there = (("sprite", assets.sprites), ("still", assets.stills), ("video", assets.videos), ("shape", True))
    weights = {"shape": 1e-9, **sources}
    kind = choose(rng, weights, [name for name, usable in there if usable])
    colors = _colors(rng, 0.5)
    if kind == "video":
        return _cut_video(rng, assets, side, colors)
    if kind == "sprite":
        patch: Patch | None = read_sprite(assets.sprites[int(rng.integers(len(assets.sprites)))])
    elif kind == "still":
        patch = _cut_still(rng, assets)
    else:
        skin = None
        if assets.stills and rng.random() < 0.5:
            skin = assets.stills[int(rng.integers(len(assets.stills)))].load()[0]
            top, left = (int(rng.integers(0, max(1, extent // 2))) for extent in skin.shape[:2])
            skin = skin[top : top + skin.shape[0] // 2, left : left + skin.shape[1] // 2]
        patch = shape(rng, max(8, round(side)), skin)
        if rng.random() < bars:
            patch = _bar(patch)
    return None if patch is None else colors(rescale(patch, side / max(patch.shape[:2])))


def _bar(patch: Patch) -> Patch:
    """Return a long thin occluder with the texture of `patch`."""
    bar = patch[:, : max(4, patch.shape[1] // 6)].copy()
    bar[..., 3] = 255
    return np.asarray(cv2.resize(bar, (max(4, patch.shape[1] // 5), patch.shape[0] * 2), interpolation=cv2.INTER_LINEAR))


def _cut_still(rng: np.random.Generator, assets: Assets) -> Patch | None:
    image, labels = assets.stills[int(rng.integers(len(assets.stills)))].load()
    areas = np.bincount(labels.ravel(), minlength=256)
    areas[[0, IGNORE]] = 0
    ids = np.flatnonzero(areas >= 400)
    return cut_out(image, labels == rng.choice(ids)) if len(ids) else None


def _cut_video(rng: np.random.Generator, assets: Assets, side: float, adjust: functools.partial[Patch]) -> CutVideo | None:
    video = assets.videos[int(rng.integers(len(assets.videos)))]
    start = int(rng.integers(len(video)))
    found = _any_object(rng, video.labels(start))
    return None if found is None else CutVideo(video, found[0], start, min(side / found[1], 3.0), adjust)


def twin(rng: np.random.Generator, source: Patch | CutVideo) -> Patch | CutVideo:
    """Return a look-alike: the same thing, at times in other colors, mirrored, or (cut from a clip) at another moment."""
    colors = _colors(rng, 0.5)
    if isinstance(source, CutVideo):
        start = source.start + int(rng.integers(0, 10))
        return CutVideo(source.video, source.label, start, source.factor, source.adjust)
    patch = np.ascontiguousarray(source[:, ::-1]) if rng.random() < 0.4 else source
    return colors(rescale(patch, math.exp(rng.uniform(-0.2, 0.2))))


def constant(patch: Patch) -> functools.partial[Patch | None]:
    """Return the same patch at all times."""
    return functools.partial(_same, patch)


def _same(patch: Patch, time: int) -> Patch | None:
    return patch


def _colors(rng: np.random.Generator, probability: float) -> functools.partial[Patch]:
    """Return a random change of a patch's colors, the same for all its frames."""
    mix = np.eye(3)
    if rng.random() < probability:
        mix = mix * rng.uniform(0.6, 1.3) + rng.normal(0, 0.08, (3, 3))
    if rng.random() < 0.15:
        mix = mix[rng.permutation(3)]
    return functools.partial(
        _recolor, mix.astype(np.float32), float(rng.uniform(-25, 25)) if rng.random() < probability else 0.0
    )


def _recolor(mix: NDArray[np.float32], offset: float, patch: Patch) -> Patch:
    matrix = np.concatenate([mix, np.full((3, 1), offset, np.float32)], 1)
    return np.dstack([cv2.transform(np.ascontiguousarray(patch[..., :3]), matrix), patch[..., 3]])
