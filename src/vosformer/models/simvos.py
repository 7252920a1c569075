"""SimVOS: scalable video object segmentation with simplified framework (Wu et al. 2023), papers/simvos.

One plain ViT extracts and matches at the same time: the tokens of memory frames and of the current frame attend to each other. Every
object is a pass of its own (K = 1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vosformer.encoders.vit import VIT_B, VIT_L, VIT_TINY, ViTSize
from vosformer.errors import InputError
from vosformer.geometry import padded
from vosformer.nn.attention import attend, join_gates
from vosformer.nn.conv import Conv2d
from vosformer.nn.maps import Grid, per_slot, to_map, to_tokens
from vosformer.nn.parts import Gatherer, in_parts
from vosformer.nn.stm_decoder import DeconvPyramid, STMDecoder
from vosformer.nn.vit_blocks import EPS, PatchEmbed, Projected, ViTBlock, initialize, make_blocks, resize_positions, sine_table
from vosformer.policy import FirstAndPrevious, Policy
from vosformer.protocol import Entry, Features, Layer, MemoryView, Merging, ObjectMasks, Reading, VOSModel
from vosformer.registry import Variant, build_from

_GRID = 24  # side of the position table: 384 pixels, the crop of the training


@dataclass(frozen=True)
class SimVOSConfig:
    """Hyper-parameters; the defaults are those of SimVOS-B.

    Attributes:
        size: dimensions of the ViT.
        within: L, the first blocks in which every frame attends to itself only (Table 2); 0 to depth - 1.
        prototypes: (K_f, K_b), the foreground and background prototypes that stand for a memory frame (Table 3); None = all of its
            tokens do. 0 for one of the two leaves that side out.
        suppress: prototypes are made from positions inside their mask only, sigma of Eq. 4 (Table 4).
        fused: width of the decoder at stride 16.
        decoder: width of the decoder at strides 8 and 4.
        drop_path: stochastic depth of the last block, in training (growing evenly from 0).
    """

    size: ViTSize = VIT_B
    within: int = 0
    prototypes: tuple[int, int] | None = None
    suppress: bool = True
    fused: int = 512
    decoder: int = 256
    drop_path: float = 0.1


TINY = SimVOSConfig(size=VIT_TINY, within=1, prototypes=(48, 48), fused=96, decoder=64, drop_path=0.0)
"""SimVOS-BS with a quarter of the width and a third of the depth."""


class TokenRefinement(nn.Module):
    """A frame's tokens as K prototypes (Eqs. 3 to 5).

    Args:
        width: C.
        hidden: channels between the two layers of f.
        count: K.
    """

    def __init__(self, width: int, hidden: int, count: int) -> None:
        super().__init__()
        self.input_norm = nn.LayerNorm(width + 1)
        self.conv = Conv2d(width + 1, hidden, 3, padding=1, bias=False)
        self.assign = nn.Linear(hidden, count)
        self.norm = nn.LayerNorm(width)

    def assignment(self, x: Tensor, mask: Tensor, grid: Grid, suppress: bool) -> Tensor:
        """Return the matrix of Eq. 4 from tokens [S,N,C] and the mask phi(M) [S,N,1]: [S,N,K], each column a softmax over
        positions.

        With `suppress`, positions where the mask is exactly 0 have no part; if that is everywhere, all weights are 0.
        """
        joined = torch.cat([x, mask.to(x.dtype)], 2)
        hidden = F.gelu(self.conv(to_map(self.input_norm(joined), grid)))
        scores = self.assign(to_tokens(hidden))
        if not suppress:
            return torch.softmax(scores, 1)
        inside = mask != 0
        some = inside.any(1, keepdim=True)
        return torch.softmax(scores.masked_fill(~inside & some, -torch.inf), 1) * some

    def forward(self, x: Tensor, mask: Tensor, grid: Grid, suppress: bool) -> Tensor:
        """Tokens [S,N,C] and their mask [S,N,1] -> prototypes [S,K,C] (Eq. 5, then a layer norm)."""
        weights = self.assignment(x, mask, grid, suppress)
        out: Tensor = self.norm(weights.transpose(1, 2) @ x)
        return out


class SimVOS(VOSModel):
    """The system; see `VOSModel` for what its methods mean.

    `Features.pyramid` holds maps at stride 16: the embedded image, the tokens after the L within-frame blocks, and their queries,
    keys and values in the first joint block. An entry holds the same of a memory frame ("x", "q", "k", "v"), its mask put in.
    """

    slot_size = 1
    geometry = padded("bicubic")
    # One frame more than in the paper, where an object's masks are only ever given once: a correction stays in memory.
    policy: Policy = FirstAndPrevious(2)
    shares_memory = False
    feedback = "soft"
    merging = Merging.STM
    write_ignores_memory = True
    positions: Tensor

    def __init__(self, config: SimVOSConfig) -> None:
        super().__init__()
        _check(config)
        size = config.size
        self.config = config
        self.patch_embed = PatchEmbed(3, size.width)
        self.mask_patch_embed = PatchEmbed(1, size.width)
        self.register_buffer("positions", F.pad(sine_table(_GRID, size.width), (0, 0, 1, 0)))
        self.blocks = make_blocks(size.depth, size.width, size.heads, size.ratio, config.drop_path)
        self.norm = nn.LayerNorm(size.width, EPS)
        front, back = config.prototypes or (0, 0)
        self.refine_front = TokenRefinement(size.width, size.width // 4, front) if front else None
        self.refine_back = TokenRefinement(size.width, size.width // 4, back) if back else None
        self.fpn = DeconvPyramid(size.width, config.fused, config.decoder)
        self.decoder = STMDecoder(size.width, config.fused, config.decoder, config.fused, config.decoder)
        for part in (self.patch_embed, self.mask_patch_embed, self.blocks):
            initialize(part)

    def encode(self, image: Tensor) -> Features:
        """Return the current frame's tokens through the within-frame blocks: they know no object."""
        grid = _grid(image)
        embedded = self.patch_embed(image) + resize_positions(self.positions[:, 1:], grid)
        maps = [embedded, *self._projected(self._within(embedded)).values()]
        return Features(image, tuple(to_map(x, grid) for x in maps))

    def _within(self, x: Tensor) -> Tensor:
        """Return the first L blocks: every frame attends to itself only."""
        for block in self.blocks[: self.config.within]:
            x = block(x)
        return x

    def _projected(self, x: Tensor) -> dict[str, Tensor]:
        """Tokens and what the first joint block makes of them; it depends on nothing else."""
        q, k, v = self._block(self.config.within).project(x)
        return {"x": x, "q": q, "k": k, "v": v}

    def read(self, features: Features, memory: MemoryView) -> Reading:
        """Joint attention over [memory frames, current frame] (Sec. 3.1), then the decoder."""
        past = memory.references(0)
        parts = in_parts(past[0]["x"].shape[0], features.image)
        logits = torch.cat([self._read(features.at(part.samples), part.of(past)) for part in parts])
        return Reading(torch.cat([torch.zeros_like(logits), logits], 1))

    def _read(self, features: Features, past: Sequence[Layer]) -> Tensor:
        slots = past[0]["x"].shape[0]
        current = [per_slot(to_tokens(level), slots) for level in features.pyramid[1:]]
        x, q, k, v = (torch.cat([*(part[name] for part in past), now], 1) for name, now in zip("xqkv", current, strict=True))
        grid = _grid(features.image)
        gate = join_gates([*((part.get("gate"), part["k"]) for part in past), (None, current[2])])
        f16 = to_map(self.norm(self._joint(x, Projected(q, k, v), grid.tokens, gate)), grid)
        f8, f4 = self.fpn(f16, f16)
        logits: Tensor = self.decoder(f16, self.decoder.skips(f8, f4)).logits
        return logits

    def _joint(self, x: Tensor, projected: Projected, tokens: int, gate: Tensor | None) -> Tensor:
        """Blocks L to the last over all tokens [S,M+N,C] -> the last N of them, the current frame: [S,N,C]."""
        last = len(self.blocks) - 1
        for i in range(self.config.within, last):
            x = self._block(i)(x, projected if i == self.config.within else None, gate)
        block = self._block(last)
        # The memory's output of the last block has no use: only the current rows are queries there.
        now = x[:, -tokens:]
        if self.config.within == last:
            q, k, v = projected.q[:, -tokens:], projected.k, projected.v
        else:
            q, (k, v) = block.project_queries(now), block.project_keys(x)
        return block.finish(now, attend(q, k, v, block.heads, gate))

    def write(self, features: Features, masks: ObjectMasks, reading: Reading | None, memory: MemoryView | None) -> Entry:
        """Image and mask tokens (Eqs. 1, 2) through the within-frame blocks; prototypes of them if there is token refinement."""
        grid, embedded = _grid(features.image), to_tokens(features.pyramid[0])
        phi = token_masks(masks, grid, len(embedded)) if self.config.prototypes is not None else None
        parts = in_parts(len(masks.own), features.image)
        store = Gatherer(parts, 1)
        for part in parts:
            own = None if phi is None else [mask[part.slots] for mask in phi]
            store.taker(part)(self.remember(embedded[part.samples], masks.own[part.slots], own, grid))
        return Entry(tuple(store.layers))

    def remember(self, embedded: Tensor, own: Tensor, phi: Sequence[Tensor] | None, grid: Grid) -> Layer:
        """Make what a frame leaves for some slots.

        Args:
            embedded: the frame's tokens [B,N,C] before any block.
            own: masks [S,1,H,W] of the slots' objects.
            phi: the slots' masks that prototypes are made with, as `token_masks` gives them; None: without token refinement.
            grid: of the tokens.
        """
        x = self._within(per_slot(embedded, len(own)) + self.mask_patch_embed(own))
        return self._projected(x if phi is None else self._refine(x, phi, grid))

    def _refine(self, x: Tensor, masks: Sequence[Tensor], grid: Grid) -> Tensor:
        """Tokens [S,N,C] of a memory frame -> its prototypes [S,K_f+K_b,C], foreground first (Fig. 4)."""
        pairs = zip((self.refine_front, self.refine_back), masks, strict=True)
        return torch.cat([module(x, mask, grid, self.config.suppress) for module, mask in pairs if module is not None], 1)

    def _block(self, index: int) -> ViTBlock:
        return cast(ViTBlock, self.blocks[index])


