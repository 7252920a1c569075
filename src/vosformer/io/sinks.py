"""Where results go: what every sink can do, and the sinks that write one image per frame."""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL.PngImagePlugin import PngInfo

from vosformer.errors import InputError, OutputError
from vosformer.io.files import make_folder, set_aside, write_bytes
from vosformer.io.frames import Frame
from vosformer.io.label_png import VALUES_ARE_IDS
from vosformer.io.palette import DAVIS_PALETTE, VOID

if TYPE_CHECKING:
    from typing_extensions import Self

Labels = NDArray[np.int32]
Probability = Callable[[int], NDArray[np.float32]]

# Label maps are flat areas: more effort makes them a tenth smaller at several times the time.
_PNG_LEVEL = 3


class Sink(ABC):
    """Takes the results of a video frame by frame, in any order of frame numbers, each frame once.

    What was written is whole at any moment, whatever ends the program. A sink that gathers results in one file keeps them in a part
    file and puts the file together in `close`.

    Attributes:
        name: unique among the sinks of a run.
        soft: whether `write` calls `probability`, which costs time.
        notes: what a user should know about what was written, once it is closed.
    """

    name: str
    soft: bool = False
    notes: tuple[str, ...] = ()

    def check_ids(self, ids: Iterable[int]) -> None:  # noqa: B027 (most sinks take any id)
        """Refuse ids that this sink cannot write, before any work is done.

        Raises:
            OutputError: an id does not fit.
        """

    @abstractmethod
    def write(self, frame: Frame, labels: Labels, scores: Mapping[int, float], probability: Probability) -> None:
        """Take the result of one frame.

        Args:
            frame: with its image, or None if it did not decode.
            labels: integers [H,W] at the size of the source, 0 = background.
            scores: presence score in [0,1] of every object that is tracked at this frame, also of those with no pixel.
            probability: id -> float32 [H,W] in [0,1]; only called if `soft`.

        Raises:
            OutputError: it could not be written (full disk, no permission, an id that does not fit).
        """

    def checkpoint(self) -> dict[str, Any]:
        """Return a small value for JSON from which `restore` knows what was written so far."""
        return {}

    def restore(self, token: Mapping[str, Any] | None) -> None:  # noqa: B027 (files per frame are simply written again)
        """Go back to a checkpoint of this or a former process; None: to the beginning. Called before the first `write`."""

    def set_aside(self) -> None:  # noqa: B027 (single files are replaced as a whole)
        """Move what a former run left in the folder out of the way of a new one. Called before the first
        `write`.
        """

    def present(self, frames: int) -> bool:
        """Tell whether the results of a complete run of so many frames are still there."""
        return True

    def close(self, complete: bool = True) -> None:
        """Finish the files. If not `complete`, what a later process needs to go on is kept; else this ends with `clean`.

        Raises:
            OutputError: a file could not be written.
        """
        self.finish()
        if complete:
            self.clean()

    def finish(self) -> None:  # noqa: B027 (files per frame are done when written)
        """Put the files together and close them."""

    def clean(self) -> None:  # noqa: B027 (files per frame need nothing else)
        """Remove what only a later process would need to go on. Comes last, and may come again."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close(complete=kind is None)


class Sinks(Sink):
    """Several sinks as one."""

    name = "sinks"

    def __init__(self, sinks: Sequence[Sink]) -> None:
        if not isinstance(sinks, Sequence) or not all(isinstance(sink, Sink) for sink in sinks):
            raise InputError(f"sinks are {sinks!r}, expected a list of sinks, e.g. [vosformer.io.LabelImages(folder)]")
        self._sinks = tuple(sinks)
        names = [sink.name for sink in self._sinks]
        if len(set(names)) < len(names):
            raise InputError(f"the sinks are called {', '.join(names)}: every one needs a name of its own")
        self.soft = any(sink.soft for sink in self._sinks)

    def check_ids(self, ids: Iterable[int]) -> None:
        """See `Sink.check_ids`."""
        known = tuple(ids)
        for sink in self._sinks:
            sink.check_ids(known)

    def write(self, frame: Frame, labels: Labels, scores: Mapping[int, float], probability: Probability) -> None:
        """See `Sink.write`."""
        for sink in self._sinks:
            sink.write(frame, labels, scores, probability)

    def checkpoint(self) -> dict[str, Any]:
        """Name of the sink -> its checkpoint."""
        return {sink.name: sink.checkpoint() for sink in self._sinks}

    def set_aside(self) -> None:
        """See `Sink.set_aside`."""
        for sink in self._sinks:
            sink.set_aside()

    def restore(self, token: Mapping[str, Any] | None) -> None:
        """See `Sink.restore`.

        Raises:
            InputError: the checkpoint is of other sinks.
        """
        names = [sink.name for sink in self._sinks]
        if token is not None and set(token) != set(names):
            raise InputError(
                f"the run to resume wrote {', '.join(token)}, not {', '.join(names)}: the beginning would be missing"
            )
        for sink in self._sinks:
            sink.restore(None if token is None else token[sink.name])

    def present(self, frames: int) -> bool:
        """Tell whether those of all are."""
        return all(sink.present(frames) for sink in self._sinks)

    def close(self, complete: bool = True) -> None:
        """Close all, even if one fails; then raise the first error. Only if none fails is anything cleaned away."""
        errors: list[Exception] = []
        for sink in self._sinks:
            try:
                sink.close(complete=False)
            except Exception as error:
                errors.append(error)
        self.notes = tuple(note for sink in self._sinks for note in sink.notes)
        if errors:
            raise errors[0]
        if complete:
            self.clean()

    def clean(self) -> None:
        """See `Sink.clean`."""
        for sink in self._sinks:
            sink.clean()


class LabelImages(Sink):
    """One image per frame whose pixels are ids: `folder/<frame>.png`.

    Args:
        folder: is created.
        palette: uint8 RGB [256,3] of the indexed PNG; None takes the DAVIS palette.
        bits: 8 for an indexed PNG, ids up to 255; 16 for a gray PNG, ids up to 65535.

    Raises:
        OutputError: the folder cannot be created.
    """

    def __init__(self, folder: str | Path, palette: NDArray[np.uint8] | None = None, bits: int = 8) -> None:
        folder = Path(folder)
        self.name = folder.name
        self._folder = make_folder(folder)
        self._bits = bits
        self._palette = (DAVIS_PALETTE if palette is None else palette).tobytes()

    def check_ids(self, ids: Iterable[int]) -> None:
        """Refuse ids below 0, and above 255 (65535 with 16 bits)."""
        limit = (1 << self._bits) - 1
        ids = tuple(ids)
        if min(ids, default=0) < 0:
            raise OutputError(f"{self._folder}: the id {min(ids)} does not fit a PNG, which holds no negative ids")
        large = sorted(number for number in ids if number > limit)
        if large:
            other = "a 16-bit PNG, which holds ids up to 65535, or " if self._bits == 8 and large[-1] < 65536 else ""
            raise OutputError(
                f"{self._folder}: the {'id' if len(large) == 1 else 'ids'} {', '.join(map(str, large[:5]))} do not fit an "
                f"{self._bits}-bit PNG, which holds ids up to {limit}; choose {other}COCO RLE, which holds any"
            )

    def write(self, frame: Frame, labels: Labels, scores: Mapping[int, float], probability: Probability) -> None:
        """See `Sink.write`."""
        if int(labels.min()) < 0 or int(labels.max()) >= 1 << self._bits:
            self.check_ids(int(number) for number in np.unique(labels))
        path = self._folder / f"{frame.name}.png"
        write_bytes(path, gray16_png(labels) if self._bits == 16 else indexed_png(labels, self._palette))

    def set_aside(self) -> None:
        """See `Sink.set_aside`."""
        self.notes = set_aside(self._folder, "*.png")

    def present(self, frames: int) -> bool:
        """See `Sink.present`."""
        return sum(1 for _ in self._folder.glob("*.png")) >= frames


def indexed_png(labels: NDArray[np.integer[Any]], palette: bytes = DAVIS_PALETTE.tobytes()) -> bytes:
    """Return an indexed PNG file of ids 0 to 255 [H,W] with a palette of 768 bytes RGB (default: that of DAVIS)."""
    image = Pillow.fromarray(labels.astype(np.uint8))
    image.putpalette(palette)
    return _label_png(image, bool((labels == VOID).any()))


def gray16_png(labels: NDArray[np.integer[Any]]) -> bytes:
    """Return a 16-bit gray PNG file of ids 0 to 65535 [H,W]; its comment says that they are ids."""
    return _label_png(Pillow.fromarray(labels.astype(np.uint16)), True)


def _label_png(image: Pillow.Image, says_ids: bool) -> bytes:
    buffer, comment = io.BytesIO(), PngInfo()
    if says_ids:
        comment.add_text("Comment", VALUES_ARE_IDS)
    image.save(buffer, "PNG", compress_level=_PNG_LEVEL, pnginfo=comment)
    return buffer.getvalue()


class _PerObject(Sink):
    """One image per object and frame: `folder/<id>/<frame>.png`."""

    def __init__(self, folder: str | Path) -> None:
        folder = Path(folder)
        self.name = folder.name
        self._folder = make_folder(folder)
        self._made: set[int] = set()

    def write(self, frame: Frame, labels: Labels, scores: Mapping[int, float], probability: Probability) -> None:
        """See `Sink.write`. Objects without any pixel get an empty image, so that every sequence is whole."""
        ids = {int(number) for number in np.unique(labels)} | set(scores)
        for number in sorted(ids - {0}):
            if number not in self._made:
                make_folder(self._folder / str(number))
                self._made.add(number)
            write_bytes(self._folder / str(number) / f"{frame.name}.png", self._image(frame, labels, number, probability))

    def set_aside(self) -> None:
        """See `Sink.set_aside`."""
        self.notes = set_aside(self._folder, "[0-9]*/*.png")
        self._made.clear()

    def present(self, frames: int) -> bool:
        """See `Sink.present`; how many images there were of each object is not known."""
        return not frames or any(self._folder.glob("*/*.png"))

    def _image(self, frame: Frame, labels: Labels, number: int, probability: Probability) -> bytes:
        raise NotImplementedError


class ObjectImages(_PerObject):
    """One black and white PNG (0 and 255) per object and frame: `folder/<id>/<frame>.png`.

    Raises:
        OutputError: the folder cannot be created.
    """

    def _image(self, frame: Frame, labels: Labels, number: int, probability: Probability) -> bytes:
        return png(np.where(labels == number, np.uint8(255), np.uint8(0)))


class CutOuts(_PerObject):
    """One RGBA PNG per object and frame, the alpha being the object's probability: `folder/<id>/<frame>.png`.

    The color is black where the frame did not decode.

    Raises:
        OutputError: the folder cannot be created.
    """

    soft = True

    def _image(self, frame: Frame, labels: Labels, number: int, probability: Probability) -> bytes:
        bgra = np.zeros((*labels.shape, 4), np.uint8)
        if frame.image is not None:
            bgra[:, :, :3] = frame.image[:, :, ::-1]
        bgra[:, :, 3] = np.rint(np.clip(probability(number), 0, 1) * 255).astype(np.uint8)
        return png(bgra)


def png(pixels: NDArray[Any]) -> bytes:
    """Return a PNG file of gray [H,W] (uint8, uint16) or BGRA [H,W,4] (uint8) pixels."""
    done, data = cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, _PNG_LEVEL])
    if not done:
        raise OutputError(f"an image of shape {pixels.shape} cannot be written as PNG")
    return bytes(data)
