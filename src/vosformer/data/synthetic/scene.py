"""A scene: a backdrop seen by a moving camera, and layers pasted on it, rendered at any time with exact masks."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from vosformer.data.datasets.media import cut_out
from vosformer.data.datasets.video import Video, reflect
from vosformer.data.synthetic.motion import Bend, Curve, Matrix, Motion
from vosformer.data.types import Image, Labels

Patch = NDArray[np.uint8]  # RGBA [h,w,4]
Size = tuple[int, int]  # (height, width) in pixels

_STEADY = Curve(1.0)


class Backdrop(Protocol):
    """What lies behind the layers."""

    def frame(self, time: int) -> tuple[Image, Labels, Matrix]:
        """Picture and labels on the canvas, and the camera: centered canvas pixels at rest -> where they are seen now."""
        ...


@dataclass(frozen=True)
class StillBackdrop:
    """A labeled picture under a moving camera.

    Attributes:
        image: the picture, uint8 [h,w,3].
        labels: its labels, uint8 [h,w].
        camera: motion of what is seen.
        size: of the canvas.
        zoom: 1 fits the picture so that it just covers the canvas at rest.
        bend: how the picture deforms, if it does.
    """

    image: Image
    labels: Labels
    camera: Motion
    size: Size
    zoom: float = 1.15
    bend: Bend | None = None

    def frame(self, time: int) -> tuple[Image, Labels, Matrix]:
        """See `Backdrop`."""
        height, width = self.image.shape[:2]
        cover = self.zoom * max(self.size[0] / height, self.size[1] / width)
        camera = self.camera.matrix(time, min(self.size))
        matrix = shift(self.size[1] / 2, self.size[0] / 2) @ camera @ stretch(cover) @ shift(-width / 2, -height / 2)
        if self.bend is not None:
            return (*_bend_frame(self.image, self.labels, matrix, self.size, self.bend, time), camera)
        return (*warp_frame(self.image, self.labels, matrix, self.size), camera)


@dataclass(frozen=True)
class VideoBackdrop:
    """A real clip, seen through a window that may drift a little.

    Attributes:
        video: where the frames come from; times beyond its ends run back again.
        start: index of the frame at time 0.
        window: source pixels -> centered canvas pixels.
        camera: additional motion.
        size: of the canvas.
        labeled: whether its own objects are labeled.
    """

    video: Video
    start: int
    window: Matrix
    camera: Motion
    size: Size
    labeled: bool = True

    def frame(self, time: int) -> tuple[Image, Labels, Matrix]:
        """See `Backdrop`."""
        image, labels = self.video.load(reflect(self.start + time, len(self.video)))
        labels = labels if self.labeled else np.zeros_like(labels)
        camera = self.camera.matrix(time, min(self.size))
        matrix = shift(self.size[1] / 2, self.size[0] / 2) @ camera @ self.window
        return (*warp_frame(image, labels, matrix, self.size), camera)


@dataclass(frozen=True)
class CutVideo:
    """An object cut out of a clip, moving with its own frames.

    Attributes:
        video: the clip.
        label: the object's label in it.
        start: index of the frame at time 0.
        factor: the patches are scaled by this.
        adjust: changes a patch's colors.
    """

    video: Video
    label: int
    start: int
    factor: float
    adjust: Callable[[Patch], Patch]

    def __call__(self, time: int) -> Patch | None:
        """Return the patch at `time`, or None where the object is not seen."""
        image, labels = self.video.load(reflect(self.start + time, len(self.video)))
        patch = cut_out(image, labels == self.label)
        return None if patch is None else self.adjust(rescale(patch, self.factor))


@dataclass(frozen=True)
class SceneLayer:
    """Something pasted on the backdrop.

    Attributes:
        patch: what it looks like at a time, or None if nothing is seen of it then.
        label: its id; 0 for things that are no objects of the clip (distractors, occluders).
        motion: where it is; the size at rest is that of the patch.
        world: it moves with the camera's view (else it is fixed to the screen).
        wobble: (amplitude as share of the patch, waves across it, frames a period) of its deformation in waves.
        bend: its deformation as a thin plate, if it has one.
        shutter: share of a frame's time that the shutter is open: motion blur.
    """

    patch: Callable[[int], Patch | None]
    label: int
    motion: Motion
    world: bool = True
    wobble: tuple[float, float, float] = (0.0, 1.0, 30.0)
    bend: Bend | None = None
    shutter: float = 0.0

    def place(self, time: float, camera: Matrix, size: Size, patch: Size) -> Matrix:
        """Patch pixels -> canvas pixels."""
        view = camera if self.world else np.eye(3)
        pose = self.motion.matrix(time, min(size))
        return shift(size[1] / 2, size[0] / 2) @ view @ pose @ shift(-patch[1] / 2, -patch[0] / 2)


@dataclass(frozen=True)
class Light:
    """How the camera renders the scene: exposure, color and sharpness.

    Attributes:
        exposure: gain over time.
        tint: gain of each channel.
        gamma: exponent.
        ramp: (strength, angle in radians) of a brightness gradient across the picture.
        blur_px: deviation of a Gaussian blur.
        noise: deviation of the sensor's noise, in 0..255.
    """

    exposure: Curve = _STEADY
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0)
    gamma: float = 1.0
    ramp: tuple[float, float] = (0.0, 0.0)
    blur_px: float = 0.0
    noise: float = 0.0

    def __call__(self, image: Image, time: int, rng: np.random.Generator) -> Image:
        """Return the picture as the camera takes it."""
        levels = (np.arange(256) / 255.0)[:, None] ** self.gamma * (255.0 * self.exposure(time)) * np.array(self.tint)
        image = np.asarray(cv2.LUT(image, np.clip(np.round(levels), 0, 255).astype(np.uint8)[None]))
        if self.blur_px:
            image = np.asarray(cv2.GaussianBlur(image, (0, 0), self.blur_px))
        if self.ramp[0] or self.noise:
            height, width = image.shape[:2]
            angle = self.ramp[1] + 0.02 * time
            rows = np.linspace(-1, 1, height, dtype=np.float32)[:, None] * np.float32(math.sin(angle))
            columns = np.linspace(-1, 1, width, dtype=np.float32)[None] * np.float32(math.cos(angle))
            values = image * (1 + np.float32(self.ramp[0]) * (rows + columns))[..., None]
            if self.noise:
                values += np.float32(self.noise) * rng.standard_normal((height, width, 1), np.float32)
            image = np.clip(values, 0, 255).astype(np.uint8)
        return image


@dataclass(frozen=True)
class Scene:
    """A backdrop, layers from bottom to top, and the light."""

    backdrop: Backdrop
    layers: tuple[SceneLayer, ...]
    light: Light
    size: Size

    def render(self, time: int, rng: np.random.Generator) -> tuple[Image, Labels]:
        """Picture uint8 [H,W,3] and labels uint8 [H,W] at `time`, in frames. A pixel belongs to the topmost layer that covers
        at least half of it.
        """
        image, labels, camera = self.backdrop.frame(time)
        for layer in self.layers:
            paste(image, labels, layer, time, camera)
        return self.light(image, time, rng), labels


def paste(image: Image, labels: Labels, layer: SceneLayer, time: int, camera: Matrix) -> None:
    """Paste a layer as it is at `time`, in place."""
    patch = layer.patch(time)
    if patch is None:
        return
    size = (image.shape[0], image.shape[1])
    height, width = patch.shape[:2]
    matrix = layer.place(time, camera, size, (height, width))
    blur = _smear(layer, time, camera, size, (height, width))
    reach = (layer.wobble[0] + (2 * layer.bend.reach if layer.bend else 0.0)) * max(height, width) + 1
    corners = np.array(
        [[-reach, width + reach, width + reach, -reach], [-reach, -reach, height + reach, height + reach], [1.0] * 4]
    )
    seen = (matrix @ corners)[:2]
    room = max(blur.shape) // 2 + 1 if blur is not None else 1
    left, top = (max(0, math.floor(v) - room) for v in seen.min(1))
    right, bottom = (min(limit, math.ceil(v) + room) for v, limit in zip(seen.max(1), size[::-1], strict=True))
    if left >= right or top >= bottom or abs(np.linalg.det(matrix)) < 1e-6:
        return
    window = _sample(patch, np.asarray(np.linalg.inv(matrix), np.float64), (top, bottom, left, right), layer, time)
    solid = window[..., 3] >= 127.5
    if blur is not None:
        window = np.asarray(cv2.filter2D(window, -1, blur, borderType=cv2.BORDER_REPLICATE))
    below = image[top:bottom, left:right]
    mixed = window[..., :3] + below * (1 - window[..., 3:] / 255)
    image[top:bottom, left:right] = np.clip(mixed + 0.5, 0, 255).astype(np.uint8)
    labels[top:bottom, left:right][solid] = layer.label


def warp_frame(image: Image, labels: Labels, matrix: Matrix, size: Size) -> tuple[Image, Labels]:
    """Return a picture and its labels through an affine transform (source pixels -> canvas pixels); mirrored beyond the
    edges.
    """
    affine, target = matrix[:2], (size[1], size[0])
    if abs(np.linalg.det(affine[:, :2])) < 0.36:
        # Halve before a strong reduction: bilinear sampling alone would alias. Labels are sampled from the source itself.
        image = np.asarray(cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA))
        picture = cv2.warpAffine(
            image, (matrix @ stretch(2.0))[:2], target, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
        )
    else:
        picture = cv2.warpAffine(image, affine, target, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    ids = cv2.warpAffine(labels, affine, target, flags=cv2.INTER_NEAREST, borderMode=cv2.BORDER_REFLECT)
    return np.asarray(picture), np.asarray(ids)


def _bend_frame(image: Image, labels: Labels, matrix: Matrix, size: Size, bend: Bend, time: int) -> tuple[Image, Labels]:
    """Do as `warp_frame`, of a picture that bends."""
    inverse = np.asarray(np.linalg.inv(matrix), np.float32)
    columns, rows = np.meshgrid(np.arange(size[1], dtype=np.float32), np.arange(size[0], dtype=np.float32))
    x, y = (inverse[i, 0] * columns + inverse[i, 1] * rows + inverse[i, 2] for i in (0, 1))
    moved = bend.offsets(time, x, y, (labels.shape[0], labels.shape[1]))
    x, y = x + moved[..., 0], y + moved[..., 1]
    ids = cv2.remap(labels, x, y, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REFLECT)
    if abs(np.linalg.det(matrix[:2, :2])) < 0.36:
        # As in `warp_frame`: halved pictures do not alias.
        image = np.asarray(cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA))
        x, y = x / 2, y / 2
    return np.asarray(cv2.remap(image, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)), np.asarray(ids)


def rescale(patch: Patch, factor: float) -> Patch:
    """Return a patch scaled by `factor`; at least 2 x 2 pixels."""
    height, width = (max(2, round(side * factor)) for side in patch.shape[:2])
    way = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(patch, (width, height), interpolation=way))


def shift(x: float, y: float) -> Matrix:
    """Return a translation."""
    return np.array([[1.0, 0.0, x], [0.0, 1.0, y], [0.0, 0.0, 1.0]])


def stretch(x: float, y: float | None = None) -> Matrix:
    """Scaling about the origin."""
    return np.diag([x, x if y is None else y, 1.0])


def _sample(patch: Patch, inverse: Matrix, box: tuple[int, int, int, int], layer: SceneLayer, time: int) -> NDArray[np.float32]:
    """Premultiplied RGBA float32 of the part of the canvas inside `box`."""
    top, bottom, left, right = box
    solid = patch.astype(np.float32)
    solid[..., :3] *= solid[..., 3:] / 255
    rows = np.arange(top, bottom, dtype=np.float32)[:, None]
    columns = np.arange(left, right, dtype=np.float32)[None]
    x, y = (np.float32(inverse[i, 0]) * columns + np.float32(inverse[i, 1]) * rows + np.float32(inverse[i, 2]) for i in (0, 1))
    amplitude, waves, period = layer.wobble
    if amplitude:
        side = max(patch.shape[:2])
        phase, pitch = math.tau * time / period, math.tau * waves / side
        bent = x + np.float32(amplitude * side) * np.sin(np.float32(pitch) * y + np.float32(phase))
        y = y + np.float32(0.6 * amplitude * side) * np.sin(np.float32(pitch) * x + np.float32(1.7 * phase))
        x = bent
    if layer.bend is not None:
        moved = layer.bend.offsets(time, x, y, (patch.shape[0], patch.shape[1]))
        x, y = x + moved[..., 0], y + moved[..., 1]
    return np.asarray(cv2.remap(solid, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=0))


def _smear(layer: SceneLayer, time: int, camera: Matrix, size: Size, patch: Size) -> NDArray[np.float32] | None:
    """Return the line kernel of the layer's motion blur, or None where it would be shorter than 3 pixels."""
    if not layer.shutter:
        return None
    middle = np.array([patch[1] / 2, patch[0] / 2, 1.0])
    before, after = (layer.place(time + step, camera, size, patch) @ middle for step in (-0.5, 0.5))
    path = (after - before)[:2] * layer.shutter
    length = min(31, int(np.abs(path).max()))
    if length < 3:
        return None
    side = length | 1
    kernel = np.zeros((side, side), np.float32)
    half = path / np.abs(path).max() * (side // 2)
    ends = [tuple(round(side // 2 + way * v) for v in half) for way in (-1, 1)]
    cv2.line(kernel, ends[0], ends[1], 1.0)
    return np.asarray(kernel / kernel.sum(), np.float32)
