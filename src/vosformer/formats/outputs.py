"""What `--outputs`, `convert --to` and the annotator's exports can name: every sink and every annotation format, and its place."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vosformer.errors import InputError, OutputError
from vosformer.formats import FORMATS, FormatSink, LabeledFrame, LabeledVideo, Mask, ObjectInfo, palette_of
from vosformer.formats.registry import losses
from vosformer.io import (
    CutOuts,
    CutOutVideo,
    Frame,
    LabelImages,
    ObjectImages,
    OverlayVideo,
    ScoresFile,
    Sink,
    Source,
)
from vosformer.io.bag_sink import LabelBag
from vosformer.io.cryptomatte import CryptomatteImages
from vosformer.io.edges import EdgedSinks, Edges
from vosformer.io.frames import frame_name, frame_range
from vosformer.io.mattes import MatteFilms, MatteImages, start_timecode
from vosformer.io.sinks import Probability


@dataclass(frozen=True)
class Setting:
    """What sinks may want to know.

    Attributes:
        source: the frames.
        name: of the video.
        palette: uint8 [256,3] of the mask that was given, or None.
        objects: names, categories and colors.
        pictures: whether formats that can hold the frames' pictures get them.
        edges: what is done to the edges of mattes and cut-outs.
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
        lambda path, setting: OverlayVideo(
            path, setting.source.fps, setting.colors, pixel_aspect=setting.source.pixel_aspect, sound=setting.source.sound
        ),
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
    "ros": ("ros", lambda path, setting: LabelBag(path, setting.source)),
    "matte-png": ("matte-png", lambda path, setting: MatteImages(path, setting.name)),
}


def _films(path: Path, setting: Setting, codec: str) -> Sink:
    source = setting.source
    timecode = None if source.live or not Path(source.name).is_file() else start_timecode(Path(source.name))
    return MatteFilms(path, setting.name, source.fps, source.count, timecode, codec, source.pixel_aspect)


_SUMMARIES = {
    "overlay": "video with the masks on it, H.264",
    "scores": "how surely each object is in each frame, CSV",
    "scores-json": "the same as JSON",
    "cutout": "ProRes 4444 video of all objects on a transparent ground",
    "rle": "COCO run lengths, with scores: the format coco under another name",
    "matte": "a gray ProRes film an object, as long as the source, with its time code",
    "matte-ffv1": "the same as FFV1, lossless, gray of full range",
    "exr": "EXR with Cryptomatte of all objects, by name (needs vosformer[editors])",
    "ros": "a ROS bag of label images with the frames' own stamps (needs vosformer[robotics])",
    "matte-png": "a gray PNG an object and frame, numbered as the source",
}
_WITH_PICTURES = {"overlay", "cutout", "rgba"}
_FILMS = {"overlay", "cutout"}
_SOFT = {"matte", "matte-ffv1", "matte-png", "exr", "cutout", "rgba"}


def is_sink(output: str) -> bool:
    """Tell whether an output is written by a sink of its own, not as an annotation format."""
    return (output in _SINKS and output not in FORMATS) or output in _SOFT


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
    sinks = [_make(output, out / place_of(output), setting) for output in dict.fromkeys(outputs)]
    soft = [sink for sink in sinks if sink.soft]
    if not setting.edges or not soft:
        return sinks
    return [*(sink for sink in sinks if not sink.soft), EdgedSinks(soft, setting.edges)]


def check_edges(outputs: Sequence[str], edges: Edges) -> None:
    """Refuse edges that would change nothing.

    Raises:
        InputError: none of the outputs has soft edges.
        OutputError: a package is missing.
    """
    if edges and not _SOFT & set(outputs):
        raise InputError(
            f"--refine, --grow and --feather change the edges of mattes and cut-outs, and --outputs names none: add one of "
            f"{', '.join(sorted(_SOFT))}"
        )
    edges.check()


def _make(output: str, path: Path, setting: Setting) -> Sink:
    if output in _SINKS:
        return _SINKS[output][1](path, setting)
    return _format(path, output, setting)


