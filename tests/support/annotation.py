"""A small project over a clip of colored squares, tracked by a model without weights that matches colors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from dummy_models import ColorModel, flat_clip

from vosformer import Session
from vosformer.annotate.project import Project
from vosformer.annotate.workspace import Workspace
from vosformer.io import open_source


def clip(
    ids: tuple[int, ...] = (1, 2), frames: int = 8, gone: dict[int, int] | None = None
) -> tuple[np.ndarray, list[np.ndarray]]:
    images, labels = flat_clip(ids, frames, gone=gone)
    return np.stack(images), labels


def open_workspace(folder: Path, images: np.ndarray) -> Workspace:
    project = Project(folder, open_source(images))
    return Workspace(project, lambda: Session(ColorModel(), size=None, dtype="fp32"))


def iou(one: np.ndarray, other: np.ndarray) -> float:
    union = (one | other).sum()
    return float((one & other).sum() / union) if union else 1.0
