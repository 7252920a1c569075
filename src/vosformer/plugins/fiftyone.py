"""A FiftyOne model: `dataset.apply_model(VideoTracker(), "tracked", prompt_field="frames.detections")`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import fiftyone as fo
import fiftyone.core.models as fom
import numpy as np

from vosformer.errors import InputError
from vosformer.inference.predictor import VideoPredictor
from vosformer.inference.predictor_state import PredictorState

_UNNUMBERED = 1_000_000


class VideoTracker(fom.SamplesMixin, fom.Model):  # type: ignore[misc]
    """Follows what is marked on some frames of a video sample through all of them.

    Prompts are detections (their masks, or what is in their boxes) or keypoints of a frame field, on any frame; an `index` that comes
    again is the same object. Results are detections with box, mask, label, and the object's number as `index`.

    Args:
        predictor: what follows; None takes the packaged weights.
        settings: of `vosformer.VideoPredictor.from_pretrained`, without a predictor: name, device, size, ...
    """

    def __init__(self, predictor: VideoPredictor | None = None, **settings: Any) -> None:
        self._predictor = predictor or VideoPredictor.from_pretrained(**settings)
        self._fields: dict[str, str] = {}

    @property
    def media_type(self) -> str:
        """What samples it takes."""
        return "video"

    def predict(self, video_reader: Any, sample: Any = None) -> dict[int, Any]:
        """Return frame number (from 1, as FiftyOne counts) -> detections.

        Raises:
            InputError: no frame field of prompts was named, or it is empty on all frames.
        """
        field = next(iter(self.needs_fields.values()), None) or ""
        if sample is None or not field.startswith("frames."):
            raise InputError(
                f"prompt_field is {field!r}, expected a field of frames that marks objects, like 'frames.detections'"
            )
        state = self._predictor.init_state(sample.filepath)
        names: dict[int, str | None] = {}
        with state.source:
            for number, frame in sample.frames.items():
                for prompt in _prompts(frame, field.removeprefix("frames.")):
                    # What has no number is an object of its own, with a number that FiftyOne's trackers, which count up, do not give.
                    index = prompt.index if prompt.index is not None else _UNNUMBERED + len(names)
                    names[index] = prompt.label
                    self._mark(state, number - 1, index, prompt)
            if not names:
                raise InputError(f"{sample.filepath}: {field} is empty on all frames: mark an object on one of them")
            return {number + 1: found for number, found in self._follow(state, names)}

    def _mark(self, state: PredictorState, number: int, index: int, prompt: Any) -> None:
        height, width = state.source.height, state.source.width
        if isinstance(prompt, fo.Keypoint):
            points = [(min(x * width, width - 1), min(y * height, height - 1)) for x, y in prompt.points if x == x]
            self._predictor.add_new_points_or_box(state, number, index, points, [1] * len(points))
            return
        x, y, wide, high = (float(v) for v in prompt.bounding_box)
        box = (x * width, y * height, (x + wide) * width, (y + high) * height)
        if prompt.mask is None:
            self._predictor.add_new_points_or_box(state, number, index, box=box)
            return
        # The mask fills its box, whose corners are fractions of pixels at worst.
        inside = fo.Detection(bounding_box=list(prompt.bounding_box), mask=prompt.mask).to_segmentation(
            frame_size=(width, height)
        )
        self._predictor.add_new_mask(state, number, index, np.asarray(inside.mask) > 0)

    def _follow(self, state: PredictorState, names: dict[int, str | None]) -> Iterator[tuple[int, Any]]:
        height, width = state.source.height, state.source.width
        for number, ids, logits in self._predictor.propagate_in_video(state):
            found = []
            for i, mask in zip(ids, (logits[:, 0] > 0).numpy(), strict=True):
                if not mask.any():
                    continue
                rows, columns = np.nonzero(mask.any(1))[0], np.nonzero(mask.any(0))[0]
                top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
                box = [left / width, top / height, (right - left) / width, (bottom - top) / height]
                found.append(
                    fo.Detection(
                        label=names[i], bounding_box=[float(v) for v in box], mask=mask[top:bottom, left:right], index=i
                    )
                )
            yield number, fo.Detections(detections=found)


def _prompts(frame: Any, field: str) -> list[Any]:
    if not frame.has_field(field) or frame[field] is None:
        return []
    value = frame[field]
    if isinstance(value, fo.Detections):
        return list(value.detections)
    if isinstance(value, fo.Keypoints):
        return list(value.keypoints)
    raise InputError(f"{field} holds {type(value).__name__}, expected Detections or Keypoints")
