"""What a run guessed, left out, stretched, repeated or repaired: one collector that all readers write to."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from typing import Any

_SHOWN = 10


class Notes:
    """Collects what a user should know about how input was read, in the order in which it came up, each thing once.

    Readers in other threads may write to it while somebody iterates.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._items: dict[str, dict[Any, None]] = {}  # a dict keeps the order and finds what is there

    def add(self, text: str, item: str | int | None = None) -> None:
        """Note something.

        Args:
            text: a whole sentence without a full stop; the same sentence is kept once.
            item: one of the things that the sentence is about (a frame number, a file name), listed behind it.
        """
        with self._lock:
            items = self._items.setdefault(text, {})
            if item is not None:
                items[item] = None

    def __iter__(self) -> Iterator[str]:
        """Yield the sentences, each with the first ten of its items and their number."""
        with self._lock:
            known = [(text, list(items)) for text, items in self._items.items()]
        for text, items in known:
            if not items:
                yield text
                continue
            shown = ", ".join(map(str, items[:_SHOWN]))
            yield f"{text}: {shown}" + (f", ... ({len(items)} in all)" if len(items) > _SHOWN else "")

    def __len__(self) -> int:
        return len(self._items)

    def state(self) -> dict[str, list[Any]]:
        """Give everything as values for JSON, for `restore`."""
        with self._lock:
            return {text: list(items) for text, items in self._items.items()}

    def restore(self, state: Mapping[str, list[Any]]) -> None:
        """Take over what an interrupted run had noted, in front of what was noted here."""
        with self._lock:
            own, self._items = self._items, {text: dict.fromkeys(items) for text, items in state.items()}
            for text, items in own.items():
                self._items.setdefault(text, {}).update(items)
