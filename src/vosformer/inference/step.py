"""One frame's journey, for every system: `step`, the one inference path of vosformer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from vosformer.geometry import FrameSize, Placement
from vosformer.inference import objects
from vosformer.inference.closer import Closer, CloserWindow, moved, opened
from vosformer.inference.islands import Whole, Wholes, islands_of, told
from vosformer.inference.objects import Cohort, Given, all_ids, merge_slots
from vosformer.inference.prediction import Answer, CloserAnswer, Prediction, hard_answer, labels_of, soft_answer
from vosformer.policy import Policy
from vosformer.protocol import Features, Reading, VOSModel


class View(NamedTuple):
    """One way of looking at every frame (test-time augmentation): a factor on the size, and whether it is mirrored."""

    scale: float = 1.0
    flip: bool = False


@dataclass
class State:
    """All that a session knows after some frames; `step` consumes it and returns the next, `clone` branches it.

    Attributes:
        frames: how many frames were seen.
        source: (height, width) of the frames, None before the first.
        views: for each view its cohorts.
        windows: what is looked at more closely, each with its cohorts.
        wholes: what is known of the pieces that objects come in.
        origin: model and settings that it only fits, by name (`Session.origin`); empty inside a session.
    """

    frames: int = 0
    source: tuple[int, int] | None = None
    views: tuple[list[Cohort], ...] = ([],)
    windows: list[CloserWindow] = field(default_factory=list)
    wholes: Wholes = field(default_factory=dict)
    origin: Mapping[str, str] = field(default_factory=dict)

    def clone(self) -> State:
        """Return a copy that can go its own way."""
        views = tuple([cohort.clone() for cohort in cohorts] for cohorts in self.views)
        return replace(self, views=views, windows=[window.clone() for window in self.windows])

    def to(self, device: torch.device) -> State:
        """Return a copy on a device that can go its own way."""
        views = tuple([cohort.to(device) for cohort in cohorts] for cohorts in self.views)
        return replace(self, views=views, windows=[window.to(device) for window in self.windows])

    @property
    def cohorts(self) -> list[Cohort]:
        """All that is remembered, of every view and window."""
        return [cohort for cohorts in (*self.views, *(window.cohorts for window in self.windows)) for cohort in cohorts]


@dataclass(frozen=True)
class Setup:
    """What stays the same over a whole session."""

    model: VOSModel
    policy: Policy
    views: tuple[View, ...]
    size: FrameSize
    device: torch.device
    dtype: torch.dtype
    closer: Closer | None = None
    drop_islands: bool = False

    def place(self, height: int, width: int, view: View) -> Placement:
        """Return where frames of height x width lie in the network's input."""
        return self.model.geometry.place(height, width, self.size, view.scale)

    def near(self, window: CloserWindow, placement: Placement) -> Setup:
        """Return the setup that a window is looked at with, where the whole frame is placed so."""
        return replace(self, size=window.size(placement))


class _Seen(NamedTuple):
    """One view of one frame, between reading and writing."""

    placement: Placement
    features: Features
    readings: list[Reading]
    answer: Answer | None
    probabilities: Tensor | None  # [1,1+n,H,W] at network size, only where they are fed back


class _Masks(NamedTuple):
    """What a frame shows: ids [height,width], whose islands were left out of them where, if any were, and `State.wholes`."""

    labels: Tensor
    islands: Tensor | None = None
    wholes: Mapping[int, Whole] = {}

    def part(self, place: tuple[slice, slice]) -> _Masks:
        """Return a piece of the frame."""
        return _Masks(self.labels[place], None if self.islands is None else self.islands[place])


