"""`Session`: the thin object around `step` that holds the state, checks what users give, and speaks NumPy.

Training rolls clips out through the same `encode`, `read` and `write`; the command line and evaluation call `Session`.
"""

from __future__ import annotations

import copy
import hashlib
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from numbers import Integral, Real
from operator import index
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from vosformer.device import choose_device, choose_dtype, settle_process
from vosformer.errors import InputError
from vosformer.geometry import FrameSize, Placement, Size
from vosformer.inference import objects
from vosformer.inference.closer import Closeness, Closer, closer_of, described, without
from vosformer.inference.islands import Islands, drops_islands
from vosformer.inference.objects import Cohort, Given, all_ids
from vosformer.inference.prediction import Prediction
from vosformer.inference.state_file import load_state, save_state
from vosformer.inference.step import Setup, State, View, step
from vosformer.nn.norm import for_inference
from vosformer.policy import Policy, named_policy
from vosformer.prompts import Marker, Prompt, check_prompts, mark_objects
from vosformer.protocol import VOSModel
from vosformer.weights import build, packaged


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
        size: FrameSize = 480,
        scales: Sequence[float] = (1.0,),
        flip: bool = False,
        closer: Closeness = "auto",
        islands: Islands = "auto",
        tune: bool = True,
    ) -> None:
        """Set up a session.

        Args:
            model: a name (see `vosformer.variants`), or a model of your own, e.g. from `vosformer.build`; it stays as it is.
            weights: a weights file for the named variant; None = the packaged ones for "default" and the other packaged names, fresh
                random ones (with a warning) for variants.
            device: "auto" (CUDA, then MPS, then CPU) or a torch device.
            dtype: "auto" (the fastest that still agrees on this machine), "fp32", "bf16", "fp16" or a torch dtype. On NVIDIA GPUs
                "fp32" is PyTorch's: TF32 in convolutions, unless you set torch.backends.cudnn.allow_tf32 = False.
            memory: "default" (the paper's policy, bounded), "paper" (as published), a name like "every-5" or "given-only",
                or a policy object.
            max_memory_mb: the most megabytes (10^6 bytes) that the memory bank may hold; None = as the policy says.
            size: short side in pixels that the model sees: frames are made smaller or larger to it (the long side stays within
                1040 / 480 times as many); "own" = by the rule of the system's released code; None = the frame's own size. Masks come
                back at the source's size in any case.
            scales: look at every frame at these factors of `size` and average the probabilities (test-time augmentation).
            flip: look at the mirrored frame, too.
            closer: look closer at small and thin objects whose masks are given: in windows that follow them, which the model sees
                enlarged by this factor, besides the whole frame; "off" = never; "auto" = 2 times, thin objects 3 times, with packaged
                weights, never with others. Each of up to three windows costs some 0.4 of a frame, one on a thin object up to 1.3;
                see `Session.notes`.
            islands: "drop" leaves parts of a predicted mask out that lie apart from the object, of less than a tenth of the pixels of
                its main part at once, of less than half of them from the third frame running on, unless the object was ever marked
                in several parts; "keep" never does; "auto" drops them with packaged weights, never with others.
            tune: on a CPU, make the process as quick as the command line's when its first session is built: freed memory is kept
                (glibc would fault it in again at every frame), and PyTorch uses one thread if other programs keep the cores busy.
                What slows the process is said once, as a warning.

        Raises:
            InputError: an argument that cannot be used.
            WeightsError: weights that do not fit.
            DeviceError: a device or dtype that this machine does not have.
        """
        if isinstance(size, Integral):
            size = int(size)
        if size not in (None, "own") and (not isinstance(size, int) or size < 16):
            raise InputError(f"size is {size!r}, expected a whole number of at least 16 pixels, 'own' or None")
        if not isinstance(scales, Sequence) or not scales or not all(isinstance(s, Real) and 0 < s <= 8 for s in scales):
            raise InputError(f"scales are {scales!r}, expected a list of numbers above 0 and up to 8")
        if max_memory_mb is not None and not (isinstance(max_memory_mb, Real) and 0 < max_memory_mb < math.inf):
            raise InputError(
                f"max_memory_mb is {max_memory_mb!r}, expected a number above 0, or None for no other bound than the policy's"
            )
        on = choose_device(device)
        number_format = choose_dtype(dtype, on)
        if tune:
            settle_process(on)
        network = (
            _named(model, weights, on, number_format) if isinstance(model, str) else _given(model, weights, on, number_format)
        )
        self._model = for_inference(network)
        policy = named_policy(memory, self._model.policy) if isinstance(memory, str) else memory
        if not isinstance(policy, Policy):
            raise InputError(f"memory is {memory!r}, expected the name of a policy or a policy object")
        views = tuple(View(scale, mirrored) for scale in scales for mirrored in ((False, True) if flip else (False,)))
        near, drop = closer_of(closer, network.looks_closer), drops_islands(islands, network.drops_islands)
        self._setup = Setup(self._model, policy, views, size, on, number_format, near, drop)
        self._origin = {
            "model": f"{type(network).__name__} {_fingerprint(network)}",
            "size": str(size),
            "scales": str([float(scale) for scale in scales]),
            "flip": str(flip),
            "closer": str(self._setup.closer),
            "dtype": str(number_format).removeprefix("torch."),
        }
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
        return sum(cohort.memory.nbytes for cohort in self._state.cohorts)

    @property
    def closer(self) -> Closer | None:
        """How small objects are looked at more closely; None: they are not."""
        return self._setup.closer

    @property
    def notes(self) -> Sequence[str]:
        """What is done besides following objects in the whole frame: sentences about windows that look closer now."""
        return described(self._state.windows)

    @property
    def cohorts(self) -> Sequence[Cohort]:
        """What the first view remembers, to look at and not to change."""
        return self._state.views[0]

    def placement(self, height: int, width: int) -> Placement:
        """Return where frames of height x width lie in the network's input, in the first view."""
        return self._setup.place(height, width, self._setup.views[0])

    @property
    def sizes(self) -> tuple[Size, Size] | None:
        """The (height, width) of the frames, and the one that the model sees them at; None before the first frame."""
        source = self._state.source
        return None if source is None else (source, self.placement(*source).inner)

    @property
    def origin(self) -> Mapping[str, str]:
        """What a state must agree with to be taken over here: model (a hash of its weights), size, scales, flip, closer and dtype."""
        return dict(self._origin)

    @property
    def bounds(self) -> Mapping[str, str]:
        """What is remembered: the policy, the bound, and whether islands are left out. States need not agree in it, but the results
        depend on it.
        """
        islands = "drop" if self._setup.drop_islands else "keep"
        return {"memory": repr(self._setup.policy), "max_memory_mb": str(self._max_memory_mb), "islands": islands}

    def step(
        self,
        frame: NDArray[np.uint8] | Tensor,
        labels: ArrayLike | None = None,
        *,
        ids: Sequence[int] | None = None,
        prompts: Mapping[int, Prompt] | None = None,
        mask_size: tuple[int, int] | None = None,
        **options: Any,
    ) -> Prediction:
        """Return the masks of the next frame.

        Args:
            frame: uint8 RGB [height,width,3], an array or tensor; every frame of a session has the same size.
            labels: integers [height,width], 0 = nothing said, other values = ids of objects (any integers that fit 32 bits). On any
                frame: a first mask, objects that are new, or corrections. What is given wins, and stays in memory.
            ids: the objects that `labels` speaks for: their masks are exactly as given, even if empty. Default: the ids that occur
                in it. Objects that it does not speak for are predicted as ever, wherever `labels` is 0.
            prompts: id -> clicks, scribbles or a box that mark this object here (`vosformer.Prompt`). Of an object that is tracked,
                clicks and scribbles repair the mask that this frame would get without them; a box or a mask marks it anew. Their
                masks count as given; where they meet each other or `labels`, the later prompt wins, with a warning.
            mask_size: (height, width) of `labels` and of the masks that are returned, where it is not the frame's: logits are
                resampled to it, not labels. The same on every frame; without prompts, and there are no closer looks then.
            options: of the model, e.g. ``depth=2`` for AOST.

        Raises:
            InputError: the frame or labels cannot be used; the session is left as it was.
        """
        image = self._check_frame(frame)
        if labels is None and ids is not None:
            raise InputError(f"ids {list(ids)} were given without labels: give labels, all zero where the objects are absent")
        if mask_size is not None and prompts:
            raise InputError("mask_size does not go with prompts, which mean pixels of the frame")
        given = None if labels is None else self._check_labels(labels, mask_size or image.shape[:2], ids)
        if prompts:
            given = self._with_prompts(image, given, prompts, options)
        if not self.ids and given is None and self._state.frames == 0:
            raise InputError("the first frame needs labels: at least one object must be given before anything can be tracked")
        self._model.check_options(**options)
        # Only new objects can make a frame too large for the bound.
        before = self._state.clone() if self._max_memory_mb is not None and given is not None else None
        prediction, self._state = step(self._setup, self._state, image, given, options, mask_size)
        if self._max_memory_mb is not None:
            try:
                self._bound_memory(self._max_memory_mb)
            except InputError:
                self._state = before or self._state
                raise
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
        for window in self._state.windows:
            objects.remove(window.cohorts, i)
        self._state.windows = without(self._state.windows, i)
        self._state.wholes = {j: whole for j, whole in self._state.wholes.items() if j != i}

    def reset(self) -> None:
        """Forget everything; the next frame may have another size."""
        self._state = State(views=tuple([] for _ in self._setup.views))

    def fork(self) -> Session:
        """Return another session of the same model and settings that knows what this one knows, and goes its own way from here.

        The weights are shared; a fork of a session that has seen nothing costs nothing.
        """
        twin = copy.copy(self)
        twin._state = self._state.clone()
        return twin

    def moved(self, device: str | torch.device | None = None, dtype: str | torch.dtype | None = None) -> Session:
        """Return a session of the same model and settings on another device or in another number format, that has seen nothing.

        Raises:
            DeviceError: this machine does not have it.
        """
        on = self._setup.device if device is None else choose_device(device)
        number_format = self._setup.dtype if dtype is None else choose_dtype(dtype, on)
        twin = copy.copy(self)
        twin._model = for_inference(_given(self._model, None, on, number_format))
        twin._setup = replace(self._setup, model=twin._model, device=on, dtype=number_format)
        twin._origin = {**self._origin, "dtype": str(number_format).removeprefix("torch.")}
        twin.reset()
        return twin

    @property
    def state(self) -> State:
        """A snapshot of all that the session knows. Set it to go back, in this session or another one of the same model on any
        device.
        """
        return replace(self._state.clone(), origin=self.origin)

    @state.setter
    def state(self, state: State) -> None:
        self._check_origin(state, "the state")
        self._state = state.to(self._setup.device)

    def save(self, path: str | Path) -> None:
        """Write the state to a file (safetensors), atomically.

        Raises:
            OutputError: it could not be written.
        """
        save_state(replace(self._state, origin=self.origin), Path(path))

    def load(self, path: str | Path) -> None:
        """Go back to a state that `save` wrote, in a session of the same model and settings.

        Raises:
            InputError: the file is missing, broken, or of other settings.
        """
        state = load_state(Path(path), self._setup.policy, self._setup.device)
        self._check_origin(state, str(path))
        self._state = state

    def _check_origin(self, state: State, name: str) -> None:
        odd = [key for key, value in self._origin.items() if state.origin.get(key) != value]
        if odd:
            found, here = ({key: origin.get(key) for key in odd} for origin in (state.origin, self._origin))
            raise InputError(f"{name} is of a session of another {' and '.join(odd)}: {found}, expected {here}")

    def _check_frame(self, frame: NDArray[np.uint8] | Tensor) -> NDArray[np.uint8]:
        image = as_image(frame)
        if self._state.source not in (None, image.shape[:2]):
            raise InputError(
                f"a frame of {image.shape[0]} x {image.shape[1]} pixels came after frames of {self._state.source[0]} x "
                f"{self._state.source[1]}; call reset() to start on another video"
            )
        return image

    def _check_labels(self, labels: ArrayLike, size: tuple[int, ...], ids: Sequence[int] | None) -> Given:
        array = as_labels(labels, size)
        values = np.unique(array)
        limits = np.iinfo(np.int32)
        if values[0] < limits.min or values[-1] > limits.max:
            raise InputError(f"labels reach from {values[0]} to {values[-1]}; ids must fit 32 bits")
        present = tuple(int(v) for v in values if v != 0)
        spoken = present if ids is None else tuple(dict.fromkeys(whole_numbers(ids, "ids")))
        if not set(present) <= set(spoken):
            raise InputError(f"labels hold the ids {list(present)}, which are not all among ids={list(spoken)}")
        known = set(self.ids)
        unseen = [i for i in spoken if i not in present and i not in known]
        if 0 in spoken or unseen:
            raise InputError(f"ids {unseen or [0]} are neither tracked nor have a pixel in labels (0 is the background)")
        if not spoken:
            raise InputError("labels are all zero: mark at least one object, or name in ids= the objects that are absent here")
        return Given(torch.from_numpy(array.astype(np.int32)), spoken)

    def _with_prompts(
        self, image: NDArray[np.uint8], given: Given | None, prompts: Mapping[int, Prompt], options: dict[str, Any]
    ) -> Given:
        """Return what was given by labels, and the masks of the prompts on top."""
        self._model.check_options(**options)
        check_prompts(prompts)
        repairs = [
            i for i, p in prompts.items() if i in self.ids and isinstance(p, Prompt) and p.box is None and p.mask is None
        ]
        if repairs:
            predicted = step(self._setup, self._state.clone(), image, None, options)[0].labels
            prompts = {i: replace(p, mask=predicted == i) if i in repairs else p for i, p in prompts.items()}
        marked = mark_objects(Marker(image), prompts)
        for note in marked.notes:
            warnings.warn(note, stacklevel=3)
        painted = torch.from_numpy(marked.labels)
        if given is None:
            return Given(painted, tuple(prompts))
        # An object that is prompted is where its prompt says, not where the labels do.
        kept = given.labels.masked_fill(torch.isin(given.labels, torch.tensor(list(prompts))), 0)
        return Given(torch.where(painted != 0, painted, kept), tuple(dict.fromkeys((*given.ids, *prompts))))

    @torch.inference_mode()
    def _bound_memory(self, megabytes: float) -> None:
        """Set the policies' capacity so that all banks together stay within the bound."""
        cohorts = self._state.cohorts
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


