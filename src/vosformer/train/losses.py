"""The losses of the five papers, per sample and over each sample's own number of objects.

All take logits [B,1+K,H,W] at the size of the labels [B,H,W] (integers; `IGNORE` marks pixels without truth) and counts [B], the
number of objects of each sample: channel c of a sample is used if c <= count. They compute in the logits' dtype; give them float32.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from vosformer.data.types import IGNORE
from vosformer.train.recipe import Loss


class Values(NamedTuple):
    """Loss values [B]: their weighted sum and the parts of it (unweighted; zero where a part is not used)."""

    total: Tensor
    ce: Tensor
    jaccard: Tensor
    dice: Tensor


class _Scores(NamedTuple):
    """What all losses share: log_p [B,C,P], p [B,C,P], labels [B,P] with 0 where there is no truth, valid [B,P], used [B,C]."""

    log_p: Tensor
    p: Tensor
    labels: Tensor
    valid: Tensor
    used: Tensor


def top_share(loss: Loss, step: int) -> float:
    """Share of pixels that the bootstrapped cross-entropy keeps at `step`: 1 at first, then linearly down to `loss.top_share`."""
    if loss.top_until <= loss.top_from:
        return loss.top_share if step >= loss.top_until else 1.0
    done = min(1.0, max(0.0, (step - loss.top_from) / (loss.top_until - loss.top_from)))
    return 1.0 - done * (1.0 - loss.top_share)


def auxiliary_weight(loss: Loss, step: int) -> float:
    """Weight of the reference frame's loss at `step`: linearly down to 0 at `loss.auxiliary_until` (AOT)."""
    if loss.auxiliary_until <= 0:
        return 0.0
    return loss.auxiliary * max(0.0, 1.0 - step / loss.auxiliary_until)


def depth_weights(alpha: float, depths: int) -> list[float]:
    """Weights of AOST's scalable supervision, alpha^n over their sum (AOST Eq. 11); infinity keeps only the deepest."""
    if alpha == float("inf"):
        return [0.0] * (depths - 1) + [1.0]
    weights = [alpha**depth for depth in range(depths)]
    return [weight / sum(weights) for weight in weights]


def bootstrapped_ce(logits: Tensor, labels: Tensor, counts: Tensor, share: float) -> Tensor:
    """Cross-entropy [B], the mean over the `share` of valid pixels with the highest loss (at least one pixel)."""
    return _bootstrapped_ce(_scores(logits, labels, counts), share)


def soft_jaccard(logits: Tensor, labels: Tensor, counts: Tensor) -> Tensor:
    """Soft Jaccard loss [B]: 1 - I / (I + FP + FN), the mean over the classes in the truth, background included."""
    return _soft_jaccard(_scores(logits, labels, counts))


def dice(logits: Tensor, labels: Tensor, counts: Tensor, slots: int | None = None) -> Tensor:
    """Dice loss [B] of the objects with smoothing 1: 1 - (2I + 1) / (sum p + sum y + 1), the mean over `slots` objects.

    JointFormer averages over 3 slots, empty ones included (their loss is 0). Without `slots`: over the sample's own objects.
    """
    return _dice(_scores(logits, labels, counts), counts, slots)


def segmentation_loss(
    logits: Tensor, labels: Tensor, counts: Tensor, loss: Loss, share: float, dice_slots: int | None = None
) -> Values:
    """Return the recipe's weighted sum for each sample, in float32 under autocast, too; `share` comes from `top_share`."""
    # Autocast would count the pixels of an intersection in 16 bits: up to 65,504 in float16, in steps of 1,024 in bfloat16.
    with torch.autocast(logits.device.type, enabled=False):
        scores = _scores(logits, labels, counts)
        zero = scores.log_p.new_zeros(scores.log_p.shape[0])
        ce = _bootstrapped_ce(scores, share) if loss.ce else zero
        jaccard = _soft_jaccard(scores) if loss.jaccard else zero
        overlap = _dice(scores, counts, dice_slots) if loss.dice else zero
    return Values(loss.ce * ce + loss.jaccard * jaccard + loss.dice * overlap, ce, jaccard, overlap)


def _scores(logits: Tensor, labels: Tensor, counts: Tensor) -> _Scores:
    channels = logits.shape[1]
    used = torch.arange(channels, device=logits.device) <= counts.to(logits.device)[:, None]
    log_p = F.log_softmax(logits.masked_fill(~used[..., None, None], -1e10).flatten(2), 1)
    flat = labels.flatten(1).long()
    valid = flat != IGNORE
    return _Scores(log_p, log_p.exp(), flat * valid, valid, used)


def _bootstrapped_ce(scores: _Scores, share: float) -> Tensor:
    # A label that a sample does not have would pick a masked channel: the data must not hold one.
    pixels = -scores.log_p.gather(1, scores.labels[:, None])[:, 0] * scores.valid
    number = scores.valid.sum(1)
    if share >= 1:
        return pixels.sum(1) / number.clamp(min=1)
    # How many a sample keeps stays on the device: asking for it would make a GPU wait, frame by frame.
    highest = pixels.topk(max(1, int(share * pixels.shape[1]))).values
    keep = (share * number.to(pixels.dtype)).long().clamp(1, highest.shape[1])
    kept = torch.arange(highest.shape[1], device=keep.device) < keep[:, None]
    return (highest * kept).sum(1) / keep


def _overlap(scores: _Scores) -> tuple[Tensor, Tensor, Tensor]:
    """Soft intersections, sums of probabilities and numbers of pixels [B,C], over valid pixels."""
    channels = scores.p.shape[1]
    # Invalid pixels go to a class of their own.
    label = torch.where(scores.valid, scores.labels, channels)
    truth = F.one_hot(label, channels + 1)[..., :channels].transpose(1, 2).to(scores.p.dtype)
    return torch.einsum("bcp,bcp->bc", scores.p, truth), (scores.p * scores.valid[:, None]).sum(2), truth.sum(2)


def _soft_jaccard(scores: _Scores) -> Tensor:
    shared, predicted, true = _overlap(scores)
    present = true > 0
    values = 1 - shared / (predicted + true - shared + 1e-6)
    return (values * present).sum(1) / present.sum(1).clamp(min=1)


def _dice(scores: _Scores, counts: Tensor, slots: int | None) -> Tensor:
    shared, predicted, true = (part[:, 1:] for part in _overlap(scores))
    values = (1 - (2 * shared + 1) / (predicted + true + 1)) * scores.used[:, 1:]
    number = counts.to(values) if slots is None else torch.full_like(values[:, 0], slots)
    return values.sum(1) / number.clamp(min=1)