@torch.inference_mode()
def step(
    setup: Setup,
    state: State,
    frame: NDArray[np.uint8],
    given: Given | None,
    options: dict[str, Any],
    mask_size: tuple[int, int] | None = None,
) -> tuple[Prediction, State]:
    """Follow every object one frame further.

    Args:
        setup: model and settings.
        state: consumed; use the returned one, and `State.clone` before to branch.
        frame: uint8 RGB [height,width,3].
        given: the user's masks on this frame, if any; they win over the prediction and are pinned in memory.
        options: passed to the model's `read`.
        mask_size: (height, width) of all masks, in and out; None = the frame's. No closer looks then, which are windows of the frame.
    """
    height, width = mask_size or frame.shape[:2]
    setup = setup if mask_size is None else replace(setup, closer=None)
    seen = [
        _look(setup, view, cohorts, frame, options, mask_size) for view, cohorts in zip(setup.views, state.views, strict=True)
    ]
    near = [setup.near(window, seen[0].placement) for window in state.windows]
    looks = [
        _look(closely, View(), window.cohorts, frame[window.place], options)
        for closely, window in zip(near, state.windows, strict=True)
    ]
    answers = tuple(view.answer for view in seen if view.answer is not None)
    closer = tuple(answer for window, look in zip(state.windows, looks, strict=True) for answer in _spoken(window, look))
    said = frozenset() if given is None else frozenset(given.ids)
    known = told(state.wholes, given)
    wholes = {i: w for i, w in known.items() if w is not None and i not in said} if setup.drop_islands else {}
    labels = labels_of(answers, closer) if answers else torch.zeros(height, width, dtype=torch.int32, device=setup.device)
    masks = _decided(labels, given, wholes)
    for view, cohorts, look in zip(setup.views, state.views, seen, strict=True):
        own = masks
        if len(seen) > 1 and look.answer is not None:
            # Every view remembers its own prediction, not the merged one.
            own = _decided(labels_of([look.answer], closer), given, wholes)
        _remember(setup, view, cohorts, look, own, given, state.frames)
    for closely, window, look in zip(near, state.windows, looks, strict=True):
        _remember_near(closely, window, look, masks, given)
    # The one wait for the device, when all work of this frame is under way; where islands are left out it was before the memory was
    # written. (A window waits, too: for whom it sees.)
    labels = masks.labels.cpu()
    windows = moved(state.windows, labels, given)
    if setup.closer is not None and given is not None:
        windows += _opened(setup, setup.closer, seen[0].placement, frame, labels, given, windows, options)
    ids = tuple(sorted(all_ids(state.views[0])))
    islands = None if masks.islands is None else masks.islands.numpy()
    prediction = Prediction(labels.numpy(), ids, said, answers, closer, islands)
    return prediction, State(
        state.frames + 1, (frame.shape[0], frame.shape[1]), state.views, windows, {**known, **masks.wholes}
    )


def _opened(
    setup: Setup,
    closer: Closer,
    placement: Placement,
    frame: NDArray[np.uint8],
    labels: Tensor,
    given: Given,
    windows: list[CloserWindow],
    options: dict[str, Any],
) -> list[CloserWindow]:
    """Open windows on the small objects that were given and are in none, and let them remember this frame."""
    new = opened(closer, placement, given, windows)
    for window in new:
        closely = setup.near(window, placement)
        look = _look(closely, View(), [], frame[window.place], options)
        _remember_near(closely, window, look, _Masks(labels), Given(labels, tuple(np.unique(labels.numpy()).tolist())))
    return new


def _decided(labels: Tensor, given: Given | None, wholes: Mapping[int, Whole]) -> _Masks:
    """Leave the islands of some objects out of a prediction, and let the user's masks win."""
    islands = None
    if wholes:
        labels = labels.cpu()
        found, wholes = islands_of(labels.numpy(), wholes)
        if found is not None:
            islands = torch.from_numpy(found)
            labels = labels.masked_fill(islands != 0, 0)
    return _Masks(labels if given is None else _overlay(labels, given), islands, wholes)


def _spoken(window: CloserWindow, look: _Seen) -> Iterator[CloserAnswer]:
    """Yield what a window says of those of its homes that it sees; of the others, the whole frame may know more."""
    if look.answer is not None and (seen := look.answer.seen().intersection(window.homes)):
        yield CloserAnswer(window.top, window.left, {i: window.around(i) for i in sorted(seen)}, look.answer)


def _remember_near(near: Setup, window: CloserWindow, look: _Seen, masks: _Masks, given: Given | None) -> None:
    """Write the frame to a window's memory, with the masks that lie in it."""
    if given is not None:
        inside = given.labels[window.place]
        known = {*all_ids(window.cohorts), *np.unique(inside.numpy()).tolist()}
        ids = tuple(i for i in given.ids if i in known and i != 0)
        given = Given(inside, ids) if ids else None
    _remember(near, View(), window.cohorts, look, masks.part(window.place), given, window.frames)
    window.frames += 1


def _look(
    setup: Setup,
    view: View,
    cohorts: list[Cohort],
    frame: NDArray[np.uint8],
    options: dict[str, Any],
    mask_size: tuple[int, int] | None = None,
) -> _Seen:
    """Encode the frame and ask every cohort's memory about it."""
    model = setup.model
    placement = setup.place(frame.shape[0], frame.shape[1], view)
    placement = placement if mask_size is None else placement._replace(source=mask_size)
    image = model.geometry.image(frame, placement).to(setup.device, setup.dtype)
    if view.flip:
        image = image.flip(-1)
    features = model.encode(image.contiguous(memory_format=torch.channels_last))
    readings = [model.read(features, cohort.memory, **options) for cohort in cohorts]
    if not readings:
        return _Seen(placement, features, readings, None, None)
    slots, ids = _live_slots(model, cohorts, readings, view.flip)

    merge = partial(merge_slots, merging=model.merging)  # predictions can be pickled
    align = model.geometry.align_corners
    if model.feedback == "hard":
        return _Seen(placement, features, readings, hard_answer(slots, ids, merge, placement, align, model.presence), None)
    large = [F.interpolate(s, placement.network, mode="bilinear", align_corners=align) for s in slots]
    probabilities = merge(large).softmax(1)
    answer = soft_answer(probabilities, ids, placement, merge(slots), model.presence)
    return _Seen(placement, features, readings, answer, probabilities)


