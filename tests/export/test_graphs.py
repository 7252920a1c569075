"""Every variant's graphs over a bank of fixed capacity, run by the NumPy runner, give the labels of a session."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from export_clip import SIZE, agreement, eager_runner

from vosformer.inference.session import Session
from vosformer.nn.maps import Grid
from vosformer.nn.vit_blocks import resize_by_products, resize_positions
from vosformer.registry import new_model, variants

FIRST = {"aot-t", "deaot-s", "aost", "simvos-tiny", "jointformer-tiny", "onevos-tiny", "onevos-tiny-d"}
NAMES = [each.name for each in variants() if each.name not in FIRST]


def _agrees(name: str, folder: Path, memory: str = "default", least: float = 0.9995, **overrides: object) -> None:
    torch.manual_seed(0)
    model = new_model(name, tiny=True, **overrides).eval()
    session = Session(model, device="cpu", dtype="fp32", size=SIZE, memory=memory, closer="off")
    assert agreement(session, eager_runner(model, folder, memory), 12) > least


@pytest.mark.parametrize("name", sorted(FIRST))
def test_one_variant_a_system_agrees(name: str, tmp_path: Path) -> None:
    _agrees(name, tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_every_other_variant_agrees(name: str, tmp_path: Path) -> None:
    _agrees(name, tmp_path)


OVERFLOWING = {
    "deaot-t": "every-2",
    "jointformer-tiny": "queue-3-every-2",
    "onevos-tiny": "cap-2-every-2",
    "onevos-tiny-d": "cap-2-every-2",
}


@pytest.mark.parametrize(("name", "memory"), OVERFLOWING.items())
def test_banks_that_overflow_agree(name: str, memory: str, tmp_path: Path) -> None:
    _agrees(name, tmp_path, memory)


@pytest.mark.parametrize("by_scale", [False, True])
@pytest.mark.parametrize("grid", [Grid(6, 6), Grid(4, 9), Grid(5, 11), Grid(13, 1)])
def test_positions_are_resized_by_products_alike(grid: Grid, by_scale: bool) -> None:
    table = torch.randn(1, 36, 8, generator=torch.Generator().manual_seed(0))
    expected = resize_positions(table, grid, by_scale)
    torch.testing.assert_close(resize_by_products(table, grid, by_scale), expected, atol=1e-5, rtol=0)


def test_a_top_k_filter_agrees(tmp_path: Path) -> None:
    # Which of two nearly equal scores is the fifth is a matter of rounding; probabilities are compared, too.
    _agrees("jointformer-tiny", tmp_path, least=0.998, topk=5)


def test_a_smaller_depth_agrees(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = new_model("aost", tiny=True).eval()
    session = Session(model, device="cpu", dtype="fp32", size=SIZE, memory="every-2", closer="off")
    assert agreement(session, eager_runner(model, tmp_path, "every-2", depth=2), 8, depth=2) > 0.999