def as_image(frame: Any) -> NDArray[np.uint8]:
    """Return a frame as an array.

    Raises:
        InputError: it is not uint8 [height,width,3].
    """
    image = _array(frame, "a frame")
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
        raise InputError(f"a frame of shape {image.shape} and {image.dtype} was given, expected uint8 [height,width,3] in RGB")
    return image


def whole_numbers(ids: Any, name: str) -> list[int]:
    """Return ids as Python's integers.

    Raises:
        InputError: they are something else.
    """
    try:
        return [index(i) for i in ids]
    except TypeError:
        raise InputError(f"{name} are {ids!r}, expected a list of whole numbers") from None


def as_labels(labels: Any, size: tuple[int, ...]) -> NDArray[Any]:
    """Return labels of a frame of this (height, width) as an array of some kind of integers.

    Raises:
        InputError: they have another size or type.
    """
    array = _array(labels, "labels")
    if array.shape != size:
        raise InputError(f"labels of shape {array.shape} were given for a frame of {size[0]} x {size[1]} pixels")
    if array.dtype.kind not in "iub":
        raise InputError(f"labels of type {array.dtype} were given, expected integers (0 = background, else object ids)")
    return array


def _array(values: Any, what: str) -> NDArray[Any]:
    try:
        return np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{what} of type {type(values).__name__} was given, which is no array: {error}") from None


