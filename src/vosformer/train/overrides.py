"""Changing single values of a recipe from text, with the checks that their annotated types allow."""

from __future__ import annotations

import dataclasses
import difflib
import types
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from vosformer.errors import InputError
from vosformer.train.recipe import Recipe, Source

T = TypeVar("T")


def with_settings(recipe: Recipe, settings: Sequence[str]) -> Recipe:
    """The recipe with single values replaced, e.g. ``["optim.lr=1e-4", "data.frames=3"]``.

    Raises:
        InputError: a setting that is not KEY=VALUE, an unknown key, or a value of the wrong type.
    """
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            raise InputError(f"--set {setting!r}: expected KEY=VALUE, e.g. optim.lr=1e-4")
        recipe = _set(recipe, key.strip(), text.strip(), key.strip())
    return recipe


def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def _set(part: T, key: str, text: str, whole: str) -> T:
    name, _, rest = key.partition(".")
    hints = _hints(type(part))
    if name not in hints:
        close = difflib.get_close_matches(name, hints, n=3, cutoff=0.5)
        known = ", ".join(close or hints)
        raise InputError(
            f"--set {whole}: there is no setting {name!r} in {type(part).__name__}; {'did you mean' if close else 'known'}: {known}"
        )
    inner = getattr(part, name)
    if dataclasses.is_dataclass(inner):
        if not rest:
            members = ", ".join(f"{name}.{member}" for member in _hints(type(inner)))
            raise InputError(f"--set {whole}: {name!r} is a group of settings; choose one of {members}")
        changed = _set(inner, rest, text, whole)
    elif rest:
        raise InputError(f"--set {whole}: {name!r} is a single value and has no {rest!r}")
    else:
        changed = _value(hints[name], text, whole)
    return replace(part, **{name: changed})  # type: ignore[type-var]


def _value(kind: Any, text: str, whole: str) -> Any:
    """`text` as a value of the annotated type."""
    origin, choices = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        if text.lower() == "none":
            return None
        return _value(next(c for c in choices if c is not type(None)), text, whole)
    if origin is Literal:
        if text not in choices:
            raise InputError(f"--set {whole}: {text!r} is not one of {', '.join(map(str, choices))}")
        return text
    if origin is tuple:
        return _tuple(choices, text, whole)
    if kind is bool:
        values = {"true": True, "false": False, "1": True, "0": False, "yes": True, "no": False}
        if text.lower() not in values:
            raise InputError(f"--set {whole}: {text!r} is not true or false")
        return values[text.lower()]
    if kind in (int, float):
        try:
            return kind(text.replace("_", ""))
        except ValueError:
            raise InputError(f"--set {whole}: {text!r} is not {'a whole number' if kind is int else 'a number'}") from None
    return _literal(text) if kind is Any else text


def _tuple(choices: tuple[Any, ...], text: str, whole: str) -> tuple[Any, ...]:
    """Values parted by commas; the parts of values that are pairs or groups themselves are parted by colons."""
    if not text or text == "()":
        return ()
    if len(choices) == 2 and choices[1] is Ellipsis:
        kind = choices[0]
        if kind is Source:
            return tuple(_source(item, whole) for item in text.split(","))
        if get_origin(kind) is tuple:
            return tuple(_pair(get_args(kind), item, whole) for item in text.split(","))
        return tuple(_value(kind, item.strip(), whole) for item in text.split(","))
    items = text.split(",")
    if len(items) != len(choices):
        raise InputError(f"--set {whole}: {text!r} has {len(items)} values, expected {len(choices)} parted by commas")
    return tuple(_value(kind, item.strip(), whole) for kind, item in zip(choices, items, strict=True))


def _pair(kinds: tuple[Any, ...], text: str, whole: str) -> tuple[Any, ...]:
    head, colon, tail = text.strip().rpartition(":")
    if not colon or len(kinds) != 2:
        raise InputError(f"--set {whole}: {text!r} is not NAME:VALUE")
    return _value(kinds[0], head, whole), _value(kinds[1], tail, whole)


def _source(text: str, whole: str) -> Source:
    parts = text.strip().split(":")
    if len(parts) > 4:
        raise InputError(f"--set {whole}: {text!r} is not KIND[:REPEAT[:GAP[:DIVISOR]]]")
    return Source(parts[0], *(int(_value(int, part, whole)) for part in parts[1:]))


def _literal(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return {"true": True, "false": False, "none": None}.get(text.lower(), text)
