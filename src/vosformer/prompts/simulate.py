"""The user of a training or a measurement: clicks where a mask is most wrong."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vosformer.prompts.distance import squared_distance

Mask = NDArray[np.bool_]


class Click(NamedTuple):
    """A place in pixels and what is there: True = the object."""

    x: int
    y: int
    positive: bool


def next_click(
    truth: Mask, found: Mask, valid: Mask | None = None, rng: np.random.Generator | None = None, done: Mask | None = None
) -> Click | None:
    """Return the next click of a user who sees `found` and wants `truth` (the protocol of RITM and its successors).

    It lies in the larger of the errors, missed or wrongly taken, that have the pixel farthest from any right one: exactly there, or
    with `rng` at a random pixel that is at least half as far.

    Args:
        truth: [H,W].
        found: [H,W].
        valid: [H,W], False where the truth is not known.
        rng: of the choice.
        done: [H,W], pixels that were clicked before; a user does not click twice on one.

    Returns:
        None if nothing is wrong.
    """
    known = np.ones_like(truth) if valid is None else valid
    best = None
    for positive, wrong in ((True, truth & ~found & known), (False, ~truth & found & known)):
        if not wrong.any():
            continue
        # The picture's border counts as right, so that a click keeps away from it.
        square = squared_distance(np.pad(wrong, 1))[1:-1, 1:-1]
        if done is not None:
            square = np.where(done, 0, square)
        far = float(square.max())
        if far > 0 and (best is None or far > best[0]):
            best = (far, positive, square)
    if best is None:
        return None
    far, positive, square = best
    if rng is None:
        y, x = np.unravel_index(int(square.argmax()), square.shape)
    else:
        rows, columns = np.nonzero(square >= far / 4)
        at = int(rng.integers(len(rows)))
        y, x = rows[at], columns[at]
    return Click(int(x), int(y), positive)
