"""Actions: the changes of one gesture, as the journal writes them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vosformer.annotate.journal import ActionRecord
from vosformer.annotate.records import GivenFrame, Row, TrackedObject

Labels = NDArray[np.int32]


class ChangedProject(Protocol):
    """What an action needs of the project that it changes; see `vosformer.annotate.project.Project`."""

    def keep_labels(self, labels: Labels) -> str: ...

    def extend(self, record: ActionRecord, key: str, new: Any) -> None: ...

    def end(self, record: ActionRecord) -> None: ...


class Action:
    """The changes of one gesture; see `Project.action`.

    Args:
        project: that is to change.
    """

    def __init__(self, project: ChangedProject) -> None:
        self._project = project
        self.changes: dict[str, Any] = {}

    def set_object(self, value: TrackedObject) -> None:
        """Add or change an object."""
        self._set(f"object/{value.id}", plain(value.to_json()))

    def drop_object(self, i: int) -> None:
        """Remove an object from the list."""
        self._set(f"object/{i}", None)

    def set_given(self, frame: int, labels: Labels, given: GivenFrame) -> None:
        """Make these the given masks of a frame; of no ids, remove them."""
        kept = {**plain(given.to_json()), "png": self._project.keep_labels(labels)} if given.ids else None
        self._set(f"given/{frame}", kept)

    def set_mask(self, frame: int, labels: Labels | None, rows: Mapping[int, Row]) -> None:
        """Make these the masks of a frame; None removes them."""
        kept = None if labels is None else {"png": self._project.keep_labels(labels), "rows": rows_to_json(rows)}
        self._set(f"mask/{frame}", kept)

    def _set(self, key: str, value: Any) -> None:
        self.changes[key] = value


class LongAction(Action):
    """An action of which every change is done, and kept, as it comes; see `Project.begin`."""

    def __init__(self, project: ChangedProject, record: ActionRecord) -> None:
        super().__init__(project)
        self._record = record

    def __enter__(self) -> LongAction:
        return self

    def __exit__(self, *error: object) -> None:
        self._project.end(self._record)

    def _set(self, key: str, value: Any) -> None:
        self._project.extend(self._record, key, value)


def parts_of(key: str) -> tuple[str, int]:
    """Take a key of a change apart: "object", "given" or "mask", and the number of the object or the frame."""
    kind, _, number = key.partition("/")
    return kind, int(number)


def plain(value: Any) -> Any:
    """Return the value as it comes back from JSON, so that old and new compare."""
    return json.loads(json.dumps(value))


def rows_to_json(rows: Mapping[int, Row]) -> dict[str, list[float | None]]:
    """Turn the numbers of a frame's objects into JSON values; NaN becomes None."""
    return {str(i): [None if math.isnan(v) else round(v, 4) for v in row] for i, row in rows.items()}


def rows_from_json(rows: Mapping[str, list[float | None]]) -> dict[int, Row]:
    """Undo `rows_to_json`; journals of earlier versions lack the last number."""

    def row(values: list[float | None]) -> Row:
        score, pixels, *others = (math.nan if v is None else float(v) for v in values)
        return Row(score, int(pixels), *others)

    return {int(i): row(values) for i, values in rows.items()}
