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
from PIL import Image as Pillow

from vosformer.errors import InputError
from vosformer.io.frames import Source, frame_rate
from vosformer.io.images import read_image
from vosformer.io.live import LiveStream
from vosformer.io.stills import Arrays, ImageFiles, Stream, image_folder
from vosformer.io.video import VideoFile

Frames = str | PathLike[str] | NDArray[np.generic] | Iterable[Any] | Source


def open_source(frames: Frames, *, fps: Fraction | float | None = None, allow_truncated: bool = False) -> Source:
    """Open anything that holds frames.

    Args:
        frames: path of a video file, of an image or of a folder of images; "camera:0" or the address of a stream (rtsp://,
            http://, ...); array [T,H,W,3] or [T,H,W], or one image [H,W,3]; sequence of arrays or of image paths; any other
            iterable of arrays, which is then read once; or a `Source`, which is returned.
        fps: frames per second of images and arrays, which do not know it themselves.
        allow_truncated: take what is there of a video file that was cut off.

    Raises:
        InputError: it cannot be read; the message names it and says what was found.
    """
    if isinstance(frames, Source):
        return frames
    rate = None if fps is None else frame_rate(fps)
    if isinstance(frames, str | PathLike):
        text = str(frames)
        if text.startswith("camera:") or re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", text):
            return LiveStream(text)
        return _open_path(Path(text), rate, allow_truncated)
    if isinstance(frames, np.ndarray):
        single = frames.ndim == 3 and frames.shape[2] in (3, 4)
        return Arrays(frames[None] if single else frames, rate)
    if isinstance(frames, Sequence):
        if frames and all(isinstance(item, str | PathLike) for item in frames):
            paths = [Path(item) for item in cast(Sequence[str], frames)]
            missing = next((path for path in paths if not path.is_file()), None)
            if missing is not None:
                raise InputError(f"{missing}: there is no such file")
            return ImageFiles(paths, f"the list of {len(paths)} images", rate)
        return Arrays(cast(Sequence[NDArray[np.generic]], frames), rate)
    if isinstance(frames, Iterable):
        return Stream(cast(Iterable[NDArray[np.generic]], frames), rate)
    raise InputError(
        f"a {type(frames).__name__} holds no frames: expected a path, an address, an array or an iterable of arrays"
    )


def _open_path(path: Path, fps: Fraction | None, allow_truncated: bool) -> Source:
    try:
        if path.is_dir():
            return image_folder(path, fps)
        if not path.exists():
            raise InputError(f"{path}: there is no such file or folder")
        with path.open("rb") as file:
            file.read(1)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    pages = _pages(path)
    if pages == 1:
        read_image(path)  # a video of one frame that does not decode would hold nothing
        return ImageFiles([path], str(path), fps)
    if pages > 1 and path.suffix.lower() in (".tif", ".tiff"):
        raise InputError(f"{path} holds {pages} pages: expected one image a file, so save them as a folder of images")
    return VideoFile(path, allow_truncated)


def _pages(path: Path) -> int:
    """Number of pictures in an image file; 0 if the file is none."""
    try:
        with Pillow.open(path) as image:
            # Pillow also opens some kinds of video by their first picture.
            return int(getattr(image, "n_frames", 1)) if image.format != "MPEG" else 0
    except Exception:  # Pillow's readers raise nearly every kind of exception on broken files.
        return 0
