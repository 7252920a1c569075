"""The recipes by name: one file for each paper, each with a tuple `RECIPES`; and those of others, see `register_recipe`."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from functools import cache

from vosformer.errors import InputError
from vosformer.registry import load_plugins
from vosformer.train.recipe import Recipe

_EXTRA: dict[str, Recipe] = {}


def register_recipe(recipe: Recipe) -> None:
    """Make a recipe of your own known by its name (it wins over a built-in one of the same name).

    A module that an installed package names as an entry point of the group `vosformer.variants` may call this, too: then the command
    line knows the recipe.
    """
    _EXTRA[recipe.name] = recipe


def recipes() -> dict[str, Recipe]:
    """Return all recipes, in the order of the files."""
    load_plugins()
    return {**_built_in(), **_EXTRA}


@cache
def _built_in() -> dict[str, Recipe]:
    found: dict[str, Recipe] = {}
    for module in pkgutil.iter_modules(__path__):
        for recipe in importlib.import_module(f"{__name__}.{module.name}").RECIPES:
            found[recipe.name] = recipe
    return found


def recipe(name: str) -> Recipe:
    """Return the recipe of that name.

    Raises:
        InputError: there is none; the message names the closest ones.
    """
    known = recipes()
    if name not in known:
        close = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(known)}"
        raise InputError(f"there is no recipe {name!r}; {hint}")
    return known[name]