def _live_slots(
    model: VOSModel, cohorts: list[Cohort], readings: list[Reading], flip: bool
) -> tuple[list[Tensor], list[int | None]]:
    """Return each slot's logits [1,1+k,h,w] of the channels that compete, and whose they are."""
    parts: list[Tensor] = []
    ids: list[int | None] = []
    for cohort, reading in zip(cohorts, readings, strict=True):
        logits = reading.logits.float()
        logits = logits.flip(-1) if flip else logits
        for s, slot in enumerate(cohort.slots):
            channels = [*slot, *[None] * (model.slot_size - len(slot))]
            live = [k for k, i in enumerate(channels) if i is not None or model.merging.free_channels_compete]
            # Not by a list of channels: a list becomes a tensor on the CPU, and a GPU waits before it takes that over.
            parts.append(torch.cat([logits[s : s + 1, k : k + 1] for k in (0, *(k + 1 for k in live))], 1))
            ids.extend(channels[k] for k in live)
    return parts, ids


def _overlay(labels: Tensor, given: Given) -> Tensor:
    """Let the user's masks win: ids that they speak for are exactly where they say."""
    kept, said = labels, given.labels.to(labels.device)
    for i in given.ids:
        kept = kept.masked_fill(kept == i, 0)
    return torch.where(said != 0, said, kept)


def _remember(
    setup: Setup, view: View, cohorts: list[Cohort], seen: _Seen, shown: _Masks, given: Given | None, number: int
) -> None:
    """Write the frame, with its masks, to every cohort's memory; open channels for ids that are new."""
    model = setup.model
    was_read = len(cohorts)
    if given is not None:
        known = all_ids(cohorts)
        objects.admit(cohorts, [i for i in given.ids if i not in known], model, setup.policy, number)
    at_network = _at_network(setup, view, seen, shown.labels)
    if number == 0:
        at_network = model.prepare_given(at_network)
    mixed = _soft_masks(setup, view, cohorts, seen, shown.islands, given) if model.feedback == "soft" else {}
    for c, cohort in enumerate(cohorts):
        if model.feedback == "hard":
            masks = objects.hard_masks(cohort, at_network, model.slot_size, given is not None)
        else:
            masks = objects.soft_masks(cohort, mixed, model.slot_size, given is not None)
        masks = masks._replace(own=masks.own.to(setup.dtype), others=masks.others.to(setup.dtype))
        reading = seen.readings[c] if c < was_read else None
        own = given is not None and any(i in given.ids for slot in cohort.slots for i in slot)
        if model.write_ignores_memory:
            cohort.memory.make_room(number - cohort.began, given is not None, own)
        entry = model.write(seen.features, masks, reading, cohort.memory if c < was_read else None)
        cohort.memory.add(entry, number - cohort.began, given is not None, own)


def _at_network(setup: Setup, view: View, seen: _Seen, labels: Tensor) -> Tensor:
    """Return a label map of the source as the network sees this view."""
    inside = setup.model.geometry.labels(labels.to(setup.device), seen.placement)
    return inside.flip(-1) if view.flip else inside


def _soft_masks(
    setup: Setup, view: View, cohorts: list[Cohort], seen: _Seen, islands: Tensor | None, given: Given | None
) -> dict[int, Tensor]:
    """Id -> probabilities [H,W] at network size, islands left out, the user's masks put in and aggregated again."""
    masks: dict[int, Tensor] = {}
    if seen.answer is not None and seen.probabilities is not None:
        predicted = seen.probabilities.flip(-1) if view.flip else seen.probabilities
        channels = dict(zip(seen.answer.ids, predicted[0, 1:], strict=True))
        masks = {i: channels[i] for i in all_ids(cohorts) if i in channels}
    if islands is not None:
        left_out = _at_network(setup, view, seen, islands)
        masks = {i: mask * (left_out != i) for i, mask in masks.items()}
    if given is None:
        return masks
    inside = _at_network(setup, view, seen, given.labels)
    for i in all_ids(cohorts):
        if i in given.ids:
            masks[i] = (inside == i).float()
        else:
            masks[i] = masks[i] * (inside == 0)
    slots = []
    for mask in masks.values():
        chance = torch.stack([1 - mask, mask])[None]
        slots.append(chance.clamp(1e-30, 1).log())
    merged = merge_slots(slots, setup.model.merging).softmax(1)
    return dict(zip(masks, merged[0, 1:], strict=True))
