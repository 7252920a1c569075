"""What the propagation stacks of AOT, AOST and DeAOT have in common: a block, and the loop over the blocks.

A block works in two steps around the memory. `prepare` computes what the frame is matched with; `propagate` brings in the past.
Between the two, `remember` can turn the prepared state and an ID embedding into what the memory keeps; a later `write` does the same
from the stored state, once the masks of the frame are known.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import NamedTuple, cast

from torch import Tensor, nn

from vosformer.nn.maps import Grid, per_slot
from vosformer.protocol import Layer

TokenStreams = tuple[Tensor, ...]
"""The tokens [S,N,C] that flow through the blocks: one in AOT, visual and ID ones in DeAOT."""

StackState = dict[str, Tensor]
"""What a block keeps of the frame that is being read, [S,N,C] by name: enough for `Block.remember`."""


class Past(NamedTuple):
    """What a block looks back at.

    Attributes:
        long: the long-term memory, "k" and "v" [S,M,C].
        short: the frames of the short-term memory, the latest first; "k" and "v" [S,N,C] each.
    """

    long: Layer
    short: tuple[Layer, ...]


class Block(nn.Module, ABC):
    """One layer of hierarchical propagation."""

    @abstractmethod
    def prepare(self, stream: TokenStreams, grid: Grid) -> tuple[TokenStreams, StackState]:
        """Return what does not need the past. Returns the stream so far, and the state."""

    @abstractmethod
    def remember(self, state: StackState, identity: Tensor) -> Layer:
        """Return what the memory keeps of a frame: "k" and "v" [S,N,C], from its state and its ID embedding E [S,N,C]."""

    @abstractmethod
    def propagate(self, stream: TokenStreams, state: StackState, past: Past, grid: Grid) -> TokenStreams:
        """Bring the past into the stream."""


class Stack(nn.Module, ABC):
    """Blocks one after the other; either `layers`, or one `layer` that is used again and again.

    Args:
        blocks: one block a layer, or a single one if `shared`.
        depth: number of layers.
        shared: use the same block for all layers.
    """

    def __init__(self, blocks: Sequence[Block], depth: int, shared: bool) -> None:
        super().__init__()
        self.depth = depth
        self.shared = shared
        if shared:
            self.layer = blocks[0]
        else:
            self.layers = nn.ModuleList(blocks)

    def block(self, index: int) -> Block:
        """Return the block of layer `index`."""
        return self.layer if self.shared else cast(Block, self.layers[index])

    def forward(
        self, start: Tensor, slots: int, grid: Grid, depth: int, past: Callable[[int, StackState], Past], finish: bool = True
    ) -> tuple[list[TokenStreams], list[StackState]]:
        """Run the first layers.

        Args:
            start: input tokens [B,N,C]; what the first layer does before it looks back is the same for all slots of a sample.
            slots: S.
            grid: of their map.
            depth: how many layers to run.
            past: from the index and the state of a layer, what it looks back at.
            finish: run the last layer to its end; else only up to its state.

        Returns:
            The stream after each layer that was run to its end, and the state of each layer.
        """
        stream: TokenStreams = (start,)
        streams: list[TokenStreams] = []
        states: list[StackState] = []
        for index in range(depth):
            block = self.block(index)
            stream, state = block.prepare(stream, grid)
            if index == 0:
                stream = tuple(per_slot(tokens, slots) for tokens in stream)
                state = {name: per_slot(tokens, slots) for name, tokens in state.items()}
            states.append(state)
            looked_at = past(index, state)
            if index == depth - 1 and not finish:
                break
            stream = block.propagate(stream, state, looked_at, grid)
            streams.append(stream)
        return streams, states

    @abstractmethod
    def normalize(self, streams: Sequence[TokenStreams], grid: Grid) -> tuple[Tensor, ...]:
        """Return the outputs [S,N,C] of the layers as the decoder wants them."""


def initialize(module: nn.Module) -> None:
    """Xavier-uniform weights for everything that has two dimensions or more, as the official code does."""
    for parameter in module.parameters():
        if parameter.dim() > 1:
            nn.init.xavier_uniform_(parameter)
