"""AOT: associating objects with transformers (Yang, Wei, Yang 2021), papers/aot-aost Sec. 4.1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor

from vosformer.models.identity_system import EncoderName, IdentitySystem, build_encoder, check_sizes
from vosformer.nn.lstt import LSTT, LSTTBlock
from vosformer.protocol import Features
from vosformer.registry import Variant, build_from


@dataclass(frozen=True)
class AOTConfig:
    """Hyper-parameters; the defaults are those of AOT-L, and the ablations of the paper's Table 10 are arguments.

    Attributes:
        encoder: name of the encoder.
        layers: number of LSTT blocks (Table 10d); T, S, B, L: 1, 2, 3, 3.
        gap: remember a frame every `gap` frames; None (T, S, B): only frames with given masks.
        align_corners: False with Swin.
        channels: C.
        hidden: channels of the feed-forward module.
        heads: of every attention (DeAOT Table 3b).
        identities: K, the identity number (Table 10a).
        window: side of the local window, odd (Table 10b); 0 = no short-term attention.
        local_frames: previous frames in the short-term attention (Table 10c); 0 = none.
        kernel: side of the depth-wise convolution in the feed-forward module; 0 = none.
        shared: one LSTT block used for all layers (AOST Table 11b, "Share LSTT layers"); the decoder gets the last output only.
        drop_path: stochastic depth on self-attention and feed-forward, in training.
        freeze_at: encoder stages that are not trained.
    """

    encoder: EncoderName = "mobilenet_v2"
    layers: int = 3
    gap: int | None = 5
    align_corners: bool = True
    channels: int = 256
    hidden: int = 1024
    heads: int = 8
    identities: int = 10
    window: int = 15
    local_frames: int = 1
    kernel: int = 5
    shared: bool = False
    drop_path: float = 0.1
    freeze_at: int = 2


TINY = {"encoder": "tiny", "channels": 32, "hidden": 64, "heads": 2, "window": 3}
"""Overrides that make a model of a few thousand parameters with every part of the real one."""


class AOT(IdentitySystem):
    """AOT: a stack of LSTT blocks; every output goes to the decoder."""

    def __init__(self, config: AOTConfig) -> None:
        c = config
        check_sizes(c.window, c.kernel, c.heads, c.channels, layers=c.layers, identities=c.identities)
        window = c.window if c.local_frames else 0
        make = partial(LSTTBlock, c.channels, c.heads, c.hidden, window, c.kernel, c.drop_path)
        blocks = [make() for _ in range(1 if c.shared else c.layers)]
        super().__init__(
            encoder=build_encoder(c.encoder, c.freeze_at),
            propagation=LSTT(blocks, c.layers, c.shared, c.channels),
            decoder_inputs=c.channels * (1 if c.shared else c.layers + 1),
            channels=c.channels,
            identities=c.identities,
            norm_identity=False,
            align_corners=c.align_corners,
            gap=c.gap,
            local_frames=c.local_frames if window else 0,
        )
        self.config = config

    def _decoder_input(self, features: Features, outputs: Sequence[Tensor]) -> Tensor:
        return outputs[-1] if self.LSTT.shared else super()._decoder_input(features, outputs)


def _variant(name: str, summary: str, **preset: Any) -> Variant:
    # Variants on ConvViT are tested with its parts.
    small = {**TINY, "encoder": "convvit_tiny"} if preset.get("encoder") == "convvit_base" else TINY
    return Variant(name, "aot", partial(build_from, AOT, AOTConfig(**preset), small), summary)


VARIANTS = {
    variant.name: variant
    for variant in (
        _variant("aot-t", "AOT, 1 layer, MobileNetV2, remembers given frames", layers=1, gap=None),
        _variant("aot-s", "AOT, 2 layers, MobileNetV2, remembers given frames", layers=2, gap=None),
        _variant("aot-b", "AOT, 3 layers, MobileNetV2, remembers given frames", layers=3, gap=None),
        _variant("aot-l", "AOT, 3 layers, MobileNetV2, remembers every 5th frame"),
        _variant("r50-aot-l", "AOT, 3 layers, ResNet-50, remembers every 5th frame", encoder="resnet50"),
        _variant("swinb-aot-l", "AOT, 3 layers, Swin-B, remembers every 5th frame", encoder="swin_base", align_corners=False),
        _variant(
            "convvit-aot-l",
            "AOT, 3 layers, ConvMAE's ConvViT-B, remembers every 5th frame",
            encoder="convvit_base",
            align_corners=False,
        ),
    )
}
