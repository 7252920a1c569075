"""What the program says about a frame: labels, probabilities and a presence score, at the source's size.

The network's answer is kept at its own small size; whatever is wanted at source size is computed from it in strips of rows, so that a
4K frame with many objects needs no more memory than its label map.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from vosformer.errors import InputError
from vosformer.geometry import Placement, crop

_STRIP_VALUES = 1 << 21  # values of a strip: 8 MB in float32, about the cache of one core; a GPU takes 32 times as many
_PRESENCE_CELLS = 16  # cells at stride 4 that the presence score looks at: an object of 16 x 16 network pixels fills them


@dataclass(frozen=True)
class Answer:
    """One view's answer at the network's scale, and how it becomes probabilities.

    Attributes:
        maps: tensors [1,C,h,w] that are resampled to source size together.
        finish: turns the resampled maps into merged logits [1,1+n,...] (a softmax away from probabilities), background first.
        ids: the n ids in channel order; None = a free place that competes (counts as background).
        placement: where the source lies in the network's input.
        align_corners: how `maps` are resampled.
        scores: id -> presence in [0,1].
    """

    maps: tuple[Tensor, ...]
    finish: Callable[[Sequence[Tensor]], Tensor]
    ids: tuple[int | None, ...]
    placement: Placement
    align_corners: bool
    scores: dict[int, float]

    def strips(self) -> Iterator[tuple[slice, Tensor]]:
        """Rows of the source and their merged logits [1+n,rows,width], from the top."""
        height, width = self.placement.source
        channels = sum(m.shape[1] for m in self.maps)
        limit = _STRIP_VALUES if self.maps[0].device.type == "cpu" else 32 * _STRIP_VALUES
        rows = max(1, limit // (channels * width))
        for top in range(0, height, rows):
            part = slice(top, min(top + rows, height))
            yield part, self.finish([_resample(m, self.placement.source, part, self.align_corners) for m in self.maps])[0]


def _resample(values: Tensor, source: tuple[int, int], rows: slice, align_corners: bool) -> Tensor:
    """Rows of `F.interpolate(values, source, mode="bilinear")`: first down the columns, then along the rows."""
    height = values.shape[-2]
    if height != source[0]:
        places = torch.arange(rows.start, rows.stop, device=values.device, dtype=torch.float32)
        if align_corners:
            at = places * ((height - 1) / max(source[0] - 1, 1))
        else:
            at = ((places + 0.5) * (height / source[0]) - 0.5).clamp_(min=0)
        low = at.long().clamp_(max=height - 1)
        weight = (at - low).view(-1, 1)
        above, below = values[..., low, :], values[..., (low + 1).clamp_(max=height - 1), :]
        values = torch.lerp(above, below, weight.expand_as(above))
    else:
        values = values[..., rows, :]
    if values.shape[-1] == source[1]:
        return values
    return F.interpolate(values, (values.shape[-2], source[1]), mode="bilinear", align_corners=align_corners)


def hard_answer(
    slots: Sequence[Tensor], ids: Sequence[int | None], merge: Callable[[Sequence[Tensor]], Tensor], placement: Placement,
    align_corners: bool,
) -> Answer:  # fmt: skip
    """The answer of a system that resamples logits [1,1+k,h,w] of each slot to source size and merges there (AOT, OneVOS)."""
    maps = tuple(logits.float() for logits in slots)
    return Answer(maps, merge, tuple(ids), placement, align_corners, presence(merge(maps), ids))


def soft_answer(probabilities: Tensor, ids: Sequence[int | None], placement: Placement, scores: dict[int, float]) -> Answer:
    """The answer of a system that resamples merged probabilities [1,1+n,H,W] from the network's size (SimVOS, JointFormer)."""
    inner = crop(probabilities, placement) if placement.pads else probabilities
    return Answer((inner,), _logarithm, tuple(ids), placement, False, scores)


def _logarithm(maps: Sequence[Tensor]) -> Tensor:
    return maps[0].clamp(1e-12, 1).log()


def presence(logits: Tensor, ids: Sequence[int | None]) -> dict[int, float]:
    """Per id the mean of its largest probabilities; see `Prediction.score`."""
    chances = logits.softmax(1)[0, 1:].flatten(1)
    cells = min(_PRESENCE_CELLS, chances.shape[1])
    means = chances.topk(cells, 1).values.mean(1).tolist()
    return {i: score for i, score in zip(ids, means, strict=True) if i is not None}


@dataclass(frozen=True)
class Prediction:
    """The masks of one frame.

    Attributes:
        labels: int32 [height,width]: the id of the object at each pixel, 0 = background.
        ids: the ids that are being tracked, whether visible or not, ascending.
        given: ids whose mask on this frame came from the user.
    """

    labels: NDArray[np.int32]
    ids: tuple[int, ...]
    given: frozenset[int] = frozenset()
    _answers: tuple[Answer, ...] = field(default=(), repr=False)

    def score(self, i: int) -> float:
        """How surely the object is in the frame, in [0,1].

        The mean of its 16 largest probabilities on the grid of stride 4 (before resampling to the source's size), so that a fragment
        of an object of about 16 x 16 network pixels gives a full score, and 16 cells that all doubt give a low one. With several
        views (scales, flip) the mean over them. A mask that the user gave scores 1 if it has any pixel and else 0.

        Raises:
            InputError: no object of that id is being tracked.
        """
        self._check(i)
        if i in self.given:
            return float(bool((self.labels == i).any()))
        return sum(answer.scores[i] for answer in self._answers) / len(self._answers)

    def probability(self, i: int) -> NDArray[np.float32]:
        """float32 [height,width] in [0,1]: the probability that a pixel belongs to the object (1 and 0 for a given mask).

        Raises:
            InputError: no object of that id is being tracked.
        """
        self._check(i)
        if i in self.given:
            return np.asarray(self.labels == i, np.float32)
        total: NDArray[np.float32] = np.zeros(self.labels.shape, np.float32)
        for answer in self._answers:
            channel = 1 + answer.ids.index(i)
            for rows, logits in answer.strips():
                total[rows] += logits.softmax(0)[channel].cpu().numpy()
        return total / np.float32(len(self._answers))

    def _check(self, i: int) -> None:
        if i not in self.ids:
            raise InputError(f"there is no object with id {i}; tracked are {list(self.ids)}")


def labels_of(answers: Sequence[Answer]) -> Tensor:
    """int32 [height,width] on the CPU: the most probable id of each pixel, over the mean probability of all views."""
    height, width = answers[0].placement.source
    labels = torch.zeros(height, width, dtype=torch.int32, device="cpu")
    if len(answers) == 1:
        for rows, logits in answers[0].strips():
            labels[rows] = _winners(logits, answers[0].ids)
        return labels
    # Channel orders may differ between views only if their ids do, and they never do: every view holds the same objects.
    for parts in zip(*(answer.strips() for answer in answers), strict=True):
        mean = torch.stack([logits.softmax(0) for _, logits in parts]).mean(0)
        labels[parts[0][0]] = _winners(mean, answers[0].ids)
    return labels


def _winners(values: Tensor, ids: Sequence[int | None]) -> Tensor:
    """The id of the largest channel of [1+n,rows,width]; running comparisons are ten times faster here than an argmax."""
    best = values[0]
    winner = torch.zeros(best.shape, dtype=torch.int32, device=best.device)
    for i, channel in zip(ids, values[1:], strict=True):
        winner.masked_fill_(channel > best, i or 0)
        best = torch.maximum(best, channel)
    return winner.cpu()
