"""`open_source`: whatever holds frames, as a `Source`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from fractions import Fraction
from os import PathLike
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from vosformer.errors import InputError
from vosformer.io.bags import SCHEME, BagFile
from vosformer.io.folders import image_folder, image_list, image_pattern
from vosformer.io.frames import Source, frame_rate
from vosformer.io.images import read_image
from vosformer.io.levels import Levels
from vosformer.io.live import LiveStream
from vosformer.io.pages import PictureFile, count_pictures, read_by_pillow, series_format
from vosformer.io.stills import Arrays, ImageFiles, Stream, why_unreadable
from vosformer.io.video import VideoFile

_LIST_BYTES = 16 << 20

Frames = str | PathLike[str] | NDArray[np.generic] | Iterable[Any] | Source


def open_source(
    frames: Frames,
    *,
    fps: Fraction | float | None = None,
    allow_truncated: bool = False,
    stream: int | None = None,
    value_range: tuple[float, float] | None = None,
) -> Source:
    """Open anything that holds frames.

    What was guessed, left out or stretched is in the `notes` of the source.

    Args:
        frames: path of a video file, of an image (one or several pictures), of a folder of images, of a text file that lists
            images, or a pattern ("dir/*.png", "dir/%05d.png"); "camera:0" or the address of a stream (rtsp://, http://, ...);
            "bag:run.mcap?topic=/camera/image" of a ROS bag; array
            [T,H,W,3] or [T,H,W], or one image [H,W,3]; sequence of arrays or of image paths; any other iterable of arrays, which is
            then read once; or a `Source`, which is returned.
        fps: frames per second of images and arrays, which do not know it themselves.
        allow_truncated: take what is there of a video file that was cut off.
        stream: which of several video streams, from 0; None: the one that is marked as default, of several the largest.
        value_range: the values that become black and white; None: values of more than 8 bits that fill only a part of their range
            are stretched, all frames alike.

    Raises:
        InputError: it cannot be read; the message names it and says what was found.
    """
    if isinstance(frames, Source):
        return frames
    rate = None if fps is None else frame_rate(fps)
    levels = None if value_range is None else Levels(*value_range)
    if isinstance(frames, str | PathLike):
        text = str(frames)
        if text.startswith(SCHEME):
            return BagFile(text, levels)
        if text.startswith("camera:") or re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", text):
            return LiveStream(text, stream=stream, levels=levels)
        return _open_path(Path(text), rate, allow_truncated, stream, levels)
    if isinstance(frames, np.ndarray):
        single = frames.ndim == 3 and frames.shape[2] in (3, 4)
        return Arrays(frames[None] if single else frames, rate, levels)
    if isinstance(frames, Sequence):
        if frames and all(isinstance(item, str | PathLike) for item in frames):
            paths = [Path(item) for item in cast(Sequence[str], frames)]
            missing = next((path for path in paths if not path.is_file()), None)
            if missing is not None:
                raise InputError(f"{missing}: there is no such file")
            return ImageFiles(paths, f"the list of {len(paths)} images", rate, levels)
        return Arrays(cast(Sequence[NDArray[np.generic]], frames), rate, levels)
    if isinstance(frames, Iterable):
        return Stream(cast(Iterable[NDArray[np.generic]], frames), rate, levels)
    raise InputError(
        f"a {type(frames).__name__} holds no frames: expected a path, an address, an array or an iterable of arrays"
    )


def _open_path(path: Path, fps: Fraction | None, allow_truncated: bool, stream: int | None, levels: Levels | None) -> Source:
    try:
        if path.is_dir():
            return image_folder(path, fps, levels)
        if not path.exists():
            if path.is_symlink():
                raise InputError(f"{path}: {why_unreadable(path)}")
            pattern = image_pattern(str(path), fps, levels)
            if pattern is not None:
                return pattern
            raise InputError(f"{path}: there is no such file or folder")
        with path.open("rb") as file:
            file.read(1)
        listed = image_list(path, fps, levels) if path.stat().st_size < _LIST_BYTES else None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    if listed is not None:
        return listed
    pictures = count_pictures(path)
    if pictures > 1 and read_by_pillow(path):
        return PictureFile(path, fps, levels)
    form = series_format(path) if pictures < 2 else None
    if pictures == 1 and form is None:
        read_image(path)  # a video of one frame that does not decode would hold nothing
        return ImageFiles([path], str(path), fps, levels)
    return VideoFile(path, allow_truncated, stream, levels, form)
