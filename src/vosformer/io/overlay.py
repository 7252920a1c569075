"""Videos to look at and to work with: the frames with the masks drawn on them, and what the masks cut out."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from vosformer.errors import OutputError
from vosformer.io.frames import Frame, Image
from vosformer.io.palette import colors
from vosformer.io.parted_video import PART_FRAMES, TICKS, PartedVideo, encoder
from vosformer.io.sinks import Labels, Probability
from vosformer.io.sound import Sound

_TICKS_MPEG4 = 65_535  # a second: it has 16 bits for them
_BT601 = 5  # AVCOL_SPC_BT470BG: the matrix that swscale converts with, so that players show the same colors
_BT709 = 1
_FRINGE_PX = 16  # colors are kept so far around the objects: two blocks of the codec


def draw(image: Image, labels: Labels, palette: NDArray[np.uint8] | None = None, opacity: float = 0.5) -> Image:
    """Lay the objects over an image: each in its color, translucent inside, opaque along its contour.

    Args:
        image: uint8 RGB [H,W,3]; it is not changed.
        labels: integers [H,W], any ids, 0 = nothing.
        palette: uint8 RGB [256,3]; None takes the DAVIS palette.
        opacity: of the color inside, 0 to 1.

    Returns:
        uint8 RGB [H,W,3].
    """
    used, inverse = np.unique(labels, return_inverse=True)
    compact = inverse.reshape(labels.shape).astype(np.uint16)
    table = colors(used.astype(np.int64), palette)
    size = 2 * max(1, round(min(labels.shape) / 360)) + 1
    kernel = np.ones((size, size), np.uint8)
    # Erosion and dilation by numbers differ exactly where two labels are near each other.
    contour = cv2.erode(compact, kernel) != cv2.dilate(compact, kernel)
    painted = table[compact]
    mixed = cv2.addWeighted(image, 1 - opacity, painted, opacity, 0)
    inside = (labels != 0)[:, :, None]
    return np.where(inside, np.where(contour[:, :, None], painted, mixed), image).astype(np.uint8)


class OverlayVideo(PartedVideo):
    """An mp4 of the frames with the masks on them, at the times of the source.

    H.264 where PyAV has libx264, else MPEG-4 part 2. Sides are made even by repeating the last row or column. Frames that did not
    decode are black under their masks. Results may come in any order; the video is in the order of frames and begins at time 0.

    Args:
        path: of the mp4 file.
        fps: frames per second for frames without a time; None means 25.
        palette: uint8 RGB [256,3]; None takes the DAVIS palette.
        opacity: of the colors, 0 to 1.
        codec: FFmpeg's name of an encoder; None chooses.
        pixel_aspect: width of a pixel divided by its height, `Source.pixel_aspect`.
        sound: of the frames, `Source.sound`; copied, or encoded as AAC where mp4 cannot hold it.

    Raises:
        OutputError: the folder cannot be created, or there is no such encoder.
    """

    def __init__(
        self,
        path: str | Path,
        fps: Fraction | float | None = None,
        palette: NDArray[np.uint8] | None = None,
        opacity: float = 0.5,
        codec: str | None = None,
        pixel_aspect: Fraction | float = 1,
        sound: Sound | None = None,
    ) -> None:
        chosen = encoder(*([codec] if codec else ["libx264", "mpeg4"]))
        super().__init__(path, fps, chosen, _TICKS_MPEG4 if chosen == "mpeg4" else TICKS, pixel_aspect, sound)
        self._palette, self._opacity = palette, opacity

    def _picture(self, frame: Frame, labels: Labels, scores: Mapping[int, float], probability: Probability) -> av.VideoFrame:
        image = np.zeros((*labels.shape, 3), np.uint8) if frame.image is None else frame.image
        picture = _even(draw(image, labels, self._palette, self._opacity))
        video = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p")
        video.colorspace = _BT601
        return video

    def _configure(self, stream: Any, picture: av.VideoFrame) -> None:
        stream.pix_fmt = "yuv420p"
        stream.codec_context.colorspace = _BT601
        stream.codec_context.gop_size = PART_FRAMES
        # Without B-frames a part begins and ends where its first and last frame do, and parts can be joined by shifting stamps.
        stream.codec_context.max_b_frames = 0
        if self._codec == "libx264":
            # With its macroblock tree x264 gives small frames other bits from one run to the next (seen at 48 x 32).
            stream.options = {"preset": "veryfast", "crf": "20", "x264-params": "mbtree=0"}
        else:
            stream.codec_context.qmin, stream.codec_context.qmax = 2, 6
            stream.bit_rate = 8 * picture.height * picture.width


class CutOutVideo(PartedVideo):
    """A ProRes 4444 video (mov) of all objects on a transparent ground, for video editors, at the times of the source.

    Alpha (straight, not premultiplied) is the probability that a pixel belongs to an object. Colors are the frame's on the objects
    and 16 pixels around them, else black. Sides are made even by repeating the last row or column. Frames that did not decode are
    black under their masks. See `OverlayVideo` for times and order.

    Args:
        path: of the mov file.
        fps: frames per second for frames without a time; None means 25.
        pixel_aspect: width of a pixel divided by its height, `Source.pixel_aspect`.

    Raises:
        OutputError: the folder cannot be created, the name does not end in .mov, or PyAV lacks the encoder.
    """

    soft = True

    def __init__(self, path: str | Path, fps: Fraction | float | None = None, pixel_aspect: Fraction | float = 1) -> None:
        if Path(path).suffix.lower() != ".mov":
            raise OutputError(f"{path}: ProRes video goes into a .mov file")
        super().__init__(path, fps, encoder("prores_ks"), pixel_aspect=pixel_aspect)

    def _picture(self, frame: Frame, labels: Labels, scores: Mapping[int, float], probability: Probability) -> av.VideoFrame:
        total = np.zeros(labels.shape, np.float32)
        for number in sorted({int(i) for i in np.unique(labels)} | set(scores)):
            if number:
                total += probability(number)
        rgba = np.zeros((*labels.shape, 4), np.uint8)
        rgba[:, :, 3] = np.rint(total.clip(0, 1) * 255)
        if frame.image is not None:
            side = 2 * _FRINGE_PX + 1
            near = cv2.dilate(rgba[:, :, 3], np.ones((side, side), np.uint8)) > 0
            rgba[:, :, :3] = np.where(near[:, :, None], frame.image, 0)
        return av.VideoFrame.from_ndarray(_even(rgba), format="rgba")

    def _configure(self, stream: Any, picture: av.VideoFrame) -> None:
        stream.pix_fmt = "yuva444p10le"
        stream.codec_context.colorspace = _BT709
        stream.options = {"profile": "4444", "alpha_bits": "16"}

    def _encoded(self, picture: av.VideoFrame) -> av.VideoFrame:
        # Its threads write over each other's first pixels in this format, where the width is no multiple of 8 (FFmpeg 8.0).
        video = picture.reformat(format="yuva444p10le", dst_colorspace="ITU709", threads=1)
        video.colorspace = _BT709
        return video


def _even(image: Image) -> Image:
    bottom, right = image.shape[0] % 2, image.shape[1] % 2
    return np.pad(image, ((0, bottom), (0, right), (0, 0)), "edge") if bottom or right else image
