"""Every recorded array of the official SimVOS, JointFormer and OneVOS code, computed again by our models.

`HANDLERS` says, for the beginning of a file's name, who computes its arrays: a function from the rest of the name to a function (or
several, of which one must be right) from an array's name to its values, which raises KeyError for a name that it does not know. For
an array of labels it also knows "<name>_margin": how far apart the two best probabilities are.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from jointformer_recordings import jointformer
from numpy.typing import NDArray
from onevos_recordings import onevos
from simvos_recordings import simvos
from torch import Tensor
from vit_recordings import make_clip

FOLDER = Path(os.environ.get("VOSFORMER_FIXTURES", Path(__file__).parents[1] / "fixtures")) / "vit"


def clip(size: str) -> Callable[[str], NDArray[Any]]:
    """The clip itself."""
    height, width = map(int, size.split("x"))
    images, labels = make_clip(height, width, 6)
    return lambda name: {"images": images, "labels": labels}[name]


Values = Callable[[str], Tensor | NDArray[Any]]

HANDLERS: dict[str, Callable[[str], Values | list[Values]]] = {
    "clip_": clip,
    "simvos_": simvos,
    "jointformer_": jointformer,
    "onevos_": onevos,
}


def handler(stem: str) -> list[Values]:
    found = [prefix for prefix in HANDLERS if stem.startswith(prefix)]
    assert found, f"{stem}.npz is of a system that nobody knows"
    values = HANDLERS[found[0]](stem.removeprefix(found[0]))
    return values if isinstance(values, list) else [values]


def test_recordings_exist() -> None:
    assert list(FOLDER.glob("*.npz")), f"no recordings in {FOLDER}"


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.npz")), ids=lambda path: path.stem)
@torch.inference_mode()
def test_every_recorded_array(path: Path) -> None:
    alternatives = handler(path.stem)
    with np.load(path) as recorded:
        assert recorded.files
        for name in recorded.files:
            for last, values in zip([False] * (len(alternatives) - 1) + [True], alternatives, strict=True):
                try:
                    compare(recorded[name], values, name, path.stem)
                    break
                except AssertionError:
                    if last:
                        raise


def compare(expected: NDArray[Any], values: Values, name: str, stem: str) -> None:
    found = values(name)
    array = found.detach().numpy() if isinstance(found, Tensor) else found
    if "label" in name and array.shape == expected.shape and (array != expected).any():
        # Allowed where the two best probabilities are closer than 1e-4.
        array = np.where(np.asarray(values(f"{name}_margin")) < 1e-4, expected, array)
    check(expected, array, name, f"{stem}: {name}", "top" in stem or stem == "jointformer_extra")


def check(expected: NDArray[Any], found: NDArray[Any], name: str, what: str, near_ties: bool) -> None:
    assert found.shape == expected.shape, f"{what}: shape {found.shape}, recorded {expected.shape}"
    if expected.dtype.kind in "ui":
        wrong = int((found != expected).sum())
        assert wrong == 0, f"{what}: {wrong} values differ"
        return
    error = np.abs(found.astype(np.float64) - expected.astype(np.float64))
    if expected.dtype == np.float16:
        assert error.max() <= 1e-3, f"{what}: differs by {error.max():.2e}"
    elif "cls" in name:
        assert error.max() <= 1e-4, f"{what}: differs by {error.max():.2e}"
    elif near_ties and "logits" in name:
        # One near-tie at the k-th largest score of a top-k filter moves a whole map, that of one frame and object; the others agree.
        worst = error.reshape(-1, *error.shape[-2:]).max((1, 2))
        assert (worst <= 2e-4).mean() >= 2 / 3, f"{what}: {(worst > 2e-4).mean():.0%} of the maps differ"
        assert worst.max() <= 3e-3, f"{what}: differs by {worst.max():.2e}"
    else:
        assert error.max() <= 2e-4, f"{what}: differs by {error.max():.2e}"


def test_unknown_files_and_arrays_are_no_success() -> None:
    with pytest.raises(AssertionError, match="nobody knows"):
        handler("brandnew_B")
    with pytest.raises(KeyError):
        clip("96x128")("brandnew")


def test_check_can_fail() -> None:
    logits = np.zeros((2, 3), np.float32)
    refuse = partial(pytest.raises, AssertionError)
    with refuse(match="shape"):
        check(logits, logits[:1], "logits4", "x", False)
    with refuse(match="differs by"):
        check(logits, logits + 3e-4, "logits4", "x", False)
    with refuse(match="differ"):
        check(logits, logits + 3e-4, "logits4", "x", True)
    maps = np.zeros((3, 2, 2), np.float32)
    moved = maps.copy()
    moved[0] = 2e-3
    check(maps, moved, "logits4", "x", True)
    with refuse(match="of the maps differ"):
        check(maps, np.roll(moved, 1, 0) + moved, "logits4", "x", True)
    with refuse(match="differs by"):
        check(maps, 2 * moved, "logits4", "x", True)
    with refuse(match="differs by"):
        check(logits, logits + 2e-4, "cls_after_ref", "x", True)
    with refuse(match="6 values"):
        check(logits.astype(np.uint8), logits + 1, "label", "x", False)
    torch.testing.assert_close(torch.from_numpy(logits), torch.zeros(2, 3))
