"""Options as text, as values and as JSON: the one place that turns what a user types, or a file holds, into a typed value.

The annotated type of an option decides: settings of a recipe, hyper-parameters of a system, and the options of a model's `read`
are all read here. tyro, which reads the command line, reads the values, too.
"""

from __future__ import annotations

import contextlib
import difflib
import io
import types
from collections.abc import Iterable, Mapping
from dataclasses import asdict, is_dataclass
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin, get_type_hints

from vosformer import policy
from vosformer.encoders.convmae import CONVVIT_B, CONVVIT_L, CONVVIT_TINY, ConvViTSize
from vosformer.encoders.vit import VIT_B, VIT_L, VIT_TINY, ViTSize
from vosformer.errors import InputError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_NAMED: dict[str, Any] = {
    "vit-b": VIT_B,
    "vit-l": VIT_L,
    "vit-tiny": VIT_TINY,
    "convvit-b": CONVVIT_B,
    "convvit-l": CONVVIT_L,
    "convvit-tiny": CONVVIT_TINY,
}
"""The objects that an option can be given by name."""

_CLASSES: dict[str, type] = {
    kind.__name__: kind
    for kind in (
        ViTSize,
        ConvViTSize,
        policy.GivenOnly,
        policy.EveryK,
        policy.FirstAndPrevious,
        policy.Queue,
        policy.OneVOSQueue,
        policy.DynamicTokens,
    )
}
"""The classes whose objects can be kept in a file, as their fields."""


def typed_options(config: DataclassInstance, options: Mapping[str, Any]) -> dict[str, Any]:
    """Check options by the fields of a dataclass of hyper-parameters.

    Args:
        config: the variant's hyper-parameters as published.
        options: name -> a value, its text, or what `to_json` made of it.

    Raises:
        InputError: there is no such field, or a value is not of its type.
    """
    hints = get_type_hints(type(config))
    found = {}
    for name, value in options.items():
        if name not in hints:
            raise InputError(f"there is no option {name!r}; {closest(name, hints)}")
        found[name] = typed(hints[name], value, f"option {name}", getattr(config, name))
    return found


def typed(hint: Any, value: Any, name: str, default: Any = None) -> Any:
    """Bring a value to an annotated type: from its text, or from JSON; a value of the type stays as it is.

    Args:
        hint: the type.
        value: what was given.
        name: of the option, for the message.
        default: its value as published; of a policy, the one that names are relative to (see `named_policy`).

    Raises:
        InputError: it is not of that type.
    """
    if isinstance(value, str) and (not _fits(hint, value) or ("," in value and _is_list(hint))):
        return _from_text(hint, value, name, default)
    value = _from_json(value)
    if isinstance(value, int) and not isinstance(value, bool) and not _fits(hint, value) and _fits(hint, float(value)):
        value = float(value)
    if not _fits(hint, value):
        raise InputError(f"{name}: {value!r} is not {_described(hint)}")
    return value


def from_words(words: Iterable[str], flag: str) -> dict[str, str]:
    """Take NAME=VALUE words apart.

    Raises:
        InputError: a word is something else.
    """
    found = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals or not name:
            raise InputError(f"{flag} {word!r}: expected NAME=VALUE, e.g. depth=2")
        found[name.strip().replace("-", "_")] = text.strip()
    return found


def to_json(options: Mapping[str, Any]) -> dict[str, Any]:
    """Make options plain values that JSON holds and `typed` brings back: sizes by name, other objects as their fields.

    Raises:
        InputError: a value cannot be kept in a file.
    """
    return {name: _plain(value, name) for name, value in options.items()}


def closest(name: str, known: Iterable[str]) -> str:
    """Say which of the known names are meant, or all of them."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return f"did you mean: {', '.join(close)}" if close else f"known: {', '.join(known) or 'none'}"


def _from_text(hint: Any, text: str, name: str, default: Any) -> Any:
    if policy.Policy in (hint, *get_args(hint)):
        return policy.named_policy(text, default)
    if text in _NAMED and _fits(hint, _NAMED[text]):
        return _NAMED[text]
    import tyro  # takes long to load, and only the command line brings texts

    words = {"true": "True", "yes": "True", "1": "True", "false": "False", "no": "False", "0": "False"} if hint is bool else {}
    tokens = [words.get(token.lower(), "None" if token.lower() == "none" else token) for token in _tokens(hint, text)]
    with contextlib.redirect_stderr(io.StringIO()):
        try:
            return tyro.cli(hint, args=tokens, console_outputs=False)
        except (SystemExit, tyro.constructors.UnsupportedTypeAnnotationError):
            raise InputError(f"{name}: {text!r} is not {_described(hint)}") from None


def _tokens(hint: Any, text: str) -> list[str]:
    """Values are parted by commas, the two halves of a pair by the last colon."""
    if not _is_list(hint):
        return [text]
    kinds = [kind for kind in (hint, *get_args(hint)) if get_origin(kind) is tuple]
    items = [item.strip() for item in text.removesuffix("()").split(",") if item.strip()]
    if get_origin(get_args(kinds[0])[0]) is tuple:
        return [half for item in items for half in item.rsplit(":", 1)]
    return items


def _is_list(hint: Any) -> bool:
    return any(get_origin(kind) is tuple for kind in (hint, *get_args(hint)))


def _fits(hint: Any, value: Any) -> bool:
    origin, choices = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if origin in (Union, types.UnionType):
        return any(_fits(choice, value) for choice in choices)
    if origin is Literal:
        return value in choices
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        if len(choices) == 2 and choices[1] is Ellipsis:
            return all(_fits(choices[0], item) for item in value)
        return len(value) == len(choices) and all(_fits(c, item) for c, item in zip(choices, value, strict=True))
    if hint in (int, float):
        return isinstance(value, hint) and not isinstance(value, bool)
    return isinstance(value, type(None) if hint is None else hint)


def _described(hint: Any) -> str:
    origin, choices = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(_described(choice) for choice in choices))
    if origin is Literal:
        return f"one of {', '.join(map(str, choices))}"
    if origin is tuple:
        inner = " and ".join(dict.fromkeys(_described(choice) for choice in choices if choice is not Ellipsis))
        if get_origin(choices[0]) is tuple:
            return "a list of NAME:VALUE pairs parted by commas"
        return (
            f"a list parted by commas, each {inner}"
            if Ellipsis in choices
            else f"{len(choices)} values parted by commas, {inner}"
        )
    named = [name for name, value in _NAMED.items() if isinstance(hint, type) and isinstance(value, hint)]
    if named:
        return ", ".join(named)
    plain = {int: "a whole number", float: "a number", bool: "true or false", str: "text", type(None): "none"}
    return plain.get(hint, f"a {getattr(hint, '__name__', hint)}")


def _plain(value: Any, name: str) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        by_name = [key for key, known in _NAMED.items() if known == value]
        if by_name:
            return by_name[0]
        if type(value) in _CLASSES.values():
            return {"class": type(value).__name__, **asdict(value)}
    if isinstance(value, tuple | list):
        return [_plain(item, name) for item in value]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise InputError(f"option {name} is {value!r}, which a weights file cannot hold")


def _from_json(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return tuple(_from_json(item) for item in value)
    if isinstance(value, dict) and value.get("class") in _CLASSES:
        return _CLASSES[value["class"]](**{key: _from_json(item) for key, item in value.items() if key != "class"})
    return value
