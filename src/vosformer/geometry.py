"""From source frames to the network's input and back, with the exact inverse kept.

Two ways exist in the six systems: AOT, AOST, DeAOT and OneVOS *resize* to a size that the stride divides (plus 1 where corners are
aligned); SimVOS and JointFormer scale to a short side and *pad* with zeros after normalization. How large frames are made is either
the system's own rule, that of its released code, or what the user asks for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from vosformer.errors import InputError

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

Size = tuple[int, int]
FrameSize = int | Literal["own"] | None
"""The short side that a model sees: so many pixels, by the system's own rule, or the frame's own."""

_LONG_PER_SHORT = 1040 / 480  # of a size that the user asks for: the ratio of AOT's and OneVOS's limits


def padded(resample: Literal["bilinear", "bicubic"]) -> Geometry:
    """Make the geometry of the per-object systems: short side 480, padded with zeros."""
    return Geometry("pad", False, short=480, long=None, scaled_short=None, resample=resample)


class Placement(NamedTuple):
    """Where a source frame lies in the network's input; all sizes are (height, width) in pixels.

    Attributes:
        source: size of the masks that come in and go out: that of the frames, unless another one is asked for.
        inner: size of the frame inside the network's input.
        network: size of the network's input, padding included.
        top: rows of padding above.
        left: columns of padding on the left.
    """

    source: Size
    inner: Size
    network: Size
    top: int
    left: int

    @property
    def pads(self) -> bool:
        """Whether there is any padding."""
        return self.inner != self.network


@dataclass(frozen=True)
class Geometry:
    """How a system wants its input.

    Attributes:
        fit: "resize" rounds both sides to the stride; "pad" keeps the aspect exactly and adds zeros.
        align_corners: sides are 16k+1 instead of 16k, and all bilinear resampling aligns corners.
        short: pixels that the system's own rule scales the short side to, up and down; None = the frame's own.
        long: most pixels of the long side, by the system's own rule; None = no limit.
        scaled_short: most pixels of the short side before the scale in multi-scale testing, by that rule; None = no limit.
        resample: "opencv-cubic" filters the values before normalization with OpenCV's cubic kernel (a = -0.75, not clipped),
            "bilinear" and "bicubic" normalized values as PyTorch does; none blurs before it makes smaller, as in the released code.
        stride: of the coarsest feature map, pixels.
    """

    fit: Literal["resize", "pad"] = "resize"
    align_corners: bool = True
    short: int | None = None
    long: int | None = 1040
    scaled_short: int | None = 624
    resample: Literal["opencv-cubic", "bilinear", "bicubic"] = "opencv-cubic"
    stride: int = 16

    def place(self, height: int, width: int, size: FrameSize, scale: float = 1.0) -> Placement:
        """Decide where frames of height x width lie in the network's input.

        Args:
            height: of the frames, pixels.
            width: of the frames, pixels.
            size: the short side in pixels that the model sees, up or down, but less where the long side would have over 1040 / 480
                times as many; "own" = by the system's own rule; None = the frame's own. Rounding to the stride changes it a little,
                as in the official code.
            scale: multiplies both sides (multi-scale testing).

        Raises:
            InputError: a side is less than 1 pixel.
        """
        if height < 1 or width < 1:
            raise InputError(f"a frame of {height} x {width} pixels cannot be used: both sides must be at least 1")
        factor = self._factor(min(height, width), max(height, width), size, scale)
        # The product may come out just below a whole number. Only the code that resizes cuts that off, and rounds afterward.
        slack = 1e-6 if self.fit == "pad" else 0.0
        sides = [max(1, int(side * factor * scale + slack)) for side in (height, width)]
        if self.fit == "resize":
            extra = int(self.align_corners)
            # np.around rounds half to even, as the official code does.
            fitted = [max(1, int(np.around((side - extra) / self.stride))) * self.stride + extra for side in sides]
            inner = (fitted[0], fitted[1])
            return Placement((height, width), inner, inner, 0, 0)
        gaps = [-side % self.stride for side in sides]
        return Placement(
            (height, width), (sides[0], sides[1]), (sides[0] + gaps[0], sides[1] + gaps[1]), gaps[0] // 2, gaps[1] // 2
        )

    def _factor(self, short: int, long: int, size: FrameSize, scale: float) -> float:
        """Return the factor on both sides, without the scale."""
        if size is None:
            return 1.0
        if isinstance(size, int):
            factor, most = size / short, _LONG_PER_SHORT * size / long
            if self.fit == "resize":
                return min(factor, most)
            # Released code that pads has no limit; here long strips are at least not enlarged beyond what the other systems see.
            return factor if factor <= 1 else max(1.0, min(factor, most))
        factor = 1.0 if self.short is None else self.short / short
        if scale != 1 and self.scaled_short is not None:
            factor = min(factor, self.scaled_short / short)
        return factor if self.long is None else min(factor, self.long / long)

    def image(self, frame: NDArray[np.uint8], placement: Placement) -> Tensor:
        """Convert uint8 RGB [height,width,3] to float32 [1,3,H,W], normalized with ImageNet's mean and deviation."""
        values: NDArray[np.float32] = np.ascontiguousarray(frame).astype(np.float32)
        resize = placement.inner != frame.shape[:2]
        if resize and self.resample == "opencv-cubic":
            values = np.asarray(cv2.resize(values, placement.inner[::-1], interpolation=cv2.INTER_CUBIC), np.float32)
        image = _normalize(torch.from_numpy(values))
        if resize and self.resample != "opencv-cubic":
            image = F.interpolate(image, placement.inner, mode=self.resample, align_corners=False)
        return pad(image, placement)

    def labels(self, labels: Tensor, placement: Placement) -> Tensor:
        """Integer labels [height,width] at source size -> [H,W] at the network's, by nearest neighbor, padded with 0."""
        if placement.inner != placement.source:
            rows = nearest(placement.source[0], placement.inner[0], labels.device)
            columns = nearest(placement.source[1], placement.inner[1], labels.device)
            labels = labels[rows][:, columns]
        return pad(labels, placement)

    def to_source(self, values: Tensor, placement: Placement) -> Tensor:
        """Values [S,C,h,w] at the decoder's resolution or at the network's -> [S,C,height,width] at source size, bilinear."""
        if placement.pads:
            values = crop(values, placement)
        if values.shape[-2:] == placement.source:
            return values
        return F.interpolate(values, placement.source, mode="bilinear", align_corners=self.align_corners)


def nearest(source: int, target: int, device: torch.device) -> Tensor:
    """Return indices that `F.interpolate(mode="nearest")` takes from `source` positions for `target` ones: floor(i * source /
    target).
    """
    step = torch.tensor(source / target, dtype=torch.float32)
    positions = torch.floor(torch.arange(target, dtype=torch.float32, device=device) * step).long()
    return positions.clamp_(max=source - 1)


def pad(values: Tensor, placement: Placement) -> Tensor:
    """Add the placement's zeros around the last two dimensions."""
    if not placement.pads:
        return values
    bottom = placement.network[0] - placement.inner[0] - placement.top
    right = placement.network[1] - placement.inner[1] - placement.left
    return F.pad(values, (placement.left, right, placement.top, bottom))


def crop(values: Tensor, placement: Placement) -> Tensor:
    """Take the placement's zeros away again from values at network size."""
    (height, width), top, left = placement.inner, placement.top, placement.left
    return values[..., top : top + height, left : left + width]


def _normalize(pixels: Tensor) -> Tensor:
    return (pixels / 255).sub_(torch.tensor(MEAN, device="cpu")).div_(torch.tensor(STD, device="cpu")).permute(2, 0, 1)[None]
