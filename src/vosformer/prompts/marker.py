"""`Marker`: from what a user says about an object to its mask, by the click network or without any weights."""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vosformer.errors import InputError
from vosformer.prompts.classical import grabcut, random_walker
from vosformer.prompts.maps import Box, prompt_maps
from vosformer.prompts.network import STRIDE, ClickNetwork, Picture
from vosformer.prompts.prompt import CheckedPrompt, Mask, Prompt
from vosformer.prompts.weights import default_network
from vosformer.prompts.window import Window, whole, window_around

Method = Literal["auto", "network", "classical"]

# A box lies around its object: a mask is doubted whose own box has less IoU with it, or that is less of its area.
_FILLS = 0.6
_SHARE = 0.15
_PICTURES = 3  # windows whose features are kept
_TOUCH = 2  # pixels around a click in which a change counts as asked for
_SPECK = 0.002  # an island of less than this share of the mask, or of what it was cut off from, is a speck
_CONTEXT = 3.0  # a window around a click alone, where nothing was found: a third of the frame


def _fit(mask: Mask, box: Box) -> float:
    """Return the IoU of a mask's own box with a box, less where the mask is but a few specks of it."""
    own = _extent(mask)
    if own is None:
        return 0.0
    inner = [max(own[0], box[0]), max(own[1], box[1]), min(own[2], box[2]), min(own[3], box[3])]
    shared = max(inner[2] - inner[0], 0) * max(inner[3] - inner[1], 0)
    areas = [(right - left) * (bottom - top) for left, top, right, bottom in (own, box)]
    iou = shared / (sum(areas) - shared)
    return float(iou * min(1.0, mask.sum() / (_SHARE * areas[1])))


