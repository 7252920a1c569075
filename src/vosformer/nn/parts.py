"""Which objects to compute together, in systems with one object a slot."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from vosformer.types import Layer


class Part(NamedTuple):
    """Some slots, and the samples that they belong to."""

    slots: slice
    samples: slice

    def of(self, layers: Sequence[Layer]) -> list[Layer]:
        """The same layers, of these slots only."""
        return [{name: tensor[self.slots] for name, tensor in layer.items()} for layer in layers]


def in_parts(slots: int, like: Tensor) -> list[Part]:
    """All slots at once; on a CPU without gradients one by one.

    A frame of one object has work enough for a CPU, and activations then take no more memory for ten objects than for one.

    Args:
        slots: S.
        like: [B,...], a tensor of the frame; slot s belongs to sample ``s // (S // B)``.
    """
    samples = like.shape[0]
    if torch.is_grad_enabled() or like.device.type != "cpu":
        return [Part(slice(0, slots), slice(0, samples))]
    of = [s // (slots // samples) for s in range(slots)]
    return [Part(slice(s, s + 1), slice(b, b + 1)) for s, b in enumerate(of)]


def gathered(parts: Sequence[Part], compute: Callable[[Part], Sequence[Layer]]) -> list[Layer]:
    """The layers of all slots, each part computed by itself.

    They lie in one block of memory, so that it goes back to the system as a whole when a frame is forgotten.

    Args:
        parts: of the slots.
        compute: from a part to its layers, tensors [s,N,C] that are alike in every part.
    """
    if len(parts) == 1:
        return list(compute(parts[0]))
    store: list[dict[str, Tensor]] = []
    for part in parts:
        layers = compute(part)
        store = store or _room(layers, parts[-1].slots.stop)
        for room, layer in zip(store, layers, strict=True):
            for name, tensor in layer.items():
                room[name][part.slots] = tensor
    return list(store)


def _room(layers: Sequence[Layer], slots: int) -> list[dict[str, Tensor]]:
    """Uninitialised layers for so many slots, given those of one."""
    sizes = [slots * tensor.numel() for layer in layers for tensor in layer.values()]
    whole = next(iter(layers[0].values())).new_empty(sum(sizes))
    pieces = iter(torch.split(whole, sizes))
    return [{name: next(pieces).view(slots, *tensor.shape[1:]) for name, tensor in layer.items()} for layer in layers]
