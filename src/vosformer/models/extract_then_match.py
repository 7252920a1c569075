"""The naive baseline of JointFormer's Table 8: extract features first, then match them, as STCN does.

ConvMAE makes keys of frames and ResNet-18 makes values of frames with masks. The current frame's keys look up the remembered values
by a dot product ("to keep consistent with the standard attention"), and a decoder makes a mask of what was found. There is no
released code; widths are STCN's.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vosformer.encoders.convmae import CONVVIT_B, CONVVIT_TINY, ConvStem, ConvViTSize
from vosformer.geometry import padded
from vosformer.nn.attention import attend, join_gates
from vosformer.nn.maps import Grid, per_slot, to_map, to_tokens
from vosformer.nn.norm import FrozenBatchNorm2d
from vosformer.nn.stm_decoder import Fuser, Skips, STMDecoder
from vosformer.nn.vit_blocks import EPS, initialize, make_blocks, resize_positions, sine_table
from vosformer.policy import FirstAndPrevious, Policy
from vosformer.protocol import Entry, Features, MemoryView, Merging, ObjectMasks, Reading, VOSModel
from vosformer.registry import Variant, build_from

_GRID = 24  # side of the position table: 384 pixels, the crop of the training


@dataclass(frozen=True)
class ExtractThenMatchConfig:
    """Hyper-parameters.

    Attributes:
        size: dimensions of the ConvMAE encoder.
        residual: channels of ResNet-18's stem.
        key: channels of keys.
        value: channels of values, and of the decoder at stride 16.
        decoder: width of the decoder at strides 8 and 4.
    """

    size: ConvViTSize = CONVVIT_B
    residual: int = 64
    key: int = 64
    value: int = 512
    decoder: int = 256


class _BasicBlock(nn.Module):
    """Two 3x3 convolutions with a residual connection (ResNet-18)."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, padding=1, bias=False)
        self.bn1 = FrozenBatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = FrozenBatchNorm2d(width)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or inputs != width:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, width, 1, stride, bias=False), FrozenBatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = F.relu(self.bn1(self.conv1(x)))
        out: Tensor = F.relu(self.bn2(self.conv2(x)) + shortcut)
        return out


class _ValueEncoder(nn.Module):
    """ResNet-18 to stride 16 over a frame, the object's mask and the others', fused with the frame's own features."""

    def __init__(self, config: ExtractThenMatchConfig) -> None:
        super().__init__()
        width = config.residual
        self.conv1 = nn.Conv2d(5, width, 7, 2, padding=3, bias=False)
        self.bn1 = FrozenBatchNorm2d(width)
        self.layer1 = nn.Sequential(_BasicBlock(width, width, 1), _BasicBlock(width, width, 1))
        self.layer2 = nn.Sequential(_BasicBlock(width, 2 * width, 2), _BasicBlock(2 * width, 2 * width, 1))
        self.layer3 = nn.Sequential(_BasicBlock(2 * width, 4 * width, 2), _BasicBlock(4 * width, 4 * width, 1))
        self.fuse = Fuser(4 * width + config.size.widths[2], config.value)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, frame: Tensor, f16: Tensor) -> Tensor:
        """Return a frame with masks [S,5,H,W] and its features [S,C,h,w] -> values [S,C_v,h,w]."""
        x = F.relu(self.bn1(self.conv1(frame)))
        x = self.layer3(self.layer2(self.layer1(F.max_pool2d(x, 3, 2, padding=1))))
        out: Tensor = self.fuse(torch.cat([x, f16], 1))
        return out


class ExtractThenMatch(VOSModel):
    """The system; see `VOSModel` for what its methods mean.

    `Features.pyramid` holds the decoder's skip features at strides 4 and 8, the encoder's map at stride 16, and the keys.
    """

    slot_size = 1
    geometry = padded("bilinear")
    policy: Policy = FirstAndPrevious()
    shares_memory = False
    feedback = "soft"
    merging = Merging.STM
    write_ignores_memory = True

    def __init__(self, config: ExtractThenMatchConfig) -> None:
        super().__init__()
        c, width = config, config.size.widths[2]
        self.config = c
        self.stem = ConvStem(c.size, {"patch_embed1_query": 3})
        self.positions = nn.Parameter(F.pad(sine_table(_GRID, width), (0, 0, 1, 0)))
        self.blocks = make_blocks(c.size.depths[2], width, c.size.heads, c.size.ratios[2])
        self.norm = nn.LayerNorm(width, EPS)
        self.key = nn.Conv2d(width, c.key, 3, padding=1)
        self.compress = nn.Conv2d(width, c.value, 3, padding=1)
        for part in (self.stem, self.blocks):
            initialize(part)
        self.value_encoder = _ValueEncoder(c)
        self.decoder = STMDecoder(2 * c.value, c.size.widths[1], c.size.widths[0], c.value, c.decoder)

    def encode(self, image: Tensor) -> Features:
        """Return the frame's features and keys: they know no object."""
        maps = self.stem(image, "patch_embed1_query")
        grid = Grid(maps.f16.shape[2], maps.f16.shape[3])
        x = self.stem.tokens(maps.f16) + resize_positions(self.positions[:, 1:], grid)
        for block in self.blocks:
            x = block(x)
        f16 = to_map(self.norm(x), grid)
        skips = self.decoder.skips(maps.f8, maps.f4)
        return Features(image, (skips.at4, skips.at8, f16, self.key(f16)))

    def read(self, features: Features, memory: MemoryView) -> Reading:
        """Look up the remembered values, and decode."""
        past = memory.references(0)
        keys, values = ([layer[name] for layer in past] for name in ("k", "v"))
        slots = len(keys[0])
        at4, at8, f16, key = features.pyramid
        gate = join_gates([(layer.get("gate"), layer["k"]) for layer in past])
        found = attend(per_slot(to_tokens(key), slots), keys, values, 1, gate)
        grid = Grid(f16.shape[2], f16.shape[3])
        x = torch.cat([to_map(found, grid), per_slot(self.compress(f16), slots)], 1)
        logits = self.decoder(x, Skips(at8=at8, at4=at4)).logits
        return Reading(torch.cat([torch.zeros_like(logits), logits], 1))

    def write(self, features: Features, masks: ObjectMasks, reading: Reading | None, memory: MemoryView | None) -> Entry:
        """Keys of the frame, and values of it with its masks."""
        slots = len(masks.own)
        f16, key = (per_slot(level, slots) for level in features.pyramid[2:])
        planes = torch.cat([masks.own, masks.others], 1).to(features.image.dtype)
        values = self.value_encoder(torch.cat([per_slot(features.image, slots), planes], 1), f16)
        return Entry(({"k": to_tokens(key).contiguous(), "v": to_tokens(values)},))


TINY = ExtractThenMatchConfig(size=CONVVIT_TINY, residual=16, key=16, value=96, decoder=48)

VARIANTS = {
    "jointformer-naive": Variant(
        "jointformer-naive",
        "jointformer",
        partial(build_from, ExtractThenMatch, ExtractThenMatchConfig(), vars(TINY)),
        "extract, then match: STCN's way on ConvMAE, the naive baseline of JointFormer's Table 8",
    )
}