def _fingerprint(network: nn.Module) -> str:
    """Differs between models of other shapes or weights; of each tensor only the first values are looked at."""
    digest = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.flatten()[:8].tolist()}".encode())
    return digest.hexdigest()[:12]


def _named(name: str, weights: str | Path | None, device: torch.device, dtype: torch.dtype) -> VOSModel:
    if weights is None and name != "default" and name not in packaged():
        message = f"{name} runs with fresh random weights: give a file, or take the model 'default', whose weights are packaged"
        warnings.warn(message, stacklevel=3)
    return build(name, weights).to(device=device, dtype=dtype)


def _given(model: nn.Module, weights: str | Path | None, device: torch.device, dtype: torch.dtype) -> VOSModel:
    """Return the model for inference there and in that format; a copy if anything about it has to change, since it is the
    user's.
    """
    if weights is not None:
        raise InputError(
            f"weights {weights} were given beside a model that is no name: vosformer.weights.load_weights loads them"
        )
    if not isinstance(model, VOSModel):
        raise InputError(
            f"a {type(model).__name__} is no model for video object segmentation: expected a vosformer.protocol.VOSModel"
        )
    as_asked = all(x.device == device and x.dtype == dtype for x in model.parameters())
    if as_asked and not any(module.training for module in model.modules()):
        return model
    return copy.deepcopy(model).eval().to(device=device, dtype=dtype)
