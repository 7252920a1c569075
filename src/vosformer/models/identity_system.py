"""What AOT, AOST and DeAOT have in common: everything but their propagation.

An encoder gives maps; a stack of blocks propagates what the memory knows into the coarsest of them; an FPN decodes the logits of all
identities at once. Masks enter the memory as an ID embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from vosformer.errors import InputError
from vosformer.geometry import Geometry
from vosformer.nn.conv import Conv2d
from vosformer.nn.fpn import FPN
from vosformer.nn.identity import IdentityBank
from vosformer.nn.maps import Grid, per_slot, to_map, to_tokens
from vosformer.nn.propagation import Past, Stack, StackState
from vosformer.policy import EveryK, GivenOnly
from vosformer.protocol import Entry, Features, Layer, MemoryView, ObjectMasks, Reading, VOSModel

EncoderName = Literal["mobilenet_v2", "efficientnet_lite1", "resnet50", "swin_base", "convvit_base", "convvit_tiny", "tiny"]


class IdentityCarry(NamedTuple):
    """What `write` and `decode` may use again of a reading.

    Attributes:
        states: of each layer that was run.
        outputs: [S,N,C] of each layer that was run, as the decoder wants them.
    """

    states: tuple[StackState, ...]
    outputs: tuple[Tensor, ...]


def build_encoder(name: EncoderName, freeze_at: int) -> nn.Module:
    """Return an encoder with fresh weights.

    Args:
        name: which one.
        freeze_at: 0 trains all of it, 1 freezes the stem, 2 (as published) also the first stage, and so on.
    """
    if name == "mobilenet_v2":
        from vosformer.encoders.mobilenet_v2 import mobilenet_v2

        return mobilenet_v2(freeze_at)
    if name == "efficientnet_lite1":
        from vosformer.encoders.efficientnet_lite import EfficientNetLite1

        return EfficientNetLite1(freeze_at)
    if name == "resnet50":
        from vosformer.encoders.resnet import resnet50

        return resnet50(freeze_at)
    if name == "swin_base":
        from vosformer.encoders.swin import swin_base

        return swin_base(freeze_at)
    if name in ("convvit_base", "convvit_tiny"):
        from vosformer.encoders.convmae import CONVVIT_B, CONVVIT_TINY
        from vosformer.encoders.convvit import ConvViTEncoder

        return ConvViTEncoder(CONVVIT_B if name == "convvit_base" else CONVVIT_TINY, freeze_at)
    if name == "tiny":
        from vosformer.encoders.tiny import TinyEncoder

        return TinyEncoder()
    raise InputError(f"there is no encoder {name!r}; known: {', '.join(get_args(EncoderName))}")


def check_sizes(window: int, kernel: int, heads: int, split: int, **counts: int) -> None:
    """Tell whether the numbers of a configuration fit together.

    Args:
        window: side of the local window.
        kernel: side of the depth-wise convolutions.
        heads: of the attentions.
        split: channels that the heads share.
        counts: what must be at least 1.

    Raises:
        InputError: they do not; the message says which.
    """
    for name, side in (("window", window), ("kernel", kernel)):
        if side < 0 or (side > 0 and side % 2 == 0):
            raise InputError(f"{name}={side} cannot be built: expected an odd number, or 0 for none")
    for name, count in {"heads": heads, **counts}.items():
        if count < 1:
            raise InputError(f"{name}={count} cannot be built: expected at least 1")
    if split % heads:
        raise InputError(f"heads={heads} cannot share {split} channels evenly")


class IdentitySystem(VOSModel):
    """A system that embeds the masks of up to K objects by their identities and decodes them together.

    Sizes are 16k+1 where corners are aligned, else 16k.

    Args:
        encoder: from images to maps at strides 4, 8, 16 and 16, with their `channels`.
        propagation: the stack of blocks.
        decoder_inputs: channels that the decoder gets, see `FPN`.
        channels: C of the tokens.
        identities: K.
        norm_identity: layer norm on the ID embedding (AOST, DeAOT).
        align_corners: see `Geometry`.
        gap: remember a frame every `gap` frames; None = only frames with given masks.
        local_frames: number of previous frames that the short-term attention looks at; 0 = none.
    """

    def __init__(
        self,
        encoder: nn.Module,
        propagation: Stack,
        decoder_inputs: int | Sequence[int],
        channels: int,
        identities: int,
        norm_identity: bool,
        align_corners: bool,
        gap: int | None,
        local_frames: int,
    ) -> None:
        super().__init__()
        self.slot_size = identities
        self.geometry = Geometry("resize", align_corners)
        self.policy = GivenOnly(None) if gap is None else EveryK(gap, None)
        self.local_frames = local_frames
        shortcuts: Sequence[int] = encoder.channels  # type: ignore[assignment]
        self.encoder = encoder
        self.encoder_projector = Conv2d(shortcuts[3], channels, 1)
        nn.init.xavier_uniform_(self.encoder_projector.weight)
        self.LSTT = propagation
        self.decoder = FPN(decoder_inputs, identities + 1, channels, shortcuts, align_corners)
        self.patch_wise_id_bank = IdentityBank(identities, channels, align_corners)
        self.id_norm = nn.LayerNorm(channels) if norm_identity else None

    def encode(self, image: Tensor) -> Features:
        """[B,3,H,W] -> the encoder's maps at strides 4, 8 and 16, and the last one projected to C channels."""
        f4, f8, f16, final = self.encoder(image)
        return Features(image, (f4, f8, f16, self.encoder_projector(final)))

    def read(self, features: Features, memory: MemoryView) -> Reading:
        """Propagate from the long-term and the last frames, and decode.

        Args:
            features: of B samples.
            memory: of S slots, with at least one frame.

        Returns:
            Logits [S,1+K,h,w] at stride 4, and what `write` needs.

        Raises:
            InputError: nothing is remembered yet.
        """
        return self._read(features, memory, self.LSTT.depth)

    def _read(self, features: Features, memory: MemoryView, depth: int) -> Reading:
        known = memory.bank(0)
        if not known:
            raise InputError("nothing is remembered yet: the first frame must be written with given masks")

        def past(layer: int, state: StackState) -> Past:
            return Past(memory.bank(layer), self._last_frames(memory.last(layer)))

        carry = self._propagate(features, known["k"].shape[0], depth, past, True)
        return Reading(self.decode(features, carry), carry)

    def write(self, features: Features, masks: ObjectMasks, reading: Reading | None, memory: MemoryView | None = None) -> Entry:
        """Return what the frame leaves behind: keys and values of each layer, the values (AOST: also the keys) marked by the
        ID embedding.

        A frame with given masks ignores the memory and attends only to itself, so that deeper layers have seen the masks; all layers
        are run. Otherwise the layers that were read are written, from what `reading` kept.

        Args:
            features: of B samples.
            masks: of S slots.
            reading: of the same frame; not needed with given masks.
            memory: what the frame was read with; needed for several local frames only.

        Raises:
            InputError: predicted masks without a reading.
        """
        if masks.given:
            return self._refer(features, masks, finish=False)[0]
        if reading is None:
            raise InputError("predicted masks can only be written with the reading of their frame")
        identity = self.embed(masks)
        states: tuple[StackState, ...] = reading.carry.states
        layers = tuple(self.LSTT.block(i).remember(state, identity) for i, state in enumerate(states))
        if self.local_frames <= 1 or memory is None:
            return Entry(layers)
        return Entry(layers, tuple(self._shift(memory.last(i)) for i in range(len(layers))))

    def reference(self, features: Features, masks: ObjectMasks) -> tuple[Entry, list[Reading]]:
        """Return the reference pass with its own decoding: what `write` does with given masks, and the logits that come of it.

        The official training puts an auxiliary loss on these logits. AOST has a reading for each of its depths, as `read_depths` has.
        """
        entry, carry = self._refer(features, masks, finish=True)
        return entry, [Reading(self.decode(features, each), each) for each in self._supervised(carry)]

    def embed(self, masks: ObjectMasks) -> Tensor:
        """Return the ID embedding E [S,N,C] (AOT Eq. 2), normalized where the system does so."""
        identity: Tensor = self.patch_wise_id_bank(masks)
        if self.id_norm is not None:
            identity = self.id_norm(identity)
        return identity

    def decode(self, features: Features, carry: IdentityCarry) -> Tensor:
        """Logits [S,1+K,h,w] at stride 4 from what was propagated."""
        x = to_map(self._decoder_input(features, carry.outputs), _grid(features))
        logits: Tensor = self.decoder(x, features.pyramid, len(carry.outputs) - 1)
        return logits

    def _supervised(self, deepest: IdentityCarry) -> list[IdentityCarry]:
        """List what is decoded in training: the deepest layer's, or (AOST) that of every depth."""
        return [deepest]

    def _decoder_input(self, features: Features, outputs: Sequence[Tensor]) -> Tensor:
        """AOT and AOST: the encoder's projection and the output of every layer, side by side [S,N,(1+L)*C]."""
        start = per_slot(to_tokens(features.pyramid[3]), outputs[0].shape[0])
        return torch.cat([start, *outputs], 2)

    def _propagate(
        self, features: Features, slots: int, depth: int, past: Callable[[int, StackState], Past], finish: bool
    ) -> IdentityCarry:
        grid = _grid(features)
        streams, states = self.LSTT(to_tokens(features.pyramid[3]), slots, grid, depth, past, finish)
        return IdentityCarry(tuple(states), self.LSTT.normalize(streams, grid) if finish else ())

    def _refer(self, features: Features, masks: ObjectMasks, finish: bool) -> tuple[Entry, IdentityCarry]:
        identity = self.embed(masks)
        layers: list[Layer] = []

        def past(layer: int, state: StackState) -> Past:
            own = self.LSTT.block(layer).remember(state, identity)
            layers.append(own)
            return Past(own, (own,))

        carry = self._propagate(features, masks.own.shape[0], self.LSTT.depth, past, finish)
        return Entry(tuple(layers)), carry

    def _last_frames(self, last: Layer) -> tuple[Layer, ...]:
        """Return the last frame, then the ones before that `_shift` has kept with it."""
        frames = [{"k": last["k"], "v": last["v"]}]
        for age in range(1, self.local_frames):
            if f"k{age}" in last:
                frames.append({"k": last[f"k{age}"], "v": last[f"v{age}"]})
        return tuple(frames)

    def _shift(self, last: Layer) -> Layer:
        """Return what was the last frame becomes the one before; a frame with given masks begins anew."""
        frames = self._last_frames(last)[: self.local_frames - 1]
        return {f"{name}{age}": frame[name] for age, frame in enumerate(frames, 1) for name in ("k", "v")}


def _grid(features: Features) -> Grid:
    height, width = features.pyramid[3].shape[-2:]
    return Grid(height, width)
