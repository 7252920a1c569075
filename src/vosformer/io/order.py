"""The order of files by the numbers in their names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path

from vosformer.io.notes import Notes

_NUMBER = re.compile(r"(?P<head>[^0-9]*?)(?P<number>[+-]?[0-9]+(?:[.,][0-9]+)?(?:[eE][+-]?[0-9]{1,3})?)(?P<tail>[^0-9]*)")
_HEX = re.compile(r"[0-9a-f]{2,}", re.IGNORECASE)


def natural_key(name: str) -> tuple[tuple[str | int, ...], str]:
    """Sort key that puts "frame 2" before "frame 10"; upper and lower case are the same, ties go by the exact name."""
    pieces = re.split(r"([0-9]+)", name.casefold())
    return tuple(int(piece) if at % 2 else piece for at, piece in enumerate(pieces)), name


def in_order(paths: Sequence[Path], notes: Notes | None = None) -> list[Path]:
    """Sort files by their names: "2" before "10", and names that are one number each (0.35, -1, 1e-05) by its value.

    In "1700000000.35" the digits behind the point may be a fraction, or (of seconds and nanoseconds, written without zeros in
    front) a whole number. Where the two readings differ, zeros tell: a fraction has none at its end, a whole number none in
    front. If neither occurs it is a fraction. Names of one length that are hexadecimal numbers are read as such.

    Args:
        paths: of the files.
        notes: gets a line where names can be read in two ways that differ in order.
    """
    natural = sorted(paths, key=lambda path: natural_key(path.name))
    stems = [path.stem for path in natural]
    values = _hexadecimal(stems) or _decimal(stems)
    if values is None:
        return natural
    ranks = sorted(range(len(natural)), key=lambda at: (values[at], at))
    if ranks == list(range(len(natural))):
        return natural
    first = next(at for at, rank in enumerate(ranks) if at != rank)
    if _whole_behind_the_point(stems):
        text = "the digits behind the point were read as a whole number (seconds.nanoseconds)"
        chosen = natural
    else:
        chosen = [natural[rank] for rank in ranks]
        text = "the names were read as numbers"
    if notes is not None:
        one, other = natural[first].name, natural[ranks[first]].name
        notes.add(
            f"the names of {natural[0].parent} can be read in two ways, and {one} and {other} change places: {text}, so the order is "
            f"{', '.join(path.name for path in chosen[:4])}, ..."
        )
    return chosen


def _decimal(stems: Sequence[str]) -> list[Decimal] | None:
    """Return the values of names that hold one number each and are the same otherwise."""
    found = [_NUMBER.fullmatch(stem) for stem in stems]
    matches = [match for match in found if match is not None]
    if len(matches) < len(found) or len({(match["head"].casefold(), match["tail"].casefold()) for match in matches}) > 1:
        return None
    numbers = [match["number"].replace(",", ".") for match in matches]
    if matches and matches[0]["head"]:  # frame-3 is no negative number
        numbers = [number.lstrip("+-") for number in numbers]
    return [Decimal(number) for number in numbers]


def _hexadecimal(stems: Sequence[str]) -> list[Decimal] | None:
    """Return the values of names like 0a, 10, ff: hexadecimal, of one length, and not all decimal."""
    if not all(_HEX.fullmatch(stem) for stem in stems) or len({len(stem) for stem in stems}) != 1:
        return None
    starts = {stem[0] for stem in stems} <= set("0123456789") or len(stems) > 16
    return [Decimal(int(stem, 16)) for stem in stems] if starts and not all(stem.isdecimal() for stem in stems) else None


def _whole_behind_the_point(stems: Sequence[str]) -> bool:
    """Tell whether zeros show that the digits behind the point are no fraction."""
    behind = [match[1] for stem in stems if (match := re.search(r"[0-9][.,]([0-9]+)[^0-9]*$", stem))]
    in_front = any(digits.startswith("0") and len(digits) > 1 for digits in behind)
    return not in_front and any(digits.endswith("0") and len(digits) > 1 for digits in behind)
