"""The transformer block of OneVOS: a ViT block whose keys and values can carry a mask embedding (paper Sec. 3.1)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from vosformer.nn.linear import TokenLinear
from vosformer.nn.token_selector import TokenSelector
from vosformer.nn.vit_blocks import Attention, Block

IdentityForm = Literal["gated", "added", "none"]


class HybridAttention(Attention):
    """The projections of an attention, and how a mask embedding m enters its keys and values.

    Args:
        width: C.
        heads: number of heads.
        form: "gated", as released: ``K (1 + tanh(a))`` and ``V + b``, where a linear layer makes a (one number a head) and b of m;
            "added", as in the paper's Eq. 1: ``V + m``; "none": this layer gets no mask embedding (Table 4a).
    """

    def __init__(self, width: int, heads: int, form: IdentityForm) -> None:
        super().__init__(width)
        self.heads = heads
        self.form = form
        self.linear_ID_KV = TokenLinear(width, heads + width) if form == "gated" else None

    def identify(self, k: Tensor, v: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values [S,N,C] that carry the mask embedding [S,N,C] (Eq. 1)."""
        if self.form == "none":
            return k, v
        if self.linear_ID_KV is None:
            return k, v + mask
        code = self.linear_ID_KV(mask)
        gate = 1 + torch.tanh(code[..., : self.heads])
        k = (k.reshape(*gate.shape, -1) * gate[..., None]).flatten(2)
        return k, v + code[..., self.heads :]


class HybridBlock(Block):
    """A pre-norm transformer block with mask embedding and, if wanted, a Dynamic Token Selector.

    Args:
        width: C.
        heads: number of heads.
        ratio: hidden width of the feed-forward part / C.
        form: see `HybridAttention`.
        selector: of this layer, or none.
    """

    attn: HybridAttention

    def __init__(self, width: int, heads: int, ratio: int, form: IdentityForm, selector: TokenSelector | None = None) -> None:
        super().__init__(width, heads, ratio)
        self.attn = HybridAttention(width, heads, form)
        self.selector = selector
