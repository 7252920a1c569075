"""Where objects are known to be absent: what a user says of it, and what exact masks say."""

from __future__ import annotations

import json
import re
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from vosformer.errors import InputError

_FORM = "expected OBJECT:FIRST-LAST like 7:40-55, 7:40- (from 40 on), 7:40, several like 7:40-55,80-, or all:40-55"


class Absence(NamedTuple):
    """Frames on which an object is not there.

    Attributes:
        object: its id; None: every object.
        first: the first such frame.
        last: the last one; None: as far as tracking goes.
    """

    object: int | None
    first: int
    last: int | None


def parse_absences(texts: Iterable[str]) -> tuple[Absence, ...]:
    """Read absences as users write them: "7:40-55", "7:40-", "7:40", "7:40-55,80-", "all:40-", or the path of a JSON file.

    Raises:
        InputError: a text is something else, or a range ends before it begins.
    """
    found: list[Absence] = []
    for text in texts:
        if text.lower().endswith(".json"):
            found += read_absences(Path(text))
            continue
        name, colon, ranges = text.partition(":")
        if not colon:
            raise InputError(f"the absence {text!r} is not understood: {_FORM}")
        found += [_absence(name, part, text) for part in ranges.split(",")]
    return tuple(found)


def read_absences(path: Path) -> tuple[Absence, ...]:
    """Read a JSON file of absences: {"7": "40-55", "2": [[6, null]], "all": ["100-"]}.

    Raises:
        InputError: the file is missing or holds something else.
    """
    try:
        known = json.loads(path.read_text())
        items = [(name, part) for name, parts in known.items() for part in (parts if isinstance(parts, list) else [parts])]
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise InputError(
            f'{path} is no file of absences ({error}): expected JSON like {{"7": "40-55", "2": [[6, null]]}}'
        ) from None
    found = []
    for name, part in items:
        ends = part if isinstance(part, list) else None
        if ends is not None and len(ends) == 2:
            part = f"{ends[0]}-{'' if ends[1] is None else ends[1]}"
        found.append(_absence(str(name), str(part), f"{path}: {name}: {part}"))
    return tuple(found)


def _absence(name: str, text: str, shown: str) -> Absence:
    match = re.fullmatch(r"\s*(\d{1,9})\s*(?:(-)\s*(\d{1,9})?)?\s*", text)
    name = name.strip().lower()
    if match is None or not (name == "all" or re.fullmatch(r"[1-9]\d{0,9}", name)):
        raise InputError(f"the absence {shown!r} is not understood: {_FORM}")
    first = int(match[1])
    last = None if match[2] and not match[3] else int(match[3] or first)
    if last is not None and last < first:
        raise InputError(f"the absence {shown!r} ends before it begins: {_FORM}")
    return Absence(None if name == "all" else int(name), first, last)


class Absences:
    """Tells of every frame which objects are not there.

    Args:
        known: what the user says.
        exact: frame number -> the ids in its mask, of masks that speak for all objects: what is not in one is absent from its frame
            on, in the direction of tracking, until a later mask has it. None: masks speak for the objects that they show.
    """

    def __init__(self, known: Sequence[Absence] = (), exact: Mapping[int, Collection[int]] | None = None) -> None:
        self._known = tuple(known)
        self._exact = None if exact is None else {number: frozenset(ids) for number, ids in sorted(exact.items())}

    def mark(self) -> Any:
        """Return what a resumed run has to agree in, as a value for JSON."""
        exact = None if self._exact is None else {number: sorted(ids) for number, ids in self._exact.items()}
        return [list(self._known), exact]

    def ended(self, number: int, step: int, tracked: Collection[int]) -> set[int]:
        """Find the tracked objects that do not come back by themselves: they can be forgotten."""
        gone = {i for i in tracked for absence in self._of(i, number) if _is_open(absence, step)}
        if self._exact:
            numbers = list(self._exact)
            at = bisect_right(numbers, number) - 1 if step > 0 else bisect_left(numbers, number)
            if 0 <= at < len(numbers):
                gone |= set(tracked) - self._exact[numbers[at]]
        return gone

    def absent(self, number: int, tracked: Collection[int]) -> set[int]:
        """Find the tracked objects that the user says are not in this frame."""
        return {i for i in tracked if self._of(i, number)}

    def _of(self, i: int, number: int) -> list[Absence]:
        return [
            absence
            for absence in self._known
            if absence.object in (None, i) and absence.first <= number and (absence.last is None or number <= absence.last)
        ]


def _is_open(absence: Absence, step: int) -> bool:
    return absence.last is None if step > 0 else absence.first == 0
