"""DeAOT: decoupling features in hierarchical propagation (Yang, Yang 2022), papers/deaot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor

from vosformer.models.identity_system import EncoderName, IdentitySystem, build_encoder, check_sizes
from vosformer.nn.gpm import GPM, CoupledGPM, GPMStack, Maps
from vosformer.nn.propagation import Block
from vosformer.protocol import Features
from vosformer.registry import Variant, build_from


@dataclass(frozen=True)
class DeAOTConfig:
    """Hyper-parameters; the defaults are those of DeAOT-L, and the ablations of the paper's Table 3 are arguments.

    Attributes:
        encoder: name of the encoder.
        layers: number of gated propagation modules; T, S, B, L: 1, 2, 3, 3.
        gap: remember a frame every `gap` frames; None (T, S, B): only frames with given masks.
        align_corners: False with Swin.
        channels: C of each stream.
        key_dim: C_k, channels of queries and keys.
        value_dim: C_v of each stream.
        heads: of every attention (Table 3b).
        identities: K.
        window: side of the local window, odd; 0 = no short-term propagation.
        local_frames: previous frames in the short-term propagation; 0 = none.
        kernel: side of the depth-wise convolutions F_dw (Table 3d); 0 = none.
        decoupled: two streams; False is Table 3a's "w/o De" (there with `channels` 256 or 512).
        past_maps: which embeddings build the attention maps of long- and short-term propagation (Table 3c).
        self_maps: and those of self-propagation (Table 3c).
        drop_path: stochastic depth on self-propagation, in training.
        dropout: of channels after the depth-wise convolutions, in training.
        freeze_at: encoder stages that are not trained.
    """

    encoder: EncoderName = "mobilenet_v2"
    layers: int = 3
    gap: int | None = 5
    align_corners: bool = True
    channels: int = 256
    key_dim: int = 128
    value_dim: int = 512
    heads: int = 1
    identities: int = 10
    window: int = 15
    local_frames: int = 1
    kernel: int = 5
    decoupled: bool = True
    past_maps: Maps = "visual"
    self_maps: Maps = "both"
    drop_path: float = 0.1
    dropout: float = 0.1
    freeze_at: int = 2


TINY = {"encoder": "tiny", "channels": 32, "key_dim": 16, "value_dim": 24, "window": 3}
"""Overrides that make a model of a few thousand parameters with every part of the real one."""


class DeAOT(IdentitySystem):
    """DeAOT: a stack of gated propagation modules; only the last output goes to the decoder."""

    def __init__(self, config: DeAOTConfig) -> None:
        c = config
        check_sizes(c.window, c.kernel, c.heads, c.key_dim, layers=c.layers, identities=c.identities)
        window = c.window if c.local_frames else 0
        shape = (c.channels, c.key_dim, c.value_dim, c.heads, window, c.kernel, c.drop_path, c.dropout)
        blocks: list[Block] = [
            GPM(i == 0, *shape, c.past_maps, c.self_maps) if c.decoupled else CoupledGPM(*shape) for i in range(c.layers)
        ]
        streams = 2 if c.decoupled else 1
        super().__init__(
            encoder=build_encoder(c.encoder, c.freeze_at),
            propagation=GPMStack(blocks, streams, c.channels),
            decoder_inputs=streams * c.channels,
            channels=c.channels,
            identities=c.identities,
            norm_identity=True,
            align_corners=c.align_corners,
            gap=c.gap,
            local_frames=c.local_frames if window else 0,
        )
        self.config = config

    def _decoder_input(self, features: Features, outputs: Sequence[Tensor]) -> Tensor:
        return outputs[-1]


def _variant(name: str, summary: str, **preset: Any) -> Variant:
    # Variants on ConvViT are tested with its parts.
    small = {**TINY, "encoder": "convvit_tiny"} if preset.get("encoder") == "convvit_base" else TINY
    return Variant(name, "deaot", partial(build_from, DeAOT, DeAOTConfig(**preset), small), summary)


VARIANTS = {
    variant.name: variant
    for variant in (
        _variant("deaot-t", "DeAOT, 1 layer, MobileNetV2, remembers given frames", layers=1, gap=None),
        _variant("deaot-s", "DeAOT, 2 layers, MobileNetV2, remembers given frames", layers=2, gap=None),
        _variant("deaot-b", "DeAOT, 3 layers, MobileNetV2, remembers given frames", layers=3, gap=None),
        _variant("deaot-l", "DeAOT, 3 layers, MobileNetV2, remembers every 5th frame"),
        _variant("r50-deaot-l", "DeAOT, 3 layers, ResNet-50, remembers every 5th frame", encoder="resnet50"),
        _variant(
            "swinb-deaot-l", "DeAOT, 3 layers, Swin-B, remembers every 5th frame", encoder="swin_base", align_corners=False
        ),
        _variant(
            "convvit-deaot-l",
            "DeAOT, 3 layers, ConvMAE's ConvViT-B, remembers every 5th frame",
            encoder="convvit_base",
            align_corners=False,
        ),
    )
}
