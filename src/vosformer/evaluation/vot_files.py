"""VOT's workspace: sequences with masks and anchors, and results as the vot-toolkit reads and writes them."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vosformer.errors import DataError
from vosformer.evaluation.vot import ST2020, Masks, VotReport, VotRun, run_overlaps, vot_scores, without_slivers

_ANCHOR_GAP = 50  # frames between two anchors where the data set names none
_FPS = 30  # where the data set does not say it
_INITIALIZED = "1"  # what stands in the place of the first region of a run


@dataclass(frozen=True)
class VotVideo:
    """One sequence of a workspace.

    Attributes:
        name: of the sequence.
        folder: that holds it.
        size: (height, width).
        regions: the true masks, as text; see `decode_region`.
        anchors: frame -> 1 for a run forward from it, -1 for one backward.
        fps: frames per second, to which a tracker has to keep up in real time.
    """

    name: str
    folder: Path
    size: tuple[int, int]
    regions: tuple[str, ...]
    anchors: dict[int, int]
    fps: float = _FPS

    def order(self, anchor: int) -> range:
        """Numbers of the frames of a run, in its order."""
        return range(anchor, len(self.regions)) if self.anchors[anchor] > 0 else range(anchor, -1, -1)

    def truth(self, frames: Iterable[int]) -> Masks:
        """Return the true masks: bool [n,H,W]."""
        return np.stack([decode_region(self.regions[t], self.size, self.folder / "groundtruth.txt") for t in frames])

    def images(self) -> list[Path]:
        """Return the frames, in order.

        Raises:
            DataError: there are fewer or more than true masks.
        """
        pattern = _properties(self.folder).get("channels.color", "color/%08d.jpg")
        files = [self.folder / (pattern % number) for number in range(1, len(self.regions) + 1)]
        absent = [path for path in files if not path.is_file()]
        if absent:
            raise DataError(f"{self.folder} lacks {len(absent)} of its {len(files)} frames: {absent[0].name}")
        return files


def read_vot(root: Path) -> list[VotVideo]:
    """Read the sequences of a workspace, or of its folder ``sequences``, in the order of list.txt if there is one.

    Raises:
        DataError: there are none, or a file is missing or cannot be read.
    """
    folder = root / "sequences" if (root / "sequences").is_dir() else root
    listed = folder / "list.txt"
    names = (
        listed.read_text().split()
        if listed.is_file()
        else sorted(path.parent.name for path in folder.glob("*/groundtruth.txt"))
    )
    if not names:
        raise DataError(f"{folder} has no VOT sequences: expected NAME/groundtruth.txt")
    return [_read_video(folder / name) for name in names]


def _read_video(folder: Path) -> VotVideo:
    lines = _lines(folder / "groundtruth.txt")
    properties = _properties(folder)
    try:
        size = (int(properties["height"]), int(properties["width"]))
        fps = int(float(properties.get("fps", _FPS)))  # the toolkit takes whole numbers
    except (KeyError, ValueError) as error:
        raise DataError(f"{folder / 'sequence'} does not say width and height, or a frame rate that is no number") from error
    marks = folder / "anchor.value"
    video = VotVideo(folder.name, folder, size, tuple(lines), {}, fps)
    if marks.is_file():
        values = [int(float(line)) for line in _lines(marks)]
        return replace(video, anchors={t: value for t, value in enumerate(values) if value})
    empty = [not without_slivers(video.truth([t])).any() for t in range(len(lines))]
    return replace(video, anchors=find_anchors(empty))


def find_anchors(empty: Sequence[bool], gap: int = _ANCHOR_GAP) -> dict[int, int]:
    """Place anchors on each `gap`-th frame and the last one that have an object, each towards the end that is farther.

    Args:
        empty: for each frame, the truth has no object on it.
        gap: frames between two anchors.

    Returns:
        frame -> 1 forward, -1 backward.
    """
    last = len(empty) - 1
    return {t: 1 if last - t >= t else -1 for t in sorted({*range(0, last + 1, gap), last}) if not empty[t]}


def evaluate_vot(results: str | Path, truth: str | Path, low: int = ST2020[0], high: int = ST2020[1]) -> VotReport:
    """Score results as the vot-toolkit writes them, by the multi-start protocol.

    Args:
        results: folder with SEQUENCE/SEQUENCE_ANCHOR.txt: ``results/TRACKER/baseline``, or ``realtime`` for the real-time scores.
        truth: the workspace, or its folder ``sequences``.
        low: the shortest length that counts for the expected average overlap.
        high: the length below which it counts.

    Raises:
        DataError: a file is missing or has another form.
        InputError: no lengths between `low` and `high`.
    """
    sequences = {}
    for video in read_vot(Path(truth)):
        runs = [_read_run(video, anchor, Path(results) / video.name) for anchor in video.anchors]
        sequences[video.name] = (len(video.regions), runs)
    return replace(vot_scores(sequences, low, high), results=str(results), truth=str(truth))


def run_file(name: str, anchor: int) -> str:
    """Name the file of a run."""
    return f"{name}_{anchor:08d}.txt"


def run_text(masks: Iterable[Masks]) -> Iterator[str]:
    """Write a run, frame by frame: the code of the initialization for the first mask [H,W], then regions."""
    for number, mask in enumerate(masks):
        yield (encode_region(mask) if number else _INITIALIZED) + "\n"


def _read_run(video: VotVideo, anchor: int, folder: Path) -> VotRun:
    """Read one run: the toolkit's text, else its binary file, which it writes by default."""
    frames = video.order(anchor)
    path = folder / run_file(video.name, anchor)
    binary = path.with_suffix(".bin")
    if binary.is_file() and not path.is_file():
        path, lines = binary, _binary_regions(binary)
    else:
        lines = _lines(path)
    if len(lines) != len(frames):
        raise DataError(
            f"{path} has {len(lines)} regions, the run from frame {anchor} of {video.name} has {len(frames)} frames"
        )
    truth = video.truth(frames)
    found = np.stack([np.zeros(video.size, np.bool_), *(decode_region(line, video.size, path) for line in lines[1:])])
    return VotRun(run_overlaps(truth, found), np.logical_not(without_slivers(truth).any((1, 2))))