def _format(path: Path, name: str, setting: Setting) -> Sink:
    source = setting.source
    pictures = source if setting.pictures and FORMATS[name].pictures != "no" else None
    return FormatSink(path, name, setting.name, source.fps, source.count, setting.objects, pictures)


def render(video: LabeledVideo, output: str, path: Path, setting: Setting, overwrite: bool = False) -> list[str]:
    """Write a labeled video through a sink: overlay, mattes, cut-outs, Cryptomatte.

    Films with pictures show all frames of the source, also those that are not annotated.

    Args:
        video: what to write.
        output: name of the sink.
        path: of the file or folder.
        setting: the frames, which a video without pictures may stand for (`BlankFrames`), and what is done to edges.
        overwrite: replace what is there; else a folder that holds something, or a file, is refused.

    Returns:
        What a user should know.

    Raises:
        InputError: the output needs pictures and there are none, or has no edges to change.
        OutputError: something is there already, or it cannot be written.
    """
    check_edges([output], setting.edges)
    if isinstance(setting.source, BlankFrames) and (output in _WITH_PICTURES or setting.edges.refine):
        raise InputError(
            f"{'--refine' if setting.edges.refine else output} needs the pictures of the frames: give them with --frames"
        )
    if not overwrite and (any(path.iterdir()) if path.is_dir() else path.exists()):
        raise OutputError(f"{path} is there already: choose another place, or allow to overwrite it")
    sink = _make(output, path, setting)
    sink = EdgedSinks([sink], setting.edges) if setting.edges else sink
    bare = 0
    with sink:
        sink.check_ids(video.ids)
        sink.set_aside()
        for frame, labeled in _frames_with_labels(video, setting.source, output in _FILMS):
            bare += labeled is None
            masks = {} if labeled is None else labeled.masks
            labels = LabeledFrame(frame.number, "", masks).labels(video.height, video.width)
            scores = dict.fromkeys(masks, 1.0) | (dict(labeled.scores) if labeled is not None else {})
            sink.write(frame, labels, scores, _as_probability(masks, labels.shape))
    notes = [*(losses(video, FORMATS[output]) if output in FORMATS else ()), *sink.notes]
    return notes if not bare else [*notes, f"{bare} frames of {setting.source.name} have no masks and are shown as they are"]


def _as_probability(masks: Mapping[int, Mask], shape: tuple[int, ...]) -> Probability:
    return lambda i: masks[i].pixels().astype(np.float32) if i in masks else np.zeros(shape, np.float32)


def _frames_with_labels(video: LabeledVideo, source: Source, whole: bool) -> Iterator[tuple[Frame, LabeledFrame | None]]:
    """Yield (frame, its annotation) of the annotated frames, or of the whole source."""
    found: dict[int | None, LabeledFrame] = {source.find(labeled.name): labeled for labeled in video.frames}
    if None in found or len(found) < len(video.frames):
        found = {labeled.number: labeled for labeled in video.frames}
    numbers = sorted(number for number in found if number is not None)
    for frame in source.frames() if whole else source.frames(numbers[0], numbers[-1] + 1):
        if whole or frame.number in found:
            yield frame, found.get(frame.number)


class BlankFrames(Source):
    """The frames of a labeled video without its pictures."""

    def __init__(self, video: LabeledVideo) -> None:
        self.name, self.fps = video.name, video.fps
        self.height, self.width, self._count = video.height, video.width, video.length
        self._names = {frame.number: frame.name for frame in video.frames}

    @property
    def count(self) -> int:
        """Number of frames."""
        return self._count

    def name_of(self, number: int) -> str:
        """See `Source.name_of`."""
        return self._names.get(number, frame_name(number))

    def frames(self, start: int | None = None, stop: int | None = None, step: int = 1) -> Iterator[Frame]:
        """See `Source.frames`; none has a picture."""
        for number in frame_range(self, start, stop, step):
            yield Frame(number, self.name_of(number), None, None if self.fps is None else float(number / self.fps))
