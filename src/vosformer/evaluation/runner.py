"""`evaluate`: score a folder of result masks against the true ones, frame by frame and on all cores."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from vosformer.errors import DataError, InputError
from vosformer.evaluation.groups import Groups
from vosformer.evaluation.layout import find_masks, first_of, select
from vosformer.evaluation.masks import Labels, labels_present, read_labels
from vosformer.evaluation.measures import MEASURES
from vosformer.evaluation.official import official, official_name
from vosformer.evaluation.plan import Plan, make_plans, missing_frames, renamed_frames
from vosformer.evaluation.ranges import Counted
from vosformer.evaluation.report import ObjectScore, Report, Scores, SequenceScore
from vosformer.evaluation.rules import Rules, named_rules
from vosformer.io.palette import VOID

ProgressCallback = Callable[[int, int], None]


def evaluate(
    results: str | Path,
    truth: str | Path,
    *,
    rules: str | Rules = "davis",
    split: str | Path | Sequence[str] | None = None,
    missing: Literal["error", "zero"] = "error",
    seen: str | Path | Sequence[str] | None = None,
    unseen: str | Path | Sequence[str] | None = None,
    workers: int | None = None,
    progress: ProgressCallback | None = None,
) -> Report:
    """Score result masks by a benchmark's rules.

    Both folders may be a sequence (PNG label maps), hold sequences, or have a data set's layout; see `layout.find_masks`. Frames go
    together by name. Result frames that have no true mask do not matter, so results of all frames can be scored on a part of them.
    Masks of 0 and 255 are one object, whatever number the result gives it, and the other way round.

    Args:
        results: folder of the masks to judge.
        truth: folder of the true masks, or the data set's root.
        rules: see `RULES`: "davis", "davis2016", "youtube", "mose", "mosev2", "lvos", "lvos-2022", "vost", "visor", "viposeg", "sav",
            "plain", "plain-void", "all"; or rules of your own.
        split: videos to score: names, or a list in ImageSets ("2017/val") or its file. None: the list in ImageSets that names
            exactly the videos of the results, else every video that has true masks.
        missing: what a result frame or sequence that is not there means, and by rules of no benchmark an object that the results
            never show: an error, or empty masks. By a benchmark's rules such an object counts as empty, as in its own scorer.
        seen: categories of the training set, for rules with groups: names, a file with one a line, or the training set's meta.json.
            None: ``train/meta.json`` beside the true masks, if there is one.
        unseen: LVOS's unseen videos: names, or a file with one a line. None: ``unseen_videos.txt`` beside the true masks.
        workers: threads; None = one a core.
        progress: called with (frames done, frames in all).

    Raises:
        DataError: a folder, frame, sequence or object is missing, masks differ in size or do not decode; the first ones are named.
        InputError: unknown rules or another argument that cannot be used.
    """
    chosen = named_rules(rules) if isinstance(rules, str) else rules
    if missing not in ("error", "zero"):
        raise InputError(f'missing is {missing!r}, expected "error" or "zero"')
    if workers is not None and workers < 1:
        raise InputError(f"workers is {workers}, expected at least 1")
    found, true = find_masks(Path(results)), find_masks(Path(truth), chosen.mask_folders)
    names, list_name = select(true, found, split)
    plans = make_plans(names, true, found, chosen, missing == "zero")
    groups = Groups.find(Path(truth), chosen, seen, unseen)
    notes = _Notes()
    notes.plans(plans, chosen)
    scored: dict[str, list[ObjectScore]] = {}
    for plan, frames in _read_all(plans, chosen, workers or _cores(), progress):
        white = _white(frames)
        if white is not None:
            notes.white.append(plan.name)
            (reread,) = _read_all([replace(plan, white=white)], chosen, workers or _cores(), None)
            plan, frames = reread
        scored.setdefault(_video(plan), []).extend(_objects(plan, frames, chosen, groups, notes))
    notes.check(missing == "zero" or chosen.numbers is not None, str(results))
    sequences = [SequenceScore(name, tuple(o), Scores.mean([one.scores for one in o])) for name, o in scored.items() if o]
    everything = [one for sequence in sequences for one in sequence.objects]
    if not everything:
        raise DataError(f"{truth} has no object with a frame that counts by the {chosen.name} rules")
    names_of = MEASURES[chosen.measure].names
    return Report(
        chosen.name,
        str(results),
        str(truth),
        list_name,
        tuple(sequences),
        Scores.mean([one.scores for one in everything]),
        groups.means(everything, notes.warnings),
        warnings=tuple(notes.texts()),
        measures=(names_of[0], names_of[1]),
        official=official(chosen, sequences),
    )


class _Frame(NamedTuple):
    """What was found on one frame: ids in the true and the result mask, and the values of those that are in either or count."""

    true_ids: frozenset[int]
    result_ids: frozenset[int]
    scores: dict[int, tuple[float, ...]]


@dataclass
class _Notes:
    """What the user must hear of, as "sequence: ids"."""

    lost: list[str] = field(default_factory=list)
    extra: list[str] = field(default_factory=list)
    later: list[str] = field(default_factory=list)
    brief: list[str] = field(default_factory=list)
    gaps: list[str] = field(default_factory=list)
    white: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def plans(self, plans: Sequence[Plan], rules: Rules) -> None:
        """Note what is known before masks are read."""
        gaps = [f"{plan.name} ({len(missing_frames(plan, rules))})" for plan in plans if missing_frames(plan, rules)]
        if gaps:
            self.warnings.append(f"result frames that are missing, counted as empty masks: {first_of(gaps, 10)}")
        renamed = [text for text in map(renamed_frames, plans) if text is not None]
        if renamed:
            self.warnings.append(f"frames go together by name, and here they do not all: {first_of(renamed)}")

    def check(self, lenient: bool, results: str) -> None:
        if self.lost and not lenient:
            raise DataError(
                f"{results} never shows {len(self.lost)} of the objects: {first_of(self.lost)}. If the method has lost them and does "
                f"not write the first frames either: missing = zero"
            )

    def texts(self) -> Iterator[str]:
        kinds = (
            (self.lost, "never shown by the results, counted as empty masks"),
            (self.extra, "ids that the results have and the true masks do not (or not in the first frame), not scored"),
            (self.later, "ids that appear after the first true mask, which these rules do not score"),
            (self.brief, "ids that have no frame that counts"),
            (self.gaps, "ids that no true mask has, counted nevertheless, as the official scorer counts 1 to the highest id"),
            (
                self.white,
                "results of only 0 and 255 (white), taken for the only object; the official scorer sees another id there",
            ),
        )
        yield from self.warnings
        yield from (f"{what}: {first_of(where, 10)}" for where, what in kinds if where)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _read_all(
    plans: Sequence[Plan], rules: Rules, workers: int, progress: ProgressCallback | None
) -> Iterator[tuple[Plan, list[_Frame]]]:
    """Yield every sequence with its frames, in order; at most a few tasks are ahead of the one that is waited for."""
    total = sum(len(plan.frames) for plan in plans)
    tasks = (
        (plan, range(at, min(at + plan.chunk, len(plan.frames))))
        for plan in plans
        for at in range(0, len(plan.frames), plan.chunk)
    )
    waiting: deque[tuple[Plan, Future[list[_Frame]]]] = deque()
    frames: list[_Frame] = []
    done = 0
    with ThreadPoolExecutor(workers, thread_name_prefix="evaluate") as pool:
        try:
            while True:
                for plan, numbers in tasks:
                    waiting.append((plan, pool.submit(_read, plan, numbers, rules)))
                    if len(waiting) > 2 * workers:
                        break
                if not waiting:
                    return
                plan, future = waiting.popleft()
                found = future.result()
                frames += found
                done += len(found)
                if progress is not None:
                    progress(done, total)
                if len(frames) == len(plan.frames):
                    yield plan, frames
                    frames = []
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _read(plan: Plan, numbers: range, rules: Rules) -> list[_Frame]:
    """Read and score some frames of a sequence."""
    truth = np.stack([_checked(plan.truth[t], plan) for t in numbers])
    files = [plan.results.get(plan.frames[t]) for t in numbers]
    result = np.stack([np.zeros(plan.size, np.uint8) if file is None else _checked(file, plan) for file in files])
    void = None
    if plan.binary:
        truth, result = (truth != 0).view(np.uint8), (result != 0).view(np.uint8)
    elif rules.void != "object":
        void = truth == VOID
        truth[void] = 0
    if plan.white is not None:
        result = np.where(result == VOID, plan.white, result)
    true_ids, result_ids = [labels_present(one) for one in truth], [labels_present(one) for one in result]
    ids = frozenset().union(*true_ids, *result_ids) if plan.counted is None else frozenset(plan.counted)
    measure, ignored = MEASURES[rules.measure].frames, void if rules.void == "ignored" else None
    values = {i: np.stack(measure(truth == i, result == i, ignored), 1).tolist() for i in sorted(ids)}
    if plan.absent and rules.absent:
        values = {i: np.zeros_like(rows).tolist() for i, rows in values.items()}
    return [
        _Frame(true_ids[at], result_ids[at], {i: tuple(rows[at]) for i, rows in values.items()}) for at in range(len(numbers))
    ]


def _checked(path: Path, plan: Plan) -> Labels:
    labels = read_labels(path)
    if labels.shape != plan.size:
        raise DataError(
            f"{path} is {labels.shape[1]} x {labels.shape[0]} pixels; the first true mask of {plan.name} ({plan.truth[0]}) is "
            f"{plan.size[1]} x {plan.size[0]}"
        )
    if plan.own_folder and len(labels_present(labels)) > 1:
        raise DataError(f"{path} has several labels, expected the mask of one object: 0 and one other value")
    return labels


def _white(frames: Sequence[_Frame]) -> int | None:
    """Return the only object of the truth, where the results have no label but 255 for it."""
    in_truth = frozenset().union(*(frame.true_ids for frame in frames))
    in_results = frozenset().union(*(frame.result_ids for frame in frames))
    return min(in_truth) if in_results == {VOID} and len(in_truth) == 1 and VOID not in in_truth else None


def _video(plan: Plan) -> str:
    return plan.name.rsplit("/", 1)[0] if plan.own_folder else plan.name


def _objects(plan: Plan, frames: Sequence[_Frame], rules: Rules, groups: Groups, notes: _Notes) -> list[ObjectScore]:
    in_truth = frozenset().union(*(frame.true_ids for frame in frames))
    in_results = frozenset().union(*(frame.result_ids for frame in frames))
    counted = _found(plan, frames, rules) if plan.counted is None else plan.counted
    names = MEASURES[rules.measure].names
    both_empty = (1.0,) * len(names)
    out = []
    for position, (i, one) in enumerate(counted.items(), 1):
        if not one.frames and not one.zeros:
            notes.brief.append(_label(plan, i))
            continue
        if i not in in_results and any(i in frames[t].true_ids for t in one.frames):
            notes.lost.append(_label(plan, i))
        if rules.objects == "counted" and i not in in_truth:
            notes.gaps.append(_label(plan, i))
        # An id that is in neither mask of its chunk of frames has no entry.
        rows = [frames[t].scores.get(i, both_empty) for t in one.frames] + [(0.0,) * len(names)] * one.zeros
        shown = [i in frames[t].true_ids for t in one.frames] + [True] * one.zeros
        number = int(plan.name.rsplit("/", 1)[1]) if plan.own_folder else i
        category, group = groups.of(_video(plan), number)
        out.append(
            ObjectScore.of(
                number,
                tuple(plan.frames[t] for t in one.frames) + ("none",) * one.zeros,
                dict(zip(names, np.array(rows, np.float64).T, strict=True)),
                np.array(shown),
                name=official_name(rules, plan.name, position, i),
                category=category,
                group=group,
            )
        )
    notes.extra += [_label(plan, i) for i in sorted(in_results - set(counted))]
    if plan.counted is not None:
        notes.later += [_label(plan, i) for i in sorted(in_truth - set(counted))]
    return out


def _label(plan: Plan, number: int) -> str:
    return plan.name if plan.own_folder else f"{plan.name} {number}"


def _found(plan: Plan, frames: Sequence[_Frame], rules: Rules) -> dict[int, Counted]:
    """Find the objects of the true masks, and on which frames they count."""
    if rules.objects == "shown":
        limits = plan.limits(rules)
        ids = sorted(frozenset().union(*(frames[t].true_ids for t in limits)))
        first = {i: next(t for t in limits if i in frames[t].true_ids | frames[t].result_ids) for i in ids}
        return {i: Counted(tuple(range(first[i], limits.stop))) for i in ids}
    ids = sorted(frozenset().union(*(frame.true_ids for frame in frames)))
    begins = {i: next(t for t, frame in enumerate(frames) if i in frame.true_ids) for i in ids}
    return {i: Counted(tuple(plan.limits(rules, begins[i]))) for i in ids}
