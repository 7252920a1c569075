"""Frames that come one by one: what the streaming form of Transformers' video models asks of a `Session`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vosformer.errors import InputError
from vosformer.inference.predictor_state import as_number, inner_id, logits_of, presence_of
from vosformer.inference.session import Session, as_image
from vosformer.prompts import Prompt

_ANY_SIZE = (2**16, 2**16)
"""What points are held against while the size of the frames is not known: their own frame looks again."""


class FrameInputs(NamedTuple):
    """Pictures as the streaming form takes them, with the field names of Transformers' `BatchFeature`.

    Attributes:
        pixel_values: uint8 RGB [n,3,H,W]; nothing is scaled or normalized, which is `Session`'s affair.
        original_sizes: (height, width) of each.
    """

    pixel_values: Tensor
    original_sizes: list[list[int]]

    def to(self, *_: Any, **__: Any) -> FrameInputs:
        """Return the same: frames go to the model's device when their turn comes."""
        return self


@dataclass
class StreamState:
    """A stream and what was said about its frames to come; of those that have passed, only the session's memory is left.

    Attributes:
        session: has seen the frames so far.
        ids: the objects, in the order in which they were added.
        said: frame number -> object -> what was said.
        next: number of the frame that comes next.
        size: (height, width) of the frames; None before anything tells it.
    """

    session: Session
    ids: list[int] = field(default_factory=list)
    said: dict[int, dict[int, Prompt]] = field(default_factory=dict)
    next: int = 0
    size: tuple[int, int] | None = None

    @property
    def obj_ids(self) -> list[int]:
        """The objects, in the order in which they were added."""
        return list(self.ids)

    @property
    def video_height(self) -> int | None:
        """Pixels."""
        return self.size and self.size[0]

    @property
    def video_width(self) -> int | None:
        """Pixels."""
        return self.size and self.size[1]

    def reset_inference_session(self) -> None:
        """Forget all objects; frames are counted on."""
        self.session.reset()
        self.ids.clear()
        self.said.clear()

    def say(self, number: int, i: int, prompt: Prompt, add: bool = False) -> None:
        """Keep what is said about an object until its frame comes.

        Args:
            number: of the frame.
            i: the object.
            prompt: what is said.
            add: to what was said about it on that frame before; else instead.

        Raises:
            InputError: that frame has passed, or the prompt cannot be used on frames of this size.
        """
        number, i = as_number(number, "frame_idx"), as_number(i, "obj_ids")
        if number < self.next:
            raise InputError(
                f"frame {number} has passed, and a stream's frames are not kept: mark objects on frame {self.next} or later ones"
            )
        before = self.said.get(number, {}).get(i)
        if add and before is not None:
            labels = [*(before.labels or ()), *(prompt.labels or ())]
            box = before.box if prompt.box is None else prompt.box
            mask = before.mask if prompt.mask is None else prompt.mask
            prompt = replace(prompt, points=[*before.points, *prompt.points], labels=labels, box=box, mask=mask)
        if inner_id(i) not in self.session.ids and (self.size is not None or prompt.mask is None):
            prompt.checked(*(self.size or _ANY_SIZE))
        frame = self.said.setdefault(number, {})
        frame.pop(i, None)  # what is said last lies on top
        frame[i] = prompt
        if i not in self.ids:
            self.ids.append(i)

    def step(self, frame: Any, number: int | None = None) -> tuple[int, list[int], Tensor, Tensor]:
        """Take the next frame; return its number, and of all objects ids, logits [n,1,H,W] and presence [n].

        Raises:
            InputError: no object was marked, a frame of another size or kind, or a number that was there before.
        """
        image, here = picture_of(frame), self.next if number is None else as_number(number, "frame_idx")
        if here < self.next:
            raise InputError(f"frame {here} came after frame {self.next - 1}: a stream goes forward")
        if self.size is not None and image.shape[:2] != self.size:
            raise InputError(
                f"a frame of {image.shape[0]} x {image.shape[1]} pixels came, expected {self.size[0]} x {self.size[1]}"
            )
        if not self.ids:
            raise InputError("no object is marked: call add_inputs_to_inference_session before the first frame")
        prompts = {inner_id(i): said for i, said in self.said.get(here, {}).items()}
        prediction = self.session.step(image, prompts=prompts) if prompts or self.session.ids else None
        self.size, self.next = (image.shape[0], image.shape[1]), here + 1
        self.said = {later: said for later, said in self.said.items() if later > here}
        return here, list(self.ids), logits_of(self.ids, prediction, *self.size), presence_of(self.ids, prediction)


def frames_of(images: Any) -> FrameInputs:
    """Return pictures as frames of a stream.

    Args:
        images: one picture of Pillow's, uint8 [H,W,3] or [3,H,W], array or tensor; or several of one size.

    Raises:
        InputError: they are something else.
    """
    several = images if isinstance(images, Sequence) else list(images) if getattr(images, "ndim", 3) == 4 else [images]
    pictures = [picture_of(each) for each in several]
    if not pictures:
        raise InputError("no picture was given")
    if len({picture.shape for picture in pictures}) != 1:
        raise InputError(f"pictures of the sizes {[picture.shape[:2] for picture in pictures]} were given, expected one size")
    pixels = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)
    return FrameInputs(pixels, [[picture.shape[0], picture.shape[1]] for picture in pictures])


def picture_of(frame: Any) -> NDArray[np.uint8]:
    """Return a picture of Pillow's, or uint8 [H,W,3], [3,H,W] or [1,3,H,W], as uint8 RGB [H,W,3].

    Raises:
        InputError: it is something else, such as values that another program has normalized.
    """
    if hasattr(frame, "convert"):
        return np.asarray(frame.convert("RGB"))
    array = frame.detach().cpu().numpy() if isinstance(frame, Tensor) else np.asarray(frame)
    array = array[0] if array.ndim == 4 and len(array) == 1 else array
    if array.ndim == 3 and array.shape[0] == 3 and array.shape[2] != 3:
        array = np.ascontiguousarray(array.transpose(1, 2, 0))
    return as_image(array)
