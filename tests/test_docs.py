"""The commands that README and docs show are commands that exist, with options that exist; the files they link to exist."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
from functools import cache
from itertools import takewhile
from pathlib import Path

import pytest
from prose import too_long, wrapped

from vosformer.cli import COMMANDS, main

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
SHOWN = [
    pytest.param(line.strip(), id=f"{page.name}: {line.strip()[:60]}")
    for page in PAGES
    for block in re.findall(r"```(?:sh|bash)?\n(.*?)```", page.read_text(), re.DOTALL)
    for line in block.replace("\\\n", " ").splitlines()
    if line.strip().startswith("vosformer ")
]
SHOWN += [
    pytest.param(line, id=f"{script.name}: {line[:60]}")
    for script in sorted((ROOT / "examples").glob("*.sh"))
    for line in script.read_text().splitlines()
    if line.startswith("vosformer ")
]


@cache
def help_of(name: str) -> str:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), pytest.raises(SystemExit):
        main([*name.split(), "--help"])
    return printed.getvalue()


def test_commands_are_found() -> None:
    assert len(SHOWN) > 12


@pytest.mark.parametrize("line", SHOWN)
def test_a_documented_command_exists(line: str) -> None:
    words = shlex.split(re.sub(r"[\[\]]", "", line), comments=True)[1:]
    name = next((" ".join(words[:n]) for n in (2, 1) if " ".join(words[:n]) in COMMANDS), None)
    assert name is not None, f"there is no such command: {line}"
    for option in (word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)):
        assert re.search(rf"(^|[\s,│]){re.escape(option)}[\s,]", help_of(name)), f"`vosformer {name}` has no option {option}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+?)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name} links to {target}, which does not exist"


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md"], ids=lambda page: page.name)
def test_prose_is_wrapped(page: Path) -> None:
    long = too_long(page.read_text(encoding="utf-8"))
    assert not long, (
        f"{page.name} has lines of prose of more than 120 characters; python tests/support/prose.py PAGE wraps them"
    )


def test_wrapping_keeps_tables_code_and_links() -> None:
    words, link = "word " * 40, "[a link of some words](page.md)"
    text = f"- {words}{link}\n\n| {words} |\n\n```\n{words}\n```\n"
    made = wrapped(text)
    assert " ".join(made.split()) == " ".join(text.split())
    assert link in made
    assert f"| {words} |" in made
    assert f"\n{words}\n" in made
    assert made.splitlines()[1].startswith("  word")
    assert len(too_long(text)) == 1
    assert not too_long(made)


def test_the_picture_of_the_layers_is_what_the_linter_checks() -> None:
    page = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    block = page.split("## Layers")[1].split("```")[1]
    modules = {path.stem for path in (ROOT / "src/vosformer").iterdir()}
    rows = [list(takewhile(modules.__contains__, line.split())) for line in block.splitlines() if line[:1] == " " != line[1:2]]
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    layers = re.search(r'name = "data flows one way".*?layers = \[(.*?)\]', text, re.DOTALL)
    assert layers is not None
    assert rows == [re.split(r" \| ", layer) for layer in re.findall(r'"([^"]+)"', layers[1])]
