"""Sources made of images: files, arrays in memory, an iterator of arrays."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vosformer.errors import InputError
from vosformer.io.frames import Frame, Source, check_live_range, frame_name, frame_range
from vosformer.io.images import SUFFIXES, image_size, is_linear, read_pixels, to_rgb
from vosformer.io.levels import SAMPLES, Levels, find_levels

_POINTER_BYTES = 1024


class ImageFiles(Source):
    """Image files, one a frame, in the order given.

    Files that do not decode give frames without an image. The fingerprint covers the names and sizes of the files.

    Args:
        paths: of the files.
        name: what messages call the source.
        fps: frames per second, if known.
        levels: values that become black and white; None: values of more than 8 bits are stretched as some of the files need it.

    Raises:
        InputError: there is no file, none decodes, sizes differ, or two files have the same stem.
    """

    def __init__(self, paths: Sequence[Path], name: str, fps: Fraction | None = None, levels: Levels | None = None) -> None:
        self.name, self.fps = name, fps
        self._paths = tuple(paths)
        if not self._paths:
            raise InputError(f"{name} has no images: expected files of the kinds {_kinds()}")
        self._numbers = {path.stem: number for number, path in enumerate(self._paths)}
        if len(self._numbers) < len(self._paths):
            stem = Counter(path.stem for path in self._paths).most_common(1)[0][0]
            same = ", ".join(path.name for path in self._paths if path.stem == stem)
            raise InputError(f"{name} has several images named {stem!r} ({same}): their results would overwrite each other")
        # A range that is chosen counts for linear light, too, which keeps its curve.
        self._chosen = None if levels is None else {False: levels, True: levels._replace(linear=True)}
        sizes = [image_size(path) for path in self._paths]
        self.height, self.width = self._size(sizes)
        readable = [path for path, size in zip(self._paths, sizes, strict=True) if size is not None]
        self._deep = {} if levels is not None else self._ranges(readable)

    def _size(self, sizes: Sequence[tuple[int, int] | None]) -> tuple[int, int]:
        known = [(path, size) for path, size in zip(self._paths, sizes, strict=True) if size is not None]
        if not known:
            why = why_unreadable(self._paths[0])
            raise InputError(
                f"{self.name}: none of its {len(self._paths)} images can be read; the first is {self._paths[0].name} ({why})"
            )
        first_path, first = known[0]
        others = [(path, size) for path, size in known if size != first]
        if others:
            path, size = others[0]
            raise InputError(
                f"{path} is {size[1]} x {size[0]} pixels, but {first_path.name} is {first[1]} x {first[0]}: "
                f"the frames of a video must have one size ({len(others)} of {len(known)} differ: "
                f"{', '.join(path.name for path, _ in others[:5])}); scale them, or take them out of the folder"
            )
        return first

    def _ranges(self, readable: Sequence[Path]) -> dict[Any, Levels]:
        """Return the range of every type of more than 8 bits, from pictures of all parts of the source; 8 bits stay as they
        are.
        """
        samples: dict[Any, list[NDArray[np.generic]]] = {}
        for path in readable[:: -(-len(readable) // SAMPLES)]:
            with suppress(InputError):
                values = read_pixels(path)
                if values.dtype == np.uint8 and not samples:
                    break  # most sources: one picture tells
                if values.dtype != np.uint8:
                    kind = (values.dtype, _is_light(path, values))
                    samples.setdefault(kind, []).append(values[..., :3] if values.ndim == 3 else values)
        ranges = {kind: find_levels(found, kind[1]) for kind, found in samples.items()}
        for kind, levels in ranges.items():
            if levels.stretched:
                self.notes.add(f"{self.name}: {levels.describe(len(samples[kind]))}")
        return ranges

    @property
    def count(self) -> int:
        """Number of files."""
        return len(self._paths)

    def frames(self, start: int | None = None, stop: int | None = None, step: int = 1) -> Iterator[Frame]:
        """See `Source.frames`."""
        numbers = frame_range(self, start, stop, step)
        return map(self._frame, numbers)

    def _frame(self, number: int) -> Frame:
        path = self._paths[number]
        time = None if self.fps is None else float(number / self.fps)
        try:
            values = read_pixels(path)
            light = _is_light(path, values)
            levels = self._deep.get((values.dtype, light)) if self._chosen is None else self._chosen[light]
            image = to_rgb(values, str(path), levels, light)
        except InputError as error:
            return Frame(number, path.stem, None, time, why_unreadable(path) if path.is_symlink() else str(error))
        if image.shape[:2] != (self.height, self.width):
            raise InputError(f"{path} is {image.shape[1]} x {image.shape[0]} pixels: expected {self.width} x {self.height}")
        return Frame(number, path.stem, image, time)

    def name_of(self, number: int) -> str:
        """Return the stem of the file."""
        return self._paths[number].stem

    def find(self, name: str) -> int | None:
        """Return the number of the file with that stem, or None."""
        return self._numbers.get(name)

    def fingerprint(self) -> str:
        """Hash of the names and sizes of the files."""
        digest = hashlib.sha256()
        for path in self._paths:
            size = path.stat().st_size if path.exists() else -1
            digest.update(f"{path.name}\0{size}\0".encode("utf-8", "surrogateescape"))
        return f"images:{digest.hexdigest()}"


def _is_light(path: Path, values: NDArray[np.generic]) -> bool:
    return values.dtype == np.float32 and is_linear(path)


def why_unreadable(path: Path) -> str:
    """Say what is wrong with a picture that does not decode."""
    if path.is_symlink() and not path.exists():
        return f"it is a link to {path.readlink()}, which is not there: files of DVC or git-annex have to be fetched first"
    if path.exists() and path.stat().st_size < _POINTER_BYTES and path.read_bytes().startswith(b"version https://git-lfs"):
        return "it is a pointer of Git LFS, not the picture itself: fetch it first"
    try:
        read_pixels(path)
    except InputError as error:
        return str(error)
    return "it does not decode"


def _kinds() -> str:
    return " ".join(sorted(SUFFIXES))


class Arrays(Source):
    """Frames that are in memory already.

    Args:
        images: array [T,H,W,C] or [T,H,W], or a sequence of arrays [H,W,C] or [H,W]; uint8, uint16 or float32, C = 1, 3 (RGB)
            or 4. An element that is None is a frame without an image.
        fps: frames per second, if known.
        levels: see `ImageFiles`.

    Raises:
        InputError: there is no frame, or shapes or dtypes do not fit.
    """

    def __init__(
        self,
        images: NDArray[np.generic] | Sequence[NDArray[np.generic] | None],
        fps: Fraction | None = None,
        levels: Levels | None = None,
    ) -> None:
        self.name, self.fps = "the array of frames", fps
        if isinstance(images, np.ndarray) and images.ndim not in (3, 4):
            raise InputError(f"an array of frames has shape {images.shape}: expected [T,H,W,3] or [T,H,W]")
        self._images = images
        first = next((image for image in images if image is not None), None)
        if first is None:
            raise InputError(f"{self.name} is empty: expected at least one frame")
        self.height, self.width = to_rgb(np.asarray(first), "frame 0").shape[:2]
        self._levels = levels
        if levels is None and np.asarray(first).dtype != np.uint8:
            some = [np.asarray(image) for image in images[:: -(-len(images) // SAMPLES)] if image is not None]
            self._levels = find_levels([image[..., :3] if image.ndim == 3 else image for image in some])
            if self._levels.stretched:
                self.notes.add(f"{self.name}: {self._levels.describe(len(some))}")

    @property
    def count(self) -> int:
        """Number of arrays."""
        return len(self._images)

    def frames(self, start: int | None = None, stop: int | None = None, step: int = 1) -> Iterator[Frame]:
        """See `Source.frames`."""
        numbers = frame_range(self, start, stop, step)
        return (_array_frame(self, number, self._images[number], self._levels) for number in numbers)

    def fingerprint(self) -> str:
        """Hash of all pixels."""
        digest = hashlib.sha256()
        for image in self._images:
            array = np.ascontiguousarray([] if image is None else image)
            digest.update(f"{array.shape}{array.dtype}".encode())
            digest.update(array.tobytes())
        return f"arrays:{digest.hexdigest()}"


class Stream(Source):
    """Frames from any iterable of arrays; they are taken one by one and never again.

    Args:
        images: arrays [H,W,C] or [H,W] as in `Arrays`; None is a frame without an image. They are copied, since generators often
            fill the same buffer again.
        fps: frames per second, if known.
        levels: see `ImageFiles`; here the first frame decides.

    Raises:
        InputError: the iterable is empty or its first array does not fit.
    """

    live = True

    def __init__(
        self, images: Iterable[NDArray[np.generic] | None], fps: Fraction | None = None, levels: Levels | None = None
    ) -> None:
        self.name, self.fps, self._levels = "the iterator of frames", fps, levels
        iterator = iter(images)
        seen: list[NDArray[np.generic] | None] = []
        for image in iterator:
            seen.append(image)
            if image is not None:
                self.height, self.width = to_rgb(np.asarray(image), "frame 0").shape[:2]
                if levels is None and np.asarray(image).dtype != np.uint8:
                    self._levels = find_levels([np.asarray(image)])
                break
        else:
            raise InputError(f"{self.name} is empty: expected at least one frame")
        self._images = enumerate(chain(seen, iterator))

    @property
    def count(self) -> None:
        """Unknown."""
        return

    def frames(self, start: int | None = None, stop: int | None = None, step: int = 1) -> Iterator[Frame]:
        """See `Source.frames`; frames that were passed over are gone."""
        check_live_range(self, start, step)
        first = start or 0
        if stop is not None and stop <= first:
            return
        for number, image in self._images:
            if number >= first and (number - first) % step == 0:
                yield _array_frame(self, number, None if image is None else np.array(image), self._levels)
            if stop is not None and number + 1 >= stop:
                return


def _array_frame(source: Source, number: int, image: NDArray[np.generic] | None, levels: Levels | None) -> Frame:
    time = None if source.fps is None else float(number / source.fps)
    if image is None:
        return Frame(number, frame_name(number), None, time, "the source gave no image")
    rgb = to_rgb(image, f"frame {number} of {source.name}", levels)
    if rgb.shape[:2] != (source.height, source.width):
        raise InputError(
            f"frame {number} of {source.name} is {rgb.shape[1]} x {rgb.shape[0]} pixels: expected {source.width} x {source.height}"
        )
    return Frame(number, frame_name(number), rgb, time)
