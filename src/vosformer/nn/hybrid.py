"""The transformer block of OneVOS: a ViT block whose keys and values can carry a mask embedding (paper Sec. 3.1)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from vosformer.nn.linear import TokenLinear
from vosformer.nn.token_selector import TokenSelector
from vosformer.nn.vit_blocks import Attention, ViTBlock
from vosformer.protocol import Layer

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

    def identify(self, v: Tensor, mask: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return what the mask embedding [S,N,C] makes of values [S,N,C], and the factors [S,N,heads] of the keys, if it
        changes them.
        """
        if self.form == "none":
            return v, None
        if self.linear_ID_KV is None:
            return v + mask, None
        code = self.linear_ID_KV(mask)
        return v + code[..., self.heads :], 1 + torch.tanh(code[..., : self.heads])


def marked_keys(layer: Layer) -> Tensor:
    """Return the keys [S,M,C] of a layer with their factors `mark` [S,M,heads], if it has any."""
    k, mark = layer["k"], layer.get("mark")
    if mark is None:
        return k
    marked: Tensor = (k.reshape(*mark.shape, -1) * mark[..., None]).flatten(2)
    return marked


class HybridBlock(ViTBlock):
    """A pre-norm transformer block with mask embedding and, optionally, a Dynamic Token Selector.

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
