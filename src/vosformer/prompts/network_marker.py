"""What the click network says of one frame, click by click, and where it looks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from vosformer.prompts.maps import Box, extent, prompt_maps
from vosformer.prompts.network import STRIDE, ClickNetwork, Picture
from vosformer.prompts.prompt import CheckedPrompt, Mask
from vosformer.prompts.window import Window, whole, window_around, window_of

_PICTURES = 8  # windows whose features are kept
_VIEWS = (0.5, 0.25)  # long sides of the views from nearer by, of the frame's
_CLOSER_LOOKS = 2  # after the first of each view
_NARROW = 0.2  # less is expected with each view: the narrower it is, the less of what the mask leaves out is seen
_SURE = 0.8  # no narrower view is tried where a mask is expected to have this IoU
_CONTEXT = 3.0  # a window around a click alone, where nothing was found: a third of the frame


class Answer(NamedTuple):
    """What the network said: logits of a window of the frame; outside of it is background. `iou`: what it expects of the mask."""

    window: Window
    logits: NDArray[np.float32]
    iou: float = 1.0


class NetworkMarker:
    """The click network on one frame; `Marker` says what it remembers.

    Args:
        frame: uint8 RGB [H,W,3].
        network: in `eval` mode.
        side: long side in pixels at which the network sees a part of the frame.
    """

    def __init__(self, frame: NDArray[np.uint8], network: ClickNetwork, side: int) -> None:
        self._network, self._frame, self._side = network, frame, side
        self._size = (frame.shape[0], frame.shape[1])
        self._pictures: dict[Window, Picture] = {}
        self._base: CheckedPrompt | None = None
        self._answers: list[Answer | None] = []

    def mask(self, said: CheckedPrompt) -> Mask:
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

    def _first(self, said: CheckedPrompt) -> Answer | None:
        """Return what can be said without the clicks: by the mask, the box or scribbles."""
        marks = said.marks(self._size, 0)
        if said.mask is not None:
            logits = np.where(said.mask, np.float32(10), np.float32(-10))
            start = Answer(whole(self._size, self._side, STRIDE), logits)
            return self._pass(said, marks, start) if marks.any() or said.box is not None else start
        if said.box is not None:  # it says where to look
            return self._pass(said, marks, None)
        return self._found(said, marks)

    def _next(self, said: CheckedPrompt, points: int) -> Answer | None:
        """One click further."""
        before = self._answers[-1]
        marks = said.marks(self._size, points)
        return self._found(said, marks) if before is None else self._pass(said, marks, before)

    def _found(self, said: CheckedPrompt, marks: NDArray[np.int8]) -> Answer | None:
        """Find an object of which nothing is known but marks; None if none of them is on it.

        They do not say how large it is: the network looks from afar and closer around what it found, and, where it does not expect a
        good mask of that, from nearer by, too. The mask that it expects most of is taken.
        """
        if not (marks > 0).any():
            return None
        answers = [self._closer(said, marks, whole(self._size, self._side, STRIDE))]
        if answers[0].iou < _SURE:
            answers += [self._closer(said, marks, view) for view in self._narrower(marks)]
        return max(enumerate(answers), key=lambda numbered: numbered[1].iou - _NARROW * numbered[0])[1]

    def _closer(self, said: CheckedPrompt, marks: NDArray[np.int8], view: Window) -> Answer:
        """Look at a view, and closer around what was found."""
        answer = self._look(view, said, marks, None)
        for _ in range(_CLOSER_LOOKS):
            answer = self._look(self._window(said, marks, answer), said, marks, answer)
        return answer

    def _narrower(self, marks: NDArray[np.int8]) -> Iterator[Window]:
        """Yield the parts of the frame around the marks that may show better what is meant."""
        marked = extent(marks > 0)
        assert marked is not None
        for share in _VIEWS:
            side = share * max(self._size)
            if max(marked[2] - marked[0], marked[3] - marked[1]) < 0.7 * side:
                yield window_of(marked, side, self._size, self._side, STRIDE)

    def _pass(self, said: CheckedPrompt, marks: NDArray[np.int8], before: Answer | None) -> Answer:
        """Look, and look again with what was found in mind; a mask to repair is kept to, so that one look is enough."""
        window = self._window(said, marks, before)
        found = self._look(window, said, marks, before)
        return found if said.mask is not None else self._look(window, said, marks, found)

    def _window(self, said: CheckedPrompt, marks: NDArray[np.int8], before: Answer | None) -> Window:
        """Return where to look: around the mask so far, the marks on the object and the box."""
        regions: list[Box] = [] if said.box is None else [said.box]
        marked = extent(marks > 0)
        if marked is not None:
            regions.append(marked)
        if before is not None:
            held = extent(before.logits > 0)
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
    def _look(self, window: Window, said: CheckedPrompt, marks: NDArray[np.int8], before: Answer | None) -> Answer:
        """One pass of the network."""
        device = next(self._network.parameters()).device
        previous = None
        if before is not None:
            canvas = np.zeros(self._size, np.float32)
            canvas[before.window.part] = 1 / (1 + np.exp(-np.clip(before.logits, -30, 30)))
            previous = window.shown_mask(canvas)
        box = None if said.box is None else window.shown_box(said.box)
        maps = torch.from_numpy(prompt_maps(window.shown_marks(marks), box, previous))[None].to(device)
        logits, iou = self._network(self._picture(window, device), maps)
        return Answer(window, window.back(logits[0, 0].float().cpu().numpy()), 1.0 if iou is None else float(iou[0]))

    def _picture(self, window: Window, device: torch.device) -> Picture:
        if window not in self._pictures:
            pixels = torch.from_numpy(window.shown(self._frame)).permute(2, 0, 1)[None].to(device)
            self._pictures[window] = self._network.look(pixels)
            while len(self._pictures) > _PICTURES:
                del self._pictures[next(iter(self._pictures))]
        return self._pictures[window]


def _same_base(first: CheckedPrompt, second: CheckedPrompt) -> bool:
    """Tell whether two prompts differ in their points alone."""

    def same(a: NDArray[np.generic] | None, b: NDArray[np.generic] | None) -> bool:
        return a is b if a is None or b is None else bool(np.array_equal(a, b))

    return first.box == second.box and same(first.scribbles, second.scribbles) and same(first.mask, second.mask)


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
