"""Variant names and the functions that build them.

A system is one file in `models/` with a table `VARIANTS`: name -> `Variant`. To add one, write the file and name it in `_SYSTEMS`,
or call `register` from your own code. A package that names a module which does that as an entry point of the group
`vosformer.variants` is known to the command line, too.
"""

from __future__ import annotations

import difflib
import importlib
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, TypeVar

from vosformer.errors import InputError
from vosformer.options import typed, typed_options
from vosformer.protocol import VOSModel

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    C = TypeVar("C", bound=DataclassInstance)

M = TypeVar("M", bound=VOSModel)

# One module of `vosformer.models` a system, and one of the same name in `vosformer.convert` for its official checkpoints.
_SYSTEMS = ("aot", "aost", "deaot", "simvos", "jointformer", "onevos")
_EXTRA: dict[str, Variant] = {}


@dataclass(frozen=True)
class Variant:
    """A named configuration of a system.

    Attributes:
        name: what users type, e.g. "r50-deaot-l".
        system: the module in `vosformer.models` and `vosformer.convert`.
        build: returns the model with fresh weights; its keyword arguments are the paper's ablations, defaults as published.
        summary: one line for `vosformer variants`.
    """

    name: str
    system: str
    build: Callable[..., VOSModel]
    summary: str


def register(variant: Variant) -> None:
    """Make a variant of your own known by its name (it wins over a built-in one of the same name)."""
    _EXTRA[variant.name] = variant


def variants() -> tuple[Variant, ...]:
    """Return all known variants, in the order of the systems."""
    load_plugins()
    return tuple({**_built_in(), **_EXTRA}.values())


def variant(name: str) -> Variant:
    """Return the variant of that name.

    Raises:
        InputError: there is none; the message names the closest ones.
    """
    if name in _EXTRA:
        return _EXTRA[name]
    for system in _SYSTEMS:
        # One after the other: most uses need only one system.
        if name in (found := _variants_of(system)):
            return found[name]
    known = {each.name: each for each in variants()}
    if name not in known:
        close = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(known)}"
        raise InputError(f"there is no variant {name!r}; {hint}")
    return known[name]


def build_from(model: Callable[[C], M], preset: C, small: Mapping[str, Any], *, tiny: bool = False, **overrides: Any) -> M:
    """Return a model with fresh weights: the `build` of a system whose hyper-parameters are a dataclass (the first three
    bound beforehand).

    Args:
        model: the system's class.
        preset: the variant's hyper-parameters.
        small: those that make it very small, with every part of the real one.
        tiny: use them; for tests.
        overrides: any hyper-parameters, as values, as text or as a weights file holds them.

    Raises:
        InputError: there is no such hyper-parameter, or a value is not of its type.
    """
    tiny = typed(bool, tiny, "option tiny")
    return model(replace(preset, **{**(small if tiny else {}), **typed_options(preset, overrides)}))


def new_model(name: str, **overrides: Any) -> VOSModel:
    """Return a model of that variant with fresh (untrained) weights, in training mode; it knows its `variant` and its
    `built_with`, the overrides.
    """
    model = variant(name).build(**overrides)
    model.variant, model.built_with = name, overrides
    return model


@cache
def load_plugins() -> None:
    """Import what installed packages name as entry points, once."""
    for point in entry_points(group="vosformer.variants"):
        try:
            point.load()
        except Exception as error:  # another package's mistake must not stop this one
            warnings.warn(f"{point.value}, an entry point of vosformer.variants, cannot be loaded: {error}", stacklevel=3)


@cache
def _built_in() -> dict[str, Variant]:
    found: dict[str, Variant] = {}
    for system in _SYSTEMS:
        found.update(_variants_of(system))
    return found


def _variants_of(system: str) -> dict[str, Variant]:
    found: dict[str, Variant] = importlib.import_module(f"vosformer.models.{system}").VARIANTS
    return found
