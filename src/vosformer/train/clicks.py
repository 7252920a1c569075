"""Training the click network: prompts are simulated, and the next click lies where the network is most wrong (RITM, Sec. 3.2)."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from vosformer.data.types import IGNORE
from vosformer.prompts.maps import Box, prompt_maps
from vosformer.prompts.network import ClickNetwork, Picture, Segmented
from vosformer.prompts.simulate import next_click
from vosformer.train.batch import Batch, generator
from vosformer.train.recipe import Clicks, Recipe
from vosformer.train.rollout import Rolled

Mask = NDArray[np.bool_]


class Sample(NamedTuple):
    """What a simulated user wants and has said so far.

    Attributes:
        truth: bool [H,W].
        valid: bool [H,W], False where the truth is not known.
        marks: int8 [H,W], see `prompt_maps`.
        box: around the object, or None.
        previous: float32 [H,W], the mask so far, or None.
    """

    truth: Mask
    valid: Mask
    marks: NDArray[np.int8]
    box: Box | None
    previous: NDArray[np.float32] | None

    def maps(self) -> NDArray[np.float32]:
        """Return the prompt as the network takes it."""
        return prompt_maps(self.marks, self.box, self.previous)

    def clicked(self, rng: np.random.Generator, found: Mask, exact: float) -> Sample:
        """With one click more, in the worst error of `found`; exactly in its middle with probability `exact`."""
        click = next_click(self.truth, found, self.valid, None if rng.random() < exact else rng, self.marks != 0)
        if click is None:
            return self
        marks = self.marks.copy()
        marks[click.y, click.x] = 1 if click.positive else -1
        return self._replace(marks=marks)


class ClickTraining(nn.Module):
    """The click network together with how it is trained; `forward` is what distributed engines wrap.

    Args:
        model: the network.
        recipe: its `clicks` part says how prompts are simulated.
    """

    TERMS = ("loss", "focal", "jaccard", "iou", "iou_error")

    def __init__(self, model: ClickNetwork, recipe: Recipe) -> None:
        super().__init__()
        self.model, self._settings, self._seed = model, recipe.clicks, recipe.run.seed

    def forward(self, batch: Batch, step: int, predict: bool = False) -> Rolled:
        """Train on one batch of single objects.

        Args:
            batch: clips of one frame; label 1 is the object.
            step: decides how many clicks the network answers before the one that it learns from.
            predict: return the predicted labels.
        """
        settings = self._settings
        device = batch.images.device
        randoms = [generator(self._seed, 6, int(index)) for index in batch.indices]
        samples = [
            first_prompt(rng, labels.cpu().numpy(), settings) for rng, labels in zip(randoms, batch.labels[:, 0], strict=True)
        ]
        picture = self.model.look(batch.images[:, 0])
        size = batch.images.shape[-2:]
        rounds = int(generator(self._seed, 7, step).choice(len(settings.rounds), p=settings.rounds))
        for _ in range(rounds):
            with torch.no_grad():
                found = self._predict(picture, samples, size, device).logits.sigmoid().cpu().numpy()
            samples = [
                sample._replace(previous=mask).clicked(rng, mask > 0.5, settings.exact)
                for rng, sample, mask in zip(randoms, samples, found, strict=True)
            ]
        logits, expected = self._predict(picture, samples, size, device)
        labels = batch.labels[:, 0]
        focal = normalized_focal(logits, labels, settings.focal_gamma)
        jaccard = soft_jaccard(logits, labels)
        with torch.no_grad():
            iou = 1 - soft_jaccard(torch.where(logits > 0, 50.0, -50.0), labels)
        error = torch.zeros_like(iou) if expected is None else (expected - iou).square()
        loss = (settings.focal * focal + settings.jaccard * jaccard + settings.iou * error).mean()
        with torch.no_grad():
            terms = torch.stack([loss, focal.mean(), jaccard.mean(), iou.mean(), error.mean()])
            predicted = (logits > 0).to(torch.uint8)[:, None] if predict else None
        return Rolled(loss, terms, predicted)

    def _predict(self, picture: Picture, samples: list[Sample], size: torch.Size, device: torch.device) -> Segmented:
        """Return logits [B,H,W] and the IoU that the network expects of them."""
        maps = torch.from_numpy(np.stack([sample.maps() for sample in samples])).to(device)
        logits, iou = self.model(picture, maps)
        logits = F.interpolate(logits, size, mode="bilinear", align_corners=False)[:, 0].float()
        return Segmented(logits, None if iou is None else iou.float())


def first_prompt(rng: np.random.Generator, labels: NDArray[np.uint8], settings: Clicks) -> Sample:
    """Return what a user says first: a click, a box, scribbles, several clicks at once, or clicks on the errors of a mask
    that exists.
    """
    truth, valid = labels == 1, labels != IGNORE
    empty = Sample(truth, valid, np.zeros(labels.shape, np.int8), None, None)
    if not truth.any():
        return empty
    nothing = np.zeros_like(truth)
    kinds = ("click", "box", "mask", "many", "scribble")
    kind = kinds[int(rng.choice(len(kinds), p=settings.prompts))]
    if kind == "box":
        sample = empty._replace(box=_loose_box(rng, truth))
        return sample.clicked(rng, nothing, settings.exact) if rng.random() < 0.3 else sample
    if kind == "mask":
        wrong = damaged(rng, truth)
        sample = empty._replace(previous=wrong.astype(np.float32))
        for _ in range(int(rng.integers(1, 4))):
            # The same error may be clicked several times, at other places.
            sample = sample.clicked(rng, wrong, settings.exact)
        return sample
    if kind == "many":
        return empty._replace(marks=_scattered(rng, truth, valid))
    if kind == "scribble":
        return empty._replace(marks=_scribbled(rng, truth, valid))
    return empty.clicked(rng, nothing, settings.exact)


def damaged(rng: np.random.Generator, truth: Mask) -> Mask:
    """Return a mask as tracking may leave it: parts lost, neighbors taken in, the edge off, moved, or the object's outline
    lost.
    """
    height, width = truth.shape
    mask = truth.copy()
    rows, columns = np.nonzero(truth)
    size = max(4.0, float(np.sqrt(len(rows))))
    for _ in range(int(rng.integers(1, 4))):
        kind = int(rng.integers(4))
        blob = np.zeros((height, width), np.uint8)
        at = int(rng.integers(len(rows)))
        center = (int(columns[at] + rng.normal(0, 0.2) * size), int(rows[at] + rng.normal(0, 0.2) * size))
        axes = (max(1, int(size * rng.uniform(0.1, 0.5))), max(1, int(size * rng.uniform(0.1, 0.5))))
        cv2.ellipse(blob, center, axes, float(rng.uniform(0, 180)), 0, 360, 1, -1)
        if kind == 0:
            mask &= blob == 0
        elif kind == 1:
            mask |= blob > 0
        elif kind == 2:
            side = 2 * int(rng.integers(1, max(2, int(size * 0.12) + 1))) + 1
            kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
            change = cv2.erode if rng.random() < 0.5 else cv2.dilate
            mask = change(mask.astype(np.uint8), kernel) > 0
        else:
            shift = np.array([[1, 0, rng.normal(0, 0.06) * size], [0, 1, rng.normal(0, 0.06) * size]], np.float32)
            mask = cv2.warpAffine(mask.astype(np.uint8), shift, (width, height)) > 0
    return np.asarray(mask, bool)


def normalized_focal(logits: Tensor, labels: Tensor, gamma: float) -> Tensor:
    """Return the normalized focal loss [B] (RITM, Eq. 3): a sample's focal weights have a mean of 1 over its pixels.

    Args:
        logits: float32 [B,H,W].
        labels: [B,H,W]: 1 = object, 0 = not, 255 = not known.
        gamma: of the focal weights (1 - p)^gamma.
    """
    valid = (labels != IGNORE).float()
    truth = (labels == 1).float()
    error = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    with torch.no_grad():
        weight = (1 - torch.exp(-error)).pow(gamma) * valid
        weight = weight * (valid.sum((1, 2)) / weight.sum((1, 2)).clamp_min(1e-6))[:, None, None]
    # Samples that are almost right must not be pulled at as hard as those that are wrong: the scale is bounded.
    weight = weight.clamp_max(20.0)
    return (weight * error).sum((1, 2)) / valid.sum((1, 2)).clamp_min(1)


def soft_jaccard(logits: Tensor, labels: Tensor) -> Tensor:
    """Soft Jaccard loss [B]: 1 - I / U of the object, over the pixels whose truth is known; arguments as in `normalized_focal`."""
    valid = (labels != IGNORE).float()
    p, truth = logits.sigmoid() * valid, (labels == 1).float()
    both = (p * truth).sum((1, 2))
    return 1 - (both + 1e-6) / (p.sum((1, 2)) + truth.sum((1, 2)) - both + 1e-6)


def _loose_box(rng: np.random.Generator, truth: Mask) -> Box:
    """Return a box as a hand draws it: each side off by a few hundredths of the object's size, more often outside than
    inside.
    """
    rows, columns = np.flatnonzero(truth.any(1)), np.flatnonzero(truth.any(0))
    x0, x1, y0, y1 = columns[0], columns[-1] + 1, rows[0], rows[-1] + 1
    dx, dy = (rng.normal(0.02, 0.04, 2) * side for side in (x1 - x0, y1 - y0))
    height, width = truth.shape
    left, top = max(0.0, float(x0 - dx[0])), max(0.0, float(y0 - dy[0]))
    return left, top, min(float(width), float(x1 + dx[1])), min(float(height), float(y1 + dy[1]))


def _scattered(rng: np.random.Generator, truth: Mask, valid: Mask) -> NDArray[np.int8]:
    """One to six clicks on the object, none to five beside it, some of these near it."""
    marks = np.zeros(truth.shape, np.int8)
    near = cv2.dilate(truth.astype(np.uint8), np.ones((41, 41), np.uint8)) > 0
    for value, where, most, least in ((1, truth & valid, 6, 1), (-1, ~truth & valid & near, 4, 0), (-1, ~truth & valid, 2, 0)):
        rows, columns = np.nonzero(where)
        if len(rows):
            at = rng.integers(len(rows), size=int(rng.integers(least, most + 1)))
            marks[rows[at], columns[at]] = value
    return marks


def _scribbled(rng: np.random.Generator, truth: Mask, valid: Mask) -> NDArray[np.int8]:
    """Strokes through the object and beside it, each cut where it would lie on the other."""
    marks = np.zeros(truth.shape, np.int8)
    for value, where in ((1, truth & valid), (-1, ~truth & valid)):
        rows, columns = np.nonzero(where)
        if not len(rows) or (value < 0 and rng.random() < 0.4):
            continue
        for _ in range(int(rng.integers(1, 4))):
            at = rng.integers(len(rows), size=int(rng.integers(2, 5)))
            stroke = np.zeros(truth.shape, np.uint8)
            path = np.stack([columns[at], rows[at]], 1).astype(np.int32)
            cv2.polylines(stroke, [path], False, 1, int(rng.integers(1, 5)))
            marks[(stroke > 0) & where] = value
        if not (marks == value).any():
            marks[rows[at[0]], columns[at[0]]] = value
    return marks
