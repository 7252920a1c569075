"""Composed video as a training set: random scenes from a seed, with exact multi-object masks and no need of any download."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from vosformer.data.datasets.media import bounding_box
from vosformer.data.datasets.video import Curriculum, frame_times
from vosformer.data.synthetic.assets import Assets
from vosformer.data.synthetic.motion import Bend, Curve, bending, camera_motion, object_motion, wander
from vosformer.data.synthetic.patches import choose, constant, draw_patch, own_object, twin
from vosformer.data.synthetic.scene import (
    CutVideo,
    Light,
    Patch,
    Scene,
    SceneLayer,
    Size,
    StillBackdrop,
    VideoBackdrop,
    shift,
    stretch,
)
from vosformer.data.synthetic.textures import shape, texture
from vosformer.data.types import IGNORE, Clip, ClipDataset, Image, Labels, new_ids, to_clip
from vosformer.errors import DataError

_TRIES = 12
_STEADY = Curriculum(((0, 5),))


@dataclass(frozen=True)
class ComposeConfig:
    """What scenes look like.

    Attributes:
        size: (height, width) of the clips, pixels.
        frames: T.
        max_gap: the largest gap between two frames of a clip, by item index.
        backdrops: weights of "video", "still" and "texture"; kinds without assets are left out.
        objects: probabilities of pasting 0, 1, 2, ... labeled objects.
        distractors: probabilities of 0, 1, 2, ... unlabeled things, look-alikes of an object in half of the cases.
        sources: weights of what is pasted: "sprite", "still" (instances of pictures), "video" (objects of clips), "shape".
        look_alike: probability that an object is a copy of an earlier one.
        labeled: kinds of backdrops ("video", "still") whose own instances are objects.
        several: a still backdrop is chosen among pictures with several instances.
        backdrop_twins: whether look-alikes may be copies of the backdrop's own objects, too.
        bends: probability that a still backdrop, or something pasted that does not move by itself, deforms as soft things do.
        bars: probability that a "shape" is drawn out into a long thin bar.
        extent: (smallest, largest) long side of a pasted object, as share of the canvas' short side.
        motion: strength of all motion; 1 is lively, about 1 % of the side a frame.
        camera: strength of the camera's motion on stills and textures.
        window: (smallest, largest) side of the window on a clip, as share of its short side.
        light: probability of each lighting change.
        max_objects: objects beyond this number become background, at random.
        min_area: objects whose area in frame 0 is a smaller share of the picture become background.
    """

    size: Size = (241, 241)
    frames: int = 4
    max_gap: Curriculum = _STEADY
    backdrops: dict[str, float] = field(default_factory=lambda: {"video": 0.4, "still": 0.4, "texture": 0.2})
    objects: tuple[float, ...] = (0.0, 0.35, 0.3, 0.2, 0.1, 0.05)
    distractors: tuple[float, ...] = (0.45, 0.3, 0.15, 0.1)
    sources: dict[str, float] = field(default_factory=lambda: {"sprite": 0.35, "still": 0.25, "video": 0.2, "shape": 0.2})
    look_alike: float = 0.2
    labeled: tuple[str, ...] = ("video", "still")
    several: bool = False
    backdrop_twins: bool = False
    bends: float = 0.0
    bars: float = 0.2
    extent: tuple[float, float] = (0.12, 0.7)
    motion: float = 1.0
    camera: float = 1.0
    window: tuple[float, float] = (0.45, 1.0)
    light: float = 0.3
    max_objects: int = 10
    min_area: float = 0.0008


class ComposedDataset(ClipDataset):
    """Clips of random scenes.

    Args:
        assets: what the scenes are made of; empty = procedural textures and shapes alone.
        config: what they look like.
        seed: of the stream.
    """

    def __init__(self, assets: Assets, config: ComposeConfig, seed: int = 0) -> None:
        super().__init__(seed)
        self.assets, self.config = assets, config

    def draw(self, rng: np.random.Generator, index: int) -> Clip:
        """Make one clip; scenes in whose first frame no object can be seen are drawn again."""
        config = self.config
        times = frame_times(rng, config.frames, config.max_gap.at(index))
        scene, first = self._scene(rng, times[0])
        rendered = [first, *(scene.render(time, rng) for time in times[1:])]
        return settle(rng, rendered, config.min_area, config.max_objects)

    def _scene(self, rng: np.random.Generator, time: int) -> tuple[Scene, tuple[Image, Labels]]:
        """Return a scene that shows an object at `time`, and how it looks then."""
        for _ in range(_TRIES):
            scene = random_scene(rng, self.assets, self.config)
            first = scene.render(time, rng)
            if len(visible(first[1], self.config.min_area)):
                return scene, first
        scene = random_scene(rng, self.assets, self.config, sure=True)
        return scene, scene.render(time, rng)


def clips_of_videos(assets: Assets, config: ComposeConfig, seed: int = 0) -> ComposedDataset:
    """Clips of real videos, cropped around an object at a random zoom, with up to two things pasted on them.

    What `config` says of backdrops, objects, distractors, camera and twins does not count.

    Raises:
        DataError: the assets have no video.
    """
    if not assets.videos:
        raise DataError("clips of videos were asked for, but the assets hold no labeled video")
    config = replace(
        config,
        backdrops={"video": 1.0},
        objects=(0.55, 0.3, 0.15),
        distractors=(0.6, 0.4),
        camera=0.15,
        backdrop_twins=True,
    )
    return ComposedDataset(assets, config, seed)


def clips_of_stills(assets: Assets, config: ComposeConfig, seed: int = 0) -> ComposedDataset:
    """Clips of photographs under a moving camera, their instances labeled, with up to two things pasted on them.

    What `config` says of backdrops, objects, distractors, camera and twins does not count.

    Raises:
        DataError: the assets have no picture with masks.
    """
    if not assets.stills:
        raise DataError("clips of stills were asked for, but the assets hold no picture with masks")
    config = replace(
        config,
        backdrops={"still": 1.0},
        objects=(0.4, 0.35, 0.25),
        distractors=(0.6, 0.4),
        camera=1.3,
        backdrop_twins=True,
        bends=0.4,
    )
    return ComposedDataset(assets, config, seed)


def clips_of_groups(assets: Assets, config: ComposeConfig, seed: int = 0) -> ComposedDataset:
    """Clips of photographs that show several instances (people, animals, parts of one body), all of them labeled.

    They touch and overlap as they do in life; most pictures bend, and few things are pasted on them. What `config` says of backdrops,
    objects, distractors, camera, extent and twins does not count.

    Raises:
        DataError: the assets have no picture with masks.
    """
    if not assets.stills:
        raise DataError("clips of groups were asked for, but the assets hold no picture with masks")
    config = replace(
        config,
        backdrops={"still": 1.0},
        several=True,
        objects=(0.6, 0.25, 0.15),
        distractors=(0.7, 0.3),
        extent=(0.08, 0.5),
        camera=1.3,
        backdrop_twins=True,
        bends=0.6,
    )
    return ComposedDataset(assets, config, seed)


def clips_of_crowds(assets: Assets, config: ComposeConfig, seed: int = 0) -> ComposedDataset:
    """Clips where two to six objects meet: small ones, thin ones and look-alikes, more often than elsewhere.

    Half of them are cut out of stills. What `config` says of objects, distractors, sources, look-alikes, bars, bends and extent does
    not count.
    """
    config = replace(
        config,
        objects=(0.0, 0.0, 0.2, 0.25, 0.25, 0.2, 0.1),
        distractors=(0.3, 0.4, 0.3),
        sources={"sprite": 0.2, "still": 0.5, "video": 0.2, "shape": 0.1},
        look_alike=0.4,
        backdrop_twins=True,
        bends=0.5,
        bars=0.4,
        extent=(0.1, 0.65),
    )
    return ComposedDataset(assets, config, seed)


def random_scene(rng: np.random.Generator, assets: Assets, config: ComposeConfig, sure: bool = False) -> Scene:
    """Draw a scene; with `sure` it has an object in the middle of the picture at time 0."""
    backdrop, taken = _backdrop(rng, assets, config)
    shown = own_object(rng, backdrop, config.size) if config.backdrop_twins else None
    layers = _layers(rng, assets, config, taken + 1, [] if shown is None else [shown])
    if sure:
        centered = object_motion(rng, 0.0, 0.0, 0.3 * config.motion)
        side = round(0.4 * min(config.size))
        layers.append(SceneLayer(constant(shape(rng, side)), min(254, taken + len(layers) + 1), centered, world=False))
    return Scene(backdrop, tuple(layers), _light(rng, config.light), config.size)


def settle(rng: np.random.Generator, rendered: Sequence[tuple[Image, Labels]], min_area: float, max_objects: int) -> Clip:
    """Keep the objects that frame 0 shows well, at most `max_objects`, under random ids 1..n; the others become background."""
    table = settle_table(rng, rendered[0][1], min_area, max_objects)
    flip = rng.random() < 0.5
    images = [image[:, ::-1] if flip else image for image, _ in rendered]
    labels = [table[labels[:, ::-1] if flip else labels] for _, labels in rendered]
    return to_clip(images, labels, int(table[:IGNORE].max()))


def settle_table(rng: np.random.Generator, first: Labels, min_area: float, max_objects: int) -> NDArray[np.uint8]:
    """Return the new id [256] of each label: see `settle`."""
    return new_ids(rng.permutation(visible(first, min_area))[:max_objects])


def visible(labels: Labels, min_area: float) -> NDArray[np.intp]:
    """Return the ids whose area is at least this share of the picture."""
    areas = np.bincount(labels.ravel(), minlength=256)
    areas[[0, IGNORE]] = 0
    return np.flatnonzero(areas >= max(1.0, min_area * labels.size))


def _backdrop(rng: np.random.Generator, assets: Assets, config: ComposeConfig) -> tuple[VideoBackdrop | StillBackdrop, int]:
    """Return a backdrop, and the largest label in it."""
    weights = {name: weight for name, weight in config.backdrops.items() if weight > 0}
    usable = [name for name, there in (("video", assets.videos), ("still", assets.stills)) if there and name in weights]
    if "texture" in weights or not usable:
        weights.setdefault("texture", 1.0)
        usable.append("texture")
    kind = choose(rng, weights, usable)
    if kind == "video":
        return _video_backdrop(rng, assets, config)
    camera = camera_motion(rng, config.camera)
    if kind == "still":
        image, labels = _still(rng, assets, config.several)
        image, labels = _still_window(rng, image, labels, config.size)
        labels = labels if "still" in config.labeled else np.zeros_like(labels)
        zoom = float(rng.uniform(1.05, 1.4))
        return StillBackdrop(image, labels, camera, config.size, zoom, _bend(rng, config.bends)), _largest(labels)
    height, width = (side * 5 // 4 for side in config.size)
    image = texture(rng, height, width)
    return StillBackdrop(image, np.zeros((height, width), np.uint8), camera, config.size, 1.2), 0


def _still(rng: np.random.Generator, assets: Assets, several: bool) -> tuple[Image, Labels]:
    """Return a picture with its instances; with `several` one that has at least two, if a few tries find one."""
    for _ in range(_TRIES):
        image, labels = assets.stills[int(rng.integers(len(assets.stills)))].load()
        if not several or len(np.setdiff1d(np.unique(labels), [0, IGNORE])) > 1:
            break
    return image, labels


def _bend(rng: np.random.Generator, probability: float) -> Bend | None:
    # Nothing is drawn where nothing bends: the clips of older seeds stay what they are.
    return bending(rng, float(rng.uniform(0.005, 0.03))) if probability and rng.random() < probability else None


def _still_window(rng: np.random.Generator, image: Image, labels: Labels, size: Size) -> tuple[Image, Labels]:
    """Return a part of a picture with the canvas' aspect (stretched a little), often around an instance."""
    height, width = labels.shape
    aspect = size[1] / size[0] * math.exp(rng.uniform(-0.25, 0.25))
    tall = min(height, width / aspect) * rng.uniform(0.55, 1.0)
    wide = min(width, tall * aspect)
    ids = np.setdiff1d(np.unique(labels), [0, IGNORE])
    x, y = rng.uniform(0, width), rng.uniform(0, height)
    if len(ids) and rng.random() < 0.8:
        box = bounding_box(labels == rng.choice(ids))
        if box is not None:
            x, y = (box[2] + box[3]) / 2, (box[0] + box[1]) / 2
    left = int(np.clip(x - wide / 2 + rng.normal(0, 0.15) * wide, 0, width - wide))
    top = int(np.clip(y - tall / 2 + rng.normal(0, 0.15) * tall, 0, height - tall))
    part = slice(top, top + max(2, int(tall))), slice(left, left + max(2, int(wide)))
    return _to_aspect(image[part], labels[part], size)


