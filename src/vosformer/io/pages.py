"""Files of several pictures that Pillow reads: TIFF stacks, animated WebP, AVIF, PNG and GIF."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from vosformer.errors import InputError
from vosformer.io.container import check_pixels, open_file
from vosformer.io.files import file_mark
from vosformer.io.frames import Frame, Image, Source, frame_name, frame_range, frame_rate
from vosformer.io.images import cuts_to_8_bits, open_picture, pillow_pixels, to_rgb
from vosformer.io.levels import SAMPLES, Levels, find_levels

# Formats of which every picture is a frame. Further pictures of others are previews, layers or other sizes of the first.
_BY_PILLOW = {"TIFF", "WEBP", "AVIF"}
_ANIMATED = {"PNG", "GIF", *_BY_PILLOW}

_HELD_BYTES = 256 << 20
_SUBFILE = 254  # the tag of TIFF that tells small copies (1) and masks (4) of other pages


class PictureFile(Source):
    """A file of several pictures, one a frame.

    Pages of TIFF that are small copies or masks of others are left out, and so are, with a note, those of another size than most.
    TIFF with colors of 16 bits or floating-point numbers is read by OpenCV, the rest by Pillow. Times are those of the file, if it
    has any.

    Args:
        path: of the file.
        fps: frames per second; None: the file's own, if it has any.
        levels: see `ImageFiles`.

    Raises:
        InputError: no picture in it can be read.
    """

    def __init__(self, path: Path, fps: Fraction | None = None, levels: Levels | None = None) -> None:
        self.name, self._path = str(path), path
        self._reader = _Pages(path)
        with self._reader.open() as pages:
            self._numbers, self.height, self.width = self._frames_of(pages)
            self._levels = levels or self._range(pages)
            seconds = [] if self._reader.timeless(pages) else [_seconds(pages, number) for number in self._numbers]
        timed = fps is None and any(seconds)
        self._times = np.cumsum([0.0, *seconds[:-1]]) if timed else None
        self.fps = frame_rate(len(seconds) / sum(seconds)) if timed else fps

    def _frames_of(self, pages: Any) -> tuple[list[int], int, int]:
        sizes = self._reader.sizes(pages)
        if not sizes:
            raise InputError(f"{self._path}: none of its pictures can be read")
        every = list(sizes.values())
        size = max(every, key=every.count)
        for number, other in sizes.items():
            if other != size:
                text = f"pictures in {self.name} of another size than {size[1]} x {size[0]} pixels were not used"
                self.notes.add(text, number)
        return [number for number, other in sizes.items() if other == size], *size

    def _range(self, pages: Any) -> Levels | None:
        numbers = self._numbers[:: -(-len(self._numbers) // SAMPLES)]
        samples = []
        for number in numbers:
            values = self._reader.page(pages, number)
            if values.dtype == np.uint8:
                return None
            samples.append(values[..., :3] if values.ndim == 3 else values)
        levels = find_levels(samples)
        if levels.stretched:
            self.notes.add(f"{self.name}: {levels.describe(len(samples))}")
        return levels

    @property
    def count(self) -> int:
        """Return number of pictures."""
        return len(self._numbers)

    def frames(self, start: int | None = None, stop: int | None = None, step: int = 1) -> Iterator[Frame]:
        """See `Source.frames`. Backwards, up to 256 MB of decoded pictures are held: animations only decode forwards."""
        numbers = frame_range(self, start, stop, step)
        size = len(numbers) if step > 0 else max(1, _HELD_BYTES // (3 * self.height * self.width))
        for begin in range(0, len(numbers), max(1, size)):
            part = numbers[begin : begin + size]
            found = self._read(part if step > 0 else part[::-1])
            yield from found if step > 0 else reversed(list(found))

    def fingerprint(self) -> str:
        """Hash of the size and the first and last megabyte of the file, and of the range of values."""
        return f"pictures:{file_mark(self._path, f'{len(self._numbers)} {self._levels}')}"

    def _read(self, numbers: range) -> Iterator[Frame]:
        with self._reader.open() as pages:
            for number in numbers:
                try:
                    yield self._frame(number, self._image(pages, number), None)
                except InputError as error:
                    yield self._frame(number, None, str(error))

    def _image(self, pages: Any, number: int) -> Image:
        return to_rgb(self._reader.page(pages, self._numbers[number]), f"picture {number} of {self.name}", self._levels)

    def _frame(self, number: int, image: Image | None, problem: str | None) -> Frame:
        time = float(number / self.fps) if self.fps is not None else None
        if self._times is not None:
            time = float(self._times[number])
        return Frame(number, frame_name(number), image, time, problem)


class _Pages:
    """Opens a file of several pictures with Pillow or, where Pillow lacks its kind of pixels, with OpenCV."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.slices = 0  # pages that OpenCV sees; 0: Pillow reads the file
        try:
            with open_picture(path) as image:
                lacking = cuts_to_8_bits(path, image)
        except InputError:
            lacking = True
        if lacking:
            self.slices = opencv_pages(path)

    def open(self) -> Any:
        """Open the file; a context manager."""
        return _NoHandle() if self.slices else open_picture(self._path)

    def timeless(self, pages: Any) -> bool:
        """Tell whether the format knows no times."""
        return bool(self.slices) or pages.format == "TIFF"

    def sizes(self, pages: Any) -> dict[int, tuple[int, int]]:
        """Page -> (height, width) of the pages that are frames."""
        if self.slices:
            return {number: self.page(pages, number).shape[:2] for number in range(self.slices)}
        found = {}
        for number in range(int(getattr(pages, "n_frames", 1))):
            try:
                pages.seek(number)
            except Exception:  # Pillow's readers raise nearly every kind of exception on broken files.
                break
            if not int(getattr(pages, "tag_v2", {}).get(_SUBFILE, 0)) & 5:
                check_pixels(self._path, pages.height, pages.width)
                found[number] = (pages.height, pages.width)
        return found

    def page(self, pages: Any, number: int) -> NDArray[np.generic]:
        """Return the pixels of a page, see `read_pixels`."""
        if self.slices:
            try:
                done, values = cv2.imreadmulti(str(self._path), start=number, count=1, flags=cv2.IMREAD_UNCHANGED)
            except cv2.error as error:
                raise InputError(f"page {number} of {self._path} does not decode: {str(error).split(chr(10))[0]}") from error
            if not done or not values:
                raise InputError(f"page {number} of {self._path} does not decode")
            page = values[0][:, :, ::-1] if values[0].ndim == 3 and values[0].shape[2] == 3 else values[0]
            return np.asarray(page if page.dtype in (np.uint8, np.uint16) else page.astype(np.float32))
        try:
            pages.seek(number)
            return pillow_pixels(pages)
        except Exception as error:  # as above
            raise InputError(f"picture {number} of {self._path} does not decode: {error}") from error


