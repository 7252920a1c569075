"""Every command of docs/reproduce.md is one that the command line takes, with variants, recipes and settings that exist."""

from __future__ import annotations

import functools
import re
import shlex
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import tyro

from vosformer.cli import COMMANDS, _gathered, _lists
from vosformer.options import from_words
from vosformer.registry import variant, variants
from vosformer.train.overrides import with_settings
from vosformer.train.recipe import checked
from vosformer.train.recipes import recipe

PAGE = (Path(__file__).parents[1] / "docs/reproduce.md").read_text()
COMMANDS_SHOWN = sorted({*re.findall(r"`(vosformer [^`]+)`", PAGE), *re.findall(r"^(vosformer .+)$", PAGE, re.MULTILINE)})


def test_every_system_has_rows() -> None:
    assert len(COMMANDS_SHOWN) > 400
    for system in ("AOT and AOST", "DeAOT", "SimVOS", "JointFormer", "OneVOS"):
        assert f"\n## {system}\n" in PAGE
    rows = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith("| row ")]
    assert all(line.count(" | ") == 5 for line in rows)
    assert all("`vosformer " in line and "not measured" in line for line in rows)


@cache
def parsed(words: tuple[str, ...]) -> dict[str, Any]:
    """The arguments that a command would be called with."""
    found: dict[str, Any] = {}
    function = COMMANDS[words[0]].load()

    @functools.wraps(function)
    def note(*args: Any, **kwargs: Any) -> None:
        found.update(kwargs, positional=args)

    tyro.cli(note, prog="vosformer", args=_gathered(list(words[1:]), _lists(function)))
    return found


def anywhere(words: list[str]) -> tuple[str, ...]:
    """The words with one name for all files: any path is as good as another to the parser."""
    paths = {"-o", "--out", "--weights", "--from", "--encoder", "--truth", "--data"}
    return tuple("x" if before in paths else word for before, word in zip(["", *words], words, strict=False))


def test_every_command_parses() -> None:
    for command in COMMANDS_SHOWN:
        words = shlex.split(command)[1:]
        try:
            parsed(anywhere(words))
        except SystemExit:
            pytest.fail(f"not taken: {command}")


def test_every_variant_recipe_and_setting_exists() -> None:
    known = {entry.name for entry in variants()}
    built = set()
    for command in COMMANDS_SHOWN:
        words = shlex.split(command)[1:]
        names = [after for word, after in pairwise(words) if word in ("--model", "--variant")]
        assert set(names) <= known, command
        if words[0] != "train":
            continue
        given = parsed(anywhere(words))
        chosen = checked(with_settings(recipe(words[1]), given["set"]))
        options = {**dict(chosen.model.options), **from_words(given["option"], "--option")}
        built.add((names[0], tuple(options.items())))
    for name, options in built:
        with torch.device("meta"):
            variant(name).build(**dict(options))


def test_a_wrong_command_is_not_taken() -> None:
    with pytest.raises(SystemExit):
        parsed(("benchmark", "davis2018-val", "DAVIS", "-o", "x"))