def _binary_regions(path: Path) -> list[str]:
    """Read the toolkit's binary form of a run, regions as text.

    A version (int16), the number of regions (uint32), and for each a kind (uint8): 0 a code (uint32), 3 a mask with left, top
    (int16), width, height, number of runs (uint16) and the runs (uint16); other kinds are no masks. Little endian.
    """
    try:
        data = path.read_bytes()
        version, count = struct.unpack_from("<hI", data)
        at, regions = struct.calcsize("<hI"), []
        for _ in range(count):
            (kind,) = struct.unpack_from("<B", data, at)
            if version != 1 or kind not in (0, 3):
                raise DataError(
                    f"{path} has version {version} or a region of kind {kind}, expected version 1 with codes and masks"
                )
            if kind == 0:
                regions.append(str(*struct.unpack_from("<I", data, at + 1)))
                at += 5
                continue
            box = struct.unpack_from("<hhHHH", data, at + 1)
            runs = struct.unpack_from(f"<{box[4]}H", data, at + 11)
            regions.append("m" + ",".join(map(str, [*box[:4], *runs])))
            at += 11 + 2 * box[4]
    except (OSError, struct.error) as error:
        raise DataError(f"{path} cannot be read as a run of the vot-toolkit: {error}") from error
    return regions


def decode_region(text: str, size: tuple[int, int], path: Path) -> Masks:
    """Read a mask ``mX,Y,WIDTH,HEIGHT,RUNS``: row by row in its box, the first run background. Codes (``0``, ``1``) are empty.

    Returns:
        bool [H,W].

    Raises:
        DataError: another form, or runs that are more than the box has pixels.
    """
    mask = np.zeros(size, np.bool_)
    if not text.startswith("m"):
        if "," not in text:
            return mask
        raise DataError(f"{path} has the region {text[:40]!r}, expected a mask mX,Y,WIDTH,HEIGHT,RUNS")
    try:
        left, top, width, height, *runs = (int(part) for part in text[1:].split(","))
        values = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    except ValueError as error:
        raise DataError(f"{path} has the region {text[:40]!r}, expected a mask mX,Y,WIDTH,HEIGHT,RUNS") from error
    if len(values) > width * height or left < 0 or top < 0:
        raise DataError(
            f"{path} has a mask of {len(values)} pixels in a box of {width} x {height} at {left}, {top}: {text[:40]!r}"
        )
    box = np.zeros(width * height, np.bool_)
    box[: len(values)] = values
    inside = box.reshape(height, width)[: max(size[0] - top, 0), : max(size[1] - left, 0)]
    mask[top : top + inside.shape[0], left : left + inside.shape[1]] = inside
    return mask


def encode_region(mask: Masks) -> str:
    """Write a mask [H,W] as ``mX,Y,WIDTH,HEIGHT,RUNS``; an empty one as one pixel of background."""
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    if not rows.size:
        return "m0,0,1,1,1"
    top, left = int(rows[0]), int(columns[0])
    box = mask[top : rows[-1] + 1, left : columns[-1] + 1]
    return ",".join(map(str, [f"m{left}", top, box.shape[1], box.shape[0], *_runs(box.reshape(-1))]))


def _runs(values: NDArray[np.bool_]) -> list[int]:
    changes = np.flatnonzero(np.diff(values)) + 1
    runs = np.diff([0, *changes, len(values)]).tolist()
    return [0, *runs] if values[0] else runs


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error


def _properties(folder: Path) -> dict[str, str]:
    lines = _lines(folder / "sequence") if (folder / "sequence").is_file() else []
    return dict(line.split("=", 1) for line in lines if "=" in line)
