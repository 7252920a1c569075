"""JointFormer: a unified framework with joint modeling for VOS (Zhang et al. 2024), papers/jointformer.

Every block of the transformer extracts features and matches frames at the same time; one token an object, the compressed memory, is
carried from frame to frame. Every object is a pass of its own (K = 1).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal, cast, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vosformer.encoders.convmae import ConvStem, ConvViTSize
from vosformer.encoders.vit import VIT_B, VIT_TINY, ViTSize
from vosformer.errors import InputError
from vosformer.geometry import padded
from vosformer.models.extract_then_match import VARIANTS as NAIVE
from vosformer.models.jointformer_config import TINY, JointFormerConfig, TopkBlocks, check_config, joint_blocks
from vosformer.nn.attention import attend, join_gates
from vosformer.nn.joint import MovingReferences, join_layers, sigmoid_attention, update_compressed_memory
from vosformer.nn.maps import Grid, per_slot, to_map, to_tokens
from vosformer.nn.parts import Gatherer, in_parts
from vosformer.nn.sensory import SensoryMemory
from vosformer.nn.stm_decoder import CBAMDecoder, DeconvPyramid, Skips
from vosformer.nn.topk import attend_topk
from vosformer.nn.vit_blocks import EPS, PatchEmbed, Projected, ViTBlock, initialize, make_blocks, resize_positions, sine_table
from vosformer.protocol import Entry, Features, Layer, MemoryView, Merging, ObjectMasks, Reading, VOSModel
from vosformer.registry import Variant, build_from

_GRID = 24  # side of the position table: 384 pixels, the crop of the training


class JointFormer(VOSModel):
    """The system; see `VOSModel` for what its methods mean.

    `Features.pyramid` ends with four maps at stride 16: the current tokens before the first joint block, and their queries, keys
    and values in it. Before these come the convolved skip features at strides 8 and 4 ("pe"), or those features of middle blocks that
    know no object yet ("middle").

    In mode d an entry has a layer for each joint block, with "k" and "v" of the frame's tokens. In the other modes, where references
    change with the current frame, it has one layer, with the tokens before the first joint block ("x") and their "q", "k", "v".
    Its token is the compressed memory after the frame.
    """

    slot_size = 1
    geometry = padded("bilinear")
    shares_memory = False
    feedback = "soft"
    merging = Merging.STM
    write_ignores_memory = True

    def __init__(self, config: JointFormerConfig) -> None:
        super().__init__()
        c, width = config, config.width
        self.config = c
        self.joint = joint_blocks(c.joint, c.depth)
        self.policy = c.policy
        check_config(c)
        inputs = {"patch_embed1_query": 3, "patch_embed1_memory": 4 + c.others}
        self.stem: ConvStem | nn.ModuleDict
        if isinstance(c.size, ConvViTSize):
            self.stem = ConvStem(c.size, inputs)
        else:
            self.stem = nn.ModuleDict({name: PatchEmbed(channels, width) for name, channels in inputs.items()})
        self.positions = nn.Parameter(F.pad(sine_table(_GRID, width), (0, 0, 1, 0)))
        self.token = nn.Parameter(torch.zeros(1, 1, width)) if c.updates else None
        make = partial(make_blocks, width=width, heads=c.size.heads, ratio=c.ratio)
        self.blocks = make(c.depth)
        self.norm = nn.LayerNorm(width, EPS)
        self.update_embed = nn.Linear(width, width) if c.updates else None
        self.update_blocks = make(c.updates)
        enhance = c.enhance if c.updates else 0
        self.enhance_embed = nn.Linear(width, width) if enhance else None
        self.enhance_blocks = make(enhance)
        if isinstance(c.size, ConvViTSize) and c.features == "pe":
            skip4, skip8 = c.size.widths[:2]
            self.fpn = None
        else:
            skip8, skip4 = c.fused, c.decoder
            self.fpn = DeconvPyramid(width, skip8, skip4)
        self.decoder = CBAMDecoder(
            (2 * width if enhance else width) + c.gru, skip8, skip4, c.fused, c.decoder, width if c.updates else 0
        )
        self.sensory = SensoryMemory(c.fused, c.decoder, c.gru) if c.gru else None
        self._initialize()

    def _initialize(self) -> None:
        for part in (self.stem, self.blocks, self.update_blocks, self.enhance_blocks):
            initialize(part)
        if self.token is not None:
            nn.init.normal_(self.token, std=0.02)

    # ---------------------------------------------------------------- the current frame

    def encode(self, image: Tensor) -> Features:
        """Return the current frame up to the projections of the first joint block, and the decoder's skip features: they
        know no object.
        """
        grid = _grid(image)
        x, skips = self._enter(image, "query")
        x = x + self._place(grid)
        extra = [skips.at4, skips.at8] if skips is not None else []
        first = self.joint[0]
        for i, block in enumerate(self.blocks[:first]):
            x = block(x)
            if i in self._middle:
                extra.append(to_map(x, grid))
        return Features(image, (*extra, *(to_map(y, grid) for y in (x, *self._block(first).project(x)))))

    def _enter(self, image: Tensor, frame: Literal["query", "memory"]) -> tuple[Tensor, Skips | None]:
        """Return the stem: tokens [B,N,C] without positions, and the current frame's skip features if they come from here."""
        name = f"patch_embed1_{frame}"
        if not isinstance(self.stem, ConvStem):
            return self.stem[name](image), None
        maps = self.stem(image, name)
        has_skips = frame == "query" and self.fpn is None
        return self.stem.tokens(maps.f16), self.decoder.skips(maps.f8, maps.f4) if has_skips else None

    def read(
        self, features: Features, memory: MemoryView, topk: int | None = None, topk_blocks: TopkBlocks | None = None
    ) -> Reading:
        """Joint modeling with the memory, target enhancement, decoding, and update of the compressed memory by decoder tokens.

        Args:
            features: of the current frame.
            memory: at least one frame.
            topk: k of the top-k filter in its blocks for this frame; 0 = no filter, None = as configured.
            topk_blocks: which blocks these are; None = as configured.
        """
        past = [memory.references(layer) for layer in range(len(self.joint) if self.config.mode == "d" else 1)]
        kept = self.config.topk if topk is None else topk
        kept = None if self.training else kept or None
        parts = [
            self._read(
                features.at(part.samples),
                [part.of(layers) for layers in past],
                None if memory.token is None else memory.token[part.slots],
                kept,
                topk_blocks,
            )
            for part in in_parts(len(next(iter(past[0][0].values()))), features.image)
        ]
        logits = torch.cat([part.logits for part in parts])
        token = None if memory.token is None else torch.cat([part.carry for part in parts])
        return Reading(torch.cat([torch.zeros_like(logits), logits], 1), token)

    def _read(
        self,
        features: Features,
        past: Sequence[Sequence[Layer]],
        token: Tensor | None,
        topk: int | None,
        topk_blocks: TopkBlocks | None,
    ) -> Reading:
        """Logits [S,1,h,w] of the objects alone, and the updated compressed memory."""
        grid = _grid(features.image)
        x, found = self.match(features, past, topk, topk_blocks)
        x = self.norm(x)
        f16, skips = to_map(x, grid), self._skips(features, found, x, grid)
        if token is not None and len(self.enhance_blocks):
            f16 = torch.cat([f16, to_map(self.enhance(x, token, grid), grid)], 1)
        if self.sensory is not None:
            f16 = torch.cat([f16, cast(Tensor, token)], 1)
        decoded = self.decoder(f16, skips)
        if self.sensory is not None:
            return Reading(decoded.logits, self.sensory(cast(Tensor, token), decoded))
        return Reading(decoded.logits, None if token is None else self.update(token, self.decoder.tokens(decoded), grid))

    def match(
        self, features: Features, past: Sequence[Sequence[Layer]], topk: int | None, topk_blocks: TopkBlocks | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """Return the current tokens through all blocks (Eq. 2).

        Args:
            features: of the current frame.
            past: for each layer of memory the references, as `Memory.references` gives them.
            topk: k of the filter, or None.
            topk_blocks: where it is applied; None = as configured.

        Returns:
            Tokens [S,N,C] before the final norm, and maps of the middle blocks, if skip features come from there.
        """
        slots = len(next(iter(past[0][0].values())))
        x, q, k, v = (per_slot(to_tokens(level), slots) for level in features.pyramid[-4:])
        projected = Projected(q, k, v)
        references = None if self.config.mode == "d" else MovingReferences(self.blocks, self.joint, self.config.mode, past[0])
        found = []
        filtered = self._filtered(topk_blocks or self.config.topk_blocks)
        for i in range(self.joint[0], self.config.depth):
            block = self._block(i)
            if i > self.joint[0]:
                projected = block.project(x)
            seen: Sequence[Layer] = []
            if i in self.joint:
                seen = past[self.joint.index(i)] if references is None else references.layer(i, projected)
            kept = topk if i in filtered else None
            x = block.finish(x, self._attend(projected, seen, kept))
            if i in self._middle:
                found.append(to_map(x, _grid(features.image)))
        return x, found

    def _attend(self, current: Projected, past: Sequence[Layer], topk: int | None) -> Tensor:
        """Return the current frame attends to the past and to itself, its past filtered where the filter applies."""
        heads = self.config.size.heads
        gate = join_gates([*((layer.get("gate"), layer["k"]) for layer in past), (None, current.k)])
        if past and topk:
            remembered = join_layers(past, "k"), join_layers(past, "v")
            return attend_topk(current.q, remembered, (current.k, current.v), heads, topk, gate)
        keys, values = ([*(layer[name] for layer in past), own] for name, own in (("k", current.k), ("v", current.v)))
        return attend(current.q, keys, values, heads, gate)

    def _skips(self, features: Features, found: list[Tensor], x: Tensor, grid: Grid) -> Skips:
        if self.fpn is None:
            return Skips(at4=features.pyramid[0], at8=features.pyramid[1])
        f16 = to_map(x, grid)
        early = [per_slot(level, x.shape[0]) for level in features.pyramid[:-4]]
        for4, for8 = [*early, *found] if self.config.features == "middle" else (f16, f16)
        return self.decoder.skips(*self.fpn(for8, for4))

    # ---------------------------------------------------------------- the compressed memory

    def enhance(self, x: Tensor, token: Tensor, grid: Grid) -> Tensor:
        """Return current tokens [S,N,C] enhanced by the compressed memory [S,1,C] (Eq. 4) -> [S,N,C]."""
        embed = cast(nn.Linear, self.enhance_embed)
        x = embed(x) + self._place(grid)
        token = embed(token) + self.positions[:, :1]
        for block in self.enhance_blocks:
            x = sigmoid_attention(cast(ViTBlock, block), x, token)
        out: Tensor = self.norm(x)
        return out

    def update(self, token: Tensor, tokens: Tensor, grid: Grid) -> Tensor:
        """Return the compressed memory [S,1,C] after it met the decoder tokens [S,N,C] (Eq. 3, below)."""
        embed = cast(nn.Linear, self.update_embed)
        out: Tensor = self.norm(
            update_compressed_memory(
                self.update_blocks, embed(token) + self.positions[:, :1], embed(tokens) + self._place(grid)
            )
        )
        return out

    # ---------------------------------------------------------------- memory frames

    def write(
        self, features: Features, masks: ObjectMasks, reading: Reading | None, memory: MemoryView | None, update: bool = True
    ) -> Entry:
        """Return the frame with its masks through the shared backbone; on the way the compressed memory meets its tokens
        (Eq. 3, above).

        Args:
            features: of the frame.
            masks: its masks.
            reading: of the frame; its token goes on from there (None: a new object, whose token is the learned one).
            memory: not used.
            update: False skips the second update of the compressed memory (40 % of the frames in training).
        """
        parts = in_parts(len(masks.own), features.image)
        token: Tensor | None = None
        state = None
        if self.sensory is not None:
            slots = len(masks.own)
            state = self.sensory.start(features.image, slots) if reading is None else cast(Tensor, reading.carry)
        if self.token is not None:
            token = self.token.expand(len(masks.own), -1, -1) if reading is None else cast(Tensor, reading.carry)
        planes = torch.cat([masks.own, masks.others] if self.config.others else [masks.own], 1)
        # First the stem for all parts, since its maps are the largest; what the blocks leave behind piles up only then.
        x = torch.cat([self._embed(features.image[part.samples], planes[part.slots]) for part in parts])
        store = Gatherer(parts, len(self.joint) if self.config.mode == "d" else 1)
        moved = [
            self._remember(x[part.slots], None if token is None else token[part.slots], update, store.taker(part))
            for part in parts
        ]
        if state is not None:
            return Entry(tuple(store.layers), token=state)
        return Entry(tuple(store.layers), token=None if token is None else torch.cat([own for own in moved if own is not None]))

    def _embed(self, image: Tensor, masks: Tensor) -> Tensor:
        """Return reference tokens H_z^0 [S,N,C] of a frame [B,3,H,W] with masks [S,1 or 2,H,W] (Eq. 1)."""
        x, _ = self._enter(torch.cat([per_slot(image, len(masks)), masks.to(image.dtype)], 1), "memory")
        return x + self._place(_grid(image))

    def _remember(self, x: Tensor, token: Tensor | None, update: bool, take: Callable[[Layer], None]) -> Tensor | None:
        """Hand over what reference tokens [S,N,C] leave in each layer; returns the compressed memory after them."""
        moving = token + self.positions[:, :1] if token is not None and update else None
        moved = update_compressed_memory(self.blocks, moving, x, self.joint if self.config.mode == "d" else (), take)
        if self.config.mode != "d":
            first = self.joint[0]
            for block in self.blocks[:first]:
                x = block(x)
            take({"x": x, **self._block(first).project(x)._asdict()})
        return token if moved is None else self.norm(moved)

    def write_keeping_token(
        self, features: Features, masks: ObjectMasks, reading: Reading | None, memory: MemoryView | None
    ) -> Entry:
        """Write the frame, and leave the compressed memory as the reading left it."""
        return self.write(features, masks, reading, memory, update=False)

    def check_options(self, **options: Any) -> None:
        """Check the options ``topk`` and ``topk_blocks``.

        Raises:
            InputError: a negative number, an unknown choice, or another option.
        """
        super().check_options(**options)
        topk, topk_blocks = options.get("topk"), options.get("topk_blocks")
        if topk_blocks is not None and topk_blocks not in get_args(TopkBlocks):
            raise InputError(f"topk_blocks is {topk_blocks!r}, expected one of {', '.join(get_args(TopkBlocks))}")
        if topk is not None and topk < 0:
            raise InputError(f"topk is {topk}, expected 0 (no filter) or more")

    def _place(self, grid: Grid) -> Tensor:
        return resize_positions(self.positions[:, 1:], grid)

    def _block(self, index: int) -> ViTBlock:
        return cast(ViTBlock, self.blocks[index])

    @property
    def _middle(self) -> tuple[int, ...]:
        """The last blocks of the first two of three stages, if features are taken there."""
        depth = self.config.depth
        return (round(depth / 3) - 1, round(2 * depth / 3) - 1) if self.config.features == "middle" else ()

    def _filtered(self, blocks: TopkBlocks) -> range:
        """Return the blocks with top-k filter."""
        depth = self.config.depth
        if blocks == "first-half":
            return range(depth // 2)
        return range({"all": 0, "second-half": depth // 2, "last": depth - 1}[blocks], depth)


def _grid(image: Tensor) -> Grid:
    return Grid(image.shape[-2] // 16, image.shape[-1] // 16)


def _small(config: JointFormerConfig) -> dict[str, Any]:
    """Return what makes that variant tiny: the size of `TINY`, and as many of its other traits as the variant has."""
    size = VIT_TINY if isinstance(config.size, ViTSize) else TINY.size
    kept = {"features": config.features, "topk_blocks": config.topk_blocks, "gru": min(config.gru, 16)}
    return {**vars(TINY), **kept, "size": size, "updates": min(config.updates, TINY.updates)}


_VIT = JointFormerConfig(size=VIT_B, topk_blocks="second-half", features="last")

VARIANTS = {
    name: Variant(name, "jointformer", partial(build_from, JointFormer, config, _small(config)), summary)
    for name, config, summary in (
        ("jointformer-b", JointFormerConfig(), "JointFormer: ConvMAE-B, mode d, compressed memory, top-60 filter"),
        ("jointformer-vit-b-last", _VIT, "JointFormer on ViT-B, skip features from the last block (Table 11)"),
        (
            "jointformer-vit-b-middle",
            replace(_VIT, features="middle"),
            "JointFormer on ViT-B, skip features from three stages (Table 11)",
        ),
        (
            "jointformer-gru",
            JointFormerConfig(updates=0, gru=64),
            "JointFormer with XMem's recurrent map, no compressed memory (Table 10)",
        ),
        ("jointformer-tiny", TINY, "JointFormer with a quarter of the width and a third of the depth, for laptops and tests"),
    )
} | NAIVE
