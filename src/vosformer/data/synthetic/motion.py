"""Smooth motion of cameras and objects: every parameter is a bounded curve over time."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from vosformer.data.augmentation.geometric import interpolate_plate

Matrix = NDArray[np.float64]  # [3,3], homogeneous


@dataclass(frozen=True)
class Curve:
    """A smooth function of time: a center, a steady drift, and a sum of sines.

    Attributes:
        center: value at time 0 without the sines.
        drift: change a frame.
        waves: (amplitude, period in frames, phase in radians) of each sine.
    """

    center: float = 0.0
    drift: float = 0.0
    waves: tuple[tuple[float, float, float], ...] = ()

    def __call__(self, time: float) -> float:
        """Return the value at `time`, in frames."""
        return self.center + self.drift * time + sum(a * math.sin(math.tau * time / p + f) for a, p, f in self.waves)


def wander(rng: np.random.Generator, center: float, amplitude: float, shortest: float = 40.0, longest: float = 200.0) -> Curve:
    """Return a curve that starts near `center` and strays about `amplitude` from it, in periods of `shortest` to `longest`
    frames.
    """
    waves = []
    start = 0.0
    for share in (1.0, 0.4):
        size = amplitude * share * float(rng.uniform(0.3, 1.0))
        period = math.exp(rng.uniform(math.log(shortest), math.log(longest))) * (1.0 if share == 1.0 else 0.5)
        phase = float(rng.uniform(0, math.tau))
        waves.append((size, period, phase))
        start += size * math.sin(phase)
    # The sines' own offset is kept only in part, so that the position at time 0 is the one asked for.
    return Curve(center - 0.8 * start, 0.0, tuple(waves))


@dataclass(frozen=True)
class Motion:
    """Where something is over time, in units of the canvas' short side.

    Attributes:
        x: center, rightwards from the canvas' center.
        y: center, downwards.
        angle: rotation, radians.
        log_scale: natural logarithm of the size's factor.
        log_aspect: natural logarithm of the width's factor (foreshortening); the height keeps.
        shear: horizontal shear.
    """

    x: Curve
    y: Curve
    angle: Curve
    log_scale: Curve
    log_aspect: Curve
    shear: Curve

    def matrix(self, time: float, unit: float) -> Matrix:
        """Return the transform at `time`: rotate, scale and shear about the origin, then move; `unit` pixels are one unit of
        length.
        """
        scale = math.exp(self.log_scale(time))
        wide = scale * math.exp(self.log_aspect(time))
        cos, sin = math.cos(self.angle(time)), math.sin(self.angle(time))
        slant = self.shear(time)
        return np.array(
            [
                [cos * wide, cos * slant * scale - sin * scale, self.x(time) * unit],
                [sin * wide, sin * slant * scale + cos * scale, self.y(time) * unit],
                [0.0, 0.0, 1.0],
            ]
        )


@dataclass(frozen=True)
class Bend:
    """How something soft deforms: a thin plate whose control points sway, each in its own way.

    Attributes:
        centers: [n,2] control points, (x, y) in 0..1 over the thing.
        sway: [n,2] amplitudes, as share of its long side.
        periods: [n,2], frames.
        phases: [n,2], radians.
    """

    centers: NDArray[np.float64]
    sway: NDArray[np.float64]
    periods: NDArray[np.float64]
    phases: NDArray[np.float64]

    @property
    def reach(self) -> float:
        """The farthest that a control point goes, as share of the long side."""
        return float(np.hypot(*self.sway.T).max())

    def offsets(
        self, time: float, x: NDArray[np.float32], y: NDArray[np.float32], size: tuple[int, int]
    ) -> NDArray[np.float32]:
        """Return how far from (x, y) the thing is looked up at `time`.

        Args:
            time: frames.
            x: [h,w] positions on the thing, in its pixels.
            y: [h,w].
            size: (height, width) of the thing, pixels.

        Returns:
            [h,w,2] pixels, to be added to (x, y).
        """
        moved = self.sway * np.sin(math.tau * time / self.periods + self.phases) * max(size)
        side = 17
        at = np.stack(np.meshgrid(np.linspace(0, 1, side), np.linspace(0, 1, side)), -1)
        grid = interpolate_plate(self.centers, moved, at).astype(np.float32)
        columns, rows = x * np.float32((side - 1) / size[1]), y * np.float32((side - 1) / size[0])
        return np.asarray(cv2.remap(grid, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), np.float32)


def still() -> Motion:
    """No motion at all."""
    zero = Curve()
    return Motion(zero, zero, zero, zero, zero, zero)


def camera_motion(rng: np.random.Generator, strength: float) -> Motion:
    """Return a camera that pans, zooms in and out, rolls a little and, at times, shakes."""
    pan, zoom, roll = strength * rng.uniform(0.0, 0.25), strength * rng.uniform(0.0, 0.25), strength * rng.uniform(0.0, 0.12)
    shake = strength * rng.uniform(0.002, 0.012) if rng.random() < 0.3 else 0.0
    return Motion(
        _shaken(rng, wander(rng, 0.0, pan), shake),
        _shaken(rng, wander(rng, 0.0, pan * 0.6), shake),
        wander(rng, 0.0, roll),
        wander(rng, 0.0, zoom),
        Curve(),
        wander(rng, 0.0, 0.05 * strength),
    )


def object_motion(rng: np.random.Generator, x: float, y: float, strength: float) -> Motion:
    """Return an object that starts near (x, y) and moves, turns, grows, shrinks and foreshortens; one in five leaves and may
    return.
    """
    reach = strength * rng.uniform(0.02, 0.35)
    across = wander(rng, x, reach)
    if rng.random() < 0.2:
        # Far enough to leave the picture, and back after half a period.
        period = float(rng.uniform(40, 140))
        across = Curve(x, 0.0, ((float(rng.choice([-1.0, 1.0])) * strength * float(rng.uniform(0.7, 1.3)), period, 0.0),))
    spin = Curve(0.0, float(rng.normal(0, 0.02)) * strength) if rng.random() < 0.2 else Curve()
    turn = wander(rng, float(rng.normal(0, 0.3)), strength * rng.uniform(0, 0.5))
    return Motion(
        across,
        wander(rng, y, reach * rng.uniform(0.3, 1.0)),
        Curve(turn.center, spin.drift, turn.waves),
        wander(rng, 0.0, strength * rng.uniform(0, 0.5)),
        wander(rng, 0.0, strength * rng.uniform(0, 0.35)),
        wander(rng, 0.0, strength * rng.uniform(0, 0.2)),
    )


def bending(rng: np.random.Generator, strength: float) -> Bend:
    """Something that bends and stretches, about `strength` of its long side, as animals and people do."""
    lattice = np.stack(np.meshgrid(np.linspace(0.1, 0.9, 4), np.linspace(0.1, 0.9, 4)), -1).reshape(-1, 2)
    centers = lattice + rng.normal(0, 0.05, lattice.shape)
    sway = np.abs(rng.normal(0, strength, lattice.shape)).clip(max=2.5 * strength)
    return Bend(
        centers, sway, np.exp(rng.uniform(math.log(15), math.log(90), lattice.shape)), rng.uniform(0, math.tau, lattice.shape)
    )


def _shaken(rng: np.random.Generator, curve: Curve, amplitude: float) -> Curve:
    if not amplitude:
        return curve
    shake = tuple((amplitude, float(rng.uniform(2.5, 9.0)), float(rng.uniform(0, math.tau))) for _ in range(2))
    return Curve(curve.center, curve.drift, curve.waves + shake)
