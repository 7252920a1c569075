"""The numbers that each benchmark's own scorer gives, under its names: worked out of the values by frame.

Quirks that change numbers are reproduced, so that a table of ours can stand beside one of theirs. `docs/evaluation.md` tells them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from vosformer.evaluation.metrics import Values, quarter_cuts
from vosformer.evaluation.report import ObjectScore, Official, SequenceScore
from vosformer.evaluation.rules import Rules

Numbers = dict[str, float]


def official(rules: Rules, sequences: Sequence[SequenceScore]) -> Official | None:
    """Work out the numbers of the benchmark's own scorer; None for rules of no benchmark."""
    kinds: dict[str, Callable[[Sequence[SequenceScore]], Official | None]] = {
        "davis": _davis,
        "vost": _vost,
        "lvos": _lvos,
        "mosev2": _mosev2,
        "sav": _sav,
        "viposeg": _viposeg,
        "youtube": _youtube,
    }
    return None if rules.numbers is None else kinds[rules.numbers](sequences)


def official_name(rules: Rules, sequence: str, position: int, number: int) -> str:
    """Name an object as the benchmark's own scorer does.

    Args:
        rules: of the benchmark.
        sequence: its sequence; of SA-V with the object's folder.
        position: of the object among those of its sequence, from 1.
        number: its id.
    """
    if rules.numbers == "sav":
        return sequence if "/" in sequence else f"{sequence}/{number}"
    if rules.merged:
        return sequence
    return f"{sequence}_{position if rules.numbers == 'lvos' else number}"


def official_decay(values: Values) -> float:
    """Take the decay as the DAVIS code does: it keeps the cuts between the quarters in 8 bits, so beyond 256 frames they are others.

    NaN where a quarter is empty then.
    """
    cuts = quarter_cuts(len(values)) % 256
    first, last = (values[cuts[i] : cuts[i + 1] + 1] for i in (0, 3))
    return float(first.mean() - last.mean()) if len(first) and len(last) else math.nan


def _statistics(name: str, values: Values) -> Numbers:
    return {
        f"{name}-Mean": float(values.mean()),
        f"{name}-Recall": float((values > 0.5).mean()),
        f"{name}-Decay": official_decay(values),
    }


def _all(sequences: Sequence[SequenceScore]) -> list[ObjectScore]:
    return [one for sequence in sequences for one in sequence.objects]


def _mean(objects: Sequence[Numbers]) -> Numbers:
    """Mean over objects of each number that they have."""
    return {name: float(np.mean([one[name] for one in objects])) for name in objects[0]}


def _davis(sequences: Sequence[SequenceScore]) -> Official:
    objects = {o.name: _statistics("J", o.per_frame.j) | _statistics("F", o.per_frame.f) for o in _all(sequences)}
    overall = _mean(list(objects.values()))
    score = (overall["J-Mean"] + overall["F-Mean"]) / 2
    return Official(score, {"J&F-Mean": score} | overall, objects)


def _vost(sequences: Sequence[SequenceScore]) -> Official:
    """Take J alone, over all frames and over the last quarter (the paper's J_tr)."""
    objects = {}
    for one in _all(sequences):
        j = one.per_frame.j
        objects[one.name] = _statistics("J", j) | _statistics("J_last", j[math.floor(0.75 * len(j)) :])
    overall = _mean(list(objects.values()))
    return Official(overall["J-Mean"], overall, objects)


def _lvos(sequences: Sequence[SequenceScore]) -> Official | None:
    """Take means over objects of seen and of unseen videos, and the mean of the two."""
    objects = {
        one.name: {"J-Mean": one.scores.j.mean, "F-Mean": one.scores.f.mean, "V-Mean": _variation(one)}
        for one in _all(sequences)
    }
    if any(one.group is None for one in _all(sequences)):
        return Official(math.nan, {}, objects)
    overall: Numbers = {}
    parts = {name: [objects[one.name] for one in _all(sequences) if one.group == name] for name in ("seen", "unseen")}
    for measure in ("J", "F", "V"):
        means = {
            f"{measure}-{name}-Mean": float(np.mean([one[f"{measure}-Mean"] for one in part])) if part else math.nan
            for name, part in parts.items()
        }
        overall |= {f"{measure}-Mean": sum(means.values()) / 2} | means
    score = (overall["J-Mean"] + overall["F-Mean"]) / 2
    return Official(score, {"J&F-Mean": score} | overall, objects)


def _variation(one: ObjectScore) -> float:
    """Take LVOS's V: the standard deviation over frames of (J + F) / 2, its square rounded to 4 decimals."""
    both = (one.per_frame.j + one.per_frame.f) / 2
    return math.sqrt(round(float(((both - both.mean()) ** 2).mean()), 4))


