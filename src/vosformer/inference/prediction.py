"""What the program says about a frame: labels, probabilities and a presence score, at the source's size.

The network's answer is kept at its own small size; values at source size are computed from it in strips of rows, so that a
4K frame with many objects needs no more memory than its label map.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from vosformer.errors import InputError
from vosformer.geometry import Placement, crop
from vosformer.io.records import rle_counts
from vosformer.protocol import Presence

_STRIP_VALUES = 1 << 21  # values of a strip: 8 MB in float32, about the cache of one core; a GPU takes 32 times as many
_GIVEN_MARGIN = 10.0  # of masks that the user gave; SAM 2 gives these 10 and -10, too
_TINY = 1e-6
_PRESENCE_CELLS = 16  # cells at stride 4 that the presence score looks at: an object of 16 x 16 network pixels fills them


@dataclass(frozen=True)
class Answer:
    """One view's answer at the network's scale, and how it becomes probabilities.

    Attributes:
        maps: tensors [1,C,h,w] that are resampled to source size together.
        finish: turns the resampled maps into merged logits [1,1+n,...] (a softmax away from probabilities), background first.
        ids: the n ids in channel order; None = a free channel that competes (counts as background).
        placement: where the source lies in the network's input.
        align_corners: how `maps` are resampled.
        largest: [n] the mean of each channel's largest probabilities; on the device: who asks for a score waits, and nobody else.
        calibration: what chance of presence belongs to such a mean.
    """

    maps: tuple[Tensor, ...]
    finish: Callable[[Sequence[Tensor]], Tensor]
    ids: tuple[int | None, ...]
    placement: Placement
    align_corners: bool
    largest: Tensor
    calibration: Presence

    @cached_property
    def scores(self) -> dict[int, float]:
        """Id -> presence in [0,1]; see `Prediction.score`."""
        means = zip(self.ids, self.largest.tolist(), strict=True)
        return {i: self.calibration.chance(mean) for i, mean in means if i is not None}

    def strips(self) -> Iterator[tuple[slice, Tensor]]:
        """Yield rows of the source and their merged logits [1+n,rows,width], from the top."""
        height, width = self.placement.source
        channels = sum(m.shape[1] for m in self.maps)
        limit = _STRIP_VALUES if self.maps[0].device.type == "cpu" else 32 * _STRIP_VALUES
        rows = max(1, limit // (channels * width))
        for top in range(0, height, rows):
            part = slice(top, min(top + rows, height))
            yield part, self.logits(part)

    def logits(self, rows: slice) -> Tensor:
        """Return the merged logits [1+n,rows,width] of some rows of the source."""
        return self.finish([_resample(m, self.placement.source, rows, self.align_corners) for m in self.maps])[0]

    def seen(self) -> set[int]:
        """Return the ids that are the most probable one somewhere, on the grid of the maps."""
        best = np.unique(self.finish(self.maps)[0].argmax(0).cpu().numpy()).tolist()
        return {i for channel in best if channel and (i := self.ids[channel - 1]) is not None}


class CloserAnswer(NamedTuple):
    """The answer of a window of the frame that was looked at more closely.

    Attributes:
        top: first row of the window in the source.
        left: first column.
        homes: the objects that it speaks for -> the rows and columns of the window where each may be: around where it was.
        answer: for the window; its source is the window.
    """

    top: int
    left: int
    homes: Mapping[int, tuple[slice, slice]]
    answer: Answer

    def claims(self, rows: slice, others: Mapping[int, Tensor]) -> Iterator[tuple[int, tuple[slice, slice], Tensor]]:
        """Yield what the window says of its homes on some rows of the source; nothing if it does not meet them.

        A window hardly knows what comes in over its border, and takes it for its homes. So, but where a home may be, it does not
        claim what the whole frame knows as another object.

        Args:
            rows: of the source.
            others: the objects that no window speaks for -> their probabilities [rows,width], as seen in the whole frame.

        Yields:
            a home, where the window lies in these rows, and the home's probability there.
        """
        height, width = self.answer.placement.source
        first, end = max(rows.start, self.top), min(rows.stop, self.top + height)
        if first >= end:
            return
        skipped = first - self.top
        place = slice(first - rows.start, end - rows.start), slice(self.left, self.left + width)
        near = self.answer.logits(slice(skipped, end - self.top)).softmax(0)
        free = 1 - sum((probability[place] for probability in others.values()), torch.zeros_like(near[0]))
        for i, (around, columns) in self.homes.items():
            own = near[1 + self.answer.ids.index(i)]
            may_be = slice(max(around.start - skipped, 0), max(around.stop - skipped, 0)), columns
            claim = own * free
            claim[may_be] = own[may_be]
            yield i, place, claim


def _resample(values: Tensor, source: tuple[int, int], rows: slice, align_corners: bool) -> Tensor:
    """Return rows of `F.interpolate(values, source, mode="bilinear")`: first down the columns, then along the rows."""
    height = values.shape[-2]
    if height != source[0]:
        centers = torch.arange(rows.start, rows.stop, device=values.device, dtype=torch.float32)
        if align_corners:
            at = centers * ((height - 1) / max(source[0] - 1, 1))
        else:
            at = ((centers + 0.5) * (height / source[0]) - 0.5).clamp_(min=0)
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
    align_corners: bool, calibration: Presence,
) -> Answer:  # fmt: skip
    """Return the answer of a system that resamples logits [1,1+k,h,w] of each slot to source size and merges there (AOT,
    OneVOS).
    """
    maps = tuple(logits.float() for logits in slots)
    return Answer(maps, merge, tuple(ids), placement, align_corners, largest(merge(maps)), calibration)


def soft_answer(
    probabilities: Tensor, ids: Sequence[int | None], placement: Placement, logits: Tensor, calibration: Presence
) -> Answer:
    """Return the answer of a system that resamples merged probabilities [1,1+n,H,W] from the network's size (SimVOS,
    JointFormer); `logits` are the merged ones [1,1+n,h,w] before they were resampled.
    """
    inner = crop(probabilities, placement) if placement.pads else probabilities
    return Answer((inner,), _logarithm, tuple(ids), placement, False, largest(logits), calibration)


def _logarithm(maps: Sequence[Tensor]) -> Tensor:
    return maps[0].clamp(1e-12, 1).log()


def largest(logits: Tensor) -> Tensor:
    """Return the mean of the largest probabilities of each channel but the background: [1,1+n,h,w] -> [n]."""
    probabilities = logits.softmax(1)[0, 1:].flatten(1)
    cells = min(_PRESENCE_CELLS, probabilities.shape[1])
    return probabilities.topk(cells, 1).values.mean(1)


@dataclass(frozen=True)
class Prediction:
    """The masks of one frame.

    Attributes:
        labels: int32 [height,width]: the id of the object at each pixel, 0 = background.
        ids: the ids that are being tracked, whether visible or not, ascending.
        given: ids whose mask on this frame came from the user.
        islands: int32 [height,width], whose parts were left out of `labels` where, since they lay apart from the object
            (`vosformer.inference.islands`), 0 elsewhere; None if none were. They have no probability either.
    """

    labels: NDArray[np.int32]
    ids: tuple[int, ...]
    given: frozenset[int] = frozenset()
    _answers: tuple[Answer, ...] = field(default=(), repr=False)
    _closer: tuple[CloserAnswer, ...] = field(default=(), repr=False)
    islands: NDArray[np.int32] | None = field(default=None, repr=False)

    def score(self, i: int) -> float:
        """Return how surely the object is in the frame, in [0,1].

        The mean of its 16 largest probabilities on the grid of stride 4 (before resampling to the source's size), so that a fragment
        of an object of about 16 x 16 network pixels gives a full score, and 16 cells that all doubt give a low one; of weights that
        were calibrated (`VOSModel.presence`), the chance that belongs to this mean, so that 0.5 means even odds. With several
        views (scales, flip) the mean over them; of a small object that was looked at more closely, what was seen there. A mask that
        the user gave scores 1 if it has any pixel and else 0.

        Raises:
            InputError: no object of that id is being tracked.
        """
        self._check(i)
        if i in self.given:
            return float(bool((self.labels == i).any()))
        for closer in self._closer:
            if i in closer.homes:
                return closer.answer.scores[i]
        return sum(answer.scores[i] for answer in self._answers) / len(self._answers)

    def probability(self, i: int) -> NDArray[np.float32]:
        """float32 [height,width] in [0,1]: the probability that a pixel belongs to the object (1 and 0 for a given mask).

        Raises:
            InputError: no object of that id is being tracked.
        """
        self._check(i)
        if i in self.given:
            return np.asarray(self.labels == i, np.float32)
        found: NDArray[np.float32] = np.zeros(self.labels.shape, np.float32)
        for rows, probabilities in _probabilities(self._answers, self._closer):
            found[rows] = probabilities[1 + self._answers[0].ids.index(i)].cpu().numpy()
        if self.islands is not None:
            found[self.islands == i] = 0
        return found

    def margins(self) -> NDArray[np.float32]:
        """Compute how far each object is ahead of its strongest competitor, in log-probability.

        Returns:
            float32 [n,height,width], objects in the order of `ids`: log p of the object minus the largest log p of the background and
            all other objects, within +-20. Above 0 exactly where `labels` is the object's id; +-10 for masks that the user gave.
        """
        margins = np.full((len(self.ids), *self.labels.shape), -_GIVEN_MARGIN, np.float32)
        for rows, probabilities in self._own_probabilities():
            for n in range(len(self.ids)):
                others = probabilities[[c for c in range(len(probabilities)) if c != n + 1]]
                margins[n, rows] = (probabilities[n + 1].log() - others.amax(0).log()).clamp(-20, 20).cpu().numpy()
        for n, i in enumerate(self.ids):
            own = self.labels == i
            if i in self.given:
                margins[n] = np.where(own, _GIVEN_MARGIN, -_GIVEN_MARGIN)
            # The user's masks win over what is more probable, and so does the first of two that are equally probable.
            margins[n] = np.where(own, np.maximum(margins[n], _TINY), np.minimum(margins[n], 0))
        return margins

    def boxes(self) -> dict[int, tuple[int, int, int, int]]:
        """Find the box of every object that has a pixel: id -> (left, top, right, bottom), right and bottom just outside."""
        found = {}
        for i in self.ids:
            rows, columns = np.nonzero(self.labels == i)
            if len(rows):
                found[i] = (int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1)
        return found

    def to_supervision(self) -> Any:
        """Convert to `supervision.Detections`: boxes, masks, scores as confidence and ids as tracker ids of the objects with a pixel.

        Raises:
            InputError: the package supervision is not installed.
        """
        try:
            import supervision
        except ImportError:
            raise InputError("to_supervision() needs the package supervision: pip install supervision") from None
        boxes = self.boxes()
        return supervision.Detections(
            xyxy=np.array(list(boxes.values()), np.float32).reshape(-1, 4),
            mask=np.array([self.labels == i for i in boxes], bool).reshape(-1, *self.labels.shape),
            confidence=np.array([self.score(i) for i in boxes], np.float32),
            class_id=np.zeros(len(boxes), int),
            tracker_id=np.array(list(boxes), int),
        )

    def to_coco(self, image_id: int, category_id: int = 1) -> list[dict[str, Any]]:
        """Convert to COCO annotations, one an object that has a pixel.

        Returns:
            dictionaries with `image_id`, `category_id`, `track_id` (the object's id), `segmentation` (compressed RLE, counts as
            text), `area`, `bbox` (x, y, width, height), `iscrowd` and `score`; a file of several frames wants an `id` in each, too.
        """
        found = []
        for i, (left, top, right, bottom) in self.boxes().items():
            mask = self.labels == i
            found.append(
                {
                    "image_id": image_id,
                    "category_id": category_id,
                    "track_id": i,
                    "segmentation": {"size": list(mask.shape), "counts": rle_counts(mask)},
                    "area": int(mask.sum()),
                    "bbox": [left, top, right - left, bottom - top],
                    "iscrowd": 0,
                    "score": self.score(i),
                }
            )
        return found

    def _own_probabilities(self) -> Iterator[tuple[slice, Tensor]]:
        """Rows, and the probabilities [1+n,rows,width] there: background (with the free channels), then the objects as in `ids`."""
        for rows, probabilities in _probabilities(self._answers, self._closer):
            known = self._answers[0].ids
            free = [0, *(1 + c for c, i in enumerate(known) if i is None)]
            own = [probabilities[1 + known.index(i)] if i in known else torch.zeros_like(probabilities[0]) for i in self.ids]
            yield rows, torch.stack([probabilities[free].amax(0), *own])

    def _check(self, i: int) -> None:
        if i not in self.ids:
            raise InputError(f"there is no object with id {i}; tracked are {list(self.ids)}")


def labels_of(answers: Sequence[Answer], closer: Sequence[CloserAnswer] = ()) -> Tensor:
    """Return the most probable id of each pixel, over the mean probability of all views: int32 [height,width], on their device."""
    height, width = answers[0].placement.source
    labels = torch.zeros(height, width, dtype=torch.int32, device=answers[0].largest.device)
    lone = len(answers) == 1 and not closer
    for rows, values in answers[0].strips() if lone else _probabilities(answers, closer):
        labels[rows] = _winners(values, answers[0].ids)
    return labels


def _probabilities(answers: Sequence[Answer], closer: Sequence[CloserAnswer]) -> Iterator[tuple[slice, Tensor]]:
    """Yield rows and the probabilities [1+n,rows,width] there, in the order of the first answer's ids."""
    # Channel orders may differ between views only if their ids do, and they never do: every view holds the same objects.
    for parts in zip(*(answer.strips() for answer in answers), strict=True):
        mean = torch.stack([logits.softmax(0) for _, logits in parts]).mean(0)
        yield parts[0][0], _refined(mean, parts[0][0], answers[0].ids, closer) if closer else mean


def _refined(probabilities: Tensor, rows: slice, ids: Sequence[int | None], closer: Sequence[CloserAnswer]) -> Tensor:
    """Put what the windows claim for the objects that they speak for in place of what was seen in the whole frame.

    Outside its window such an object is not. All others, and the background, share what is left as they did before.
    """
    spoken = {i: torch.zeros_like(probabilities[0]) for window in closer for i in window.homes}
    others = {i: channel for i, channel in zip(ids, probabilities[1:], strict=True) if i is not None and i not in spoken}
    for window in closer:
        for i, place, claim in window.claims(rows, others):
            spoken[i][place] = claim
    near = torch.stack(tuple(spoken.values()))
    near = near / near.sum(0).clamp(min=1)  # windows know nothing of each other, and may overlap
    channels = [1 + ids.index(i) for i in spoken]
    refined = probabilities.clone()
    for channel in channels:  # one by one: a list would become a tensor, and a GPU waits before it takes that over
        refined[channel] = 0
    left = 1 - near.sum(0)
    refined *= left / refined.sum(0).clamp(min=_TINY)
    refined[0] += (left - refined.sum(0)).clamp(min=0)
    for channel, spoken_for in zip(channels, near, strict=True):
        refined[channel] = spoken_for
    return refined


def _winners(values: Tensor, ids: Sequence[int | None]) -> Tensor:
    """Return the id of the largest channel of [1+n,rows,width]; running comparisons are ten times faster here than an
    argmax.
    """
    best = values[0]
    winner = torch.zeros(best.shape, dtype=torch.int32, device=best.device)
    for i, channel in zip(ids, values[1:], strict=True):
        winner.masked_fill_(channel > best, i or 0)
        best = torch.maximum(best, channel)
    return winner
