"""Which channel of which slot each object of a batch's clips has."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from vosformer.data.types import IGNORE
from vosformer.errors import TrainingError
from vosformer.protocol import ObjectMasks
from vosformer.train.batch import Batch, generator
from vosformer.train.recipe import Recipe


class SlotAssignment:
    """Gives the objects of a batch's clips to channels of slots, and takes logits back into the order of the labels."""

    def __init__(self, batch: Batch, slot_size: int, recipe: Recipe) -> None:
        self.counts = batch.counts
        self.samples = len(batch.counts)
        self.most = max(1, int(batch.counts.max()))
        self.per_object = slot_size == 1
        self.slots = self.most if self.per_object else 1
        self.slot_size = slot_size
        if not self.per_object and self.most > slot_size:
            raise TrainingError(
                f"a clip has {self.most} objects, the model holds {slot_size}: set data.max_objects={slot_size}"
            )
        device = batch.images.device
        order = torch.arange(slot_size).repeat(self.samples, 1)
        if recipe.rollout.permute and not self.per_object:
            # The identities of a clip depend on the clip alone, not on who computes it.
            for row, index in enumerate(batch.indices.tolist()):
                order[row] = torch.from_numpy(generator(recipe.run.seed, 2, index).permutation(slot_size))
        self._order = order[:, : self.most].to(device)
        self._rows = torch.arange(self.samples, device=device)[:, None]
        self._ids = torch.arange(1, self.most + 1, device=device).view(1, -1, 1, 1)
        self._absent = torch.arange(1, self.most + 1, device=device)[None] > batch.counts[:, None].to(device)
        # Asked once a batch, before its frames: each answer makes a GPU wait.
        self._some_absent = int(batch.counts.min()) < self.most
        self._unknown: list[bool] = (batch.labels == IGNORE).flatten(2).any(2).any(0).tolist()

    def truth(self, labels: Tensor, number: int) -> ObjectMasks:
        """Masks out of the true labels [B,H,W] of frame `number`; the first frame's are given ones."""
        masks = self.hard(labels, number == 0)
        if not self._unknown[number]:
            return masks
        return masks._replace(ignore=(labels == IGNORE)[:, None].float().repeat_interleave(self.slots, 0))

    def hard(self, labels: Tensor, given: bool = False) -> ObjectMasks:
        """Masks out of labels [B,H,W] without unknown pixels."""
        return self._assigned((labels[:, None] == self._ids).float(), given)

    def soft(self, probabilities: Tensor) -> ObjectMasks:
        """Masks out of probabilities [B,1+n,H,W]; gradients flow."""
        return self._assigned(probabilities[:, 1:] * ~self._absent[..., None, None], False)

    def ordered(self, logits: Tensor) -> Tensor:
        """Logits of slots [S,1+K,h,w] in the order of the labels and with absent objects out of the race: [S,1+n,h,w]."""
        if not self.per_object:
            channels = torch.cat([torch.zeros_like(self._order[:, :1]), self._order + 1], 1)
            logits = logits[self._rows, channels]
        if not self._some_absent:
            return logits
        if self.per_object:
            ruled = logits.new_tensor([1e4, -1e4]).view(1, 2, 1, 1)
            return torch.where(self._absent.reshape(-1, 1, 1, 1), ruled, logits)
        return logits.masked_fill(F.pad(self._absent, (1, 0))[..., None, None], -1e10)

    def _assigned(self, masks: Tensor, given: bool) -> ObjectMasks:
        """[B,n,H,W] -> the slots' masks."""
        if self.per_object:
            own = masks.flatten(0, 1)[:, None]
            others = (masks.sum(1, keepdim=True) - masks).flatten(0, 1)[:, None]
            return ObjectMasks(own, others, given)
        if self.most == self.slot_size and not masks.requires_grad:
            own = torch.empty_like(masks)
        else:
            own = masks.new_zeros(self.samples, self.slot_size, *masks.shape[2:])
        own[self._rows, self._order] = masks
        return ObjectMasks(own, torch.zeros_like(masks[:, :1]), given)
