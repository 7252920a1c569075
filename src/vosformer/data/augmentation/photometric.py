"""Changes of color and sharpness, with the meaning that the papers' code gives them (Pillow's operations on 8 bits)."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from vosformer.data.types import Image


@dataclass(frozen=True)
class Jitter:
    """Random brightness, contrast, saturation and hue, in random order.

    Attributes:
        brightness: factor from 1 - b to 1 + b.
        contrast: factor from 1 - c to 1 + c, about the picture's mean gray.
        saturation: factor from 1 - s to 1 + s.
        hue: turn from -h to h of the color circle.
        probability: that it is applied at all.
    """

    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    probability: float = 1.0

    def draw(self, rng: np.random.Generator) -> JitterValues:
        """Draw the factors, so that several frames can share them."""
        applied = bool(rng.random() < self.probability)
        widths = (self.brightness, self.contrast, self.saturation, self.hue)
        values = [float(rng.uniform(-width, width)) for width in widths]
        order = tuple(int(i) for i in rng.permutation(4))
        if not applied:
            return JitterValues(1.0, 1.0, 1.0, 0.0, order)
        return JitterValues(1 + values[0], 1 + values[1], 1 + values[2], values[3], order)


@dataclass(frozen=True)
class JitterValues:
    """Factors drawn from a `Jitter`; calling it changes a picture."""

    brightness: float
    contrast: float
    saturation: float
    hue: float
    order: tuple[int, ...]

    def __call__(self, image: Image) -> Image:
        """uint8 RGB [H,W,3] -> the same, jittered."""
        for step in self.order:
            if step == 0 and self.brightness != 1:
                image = _blend(np.float32(0), image, self.brightness)
            elif step == 1 and self.contrast != 1:
                image = _blend(np.float32(round(float(_gray(image).mean()))), image, self.contrast)
            elif step == 2 and self.saturation != 1:
                image = _blend(_gray(image)[..., None].astype(np.float32), image, self.saturation)
            elif step == 3 and self.hue != 0:
                image = _turn_hue(image, self.hue)
        return image


def grayscale(image: Image) -> Image:
    """Return a color picture with three equal channels."""
    return np.repeat(_gray(image)[..., None], 3, 2)


def blur(image: Image, radius: float) -> Image:
    """Gaussian blur with a deviation of `radius` pixels."""
    return np.asarray(cv2.GaussianBlur(image, (0, 0), radius, borderType=cv2.BORDER_REPLICATE), np.uint8)


def _gray(image: Image) -> Image:
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)


def _blend(first: np.float32 | np.ndarray[tuple[int, ...], np.dtype[np.float32]], second: Image, factor: float) -> Image:
    mixed = first * np.float32(1 - factor) + second * np.float32(factor)
    return np.clip(mixed, 0, 255).astype(np.uint8)


def _turn_hue(image: Image, turn: float) -> Image:
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV_FULL)
    hsv[..., 0] += np.uint8(int(turn * 255) % 256)
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL), np.uint8)
