"""The top-k filter against sorting; chunks, ties, dtypes, gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vosformer.nn import onednn, topk
from vosformer.nn.attention import attend
from vosformer.nn.topk import attend_topk, kth_largest


def tensors(dtype: torch.dtype = torch.float64, slots: int = 2, now: int = 10, past: int = 23, width: int = 12) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    sizes = (now, past, past, now, now)
    return [torch.randn(slots, n, width, dtype=torch.float64, generator=generator).to(dtype) for n in sizes]


def by_sorting(q: Tensor, k: Tensor, v: Tensor, ck: Tensor, cv: Tensor, heads: int, count: int) -> Tensor:
    out = torch.zeros_like(q)
    d = q.shape[2] // heads
    for s in range(q.shape[0]):
        for h in range(heads):
            part = slice(h * d, (h + 1) * d)
            for n in range(q.shape[1]):
                past, own = k[s, :, part] @ q[s, n, part] / d**0.5, ck[s, :, part] @ q[s, n, part] / d**0.5
                best = past.argsort(descending=True)[:count]
                weights = torch.cat([past[best], own]).softmax(0)
                out[s, n, part] = weights @ torch.cat([v[s, best, part], cv[s, :, part]])
    return out


@pytest.mark.parametrize("count", [1, 5, 22, 23, 100])
@pytest.mark.parametrize("scores", [1, 700, 1 << 22])
def test_equals_sorting(count: int, scores: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topk, "_CPU_SCORES", scores)
    q, k, v, ck, cv = tensors()
    expected = by_sorting(q, k, v, ck, cv, 3, count)
    torch.testing.assert_close(attend_topk(q, (k, v), (ck, cv), 3, count), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_fast_kernels_agree(dtype: torch.dtype) -> None:
    q, k, v, ck, cv = tensors(dtype, now=70, past=150, width=48)
    with torch.inference_mode():
        fast = attend_topk(q, (k, v), (ck, cv), 3, 20)
        with onednn.reference_kernels():
            plain = attend_topk(q, (k, v), (ck, cv), 3, 20)
    assert fast.dtype == dtype
    torch.testing.assert_close(fast, plain, atol=1e-5 if dtype == torch.float32 else 0.1, rtol=0)


def test_the_kth_largest() -> None:
    scores = torch.tensor([[3.0, 1.0, 2.0, 2.0], [0.0, -1.0, 5.0, 4.0]])
    assert kth_largest(scores, 2).tolist() == [[2.0], [4.0]]
    assert kth_largest(scores.bfloat16(), 4).tolist() == [[1.0], [-1.0]]
    assert torch.equal(scores, torch.tensor([[3.0, 1.0, 2.0, 2.0], [0.0, -1.0, 5.0, 4.0]]))


def test_equal_scores_all_count() -> None:
    q, k, v, ck, cv = tensors(past=4)
    same = k[:, :1].expand(-1, 4, -1)
    torch.testing.assert_close(
        attend_topk(q, (same, v), (ck, cv), 3, 2), attend(q, torch.cat([same, ck], 1), torch.cat([v, cv], 1), 3)
    )


def test_gradients() -> None:
    inputs = [x.requires_grad_() for x in tensors(slots=1, now=4, past=6, width=4)]
    assert torch.autograd.gradcheck(lambda q, k, v, ck, cv: attend_topk(q, (k, v), (ck, cv), 2, 3), inputs)