def token_masks(masks: ObjectMasks, grid: Grid, samples: int) -> tuple[Tensor, Tensor]:
    """Return the masks phi(M) and phi(1 - M) that prototypes are made with, [S,N,1] float32 each.

    A position belongs to the object that is most probable there after resampling; the foreground mask is the probability p of the own
    object where that is so, the background mask 1 - p everywhere else. As in the released code the background only takes part in
    this choice where it is exactly 1 at full size, so that all uncertain positions fall to some object. The other objects compete
    one by one if they share the cohort; those of other cohorts compete as one.
    """
    own = masks.own.float()[:, 0]
    total = own + masks.others.float()[:, 0]
    objects = torch.unflatten(own, 0, (samples, -1))
    everything = torch.unflatten(total, 0, (samples, -1))[:, :1]  # all slots of a sample know the same
    background = 1 - everything
    background = background.masked_fill(background != 1, 0)
    rest = (everything - objects.sum(1, keepdim=True)).clamp(min=0)
    planes = torch.cat([background, objects, rest], 1)
    planes = F.interpolate(planes, (grid.height, grid.width), mode="bilinear", align_corners=False).flatten(2)
    chance = planes[:, 1:-1].flatten(0, 1)
    positions = torch.arange(1, planes.shape[1] - 1, device=planes.device).view(1, -1, 1)
    mine = (planes.argmax(1, keepdim=True) == positions).flatten(0, 1)
    return (chance * mine)[..., None], ((1 - chance) * ~mine)[..., None]


