"""What passes between the parts of vosformer: the protocol that serves all six systems.

Shape letters, used in every file: B samples, G slots of one sample, S = B * G slots in all (slot ``s`` belongs to sample
``s // G``), K objects of one slot, H x W the network's input, h x w a feature map, N = h * w its tokens, M tokens of memory,
C channels, L layers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

from torch import Tensor

if TYPE_CHECKING:
    from vosformer.geometry import Geometry
    from vosformer.memory import Memory
    from vosformer.policy import Policy

Layer = Mapping[str, Tensor]


class Features(NamedTuple):
    """One frame without any mask in it: computed once and shared by every object.

    Attributes:
        image: [B,3,H,W], normalised.
        pyramid: maps [B,C,h,w] at strides 4, 8 and 16, then whatever else the model keeps for itself.
    """

    image: Tensor
    pyramid: tuple[Tensor, ...]

    def at(self, index: slice) -> Features:
        """The features of some of the samples (training encodes all frames of a clip in one batch)."""
        return Features(self.image[index], tuple(level[index] for level in self.pyramid))


class ObjectMasks(NamedTuple):
    """The masks that a frame is written to memory with, at the network's input size.

    Attributes:
        own: [S,K,H,W] in [0,1], the masks of each slot's own objects (zero where a place is free).
        others: [S,1,H,W] in [0,1], the sum of the objects that live in other slots of the same sample.
        given: the masks come from the user and not from a prediction.
        ignore: [S,1,H,W], 1 where nobody knows what a pixel belongs to (label 255 in training), or None: there is no such pixel. Such
            a pixel is not background either.
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


@runtime_checkable
class VOSModel(Protocol):
    """What a system must offer; everything else in vosformer is written against this.

    All are `torch.nn.Module`s without any state besides their weights. The methods work on any batch and, if gradients are
    on, are differentiable: training calls the same ones.

    A model may also have a method ``prepare_given(labels)``, integers [H,W] at network size to the same: what is done to the masks of
    the very first frame before they are written (OneVOS grows the smallest objects).

    Attributes:
        slot_size: K, the number of objects that one slot holds (10 for systems with identities, 1 for per-object systems).
        geometry: how frames are brought to the network and logits back.
        policy: the memory policy of the paper.
        shares_memory: objects that come later join a slot with a free place (True), or open a memory of their own (False).
        feedback: "hard" writes the label map of the prediction, "soft" its probabilities at network size.
        merge_clamp: probabilities are kept this far from 0 and 1 when slots are merged.
        merges_single: the merge is applied to a lone slot, too (soft aggregation of STM).
        masks_free_places: free places of a slot cannot win a pixel (AOT); else (OneVOS) they compete, and mean background.
    """

    slot_size: int
    geometry: Geometry
    policy: Policy
    shares_memory: bool
    feedback: str
    merge_clamp: float
    merges_single: bool
    masks_free_places: bool

    def encode(self, image: Tensor) -> Features:
        """[B,3,H,W], normalised -> features that no mask has touched."""
        ...

    def read(self, features: Features, memory: Memory, **options: Any) -> Reading:
        """What `memory` (of S slots) says about the frame. Options are the model's own, e.g. AOST's ``depth``."""
        ...

    def write(self, features: Features, masks: ObjectMasks, reading: Reading | None, memory: Memory | None) -> Entry:
        """What the frame leaves behind, given its masks.

        `reading` is what `read` returned for the same frame (None if the frame was not read: the first one).
        `memory` is what the frame was read with (None at first); only recurrent systems look at it.
        """
        ...