def _to_aspect(image: Image, labels: Labels, size: Size) -> tuple[Image, Labels]:
    height, width = labels.shape
    target = (round(height * size[1] / size[0]), height) if size[1] >= size[0] else (width, round(width * size[0] / size[1]))
    picture = cv2.resize(image, target, interpolation=cv2.INTER_LINEAR)
    return np.asarray(picture), np.asarray(cv2.resize(labels, target, interpolation=cv2.INTER_NEAREST))


def _video_backdrop(rng: np.random.Generator, assets: Assets, config: ComposeConfig) -> tuple[VideoBackdrop, int]:
    video = assets.videos[int(rng.integers(len(assets.videos)))]
    start = int(rng.integers(len(video)))
    labels = video.labels(start)
    height, width = labels.shape
    tall, wide = config.size
    part = rng.uniform(*config.window) * min(height / tall, width / wide)
    factors = 1 / (part * np.array([math.exp(rng.uniform(-0.15, 0.0)), math.exp(rng.uniform(-0.15, 0.0))]))
    x, y = _window_center(rng, labels, tall / factors[1], wide / factors[0])
    window = stretch(float(factors[0]), float(factors[1])) @ shift(-x, -y)
    return VideoBackdrop(
        video, start, window, camera_motion(rng, config.camera), config.size, "video" in config.labeled
    ), _largest(labels)


