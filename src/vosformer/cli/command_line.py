"""The words of the command that runs: the order of different flags, which the parser does not keep, says which mark came later."""

from __future__ import annotations

from collections.abc import Collection
from contextvars import ContextVar

WORDS: ContextVar[tuple[str, ...]] = ContextVar("WORDS", default=())


def values_in_order(flags: Collection[str]) -> list[str]:
    """Return the values of these flags in the order in which they were typed."""
    found: list[str] = []
    taking = False
    for word in WORDS.get():
        flag, _, value = word.partition("=")
        if flag.startswith("-"):
            taking = flag in flags
            found += [value] if taking and value else []
        elif taking:
            found.append(word)
    return found
