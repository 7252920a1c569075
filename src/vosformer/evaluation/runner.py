"""`evaluate`: score a folder of result masks against the true ones, frame by frame and on all cores."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from vosformer.errors import DataError, InputError
from vosformer.evaluation.groups import Categories
from vosformer.evaluation.layout import find_masks, first_of, select
from vosformer.evaluation.masks import Labels, labels_present, read_labels
from vosformer.evaluation.metrics import FrameScores, label_scores, statistics
from vosformer.evaluation.plan import Plan, make_plans, missing_frames
from vosformer.evaluation.report import ObjectScore, Report, Scores, SequenceScore
from vosformer.evaluation.rules import VOID, Rules, named_rules

Progress = Callable[[int, int], None]


def evaluate(
    results: str | Path,
    truth: str | Path,
    *,
    rules: str | Rules = "davis",
    split: str | Path | Sequence[str] | None = None,
    missing: Literal["error", "zero"] = "error",
    seen: str | Path | Sequence[str] | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Report:
    """J, F and J&F of result masks, by a benchmark's rules.

    Both folders may be a sequence (PNG label maps), hold sequences, or have a data set's layout; see `layout.find_masks`. Frames go
    together by name. Result frames that have no true mask do not matter, so results of all frames can be scored on a part of them.
    Masks of 0 and 255 are one object, whatever number the result gives it.

    Args:
        results: folder of the masks to judge.
        truth: folder of the true masks, or the data set's root.
        rules: see `RULES`: "davis", "davis2016", "youtube", "mose", "lvos", "vost", "plain", "all"; or rules of your own.
        split: sequences to score: names, or a list in ImageSets ("2017/val") or its file. None: the list in ImageSets that names
            exactly the sequences of the results, else every sequence that has true masks.
        missing: what a result frame, sequence or object that is not there means: an error, or an empty mask.
        seen: categories of the training set, for rules with groups: names, a file with one a line, or the training set's meta.json.
            None: ``train/meta.json`` beside the true masks, if there is one.
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
    found, true = find_masks(Path(results)), find_masks(Path(truth))
    names, list_name = select(true, found, split)
    plans = make_plans(names, true, found, chosen, missing == "zero")
    categories = Categories.find(Path(truth), seen) if chosen.groups else Categories()
    notes = _Notes()
    gaps = [f"{plan.name} ({len(missing_frames(plan, chosen))})" for plan in plans if missing_frames(plan, chosen)]
    if gaps:
        notes.warnings.append(f"result frames that are missing, counted as empty masks: {first_of(gaps, 10)}")
    sequences = []
    for plan, frames in _read_all(plans, chosen, workers or _cores(), progress):
        objects = _objects(plan, frames, chosen, categories, notes)
        if objects:
            sequences.append(SequenceScore(plan.name, objects, Scores.mean([one.scores for one in objects])))
    notes.check(missing == "zero", str(results))
    everything = [one for sequence in sequences for one in sequence.objects]
    if not everything:
        raise DataError(f"{truth} has no object with a frame that counts by the {chosen.name} rules")
    groups = _groups(everything, notes) if chosen.groups else {}
    overall = Scores.mean([one.scores for one in everything])
    return Report(
        chosen.name, str(results), str(truth), list_name, tuple(sequences), overall, groups, warnings=tuple(notes.texts())
    )


class _Frame(NamedTuple):
    """What was found on one frame: ids in the true and the result mask, and J and F of those that are in either."""

    true_ids: frozenset[int]
    result_ids: frozenset[int]
    scores: dict[int, tuple[float, float]]


