"""Categories of objects, and whether the training set has them (YouTube-VOS scores seen and unseen ones apart)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vosformer.errors import DataError
from vosformer.evaluation.layout import load_meta, read_meta


@dataclass(frozen=True)
class Categories:
    """What is known of the objects' categories.

    Attributes:
        videos: the "videos" of a meta.json.
        seen: categories of the training set; None = not known.
    """

    videos: dict[str, Any] = field(default_factory=dict)
    seen: frozenset[str] | None = None

    @staticmethod
    def find(truth: Path, seen: str | Path | Sequence[str] | None) -> Categories:
        """What lies beside the true masks.

        Args:
            truth: folder of the true masks or the data set's root.
            seen: names, a file with one a line, or the training set's meta.json; None = look for ``train/meta.json``
                beside the truth.

        Raises:
            DataError: a file cannot be read.
        """
        meta = read_meta(truth)
        if meta is None:
            return Categories()
        if seen is None:
            parents = (truth, *list(truth.resolve().parents)[:3])
            path = next((p / "train" / "meta.json" for p in parents if (p / "train" / "meta.json").is_file()), None)
            return Categories(meta["videos"], None if path is None else _of_meta(path))
        return Categories(meta["videos"], _read_seen(seen))

    def of(self, sequence: str, number: int) -> tuple[str | None, bool | None]:
        """The category of an object, and whether it is a seen one; None for what is not known."""
        known = self.videos.get(sequence, {}).get("objects", {}).get(str(number), {})
        category = known.get("category")
        if category is None or self.seen is None:
            return category, None
        return category, category in self.seen


def _read_seen(seen: str | Path | Sequence[str]) -> frozenset[str]:
    if not isinstance(seen, str | Path):
        return frozenset(seen)
    path = Path(seen)
    if path.suffix == ".json":
        return _of_meta(path)
    try:
        return frozenset(line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"the list of seen categories {path} cannot be read: {error}") from error


def _of_meta(path: Path) -> frozenset[str]:
    videos = load_meta(path)["videos"].values()
    return frozenset(one["category"] for video in videos for one in video["objects"].values() if "category" in one)
