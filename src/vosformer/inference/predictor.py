"""`VideoPredictor`: a `Session` under the names of SAM 2's video predictor and of Hugging Face Transformers' video models.

Code that was written against them runs with the systems of this library: the same arguments, the same order of results, the same
threshold of 0 on the logits. What differs, to the better: frames are read when they are needed, so that memory stays flat on a
video of any length, and a backward pass really goes backward. What is one label a pixel here (objects do not overlap) stays so.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from vosformer.errors import InputError
from vosformer.inference.predictor_sam2 import SAM2Names
from vosformer.inference.predictor_state import PredictorState, as_floats, as_point_labels, logits_of, presence_of
from vosformer.inference.predictor_stream import StreamState, frames_of, picture_of
from vosformer.inference.session import whole_numbers
from vosformer.prompts import Prompt


class PropagatedFrame(NamedTuple):
    """One frame of a propagation, with the field names of Transformers' `Sam2VideoSegmentationOutput`.

    Attributes:
        frame_idx: number of the frame.
        object_ids: all objects.
        pred_masks: logits, float32 [n,1,H,W] at the video's size; above 0 = the object.
        object_score_logits: float32 [n]; above 0: the object is more likely there than not.
    """

    frame_idx: int
    object_ids: list[int]
    pred_masks: Tensor
    object_score_logits: Tensor


class VideoPredictor(SAM2Names):
    """Follow objects through videos, with the method names of SAM 2's `SAM2VideoPredictor` and those of Transformers.

    It is model and processor of Transformers' examples in one.

    Example:
        >>> predictor = VideoPredictor.from_pretrained("default")                             # doctest: +SKIP
        >>> state = predictor.init_state("clip.mp4")                                          # doctest: +SKIP
        >>> predictor.add_new_mask(state, frame_idx=0, obj_id=1, mask=mask)                   # doctest: +SKIP
        >>> for frame, ids, logits in predictor.propagate_in_video(state):                    # doctest: +SKIP
        ...     masks = logits > 0
    """

    def init_video_session(self, video: Any = None, **_: Any) -> PredictorState | StreamState:
        """Open a video, as `init_state` does, or, without one, a stream whose frames are given one by one.

        Args:
            video: see `init_state`; a list of Pillow's pictures is taken, too.
            _: devices and dtypes, which are the predictor's.
        """
        if video is None:
            return StreamState(self._session.fork())
        pictures = isinstance(video, list | tuple) and video and hasattr(video[0], "convert")
        return self.init_state([picture_of(picture) for picture in video] if pictures else video)

    def __call__(
        self,
        inference_session: PredictorState | StreamState | None = None,
        frame_idx: int | None = None,
        frame: Any = None,
        *,
        images: Any = None,
        **_: Any,
    ) -> Any:
        """Do what Transformers' model does with a session, or what its processor does with `images`.

        Args:
            inference_session: of `init_video_session`.
            frame_idx: of a video, a frame on which objects were marked; of a stream, the number of `frame` if some were left out.
            frame: of a stream, the next frame: `pixel_values[0]` of what `images` gave, or a picture.
            images: pictures that become frames of a stream.
            _: no matter here: reverse, run_mem_encoder; device, return_tensors.

        Returns:
            a `PropagatedFrame`: the masks of the stream's frame, or of the video's frame before anything is propagated; for `images`
            a `FrameInputs`.

        Raises:
            InputError: nothing is marked on that frame of the video or in the stream, or the frame cannot be used.
        """
        if images is not None and inference_session is None:
            return frames_of(images)
        if isinstance(inference_session, StreamState):
            if frame is None:
                raise InputError("a stream wants frame=...; its earlier frames are not kept")
            return _propagated(*inference_session.step(frame, frame_idx))
        if frame is not None or inference_session is None:
            raise InputError("frame=... wants a session of init_video_session() without a video")
        if frame_idx is None or not inference_session.marked.get(frame_idx):
            raise InputError(
                f"nothing is marked on frame {frame_idx}: propagate_in_video_iterator gives the masks of all frames"
            )
        number, ids, logits = self._given(inference_session, frame_idx)
        return _propagated(number, ids, logits, (logits > 0).flatten(1).any(1).float())

    def post_process_masks(
        self,
        masks: Sequence[Tensor],
        original_sizes: Any = None,
        mask_threshold: float = 0.0,
        binarize: bool = True,
        max_hole_area: float = 0.0,
        max_sprinkle_area: float = 0.0,
        **_: Any,
    ) -> list[Tensor]:
        """Return masks [n,1,H,W] as bool, or as logits if not `binarize`; they have the video's size already, and do not overlap.

        Raises:
            InputError: another size is asked for.
        """
        if max_hole_area or max_sprinkle_area:
            warnings.warn("max_hole_area and max_sprinkle_area change nothing here: masks stay as they are", stacklevel=2)
        for mask, size in zip(masks, [] if original_sizes is None else original_sizes, strict=False):
            if tuple(int(side) for side in size) != tuple(mask.shape[-2:]):
                raise InputError(
                    f"masks of {tuple(mask.shape[-2:])} are to become {tuple(size)}: they have the video's size already"
                )
        return [mask > mask_threshold if binarize else mask for mask in masks]

    @property
    def device(self) -> torch.device:
        """Where the model runs."""
        return next(self._session.model.parameters()).device

    def to(self, device: str | torch.device | None = None, dtype: torch.dtype | None = None) -> VideoPredictor:
        """Return this predictor on another device, or in another number format.

        Raises:
            DeviceError: this machine does not have it.
        """
        return VideoPredictor(self._session.moved(device, dtype))

    def eval(self) -> VideoPredictor:
        """Return this predictor, which never trains."""
        return self

    def add_inputs_to_inference_session(
        self,
        inference_session: PredictorState | StreamState,
        frame_idx: int,
        obj_ids: int | Sequence[int],
        input_points: Any = None,
        input_labels: Any = None,
        input_boxes: Any = None,
        input_masks: Any = None,
        original_size: tuple[int, int] | None = None,
        clear_old_inputs: bool = True,
    ) -> None:
        """Mark objects on a frame: one entry of each list an object, in the order of `obj_ids`.

        Args:
            inference_session: of `init_video_session`.
            frame_idx: number of the frame; of a stream one that is still to come.
            obj_ids: one id, or a list.
            input_points: [1, objects, points, 2], pixels of the video.
            input_labels: [1, objects, points].
            input_boxes: [1, objects, 4].
            input_masks: a mask, or a list with one an object, [H,W].
            original_size: (height, width) of a stream's frames; of a video no matter.
            clear_old_inputs: forget the points that were given before.

        Raises:
            InputError: as `add_new_mask` and `add_new_points_or_box` do, or not one entry an object.
        """
        state = inference_session
        if isinstance(state, StreamState) and original_size is not None and state.size is None:
            state.size = int(original_size[0]), int(original_size[1])
        ids = whole_numbers([obj_ids] if hasattr(obj_ids, "__index__") else obj_ids, "obj_ids")
        for i, said in zip(ids, _said(len(ids), input_points, input_labels, input_boxes, input_masks), strict=True):
            if isinstance(state, StreamState):
                state.say(frame_idx, i, said, add=not clear_old_inputs)
            elif said.mask is not None:
                self.add_new_mask(state, frame_idx, i, said.mask)
            else:
                self.add_new_points_or_box(state, frame_idx, i, said.points, said.labels, clear_old_inputs, box=said.box)

    def propagate_in_video_iterator(
        self,
        inference_session: PredictorState | StreamState,
        start_frame_idx: int | None = None,
        max_frame_num_to_track: int | None = None,
        reverse: bool = False,
        show_progress_bar: bool = False,
    ) -> Iterator[PropagatedFrame]:
        """Follow the objects, as `propagate_in_video` does; there is no progress bar."""
        state = inference_session
        if isinstance(state, StreamState):
            raise InputError("a stream's frames are not kept: its masks come from calls with frame=...")
        for number, prediction in self._follow(state, start_frame_idx, max_frame_num_to_track, reverse):
            logits = logits_of(state.ids, prediction, state.source.height, state.source.width)
            yield _propagated(number, list(state.ids), logits, presence_of(state.ids, prediction))


def _propagated(number: int, ids: list[int], logits: Tensor, presence: Tensor) -> PropagatedFrame:
    """Return a frame's masks, with presence in [0,1] as logits."""
    return PropagatedFrame(number, ids, logits, torch.logit(presence, eps=1e-6))


