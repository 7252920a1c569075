"""Which objects to compute together, in systems with one object a slot."""

from __future__ import annotations

from collections.abc import Sequence
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


def joined(layers: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """One layer out of those of several parts; these are emptied, so that nothing is held twice for longer than needed."""
    if len(layers) == 1:
        return layers[0]
    return {name: torch.cat([layer.pop(name) for layer in layers]) for name in list(layers[0])}
