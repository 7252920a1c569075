"""The Gated Propagation Module of DeAOT (Sec. 4.2): visual and ID embeddings in two streams with shared attention maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from vosformer.nn.attention import attend, attend_locally
from vosformer.nn.conv import DepthwiseConv2d
from vosformer.nn.drop import DropPath
from vosformer.nn.linear import TokenLinear
from vosformer.nn.lstt import RelativeBias
from vosformer.nn.maps import Grid, to_map, to_tokens
from vosformer.nn.propagation import Block, Past, Stack, StackState, TokenStreams, initialize
from vosformer.protocol import Layer

Maps = Literal["visual", "both"]
"""Which embeddings build the attention maps: the visual ones, or visual and ID ones."""


class DepthwiseConv(nn.Module):
    """Depth-wise convolution without bias, then channel dropout in training."""

    def __init__(self, channels: int, kernel: int, dropout: float) -> None:
        super().__init__()
        self.conv = DepthwiseConv2d(channels, kernel, bias=False)
        self.dropout = nn.Dropout2d(dropout)

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        """[S,N,C] -> [S,N,C]."""
        return to_tokens(self.dropout(self.conv(to_map(x, grid))))


class GatedPropagation(nn.Module):
    """The gated propagation function (DeAOT Eq. 5): ``F_dw(sigma(U) * Corr(Q, K) V) W_O``.

    Args:
        key_dim: C_k, channels of queries and keys.
        values: channels of V and of the gate, all streams together.
        outputs: channels of the result, all streams together.
        streams: 2 (visual and ID), or 1 without decoupling.
        heads: of the attention; each head serves its part of every stream.
        kernel: side of the depth-wise convolution; 0 = none.
        dropout: of whole channels after that convolution.
        window: of local propagation; 0 = everywhere.
    """

    def __init__(
        self, key_dim: int, values: int, outputs: int, streams: int, heads: int, kernel: int, dropout: float, window: int = 0
    ) -> None:
        super().__init__()
        self.heads = heads
        self.streams = streams
        self.window = window
        if window:
            self.relative_emb_k = RelativeBias(key_dim, heads, window)
        self.dw_conv = DepthwiseConv(values, kernel, dropout) if kernel else None
        self.projection = TokenLinear(values, outputs)

    def forward(self, gates: Sequence[Tensor | None], q: Tensor, frames: Sequence[Layer], grid: Grid) -> Tensor:
        """Propagate.

        Args:
            gates: sigma(U) of each stream [S,N,values/streams]; None is a gate of ones.
            q: queries [S,N,C_k].
            frames: what to look at; a single one unless there is a window.
            grid: of the map.

        Returns:
            [S,N,outputs].
        """
        keys, values = [frame["k"] for frame in frames], [self._by_head(frame["v"]) for frame in frames]
        if self.window:
            found = attend_locally(q, keys, values, self.relative_emb_k(), grid, self.window)
        else:
            (k,), (v,) = keys, values
            found = attend(q, k, v, self.heads, frames[0].get("gate"))
        parts = zip(self._by_stream(found).chunk(len(gates), 2), gates, strict=True)
        gated = torch.cat([part if gate is None else part * gate for part, gate in parts], 2)
        out: Tensor = self.projection(gated if self.dw_conv is None else self.dw_conv(gated, grid))
        return out

    def _by_head(self, v: Tensor) -> Tensor:
        """[S,M,streams*heads*d] -> [S,M,heads*streams*d]: what one head carries lies together."""
        if self.heads == 1 or self.streams == 1:
            return v
        return v.view(*v.shape[:2], self.streams, self.heads, -1).transpose(2, 3).flatten(2)

    def _by_stream(self, v: Tensor) -> Tensor:
        if self.heads == 1 or self.streams == 1:
            return v
        return v.view(*v.shape[:2], self.heads, self.streams, -1).transpose(2, 3).flatten(2)


class SelfPropagation(GatedPropagation):
    """Propagation within the frame (DeAOT Eqs. 10 and 11).

    Args:
        channels: C of a stream.
        key_dim: C_k.
        value_dim: C_v, of one stream.
        streams: 2, or 1 without decoupling.
        maps: which embeddings build the attention map.
        heads: of the attention.
        kernel: side of the depth-wise convolution; 0 = none.
        dropout: of whole channels after that convolution.
    """

    def __init__(
        self, channels: int, key_dim: int, value_dim: int, streams: int, maps: Maps, heads: int, kernel: int, dropout: float
    ) -> None:
        super().__init__(key_dim, streams * value_dim, streams * channels, streams, heads, kernel, dropout)
        self.maps = maps
        self.linear_QK = TokenLinear(channels * (streams if maps == "both" else 1), key_dim)
        self.linear_V1 = TokenLinear(channels, value_dim)
        self.linear_U1 = TokenLinear(channels, value_dim)
        if streams == 2:
            self.linear_V2 = TokenLinear(channels, value_dim)
            self.linear_U2 = TokenLinear(channels, value_dim)

    def among(self, normed: TokenStreams, grid: Grid) -> Tensor:
        """Return the normed streams [S,N,C] -> [S,N,streams*C]."""
        q = self.linear_QK(torch.cat(normed, 2) if self.maps == "both" else normed[0])
        v, gates = self.linear_V1(normed[0], "silu"), [self.linear_U1(normed[0], "silu")]
        if self.streams == 2:
            v = torch.cat([v, self.linear_V2(normed[1], "silu")], 2)
            gates.append(self.linear_U2(normed[1], "silu"))
        out: Tensor = self(gates, q, [{"k": q, "v": v}], grid)
        return out


class GPM(Block):
    """Long- and short-term propagation, then self-propagation, in two streams.

    Args:
        first: the first layer: it has no ID stream to begin with.
        channels: C of each stream.
        key_dim: C_k.
        value_dim: C_v of each stream.
        heads: of all attentions.
        window: of short-term propagation; 0 = no short-term propagation.
        kernel: side of the depth-wise convolutions; 0 = none.
        drop_path: stochastic depth on the self-propagation.
        dropout: of channels after the depth-wise convolutions.
        past_maps: which embeddings build the attention maps of long- and short-term propagation.
        self_maps: and those of self-propagation.
    """

    def __init__(
        self,
        first: bool,
        channels: int = 256,
        key_dim: int = 128,
        value_dim: int = 512,
        heads: int = 1,
        window: int = 15,
        kernel: int = 5,
        drop_path: float = 0.1,
        dropout: float = 0.1,
        past_maps: Maps = "visual",
        self_maps: Maps = "both",
    ) -> None:
        super().__init__()
        self.first = first
        self.key_dim = key_dim
        self.norm1 = nn.LayerNorm(channels)
        self.linear_QV = TokenLinear(channels, key_dim + value_dim)
        self.linear_U = TokenLinear(channels, value_dim)
        self.linear_ID_QK = None
        if first:
            self.linear_ID_V = TokenLinear(channels, value_dim)
        else:
            self.id_norm1 = nn.LayerNorm(channels)
            self.linear_ID_V = TokenLinear(2 * channels, value_dim)
            self.linear_ID_U = TokenLinear(channels, value_dim)
            if past_maps == "both":
                self.linear_ID_QK = TokenLinear(channels, key_dim)
        shape = (key_dim, 2 * value_dim, 2 * channels, 2, heads, kernel, dropout)
        self.long_term_attn = GatedPropagation(*shape)
        self.short_term_attn = GatedPropagation(*shape, window) if window else None
        self.norm2 = nn.LayerNorm(channels)
        self.id_norm2 = nn.LayerNorm(channels)
        self.self_attn = SelfPropagation(channels, key_dim, value_dim, 2, self_maps, heads, kernel, dropout)
        self.drop_path = DropPath(drop_path)
        initialize(self)

    def prepare(self, stream: TokenStreams, grid: Grid) -> tuple[TokenStreams, StackState]:
        y = self.norm1(stream[0])
        q = self.linear_QV(y, "none", slice(0, self.key_dim))
        state = {"k": q, "v": self.linear_QV(y, "silu", slice(self.key_dim, None)), "gate": self.linear_U(y, "silu")}
        if self.first:
            return stream, state
        z = self.id_norm1(stream[1])
        if self.linear_ID_QK is not None:
            state["k"] = q + self.linear_ID_QK(z)
        return stream, {**state, "id_gate": self.linear_ID_U(z, "silu"), "z": z}

    def remember(self, state: StackState, identity: Tensor) -> Layer:
        """Keys are the queries; the values are those of the visual stream, then those of the ID stream."""
        inputs = identity if self.first else torch.cat([state["z"], identity], 2)
        return {"k": state["k"], "v": torch.cat([state["v"], self.linear_ID_V(inputs, "silu")], 2)}

    def propagate(self, stream: TokenStreams, state: StackState, past: Past, grid: Grid) -> TokenStreams:
        gates = (state["gate"], state.get("id_gate"))
        found = self.long_term_attn(gates, state["k"], [past.long], grid)
        if self.short_term_attn is not None:
            found = found + self.short_term_attn(gates, state["k"], past.short, grid)
        visual, own = found.chunk(2, 2)
        x = stream[0] + visual
        m = own if self.first else stream[1] + own
        visual, own = self.self_attn.among((self.norm2(x), self.id_norm2(m)), grid).chunk(2, 2)
        return x + self.drop_path(visual), m + self.drop_path(own)


class CoupledGPM(Block):
    """The module without decoupling (DeAOT Table 3a, "w/o De"): one stream, with the ID embedding added before the values as in AOT.

    The arguments are those of `GPM`.
    """

    def __init__(
        self,
        channels: int = 256,
        key_dim: int = 128,
        value_dim: int = 512,
        heads: int = 1,
        window: int = 15,
        kernel: int = 5,
        drop_path: float = 0.1,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.linear_Q = TokenLinear(channels, key_dim)
        self.linear_V = TokenLinear(channels, value_dim)
        self.linear_U = TokenLinear(channels, value_dim)
        shape = (key_dim, value_dim, channels, 1, heads, kernel, dropout)
        self.long_term_attn = GatedPropagation(*shape)
        self.short_term_attn = GatedPropagation(*shape, window) if window else None
        self.norm2 = nn.LayerNorm(channels)
        self.self_attn = SelfPropagation(channels, key_dim, value_dim, 1, "visual", heads, kernel, dropout)
        self.drop_path = DropPath(drop_path)
        initialize(self)

    def prepare(self, stream: TokenStreams, grid: Grid) -> tuple[TokenStreams, StackState]:
        y = self.norm1(stream[0])
        return stream, {"k": self.linear_Q(y), "y": y, "gate": self.linear_U(y, "silu")}

    def remember(self, state: StackState, identity: Tensor) -> Layer:
        return {"k": state["k"], "v": self.linear_V(state["y"] + identity, "silu")}

    def propagate(self, stream: TokenStreams, state: StackState, past: Past, grid: Grid) -> TokenStreams:
        x = stream[0] + self.long_term_attn([state["gate"]], state["k"], [past.long], grid)
        if self.short_term_attn is not None:
            x = x + self.short_term_attn([state["gate"]], state["k"], past.short, grid)
        return (x + self.drop_path(self.self_attn.among((self.norm2(x),), grid)),)


class StreamNorm(nn.Module):
    """Group norm with one group a stream, over all positions: each stream is normalized as a whole."""

    def __init__(self, streams: int, channels: int) -> None:
        super().__init__()
        self.gn = nn.GroupNorm(streams, streams * channels)

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        """[S,N,streams*C] -> the same."""
        return to_tokens(self.gn(to_map(x, grid)))


class GPMStack(Stack):
    """A stack of gated propagation modules; only the last output is normalized, and decoded.

    Args:
        blocks: one a layer.
        streams: 2, or 1 without decoupling.
        channels: C of a stream.
    """

    def __init__(self, blocks: Sequence[Block], streams: int, channels: int) -> None:
        super().__init__(blocks, len(blocks), shared=False)
        self.decoder_norms = nn.ModuleList([StreamNorm(streams, channels)])

    def normalize(self, streams: Sequence[TokenStreams], grid: Grid) -> tuple[Tensor, ...]:
        """Return the streams of each layer side by side; the last one normalized."""
        outputs = [torch.cat(stream, 2) for stream in streams]
        return (*outputs[:-1], self.decoder_norms[0](outputs[-1], grid))
