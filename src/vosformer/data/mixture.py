"""Several clip streams as one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vosformer.data.types import Clip, ClipDataset
from vosformer.errors import DataError

_CHOICE = 5  # not 0, which would give the numbers of [seed, index]


class Mixture(ClipDataset):
    """Items drawn from several streams with given weights; which stream an item comes from depends on (seed, index) alone.

    Args:
        parts: (stream, weight) pairs; the weights need not sum to 1.
        seed: of the choice.

    Raises:
        DataError: there is no part, or a weight is not positive.
    """

    def __init__(self, parts: Sequence[tuple[ClipDataset, float]], seed: int = 0) -> None:
        super().__init__(seed)
        if not parts or min(weight for _, weight in parts) <= 0:
            raise DataError(f"a mixture needs parts with weights above 0, found the weights {[weight for _, weight in parts]}")
        self.parts = tuple(part for part, _ in parts)
        weights = np.array([weight for _, weight in parts])
        self._shares = weights / weights.sum()

    def draw(self, rng: np.random.Generator, index: int) -> Clip:
        """Item `index` of the stream drawn."""
        # Numbers of its own: a part with the same seed would draw `rng`'s again, and what it draws would depend on being chosen.
        choice = np.random.default_rng([self.seed, index, _CHOICE])
        return self.parts[int(choice.choice(len(self.parts), p=self._shares))][index]
