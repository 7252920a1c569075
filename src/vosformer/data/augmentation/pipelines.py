"""The papers' augmentation: each pipeline a frozen set of numbers and one short composition of functions.

`docs/data.md` lists every number with its origin (the papers, and what their official code does where the papers are silent).
Frames and labels are lists of uint8 [H,W,3] and uint8 [H,W]; all randomness comes from the generator that is passed in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from vosformer.data.augmentation.geometric import (
    Affine,
    Box,
    Interpolation,
    pad_to,
    random_area,
    random_box,
    remap,
    resize,
    resize_labels,
    size_of,
    thin_plate,
    warp,
)
from vosformer.data.augmentation.photometric import Jitter, blur, grayscale
from vosformer.data.types import IGNORE, Image, Labels

Frames = tuple[list[Image], list[Labels]]


class VideoAugment(Protocol):
    """Turns the frames of a video into frames of the training size."""

    @property
    def crop(self) -> int:
        """Side of the square result, pixels."""
        ...

    def __call__(self, rng: np.random.Generator, images: Sequence[Image], labels: Sequence[Labels]) -> Frames:
        """Augment one clip."""
        ...


class StillAugment(Protocol):
    """Makes a clip from one picture."""

    @property
    def crop(self) -> int:
        """Side of the square result, pixels."""
        ...

    def __call__(self, rng: np.random.Generator, image: Image, labels: Labels, frames: int) -> Frames:
        """Make `frames` frames."""
        ...


@dataclass(frozen=True)
class Looks:
    """What is changed in the colors of single frames.

    Attributes:
        jitter: brightness, contrast, saturation, hue.
        gray: probability of a gray picture.
        blur: probability of a Gaussian blur.
        blur_radius: (smallest, largest) deviation, pixels.
    """

    jitter: Jitter | None = None
    gray: float = 0.0
    blur: float = 0.0
    blur_radius: tuple[float, float] = (0.1, 2.0)

    def color(self, rng: np.random.Generator, image: Image) -> Image:
        """Return the jitter alone."""
        return self.jitter.draw(rng)(image) if self.jitter else image

    def finish(self, rng: np.random.Generator, image: Image) -> Image:
        """Gray and blur."""
        if rng.random() < self.gray:
            image = grayscale(image)
        if rng.random() < self.blur:
            image = blur(image, rng.uniform(*self.blur_radius))
        return image


@dataclass(frozen=True, kw_only=True)
class ScaledCrop:
    """AOT's, DeAOT's and OneVOS's video pipeline: scale, balanced crop, flip, padding, shared by all frames; then colors.

    Attributes:
        crop: side of the result, pixels.
        scale: (smallest, largest) factor on top of `short_edge`.
        short_edge: side that the frames' short side is scaled to first, pixels.
        flip: probability of a horizontal flip.
        tries: crops drawn until one shows an object.
        min_pixels: an object with more than this many pixels in the first frame counts as shown.
        looks: changes of each frame's colors on its own.
    """

    crop: int = 465
    scale: tuple[float, float] = (0.7, 1.3)
    short_edge: int = 480
    flip: float = 0.5
    tries: int = 5
    min_pixels: int = 100
    looks: Looks

    def __call__(self, rng: np.random.Generator, images: Sequence[Image], labels: Sequence[Labels]) -> Frames:
        """See `VideoAugment`."""
        factor = rng.uniform(*self.scale) * self.short_edge / min(labels[0].shape)
        height, width = (max(1, round(side * factor)) for side in labels[0].shape)
        box = self._balanced_box(rng, resize_labels(labels[0], height, width))
        flip, offset = rng.random() < self.flip, (float(rng.random()), float(rng.random()))
        made: Frames = ([], [])
        for picture, ids in zip(images, labels, strict=True):
            image, label = resize(picture, ids, height, width)
            image, label = box.cut(image), box.cut(label)
            if flip:
                image, label = image[:, ::-1], label[:, ::-1]
            image, label = pad_to(np.ascontiguousarray(image), np.ascontiguousarray(label), self.crop, offset)
            made[0].append(self.looks.finish(rng, self.looks.color(rng, image)))
            made[1].append(label)
        return made

    def _balanced_box(self, rng: np.random.Generator, labels: Labels) -> Box:
        for _ in range(self.tries):
            box = random_box(rng, size_of(labels), self.crop)
            areas = np.bincount(box.cut(labels).ravel(), minlength=256)[1:IGNORE]
            if areas.max() > self.min_pixels:
                break
        return box


@dataclass(frozen=True, kw_only=True)
class MovedStill:
    """AOT's, DeAOT's and OneVOS's clips from a picture: one flip for all, then each frame moved on its own.

    Attributes:
        crop: side of the result, pixels.
        flip: probability that the whole picture is mirrored.
        frame_flip: probability that one of the later frames is mirrored.
        affine: applied to the later frames.
        looks: changes of each frame's colors.
        area: (smallest, largest) share of the picture that a frame shows.
        aspect: (smallest, largest) width / height of that part.
    """

    crop: int = 465
    flip: float = 0.5
    frame_flip: float = 0.3
    affine: Affine
    looks: Looks
    area: tuple[float, float] = (0.8, 1.0)
    aspect: tuple[float, float] = (3 / 4, 4 / 3)

    def __call__(self, rng: np.random.Generator, image: Image, labels: Labels, frames: int) -> Frames:
        """See `StillAugment`."""
        if rng.random() < self.flip:
            image, labels = np.ascontiguousarray(image[:, ::-1]), np.ascontiguousarray(labels[:, ::-1])
        made: Frames = ([], [])
        for number in range(frames):
            picture, ids = image, labels
            if number:
                if rng.random() < self.frame_flip:
                    picture, ids = np.ascontiguousarray(picture[:, ::-1]), np.ascontiguousarray(ids[:, ::-1])
                picture, ids = warp(picture, ids, self.affine.draw(rng, size_of(ids)))
            picture = self.looks.color(rng, picture)
            box = random_area(rng, size_of(ids), self.area, self.aspect)
            picture, ids = resize(box.cut(picture), box.cut(ids), self.crop, self.crop)
            made[0].append(self.looks.finish(rng, picture))
            made[1].append(ids)
        return made


@dataclass(frozen=True, kw_only=True)
class SharedCrop:
    """SimVOS's and JointFormer's video pipeline: flip, crop and colors shared by the frames, then small changes of each.

    Attributes:
        crop: side of the result, pixels.
        flip: probability of a horizontal flip.
        area: (smallest, largest) share of the frame that is shown.
        aspect: (smallest, largest) width / height of that part.
        jitter: colors, the same for all frames.
        gray: probability that the clip is gray.
        affine: motion of each frame.
        frame_jitter: colors of each frame.
        way: interpolation of pictures.
    """

    crop: int = 384
    flip: float = 0.5
    area: tuple[float, float] = (0.36, 1.0)
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    jitter: Jitter
    gray: float = 0.05
    affine: Affine
    frame_jitter: Jitter
    way: Interpolation = "bicubic"

    def __call__(self, rng: np.random.Generator, images: Sequence[Image], labels: Sequence[Labels]) -> Frames:
        """See `VideoAugment`."""
        flip, gray = rng.random() < self.flip, rng.random() < self.gray
        box = random_area(rng, size_of(labels[0]), self.area, self.aspect)
        colors = self.jitter.draw(rng)
        made: Frames = ([], [])
        for picture, ids in zip(images, labels, strict=True):
            image, label = resize(box.cut(picture), box.cut(ids), self.crop, self.crop, self.way)
            if flip:
                image, label = np.ascontiguousarray(image[:, ::-1]), np.ascontiguousarray(label[:, ::-1])
            image = colors(image)
            image = grayscale(image) if gray else image
            image, label = warp(image, label, self.affine.draw(rng, size_of(label)), self.way)
            made[0].append(self.frame_jitter.draw(rng)(image))
            made[1].append(label)
        return made


@dataclass(frozen=True, kw_only=True)
class WarpedStill:
    """JointFormer's clips from a picture, in the order of the released code.

    Shared by the frames: scale, flip and colors. Then each frame is moved, resized, cropped, jittered and, at times, warped.

    Attributes:
        crop: side of the result, pixels; the moved picture's short side is scaled to it before the crop.
        flip: probability that the whole picture is mirrored.
        scale: (smallest, largest) factor shared by the frames.
        jitter: colors shared by the frames.
        gray: probability that the clip is gray.
        affine: motion of each frame.
        frame_jitter: colors of each frame.
        plate: probability of a thin-plate warp of a frame.
        plate_scale: deviation of its control points, as share of the side.
    """

    crop: int = 384
    flip: float = 0.5
    scale: tuple[float, float] = (0.8, 1.5)
    jitter: Jitter
    gray: float = 0.05
    affine: Affine
    frame_jitter: Jitter
    plate: float = 0.33
    plate_scale: float = 0.02

    def __call__(self, rng: np.random.Generator, image: Image, labels: Labels, frames: int) -> Frames:
        """See `StillAugment`."""
        image, labels = warp(image, labels, Affine(scale=self.scale).draw(rng, size_of(labels)))
        if rng.random() < self.flip:
            image, labels = np.ascontiguousarray(image[:, ::-1]), np.ascontiguousarray(labels[:, ::-1])
        image = self.jitter.draw(rng)(image)
        image = grayscale(image) if rng.random() < self.gray else image
        factor = self.crop / min(labels.shape)
        height, width = (max(self.crop, int(side * factor)) for side in labels.shape)
        made: Frames = ([], [])
        for _ in range(frames):
            picture, ids = warp(image, labels, self.affine.draw(rng, size_of(labels)))
            picture, ids = resize(picture, ids, height, width)
            box = random_box(rng, size_of(ids), self.crop)
            picture, ids = np.ascontiguousarray(box.cut(picture)), np.ascontiguousarray(box.cut(ids))
            picture = self.frame_jitter.draw(rng)(picture)
            if rng.random() < self.plate:
                picture, ids = remap(picture, ids, thin_plate(rng, size_of(ids), self.plate_scale))
            made[0].append(picture)
            made[1].append(ids)
        return made


_STILL_MOTION = Affine(degrees=20.0, shift=0.1, scale=(0.9, 1.1), shear=10.0)
_V1_STILL = Looks(Jitter(0.1, 0.1, 0.1, 0.03))
_V2 = Looks(Jitter(0.4, 0.4, 0.2, 0.1, probability=0.8), gray=0.2, blur=0.3, blur_radius=(0.1, 2.0))

AOT_VIDEO = ScaledCrop(looks=Looks())
AOT_STILL = MovedStill(affine=_STILL_MOTION, looks=_V1_STILL)
DEAOT_VIDEO = ScaledCrop(looks=_V2)
DEAOT_STILL = MovedStill(affine=_STILL_MOTION, looks=_V2)
ONEVOS_VIDEO = ScaledCrop(crop=464, looks=Looks())
ONEVOS_STILL = MovedStill(crop=464, affine=_STILL_MOTION, looks=_V1_STILL)
SIMVOS_VIDEO = SharedCrop(
    jitter=Jitter(0.1, 0.03, 0.03, 0.0), affine=Affine(degrees=15.0, shear=10.0), frame_jitter=Jitter(0.01, 0.01, 0.01, 0.0)
)
JOINTFORMER_VIDEO = replace(SIMVOS_VIDEO, way="bilinear")
JOINTFORMER_FINETUNE = replace(JOINTFORMER_VIDEO, affine=Affine())
JOINTFORMER_BL30K = replace(JOINTFORMER_FINETUNE, area=(0.25, 1.0))
JOINTFORMER_STILL = WarpedStill(
    jitter=Jitter(0.1, 0.05, 0.05, 0.05),
    affine=Affine(degrees=20.0, scale=(0.9, 1.1), shear=10.0),
    frame_jitter=Jitter(0.1, 0.05, 0.05, 0.0),
)
