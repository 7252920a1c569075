"""How tokens of several frames, and JointFormer's compressed memory, go through transformer blocks together."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from vosformer.nn.attention import attend
from vosformer.nn.maps import per_slot
from vosformer.nn.vit_blocks import Projected, ViTBlock
from vosformer.protocol import Layer


def update_compressed_memory(
    blocks: nn.ModuleList,
    token: Tensor | None,
    x: Tensor,
    keep: Collection[int] = (),
    take: Callable[[Layer], None] | None = None,
) -> Tensor | None:
    """Return a token that gathers what the tokens of a frame say, block by block (JointFormer Eq. 3).

    The frame's tokens attend to each other, the token to itself and to them. What has no use is not computed: the frame's output
    of the last block, and without a token everything after the last block of `keep`.

    Args:
        blocks: of type `ViTBlock`.
        token: [S,1,C], or None: the frame is alone.
        x: [S,N,C] the frame's tokens.
        keep: indices of the blocks whose keys and values of the frame are handed to `take`.
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


def sigmoid_attention(block: ViTBlock, x: Tensor, token: Tensor) -> Tensor:
    """Return a block in which tokens attend to a single one, with a sigmoid in place of the softmax (JointFormer Eq. 4).

    Per head the score is ``q k'`` with one k for all positions, and the output is v times the sigmoid of it. So the projections of
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
    return block.add(x, sigmoid_weights(block, x, token) @ values + block.attn.proj.bias)


def sigmoid_weights(block: ViTBlock, x: Tensor, token: Tensor) -> Tensor:
    """Compute the sigmoids of `sigmoid_attention`: how much each token takes from the single one, [S,N,heads] in (0,1).

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


class MovingReferences:
    """JointFormer's reference tokens in modes a, b and c: they go through the joint blocks together with the current frame.

    Args:
        blocks: of type `ViTBlock`.
        joint: indices of the joint blocks, ascending.
        mode: "a", "b" or "c" of Eq. 2.
        past: the references: tokens "x" before the first joint block, and their "q", "k", "v" in it.

    Attributes:
        next: index of the block that comes next.
        projected: queries, keys and values [S,M,C] of the references in it, frame after frame.
    """

    def __init__(self, blocks: nn.ModuleList, joint: Sequence[int], mode: str, past: Sequence[Layer]) -> None:
        self._blocks = [cast(ViTBlock, block) for block in blocks]
        self._joint = joint
        self._mode = mode
        self.next = joint[0]
        self._x = join_layers(past, "x")
        self.projected = Projected(*(join_layers(past, name) for name in "qkv"))

    def layer(self, index: int, current: Projected) -> list[Layer]:
        """Keys and values of joint block `index`; then the references move on as far as that block lets them."""
        tokens = current.q.shape[1]
        while self.next < index:
            # Blocks between joint ones: every frame for itself.
            self._move(self._each(self.projected, None, tokens))
        k, v = self.projected.k, self.projected.v
        if index < self._joint[-1]:
            self._move(self.attend(current, tokens))
        return [{"k": k, "v": v}]

    def attend(self, current: Projected, tokens: int) -> Tensor:
        """Return what the references, of so many tokens a frame, take in by their mode: [S,M,C]."""
        mode, own = self._mode, self.projected
        if mode == "c":
            return self._each(own, current, tokens)
        if mode == "a":
            own = Projected(own.q, torch.cat([own.k, current.k], 1), torch.cat([own.v, current.v], 1))
        return attend(*own, self._blocks[0].heads)

    def _each(self, own: Projected, current: Projected | None, tokens: int) -> Tensor:
        """Frame by frame: to itself, and to the current frame if that is given."""
        slots = own.q.shape[0]
        q, k, v = (torch.unflatten(y, 1, (-1, tokens)).flatten(0, 1) for y in own)
        if current is not None:
            k, v = (torch.cat([y, per_slot(now, len(y))], 1) for y, now in ((k, current.k), (v, current.v)))
        attended = attend(q, k, v, self._blocks[0].heads)
        return torch.unflatten(attended, 0, (slots, -1)).flatten(1, 2)

    def _move(self, attended: Tensor) -> None:
        self._x = self._blocks[self.next].finish(self._x, attended)
        self.next += 1
        self.projected = self._blocks[self.next].project(self._x)


def join_layers(layers: Sequence[Layer], name: str) -> Tensor:
    """Join the tensors [S,n,C] of that name of several layers to [S,M,C]."""
    return layers[0][name] if len(layers) == 1 else torch.cat([layer[name] for layer in layers], 1)
