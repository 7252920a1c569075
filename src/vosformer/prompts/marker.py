"""`Marker`: from what a user says about an object to its mask, by the click network or without any weights."""

from __future__ import annotations

from typing import Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from vosformer.errors import InputError
from vosformer.prompts.classical import grabcut, random_walker
from vosformer.prompts.maps import Box, extent
from vosformer.prompts.network import ClickNetwork
from vosformer.prompts.network_marker import NetworkMarker
from vosformer.prompts.prompt import CheckedPrompt, Mask, Prompt
from vosformer.prompts.repairs import merged, seeded, without_specks
from vosformer.prompts.weights import default_network

Method = Literal["auto", "network", "classical"]

# A box lies around its object: a mask is doubted whose own box has less IoU with it, or that is less of its area.
_FILLS = 0.6
_SHARE = 0.15


def _fit(mask: Mask, box: Box) -> float:
    """Return the IoU of a mask's own box with a box, less where the mask is but a few specks of it."""
    own = extent(mask)
    if own is None:
        return 0.0
    inner = [max(own[0], box[0]), max(own[1], box[1]), min(own[2], box[2]), min(own[3], box[3])]
    shared = max(inner[2] - inner[0], 0) * max(inner[3] - inner[1], 0)
    areas = [(right - left) * (bottom - top) for left, top, right, bottom in (own, box)]
    iou = shared / (sum(areas) - shared)
    return float(iou * min(1.0, mask.sum() / (_SHARE * areas[1])))


class Marker:
    """Marks objects on one frame, click by click.

    What it returns follows from the frame and the prompt alone. It remembers what it computed, so that a prompt with one point more
    than the last one costs two passes of the network, and a point taken back costs nothing.

    Example:
        >>> marker = Marker(frame)                                             # doctest: +SKIP
        >>> mask = marker.mark(Prompt([(320, 200)]))                           # doctest: +SKIP
        >>> mask = marker.mark(Prompt([(320, 200), (350, 90)], [1, 0]))        # doctest: +SKIP
    """

    def __init__(
        self,
        frame: NDArray[np.uint8] | Tensor,
        *,
        method: Method = "auto",
        network: ClickNetwork | None = None,
        side: int = 320,
    ) -> None:
        """Set up a marker.

        Args:
            frame: uint8 RGB [H,W,3].
            method: "network"; "classical" = GrabCut from a box, else a random walker, without any weights; "auto" = the network if
                its weights are there; for a box alone GrabCut's mask where the network's does not fill the box and GrabCut's does.
            network: in place of the packaged one, in `eval` mode, on any device.
            side: long side in pixels at which the network sees the object and its surroundings.

        Raises:
            InputError: something that is no frame, an unknown method, or there are no weights for the network.
        """
        image = np.asarray(frame.detach().cpu() if isinstance(frame, Tensor) else frame)
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
            raise InputError(
                f"a frame of shape {image.shape} and {image.dtype} was given, expected uint8 [height,width,3] in RGB"
            )
        if method not in get_args(Method):
            raise InputError(f"method is {method!r}, expected one of {', '.join(get_args(Method))}")
        network = None if method == "classical" else network or default_network()
        if method == "network" and network is None:
            raise InputError("this installation has no weights of the click network; use method='classical'")
        self._may_doubt = method == "auto" and network is not None
        self._frame, self._size = image, (image.shape[0], image.shape[1])
        self._network = None if network is None else NetworkMarker(image, network, side)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the frame."""
        return self._size

    @property
    def method(self) -> str:
        """What marks here: "network" or "classical"."""
        return "classical" if self._network is None else "network"

    def mark(self, prompt: Prompt) -> Mask:
        """Return the mask of one object.

        Points are in it if their label is 1, and outside if it is 0; where they contradict each other the later one wins. If a mask
        to repair is given, it changes only where points and scribbles ask for it, or inside the box. Islands without a mark that are
        less than a 500th of the mask are left out, also those that a repair cuts off; islands of the mask to repair that it does
        not touch stay.

        Args:
            prompt: all that was said about the object on this frame so far.

        Returns:
            bool [H,W].

        Raises:
            InputError: the prompt does not fit the frame, or nothing is found in its box.
        """
        said = prompt.checked(*self._size)
        marks = said.marks(self._size)
        if said.mask is not None and not marks.any() and said.box is None:
            return said.mask.copy()
        found = self._classical(said, marks) if self._network is None else self._network.mask(said)
        if self._may_doubt and said.box is not None and said.mask is None and not marks.any():
            found = self._filling(said.box, found)
        if said.mask is not None:
            found = merged(said.mask, found, marks, said.box)
        found = without_specks(found, said.mask, marks)
        found = self._obeyed(found, said)
        if not found.any() and said.mask is None:
            raise InputError("nothing was found in the box: draw it closer around the object, or add a point on it")
        return found

    def _filling(self, box: Box, found: Mask) -> Mask:
        """Return what fills a box better, where the network's mask does not reach its sides: that mask, or GrabCut's."""
        if _fit(found, box) >= _FILLS:
            return found
        other = grabcut(self._frame, box, np.zeros(self._size, np.int8))
        return max(found, other, key=lambda mask: _fit(mask, box))

    def _classical(self, said: CheckedPrompt, marks: NDArray[np.int8]) -> Mask:
        if said.mask is not None:
            marks = seeded(said.mask, marks)
        if said.box is not None:
            return grabcut(self._frame, said.box, marks)
        return random_walker(self._frame, marks) if (marks == 1).any() else np.zeros(self._size, bool)

    def _obeyed(self, found: Mask, said: CheckedPrompt) -> Mask:
        """Return the mask with every mark on its side: a click counts for a spot of a few pixels, about what a hand can aim
        at.
        """
        radius = max(1, round(max(self._size) / 400))
        spots = np.zeros(self._size, np.int8) if said.scribbles is None else said.scribbles.copy()
        for (x, y), positive in zip(said.points, said.positive, strict=True):
            if found[y, x] != positive or spots[y, x]:
                cv2.circle(spots.view(np.uint8), (int(x), int(y)), radius, 1 if positive else 255, -1)
        return np.asarray((found | (spots == 1)) & (spots != -1))


def mark(
    frame: NDArray[np.uint8] | Tensor,
    points: Prompt | list[tuple[float, float]] | tuple[tuple[float, float], ...] = (),
    labels: list[int] | tuple[int, ...] | None = None,
    box: tuple[float, float, float, float] | list[float] | None = None,
    mask: NDArray[np.generic] | None = None,
    *,
    scribbles: NDArray[np.generic] | None = None,
    method: Method = "auto",
) -> Mask:
    """Mark one object on a frame; see `Prompt` for what can be said, and `Marker` for many clicks on one frame.

    Args:
        frame: uint8 RGB [H,W,3].
        points: clicks (x, y) in pixels of the frame.
        labels: 1 = on the object, 0 = not on it; default: all 1.
        box: (x0, y0, x1, y1) around the object.
        mask: bool [H,W], a mask to repair.
        scribbles: integers [H,W], 1 = the object, -1 = not, 0 = nothing said.
        method: "network", "classical" (GrabCut and a random walker, no weights), or "auto".

    Returns:
        bool [H,W].

    Raises:
        InputError: something that does not fit the frame, or nothing at all was said.
    """
    prompt = points if isinstance(points, Prompt) else Prompt(points, labels, box, scribbles, mask)
    return Marker(frame, method=method).mark(prompt)
