"""What a system offers, and what passes between the parts of vosformer: one contract serves all systems.

`VOSModel` is the base class of every system: three methods to write, three attributes to set, and hooks with defaults.

Shape letters, used in every file: B samples, G slots of one sample, S = B * G slots in all (slot ``s`` belongs to sample
``s // G``), K objects of one slot, H x W the network's input, h x w a feature map, N = h * w its tokens, M tokens of memory,
C channels, L layers.
"""

from __future__ import annotations

import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any, Literal, NamedTuple, Protocol

from torch import Tensor, nn

from vosformer.errors import InputError
from vosformer.geometry import Geometry

Layer = Mapping[str, Tensor]
"""The named tensors of one layer; the names are the system's own, e.g. "k" and "v"."""


class Features(NamedTuple):
    """One frame without any mask in it: computed once and shared by every object.

    Attributes:
        image: [B,3,H,W], normalized.
        pyramid: tensors whose first dimension is B, private to the model: `read` and `write` of the same model get them back.
    """

    image: Tensor
    pyramid: tuple[Tensor, ...]

    def at(self, index: slice) -> Features:
        """Take the features of some of the samples (training encodes all frames of a clip in one batch)."""
        return Features(self.image[index], tuple(level[index] for level in self.pyramid))


class ObjectMasks(NamedTuple):
    """The masks that a frame is written to memory with, at the network's input size.

    Attributes:
        own: [S,K,H,W] in [0,1], the masks of each slot's own objects (zero where a channel is free).
        others: [S,1,H,W] in [0,1], the sum of the objects that live in other slots of the same sample.
        given: the masks come from the user and not from a prediction.
        ignore: [S,1,H,W], 1 at pixels without a known label (255 in training), which are no background either; None = none.
    """

    own: Tensor
    others: Tensor
    given: bool
    ignore: Tensor | None = None


class Reading(NamedTuple):
    """What the memory says about a frame.

    Attributes:
        logits: [S,1+K,h,w] at the decoder's own resolution (stride 4), channel 0 = background. Systems that decode one object by
            a sigmoid give a background of zeros, so that a softmax over the two is that sigmoid.
        carry: private to the model: what `write` of the same frame can use again.
    """

    logits: Tensor
    carry: Any = None


class Entry(NamedTuple):
    """What one frame leaves in memory.

    Attributes:
        layers: for each layer the named tensors [S,N,C] that a bank may keep. A shorter tuple than the model has layers says
            that the deeper layers were not run.
        recent: for each layer the further tensors [S,N,C] that are only needed while this is the last frame; may be empty.
        token: [S,1,C] recurrent state that replaces the previous one (JointFormer), or None to keep it.
        for_banks: for each layer what its bank should know besides, private to the system and the banks that its policy makes
            (`Bank.inform`); may be empty.
    """

    layers: tuple[Layer, ...]
    recent: tuple[Layer, ...] = ()
    token: Tensor | None = None
    for_banks: tuple[Any, ...] = ()


class RememberedFrame(NamedTuple):
    """What a policy knows of a remembered frame.

    Attributes:
        number: since the cohort began.
        pinned: masks were given on it.
        own: if so, they speak for an object of this cohort, and not for others alone.
    """

    number: int
    pinned: bool
    own: bool = True


class MemoryUpdate(NamedTuple):
    """What to do when a frame has been written.

    Attributes:
        drop: positions in the bank that are let go first.
        bank: append the new frame, the one that was last until now, or nothing.
        replace_last: the new frame becomes the last frame (else the old one stays).
    """

    drop: tuple[int, ...] = ()
    bank: Literal["new", "last"] | None = None
    replace_last: bool = True


class Bank(ABC):
    """What one layer of a memory keeps; policies make banks, `vosformer.memory.Memory` fills them."""

    holds: str
    """What it keeps, "frames" or "tokens": a saved state is read by banks that hold the same."""

    @property
    @abstractmethod
    def lengths(self) -> list[int]:
        """Tokens of each section, in the order of `view`; of a bank of frames: of each frame, in the order of arrival."""

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """Bytes of storage held, the unused part included."""

    @abstractmethod
    def view(self) -> dict[str, Tensor]:
        """Name -> [S,M,C] of all that is remembered, without copying where that is possible; empty if there is nothing."""

    @abstractmethod
    def add(self, layer: Layer, frame: RememberedFrame) -> None:
        """Remember a frame's tensors [S,n,C]."""

    @abstractmethod
    def drop(self, position: int) -> None:
        """Forget the frame at `position`, counted in the order of arrival; the later ones move up."""

    @abstractmethod
    def limit(self, capacity: int) -> None:
        """From now on reserve storage for no more than `capacity` frames, and free what is beyond."""

    @abstractmethod
    def select(self, slots: list[int]) -> None:
        """Keep only these slots."""

    @abstractmethod
    def clone(self) -> Bank:
        """Return a copy that shares nothing writable."""

    @abstractmethod
    def frame_nbytes(self, layer: Layer) -> float:
        """Bytes that a frame takes here, judged by the tensors of one, or if there are none by the newest one that is held."""

    @abstractmethod
    def about(self) -> dict[str, Any]:
        """Describe the bank in plain values, so that `restore` can make it again from these and `view`; with `holds`."""

    @abstractmethod
    def restore(self, layer: Layer, about: Mapping[str, Any]) -> None:
        """Fill a new bank with what another one's `view` and `about` were."""

    def inform(self, message: Any) -> None:  # noqa: B027 (a hook with a default)
        """Take notice of what the newest frame says to this bank (`Entry.for_banks`), before any frame is added; None = nothing.

        The default ignores it.
        """

    def needs_usage(self, layer: Layer) -> bool:
        """Tell whether the bank has to choose among tokens, by the attention that they receive, if the last frame's are added.

        The default is a bank that never chooses.
        """
        return False