def _mosev2(sequences: Sequence[SequenceScore]) -> Official:
    """Take J, F-dot, F, and J and F-dot while an object is away and after it came back; in per cent."""
    objects: dict[str, Numbers] = {}
    away: list[NDArray[np.float64]] = []
    back: list[NDArray[np.float64]] = []
    for one in _all(sequences):
        (plain,) = one.extra.values()
        both = np.stack([one.per_frame.j, one.per_frame.f])
        numbers = {"J": one.per_frame.j.mean(), "F_new": one.per_frame.f.mean(), "F": plain.mean()}
        gone, returned = (
            [both[:, run].mean(1) for run in runs] if not _without_results(both) else []
            for runs in (_absences(one.shown), _returns(one.shown))
        )
        numbers |= {"J&F_new": (numbers["J"] + numbers["F_new"]) / 2, "J&F": (numbers["J"] + numbers["F"]) / 2}
        for name, found, kept in (("disappear", gone, away), ("reappear", returned, back)):
            mean = np.mean(found, 0) if found else np.full(2, math.nan)
            numbers[f"{name}_J&F_new"] = mean.mean()
            kept.extend([mean] if found else [])
        objects[one.name] = {name: 100 * float(value) for name, value in numbers.items()}
    overall = {name: float(np.mean([one[name] for one in objects.values()])) for name in ("J", "F_new", "F")}
    overall |= {"J&F_new": (overall["J"] + overall["F_new"]) / 2, "J&F": (overall["J"] + overall["F"]) / 2}
    for name, kept in (("disappear", away), ("reappear", back)):
        overall[f"{name}_J&F_new"] = 100 * float(np.mean(kept)) if kept else math.nan
    return Official(overall["J&F_new"] / 100, overall, objects)


def _without_results(both: NDArray[np.float64]) -> bool:
    """Return a video without results has 0 everywhere; with them no frame has J = 0, as J is (I + 1) / (U + 1)."""
    return not both.any()


def _runs(flags: NDArray[np.bool_]) -> Iterator[tuple[bool, slice]]:
    """Yield each stretch of equal values, as its value and its position."""
    at = 0
    for value, same in groupby(flags.tolist()):
        length = len(list(same))
        yield value, slice(at, at + length)
        at += length


def _absences(shown: NDArray[np.bool_]) -> list[slice]:
    return [run for value, run in _runs(shown) if not value and run.start > 0]


def _returns(shown: NDArray[np.bool_]) -> list[slice]:
    return [run for value, run in _runs(shown) if value and run.start > 0]


def _sav(sequences: Sequence[SequenceScore]) -> Official:
    objects = {}
    for one in _all(sequences):
        j, f = 100 * one.scores.j.mean, 100 * one.scores.f.mean
        objects[one.name] = {"J": j, "F": f, "J&F": (j + f) / 2}
    overall = _mean(list(objects.values()))
    return Official(overall["J&F"] / 100, overall, objects)


def _viposeg(sequences: Sequence[SequenceScore]) -> Official:
    """Pool all pairs of frame and object in four groups of classes; and fit the decay with the number of objects."""
    objects = {}
    for one in _all(sequences):
        objects[one.name] = {"miou": one.scores.j.mean, "biou": one.scores.f.mean, "iou": one.scores.jf}
    overall: Numbers = {}
    for group in VIPOSEG_GROUPS:
        parts = [one.per_frame for one in _all(sequences) if one.group == group]
        means = [float(np.concatenate(part).mean()) if parts else math.nan for part in zip(*parts, strict=True)] or [
            math.nan
        ] * 2
        overall |= {f"{group}_miou": means[0], f"{group}_biou": means[1], f"{group}_iou": sum(means) / 2}
    overall["overall_iou"] = float(np.mean([overall[f"{group}_iou"] for group in VIPOSEG_GROUPS]))
    overall["decay"] = _crowd_decay(sequences)
    return Official(overall["overall_iou"], overall, objects)


VIPOSEG_GROUPS = ("thing_seen", "thing_unseen", "stuff_seen", "stuff_unseen")
_MOST_OBJECTS = 60  # frames with as many or more are left out of the decay


def _crowd_decay(sequences: Sequence[SequenceScore]) -> float:
    """Fit -ln(y_k) = decay * k / 100, with y_k the mean over all frames on which k objects are scored."""
    by_number: dict[int, list[float]] = {}
    for sequence in sequences:
        on_frame: dict[str, list[float]] = {}
        for one in sequence.objects:
            for frame, j, f in zip(one.frames, *one.per_frame, strict=True):
                on_frame.setdefault(frame, []).append((j + f) / 2)
        for values in on_frame.values():
            by_number.setdefault(len(values), []).extend(values)
    kept = {k: float(np.mean(values)) for k, values in by_number.items() if k < _MOST_OBJECTS}
    x, y = np.array(list(kept)) / 100, np.array(list(kept.values()))
    with np.errstate(divide="ignore"):
        return float((x * -np.log(y)).sum() / (x * x).sum()) if len(x) else math.nan


def _youtube(sequences: Sequence[SequenceScore]) -> Official | None:
    objects = {one.name: {"J": one.scores.j.mean, "F": one.scores.f.mean} for one in _all(sequences)}
    parts = {name: [o.scores for o in _all(sequences) if o.group == name] for name in ("seen", "unseen")}
    if not all(parts.values()):
        return None
    overall = {
        f"{measure.upper()}_{name}": float(np.mean([getattr(one, measure).mean for one in part]))
        for name, part in parts.items()
        for measure in ("j", "f")
    }
    score = float(np.mean(list(overall.values())))
    return Official(score, {"Overall": score} | overall, objects)
