"""SAM 2's video predictor, method by method, over a `Session`: the first half of `VideoPredictor`.

Code that was written against SAM 2's names runs with the systems of this library: the same arguments, the same order of results, the
same threshold of 0 on the logits. What differs, to the better: frames are read when they are needed, so that memory stays flat on a
video of any length, and a backward pass really goes backward. What is one label a pixel here (objects do not overlap) stays so.
"""

from __future__ import annotations

from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from vosformer.errors import InputError
from vosformer.inference.prediction import Prediction
from vosformer.inference.predictor_state import (
    Marked,
    PredictorState,
    as_floats,
    as_number,
    as_point_labels,
    inner_id,
    logits_of,
)
from vosformer.inference.session import Session
from vosformer.io import open_source
from vosformer.prompts import mark
from vosformer.weights import from_pretrained, packaged, save_pretrained

if TYPE_CHECKING:
    from typing_extensions import Self

Result = tuple[int, list[int], Tensor]
"""(frame number, ids of all objects, logits float32 [n,1,H,W] at the video's size; above 0 = the object)."""


class SAM2Names:
    """Follow objects through videos, with the method names of SAM 2's `SAM2VideoPredictor`."""

    def __init__(self, session: Session) -> None:
        """Drive forks of a session: every propagation has one of its own, which has seen nothing."""
        self._session = session.fork()
        self._session.reset()

    @classmethod
    def from_pretrained(
        cls, name: str | PathLike[str] = "default", *, hub: bool = False, revision: str | None = None, **settings: Any
    ) -> Self:
        """Build a predictor.

        Args:
            name: a folder that `save_pretrained` wrote, packaged weights, a variant (see `vosformer.variants`), or, with `hub`, a
                repository OWNER/NAME on the Hugging Face Hub.
            hub: look the name up on the hub; never done unless asked for.
            revision: of the repository.
            settings: of `Session`: weights, device, dtype, size, memory, ...

        Raises:
            InputError, WeightsError, DeviceError: as `vosformer.from_pretrained` and `Session` do.
        """
        if not hub and (str(name) in packaged() or settings.get("weights") is not None):
            return cls(Session(str(name), **settings))
        return cls(Session(from_pretrained(name, hub=hub, revision=revision), **settings))

    def save_pretrained(self, folder: str | PathLike[str]) -> Path:
        """Write the model as a folder that `from_pretrained` reads, with the weights as they run here (bf16 rounds them).

        Raises:
            InputError: the model was not built by a variant's name.
            OutputError: it could not be written.
        """
        return save_pretrained(self._session.model, folder)

    def init_state(
        self,
        video_path: Any,
        offload_video_to_cpu: bool = False,
        offload_state_to_cpu: bool = False,
        async_loading_frames: bool = False,
    ) -> PredictorState:
        """Open a video.

        Args:
            video_path: whatever `vosformer.io.open_source` takes: a video file, a folder of images, arrays.
            offload_video_to_cpu: no matter here, as are the next two: frames are read one by one when they are needed.
            offload_state_to_cpu: see above.
            async_loading_frames: see above.

        Raises:
            InputError: it cannot be read, or frames of it cannot be asked for again (cameras).
        """
        source = open_source(video_path)
        if source.live or source.count is None:
            raise InputError(
                f"{source.name} has no known number of frames, which this predictor needs; use Session.step for streams"
            )
        return PredictorState(source)

    def add_new_mask(self, inference_state: PredictorState, frame_idx: int, obj_id: int, mask: ArrayLike | Tensor) -> Result:
        """Say what an object's mask is on a frame.

        Args:
            inference_state: of `init_state`.
            frame_idx: number of the frame, the first is 0.
            obj_id: any integer.
            mask: bool or 0 and 1 [H,W] at the video's size; all zero = the object is absent there.

        Returns:
            the frame's number, the ids of all objects, and their logits on it: 10 and -10, or -1024 where an object was not marked.

        Raises:
            InputError: no such frame, or a mask of another size.
        """
        array = np.asarray(mask.detach().cpu() if isinstance(mask, Tensor) else mask)
        source = inference_state.source
        if array.shape != (source.height, source.width):
            raise InputError(
                f"a mask of shape {array.shape} was given, expected {(source.height, source.width)} like {source.name}"
            )
        if array.dtype.kind not in "biuf" or np.isnan(array).any():
            raise InputError(f"a mask of type {array.dtype} was given, expected bool or numbers without NaN")
        self._mark(inference_state, frame_idx, obj_id, Marked(array > 0))
        return self._given(inference_state, frame_idx)

    def add_new_points_or_box(
        self,
        inference_state: PredictorState,
        frame_idx: int,
        obj_id: int,
        points: ArrayLike | Tensor | None = None,
        labels: ArrayLike | Tensor | None = None,
        clear_old_points: bool = True,
        normalize_coords: bool = True,
        box: ArrayLike | Tensor | None = None,
    ) -> Result:
        """Mark an object on a frame with points or a box; points on an object that has a mask there repair it.

        Args:
            inference_state: of `init_state`.
            frame_idx: number of the frame, the first is 0.
            obj_id: any integer.
            points: [n,2] of (x, y).
            labels: [n], 1 = the object, 0 = not the object.
            clear_old_points: forget the points and the box of this object on this frame that were given before.
            normalize_coords: True: coordinates are pixels of the video (SAM 2 normalizes them itself); False: from 0 to 1.
            box: (x0, y0, x1, y1).

        Returns:
            see `add_new_mask`.

        Raises:
            InputError: nothing is given, or what is given does not fit the frame.
        """
        source = inference_state.source
        scale = np.ones(2) if normalize_coords else np.array([source.width, source.height], float)
        new = [] if points is None else (as_floats(points, 2, "points") * scale).tolist()
        values = [] if labels is None else as_point_labels(labels)
        corners = None if box is None else (as_floats(box, 4, "box").reshape(-1, 2) * scale).ravel().tolist()
        before = inference_state.marked.get(frame_idx, {}).get(obj_id)
        repairs = None
        if before is not None:
            # What points and boxes made is made anew; a mask that was given as such is repaired.
            made = bool(before.points) or before.box is not None
            repairs = before.repairs if made else before.mask
            if not clear_old_points:
                new, values = [*before.points, *new], [*before.labels, *values]
                corners = before.box if corners is None else corners
        frame = source.read(self._number(inference_state, frame_idx))
        if frame.image is None:
            raise InputError(f"frame {frame_idx} of {source.name} does not decode ({frame.problem}): mark another one")
        mask = mark(frame.image, points=new, labels=values or None, box=corners, mask=repairs)
        self._mark(inference_state, frame_idx, obj_id, Marked(mask, new, values, corners, repairs))
        return self._given(inference_state, frame_idx)

    def propagate_in_video(
        self,
        inference_state: PredictorState,
        start_frame_idx: int | None = None,
        max_frame_num_to_track: int | None = None,
        reverse: bool = False,
    ) -> Iterator[Result]:
        """Follow the objects through the video; what was marked is taken into account whenever its frame is passed.

        Args:
            inference_state: of `init_state`.
            start_frame_idx: the first frame to give (default: the earliest marked one). What was marked upstream of it is followed
                up to it first.
            max_frame_num_to_track: the most frames after the first (default: to the end).
            reverse: go towards the start of the video.

        Yields:
            the frame's number, the ids of all objects, and their logits: margins to the strongest competitor, above 0 exactly where
            `vosformer track` would label a pixel with the object; -1024 on frames before an object was first seen.

        Raises:
            InputError: nothing was marked, or nothing upstream of the start.
        """
        state, source = inference_state, inference_state.source
        for number, prediction in self._follow(state, start_frame_idx, max_frame_num_to_track, reverse):
            yield number, list(state.ids), logits_of(state.ids, prediction, source.height, source.width)

    def remove_object(
        self, inference_state: PredictorState, obj_id: int, strict: bool = False, need_output: bool = True
    ) -> tuple[list[int], list[Result]]:
        """Forget an object and all that was said about it.

        Returns:
            the ids that are left, and the frames on which it had been marked as they are now.

        Raises:
            InputError: `strict`, and there is no such object.
        """
        if obj_id not in inference_state.ids:
            if strict:
                raise InputError(f"there is no object with id {obj_id}; there are {inference_state.ids}")
            return inference_state.obj_ids, []
        inference_state.ids.remove(obj_id)
        touched = [number for number, said in inference_state.marked.items() if said.pop(obj_id, None) is not None]
        return inference_state.obj_ids, [self._given(inference_state, number) for number in touched] if need_output else []

    def clear_all_prompts_in_frame(
        self, inference_state: PredictorState, frame_idx: int, obj_id: int, need_output: bool = True
    ) -> Result | None:
        """Forget what was said about an object on a frame."""
        inference_state.marked.get(frame_idx, {}).pop(obj_id, None)
        return self._given(inference_state, frame_idx) if need_output else None

    def reset_state(self, inference_state: PredictorState) -> None:
        """Forget all objects; the video stays open."""
        inference_state.reset_inference_session()

    def _number(self, state: PredictorState, number: int) -> int:
        number = as_number(number, "frame_idx")
        if not 0 <= number < (state.source.count or 0):
            raise InputError(
                f"there is no frame {number}: {state.source.name} has the frames 0 to {(state.source.count or 0) - 1}"
            )
        return number

    def _mark(self, state: PredictorState, number: int, i: int, said: Marked) -> None:
        i, frame = as_number(i, "obj_id"), state.marked.setdefault(self._number(state, number), {})
        frame.pop(i, None)  # what is given last lies on top
        frame[i] = said
        if i not in state.ids:
            state.ids.append(i)

    def _given(self, state: PredictorState, number: int) -> Result:
        labels, marked = state.labels(number) if number in state.marked else None, state.marked.get(number, {})
        logits = logits_of(state.ids, None, state.source.height, state.source.width)
        for n, i in enumerate(state.ids):
            if labels is not None and i in marked:
                logits[n, 0] = torch.where(torch.from_numpy(labels == inner_id(i)), 10.0, -10.0)
        return number, list(state.ids), logits

    def _follow(
        self, state: PredictorState, start_frame_idx: int | None, max_frame_num_to_track: int | None, reverse: bool
    ) -> Iterator[tuple[int, Prediction | None]]:
        count = state.source.count or 0
        marked = sorted(number for number, said in state.marked.items() if said)
        if not marked:
            raise InputError("nothing is marked: call add_new_mask or add_new_points_or_box first")
        start = self._number(state, marked[0] if start_frame_idx is None else start_frame_idx)
        most = count if max_frame_num_to_track is None else max_frame_num_to_track
        begin = max(marked[-1], start) if reverse else min(marked[0], start)
        if begin not in marked:
            begin = marked[-1] if reverse else marked[0]
        end = max(start - most, 0) - 1 if reverse else min(start + most, count - 1) + 1
        if reverse and start_frame_idx is None and start == 0:
            return
        step = -1 if reverse else 1
        for number, prediction in self._walk(state, begin, end if end >= 0 else None, step):
            if (number - start) * step >= 0:
                yield number, prediction

    def _walk(self, state: PredictorState, begin: int, end: int | None, step: int) -> Iterator[tuple[int, Prediction | None]]:
        """Step over the frames; where one does not decode, what was there before it is repeated."""
        session, known = self._session.fork(), set[int]()
        prediction: Prediction | None = None
        for frame in state.source.frames(begin, end, step):
            marked = state.marked.get(frame.number, {})
            labels = state.labels(frame.number) if marked else None
            ids = [i for i in map(inner_id, marked) if i in known or (labels is not None and (labels == i).any())]
            if frame.image is not None:
                prediction = session.step(frame.image, labels if ids else None, ids=ids or None)
                known |= set(ids)
            yield frame.number, prediction
