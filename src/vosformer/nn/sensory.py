"""XMem's sensory memory: a recurrent map for each object, the rival of JointFormer's compressed memory (its Table 10)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vosformer.nn.stm_decoder import Decoded


class SensoryMemory(nn.Module):
    """A gated recurrent unit that takes in what the decoder made of a frame at three scales.

    XMem also refreshes it from the memory's values on remembered frames; JointFormer's paper does not say whether its form does, and
    this one does not.

    Args:
        fused: channels of the decoder at stride 16.
        width: channels of the decoder at strides 8 and 4.
        hidden: channels of the recurrent map (64 in XMem).
        middle: channels that the three scales are brought to.
    """

    def __init__(self, fused: int, width: int, hidden: int, middle: int = 256) -> None:
        super().__init__()
        self.hidden = hidden
        self.from16 = nn.Conv2d(fused, middle, 1)
        self.from8 = nn.Conv2d(width, middle, 1)
        self.from4 = nn.Conv2d(width + 1, middle, 1)
        self.transform = nn.Conv2d(middle + hidden, 3 * hidden, 3, padding=1)
        nn.init.xavier_normal_(self.transform.weight)

    def forward(self, state: Tensor, decoded: Decoded) -> Tensor:
        """Update the map [S,hidden,h,w] at stride 16 by a decoded frame."""
        fine = torch.cat([decoded.g4, decoded.logits], 1)
        x = self.from16(decoded.g16) + self.from8(F.avg_pool2d(decoded.g8, 2)) + self.from4(F.avg_pool2d(fine, 4))
        forget, update, fresh = self.transform(torch.cat([x, state], 1)).chunk(3, 1)
        taken = torch.sigmoid(update)
        out: Tensor = torch.sigmoid(forget) * state * (1 - taken) + taken * torch.tanh(fresh)
        return out

    def start(self, image: Tensor, slots: int) -> Tensor:
        """Begin with zeros [S,hidden,h,w] for images [B,3,H,W]."""
        return image.new_zeros(slots, self.hidden, image.shape[-2] // 16, image.shape[-1] // 16)
