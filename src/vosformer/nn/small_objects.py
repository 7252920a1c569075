"""Making very small objects of a first frame visible to a mask embedding of stride 16, as the released OneVOS does."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_SMALL = 64  # pixels: a square of 8 x 8
_KERNEL = 9


def dilate_small(labels: Tensor) -> Tensor:
    """Grow every object of less than 64 pixels by a box.

    The box has 9 pixels along the object's shorter side and 9 + 2 int((long - short) / short) along the longer one (a side is
    max - min, at least 1). Grown objects win over others; among themselves the lowest id wins.

    Args:
        labels: integers [H,W], 0 = background.

    Returns:
        Labels of the same shape and dtype.
    """
    ids: list[int] = torch.unique(labels[labels != 0]).tolist()
    out = labels
    for i in sorted(ids, reverse=True):
        mask = labels == i
        if int(mask.sum()) >= _SMALL:
            continue
        rows, columns = torch.nonzero(mask, as_tuple=True)
        tall, wide = (max(int(at.max() - at.min()), 1) for at in (rows, columns))
        longer = _KERNEL + 2 * int((max(tall, wide) - min(tall, wide)) / min(tall, wide))
        kernel = (longer, _KERNEL) if tall > wide else (_KERNEL, longer)
        grown = F.max_pool2d(mask[None, None].float(), kernel, 1, (kernel[0] // 2, kernel[1] // 2))[0, 0] > 0
        out = torch.where(grown, labels.new_tensor(i), out)
    return out
