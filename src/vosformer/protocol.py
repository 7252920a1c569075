"""What a system offers, and what passes between the parts of vosformer: one contract serves all systems.

`VOSModel` is the base class of every system: three methods to write, three attributes to set, and hooks with defaults.

Shape letters, used in every file: B samples, G slots of one sample, S = B * G slots in all (slot ``s`` belongs to sample
``s // G``), K objects of one slot, H x W the network's input, h x w a feature map, N = h * w its tokens, M tokens of memory,
C channels, L layers.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any, Literal, NamedTuple, Protocol

from torch import Tensor, nn

from vosformer.errors import InputError
from vosformer.geometry import Geometry
from vosformer.policy import Policy, RememberedFrame

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
        own: [S,K,H,W] in [0,1], the masks of each slot's own objects (zero where a place is free).
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
        previous: for each layer what the frame before leaves in memory, where only the reading of this frame could tell (some
            ablations of OneVOS); else empty, and that is the `layers` which it was written with.
        received: for each layer float32 "bank" [S,M] and "last" [S,N]: the attention that the remembered tokens and those of the
            frame before received in this frame, where `Memory.ranks` asked for it; may be empty.
        quota: for each layer the tokens of one frame that the memory is meant for (OneVOS-D's r_l N); empty = whole frames.
    """

    layers: tuple[Layer, ...]
    recent: tuple[Layer, ...] = ()
    token: Tensor | None = None
    previous: tuple[Layer, ...] = ()
    received: tuple[Layer, ...] = ()
    quota: tuple[float, ...] = ()


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
        """Tokens of each of `frames` in the bank of a layer."""
        ...

    def ranks(self, layer: int) -> bool:
        """Tell whether the bank of a layer will have to choose among its tokens next, by the attention that they receive
        now.
        """
        ...


class Merging(Enum):
    """How slots that know nothing of each other become objects that compete for every pixel.

    `AOT`: the logits of a lone slot stand as they are; several slots are merged by log-odds. Free places cannot win a pixel.
    `ONEVOS`: the same, but free places of a slot compete, and mean background where they win.
    `STM`: the soft aggregation of STM, which is applied to a lone slot, too; the choice for systems of one object a slot.

    Attributes:
        clamp: distance that probabilities keep from 0 and 1.
        lone_slot: a lone slot is merged like several.
        free_places_compete: channels of places that hold no object take part.
    """

    AOT = (1e-5, False, False)
    ONEVOS = (1e-5, False, True)
    STM = (1e-7, True, False)

    def __init__(self, clamp: float, lone_slot: bool, free_places_compete: bool) -> None:
        self.clamp = clamp
        self.lone_slot = lone_slot
        self.free_places_compete = free_places_compete


class VOSModel(nn.Module, ABC):
    """The base class of every system; everything else in vosformer is written against this.

    A system sets `slot_size`, `geometry` and `policy`, and writes `encode`, `read` and `write`; all other attributes and methods are
    hooks with a default that does nothing special. It holds no state besides its weights. The methods work on any batch and, if
    gradients are on, are differentiable: training calls the same ones.

    Attributes:
        slot_size: K, the number of objects that one slot holds (10 for systems with identities, 1 for per-object systems).
        geometry: how frames are brought to the network and logits back.
        policy: the memory policy of the paper.
        shares_memory: objects that come later join a slot with a free place (True), or open a memory of their own (False).
        feedback: "hard" writes the label map of the prediction, "soft" its probabilities at network size.
        merging: how slots become objects that compete.
        write_ignores_memory: `write` never looks at its `memory`. The last frame's tensors are then freed before the next frame is
            written, so that the two are never held together.
        built_with: the options that differ from the variant as published; `vosformer.registry.new_model` fills it in.
    """

    slot_size: int
    geometry: Geometry
    policy: Policy
    shares_memory: bool = True
    feedback: Literal["hard", "soft"] = "hard"
    merging: Merging = Merging.AOT
    write_ignores_memory: bool = False

    def __init__(self) -> None:
        super().__init__()
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
