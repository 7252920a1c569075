"""What is to be read and scored of each sequence, found out before the long part starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vosformer.errors import DataError
from vosformer.evaluation.layout import MaskFolders, first_of, mask_files
from vosformer.evaluation.masks import Labels, labels_present, read_labels
from vosformer.evaluation.ranges import Counted, listed
from vosformer.evaluation.rules import Rules
from vosformer.io.palette import VOID

_CHUNK_PIXELS = 1_700_000  # of label maps that one task reads: 4 frames of 480p
_CHUNK_FRAMES = 32


@dataclass(frozen=True)
class Plan:
    """What is to be read of one sequence.

    Attributes:
        name: of the sequence; VIDEO/OBJECT where each object has a folder of its own.
        frames: names of the frames with true masks, in order; where rules do not list them, from the first one with an object on.
        truth: the file of each.
        results: frame name -> result file; frames that it lacks are empty masks.
        counted: id -> the frames that count for it; None = found out when the masks are read.
        binary: every label is one object (by the rules, the layout, or because 255 is the only label of the first frame).
        size: (height, width) of the masks.
        own_folder: the sequence is one object of a video, in a folder of its own.
        absent: the results lack the sequence altogether.
        white: the only object, where the result's labels are 0 and 255 alone and mean it.
    """

    name: str
    frames: tuple[str, ...]
    truth: tuple[Path, ...]
    results: dict[str, Path]
    counted: Mapping[int, Counted] | None
    binary: bool
    size: tuple[int, int]
    own_folder: bool = False
    absent: bool = False
    white: int | None = None

    @property
    def chunk(self) -> int:
        """Frames that one task reads."""
        return max(1, min(_CHUNK_PIXELS // (self.size[0] * self.size[1]), _CHUNK_FRAMES))

    def limits(self, rules: Rules, first: int = 0) -> range:
        """Numbers of the frames that count for an object whose first mask is on frame `first`."""
        return range(first if rules.given else first + 1, len(self.frames) - (not rules.last))

    def needed(self, rules: Rules) -> list[int]:
        """Numbers of the frames that count for any object, as far as that is known before reading."""
        if self.counted is None:
            return list(self.limits(rules))
        return sorted({t for one in self.counted.values() for t in one.frames})


def missing_frames(plan: Plan, rules: Rules) -> list[str]:
    """Names of the frames that count and have no result."""
    return [plan.frames[t] for t in plan.needed(rules) if plan.frames[t] not in plan.results]


def make_plans(names: Sequence[str], truth: MaskFolders, results: MaskFolders, rules: Rules, zero: bool) -> list[Plan]:
    """Make the plans of all videos.

    Args:
        names: the videos.
        truth: the true masks.
        results: the result masks.
        rules: see `Rules`.
        zero: result frames and sequences that are missing count as empty masks.

    Raises:
        DataError: result sequences or frames are missing; a sequence has no objects or no frames that count.
    """
    if truth.objects and not results.objects:
        raise DataError(f"{truth.root} has a folder for each object (VIDEO/OBJECT/*.png), and so must {results.root}")
    sequences = [sequence for name in names for sequence in truth.videos[name]]
    folders = _result_folders(sequences, truth, results, zero)
    plans = [_plan(name, truth, folders.get(name), rules) for name in sequences]
    gaps = [(plan.name, missing_frames(plan, rules)) for plan in plans]
    missing = [f"{name}/{frame}.png" for name, frames in gaps for frame in frames]
    if missing and not zero:
        hit = sum(bool(frames) for _, frames in gaps)
        total = sum(len(plan.needed(rules)) for plan in plans)
        raise DataError(
            f"{results.root} lacks {len(missing)} of {total} frames, in {hit} of {len(plans)} sequences: {first_of(missing)}. "
            f"To count them as empty masks: missing = zero"
        )
    return plans


def renamed_frames(plan: Plan) -> str | None:
    """Say that a result's frames go by other names than the true masks, e.g. counted from 1 instead of 0; else None.

    Result frames without a true mask alone are no sign of it: true masks may be few. Neither are missing ones, which are counted.
    """
    without = [name for name in plan.results if name not in plan.frames]
    missing = [name for name in plan.frames if name not in plan.results]
    if not without or not missing:
        return None
    named = [first_of(f"{name}.png" for name in names) for names in (without, missing)]
    text = f"{plan.name}: {named[0]} belongs to no true mask, and {named[1]} is missing"
    for step in (1, -1):
        if {_moved(name, step) for name in plan.frames} == set(plan.results):
            return f"{text}; all names are {'one higher' if step > 0 else 'one lower'} than those of the true masks"
    return text


def _moved(name: str, step: int) -> str:
    digits = len(name) - len(name.rstrip("0123456789"))
    return f"{name[: len(name) - digits]}{int(name[-digits:]) + step:0{digits}d}" if digits else name


def _result_folders(names: Sequence[str], truth: MaskFolders, results: MaskFolders, zero: bool) -> dict[str, Path]:
    if results.single and len(names) == 1:
        return {names[0]: next(iter(results.sequences.values()))}
    missing = [name for name in names if name not in results.sequences]
    if missing and not zero:
        raise DataError(
            f"{results.root} lacks {len(missing)} of the {len(names)} sequences of {truth.root}: {first_of(missing)} (it has "
            f"{first_of(results.sequences)}). To score a part only, name its sequences or its list in ImageSets (split); to count "
            f"what is missing as empty masks: missing = zero"
        )
    return {name: results.sequences[name] for name in names if name in results.sequences}


def _plan(name: str, masks: MaskFolders, result: Path | None, rules: Rules) -> Plan:
    folder = masks.sequences[name]
    files = mask_files(folder)
    in_results = {} if result is None else mask_files(result)
    if rules.objects in ("counted", "every"):
        start, ids, first = _first_objects(name, folder, files)
        frames, size = tuple(files)[start:], first.shape
        binary = masks.objects or rules.merged or ids == {VOID}
        counted = _first_to_highest(ids, binary, rules, len(frames)) if rules.objects == "counted" else None
    else:
        frames, size = tuple(files), read_labels(next(iter(files.values()))).shape if files else (1, 1)
        counted = listed(rules, masks.root, name, frames) if rules.objects == "listed" else None
        binary = masks.objects
    plan = Plan(name, frames, tuple(files[f] for f in frames), in_results, counted, binary, size, masks.objects, result is None)
    if not plan.needed(rules) and rules.objects != "listed":
        raise DataError(
            f"{folder} has {len(files)} true masks, of which the {rules.name} rules count none (the first is given"
            f"{'' if rules.last else ', the last is left out'}); is this a set whose true masks are not public?"
        )
    return plan


def _first_to_highest(ids: frozenset[int], binary: bool, rules: Rules, frames: int) -> dict[int, Counted]:
    """Count objects as the official scorers do: 1 to the highest id of the first mask, ids that it does not have included."""
    if binary:
        ids = frozenset({1})
    elif rules.void != "object":
        ids -= {VOID}
    # The official code reads 8 bits; beyond, gaps are not counted.
    numbers = range(1, max(ids, default=0) + 1) if max(ids, default=0) < VOID else sorted(ids)
    limits = range(0 if rules.given else 1, frames - (not rules.last))
    return {number: Counted(tuple(limits)) for number in numbers}


def _first_objects(name: str, folder: Path, files: dict[str, Path]) -> tuple[int, frozenset[int], Labels]:
    """Find number, ids and labels of the first frame with an object."""
    for number, path in enumerate(files.values()):
        labels = read_labels(path)
        ids = labels_present(labels)
        if ids:
            return number, ids, labels
    raise DataError(f"the sequence {name} has no object in any of its {len(files)} true masks ({folder})")
