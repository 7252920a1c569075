"""Tokens and maps: one memory layout, two views. A channels_last map [S,C,h,w] is the tokens [S,h*w,C] without a copy."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Grid(NamedTuple):
    """The map that a sequence of tokens came from, row by row."""

    height: int
    width: int

    @property
    def tokens(self) -> int:
        """N = h * w."""
        return self.height * self.width


def to_tokens(x: Tensor) -> Tensor:
    """[S,C,h,w] -> [S,N,C]; a view if the map is channels_last."""
    return x.flatten(2).transpose(1, 2)


def to_map(x: Tensor, grid: Grid) -> Tensor:
    """[S,N,C] -> [S,C,h,w], a view in channels_last layout."""
    return x.reshape(x.shape[0], grid.height, grid.width, x.shape[2]).permute(0, 3, 1, 2)


def per_slot(x: Tensor, slots: int) -> Tensor:
    """Repeat each sample [B,...] for its slots: [S,...], where slot ``s`` belongs to sample ``s // (S // B)``."""
    return x if x.shape[0] == slots else x.repeat_interleave(slots // x.shape[0], 0)
