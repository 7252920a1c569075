"""Groups that objects are scored in: by category (YouTube-VOS), by video (LVOS), by class (VIPOSeg)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vosformer.data.datasets.folders import read_meta
from vosformer.errors import DataError
from vosformer.evaluation.layout import find_meta
from vosformer.evaluation.metrics import statistics
from vosformer.evaluation.ranges import find_beside, read_json
from vosformer.evaluation.report import ObjectScore, Scores
from vosformer.evaluation.rules import Rules
from vosformer.evaluation.viposeg_classes import group_of

Of = Callable[[str, int], tuple[str | None, str | None]]


@dataclass(frozen=True)
class Groups:
    """What is known of the objects' categories and groups.

    Attributes:
        of: (video, id) -> category and group; None for what is not known.
        hint: what the groups need to be known; None = these rules have none.
        pooled: a group's mean is over all frames of all its objects (VIPOSeg), not over objects.
    """

    of: Of = lambda _, __: (None, None)
    hint: str | None = None
    pooled: bool = False

    @staticmethod
    def find(
        truth: Path, rules: Rules, seen: str | Path | Sequence[str] | None, unseen: str | Path | Sequence[str] | None
    ) -> Groups:
        """Read what lies beside the true masks.

        Args:
            truth: folder of the true masks or the data set's root.
            rules: see `Rules`.
            seen: YouTube-VOS's training categories: names, a file with one a line, or the training set's meta.json; None = look for
                ``train/meta.json`` beside the truth.
            unseen: LVOS's unseen videos: names or a file with one a line; None = look for ``unseen_videos.txt`` beside the truth.

        Raises:
            DataError: a file cannot be read.
        """
        if rules.numbers == "lvos":
            return _lvos(truth, unseen)
        if rules.numbers == "viposeg":
            return _viposeg(truth)
        return _youtube(truth, seen) if rules.groups else Groups()

    def means(self, objects: Sequence[ObjectScore], warnings: list[str]) -> dict[str, Scores]:
        """Take the mean of each group, in the order of names; without any, where a group is not known, and say so."""
        if self.hint is None:
            return {}
        if any(one.group is None for one in objects) and not self.pooled:
            warnings.append(self.hint)
            return {}
        names = sorted({one.group for one in objects if one.group is not None})
        parts = {name: [one for one in objects if one.group == name] for name in names}
        return {name: self._mean(part) for name, part in parts.items()}

    def _mean(self, objects: Sequence[ObjectScore]) -> Scores:
        if not self.pooled:
            return Scores.mean([one.scores for one in objects])
        j, f = (np.concatenate(values) for values in zip(*(one.per_frame for one in objects), strict=True))
        return Scores(statistics(j), statistics(f))


def _youtube(truth: Path, seen: str | Path | Sequence[str] | None) -> Groups:
    hint = (
        "seen and unseen categories are not scored apart: that needs the validation set's meta.json beside the true masks, and the "
        "training set's one (train/meta.json, or named by seen)"
    )
    meta = find_meta(truth)
    if meta is None:
        return Groups(hint=hint)
    if seen is None:
        parents = (truth, *list(truth.resolve().parents)[:3])
        path = next((p / "train" / "meta.json" for p in parents if (p / "train" / "meta.json").is_file()), None)
        known = None if path is None else _categories(path)
    else:
        is_meta = isinstance(seen, str | Path) and Path(seen).suffix == ".json"
        known = _categories(Path(str(seen))) if is_meta else _names(seen, "seen categories")

    def of(video: str, number: int) -> tuple[str | None, str | None]:
        category = meta["videos"].get(video, {}).get("objects", {}).get(str(number), {}).get("category")
        if category is None or known is None:
            return category, None
        return category, "seen" if category in known else "unseen"

    return Groups(of, hint)


def _lvos(truth: Path, unseen: str | Path | Sequence[str] | None) -> Groups:
    hint = (
        "seen and unseen videos are not scored apart: that needs LVOS's list unseen_videos.txt, which comes with its evaluation code "
        "(beside the true masks, or named by unseen)"
    )
    names = find_beside(truth, ("unseen_videos.txt",)) if unseen is None else unseen
    if names is None:
        return Groups(hint=hint)
    known = _names(names, "unseen videos")
    return Groups(lambda video, _: (None, "unseen" if video in known else "seen"), hint)


def _viposeg(truth: Path) -> Groups:
    classes: Any = read_json(truth, ("obj_class.json",), "which says the class of each object")

    def of(video: str, number: int) -> tuple[str | None, str | None]:
        try:
            one = int(classes[video][str(number)])
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"obj_class.json does not say the class of object {number} of the video {video}") from error
        return str(one), group_of(one, video)

    return Groups(of, "some objects are of no group", pooled=True)


def _names(names: str | Path | Sequence[str], what: str) -> frozenset[str]:
    if not isinstance(names, str | Path):
        return frozenset(names)
    path = Path(names)
    try:
        return frozenset(line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"the list of {what} {path} cannot be read: {error}") from error


def _categories(path: Path) -> frozenset[str]:
    videos = read_meta(path)["videos"].values()
    return frozenset(one["category"] for video in videos for one in video["objects"].values() if "category" in one)
