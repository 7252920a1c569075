"""How the parts behave while a graph is made of them: the one switch between quick kernels and plain, traceable operations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache, wraps
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
T = TypeVar("T")

_making = ContextVar("_making", default=False)


@contextmanager
def as_graph() -> Iterator[None]:
    """Within this context everything runs on PyTorch's public functions, and no shape depends on the values of a tensor.

    For exporters, for meta and fake tensors, and for CUDA graphs. Results are the same up to rounding.
    """
    token = _making.set(True)
    try:
        yield
    finally:
        _making.reset(token)


def making_graph() -> bool:
    """Tell whether a graph is being made."""
    return _making.get()


def kept_table(size: int) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Make a function of sizes keep its last `size` tables, but make them anew inside a graph: there sizes may be symbols."""

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        @lru_cache(maxsize=size)
        def kept(*args: P.args, **kwargs: P.kwargs) -> T:
            # A tensor made under inference mode could not serve a training step later.
            with torch.inference_mode(False), torch.no_grad():
                return function(*args, **kwargs)

        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> T:
            return function(*args, **kwargs) if making_graph() else kept(*args, **kwargs)  # type: ignore[arg-type]

        return call

    return decorate
