"""Sequential training: a clip is gone through frame by frame with the `encode`, `read`, `write` and `Memory` of inference.

The first frame's masks are the truth. Of every later frame the memory gets the truth at first, and the model's own masks later in
training. Systems with identities have one slot a sample (G = 1); per-object systems have one for each object (G = the most objects of
a sample of the batch).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vosformer.errors import TrainingError
from vosformer.geometry import MEAN, STD
from vosformer.inference.objects import merge_slots
from vosformer.memory import Memory
from vosformer.protocol import Entry, Features, ObjectMasks, Reading, VOSModel
from vosformer.train.batch import Batch
from vosformer.train.clip_memory import ClipMemory
from vosformer.train.losses import Values, auxiliary_weight, depth_weights, segmentation_loss, top_share
from vosformer.train.recipe import Recipe
from vosformer.train.slots import SlotAssignment


class Rolled(NamedTuple):
    """What comes of a batch.

    Attributes:
        loss: [] to be minimized: the mean over the samples.
        terms: [n] detached means, in the order of the engine's `TERMS`.
        labels: uint8 [B,T,H,W] predicted labels (frame 0: the truth), or None where nothing needed them.
    """

    loss: Tensor
    terms: Tensor
    labels: Tensor | None


class ClipRollout(nn.Module):
    """A model together with how it is trained; `forward` is what distributed engines wrap.

    Args:
        model: what is trained.
        recipe: losses, schedules and memory in training.
    """

    TERMS = ("loss", "ce", "jaccard", "dice", "auxiliary")

    _mean: Tensor
    _std: Tensor

    def __init__(self, model: nn.Module, recipe: Recipe) -> None:
        super().__init__()
        if not isinstance(model, VOSModel):
            raise TrainingError(f"{type(model).__name__} cannot be trained: expected a vosformer.protocol.VOSModel")
        self.model = model
        self.recipe = recipe
        self.register_buffer("_mean", 255 * torch.tensor(MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("_std", 255 * torch.tensor(STD).view(1, 3, 1, 1), persistent=False)

    def forward(self, batch: Batch, step: int, wants_labels: bool = False) -> Rolled:
        """Return the loss of one batch at one step of training."""
        images, labels = batch.images, batch.labels
        samples, frames = images.shape[:2]
        assignment = SlotAssignment(batch, self.model.slot_size, self.recipe)
        features = self._encode(images)
        memory = ClipMemory(self.model, self.recipe, step, batch.indices)
        own = self._own_masks(step)
        values: list[Values] = []
        predicted = [labels[:, 0]]
        auxiliary = self._begin(features.at(slice(0, samples)), labels[:, 0], assignment, memory, step)
        for t in range(1, frames):
            current = features.at(slice(t * samples, (t + 1) * samples))
            held = memory.at(t)
            readings = self._read(current, held)
            outputs = [self._scores(reading.logits, assignment, labels.shape[-2:]) for reading in readings]
            values.append(self._loss(outputs, labels[:, t], batch.counts, step))
            if own or wants_labels:
                predicted.append(argmax(outputs[-1].detach()))
            if t < frames - 1:
                last = outputs[-1]
                masks = self._own_object_masks(last, predicted[-1], assignment) if own else assignment.truth(labels[:, t], t)
                memory.add(self._write(current, masks, readings[-1], held, memory.updates(t)), t)
        return self._sum(values, auxiliary, memory.penalty(), predicted if len(predicted) == frames else None)

    def _own_masks(self, step: int) -> bool:
        begin = self.recipe.rollout.own_masks_from
        return begin is not None and step >= begin

    def _encode(self, images: Tensor) -> Features:
        """Return all frames in one batch, frame by frame: [B,T,3,H,W] uint8 -> features of T * B frames."""
        flat = images.transpose(0, 1).flatten(0, 1)
        flat = (flat.to(self._mean.dtype) - self._mean) / self._std
        if self.recipe.run.channels_last:
            flat = flat.contiguous(memory_format=torch.channels_last)
        return cast(Features, self._call(self.model.encode, flat))

    def _begin(
        self, features: Features, labels: Tensor, assignment: SlotAssignment, memory: ClipMemory, step: int
    ) -> Values | None:
        """Write the first frame; its own decoding gives the auxiliary loss while that counts (AOT)."""
        masks = assignment.truth(labels, 0)
        weight = auxiliary_weight(self.recipe.loss, step)
        decoded = self._call(self.model.reference, features, masks) if weight > 0 else None
        if decoded is not None:
            entry, readings = decoded
            memory.add(entry, 0)
            outputs = [self._scores(reading.logits, assignment, labels.shape[-2:]) for reading in readings]
            return self._loss(outputs, labels, assignment.counts, step)
        memory.add(self._write(features, masks, None, None, True), 0)
        return None

    def _read(self, features: Features, memory: Memory) -> list[Reading]:
        """Return the readings of a frame: one for each depth if the system is trained at several depths (AOST), else one."""
        if self.recipe.run.checkpointing:
            # The backward pass reads again, and the memory has grown by then.
            memory = memory.clone()
        return list(self._call(self.model.read_depths, features, memory))

    def _write(
        self, features: Features, masks: ObjectMasks, reading: Reading | None, memory: Memory | None, update: bool
    ) -> Entry:
        if memory is not None and self.recipe.run.checkpointing:
            memory = memory.clone()
        write = self.model.write if update else self.model.write_keeping_token
        return cast(Entry, self._call(write, features, masks, reading, memory))

    def _call(self, function: Callable[..., Any], *inputs: Any) -> Any:
        if self.recipe.run.checkpointing and torch.is_grad_enabled():
            return checkpoint(function, *inputs, use_reentrant=False)
        return function(*inputs)

    def _scores(self, logits: Tensor, assignment: SlotAssignment, size: tuple[int, ...]) -> Tensor:
        """Return a reading's logits -> float32 [B,1+n,H,W] with the objects in the order of the labels, merged over slots."""
        align = self.model.geometry.align_corners
        logits = assignment.ordered(logits.float())
        if assignment.per_object:
            logits = F.interpolate(logits, size, mode="bilinear", align_corners=align)
            slots = torch.unflatten(logits, 0, (assignment.samples, assignment.slots)).unbind(1)
            return merge_slots(slots, self.model.merging)
        return F.interpolate(logits, size, mode="bilinear", align_corners=align)

    def _loss(self, outputs: list[Tensor], labels: Tensor, counts: Tensor, step: int) -> Values:
        loss = self.recipe.loss
        share = top_share(loss, step)
        weights = depth_weights(loss.alpha, len(outputs)) if len(outputs) > 1 else [1.0]
        slots = self.recipe.data.max_objects if self.model.slot_size == 1 else None
        parts = [
            [weight * part for part in segmentation_loss(logits, labels, counts, loss, share, slots)]
            for weight, logits in zip(weights, outputs, strict=True)
            if weight
        ]
        return Values(*(torch.stack(part).sum(0) for part in zip(*parts, strict=True)))

    def _own_object_masks(self, scores: Tensor, predicted: Tensor, assignment: SlotAssignment) -> ObjectMasks:
        """Return the model's own masks of a frame, as it is to be remembered."""
        if (self.recipe.rollout.feedback or self.model.feedback) == "soft":
            return assignment.soft(scores.softmax(1))
        return assignment.hard(predicted)

    def _sum(
        self, values: list[Values], auxiliary: Values | None, penalty: Tensor | None, predicted: list[Tensor] | None
    ) -> Rolled:
        join = torch.sum if self.recipe.loss.frames == "sum" else torch.mean
        total, ce, jaccard, overlap = (join(torch.stack(part), 0).mean() for part in zip(*values, strict=True))
        extra = torch.zeros_like(total)
        if auxiliary is not None:
            extra = auxiliary.total.mean()
        if penalty is not None:
            extra = extra + penalty
        terms = torch.stack([total, ce, jaccard, overlap, extra]).detach()
        labels = None if predicted is None else torch.stack(predicted, 1)
        return Rolled(total + extra, terms, labels)


def argmax(scores: Tensor) -> Tensor:
    """[B,C,H,W] -> uint8 [B,H,W], the first of the highest channels. Faster on CPU than `Tensor.argmax` over a strided axis."""
    best, labels = scores[:, 0], torch.zeros(scores[:, 0].shape, dtype=torch.uint8, device=scores.device)
    for channel in range(1, scores.shape[1]):
        higher = scores[:, channel] > best
        labels = torch.where(higher, labels.new_tensor(channel), labels)
        best = torch.maximum(best, scores[:, channel])
    return labels
