"""The one way in which vosformer follows objects: `step`, and `Session`, the thin object around it that holds the state.

Training rolls clips out through the same `encode`, `read` and `write`; the command line, evaluation and whatever else calls `Session`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from vosformer import objects
from vosformer.device import choose_device, choose_dtype
from vosformer.errors import InputError
from vosformer.geometry import Placement
from vosformer.memory import Policy, named_policy
from vosformer.objects import Cohort, all_ids, merge_slots
from vosformer.prediction import Answer, Prediction, hard_answer, labels_of, presence, soft_answer
from vosformer.types import Features, Reading, VOSModel
from vosformer.weights import build


class View(NamedTuple):
    """One way of looking at every frame (test-time augmentation): a factor on the size, and whether it is mirrored."""

    scale: float = 1.0
    flip: bool = False


class Given(NamedTuple):
    """What the user says about a frame.

    Attributes:
        labels: int32 [height,width] at source size, 0 where nothing is said.
        ids: the ids whose masks on this frame are exactly these; all others are left to the model.
    """

    labels: Tensor
    ids: tuple[int, ...]


@dataclass
class State:
    """All that a session knows after some frames; `step` consumes it and returns the next, `clone` branches it.

    Attributes:
        frames: how many frames were seen.
        source: (height, width) of the frames, None before the first.
        views: for each view its cohorts.
    """

    frames: int = 0
    source: tuple[int, int] | None = None
    views: tuple[list[Cohort], ...] = ([],)

    def clone(self) -> State:
        """A copy that can go its own way."""
        return replace(self, views=tuple([cohort.clone() for cohort in cohorts] for cohorts in self.views))


@dataclass(frozen=True)
class Setup:
    """What stays the same over a whole session."""

    model: VOSModel
    policy: Policy
    views: tuple[View, ...]
    size: int | None
    device: torch.device
    dtype: torch.dtype


class _Seen(NamedTuple):
    """One view of one frame, between reading and writing."""

    placement: Placement
    features: Features
    readings: list[Reading]
    answer: Answer | None
    probabilities: Tensor | None  # [1,1+n,H,W] at network size, only where they are fed back


@torch.inference_mode()
def step(
    setup: Setup, state: State, frame: NDArray[np.uint8], given: Given | None, options: dict[str, Any]
) -> tuple[Prediction, State]:
    """Follow every object one frame further.

    Args:
        setup: model and settings.
        state: consumed; use the returned one, and `State.clone` before to branch.
        frame: uint8 RGB [height,width,3].
        given: the user's masks on this frame, if any; they win over the prediction and are pinned in memory.
        options: passed to the model's `read`.
    """
    height, width = frame.shape[:2]
    seen = [_look(setup, view, cohorts, frame, options) for view, cohorts in zip(setup.views, state.views, strict=True)]
    answers = [view.answer for view in seen if view.answer is not None]
    labels = labels_of(answers) if answers else torch.zeros(height, width, dtype=torch.int32)
    if given is not None:
        labels = _overlay(labels, given)
    for view, cohorts, look in zip(setup.views, state.views, seen, strict=True):
        own = labels
        if len(seen) > 1 and look.answer is not None:
            # Every view remembers its own prediction, not the merged one.
            own = labels_of([look.answer])
            own = _overlay(own, given) if given is not None else own
        _remember(setup, view, cohorts, look, own, given, state.frames)
    ids = tuple(sorted(all_ids(state.views[0])))
    fixed = frozenset(given.ids) if given is not None else frozenset()
    prediction = Prediction(labels.numpy(), ids, fixed, tuple(answers))
    return prediction, State(state.frames + 1, (height, width), state.views)


def _look(setup: Setup, view: View, cohorts: list[Cohort], frame: NDArray[np.uint8], options: dict[str, Any]) -> _Seen:
    """Encode the frame and ask every cohort's memory about it."""
    model = setup.model
    placement = model.geometry.place(frame.shape[0], frame.shape[1], setup.size, view.scale)
    image = model.geometry.image(frame, placement).to(setup.device, setup.dtype)
    if view.flip:
        image = image.flip(-1)
    features = model.encode(image.contiguous(memory_format=torch.channels_last))
    readings = [model.read(features, cohort.memory, **options) for cohort in cohorts]
    if not readings:
        return _Seen(placement, features, readings, None, None)
    slots, ids = _live_slots(model, cohorts, readings, view.flip)

    def merge(parts: Sequence[Tensor]) -> Tensor:
        return merge_slots(parts, model.merge_clamp, model.merges_single)

    align = model.geometry.align_corners
    if model.feedback == "hard":
        return _Seen(placement, features, readings, hard_answer(slots, ids, merge, placement, align), None)
    known = [i for i in ids if i is not None]
    large = [F.interpolate(s, placement.network, mode="bilinear", align_corners=align) for s in slots]
    probabilities = merge(large).softmax(1)
    answer = soft_answer(probabilities, ids, placement, presence(merge(slots), known))
    return _Seen(placement, features, readings, answer, probabilities)


