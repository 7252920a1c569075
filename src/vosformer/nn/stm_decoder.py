"""The decoders of the STM family (STM, STCN, XMem), one object a slot, as SimVOS and JointFormer use them.

What depends on the frame alone (the convolution of a skip feature) is computed once and added for every slot.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vosformer.nn.conv import Conv2d
from vosformer.nn.maps import Grid, to_map, to_tokens


class ResBlock(nn.Module):
    """``conv2(relu(conv1(relu(x))))`` + x; x goes through a third convolution where the widths differ.

    Args:
        inputs: channels that come in.
        outputs: channels that go out.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.downsample = Conv2d(inputs, outputs, 3, padding=1) if inputs != outputs else None
        self.conv1 = Conv2d(inputs, outputs, 3, padding=1)
        self.conv2 = Conv2d(outputs, outputs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """[S,inputs,h,w] -> [S,outputs,h,w]."""
        residual: Tensor = self.conv2(self.conv1(F.relu(x), "relu"))
        return residual + (x if self.downsample is None else self.downsample(x))


class UpsampleBlock(nn.Module):
    """Twice the size: bilinear, plus a convolved skip feature, then a `ResBlock`.

    Args:
        skip: channels of the skip feature.
        inputs: channels of the map that is enlarged.
        outputs: channels that go out.
    """

    def __init__(self, skip: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.skip_conv = Conv2d(skip, inputs, 3, padding=1)
        self.out_conv = ResBlock(inputs, outputs)

    def forward(self, skipped: Tensor, g: Tensor) -> Tensor:
        """`skip_conv` of the skip feature [B or S,inputs,2h,2w] and a map [S,inputs,h,w] -> [S,outputs,2h,2w]."""
        large = F.interpolate(g, skipped.shape[-2:], mode="bilinear", align_corners=False)
        shared = torch.unflatten(large, 0, (skipped.shape[0], -1)) + skipped[:, None]
        out: Tensor = self.out_conv(shared.flatten(0, 1))
        return out


class Skips(NamedTuple):
    """Skip features behind their convolutions: [B or S,C,h,w] at strides 8 and 4."""

    at8: Tensor
    at4: Tensor


class Decoded(NamedTuple):
    """What a decoder gives.

    Attributes:
        logits: [S,1,h,w] at stride 4, before the sigmoid.
        g16: [S,C,h,w] at stride 16, fused.
        g8: [S,C,h,w] at stride 8.
        g4: [S,C,h,w] at stride 4, before the last ReLU.
    """

    logits: Tensor
    g16: Tensor
    g8: Tensor
    g4: Tensor


class _Decoder(nn.Module):
    """From a fused map at stride 16 to logits at stride 4."""

    def __init__(self, skip8: int, skip4: int, fused: int, width: int) -> None:
        super().__init__()
        self.up_16_8 = UpsampleBlock(skip8, fused, width)
        self.up_8_4 = UpsampleBlock(skip4, width, width)
        self.pred = Conv2d(width, 1, 3, padding=1)

    def skips(self, f8: Tensor, f4: Tensor) -> Skips:
        """Features at strides 8 and 4 through their convolutions."""
        return Skips(self.up_16_8.skip_conv(f8), self.up_8_4.skip_conv(f4))

    def enlarge(self, g16: Tensor, skips: Skips) -> Decoded:
        """Return the way up from stride 16."""
        g8 = self.up_16_8(skips.at8, g16)
        g4 = self.up_8_4(skips.at4, g8)
        return Decoded(self.pred(F.relu(g4)), g16, g8, g4)


class STMDecoder(_Decoder):
    """The decoder of STM and STCN (SimVOS, Sec. 3.1 "Mask Prediction").

    Args:
        inputs: channels at stride 16.
        skip8: channels of the skip feature at stride 8.
        skip4: channels of the skip feature at stride 4.
        fused: width at stride 16.
        width: width at strides 8 and 4.
    """

    def __init__(self, inputs: int, skip8: int, skip4: int, fused: int = 512, width: int = 256) -> None:
        super().__init__(skip8, skip4, fused, width)
        self.compress = ResBlock(inputs, fused)

    def forward(self, f16: Tensor, skips: Skips) -> Decoded:
        """[S,inputs,h,w] and the skip features -> logits [S,1,4h,4w]."""
        return self.enlarge(self.compress(f16), skips)


class _ChannelGate(nn.Module):
    def __init__(self, width: int, reduction: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, width // reduction)
        self.fc2 = nn.Linear(width // reduction, width)

    def forward(self, x: Tensor) -> Tensor:
        pooled = torch.stack([x.mean((2, 3)), x.amax((2, 3))])
        gate = torch.sigmoid(self.fc2(F.relu(self.fc1(pooled))).sum(0))
        return x * gate[..., None, None]


class _SpatialGate(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 7, padding=3)

    def forward(self, x: Tensor) -> Tensor:
        pooled = torch.cat([x.amax(1, keepdim=True), x.mean(1, keepdim=True)], 1)
        return x * torch.sigmoid(self.conv(pooled))


class CBAM(nn.Module):
    """Convolutional block attention (Woo et al. 2018): a gate a channel, from mean and maximum over positions, then a gate a
    position, from maximum and mean over channels.

    Args:
        width: channels.
        reduction: of the hidden layer of the channel gate.
    """

    def __init__(self, width: int, reduction: int = 16) -> None:
        super().__init__()
        self.channel = _ChannelGate(width, reduction)
        self.spatial = _SpatialGate()

    def forward(self, x: Tensor) -> Tensor:
        """[S,C,h,w] -> [S,C,h,w]."""
        gated: Tensor = self.spatial(self.channel(x))
        return gated


class Fuser(nn.Module):
    """Residual blocks around CBAM: several maps at stride 16 become one (STCN, JointFormer).

    Args:
        inputs: channels of the maps together.
        width: channels that go out.
    """

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.block1 = ResBlock(inputs, width)
        self.attention = CBAM(width)
        self.block2 = ResBlock(width, width)

    def forward(self, x: Tensor) -> Tensor:
        g = self.block1(x)
        fused: Tensor = self.block2(g + self.attention(g))
        return fused


class _TokenFuser(nn.Module):
    def __init__(self, fused: int, width: int, tokens: int) -> None:
        super().__init__()
        self.g16_conv = Conv2d(fused, tokens - tokens // 3 * 2, 1)
        self.g8_conv = Conv2d(width, tokens // 3, 1)
        self.g4_conv = Conv2d(width + 1, tokens // 3, 1)

    def forward(self, decoded: Decoded) -> Tensor:
        fine = torch.cat([decoded.g4, decoded.logits], 1)
        maps = (decoded.g16, self.g16_conv), (F.avg_pool2d(decoded.g8, 2), self.g8_conv), (F.avg_pool2d(fine, 4), self.g4_conv)
        parts = [conv(x) for x, conv in maps]
        return to_tokens(torch.cat(parts, 1))


class CBAMDecoder(_Decoder):
    """The decoder of JointFormer (Fig. 4): fusion with CBAM at stride 16, and decoder tokens for the compressed memory.

    Args:
        inputs: channels at stride 16.
        skip8: channels of the skip feature at stride 8.
        skip4: channels of the skip feature at stride 4.
        fused: width at stride 16.
        width: width at strides 8 and 4.
        tokens: channels of the decoder tokens; 0 = there are none.
    """

    def __init__(self, inputs: int, skip8: int, skip4: int, fused: int = 384, width: int = 256, tokens: int = 0) -> None:
        super().__init__(skip8, skip4, fused, width)
        self.fuser_16 = Fuser(inputs, fused)
        self.fuser_all = _TokenFuser(fused, width, tokens) if tokens else None

    def forward(self, f16: Tensor, skips: Skips) -> Decoded:
        """[S,inputs,h,w] and the skip features -> logits [S,1,4h,4w]."""
        return self.enlarge(self.fuser_16(f16), skips)

    def tokens(self, decoded: Decoded) -> Tensor:
        """Return decoder tokens H_D [S,N,C] at stride 16: features of the three scales and the logits."""
        assert self.fuser_all is not None
        fused: Tensor = self.fuser_all(decoded)
        return fused


class DeconvPyramid(nn.Module):
    """Strides 8 and 4 out of maps at stride 16, by transposed convolutions (the simple pyramid of ViTDet).

    Args:
        width: channels at stride 16.
        at8: channels at stride 8.
        at4: channels at stride 4.
    """

    def __init__(self, width: int, at8: int, at4: int) -> None:
        super().__init__()
        self.up8 = nn.ConvTranspose2d(width, at8, 2, 2)
        self.up4 = nn.ConvTranspose2d(width, width, 2, 2)
        self.norm = nn.LayerNorm(width, 1e-6)
        self.up2 = nn.ConvTranspose2d(width, at4, 2, 2)

    def forward(self, for8: Tensor, for4: Tensor) -> tuple[Tensor, Tensor]:
        """Return the maps [S,C,h,w] that strides 8 and 4 are made of -> [S,at8,2h,2w] and [S,at4,4h,4w]."""
        middle = self.up4(for4)
        grid = Grid(middle.shape[2], middle.shape[3])
        return self.up8(for8), self.up2(to_map(F.gelu(self.norm(to_tokens(middle))), grid))