class _Answer(NamedTuple):
    """What the network said: logits of a window of the frame; outside of it is background."""

    window: Window
    logits: NDArray[np.float32]


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
        self._network = None if method == "classical" else network or default_network()
        if method == "network" and self._network is None:
            raise InputError("this installation has no weights of the click network; use method='classical'")
        self._may_doubt = method == "auto" and self._network is not None
        self._frame, self._size, self._side = image, (image.shape[0], image.shape[1]), side
        self._pictures: dict[Window, Picture] = {}
        self._base: CheckedPrompt | None = None
        self._answers: list[_Answer | None] = []

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
        marks = self._marks(said, len(said.points))
        if said.mask is not None and not marks.any() and said.box is None:
            return said.mask.copy()
        found = self._classical(said, marks) if self._network is None else self._by_network(said)
        if self._may_doubt and said.box is not None and said.mask is None and not marks.any():
            found = self._filling(said.box, found)
        if said.mask is not None:
            found = _merged(said.mask, found, marks, said.box)
        found = _without_specks(found, said.mask, marks)
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

    def _by_network(self, said: CheckedPrompt) -> Mask:
        """Replay the clicks, from the last that the new prompt shares with the one before."""
        if self._base is None or not _same_base(self._base, said):
            self._answers = []
        else:
            known = self._base
            shared = 0
            while shared < min(len(known.points), len(said.points)) and (
                tuple(known.points[shared]) == tuple(said.points[shared]) and known.positive[shared] == said.positive[shared]
            ):
                shared += 1
            self._answers = self._answers[: shared + 1]
        self._base = said
        if not self._answers:
            self._answers = [self._first(said)]
        while len(self._answers) <= len(said.points):
            self._answers.append(self._next(said, len(self._answers)))
        answer = self._answers[-1]
        assert answer is not None
        found = np.zeros(self._size, bool)
        found[answer.window.part] = answer.logits > 0
        return found

    def _first(self, said: CheckedPrompt) -> _Answer | None:
        """Return what can be said without the clicks: by the mask, the box or scribbles."""
        marks = self._marks(said, 0)
        if said.mask is not None:
            logits = np.where(said.mask, np.float32(10), np.float32(-10))
            start = _Answer(whole(self._size, self._side, STRIDE), logits)
            return self._pass(said, marks, start) if marks.any() or said.box is not None else start
        if said.box is not None or (marks > 0).any():
            return self._twice(said, marks)
        return None

    def _next(self, said: CheckedPrompt, points: int) -> _Answer | None:
        """One click further."""
        before = self._answers[-1]
        marks = self._marks(said, points)
        if before is not None:
            return self._pass(said, marks, before)
        return self._twice(said, marks) if (marks > 0).any() else None

    def _twice(self, said: CheckedPrompt, marks: NDArray[np.int8]) -> _Answer:
        """Return a look from afar, unless a box says where the object is, and a closer one around what was found."""
        if said.box is not None:
            return self._pass(said, marks, None)
        far = self._look(whole(self._size, self._side, STRIDE), said, marks, None)
        near = self._window(said, marks, far)
        if (near.x1 - near.x0) * (near.y1 - near.y0) > 0.7 * self._size[0] * self._size[1]:
            return far
        return self._look(near, said, marks, far)

    def _pass(self, said: CheckedPrompt, marks: NDArray[np.int8], before: _Answer | None) -> _Answer:
        """Look, and look again with what was found in mind; a mask to repair is kept to, so that one look is enough."""
        window = self._window(said, marks, before)
        found = self._look(window, said, marks, before)
        return found if said.mask is not None else self._look(window, said, marks, found)

    def _window(self, said: CheckedPrompt, marks: NDArray[np.int8], before: _Answer | None) -> Window:
        """Return where to look: around the mask so far, the marks on the object and the box."""
        regions: list[Box] = [] if said.box is None else [said.box]
        marked = _extent(marks > 0)
        if marked is not None:
            regions.append(marked)
        if before is not None:
            held = _extent(before.logits > 0)
            if held is not None:
                x, y = before.window.x0, before.window.y0
                regions.append((held[0] + x, held[1] + y, held[2] + x, held[3] + y))
        if before is not None and said.mask is None and len(regions) == 1 and said.box is None:
            # Nothing was found but the click itself: its object is small, or shy.
            down, across = (side / _CONTEXT / 2.8 for side in self._size)
            left, top, right, bottom = regions[0]
            middle, level = (left + right) / 2, (top + bottom) / 2
            regions.append((middle - across, level - down, middle + across, level + down))
        if not regions:
            return whole(self._size, self._side, STRIDE)
        around = [function(side) for function, side in zip((min, min, max, max), zip(*regions, strict=True), strict=True)]
        window = window_around((around[0], around[1], around[2], around[3]), self._size, self._side, STRIDE)
        if before is not None and _serves(before.window, window, around) and before.window in self._pictures:
            return before.window
        return window

    @torch.inference_mode()
    def _look(self, window: Window, said: CheckedPrompt, marks: NDArray[np.int8], before: _Answer | None) -> _Answer:
        """One pass of the network."""
        assert self._network is not None
        device = next(self._network.parameters()).device
        previous = None
        if before is not None:
            canvas = np.zeros(self._size, np.float32)
            canvas[before.window.part] = 1 / (1 + np.exp(-np.clip(before.logits, -30, 30)))
            previous = window.shown_mask(canvas)
        box = None if said.box is None else window.shown_box(said.box)
        maps = torch.from_numpy(prompt_maps(window.shown_marks(marks), box, previous))[None].to(device)
        logits = self._network(self._picture(window, device), maps).logits[0, 0].float().cpu().numpy()
        return _Answer(window, window.back(logits))

    def _picture(self, window: Window, device: torch.device) -> Picture:
        assert self._network is not None
        if window not in self._pictures:
            pixels = torch.from_numpy(window.shown(self._frame)).permute(2, 0, 1)[None].to(device)
            self._pictures[window] = self._network.look(pixels)
            while len(self._pictures) > _PICTURES:
                del self._pictures[next(iter(self._pictures))]
        return self._pictures[window]

    def _classical(self, said: CheckedPrompt, marks: NDArray[np.int8]) -> Mask:
        if said.mask is not None:
            marks = _seeded(said.mask, marks)
        if said.box is not None:
            return grabcut(self._frame, said.box, marks)
        return random_walker(self._frame, marks) if (marks == 1).any() else np.zeros(self._size, bool)

    def _marks(self, said: CheckedPrompt, points: int) -> NDArray[np.int8]:
        """int8 [H,W]: the scribbles and the first points; later ones win."""
        marks = np.zeros(self._size, np.int8) if said.scribbles is None else said.scribbles.copy()
        for (x, y), positive in zip(said.points[:points], said.positive[:points], strict=True):
            marks[y, x] = 1 if positive else -1
        return marks

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


def _same_base(first: CheckedPrompt, second: CheckedPrompt) -> bool:
    """Tell whether two prompts differ in their points alone."""

    def same(a: NDArray[np.generic] | None, b: NDArray[np.generic] | None) -> bool:
        return a is b if a is None or b is None else bool(np.array_equal(a, b))

    return first.box == second.box and same(first.scribbles, second.scribbles) and same(first.mask, second.mask)


