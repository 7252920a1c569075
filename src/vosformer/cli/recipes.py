"""`vosformer recipes`."""

from __future__ import annotations

import json as jsonlib

from rich.table import Table

from vosformer.cli.terminal import show_table
from vosformer.train.recipe import Recipe
from vosformer.train.recipes import recipe as find_recipe
from vosformer.train.recipes import recipes as all_recipes
from vosformer.weights import packaged


def recipes(names: tuple[str, ...] = (), *, json: bool = False) -> None:
    """List the training recipes: what each one trains, on what, and for how long.

    Args:
        names: only these (default: all).
        json: print every setting as JSON instead of a table.
    """
    chosen = [find_recipe(name) for name in names] or list(all_recipes().values())
    if json:
        print(jsonlib.dumps({recipe.name: dict(recipe.flat()) for recipe in chosen}, indent=1, default=str))
        return
    table = Table(title="vosformer train RECIPE --data FOLDER; any recipe trains any system with --variant")
    for heading in ("recipe", "variant", "steps x clips", "frames, crop", "data", "starts from", "what it is"):
        table.add_column(heading, justify="right" if heading == "steps x clips" else "left")
    for recipe in chosen:
        table.add_row(*_row(recipe))
    show_table(table)


def _row(recipe: Recipe) -> tuple[str, ...]:
    data, run = recipe.data, recipe.run
    return (
        recipe.name,
        recipe.model.variant,
        f"{run.steps:,} x {run.batch}",
        f"{data.frames} of {data.size[0]} x {data.size[1]}",
        ", ".join(source.kind for source in data.sources),
        recipe.model.start or ("packaged weights" if recipe.model.variant in packaged() else "an encoder"),
        recipe.paper,
    )
