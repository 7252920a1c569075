"""Several objects marked on one frame -> one label map."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vosformer.errors import InputError
from vosformer.prompts.marker import Marker
from vosformer.prompts.prompt import Prompt


class MarkedObjects(NamedTuple):
    """The masks of several objects.

    Attributes:
        labels: int32 [H,W], the ids of the objects, 0 elsewhere.
        notes: what a user should know: pixels that two objects claimed.
    """

    labels: NDArray[np.int32]
    notes: tuple[str, ...]


def check_prompts(prompts: Any) -> None:
    """Refuse what is no mapping of ids to prompts.

    Raises:
        InputError: it is something else, such as a list.
    """
    if not isinstance(prompts, Mapping):
        raise InputError(f"prompts are a {type(prompts).__name__}, expected a dictionary: id -> vosformer.Prompt")


def mark_objects(marker: Marker, prompts: Mapping[int, Prompt]) -> MarkedObjects:
    """Mark objects one after the other; a pixel that several claim goes to the later one.

    Args:
        marker: of the frame.
        prompts: id -> what is said about that object; ids are whole numbers other than 0 that fit 32 bits.

    Raises:
        InputError: an id that cannot be used, or a prompt that does not fit the frame; the message names the object.
    """
    check_prompts(prompts)
    labels = np.zeros(marker.size, np.int32)
    notes = []
    limits = np.iinfo(np.int32)
    for i, prompt in prompts.items():
        if isinstance(i, bool) or not isinstance(i, int | np.integer) or i == 0 or not limits.min <= i <= limits.max:
            raise InputError(f"prompts are for the object {i!r}; ids are whole numbers other than 0 that fit 32 bits")
        if not isinstance(prompt, Prompt):
            raise InputError(f"object {i}: a {type(prompt).__name__} was given, expected a vosformer.Prompt")
        try:
            mask = marker.mark(prompt)
        except InputError as error:
            raise InputError(f"object {i}: {error}") from None
        for other, pixels in zip(*np.unique(labels[mask], return_counts=True), strict=True):
            if other:
                notes.append(f"objects {other} and {i} both claim {pixels} pixels; they go to {i}, which was marked later")
        labels[mask] = i
    return MarkedObjects(labels, tuple(notes))
