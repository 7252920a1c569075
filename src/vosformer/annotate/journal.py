"""The journal of a project: what was changed, line by line, so that everything can be undone and nothing is lost by a kill.

A change is (key, old value, new value). A gesture is one line with all of its changes; a propagation is a line that begins it, one
line a frame, and a line that ends it. Undo and redo are lines as well. Lines are only ever appended. Values are not held in memory:
of each action only its offset in the file is.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from vosformer.io.files import output_errors

Change = tuple[str, Any, Any]


@dataclass
class ActionRecord:
    """Where an action lies in the journal.

    Attributes:
        id: counts up.
        what: in the user's words.
        start: of its first line, bytes.
        stop: behind its last line.
    """

    id: int
    what: str
    start: int
    stop: int


class Journal:
    """An append-only file of actions, with the stacks of what can be undone and redone.

    Args:
        path: of the file; it is created with the first action.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[bytes] | None = None
        self.done: list[ActionRecord] = []
        self.undone: list[ActionRecord] = []
        self._next = 1
        self.size = 0
        self._open: ActionRecord | None = None
        self._scan()

    def add(self, what: str, changes: Sequence[Change]) -> ActionRecord:
        """Write a whole action."""
        record = ActionRecord(self._next, what, self.size, self.size)
        self._write({"op": "do", "id": record.id, "what": what, "changes": changes})
        return self._push(record)

    def begin(self, what: str) -> ActionRecord:
        """Begin an action whose changes come one by one."""
        record = ActionRecord(self._next, what, self.size, self.size)
        self._write({"op": "begin", "id": record.id, "what": what})
        self._open = record
        return self._push(record)

    def extend(self, record: ActionRecord, changes: Sequence[Change]) -> None:
        """Add to an action that was begun."""
        self._write({"op": "set", "id": record.id, "changes": changes})

    def end(self, record: ActionRecord) -> None:
        """End an action that was begun."""
        self._write({"op": "end", "id": record.id})
        record.stop = self.size
        self._open = None

    def undo(self) -> ActionRecord | None:
        """Take the last action from the stack, and note it; the caller then applies its old values."""
        if not self.done:
            return None
        record = self.done.pop()
        self._write({"op": "undo", "id": record.id})
        self.undone.append(record)
        return record

    def redo(self) -> ActionRecord | None:
        """Put the action back that was undone last, and note it; the caller then applies its new values."""
        if not self.undone:
            return None
        record = self.undone.pop()
        self._write({"op": "redo", "id": record.id})
        self.done.append(record)
        return record

    def changes(self, record: ActionRecord, backward: bool = False) -> Iterator[Change]:
        """Yield the changes of an action, in their order or the other way round; read from the file one line at a time."""
        offsets = [offset for offset, line in self._lines(record.start, record.stop) if _owner(line) == record.id]
        with self._path.open("rb") as file:
            for offset in reversed(offsets) if backward else offsets:
                file.seek(offset)
                changes = json.loads(file.readline()).get("changes", [])
                yield from reversed(changes) if backward else changes

    def after(self, offset: int) -> Iterator[tuple[str, Any]]:
        """Yield (key, value) as they became by all lines from `offset` on, in order: what a reader of an older state has to
        catch up on.
        """
        known = {record.id: record for record in [*self.done, *self.undone]}
        for _, line in self._lines(offset, self.size):
            entry = json.loads(line)
            record = known.get(entry["id"])
            if entry["op"] in ("do", "set"):
                yield from ((key, new) for key, _, new in entry["changes"])
            elif record is not None and entry["op"] == "undo":
                yield from ((key, old) for key, old, _ in self.changes(record, backward=True))
            elif record is not None and entry["op"] == "redo":
                yield from ((key, new) for key, _, new in self.changes(record))

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _push(self, record: ActionRecord) -> ActionRecord:
        self._next += 1
        record.stop = self.size
        self.done.append(record)
        self.undone.clear()
        return record

    def _write(self, entry: dict[str, Any]) -> None:
        line = json.dumps(entry, separators=(",", ":")).encode() + b"\n"
        with output_errors(self._path):
            if self._file is None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                # Without a buffer: a line is with the system, whole, once this returns, and a kill of the process does not matter.
                self._file = self._path.open("ab", buffering=0)
            self._file.write(line)
        self.size += len(line)
        if self._open is not None:
            self._open.stop = self.size

    def _lines(self, start: int, stop: int) -> Iterator[tuple[int, bytes]]:
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(start)
            offset = start
            while offset < stop:
                line = file.readline()
                if not line.endswith(b"\n"):
                    return
                yield offset, line
                offset += len(line)

    def _scan(self) -> None:
        """Read what earlier processes left; half a line at the end, of a full disk, is cut off."""
        end = self._path.stat().st_size if self._path.exists() else 0
        actions: dict[int, ActionRecord] = {}
        open_action: ActionRecord | None = None
        for offset, line in self._lines(0, end):
            self.size = offset + len(line)
            if line.startswith(b'{"op":"set"'):
                continue
            entry = json.loads(line)
            number = int(entry["id"])
            if entry["op"] in ("do", "begin"):
                actions[number] = ActionRecord(number, entry["what"], offset, self.size)
                self.done.append(actions[number])
                self.undone.clear()
                self._next = number + 1
                open_action = actions[number] if entry["op"] == "begin" else open_action
            elif entry["op"] == "end":
                actions[number].stop, open_action = self.size, None
            elif entry["op"] == "undo":
                self.undone.append(self.done.pop())
            elif entry["op"] == "redo":
                self.done.append(self.undone.pop())
        if self.size < end:
            with output_errors(self._path), self._path.open("r+b") as file:
                file.truncate(self.size)
        if open_action is not None:  # killed while it went on: what is there stays
            self.end(open_action)


def _owner(line: bytes) -> int | None:
    """Return the action whose changes a line holds; the id stands near its begin."""
    if not line.startswith((b'{"op":"do"', b'{"op":"set"')):
        return None
    head = line[: line.index(b",", line.index(b'"id":'))]
    return int(head.rpartition(b":")[2])
