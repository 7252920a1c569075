"""High dynamic range (PQ, HLG) and linear light as the 8-bit pictures that models were trained on."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vosformer.io.frames import Image

PQ, HLG = 16, 18
"""Transfer characteristics as video streams number them (ITU-T H.273, table 3)."""

_BT2020 = 9
_WHITE_NITS = 203.0  # of a white page in HDR (ITU-R BT.2408)
_PEAK_NITS = 1000.0
# Linear light of BT.2020 to that of BT.709 (ITU-R BT.2087).
_TO_BT709 = np.array([[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], np.float32)
_KNEE = 0.7  # of white: below it light stays as it is
_STEPS = 65535


def tone_map(values: NDArray[np.uint16], transfer: int, primaries: int = _BT2020) -> Image:
    """Show an HDR picture as an ordinary one.

    Light up to 0.7 of a white page (203 nits) keeps its brightness; what is brighter is rolled off smoothly, so that 1000 nits
    become full white. Colors outside of BT.709 are cut.

    Args:
        values: uint16 R'G'B' [H,W,3], full range.
        transfer: `PQ` (SMPTE ST 2084) or `HLG` (ARIB STD-B67).
        primaries: as H.273 numbers them; 9 is BT.2020.

    Returns:
        uint8 [H,W,3], sRGB.
    """
    light = _decoding(transfer)[values]
    if transfer == HLG:  # the OOTF of BT.2100 for a display of 1000 nits: the brightness as a whole gets the exponent 1.2
        luminance = light @ np.array([0.2627, 0.678, 0.0593], np.float32)
        light *= (_PEAK_NITS / _WHITE_NITS) * np.maximum(luminance, 1e-6)[..., None] ** 0.2
    if primaries == _BT2020:
        light = (light @ _TO_BT709.T).clip(0)
    most = light.max(-1, keepdims=True)
    light *= roll_off(most, _PEAK_NITS / _WHITE_NITS) / np.maximum(most, 1e-6)
    return np.asarray(_encoding()[np.rint(light.clip(0, 1) * _STEPS).astype(np.uint16)])


def srgb(light: NDArray[Any]) -> NDArray[np.float32]:
    """Encode linear light as sRGB does (IEC 61966-2-1); values above 1 go on along the same curve."""
    light = np.maximum(light, 0)
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055).astype(np.float32)


def roll_off(light: NDArray[np.float32], peak: float) -> NDArray[np.float32]:
    """Return a curve that is the identity up to the knee and bends so that the peak becomes 1, with one slope at the knee.

    Args:
        light: in units of white.
        peak: above 1.
    """
    room, reach = 1 - _KNEE, peak - _KNEE
    above = np.maximum(light - _KNEE, 0) / room
    # Reinhard's curve with a white point, in units of the room above the knee.
    bent = above * (1 + above / (reach / room) ** 2) / (1 + above)
    return np.where(light > _KNEE, _KNEE + room * bent, light).astype(np.float32)


@lru_cache(maxsize=2)
def _decoding(transfer: int) -> NDArray[np.float32]:
    """Light of every 16-bit value: in units of white for PQ (SMPTE ST 2084), scene light 0 to 1 for HLG (ITU-R BT.2100)."""
    signal = np.arange(_STEPS + 1) / _STEPS
    if transfer == PQ:
        root = signal ** (4096 / 2523 / 128)
        light = (np.maximum(root - 3424 / 4096, 0) / (2413 / 128 - 2392 / 128 * root)) ** (16384 / 2610)
        return np.asarray((light * 10000 / _WHITE_NITS).astype(np.float32))
    a, b = 0.17883277, 1 - 4 * 0.17883277
    c = 0.5 - a * np.log(4 * a)
    return np.asarray(np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12).astype(np.float32))


@lru_cache(maxsize=1)
def _encoding() -> Image:
    return np.rint(srgb(np.arange(_STEPS + 1, dtype=np.float32) / _STEPS) * 255).astype(np.uint8)
