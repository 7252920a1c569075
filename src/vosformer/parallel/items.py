"""What is worked on, and what comes of it: shared by all ways to spread work."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from vosformer.errors import InputError, VOSError

Item = TypeVar("Item")
Result = TypeVar("Result")
Advance = Callable[[int], None]
Work = Callable[[Item, Advance], Result]

TRIES = 3  # workers that an item may cost before it is given up


class WorkerLostError(VOSError):
    """A worker process ended without an answer, as often as an item is tried."""


@dataclass(frozen=True)
class Outcome(Generic[Result]):
    """What came of one item.

    Attributes:
        index: of the item.
        value: that the work returned; None if it failed.
        error: that it raised, or `WorkerLostError`; None if it did not fail.
    """

    index: int
    value: Result | None = None
    error: Exception | None = None


def shard(items: Sequence[Item], part: str | None) -> list[Item]:
    """Take one part of a list: "i/n" is each n-th item from the i-th on, counted from 0; None is all of it.

    Raises:
        InputError: another form, or i is not below n.
    """
    if part is None:
        return list(items)
    match = re.fullmatch(r"(\d+)/(\d+)", part)
    if match is None or int(match[1]) >= int(match[2]):
        raise InputError(f"the shard is {part!r}, expected i/n with i from 0 to n - 1, such as 0/4")
    return list(items[int(match[1]) :: int(match[2])])


def pack(items: Sequence[Item], start: Callable[[], Work[Item, Result]]) -> tuple[list[bytes], bytes]:
    """Pickle the items and what makes the work.

    Raises:
        InputError: something cannot be pickled.
    """
    try:
        return [pickle.dumps(item) for item in items], pickle.dumps(start)
    except Exception as error:
        raise InputError(f"the work cannot be given to other processes: {error}") from error


def portable(error: Exception) -> Exception:
    """Return the error, if it survives pickling, else one of ours with its words."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return VOSError(f"{type(error).__name__}: {error}")
    return error


def lost(where: str) -> WorkerLostError:
    """Make the error of an item whose workers all ended."""
    return WorkerLostError(f"{where} ended without an answer ({TRIES} times in all)")