class Policy(ABC):
    """Decides from metadata alone what a memory keeps, and makes its banks; never sees a tensor.

    Attributes:
        capacity: the most frames that the bank can hold at once; None = no bound.
    """

    capacity: int | None

    @abstractmethod
    def plan(self, bank: Sequence[RememberedFrame], last: RememberedFrame | None, new: RememberedFrame) -> MemoryUpdate:
        """Return what to do with `new`, given the frames in the bank (in the order of their arrival) and the last frame."""

    @abstractmethod
    def surplus(self, bank: Sequence[RememberedFrame]) -> tuple[int, ...]:
        """Return the positions, ascending, to let go so that no more than `capacity` frames are in the bank."""

    @abstractmethod
    def limited(self, capacity: int) -> Policy:
        """Return the same policy with at most `capacity` frames (>= 1) in the bank."""

    @abstractmethod
    def for_training(self, gap: int | None) -> Policy:
        """Return the same policy for short clips: without bound, and with another gap (if one is given) where the policy has
        one.
        """

    @abstractmethod
    def new_bank(self) -> Bank:
        """Make the bank of one layer."""


class MemoryView(Protocol):
    """What `VOSModel.read` and `VOSModel.write` may ask of a memory of S slots; they never change it.

    The names of the tensors are those that the system's own `write` gave to them.
    """

    @property
    def frames(self) -> Sequence[RememberedFrame]:
        """The frames in the bank, in the order of their arrival."""
        ...

    @property
    def last_frame(self) -> RememberedFrame | None:
        """The last frame, whether it is in the bank or not."""
        ...

    @property
    def token(self) -> Tensor | None:
        """The recurrent state [S,1,C] of the slots, if the system has one."""
        ...

    def bank(self, layer: int) -> Layer:
        """Name -> [S,M,C]: the remembered frames one after the other, in the order of their arrival; empty if there is none."""
        ...

    def last(self, layer: int) -> Layer:
        """Name -> [S,N,C] of the last frame (`Entry.layers` and `Entry.recent` together); empty if there is none."""
        ...

    def references(self, layer: int) -> Sequence[Layer]:
        """Return the bank, and the last frame unless it is in the bank: all that is remembered, nothing twice."""
        ...

    def lengths(self, layer: int) -> Sequence[int]:
        """Tokens of each section of a layer's bank; of a bank of frames: of each of `frames`."""
        ...

    def needs_usage(self, layer: int) -> bool:
        """Tell whether the bank of a layer will have to choose among tokens next, by the attention that they receive now."""
        ...


class Merging(Enum):
    """How slots that know nothing of each other become objects that compete for every pixel.

    `AOT`: the logits of a lone slot stand as they are; several slots are merged by log-odds. Free channels cannot win a pixel.
    `ONEVOS`: the same, but free channels of a slot compete, and mean background where they win.
    `STM`: the soft aggregation of STM, which is applied to a lone slot, too; the choice for systems of one object a slot.

    Attributes:
        clamp: distance that probabilities keep from 0 and 1.
        lone_slot: a lone slot is merged like several.
        free_channels_compete: channels that hold no object take part.
    """

    AOT = (1e-5, False, False)
    ONEVOS = (1e-5, False, True)
    STM = (1e-7, True, False)

    def __init__(self, clamp: float, lone_slot: bool, free_channels_compete: bool) -> None:
        self.clamp = clamp
        self.lone_slot = lone_slot
        self.free_channels_compete = free_channels_compete


class Presence(NamedTuple):
    """How probabilities of an object become the chance that it is in the frame: sigmoid(scale * log-odds + bias), see Platt (1999).

    Attributes:
        scale: on the log-odds of the mean of the largest probabilities, above 0.
        bias: added to them.
    """

    scale: float = 1.0
    bias: float = 0.0

    def chance(self, mean: float) -> float:
        """Return the chance in [0,1] that belongs to a mean in [0,1]; the mean itself where nothing was fitted."""
        if self == Presence():
            return mean
        kept = min(max(mean, 1e-6), 1 - 1e-6)
        return 1 / (1 + math.exp(-self.scale * math.log(kept / (1 - kept)) - self.bias))


