"""A tracker that VOT's toolkit drives: it is given a mask and then frames, one by one, over the TraX protocol (Cehovin, 2017)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vosformer.errors import DataError, InputError
from vosformer.evaluation.run_video import Steps
from vosformer.io.images import read_image

_TIMEOUT = 600  # seconds that the toolkit waits for an answer: building a model on a CPU takes its time


def serve_trax(session: Steps, options: Mapping[str, Any] | None = None) -> None:
    """Follow objects for the toolkit over standard input and output, until it quits. Several objects at once are followed together.

    Args:
        session: that follows the objects.
        options: for every step.

    Raises:
        InputError: vot-trax is not installed, or the toolkit sends something else than masks.
        DataError: a frame does not decode.
    """
    trax = _trax()
    server = trax.Server([trax.Region.MASK], [trax.Image.PATH], ["color"], "vosformer", multiobject=True)
    ids: list[int] = []
    with server:
        while True:
            try:
                request = server.wait()
            except trax.TraxException as error:
                raise InputError(f"the connection to the toolkit broke off: {error}") from error
            if request.type not in (trax.TraxStatus.INITIALIZE, trax.TraxStatus.FRAME):
                return
            frame = _frame(Path(request.image["color"].path()))
            if request.type == trax.TraxStatus.INITIALIZE:
                session.reset()
                ids = []
            regions = [region for region, _ in request.objects or ()]
            labels = _labels(regions, frame.shape[:2], first=len(ids) + 1) if regions else None
            ids += range(len(ids) + 1, len(ids) + 1 + len(regions))
            found = session.step(frame, labels, **dict(options or {})).labels
            server.status([(trax.Mask.create((found == number).astype(np.uint8)), {}) for number in ids])


def trackers_entry(name: str, command: str) -> str:
    """Write the lines of a workspace's trackers.ini that let the toolkit start this tracker.

    Args:
        name: of the tracker: letters, digits, "-" and "_".
        command: the command line.

    Raises:
        InputError: the toolkit does not take such a name.
    """
    if not name or not all(sign.isascii() and (sign.isalnum() or sign in "-_") for sign in name):
        raise InputError(f"the tracker's name is {name!r}, expected letters, digits, - and _")
    return f"[{name}]\nlabel = {name}\nprotocol = trax\ncommand = {command}\ntimeout = {_TIMEOUT}\n"


def _frame(path: Path) -> NDArray[np.uint8]:
    try:
        return np.asarray(read_image(path), np.uint8)
    except InputError as error:
        raise DataError(str(error)) from error


def _labels(regions: list[Any], size: tuple[int, ...], first: int) -> NDArray[np.int32]:
    """Paint masks as labels from `first` on: int32 [H,W]; where they overlap, the later one wins."""
    labels = np.zeros(size, np.int32)
    for number, region in enumerate(regions, first):
        if region.type != "mask":
            raise InputError(f"the toolkit gave a {region.type} to follow; masks are needed (VOT-ST2020 to 2022)")
        part, (left, top) = region.array() > 0, region.offset()
        rows, columns = slice(max(0, -top), size[0] - top), slice(max(0, -left), size[1] - left)
        inside = part[rows, columns]
        top, left = max(top, 0), max(left, 0)
        labels[top : top + inside.shape[0], left : left + inside.shape[1]][inside] = number
    return labels


def _trax() -> Any:
    try:
        import trax
    except ImportError as error:
        raise InputError('the TraX protocol needs vot-trax: pip install "vosformer[vot]"') from error
    return trax
