"""What is to be read and scored of each sequence, found out before the long part starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vosformer.errors import DataError
from vosformer.evaluation.layout import MaskFolders, first_of, mask_files
from vosformer.evaluation.masks import Labels, labels_present, read_labels
from vosformer.evaluation.rules import VOID, Rules

_CHUNK_PIXELS = 1_700_000  # of label maps that one task reads: 4 frames of 480p
_CHUNK_FRAMES = 32


@dataclass(frozen=True)
class Plan:
    """What is to be read of one sequence.

    Attributes:
        name: of the sequence.
        frames: names of the frames with true masks, in order, from the first one with an object on.
        truth: the file of each.
        results: frame name -> result file; frames that it lacks are empty masks.
        ids: the objects of the first frame.
        binary: every label is object 1 (by the rules, or because 255 is the only label of the first frame).
        size: (height, width) of the masks.
    """

    name: str
    frames: tuple[str, ...]
    truth: tuple[Path, ...]
    results: dict[str, Path]
    ids: tuple[int, ...]
    binary: bool
    size: tuple[int, int]

    @property
    def chunk(self) -> int:
        """Frames that one task reads."""
        return max(1, min(_CHUNK_PIXELS // (self.size[0] * self.size[1]), _CHUNK_FRAMES))

    def counted(self, rules: Rules, first: int = 0) -> range:
        """Numbers of the frames that count for an object whose first mask is on frame `first`."""
        return range(first if rules.given else first + 1, len(self.frames) - (not rules.last))


def missing_frames(plan: Plan, rules: Rules) -> list[str]:
    """Names of the frames that count and have no result."""
    return [plan.frames[t] for t in plan.counted(rules) if plan.frames[t] not in plan.results]


def make_plans(names: Sequence[str], truth: MaskFolders, results: MaskFolders, rules: Rules, zero: bool) -> list[Plan]:
    """The plans of all sequences.

    Args:
        names: the sequences.
        truth: the true masks.
        results: the result masks.
        rules: see `Rules`.
        zero: result frames and sequences that are missing count as empty masks.

    Raises:
        DataError: result sequences or frames are missing; a sequence has no objects or no frames that count.
    """
    folders = _result_folders(names, truth, results, zero)
    plans = [_plan(name, truth.sequences[name], folders.get(name), rules) for name in names]
    gaps = [(plan.name, missing_frames(plan, rules)) for plan in plans]
    missing = [f"{name}/{frame}.png" for name, frames in gaps for frame in frames]
    if missing and not zero:
        hit = sum(bool(frames) for _, frames in gaps)
        wanted = sum(len(plan.counted(rules)) for plan in plans)
        raise DataError(
            f"{results.root} lacks {len(missing)} of {wanted} frames, in {hit} of {len(plans)} sequences: {first_of(missing)}. "
            f"To count them as empty masks: missing = zero"
        )
    return plans


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


def _plan(name: str, folder: Path, result: Path | None, rules: Rules) -> Plan:
    files = mask_files(folder)
    start, ids, first = _first_objects(name, folder, files)
    frames = tuple(files)[start:]
    binary = rules.merged or ids == {VOID}
    if binary:
        ids = frozenset({1})
    elif rules.void != "object":
        ids -= {VOID}
    in_results = {} if result is None else mask_files(result)
    plan = Plan(name, frames, tuple(files[f] for f in frames), in_results, tuple(sorted(ids)), binary, first.shape)
    if not plan.counted(rules):
        raise DataError(
            f"{folder} has {len(files)} true masks, of which the {rules.name} rules count none (the first is given"
            f"{'' if rules.last else ', the last is left out'}); is this a set whose true masks are not public?"
        )
    return plan


def _first_objects(name: str, folder: Path, files: dict[str, Path]) -> tuple[int, frozenset[int], Labels]:
    """Number, ids and labels of the first frame with an object."""
    for number, path in enumerate(files.values()):
        labels = read_labels(path)
        ids = labels_present(labels)
        if ids:
            return number, ids, labels
    raise DataError(f"the sequence {name} has no object in any of its {len(files)} true masks ({folder})")
