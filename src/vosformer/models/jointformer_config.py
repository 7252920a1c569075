"""Hyper-parameters of JointFormer: the released model's, and the forms that the paper compares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from vosformer.encoders.convmae import CONVVIT_B, CONVVIT_TINY, ConvViTSize
from vosformer.encoders.vit import ViTSize
from vosformer.errors import InputError
from vosformer.policy import FirstAndPrevious, Policy

TopkBlocks = Literal["all", "first-half", "second-half", "last"]
_DAVIS = FirstAndPrevious()


@dataclass(frozen=True)
class JointFormerConfig:
    """Hyper-parameters; the defaults are those of the released model.

    Attributes:
        size: dimensions of the backbone, ConvMAE's or a plain ViT's.
        mode: whom reference tokens attend to besides their own frame (Eq. 2, Table 8): "a" other references and the current frame,
            "b" other references, "c" the current frame, "d" nothing else, so that they are computed once.
        joint: the blocks in which frames meet (Table 9): "all", "first-n", "last-n", "even-n" (the last of each of n equal parts),
            "every-n" (the first, and every n-th after it: "evenly 2 blocks" may mean either of the last two), or indices.
        updates: blocks in which the compressed memory meets the decoder tokens (Table 10): 1, 2 or 3; 0 = no compressed memory.
        enhance: blocks in which the current tokens meet the compressed memory (Eq. 4); 0 = they do not.
        topk: k of the top-k filter, never used in training; None = no filter.
        topk_blocks: "all", "first-half" (text of Sec. 4.3.3), "second-half" or "last" (Table 12).
        features: where the decoder's skip features come from (Fig. 11): "pe" the patch embedding (ConvMAE only), "middle" or "last"
            blocks through transposed convolutions.
        others: the memory stem sees the other objects' masks, too: 5 input channels; else 4.
        fused: width of the decoder at stride 16.
        decoder: width of the decoder at strides 8 and 4.
        policy: the memory; `FirstAndPrevious()` for DAVIS and VISOR, `Queue(5, 3)` elsewhere.
        gru: channels of a recurrent map as in XMem in place of the compressed memory (Table 10; 64 there, and `updates` 0); 0 = none.
    """

    size: ConvViTSize | ViTSize = CONVVIT_B
    mode: Literal["a", "b", "c", "d"] = "d"
    joint: str | tuple[int, ...] = "all"
    updates: int = 2
    enhance: int = 1
    topk: int | None = 60
    topk_blocks: TopkBlocks = "all"
    features: Literal["pe", "middle", "last"] = "pe"
    others: bool = True
    fused: int = 384
    decoder: int = 256
    policy: Policy = _DAVIS
    gru: int = 0

    @property
    def depth(self) -> int:
        """Number of transformer blocks."""
        return self.size.depth if isinstance(self.size, ViTSize) else self.size.depths[2]

    @property
    def width(self) -> int:
        """C."""
        return self.size.width if isinstance(self.size, ViTSize) else self.size.widths[2]

    @property
    def ratio(self) -> int:
        """Hidden width of the feed-forward parts / C."""
        return self.size.ratio if isinstance(self.size, ViTSize) else self.size.ratios[2]


TINY = JointFormerConfig(size=CONVVIT_TINY, updates=1, topk=None, fused=96, decoder=48)
"""A quarter of the width and a third of the depth; every part of the real one."""


def joint_blocks(joint: str | tuple[int, ...], depth: int) -> tuple[int, ...]:
    """Return the indices of the joint blocks, ascending.

    Raises:
        InputError: there is no such choice.
    """
    if not isinstance(joint, str):
        chosen = sorted(set(joint))
        if not chosen or chosen[0] < 0 or chosen[-1] >= depth:
            raise InputError(f"joint is {joint}, expected at least one index, all from 0 to {depth - 1}")
        return tuple(chosen)
    if joint == "all":
        return tuple(range(depth))
    choice, _, number = joint.partition("-")
    if choice not in ("first", "last", "even", "every") or not number.isdecimal() or not 1 <= int(number) <= depth:
        raise InputError(
            f"joint is {joint!r}, expected all, first-n, last-n, even-n or every-n with n from 1 to {depth}, or indices"
        )
    count = int(number)
    if choice == "every":
        return tuple(range(0, depth, count))
    if choice == "even":
        return tuple(round((i + 1) * depth / count) - 1 for i in range(count))
    return tuple(range(count)) if choice == "first" else tuple(range(depth - count, depth))


def check_config(config: JointFormerConfig) -> None:
    """Check what the types of the fields do not say.

    Raises:
        InputError: a value, or two together, make no model.
    """
    for name, choices in (
        ("mode", "abcd"),
        ("topk_blocks", get_args(TopkBlocks)),
        ("features", ("pe", "middle", "last")),
    ):
        if getattr(config, name) not in choices:
            raise InputError(f"{name} is {getattr(config, name)!r}, expected one of {', '.join(choices)}")
    if config.features == "pe" and isinstance(config.size, ViTSize):
        raise InputError(
            "features='pe' needs a ConvMAE backbone: a plain ViT has no maps at strides 4 and 8; use 'middle' or 'last'"
        )
    if not 0 <= config.updates <= 3:
        raise InputError(f"updates is {config.updates}, expected 0 (no compressed memory) to 3")
    if config.gru < 0 or (config.gru and config.updates):
        raise InputError(
            f"gru is {config.gru} with updates={config.updates}: the recurrent map stands in for the compressed memory"
        )
    if config.enhance < 0:
        raise InputError(f"enhance is {config.enhance}, expected 0 (no target enhancement) or more")
    if config.topk is not None and config.topk < 1:
        raise InputError(f"topk is {config.topk}, expected at least 1, or None for no filter")