def _grid(image: Tensor) -> Grid:
    return Grid(image.shape[-2] // 16, image.shape[-1] // 16)


def _check(config: SimVOSConfig) -> None:
    depth = config.size.depth
    if not 0 <= config.within < depth:
        raise InputError(f"within is {config.within}, expected 0 to {depth - 1}: one of the {depth} blocks must be a joint one")
    if config.prototypes is not None and (min(config.prototypes) < 0 or sum(config.prototypes) < 1):
        raise InputError(
            f"prototypes are {config.prototypes}, expected two numbers of which none is negative and one is positive"
        )


def _small(config: SimVOSConfig) -> dict[str, Any]:
    """Return what makes that variant tiny: the size of `TINY`, and as many of its other traits as the variant has."""
    prototypes = TINY.prototypes if config.prototypes is not None else None
    return {**vars(TINY), "within": min(config.within, TINY.within), "prototypes": prototypes}


_SCALED = SimVOSConfig(within=4, prototypes=(384, 384))

VARIANTS = {
    name: Variant(name, "simvos", partial(build_from, SimVOS, config, _small(config)), summary)
    for name, config, summary in (
        ("simvos-b", SimVOSConfig(), "SimVOS-B: ViT-B, joint attention in all blocks"),
        ("simvos-l", SimVOSConfig(size=VIT_L), "SimVOS-L: ViT-L, joint attention in all blocks"),
        ("simvos-bs", _SCALED, "SimVOS-BS: ViT-B, 4 within-frame blocks, then 384 + 384 prototypes a memory frame"),
        ("simvos-tiny", TINY, "SimVOS-BS with a quarter of the width and a third of the depth, for laptops and tests"),
    )
}
