"""OneVOS's bank of frames, and what OneVOS says to its banks."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from vosformer.memory.frame_bank import FrameBank
from vosformer.protocol import Layer, RememberedFrame


class BankMessage(NamedTuple):
    """What a layer of OneVOS says to its bank with each frame, mostly about the frame before (the reference), which may enter now.

    Attributes:
        reference: name -> [S,n,C], what the frame before leaves, where only the reading of this frame could tell (some ablations);
            None = that which it was written with.
        bank_usage: float32 [S,M], the attention that the remembered tokens received, where `MemoryView.needs_usage` asked for it.
        reference_usage: float32 [S,n], the attention that the tokens of the frame before received; likewise.
        frame_tokens: the tokens of one frame that the memory is meant for (OneVOS-D's r_l N); None = all of them.
    """

    reference: Layer | None = None
    bank_usage: Tensor | None = None
    reference_usage: Tensor | None = None
    frame_tokens: float | None = None


class ReferenceBank(FrameBank):
    """A bank of frames that takes a frame as the reading of its successor left it."""

    _message = BankMessage()

    def inform(self, message: BankMessage | None) -> None:
        self._message = message or BankMessage()

    def add(self, layer: Layer, frame: RememberedFrame) -> None:
        super().add(self._message.reference or layer, frame)
