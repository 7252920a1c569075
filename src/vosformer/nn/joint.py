"""Transformer blocks in which one token an object, JointFormer's compressed memory, takes part."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import cast

import torch
from torch import Tensor, nn

from vosformer.nn.attention import attend
from vosformer.nn.vit_blocks import ViTBlock
from vosformer.protocol import Layer


def absorb(
    blocks: nn.ModuleList,
    token: Tensor | None,
    x: Tensor,
    keep: Collection[int] = (),
    take: Callable[[Layer], None] | None = None,
) -> Tensor | None:
    """Return a token that gathers what the tokens of a frame say, block by block (JointFormer Eq. 3).

    The frame's tokens attend to each other, the token to itself and to them. What nobody asks for is not computed: the frame's output
    of the last block, and without a token everything after the last block of `keep`.

    Args:
        blocks: of type `ViTBlock`.
        token: [S,1,C], or None: the frame is alone.
        x: [S,N,C] the frame's tokens.
        keep: indices of the blocks whose keys and values of the frame are wanted.
        take: called with "k" and "v" [S,N,C] of each block of `keep`, one after the other; views of larger tensors.

    Returns:
        The token after the last block.
    """
    lead = 0 if token is None else 1
    last = max(keep, default=-1) if token is None else len(blocks) - 1
    y = x if token is None else torch.cat([token, x], 1)
    for i in range(last + 1):
        block = cast(ViTBlock, blocks[i])
        if i < last:
            q, k, v = block.project(y)
            attended = attend(q[:, lead:], k[:, lead:], v[:, lead:], block.heads)
            if lead:
                attended = torch.cat([attend(q[:, :1], k, v, block.heads), attended], 1)
            y = block.finish(y, attended)
        else:
            k, v = block.project_keys(y)
            if lead:
                token = block.finish(y[:, :1], attend(block.project_queries(y[:, :1]), k, v, block.heads))
        if i in keep and take is not None:
            take({"k": k[:, lead:], "v": v[:, lead:]})
    return token


def gated(block: ViTBlock, x: Tensor, token: Tensor) -> Tensor:
    """Return a block in which tokens attend to a single one, with a sigmoid in place of the softmax (JointFormer Eq. 4).

    Per head the score is ``q k'`` with one k for all places, and the output is v times the sigmoid of it. So the projections of
    queries and of the output are folded into that k and that v: [heads,C] matrices in place of [C,C] ones.

    Args:
        block: its weights.
        x: [S,N,C].
        token: [S,1,C].

    Returns:
        [S,N,C].
    """
    heads = block.heads
    v = torch.unflatten(block.project_keys(token)[1][:, 0], 1, (heads, -1))
    values = torch.einsum("chd,shd->shc", torch.unflatten(block.attn.proj.weight, 1, (heads, -1)), v)
    return block.add(x, gates(block, x, token) @ values + block.attn.proj.bias)


def gates(block: ViTBlock, x: Tensor, token: Tensor) -> Tensor:
    """Compute the sigmoids of `gated`: how much each token takes from the single one, [S,N,heads] in (0,1).

    Args:
        block: its weights.
        x: [S,N,C].
        token: [S,1,C].
    """
    heads, width = block.heads, x.shape[2]
    k = torch.unflatten(block.project_keys(token)[0][:, 0], 1, (heads, -1))
    w = torch.unflatten(block.attn.qkv.weight[:width], 0, (heads, -1))
    b = torch.unflatten(block.attn.qkv.bias[:width], 0, (heads, -1))
    keys = torch.einsum("hdc,shd->sch", w, k)
    scores = block.norm1(x) @ keys + (b * k).sum(2)[:, None]
    return torch.sigmoid(scores * (width // heads) ** -0.5)