@dataclass
class _Notes:
    """What the user must hear of, as "sequence: ids"."""

    lost: list[str] = field(default_factory=list)
    extra: list[str] = field(default_factory=list)
    later: list[str] = field(default_factory=list)
    brief: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def check(self, zero: bool, results: str) -> None:
        if self.lost and not zero:
            raise DataError(
                f"{results} never shows {len(self.lost)} of the objects: {first_of(self.lost)}. If the method has lost them and does "
                f"not write the first frames either: missing = zero"
            )

    def texts(self) -> Iterator[str]:
        kinds = (
            (self.lost, "never shown by the results, counted as empty masks"),
            (self.extra, "ids that the results have and the true masks do not (or not in the first frame), not scored"),
            (self.later, "ids that appear after the first true mask, which these rules do not score"),
            (self.brief, "ids that appear too late to have a frame that counts"),
        )
        yield from self.warnings
        yield from (f"{what}: {first_of(where, 10)}" for where, what in kinds if where)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _read_all(
    plans: Sequence[Plan], rules: Rules, workers: int, progress: Progress | None
) -> Iterator[tuple[Plan, list[_Frame]]]:
    """Every sequence with its frames, in order; at most a few tasks are ahead of the one that is waited for."""
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
    true_ids, result_ids = [labels_present(one) for one in truth], [labels_present(one) for one in result]
    ids = frozenset().union(*true_ids, *result_ids) if rules.later else frozenset(plan.ids)
    scores = label_scores(truth, result, sorted(ids), void=void if rules.void == "ignored" else None)
    return [
        _Frame(
            true_ids[at], result_ids[at], {i: (float(one.j[at]), float(one.f[at])) for i, one in scores.items()}
        )
        for at in range(len(numbers))
    ]  # fmt: skip


def _checked(path: Path, plan: Plan) -> Labels:
    labels = read_labels(path)
    if labels.shape != plan.size:
        raise DataError(
            f"{path} is {labels.shape[1]} x {labels.shape[0]} pixels; the first true mask of {plan.name} ({plan.truth[0]}) is "
            f"{plan.size[1]} x {plan.size[0]}"
        )
    return labels


def _groups(objects: Sequence[ObjectScore], notes: _Notes) -> dict[str, Scores]:
    """The means over objects of seen and of unseen categories."""
    if any(one.seen is None for one in objects):
        notes.warnings.append(
            "seen and unseen categories are not told apart: that needs the validation set's meta.json beside the true masks, and the "
            "training set's one (train/meta.json, or named by seen)"
        )
        return {}
    parts = {name: [one.scores for one in objects if one.seen is (name == "seen")] for name in ("seen", "unseen")}
    return {name: Scores.mean(scores) for name, scores in parts.items() if scores}


def _objects(
    plan: Plan, frames: Sequence[_Frame], rules: Rules, categories: Categories, notes: _Notes
) -> tuple[ObjectScore, ...]:
    in_truth = frozenset().union(*(frame.true_ids for frame in frames))
    in_results = frozenset().union(*(frame.result_ids for frame in frames))
    ids = sorted(in_truth if rules.later else plan.ids)
    out = []
    for i in ids:
        first = next(t for t, frame in enumerate(frames) if i in frame.true_ids)
        counted = plan.counted(rules, first)
        if not counted:
            notes.brief.append(f"{plan.name} {i}")
            continue
        if i not in in_results and any(i in frames[t].true_ids for t in counted):
            notes.lost.append(f"{plan.name} {i}")
        # An id that is in neither mask of its chunk of frames has no entry: both empty, 1.
        values = np.array([frames[t].scores.get(i, (1.0, 1.0)) for t in counted])
        per_frame = FrameScores(values[:, 0], values[:, 1])
        scores = Scores(statistics(per_frame.j), statistics(per_frame.f))
        out.append(ObjectScore(i, tuple(plan.frames[t] for t in counted), per_frame, scores, *categories.of(plan.name, i)))
    notes.extra += [f"{plan.name} {i}" for i in sorted(in_results - set(ids))]
    if not rules.later:
        notes.later += [f"{plan.name} {i}" for i in sorted(in_truth - set(ids))]
    return tuple(out)