def _said(objects: int, points: Any, labels: Any, boxes: Any, masks: Any) -> list[Prompt]:
    """Return what Transformers' nested lists say about each object."""
    if masks is not None:
        masks = [masks] if np.ndim(masks[0]) == 1 else list(masks)
        _count(objects, "input_masks", masks)
        arrays = [np.squeeze(np.asarray(mask.detach().cpu() if isinstance(mask, Tensor) else mask)) for mask in masks]
        if any(np.isnan(array).any() for array in arrays):
            raise InputError("input_masks holds NaN")
        return [Prompt(mask=array > 0) for array in arrays]
    lists: list[Sequence[Any]] = []
    for name, values in (("input_points", points), ("input_labels", labels), ("input_boxes", boxes)):
        if values is not None and len(values) != 1:
            raise InputError(f"{name} has {len(values)} entries for pictures, expected [[one entry for each object]]")
        lists.append([None] * objects if values is None else values[0])
        _count(objects, name, lists[-1])
    return [
        Prompt(
            points=() if places is None else as_floats(places, 2, "input_points").tolist(),
            labels=None if said is None else as_point_labels(said),
            box=None if box is None else as_floats(box, 4, "input_boxes").ravel().tolist(),
        )
        for places, said, box in zip(*lists, strict=True)
    ]


def _count(objects: int, name: str, values: Sequence[Any]) -> None:
    if len(values) != objects:
        raise InputError(f"{name} speaks of {len(values)} objects, but obj_ids names {objects}")
