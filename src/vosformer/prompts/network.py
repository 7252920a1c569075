"""The click network: a picture, the places that a user marked and the mask so far -> a better mask.

The recipe is RITM's (Sofiiuk et al. 2021: marks and the previous mask are inputs, the next click of a training is simulated where the
prediction is worst), the encoder MobileNetV2. The first stages, up to stride 4, see the picture alone and are not trained: an
annotator computes them once for all clicks on a crop. The marks come in there, so that the other stages look at the picture with
them in mind.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vosformer.encoders.mobilenet_v2 import MobileNetV2
from vosformer.geometry import MEAN, STD
from vosformer.nn.fpn import ConvGN
from vosformer.prompts.maps import CHANNELS

STRIDE = 32
"""Sides of the pictures that the network takes are multiples of this."""


class Picture(NamedTuple):
    """What the network sees of a picture alone.

    Attributes:
        half: [B,16,H/2,W/2].
        quarter: [B,24,H/4,W/4].
    """

    half: Tensor
    quarter: Tensor


class Segmented(NamedTuple):
    """What the network makes of a prompt.

    Attributes:
        logits: float32 [B,1,H/2,W/2]; above 0 is the object.
        iou: [B] of 0..1, the IoU with what is meant that the network expects of this mask; None if it has no head for it.
    """

    logits: Tensor
    iou: Tensor | None


class SelfAttention(nn.Module):
    """A pre-norm transformer block over the places of a map: what looks like the marked place can be found anywhere.

    Both residual branches begin at zero, so that the block does nothing at first.

    Args:
        channels: C.
        heads: of the attention.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)
        widest = nn.Linear(2 * channels, channels)
        self.mlp = nn.Sequential(nn.Linear(channels, 2 * channels), nn.GELU(), widest)
        for last in (self.out, widest):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def forward(self, x: Tensor) -> Tensor:
        """[B,C,h,w] -> [B,C,h,w]."""
        batch, channels, height, width = x.shape
        tokens = x.flatten(2).transpose(1, 2)
        split = self.qkv(self.norm1(tokens)).view(batch, -1, 3, self.heads, channels // self.heads).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(split[0], split[1], split[2])
        tokens = tokens + self.out(mixed.transpose(1, 2).reshape(batch, -1, channels))
        tokens = tokens + self.mlp(self.norm2(tokens))
        out: Tensor = tokens.transpose(1, 2).reshape(batch, channels, height, width)
        return out


class IoUHead(nn.Module):
    """How good a mask is (SAM, Kirillov et al. 2023, Sec. 3: the IoU token), from the features in it, those of the whole crop and its
    outline.

    Args:
        channels: C of the features.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2 * channels + 4, channels), nn.ReLU(), nn.Linear(channels, 1))

    def forward(self, features: Tensor, logits: Tensor) -> Tensor:
        """Features [B,C,h,w] and logits [B,1,8h,8w] -> the expected IoU [B]."""
        p = logits.detach().float().sigmoid()
        sure = (2 * p - 1).abs() * p
        area = p.mean((1, 2, 3))
        edge = torch.stack([p[:, 0, 0].mean(1), p[:, 0, -1].mean(1), p[:, 0, :, 0].mean(1), p[:, 0, :, -1].mean(1)], 1).amax(1)
        shape = torch.stack([area, (area + 1e-4).log() / 4, sure.mean((1, 2, 3)) / (area + 1e-4), edge], 1)
        weight = F.interpolate(p, features.shape[-2:], mode="area")
        inside = (features * weight).sum((2, 3)) / (weight.sum((2, 3)) + 1e-2)
        out: Tensor = self.layers(torch.cat([inside, features.mean((2, 3)), shape], 1))[:, 0].sigmoid()
        return out


class ClickNetwork(nn.Module):
    """The network.

    Args:
        width: channels of the decoder at strides 32 and 16; two thirds of it at stride 8, half at stride 4.
        heads: of the attention at stride 16.
        predicts_iou: it says how good its mask is, too.

    Attributes:
        built_with: the arguments, which a weights file holds.
    """

    _mean: Tensor
    _std: Tensor

    def __init__(self, width: int = 96, heads: int = 4, predicts_iou: bool = True) -> None:
        super().__init__()
        self.built_with = {"width": width, "heads": heads, "predicts_iou": predicts_iou}
        self.encoder = MobileNetV2(freeze_at=2, output_stride=32)
        del self.encoder.features[18]  # 1280 channels for ImageNet's classes
        eight, four = 2 * width // 3, width // 2
        self.marks = nn.Sequential(
            nn.Conv2d(CHANNELS, 32, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(inplace=True)
        )
        self.marks_in = nn.Conv2d(32, 24, 1)
        for parameter in self.marks_in.parameters():
            nn.init.zeros_(parameter)  # at first the network sees the picture as ImageNet's does
        self.conv_32 = ConvGN(320, width, 1)
        self.lateral_16, self.conv_16 = nn.Conv2d(96, width, 1), ConvGN(width, width, 3)
        self.attention = SelfAttention(width, heads)
        self.lateral_8, self.conv_8 = nn.Conv2d(32, width, 1), ConvGN(width, eight, 3)
        self.lateral_4, self.conv_4 = nn.Conv2d(24 + 32, eight, 1), ConvGN(eight, four, 3)
        self.lateral_2, self.narrow = nn.Conv2d(16, 16, 1), nn.Conv2d(four, 16, 1)
        self.conv_2 = ConvGN(16, 16, 3)
        self.conv_out = nn.Conv2d(16, 1, 1)
        self.iou_head = IoUHead(width) if predicts_iou else None
        self.register_buffer("_mean", torch.tensor(MEAN).view(3, 1, 1) * 255, persistent=False)
        self.register_buffer("_std", torch.tensor(STD).view(3, 1, 1) * 255, persistent=False)

    @torch.no_grad()
    def look(self, images: Tensor) -> Picture:
        """uint8 RGB [B,3,H,W], sides multiples of 32 -> what all clicks on these pictures share."""
        x = ((images.float() - self._mean) / self._std).contiguous(memory_format=torch.channels_last)
        half = x
        for index in range(4):
            x = self.encoder.features[index](x)
            half = x if index == 1 else half
        return Picture(half, x)

    def forward(self, picture: Picture, maps: Tensor) -> Segmented:
        """Segment.

        Args:
            picture: from `look`.
            maps: float32 [B,CHANNELS,H/4,W/4], see `vosformer.prompts.maps`.
        """
        marks = self.marks(maps.contiguous(memory_format=torch.channels_last))
        x = picture.quarter + self.marks_in(marks)
        levels = []
        for first, last in ((4, 7), (7, 14), (14, 18)):
            for index in range(first, last):
                x = self.encoder.features[index](x)
            levels.append(x)
        eight, sixteen, thirty_two = levels
        x = self.conv_16(_up(self.conv_32(thirty_two), sixteen) + self.lateral_16(sixteen))
        x = attended = self.attention(x)
        x = self.conv_8(_up(x, eight) + self.lateral_8(eight))
        x = self.conv_4(_up(x, marks) + self.lateral_4(torch.cat([picture.quarter, marks], 1)))
        x = self.conv_2(_up(self.narrow(x), picture.half) + self.lateral_2(picture.half))
        logits = self.conv_out(x)
        return Segmented(logits, None if self.iou_head is None else self.iou_head(attended, logits))


def _up(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, like.shape[-2:], mode="bilinear", align_corners=False)