def _live_slots(
    model: VOSModel, cohorts: list[Cohort], readings: list[Reading], flip: bool
) -> tuple[list[Tensor], list[int | None]]:
    """Each slot's logits [1,1+k,h,w] of the places that compete, and whose they are."""
    parts: list[Tensor] = []
    ids: list[int | None] = []
    for cohort, reading in zip(cohorts, readings, strict=True):
        logits = reading.logits.float()
        logits = logits.flip(-1) if flip else logits
        for s, slot in enumerate(cohort.slots):
            places = [*slot, *[None] * (model.slot_size - len(slot))]
            if model.masks_free_places:
                live = [k for k, i in enumerate(places) if i is not None]
            else:
                live = list(range(model.slot_size))
            parts.append(logits[s : s + 1, [0, *(k + 1 for k in live)]])
            ids.extend(places[k] for k in live)
    return parts, ids


def _overlay(labels: Tensor, given: Given) -> Tensor:
    """The user's masks win: ids that they speak for are exactly where they say."""
    kept = labels
    for i in given.ids:
        kept = kept.masked_fill(kept == i, 0)
    return torch.where(given.labels != 0, given.labels, kept)


def _remember(
    setup: Setup, view: View, cohorts: list[Cohort], seen: _Seen, labels: Tensor, given: Given | None, number: int
) -> None:
    """Write the frame, with its masks, to every cohort's memory; open places for ids that are new."""
    model, geometry = setup.model, setup.model.geometry
    was_read = len(cohorts)
    if given is not None:
        known = all_ids(cohorts)
        objects.admit(cohorts, [i for i in given.ids if i not in known], model, setup.policy, number)
    at_network = geometry.labels(labels.to(setup.device), seen.placement)
    at_network = at_network.flip(-1) if view.flip else at_network
    mixed = _soft_masks(setup, view, cohorts, seen, at_network, given) if model.feedback == "soft" else {}
    for c, cohort in enumerate(cohorts):
        if model.feedback == "hard":
            targets = objects.hard_targets(cohort, at_network, model.slot_size, given is not None)
        else:
            targets = objects.soft_targets(cohort, mixed, model.slot_size, given is not None)
        targets = targets._replace(own=targets.own.to(setup.dtype), others=targets.others.to(setup.dtype))
        reading = seen.readings[c] if c < was_read else None
        entry = model.write(seen.features, targets, reading, cohort.memory if c < was_read else None)
        cohort.memory.add(entry, number - cohort.began, given is not None)


def _soft_masks(
    setup: Setup, view: View, cohorts: list[Cohort], seen: _Seen, labels: Tensor, given: Given | None
) -> dict[int, Tensor]:
    """Id -> probabilities [H,W] at network size, the user's masks put in and aggregated again."""
    masks: dict[int, Tensor] = {}
    if seen.answer is not None and seen.probabilities is not None:
        predicted = seen.probabilities.flip(-1) if view.flip else seen.probabilities
        channels = dict(zip(seen.answer.ids, predicted[0, 1:], strict=True))
        masks = {i: channels[i] for i in all_ids(cohorts) if i in channels}
    if given is None:
        return masks
    inside = setup.model.geometry.labels(given.labels.to(setup.device), seen.placement)
    inside = inside.flip(-1) if view.flip else inside
    for i in all_ids(cohorts):
        if i in given.ids:
            masks[i] = (inside == i).float()
        else:
            masks[i] = masks[i] * (inside == 0)
    slots = []
    for mask in masks.values():
        chance = torch.stack([1 - mask, mask])[None]
        slots.append(chance.clamp(1e-30, 1).log())
    merged = merge_slots(slots, setup.model.merge_clamp, True).softmax(1)
    return dict(zip(masks, merged[0, 1:], strict=True))


