"""Prose of the pages, wrapped at 120; tables and code stay as they are. `python tests/support/prose.py PAGE.md ...` wraps."""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

WIDTH = 120
_OTHER = ("|", "#", "<", "![", ">", ":::", "---", "!!!", "???", "```", "~~~")
_ITEM = re.compile(r"\s*([-*+]|\d+\.)\s+")
_UNBROKEN = re.compile(r"(?:`+[^`]*`+|\[[^\]]*\]\([^)]*\)|\S)+")  # code and links stay whole


def too_long(text: str) -> list[str]:
    """Return the paragraphs with a line that is too long, though it could be wrapped."""
    return [old for old, new in _paragraphs(text) if old != new]


def wrapped(text: str) -> str:
    """Wrap the paragraphs that have a line that is too long."""
    return "\n".join(new for _, new in _paragraphs(text))


def _paragraphs(text: str) -> Iterator[tuple[str, str]]:
    """Yield each paragraph, table line, blank line or line of code, and how it should be."""
    lines, fence, at = text.split("\n"), "", 0
    while at < len(lines):
        line, start = lines[at], at
        at += 1
        mark = line.strip()[:3]
        if fence or mark in ("```", "~~~"):
            fence = ("" if mark == fence else fence) if fence else mark
            yield line, line
        elif not line.strip() or line.strip().startswith(_OTHER):
            yield line, line
        else:
            while (
                at < len(lines) and lines[at].strip() and not (lines[at].strip().startswith(_OTHER) or _ITEM.match(lines[at]))
            ):
                at += 1
            old = lines[start:at]
            yield "\n".join(old), "\n".join(_wrap(old) if max(map(len, old)) > WIDTH else old)


def _wrap(lines: list[str]) -> list[str]:
    item = _ITEM.match(lines[0])
    first = item.group() if item else re.match(r"\s*", lines[0]).group()  # type: ignore[union-attr]
    words = _UNBROKEN.findall(" ".join([lines[0][len(first) :], *map(str.strip, lines[1:])]))
    kept = " ".join(word.replace(" ", "\0") for word in words)
    more = " " * len(first)
    made = textwrap.wrap(
        kept, WIDTH, initial_indent=first, subsequent_indent=more, break_long_words=False, break_on_hyphens=False
    )
    return [line.replace("\0", " ") for line in made]


if __name__ == "__main__":
    for page in map(Path, sys.argv[1:]):
        page.write_text(wrapped(page.read_text(encoding="utf-8")), encoding="utf-8")
