"""Changing single values of a recipe from text; `vosformer.options` reads the values by their annotated types."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar, get_type_hints

from vosformer.errors import InputError
from vosformer.options import closest, typed
from vosformer.train.recipe import DataSource, Recipe

T = TypeVar("T")


def with_settings(recipe: Recipe, settings: Sequence[str]) -> Recipe:
    """Replace single values of a recipe, e.g. ``["optim.lr=1e-4", "data.frames=3"]``.

    Raises:
        InputError: a setting that is not KEY=VALUE, an unknown key, or a value of the wrong type.
    """
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            raise InputError(f"--set {setting!r}: expected KEY=VALUE, e.g. optim.lr=1e-4")
        recipe = _set(recipe, key.strip(), text.strip(), key.strip())
    return recipe


def _set(part: T, key: str, text: str, whole: str) -> T:
    name, _, rest = key.partition(".")
    hints = get_type_hints(type(part))
    if name not in hints:
        raise InputError(f"--set {whole}: there is no setting {name!r} in {type(part).__name__}; {closest(name, hints)}")
    inner = getattr(part, name)
    if dataclasses.is_dataclass(inner):
        if not rest:
            members = ", ".join(f"{name}.{member.name}" for member in dataclasses.fields(inner))
            raise InputError(f"--set {whole}: {name!r} is a group of settings; choose one of {members}")
        changed = _set(inner, rest, text, whole)
    elif rest:
        raise InputError(f"--set {whole}: {name!r} is a single value and has no {rest!r}")
    else:
        changed = _value(hints[name], text, f"--set {whole}")
    return replace(part, **{name: changed})  # type: ignore[type-var]


def _value(hint: Any, text: str, name: str) -> Any:
    if hint == tuple[DataSource, ...]:
        return tuple(_source(item, name) for item in text.split(","))
    if hint == tuple[tuple[str, Any], ...]:  # the system's own options, which its builder checks
        return tuple(_option(item, name) for item in text.split(",") if item)
    return typed(hint, text, name)


def _source(text: str, name: str) -> DataSource:
    parts = text.strip().split(":")
    if len(parts) > 4:
        raise InputError(f"{name}: {text!r} is not KIND[:REPEAT[:GAP[:DIVISOR]]]")
    return DataSource(parts[0], *(typed(int, part, name) for part in parts[1:]))


def _option(text: str, name: str) -> tuple[str, Any]:
    key, colon, value = text.strip().partition(":")
    if not colon:
        raise InputError(f"{name}: {text!r} is not NAME:VALUE; values with commas go with --option NAME=VALUE")
    for kind in (int, float):
        try:
            return key, kind(value)
        except ValueError:
            continue
    return key, {"true": True, "false": False, "none": None}.get(value.lower(), value)
