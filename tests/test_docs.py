"""The commands that README and docs show are commands that exist, with options that exist; the files they link to exist."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
from functools import cache
from pathlib import Path

import pytest

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


def prose(page: Path) -> list[str]:
    """Return the lines of a page that are neither code nor tables, links without a space left out."""
    text = re.sub(r"^ *(```|~~~).*?^ *\1", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    lines = (re.sub(r"\S*\]\(\S+\)\S*", "", line) for line in text.splitlines())
    return [line for line in lines if not line.lstrip().startswith(("|", "#", "<", "!["))]


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md"], ids=lambda page: page.name)
def test_prose_is_wrapped(page: Path) -> None:
    long = [line for line in prose(page) if len(line) > 120]
    assert not long, f"{page.name} has lines of prose of more than 120 characters"
