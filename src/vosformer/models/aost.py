"""AOST: associating objects with scalable transformers (Yang et al.), papers/aot-aost Sec. 4.2."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from torch import Tensor

from vosformer.errors import InputError
from vosformer.models.identity_system import EncoderName, IdentityCarry, IdentitySystem, build_encoder, check_sizes
from vosformer.nn.lstt import LSTT, ScalableLSTTBlock
from vosformer.protocol import Features, MemoryView, Reading
from vosformer.registry import Variant, build_from


@dataclass(frozen=True)
class AOSTConfig:
    """Hyper-parameters; the defaults are the published ones, and the ablations of the paper's Tables 10 and 11 are arguments.

    Attributes:
        encoder: name of the encoder.
        layers: n_l, number of S-LSTT blocks; the depth of a call is 1 to `layers`.
        gap: remember a frame every `gap` frames; None: only frames with given masks.
        align_corners: False with Swin.
        channels: C.
        hidden: channels of the feed-forward module.
        heads: of every attention.
        identities: K, the identity number.
        window: side of the local window, odd; 0 = no short-term attention.
        local_frames: previous frames in the short-term attention; 0 = none.
        kernel: side of the depth-wise convolution in the feed-forward module; 0 = none.
        shared: one block used for all layers (Table 11b); the decoder gets the last output only. "blocks": as the paper has it, the
            layer-wise weights of identities and gates stay each layer's own; True: they are shared, too, as in the released code.
        id_weight: layer-wise identification weight W_id (Table 11c).
        gate: layer-wise gate weight W_gate (Table 11c): one gate for each head and position, as released; "position": one for each
            position, as the paper has it; False: none.
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
    shared: bool | Literal["blocks"] = False
    id_weight: bool = True
    gate: bool | Literal["position"] = True
    drop_path: float = 0.1
    freeze_at: int = 2


TINY = {"encoder": "tiny", "channels": 32, "hidden": 64, "heads": 2, "window": 3}
"""Overrides that make a model of a few thousand parameters with every part of the real one."""


class AOST(IdentitySystem):
    """AOST: a stack of S-LSTT blocks of which the first 1 to n_l are run, as each call says.

    The decoder is shared by all depths but for its first convolution, as in the official code (the paper shares all of it).
    """

    def __init__(self, config: AOSTConfig) -> None:
        c = config
        check_sizes(c.window, c.kernel, c.heads, c.channels, layers=c.layers, identities=c.identities)
        window = c.window if c.local_frames else 0
        blocks = [
            ScalableLSTTBlock(c.channels, c.heads, c.hidden, window, c.kernel, c.drop_path, id_weight=c.id_weight, gate=c.gate)
            for _ in range(1 if c.shared else c.layers)
        ]
        super().__init__(
            encoder=build_encoder(c.encoder, c.freeze_at),
            propagation=LSTT(blocks, c.layers, bool(c.shared), c.channels, own_identity=c.shared == "blocks"),
            decoder_inputs=[c.channels * (1 if c.shared else depth + 1) for depth in range(1, c.layers + 1)],
            channels=c.channels,
            identities=c.identities,
            norm_identity=True,
            align_corners=c.align_corners,
            gap=c.gap,
            local_frames=c.local_frames if window else 0,
        )
        self.config = config

    def read(self, features: Features, memory: MemoryView, depth: int | None = None) -> Reading:
        """Propagate and decode as every system with identities does.

        Args:
            features: of B samples.
            memory: of S slots, with at least one frame.
            depth: how many layers to run, 1 to n_l; None = all of them.

        Raises:
            InputError: nothing is remembered yet, or there are not so many layers.
        """
        return self._read(features, memory, self._checked_depth(depth))

    def read_depths(self, features: Features, memory: MemoryView) -> list[Reading]:
        """Read once and decode at every depth, for scalable supervision (AOST Eq. 11).

        Returns:
            A reading for each depth 1 to n_l; the last one is what `read` gives, and the one to write with.
        """
        carries = self._supervised(self.read(features, memory).carry)
        return [Reading(self.decode(features, carry), carry) for carry in carries]

    def _supervised(self, deepest: IdentityCarry) -> list[IdentityCarry]:
        return [IdentityCarry(deepest.states[:depth], deepest.outputs[:depth]) for depth in range(1, self.LSTT.depth + 1)]

    def check_options(self, **options: Any) -> None:
        """Check the option ``depth``.

        Raises:
            InputError: there are not so many layers, or there is another option.
        """
        super().check_options(**options)
        self._checked_depth(**options)

    def _checked_depth(self, depth: int | None = None) -> int:
        if depth is None:
            return self.LSTT.depth
        if not 1 <= depth <= self.LSTT.depth:
            raise InputError(f"a depth of {depth} cannot be read: this model has 1 to {self.LSTT.depth}")
        return depth

    def _decoder_input(self, features: Features, outputs: Sequence[Tensor]) -> Tensor:
        return outputs[-1] if self.LSTT.shared else super()._decoder_input(features, outputs)


def _variant(name: str, summary: str, **preset: Any) -> Variant:
    return Variant(name, "aost", partial(build_from, AOST, AOSTConfig(**preset), TINY), summary)


VARIANTS = {
    variant.name: variant
    for variant in (
        _variant("aost", "AOST, depth 1 to 3 at run time, MobileNetV2"),
        _variant("r50-aost", "AOST, depth 1 to 3 at run time, ResNet-50", encoder="resnet50"),
        _variant("swinb-aost", "AOST, depth 1 to 3 at run time, Swin-B", encoder="swin_base", align_corners=False),
        _variant("aost-share", "AOST with one block shared by all depths, MobileNetV2", shared=True),
    )
}