class Session:
    """Follows objects through a stream of frames, one frame at a time, with memory that stays flat on any length.

    Example:
        >>> session = Session("default")                            # doctest: +SKIP
        >>> for frame, labels in frames_with_a_mask_on_some:        # doctest: +SKIP
        ...     out = session.step(frame, labels)
        ...     save(out.labels, {i: out.score(i) for i in out.ids})
    """

    def __init__(
        self,
        model: str | nn.Module = "default",
        weights: str | Path | None = None,
        *,
        device: str | torch.device = "auto",
        dtype: str | torch.dtype = "auto",
        memory: str | Policy = "default",
        max_memory_mb: float | None = None,
        size: int | None = 480,
        scales: Sequence[float] = (1.0,),
        flip: bool = False,
    ) -> None:
        """Set up a session.

        Args:
            model: a variant's name (see `vosformer.variants`), or a model built with `vosformer.build`.
            weights: a weights file for the variant; None = the packaged ones for "default", fresh random ones for others.
            device: "auto" (CUDA, then MPS, then CPU) or a torch device.
            dtype: "auto" (the fastest that still agrees on this machine), "fp32", "bf16", "fp16" or a torch dtype.
            memory: "default" (the paper's policy, bounded), "paper" (as published), a name like "every-5" or "given-only",
                or a policy object.
            max_memory_mb: the most megabytes (10^6 bytes) that the memory bank may hold; None = as the policy says.
            size: short side in pixels that the model sees (frames are only scaled down); None = the frame's own. Masks come back at
                the source's size in any case.
            scales: look at every frame at these factors of `size` and average the probabilities (test-time augmentation).
            flip: look at the mirrored frame, too.

        Raises:
            InputError: an argument that cannot be used.
            WeightsError: weights that do not fit.
            DeviceError: a device or dtype that this machine does not have.
        """
        if size is not None and size < 16:
            raise InputError(f"size is {size}, expected at least 16 pixels")
        if not scales or any(not 0 < scale <= 8 for scale in scales):
            raise InputError(f"scales are {list(scales)}, expected numbers above 0 and up to 8")
        place = choose_device(device)
        kind = choose_dtype(dtype, place)
        network = build(model, weights) if isinstance(model, str) else model
        network = network.eval().to(device=place, dtype=kind, memory_format=torch.channels_last)
        optimized = getattr(network, "optimized", None)
        self._model = cast(VOSModel, optimized() if optimized is not None else network)
        policy = named_policy(memory, self._model.policy) if isinstance(memory, str) else memory
        views = tuple(View(scale, mirrored) for scale in scales for mirrored in ((False, True) if flip else (False,)))
        self._setup = Setup(self._model, policy, views, size, place, kind)
        self._max_memory_mb = max_memory_mb
        self._state = State(views=tuple([] for _ in views))

    @property
    def model(self) -> VOSModel:
        """The model, as it runs."""
        return self._model

    @property
    def ids(self) -> tuple[int, ...]:
        """The ids that are being tracked, ascending."""
        return tuple(sorted(all_ids(self._state.views[0])))

    @property
    def memory_bytes(self) -> int:
        """Bytes that the memory banks hold now."""
        return sum(cohort.memory.nbytes for cohorts in self._state.views for cohort in cohorts)

    def step(
        self, frame: NDArray[np.uint8], labels: ArrayLike | None = None, *, ids: Sequence[int] | None = None, **options: Any
    ) -> Prediction:
        """The masks of the next frame.

        Args:
            frame: uint8 RGB [height,width,3]; every frame of a session has the same size.
            labels: integers [height,width], 0 = nothing said, other values = ids of objects (any integers that fit 32 bits). On any
                frame: a first mask, objects that are new, or corrections. What is given wins, and stays in memory.
            ids: the objects that `labels` speaks for: their masks are exactly as given, even if empty. Default: the ids that occur
                in it. Objects that it does not speak for are predicted as ever, wherever `labels` is 0.
            options: of the model, e.g. ``depth=2`` for AOST.

        Raises:
            InputError: the frame or labels cannot be used; the session is left as it was.
        """
        image = self._check_frame(frame)
        given = None if labels is None else self._check_labels(labels, image.shape[:2], ids)
        if not self.ids and given is None and self._state.frames == 0:
            raise InputError("the first frame needs labels: at least one object must be given before anything can be tracked")
        self._check_options(options)
        prediction, self._state = step(self._setup, self._state, image, given, options)
        if self._max_memory_mb is not None:
            self._bound_memory(self._max_memory_mb)
        return prediction

    def remove(self, i: int) -> None:
        """Stop tracking an object; its pixels go to whatever is next most probable.

        Raises:
            InputError: no object of that id is being tracked.
        """
        if i not in self.ids:
            raise InputError(f"there is no object with id {i} to remove; tracked are {list(self.ids)}")
        for cohorts in self._state.views:
            objects.remove(cohorts, i)

    def reset(self) -> None:
        """Forget everything; the next frame may have another size."""
        self._state = State(views=tuple([] for _ in self._setup.views))

    @property
    def state(self) -> State:
        """A snapshot of all that the session knows. Set it to go back, in this session or another one of the same model."""
        return self._state.clone()

    @state.setter
    def state(self, state: State) -> None:
        if len(state.views) != len(self._setup.views):
            raise InputError(f"the state has {len(state.views)} views, this session {len(self._setup.views)}")
        self._state = state.clone()

    def save(self, path: str | Path) -> None:
        """Write the state to a file (safetensors), atomically.

        Raises:
            OutputError: it could not be written.
        """
        from vosformer.snapshot import save_state

        save_state(self._state, Path(path))

    def load(self, path: str | Path) -> None:
        """Go back to a state that `save` wrote, in a session of the same model and settings.

        Raises:
            InputError: the file is missing, broken, or of other settings.
        """
        from vosformer.snapshot import load_state

        self.state = load_state(Path(path), self._setup.policy, self._setup.device)

    def _check_frame(self, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        image = np.asarray(frame)
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
            raise InputError(
                f"a frame of shape {image.shape} and {image.dtype} was given, expected uint8 [height,width,3] in RGB"
            )
        if self._state.source not in (None, image.shape[:2]):
            raise InputError(
                f"a frame of {image.shape[0]} x {image.shape[1]} pixels came after frames of {self._state.source[0]} x "
                f"{self._state.source[1]}; call reset() to start on another video"
            )
        return image

    def _check_labels(self, labels: ArrayLike, size: tuple[int, ...], ids: Sequence[int] | None) -> Given:
        array = np.asarray(labels)
        if array.shape != size:
            raise InputError(f"labels of shape {array.shape} were given for a frame of {size[0]} x {size[1]} pixels")
        if array.dtype.kind not in "iub":
            raise InputError(f"labels of type {array.dtype} were given, expected integers (0 = background, else object ids)")
        values = np.unique(array)
        limits = np.iinfo(np.int32)
        if values[0] < limits.min or values[-1] > limits.max:
            raise InputError(f"labels reach from {values[0]} to {values[-1]}; ids must fit 32 bits")
        present = tuple(int(v) for v in values if v != 0)
        spoken = present if ids is None else tuple(dict.fromkeys(int(i) for i in ids))
        if not set(present) <= set(spoken):
            raise InputError(f"labels hold the ids {list(present)}, which are not all among ids={list(spoken)}")
        known = set(self.ids)
        unseen = [i for i in spoken if i not in present and i not in known]
        if 0 in spoken or unseen:
            raise InputError(f"ids {unseen or [0]} are neither tracked nor have a pixel in labels (0 is the background)")
        if not spoken:
            raise InputError("labels are all zero: mark at least one object, or name in ids= the objects that are absent here")
        return Given(torch.from_numpy(array.astype(np.int32)), spoken)

    def _check_options(self, options: dict[str, Any]) -> None:
        check = getattr(self._model, "check_options", None)
        if options and check is None:
            raise InputError(f"options {sorted(options)} are not known to this model: it has none")
        if check is not None:
            check(**options)

    def _bound_memory(self, megabytes: float) -> None:
        """Set the policies' capacity so that all banks together stay within the bound."""
        cohorts = [cohort for view in self._state.views for cohort in view]
        per_frame = sum(cohort.memory.frame_nbytes for cohort in cohorts)
        if not per_frame:
            return
        capacity = int(megabytes * 1e6 // per_frame)
        if capacity < 1:
            raise InputError(
                f"max_memory_mb is {megabytes:g}, but one remembered frame takes {per_frame / 1e6:.1f} MB for these objects at this "
                f"size; allow more, or use a smaller size"
            )
        for cohort in cohorts:
            cohort.memory.limit(capacity)
