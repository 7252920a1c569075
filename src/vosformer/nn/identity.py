"""The identification mechanism of AOT (Sec. 4.1.1): masks of several objects as one embedding, and the permutation of identities."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vosformer.nn.maps import to_tokens
from vosformer.types import Targets


def one_hot(targets: Targets) -> Tensor:
    """The masks of a slot's objects, background first.

    Objects of other slots count as background. Pixels that are to be ignored belong to nothing at all.

    Args:
        targets: of S slots with K places.

    Returns:
        [S,1+K,H,W] in [0,1].
    """
    own = targets.own
    background = (1 - own.sum(1, keepdim=True)).clamp_(min=0)
    planes = torch.cat([background, own], 1)
    return planes if targets.ignore is None else planes * (1 - targets.ignore)


class IdentityBank(nn.Conv2d):
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
        nn.init.orthogonal_(self.weight.data.view(channels, -1), gain=kernel**-2)

    def embed(self, targets: Targets) -> Tensor:
        """The identification embedding E [S,N,C]."""
        return to_tokens(self(one_hot(targets).to(self.weight.dtype)))


def random_identities(samples: int, identities: int, generator: torch.Generator | None = None) -> Tensor:
    """One random permutation a sample (AOT's P): int64 [samples,K], the identity that each place uses.

    AOT draws one per sample and iteration in training, and uses none at inference.
    """
    return torch.rand(samples, identities, generator=generator).argsort(1)


def assign_identities(own: Tensor, identities: Tensor) -> Tensor:
    """Masks [S,K,H,W] by place -> by identity, given `random_identities` [S,K]."""
    places = identities.argsort(1).to(own.device)
    return own.gather(1, places[:, :, None, None].expand_as(own))


def recall_places(logits: Tensor, identities: Tensor) -> Tensor:
    """Logits [S,1+K,h,w] by identity -> by place (AOT Eq. 4); the inverse of `assign_identities`, the background stays."""
    order = torch.cat([torch.zeros_like(identities[:, :1]), identities + 1], 1).to(logits.device)
    return logits.gather(1, order[:, :, None, None].expand_as(logits))
