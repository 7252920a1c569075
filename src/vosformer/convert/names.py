"""Renaming tensors by the first parts of their names, both ways."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

Table = Sequence[tuple[str, str]]


def to_ours(state: Mapping[str, Tensor], table: Table) -> dict[str, Tensor]:
    """Replace the official beginnings of names by ours.

    Args:
        state: tensors by official name.
        table: pairs (official, ours) of beginnings; the first that applies is taken, other names stay.
    """
    return {_rename(name, table): tensor for name, tensor in state.items()}


def to_theirs(state: Mapping[str, Tensor], table: Table) -> dict[str, Tensor]:
    """Return the way back of `to_ours`."""
    reverse = [(ours, official) for official, ours in table]
    return {_rename(name, reverse): tensor for name, tensor in state.items()}


def _rename(name: str, table: Table) -> str:
    return next((new + name[len(old) :] for old, new in table if name.startswith(old)), name)