def _extent(mask: Mask) -> Box | None:
    """Return the box around the true pixels."""
    rows = np.flatnonzero(mask.any(1))
    if not len(rows):
        return None
    columns = np.flatnonzero(mask[rows[0] : rows[-1] + 1].any(0))
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def _serves(held: Window, needed: Window, around: list[float]) -> bool:
    """Tell whether the last window still shows what is to be seen, at about the scale of the new one."""
    room = 0.05 * max(around[2] - around[0], around[3] - around[1])
    shows = (
        (held.x0 == 0 or held.x0 <= around[0] - room)
        and (held.y0 == 0 or held.y0 <= around[1] - room)
        and (held.x1 >= needed.x1 or held.x1 >= around[2] + room)
        and (held.y1 >= needed.y1 or held.y1 >= around[3] + room)
    )
    ratio = max(held.x1 - held.x0, held.y1 - held.y0) / max(needed.x1 - needed.x0, needed.y1 - needed.y0)
    return shows and ratio < 1.3


def _merged(old: Mask, new: Mask, marks: NDArray[np.int8], box: Box | None) -> Mask:
    """Return the old mask with those changes alone that a mark asks for or that lie in the box (FocalClick's progressive
    merge).

    A positive mark asks for the added piece that it touches, a negative one for the piece that goes.
    """
    merged = old.copy()
    for change, is_object in ((new & ~old, True), (old & ~new, False)):
        asked = cv2.dilate((marks == (1 if is_object else -1)).astype(np.uint8), np.ones((2 * _TOUCH + 1,) * 2, np.uint8)) > 0
        if not (change & asked).any():
            continue
        _, parts = cv2.connectedComponents(change.astype(np.uint8), connectivity=8)
        touched = np.zeros(int(parts.max()) + 1, bool)
        touched[np.unique(parts[asked & change])] = True
        touched[0] = False
        merged[touched[parts]] = is_object
    if box is not None:
        x0, y0, x1, y1 = (round(side) for side in box)
        merged[y0:y1, x0:x1] = new[y0:y1, x0:x1]
    return np.asarray(merged)


def _without_specks(found: Mask, old: Mask | None, marks: NDArray[np.int8]) -> Mask:
    """Return the mask without tiny islands that no mark asks for; what a repair cuts off is one, what it does not touch is none."""
    held = _extent(found if old is None else found | old)
    if held is None:
        return found
    x0, y0, x1, y1 = (int(side) for side in held)
    part = (slice(max(0, y0 - _TOUCH), y1 + _TOUCH), slice(max(0, x0 - _TOUCH), x1 + _TOUCH))
    cleaned = found.copy()
    cleaned[part] &= ~_specks(found[part], None if old is None else old[part], marks[part])
    return cleaned


def _specks(found: Mask, old: Mask | None, marks: NDArray[np.int8]) -> Mask:
    """Return the pixels of the islands that `_without_specks` leaves out."""
    count, parts, about, _ = cv2.connectedComponentsWithStats(found.astype(np.uint8), connectivity=8)
    areas = about[:, cv2.CC_STAT_AREA]
    whole = np.full(count, found.sum())
    if old is not None:
        _, before, about, _ = cv2.connectedComponentsWithStats(old.astype(np.uint8), connectivity=8)
        shared = found & old
        source = np.zeros(count, np.intp)  # the old mask's piece that each is of
        source[parts[shared]] = before[shared]
        whole = np.where(source > 0, about[source, cv2.CC_STAT_AREA], whole)
    tiny = (areas < _SPECK * whole) & (areas != whole)
    tiny[0] = False
    tiny[np.unique(parts[cv2.dilate((marks > 0).astype(np.uint8), np.ones((2 * _TOUCH + 1,) * 2, np.uint8)) > 0])] = False
    return np.asarray(tiny[parts])


def _seeded(mask: Mask, marks: NDArray[np.int8]) -> NDArray[np.int8]:
    """Return marks with the mask's sure parts added: all but its edge and the surroundings of the marks, which are what is wrong."""
    size = max(3, int(np.sqrt(mask.sum()) * 0.05))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * size + 1,) * 2)
    inner, outer = cv2.erode(mask.astype(np.uint8), kernel), cv2.dilate(mask.astype(np.uint8), kernel)
    reach = 4 * size
    free = cv2.dilate((marks != 0).astype(np.uint8), cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1,) * 2)) > 0
    seeded = np.where(free, 0, np.where(inner > 0, 1, np.where(outer == 0, -1, 0))).astype(np.int8)
    return np.where(marks != 0, marks, seeded).astype(np.int8)
