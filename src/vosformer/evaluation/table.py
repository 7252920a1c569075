"""The frame of every table of scores."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table


def score_table(results: str, truth: str, rules: str, rows: str, columns: Iterable[str]) -> Table:
    """Begin a table for the screen: what was scored as its title, a column of names and one for each number.

    Args:
        results: what was scored.
        truth: against what.
        rules: by whose rules.
        rows: what the rows are, e.g. "sequence".
        columns: names of the numbers.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    title = Text(f"{results} against {truth} ({rules} rules)", style="table.title")
    table = Table(title=title, title_justify="left", box=box.SIMPLE, padding=(0, 1, 0, 0))
    table.add_column(rows, overflow="fold")
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    return table
