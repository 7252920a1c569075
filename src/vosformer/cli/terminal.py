"""What every command prints with: text comes out as it is, for it may hold names of files, such as "a [1] :car:.png"."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

from rich.console import Console
from rich.table import Table
from rich.text import Text


@cache
def messages() -> Console:
    """Return the console of the error stream: notes, errors, progress. There is one only, so that what it prints while it
    shows a progress bar goes above the bar.
    """
    return _console(stderr=True)


@cache
def results() -> Console:
    """Return the console of the output stream: what was asked for."""
    return _console()


def show_error(text: str) -> None:
    """Print why a command was not done."""
    messages().print(Text("error:", style="bold red"), text)


def show_warning(text: str) -> None:
    """Print what a user has to beware of."""
    messages().print(Text("warning:", style="bold yellow"), text)


def show_notes(notes: Iterable[str]) -> None:
    """Print what was guessed, left out, stretched or repaired, a line each."""
    for note in notes:
        messages().print(Text(f"note: {note}", style="yellow"))


def show_table(table: Table, whole: bool = False) -> None:
    """Print a table: as wide as it needs where no terminal limits it, so that names stay whole in pipes and files.

    Args:
        table: what to print.
        whole: in terminals, too: hashes and paths that are broken into lines cannot be copied.
    """
    console = _console(width=10_000) if whole or not results().is_terminal else results()
    console.print(table, soft_wrap=False)  # a title that is wider than its table is broken


def _console(stderr: bool = False, width: int | None = None) -> Console:
    return Console(stderr=stderr, width=width, markup=False, emoji=False, highlight=False, soft_wrap=True)
