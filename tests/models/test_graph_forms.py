"""The forms of attention that graphs are made of give what the others give."""

from __future__ import annotations

import pytest
import torch

from vosformer.nn.attention import Relative, attend, attend_locally
from vosformer.nn.graphs import as_graph
from vosformer.nn.maps import Grid
from vosformer.nn.topk import attend_topk


@pytest.mark.parametrize("grid", [Grid(3, 4), Grid(4, 18), Grid(7, 37)])
@pytest.mark.parametrize("window", [3, 15])
@pytest.mark.parametrize("frames", [1, 2])
@pytest.mark.parametrize("told", [True, False])
def test_local_attention_by_tiles(grid: Grid, window: int, frames: int, told: bool) -> None:
    torch.manual_seed(0)
    heads, d, e = 2, 6, 10
    q = torch.randn(2, grid.tokens, heads * d)
    keys = [torch.randn(2, grid.tokens, heads * d) for _ in range(frames)]
    values = [torch.randn(2, grid.tokens, heads * e) for _ in range(frames)]
    own = torch.randn(heads, e, window**2) if told else None
    relative = Relative(torch.randn(heads, window**2, d), torch.randn(heads, window**2), own)
    expected = attend_locally(q, keys, values, relative, grid, window)
    with as_graph():
        found = attend_locally(q, keys, values, relative, grid, window)
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("graph", [True, False])
@pytest.mark.parametrize("count", [None, 3])
def test_closed_gates_leave_keys_out(graph: bool, count: int | None) -> None:
    torch.manual_seed(0)
    heads = 2
    q, k, v, now_k, now_v = (torch.randn(2, n, c) for n, c in ((5, 8), (12, 8), (12, 8), (4, 8), (4, 8)))
    gate = torch.ones(2, 16, 1)
    gate[:, 7:12] = 0
    if count is None:
        keys, values = torch.cat([k, now_k], 1), torch.cat([v, now_v], 1)
        open_ = gate[0, :, 0] > 0
        expected = attend(q, keys[:, open_], values[:, open_], heads)
    else:
        expected = attend_topk(q, (k[:, :7], v[:, :7]), (now_k, now_v), heads, count)
    with as_graph() if graph else torch.no_grad():
        if count is None:
            found = attend(q, [k, now_k], [v, now_v], heads, gate)
        else:
            found = attend_topk(q, (k, v), (now_k, now_v), heads, count, gate)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
