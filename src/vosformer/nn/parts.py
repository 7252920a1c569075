"""Which objects to compute together, in systems with one object a slot."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from vosformer.nn.graphs import making_graph
from vosformer.protocol import Layer


class Part(NamedTuple):
    """Some slots, and the samples that they belong to."""

    slots: slice
    samples: slice

    def of(self, layers: Sequence[Layer]) -> list[Layer]:
        """Return the same layers, of these slots only."""
        return [{name: tensor[self.slots] for name, tensor in layer.items()} for layer in layers]


def in_parts(slots: int, like: Tensor) -> list[Part]:
    """Return all slots at once; on a CPU without gradients one by one.

    A frame of one object has work enough for a CPU, and activations then take no more memory for ten objects than for one.

    Args:
        slots: S.
        like: [B,...], a tensor of the frame; slot s belongs to sample ``s // (S // B)``.
    """
    samples = like.shape[0]
    if torch.is_grad_enabled() or like.device.type != "cpu" or making_graph():
        return [Part(slice(0, slots), slice(0, samples))]
    of = [s // (slots // samples) for s in range(slots)]
    return [Part(slice(s, s + 1), slice(b, b + 1)) for s, b in enumerate(of)]


class Gatherer:
    """The layers of all slots, out of layers that come part by part.

    Those of several parts lie in one block of memory, so that it goes back to the system as a whole when a frame is forgotten.

    Args:
        parts: of the slots.
        count: number of layers.
    """

    def __init__(self, parts: Sequence[Part], count: int) -> None:
        self.layers: list[dict[str, Tensor]] = []
        self._parts = parts
        self._count = count

    def taker(self, part: Part) -> Callable[[Layer], None]:
        """Return what is to be called with the layers of this part, tensors [s,N,C] that are alike in all layers and parts,
        one by one.
        """
        indices = iter(range(self._count))

        def take(layer: Layer) -> None:
            if len(self._parts) == 1:
                # Copies: views would hold what they are views of.
                self.layers.append({name: tensor.contiguous() for name, tensor in layer.items()})
                return
            if not self.layers:
                self._allocate(layer)
            room = self.layers[next(indices)]
            for name, tensor in layer.items():
                room[name][part.slots] = tensor

        return take

    def _allocate(self, like: Layer) -> None:
        tensor = next(iter(like.values()))
        block = tensor.new_empty(self._count, len(like), self._parts[-1].slots.stop, *tensor.shape[1:])
        self.layers = [dict(zip(like, layer.unbind(), strict=True)) for layer in block.unbind()]