class VOSModel(nn.Module, ABC):
    """The base class of every system; everything else in vosformer is written against this.

    A system sets `slot_size`, `geometry` and `policy`, and writes `encode`, `read` and `write`; all other attributes and methods are
    hooks with a default that does nothing special. It holds no state besides its weights. The methods work on any batch and, if
    gradients are on, are differentiable: training calls the same ones.

    Attributes:
        slot_size: K, the number of objects that one slot holds (10 for systems with identities, 1 for per-object systems).
        geometry: how frames are brought to the network and logits back.
        policy: the memory policy of the paper.
        shares_memory: objects that come later join a slot with a free channel (True), or open a memory of their own (False).
        feedback: "hard" writes the label map of the prediction, "soft" its probabilities at network size.
        merging: how slots become objects that compete.
        write_ignores_memory: `write` never looks at its `memory`. The last frame's tensors are then freed before the next frame is
            written, so that the two are never held together.
        looks_closer: whether a session looks closer at small objects by itself (`vosformer.inference.closer`); so `build` makes the
            packaged weights.
        drops_islands: whether a session leaves parts that lie apart from their object out by itself (`vosformer.inference.islands`);
            so, too, do the packaged weights.
        presence: how its probabilities become presence scores; `build` reads it from the weights' metadata.
        variant: the name that the model was built by, empty if by none; `vosformer.registry.new_model` fills it in, and the next one.
        built_with: the options that differ from the variant as published.
    """

    slot_size: int
    geometry: Geometry
    policy: Policy
    shares_memory: bool = True
    feedback: Literal["hard", "soft"] = "hard"
    merging: Merging = Merging.AOT
    write_ignores_memory: bool = False
    looks_closer: bool = False
    drops_islands: bool = False
    presence: Presence = Presence()

    def __init__(self) -> None:
        super().__init__()
        self.variant = ""
        self.built_with: dict[str, Any] = {}

    @abstractmethod
    def encode(self, image: Tensor) -> Features:
        """Make features that no mask has touched of normalized images [B,3,H,W]."""

    @abstractmethod
    def read(self, features: Features, memory: MemoryView) -> Reading:
        """Say what `memory` (of S slots) knows about the frame.

        Options of the system are further keyword arguments with a default, e.g. AOST's ``depth``; `Session.step` takes them.
        """

    @abstractmethod
    def write(self, features: Features, masks: ObjectMasks, reading: Reading | None, memory: MemoryView | None) -> Entry:
        """Make what the frame leaves behind, given its masks.

        Args:
            features: of the frame.
            masks: of S slots.
            reading: what `read` returned for the same frame; None if the frame was not read (the first one, or a new object's).
            memory: what the frame was read with; None at first.
        """

    def write_keeping_token(
        self, features: Features, masks: ObjectMasks, reading: Reading | None, memory: MemoryView | None
    ) -> Entry:
        """Do what `write` does, but leave the recurrent state as the reading left it.

        Training asks for this where the recipe updates the state in a share of the frames only (JointFormer,
        `Rollout.update_probability`). The default, for systems without such a state, is `write`.
        """
        return self.write(features, masks, reading, memory)

    def check_options(self, **options: Any) -> None:
        """Check the options of `read` before anything runs. The default accepts the keyword arguments that `read` has.

        Raises:
            InputError: `read` does not know one of them, or cannot use its value.
        """
        known = read_options(self)
        unknown = sorted(set(options) - set(known))
        if unknown:
            raise InputError(f"options {unknown} are not known to this model: it has {known or 'none'}")

    def prepare_given(self, labels: Tensor) -> Tensor:
        """Change the labels of the very first frame, integers [H,W] at network size, before they are written.

        OneVOS grows the smallest objects here; the default changes nothing.
        """
        return labels

    def reference(self, features: Features, masks: ObjectMasks) -> tuple[Entry, list[Reading]] | None:
        """Write a frame with given masks, and decode its own logits, for the auxiliary loss on the first frame (AOT).

        Returns:
            What `write` leaves, and a reading for each supervised depth (see `read_depths`); None, the default, if the system has no
            such decoding: then there is no such loss.
        """
        return None

    def read_depths(self, features: Features, memory: MemoryView) -> list[Reading]:
        """Read in training: one reading for each supervised depth (AOST), last the one to write with. Default: `read` alone."""
        return [self.read(features, memory)]

    def entry_loss(self, entry: Entry) -> Tensor | None:
        """Make what training adds to its loss for a written frame (OneVOS's DTS-Lr), a scalar. Default: None, nothing."""
        return None

    def training_report(self) -> dict[str, float]:
        """Name what the training log shows besides losses (OneVOS-D: the share of tokens each layer selects). Default: nothing."""
        return {}


def read_options(model: VOSModel) -> list[str]:
    """List the names of the options that a model's `read` takes."""
    return list(inspect.signature(model.read).parameters)[2:]
