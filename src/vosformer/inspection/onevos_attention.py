"""Looking inside OneVOS: what each layer attends to and which tokens it selects and remembers (paper Figures 3 to 5).

`inspect_clip` follows a clip through an ordinary `Session` and keeps the numbers; `inspect_plots.draw` makes the pictures.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from vosformer.errors import InputError
from vosformer.inference.session import Session
from vosformer.models.onevos import OneVOS, Seen
from vosformer.nn.maps import Grid

_CHUNK = 256  # queries at a time: the full matrix of weights is never held
GROUPS = ("memory", "reference", "current")
Floats = NDArray[np.float32]


class TokenPositions(NamedTuple):
    """Where the tokens that a layer remembers come from.

    Attributes:
        frame: int [M], numbers of frames.
        position: int [M], positions in the map of that frame, row by row.
    """

    frame: NDArray[np.int32]
    position: NDArray[np.int32]


@dataclass(frozen=True)
class LayerView:
    """One layer while one frame was read; attention is that of the tokens of the target area (the objects of that frame).

    Attributes:
        shares: [3], the weights' sum over memory, reference and current frame, mean over target tokens and heads; adds up to 1
            (Fig. 3c).
        peaks: [3], the largest weight among the tokens of each group, mean over target tokens and heads (Fig. 3b); 0 for an empty
            group.
        reference: [h,w], mean weight that each token of the reference frame received; 0 where it was not selected (Fig. 3a).
        current: [h,w], the same of the current frame (Fig. 3a).
        selected: bool [h,w], tokens of the reference frame that the selector took; all of them without one (Fig. 4a).
        remembered: the tokens in memory (Fig. 5).
    """

    shares: Floats
    peaks: Floats
    reference: Floats
    current: Floats
    selected: NDArray[np.bool_]
    remembered: TokenPositions


@dataclass(frozen=True)
class FrameView:
    """What was seen while one frame was read.

    Attributes:
        number: of the frame.
        image: uint8 RGB [H,W,3], the frame.
        reference: number of the reference frame, the one before.
        reference_image: uint8 RGB [H,W,3].
        labels: int32 [H,W], the prediction.
        layers: from the first to the last.
    """

    number: int
    image: NDArray[np.uint8]
    reference: int
    reference_image: NDArray[np.uint8]
    labels: NDArray[np.int32]
    layers: tuple[LayerView, ...]


@dataclass(frozen=True)
class Inspection:
    """A clip, looked at from inside.

    Attributes:
        frames: all frames that were read.
        images: the frames of the clip that tokens were remembered from: number -> uint8 RGB [H,W,3].
    """

    frames: tuple[FrameView, ...]
    images: dict[int, NDArray[np.uint8]]

    @property
    def shares(self) -> Floats:
        """[T,L,3]: `LayerView.shares` of every frame and layer."""
        return np.stack([[layer.shares for layer in frame.layers] for frame in self.frames])

    @property
    def peaks(self) -> Floats:
        """[T,L,3]: `LayerView.peaks` of every frame and layer."""
        return np.stack([[layer.peaks for layer in frame.layers] for frame in self.frames])

    @property
    def ratios(self) -> Floats:
        """[T,L]: the share of reference tokens that each layer selected (Fig. 4b)."""
        return np.stack([[np.float32(layer.selected.mean()) for layer in frame.layers] for frame in self.frames])

    @property
    def tokens(self) -> NDArray[np.int64]:
        """[T,L]: tokens in memory."""
        return np.array([[len(layer.remembered.frame) for layer in frame.layers] for frame in self.frames])

    def summary(self) -> dict[str, Any]:
        """Means over the clip, layer by layer, ready for JSON."""
        shares, peaks = self.shares.mean(0), self.peaks.mean(0)
        return {
            "frames": [frame.number for frame in self.frames],
            "layers": [
                {
                    "layer": i,
                    "share": dict(zip(GROUPS, map(float, shares[i]), strict=True)),
                    "peak": dict(zip(GROUPS, map(float, peaks[i]), strict=True)),
                    "selected": float(self.ratios[:, i].mean()),
                    "memory_tokens": [int(count) for count in self.tokens[:, i]],
                }
                for i in range(shares.shape[0])
            ],
        }


def inspect_clip(session: Session, clip: Iterable[tuple[NDArray[np.uint8], ArrayLike | None]]) -> Inspection:
    """Follow a clip and look at every layer of every frame that is read.

    The attention weights are computed a second time, outside of the model and for the first slot only (ten objects); a session that
    is not inspected does none of this.

    Args:
        session: a fresh one, of a OneVOS model, with one scale and without mirroring.
        clip: frames uint8 RGB [H,W,3] and labels as for `Session.step`, in order.

    Raises:
        InputError: the session's model is no OneVOS, or the clip has less than two frames.
    """
    if not isinstance(session.model, OneVOS):
        raise InputError(f"only OneVOS models can be looked into, the session has {type(session.model).__name__}")
    count = len(session.model.blocks)
    views: list[FrameView] = []
    images: dict[int, NDArray[np.uint8]] = {}
    for number, (image, labels) in enumerate(clip):
        found: list[tuple[Seen, TokenPositions]] = []

        def look(seen: Seen, found: list[tuple[Seen, TokenPositions]] = found) -> None:
            # Cohorts that come later (more than ten objects) are read after the first one. The memory's storage will be written over.
            if len(found) < count:
                found.append((seen._replace(keys=[torch.cat(seen.keys, 1)]), _remembered(seen)))

        out = session.step(image, labels, probe=look)
        if found:
            target = _target(out.labels, found[0][0].grid)
            with torch.inference_mode():
                layers = tuple(_look(seen, target, remembered) for seen, remembered in found)
            views.append(FrameView(number, image, number - 1, images[number - 1], out.labels, layers))
        images[number] = image
    if not views:
        raise InputError("there is nothing to look at: the clip needs at least two frames, and masks on the first one")
    used = {int(n) for view in views for layer in view.layers for n in np.unique(layer.remembered.frame)}
    return Inspection(tuple(views), {n: images[n] for n in sorted(used)})


def _target(labels: NDArray[np.int32], grid: Grid) -> Tensor:
    """Tell whether objects cover at least half of each token [N]; all tokens if there is no such one."""
    objects = torch.from_numpy((labels != 0).astype(np.float32))[None]
    covered = F.adaptive_avg_pool2d(objects, (grid.height, grid.width)).flatten() >= 0.5
    return covered if bool(covered.any()) else torch.ones_like(covered)


def _look(seen: Seen, target: Tensor, remembered: TokenPositions) -> LayerView:
    """Return the attention of the target's tokens, group by group."""
    sums, peaks, received = _weights(seen, target)
    grid, lengths = seen.grid, seen.lengths
    position = seen.reference.get("position")
    positions = torch.arange(grid.tokens) if position is None else position[0, :, 0].long().cpu()
    real = torch.ones(len(positions), dtype=torch.bool)
    if "gate" in seen.reference:
        real = seen.reference["gate"][0, :, 0].cpu() > 0.5
    selected = torch.zeros(grid.tokens, dtype=torch.bool)
    selected[positions[real]] = True
    to_reference = torch.zeros(grid.tokens)
    to_reference[positions[real]] = received[lengths.memory : lengths.memory + lengths.reference][real]
    return LayerView(
        sums.numpy(),
        peaks.numpy(),
        _as_map(to_reference, grid),
        _as_map(received[lengths.memory + lengths.reference :], grid),
        _as_map(selected, grid),
        remembered,
    )


