"""The recipes by name: one file for each paper, each with a tuple `RECIPES`."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from functools import cache

from vosformer.errors import InputError
from vosformer.train.recipe import Recipe


@cache
def recipes() -> dict[str, Recipe]:
    """All recipes, in the order of the files."""
    found: dict[str, Recipe] = {}
    for module in pkgutil.iter_modules(__path__):
        for recipe in importlib.import_module(f"{__name__}.{module.name}").RECIPES:
            found[recipe.name] = recipe
    return found


def recipe(name: str) -> Recipe:
    """The recipe of that name.

    Raises:
        InputError: there is none; the message names the closest ones.
    """
    known = recipes()
    if name not in known:
        close = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(known)}"
        raise InputError(f"there is no recipe {name!r}; {hint}")
    return known[name]