class _NoHandle:
    def __enter__(self) -> None:
        return None

    def __exit__(self, *error: object) -> None:
        return None


def count_pictures(path: Path) -> int:
    """Return number of pictures in a file that are frames; 1 for kinds of which only the first counts; 0 if it is no picture."""
    try:
        with open_picture(path) as image:
            return int(getattr(image, "n_frames", 1)) if image.format in _ANIMATED else 1
    except InputError:
        return opencv_pages(path)
    except Exception:  # Pillow's readers raise nearly every kind of exception on broken files.
        return 1


def read_by_pillow(path: Path) -> bool:
    """Tell whether `PictureFile` reads a file of several pictures; others are video to FFmpeg."""
    try:
        with open_picture(path) as image:
            return image.format in _BY_PILLOW
    except InputError:
        return opencv_pages(path) > 1


def series_format(path: Path) -> str | None:
    """FFmpeg's name of the format of a file that is one picture after the other, as cameras write raw MJPEG; None for other files.

    Two pictures of one size have to follow each other: behind a JPEG there may be a smaller preview, or the video of a telephone.
    """
    with path.open("rb") as file:
        multipart = file.read(2) == b"--" and b"image/jpeg" in file.read(512)
    form = "mjpeg" if multipart else None
    try:
        if not multipart:
            with open_picture(path) as image:
                if image.format == "MPO":  # a picture and others that belong to it, e.g. for the other eye
                    return None
                form = "mjpeg" if image.format == "JPEG" else None
        with open_file(path, form) as container:
            if not (form or container.format.name.endswith("_pipe")):
                return None
            sizes = [(frame.height, frame.width) for frame in islice(container.decode(video=0), 2)]
            return str(container.format.name) if len(sizes) == 2 and sizes[0] == sizes[1] else None
    except (InputError, av.error.FFmpegError, IndexError):
        return None


def opencv_pages(path: Path) -> int:
    """Return number of pages of a TIFF whose kind of pixels Pillow lacks; 0 for other files."""
    with path.open("rb") as file:
        if file.read(4) not in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
            return 0
    try:
        return int(cv2.imcount(str(path)))
    except cv2.error:
        return 0


def _seconds(pages: Pillow.Image, number: int) -> float:
    """Return how long a picture is shown; 0 where the file does not say."""
    try:
        pages.seek(number)
        pages.load()
    except Exception:  # as above
        return 0.0
    return float(pages.info.get("duration", 0)) / 1000