def _weights(seen: Seen, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Share and peak [3] of each group, and the mean weight [M] of each key; float32 on the CPU."""
    heads = seen.heads
    q = seen.q[0][target.to(seen.q.device)].float()
    k = seen.keys[0][0].float()
    queries = q.view(q.shape[0], heads, -1).transpose(0, 1) * (q.shape[1] // heads) ** -0.5
    keys = k.view(k.shape[0], heads, -1).permute(1, 2, 0)
    bias = 0.0 if seen.gate is None else torch.log(seen.gate[0, :, 0].float() + 1e-30)
    sums, peaks, received = torch.zeros(3), torch.zeros(3), torch.zeros(k.shape[0], device=k.device)
    for part in torch.split(queries, _CHUNK, 1):
        weights = (part @ keys + bias).softmax(2)
        received += weights.sum((0, 1))
        start = 0
        for group, length in enumerate(seen.lengths):
            if length:
                piece = weights[:, :, start : start + length]
                sums[group] += float(piece.sum())
                peaks[group] += float(piece.amax(2).sum())
            start += length
    count = heads * q.shape[0]
    return sums / count, peaks / count, received.cpu() / count


def _remembered(seen: Seen) -> TokenPositions:
    """Frame and position of each token in memory."""
    bank = seen.memory.bank(seen.layer)
    if not bank:
        return TokenPositions(np.zeros(0, np.int32), np.zeros(0, np.int32))
    if "frame" in bank:
        frames = bank["frame"][0, :, 0].cpu().numpy()
    else:
        numbers = [frame.number for frame in seen.memory.frames]
        frames = np.repeat(np.array(numbers, np.int32), seen.memory.lengths(seen.layer))
    if "position" in bank:
        positions = bank["position"][0, :, 0].cpu().numpy()
    else:
        positions = np.tile(np.arange(seen.grid.tokens, dtype=np.int32), len(frames) // seen.grid.tokens)
    if "gate" in bank:
        real = bank["gate"][0, :, 0].float().cpu().numpy() > 0.5
        frames, positions = frames[real], positions[real]
    return TokenPositions(frames.copy(), positions.copy())


def _as_map(values: Tensor, grid: Grid) -> NDArray[Any]:
    return values.view(grid.height, grid.width).numpy()
