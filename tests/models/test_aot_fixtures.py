"""Every recorded array of the official AOT, AOST and DeAOT, computed again by our models."""

from __future__ import annotations

import json
import os
import re
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch
from aot_recordings import VARIANTS, Replay, clip_crc, fill, make_clip

from vosformer.models import aost, aot, deaot

FOLDER = Path(os.environ.get("VOSFORMER_FIXTURES", Path(__file__).parents[1] / "fixtures")) / "aot"
TOLERANCE = 2e-5
KNOWN = {**aot.VARIANTS, **aost.VARIANTS, **deaot.VARIANTS}


@lru_cache(maxsize=4)
def replay(recorded_as: str, depth: int | None) -> Replay:
    if depth is None:
        return Replay(fill(KNOWN[VARIANTS[recorded_as]].build()))
    return Replay(replay(recorded_as, None).model, depth)


def test_recordings_exist() -> None:
    assert list(FOLDER.glob("*.npz")), f"no recordings in {FOLDER}"


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.npz")), ids=lambda path: path.stem)
def test_every_recorded_array(path: Path) -> None:
    name = path.stem.removesuffix("_extra")
    assert name in VARIANTS, f"{path.name} is of a variant that nobody knows"
    with np.load(path) as recorded:
        assert recorded.files
        for key in recorded.files:
            prefix = re.match(r"d(\d)_", key)
            ours = replay(name, int(prefix[1]) if prefix else None)
            forms = ours.forms(key[prefix.end() :] if prefix else key)
            check(recorded[key], closest(forms, recorded[key]), f"{path.stem}: {key}")


def closest(forms: list[torch.Tensor], expected: np.ndarray) -> object:
    fitting = [form for form in forms if isinstance(form, torch.Tensor) and tuple(form.shape) == expected.shape]
    return min(fitting, key=lambda form: np.abs(form.float().numpy() - expected).max(), default=forms[0])


def check(expected: np.ndarray, found: object, what: str) -> None:
    if isinstance(found, dict):
        known = json.loads(expected.tobytes())
        for key, value in found.items():
            assert known.get(key, value) == value, f"{what}: {key} is {value}, recorded {known[key]}"
        return
    assert isinstance(found, torch.Tensor)
    assert tuple(found.shape) == expected.shape, f"{what}: shape {tuple(found.shape)}, recorded {expected.shape}"
    if expected.dtype == np.uint8:
        wrong = int((found.numpy() != expected).sum())
        assert wrong == 0, f"{what}: {wrong} pixels differ"
        return
    worst = float(np.abs(found.float().numpy() - expected).max())
    assert worst <= TOLERANCE, f"{what}: differs by {worst:.2e}"


def test_unknown_arrays_are_no_success() -> None:
    with pytest.raises(KeyError, match="nobody knows"):
        Replay(KNOWN["aot-t"].build(tiny=True)).array("brandnew_logits_t1")


@pytest.mark.parametrize(
    ("kind", "size", "frames", "crc"),
    [
        ("three", (97, 129), 6, 4136407574),
        ("three", (96, 128), 6, 3963797725),
        ("newobj", (97, 129), 6, 3011133835),
        ("newobj", (96, 128), 6, 640939206),
        ("three", (100, 140), 3, 345457862),
        ("twelve", (97, 129), 3, 2353700901),
        ("twelve", (96, 128), 3, 3229398556),
    ],
)
def test_clips_are_the_recorded_ones(kind: str, size: tuple[int, int], frames: int, crc: int) -> None:
    assert clip_crc(make_clip(size, frames, kind)) == crc