def _window_center(rng: np.random.Generator, labels: Labels, tall: float, wide: float) -> tuple[float, float]:
    """Return the center (x, y) of a window inside the frame, most often one that shows half of an object or is filled by it."""
    height, width = labels.shape

    def inside(x: float, y: float) -> tuple[float, float]:
        return min(max(x, wide / 2), max(wide / 2, width - wide / 2)), min(max(y, tall / 2), max(tall / 2, height - tall / 2))

    ids = np.setdiff1d(np.unique(labels), [0, IGNORE])
    center = inside(rng.uniform(0, width), rng.uniform(0, height))
    if not len(ids) or rng.random() < 0.1:
        return center
    rows, columns = np.nonzero(labels == rng.choice(ids))
    for _ in range(4):
        at = int(rng.integers(len(rows)))
        center = inside(columns[at] + rng.normal(0, 0.15) * wide, rows[at] + rng.normal(0, 0.15) * tall)
        within = int(((abs(columns - center[0]) < wide / 2) & (abs(rows - center[1]) < tall / 2)).sum())
        if within > min(0.5 * len(rows), 0.3 * tall * wide):
            break
    return center


def _largest(labels: Labels) -> int:
    return int(np.where(labels == IGNORE, 0, labels).max())


def _layers(
    rng: np.random.Generator, assets: Assets, config: ComposeConfig, first_id: int, made: list[Patch | CutVideo]
) -> list[SceneLayer]:
    """Labeled objects and unlabeled things, in random order of depth; look-alikes are copies of one in `made`, or of each other."""
    objects = int(rng.choice(len(config.objects), p=config.objects))
    distractors = int(rng.choice(len(config.distractors), p=config.distractors))
    layers: list[SceneLayer] = []
    for number in range(objects + distractors):
        is_object = number < objects
        again = bool(made) and rng.random() < (config.look_alike if is_object else 0.5)
        side = math.exp(rng.uniform(math.log(config.extent[0]), math.log(config.extent[1]))) * min(config.size)
        source = (
            twin(rng, made[int(rng.integers(len(made)))])
            if again
            else draw_patch(rng, assets, config.sources, config.bars, side)
        )
        if source is None:
            continue
        made.append(source)
        x, y = (float(rng.uniform(-0.45, 0.45)) * extent / min(config.size) for extent in config.size[::-1])
        layers.append(
            SceneLayer(
                source if isinstance(source, CutVideo) else constant(source),
                min(254, first_id + number) if is_object else 0,
                object_motion(rng, x, y, config.motion),
                world=bool(rng.random() < 0.7),
                wobble=_wobble(rng),
                bend=None if isinstance(source, CutVideo) else _bend(rng, config.bends),
                shutter=float(rng.uniform(0.2, 0.8)) if rng.random() < 0.5 else 0.0,
            )
        )
    return [layers[i] for i in rng.permutation(len(layers))]


def _wobble(rng: np.random.Generator) -> tuple[float, float, float]:
    if rng.random() < 0.4:
        return (0.0, 1.0, 30.0)
    return (float(rng.uniform(0.01, 0.07)), float(rng.uniform(0.4, 1.6)), float(rng.choice([-1, 1]) * rng.uniform(15, 80)))


def _light(rng: np.random.Generator, probability: float) -> Light:
    def chance() -> bool:
        return bool(rng.random() < probability)

    gain = float(rng.uniform(0.65, 1.35)) if chance() else 1.0
    exposure = wander(rng, gain, 0.3) if chance() else Curve(gain)
    tint = rng.uniform(0.85, 1.15, 3) if chance() else np.ones(3)
    return Light(
        exposure,
        (float(tint[0]), float(tint[1]), float(tint[2])),
        math.exp(rng.uniform(-0.35, 0.35)) if chance() else 1.0,
        (float(rng.uniform(0.1, 0.35)), float(rng.uniform(0, math.tau))) if chance() else (0.0, 0.0),
        float(rng.uniform(0.5, 1.4)) if chance() and rng.random() < 0.4 else 0.0,
        float(rng.uniform(2, 9)) if chance() and rng.random() < 0.5 else 0.0,
    )
