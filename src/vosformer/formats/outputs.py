"""What `--outputs` and the annotator's exports can name: every sink and every annotation format, and where each goes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vosformer.errors import InputError
from vosformer.formats import FORMATS, FormatSink, ObjectInfo, palette_of
from vosformer.io import (
    CutOuts,
    CutOutVideo,
    LabelImages,
    ObjectImages,
    OverlayVideo,
    ScoresFile,
    Sink,
    Source,
)
from vosformer.io.cryptomatte import CryptomatteImages
from vosformer.io.mattes import Edges, MatteFilms, MatteImages, start_timecode


@dataclass(frozen=True)
class Setting:
    """What sinks may want to know.

    Attributes:
        source: the frames.
        name: of the video.
        palette: uint8 [256,3] of the mask that was given, or None.
        objects: names, categories and colors.
        pictures: whether formats that can hold the frames' pictures get them.
        edges: what is done to the edges of mattes.
    """

    source: Source
    name: str
    palette: NDArray[np.uint8] | None = None
    objects: Mapping[int, ObjectInfo] = field(default_factory=dict)
    pictures: bool = False
    edges: Edges = field(default_factory=Edges)

    @property
    def colors(self) -> NDArray[np.uint8] | None:
        """The palette with the objects' own colors."""
        return palette_of(self.objects, self.palette)


_Make = Callable[[Path, Setting], Sink]

# name -> (place in the folder of results, how it is made)
_SINKS: dict[str, tuple[str, _Make]] = {
    "masks": ("masks", lambda path, setting: LabelImages(path, setting.colors)),
    "masks16": ("masks16", lambda path, setting: LabelImages(path, bits=16)),
    "overlay": (
        "overlay.mp4",
        lambda path, setting: OverlayVideo(path, setting.source.fps, setting.colors, pixel_aspect=setting.source.pixel_aspect),
    ),
    "scores": ("scores.csv", lambda path, setting: ScoresFile(path)),
    "scores-json": ("scores.json", lambda path, setting: ScoresFile(path)),
    "objects": ("objects", lambda path, setting: ObjectImages(path)),
    "rgba": ("rgba", lambda path, setting: CutOuts(path)),
    "cutout": ("cutout.mov", lambda path, setting: CutOutVideo(path, setting.source.fps, setting.source.pixel_aspect)),
    "rle": ("rle.json", lambda path, setting: _format(path, "coco", setting)),
    "matte": ("matte", lambda path, setting: _films(path, setting, "prores_ks")),
    "matte-ffv1": ("matte-ffv1", lambda path, setting: _films(path, setting, "ffv1")),
    "exr": (
        "exr",
        lambda path, setting: CryptomatteImages(path, setting.name, {i: item.label for i, item in setting.objects.items()}),
    ),
    "matte-png": ("matte-png", lambda path, setting: MatteImages(path, setting.name, setting.edges)),
}


def _films(path: Path, setting: Setting, codec: str) -> Sink:
    source = setting.source
    timecode = None if source.live or not Path(source.name).is_file() else start_timecode(Path(source.name))
    return MatteFilms(path, setting.name, source.fps, source.count, timecode, setting.edges, codec)


_SUMMARIES = {
    "overlay": "video with the masks on it, H.264",
    "scores": "how surely each object is in each frame, CSV",
    "scores-json": "the same as JSON",
    "cutout": "ProRes 4444 video of all objects on a transparent ground",
    "rle": "COCO run lengths, with scores: the format coco under another name",
    "matte": "a gray ProRes film an object, as long as the source, with its time code",
    "matte-ffv1": "the same as FFV1, lossless, gray of full range",
    "exr": "EXR with Cryptomatte of all objects, by name (needs vosformer[editors])",
    "matte-png": "a gray PNG an object and frame, numbered as the source",
}
_WITH_PICTURES = {"overlay", "cutout", "rgba"}


def output_names() -> tuple[str, ...]:
    """Return all names, those of formats last."""
    return (*_SINKS, *(name for name, form in FORMATS.items() if form.write is not None and name not in _SINKS))


def check_outputs(outputs: Sequence[str]) -> None:
    """Refuse names that are none.

    Raises:
        InputError: nothing is named, or something that there is not.
    """
    if not outputs:
        raise InputError("--outputs names nothing: the results would be lost")
    for name in outputs:
        if name not in output_names():
            near = get_close_matches(name, output_names(), 1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise InputError(f"--outputs has no {name!r}; {hint}There are {', '.join(output_names())}")


def summary_of(output: str) -> str:
    """One line about an output, for lists."""
    return FORMATS[output].summary if output in FORMATS else _SUMMARIES[output]


def needs_pictures(output: str) -> bool:
    """Tell whether an output cannot be written without the frames' pictures."""
    return output in _WITH_PICTURES or (output in FORMATS and FORMATS[output].pictures == "needed")


def place_of(output: str) -> str:
    """Name of the file or folder of an output in the folder of results."""
    return _SINKS[output][0] if output in _SINKS else FORMATS[output].place


def make_sinks(outputs: Sequence[str], out: Path, setting: Setting) -> list[Sink]:
    """Return the sinks of a run."""
    return [_make(output, out / place_of(output), setting) for output in dict.fromkeys(outputs)]


def _make(output: str, path: Path, setting: Setting) -> Sink:
    if output in _SINKS:
        return _SINKS[output][1](path, setting)
    return _format(path, output, setting)


def _format(path: Path, name: str, setting: Setting) -> Sink:
    source = setting.source
    pictures = source if setting.pictures and FORMATS[name].pictures != "no" else None
    return FormatSink(path, name, setting.name, source.fps, source.count, setting.objects, pictures)
