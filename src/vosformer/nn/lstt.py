"""The Long Short-Term Transformer of AOT (Sec. 4.1.2) and its scalable form S-LSTT of AOST (Sec. 4.2)."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vosformer.nn.attention import Relative, attend, attend_locally
from vosformer.nn.conv import DepthwiseConv2d
from vosformer.nn.drop import DropPath
from vosformer.nn.linear import TokenLinear
from vosformer.nn.maps import Grid, to_map, to_tokens
from vosformer.nn.positions import sine_positions
from vosformer.nn.propagation import Block, Past, Stack, StackState, TokenStreams, initialize
from vosformer.protocol import Layer


class SelfAttention(nn.Module):
    """Multi-head attention of a frame to itself; positions go to queries and keys only."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.linear_Q = TokenLinear(channels, channels)
        self.linear_K = TokenLinear(channels, channels)
        self.linear_V = TokenLinear(channels, channels)
        self.projection = TokenLinear(channels, channels)

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        """[S,N,C], [1,N,C] -> [S,N,C]."""
        placed = x + positions
        out: Tensor = self.projection(attend(self.linear_Q(placed), self.linear_K(placed), self.linear_V(x), self.heads))
        return out


class LongTermAttention(nn.Module):
    """Attention to all positions of all remembered frames (AOT Eq. 5); projections of Q, K and V belong to the block."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.projection = TokenLinear(channels, channels)

    def forward(self, q: Tensor, memory: Layer) -> Tensor:
        """[S,N,C] and a memory of M tokens -> [S,N,C]."""
        out: Tensor = self.projection(attend(q, memory["k"], memory["v"], self.heads, memory.get("gate")))
        return out


class RelativeBias(nn.Conv2d):
    """What gives logits of the offsets of a window, from the query; the official weights are those of a grouped 1x1 convolution."""

    def __init__(self, channels: int, heads: int, window: int) -> None:
        super().__init__(channels, heads * window**2, 1, groups=heads)

    def forward(self, values: Tensor | None = None) -> Relative:  # type: ignore[override]
        """Give the weights as `attend_locally` takes them, with the relative values if there are any."""
        assert self.bias is not None
        weight = self.weight.view(self.groups, -1, self.weight.shape[1])
        return Relative(weight, self.bias.view(self.groups, -1), values)


class ShortTermAttention(nn.Module):
    """Attention to a window in the last frames (AOT Eq. 6), with learned relative biases and values.

    Args:
        channels: C.
        heads: number of heads.
        window: side of the window, odd.
    """

    def __init__(self, channels: int, heads: int, window: int) -> None:
        super().__init__()
        self.window = window
        self.relative_emb_k = RelativeBias(channels, heads, window)
        self.relative_emb_v = nn.Parameter(torch.zeros(heads, channels // heads, window**2))
        self.projection = TokenLinear(channels, channels)

    def forward(self, q: Tensor, frames: Sequence[Layer], grid: Grid) -> Tensor:
        """[S,N,C] and the last frames -> [S,N,C]."""
        keys, values = [frame["k"] for frame in frames], [frame["v"] for frame in frames]
        relative = self.relative_emb_k(self.relative_emb_v)
        out: Tensor = self.projection(attend_locally(q, keys, values, relative, grid, self.window))
        return out


class Activation(nn.Module):
    """Group norm over the whole map, GELU, depth-wise convolution: the middle of the feed-forward module.

    Args:
        channels: of the hidden layer.
        kernel: side of the depth-wise convolution; 0 = none.
    """

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.gn = nn.GroupNorm(32, channels)
        self.conv = DepthwiseConv2d(channels, kernel, bias=False) if kernel else None

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        """[S,N,C] -> [S,N,C]."""
        hidden = F.gelu(self.gn(to_map(x, grid)))
        return to_tokens(hidden if self.conv is None else self.conv(hidden))


class LSTTBlock(Block):
    """Self-attention, long- and short-term attention, feed-forward; each behind a layer norm.

    Args:
        channels: C.
        heads: of all three attentions.
        hidden: channels of the feed-forward module.
        window: side of the short-term window; 0 = no short-term attention.
        kernel: side of the depth-wise convolution in the feed-forward module; 0 = none.
        drop_path: rate of stochastic depth on the self-attention and the feed-forward module.
    """

    def __init__(self, channels: int, heads: int, hidden: int, window: int, kernel: int, drop_path: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(channels)
        self.self_attn = SelfAttention(channels, heads)
        self.norm2 = nn.LayerNorm(channels)
        self._build_matching(channels)
        self.long_term_attn = LongTermAttention(channels, heads)
        self.short_term_attn = ShortTermAttention(channels, heads, window) if window else None
        self.norm3 = nn.LayerNorm(channels)
        self.linear1 = TokenLinear(channels, hidden)
        self.activation = Activation(hidden, kernel)
        self.linear2 = TokenLinear(hidden, channels)
        self.drop_path = DropPath(drop_path)
        initialize(self)
        if self.short_term_attn is not None:
            nn.init.zeros_(self.short_term_attn.relative_emb_v)

    def _build_matching(self, channels: int) -> None:
        self.linear_Q = TokenLinear(channels, channels)
        self.linear_V = TokenLinear(channels, channels)

    def _match(self, y: Tensor) -> StackState:
        return {"y": y, "k": self.linear_Q(y)}

    def prepare(self, stream: TokenStreams, grid: Grid) -> tuple[TokenStreams, StackState]:
        (x,) = stream
        positions = sine_positions(grid, x.shape[2], x.device, x.dtype)
        x = x + self.drop_path(self.self_attn(self.norm1(x), positions))
        return (x,), self._match(self.norm2(x))

    def remember(self, state: StackState, identity: Tensor) -> Layer:
        """Keys are the queries (siamese matching); the ID embedding is added before the projection of the values."""
        return {"k": state["k"], "v": self.linear_V(state["y"] + identity)}

    def propagate(self, stream: TokenStreams, state: StackState, past: Past, grid: Grid) -> TokenStreams:
        (x,) = stream
        x = x + self.long_term_attn(state["k"], past.long)
        if self.short_term_attn is not None:
            x = x + self.short_term_attn(state["k"], past.short, grid)
        hidden = self.activation(self.linear1(self.norm3(x)), grid)
        return (x + self.drop_path(self.linear2(hidden)),)


class ScalableLSTTBlock(LSTTBlock):
    """The block of S-LSTT, with layer-wise ID-based attention (AOST Eq. 8).

    Args:
        id_weight: project the ID embedding by weights of this layer's own; else it is added to the values as it is.
        gate: scale the keys of the memory by ``1 + tanh`` of a projection of the ID embedding: one number for each head and position
            (the official code), or with "position" one for each position (the paper).
        options: as for `LSTTBlock`.
    """

    def __init__(self, channels: int, *options: Any, id_weight: bool = True, gate: bool | str = True) -> None:
        self._gate, self._values = gate, id_weight
        super().__init__(channels, *options)

    def _build_matching(self, channels: int) -> None:
        self.linear_QV = TokenLinear(channels, 2 * channels)
        self._gates = 0 if not self._gate else 1 if self._gate == "position" else self.heads
        outputs = self._gates + channels * self._values
        self.linear_ID_KV = TokenLinear(channels, outputs) if outputs else None

    def _match(self, y: Tensor) -> StackState:
        k, v = self.linear_QV(y).chunk(2, 2)
        return {"k": k, "v": v}

    def remember(self, state: StackState, identity: Tensor) -> Layer:
        """K' = K (1 + tanh g), V' = V + E W_id."""
        return self.mark(state, identity, self.linear_ID_KV)

    def mark(self, state: StackState, identity: Tensor, weights: nn.Module | None) -> Layer:
        """Return the same with the weights of a layer (`linear_ID_KV`) that uses this block."""
        k, v = state["k"], state["v"]
        if weights is None:
            return {"k": k, "v": v + identity}
        projected = weights(identity)
        if self._gates:
            gate = 1 + projected[..., : self._gates].tanh()
            k = (k.view(*gate.shape, -1) * gate[..., None]).flatten(2)
            projected = projected[..., self._gates :]
        return {"k": k, "v": v + (projected if self._values else identity)}


class _Layer(Block):
    """A shared block as one layer sees it: with the weights of its own for identities and gates."""

    _block: ScalableLSTTBlock
    _weights: nn.Module

    def __init__(self, block: ScalableLSTTBlock, weights: nn.Module) -> None:
        super().__init__()
        # Not registered: the stack owns both.
        object.__setattr__(self, "_block", block)
        object.__setattr__(self, "_weights", weights)

    def prepare(self, stream: TokenStreams, grid: Grid) -> tuple[TokenStreams, StackState]:
        return self._block.prepare(stream, grid)

    def remember(self, state: StackState, identity: Tensor) -> Layer:
        return self._block.mark(state, identity, self._weights)

    def propagate(self, stream: TokenStreams, state: StackState, past: Past, grid: Grid) -> TokenStreams:
        return self._block.propagate(stream, state, past, grid)


class LSTT(Stack):
    """A stack of (S-)LSTT blocks.

    Args:
        blocks: one a layer, or a single one if `shared`.
        depth: number of layers.
        shared: one block for all layers.
        channels: C.
        own_identity: with `shared`: each layer has its own `linear_ID_KV` (AOST as its paper has it).
    """

    def __init__(self, blocks: Sequence[Block], depth: int, shared: bool, channels: int, own_identity: bool = False) -> None:
        super().__init__(blocks, depth, shared)
        self.identity_layers: nn.ModuleList | None = None
        first = blocks[0]
        if own_identity and isinstance(first, ScalableLSTTBlock) and first.linear_ID_KV is not None:
            self.identity_layers = nn.ModuleList([deepcopy(first.linear_ID_KV) for _ in range(depth)])
            for layer in self.identity_layers:
                initialize(layer)
            first.linear_ID_KV = None
        if shared:
            self.decoder_norm = nn.LayerNorm(channels)
        else:
            self.decoder_norms = nn.ModuleList([nn.LayerNorm(channels) for _ in range(depth)])

    def block(self, index: int) -> Block:
        """Return the block of layer `index`."""
        if self.identity_layers is None:
            return super().block(index)
        return _Layer(cast(ScalableLSTTBlock, self.layer), self.identity_layers[index])

    def normalize(self, streams: Sequence[TokenStreams], grid: Grid) -> tuple[Tensor, ...]:
        """Layer norm of each layer's output; the stream itself goes on without it."""
        return tuple((self.decoder_norm if self.shared else self.decoder_norms[i])(x) for i, (x,) in enumerate(streams))
