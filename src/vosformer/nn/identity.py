"""The identification mechanism of AOT (Sec. 4.1.1): masks of several objects as one embedding, and the permutation of identities."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vosformer.nn import onednn
from vosformer.nn.conv import Conv2d
from vosformer.nn.maps import to_tokens
from vosformer.protocol import ObjectMasks


def one_hot(masks: ObjectMasks) -> Tensor:
    """Return the masks of a slot's objects, background first.

    Objects of other slots count as background. Pixels that are to be ignored belong to nothing at all.

    Args:
        masks: of S slots with K channels.

    Returns:
        [S,1+K,H,W] in [0,1].
    """
    own = masks.own
    background = (1 - own.sum(1, keepdim=True)).clamp_(min=0)
    planes = torch.cat([background, own], 1)
    return planes if masks.ignore is None else planes * (1 - masks.ignore)


class IdentityBank(Conv2d):
    """Embeds masks (AOT Eq. 2, E = Y P D).

    The official bank D is a convolution over the one-hot masks at the input's resolution, so that one identity is a pattern of a
    patch and a patch of several objects gets their sum. Where corners are aligned it is 17 x 17, stride 16, padded with no identity.

    Args:
        identities: K; the background is one more.
        channels: C.
        aligned: whether the sides of the input are 16k+1 (True) or 16k.
    """

    def __init__(self, identities: int, channels: int, aligned: bool) -> None:
        kernel, padding = (17, 8) if aligned else (16, 0)
        super().__init__(identities + 1, channels, kernel, 16, padding)
        self.aligned = aligned
        nn.init.orthogonal_(self.weight.data.view(channels, -1), gain=kernel**-2)

    def forward(self, masks: ObjectMasks) -> Tensor:  # type: ignore[override]
        """Embed the masks of S slots: the identification embedding E [S,N,C]."""
        if masks.ignore is None and onednn.serves(self.weight):
            return to_tokens(self._embed_sparsely(masks.own.to(self.weight.dtype)))
        return to_tokens(super().forward(one_hot(masks).to(self.weight.dtype)))

    def _embed_sparsely(self, own: Tensor) -> Tensor:
        """[S,K,H,W] hard masks -> [S,C,h,w]: a map of nothing but background, plus what each object in sight changes.

        The background's map is the same everywhere but at the border, so that a map of 3 x 3 positions holds all of it.
        """
        size = [side // 16 + int(self.aligned) for side in own.shape[-2:]]
        small = [16 * min(n, 3) - 15 if self.aligned else 16 * min(n, 3) for n in size]
        ones = own.new_ones(1, 1, *small)
        rows, columns = ([min(i, 1) if i < n - 1 else min(n, 3) - 1 for i in range(n)] for n in size)
        background = F.conv2d(ones, self.weight[:, :1], self.bias, 16, self.padding)[:, :, rows][:, :, :, columns]
        seen = own.flatten(2).amax((0, 2)).nonzero().flatten()
        if not len(seen):
            return background.expand(own.shape[0], -1, -1, -1)
        change = self.weight[:, seen + 1] - self.weight[:, :1]
        return F.conv2d(own[:, seen], change, None, 16, self.padding) + background
