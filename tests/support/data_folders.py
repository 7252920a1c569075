"""Tiny data sets on disk, in every layout."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from vosformer.io import indexed_png

SIZE = (24, 32)


def picture(path: Path, seed: int = 0, size: tuple[int, int] = SIZE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (*size, 3), dtype=np.uint8)).save(path)
    return path


def squares(ids=(1, 2), time: int = 0, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Labels with a 6 x 6 square for each id."""
    labels = np.zeros(size, np.uint8)
    for place, number in enumerate(ids):
        labels[2 + time : 8 + time, 2 + 10 * place : 8 + 10 * place] = number
    return labels


def mask(path: Path, labels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(indexed_png(labels))
    return path


def gray(path: Path, values: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)
    return path


def clip(images: Path, masks: Path, frames: int = 4, ids=(1, 2), step: int = 1) -> None:
    for time in range(frames):
        picture(images / f"{time * step:05d}.jpg", time)
        mask(masks / f"{time * step:05d}.png", squares(ids, time))


def folders(root: Path, names=("one", "two"), frames: int = 4) -> Path:
    """JPEGImages/NAME and Annotations/NAME."""
    for name in names:
        clip(root / "JPEGImages" / name, root / "Annotations" / name, frames)
    return root


def davis(root: Path, year: str = "2017", names=("bear", "dog"), ids=(1, 2)) -> Path:
    for name in names:
        clip(root / "JPEGImages/480p" / name, root / "Annotations/480p" / name, ids=ids)
    listed = root / "ImageSets" / year
    listed.mkdir(parents=True, exist_ok=True)
    (listed / "train.txt").write_text("".join(f"{name}\n" for name in names))
    return root


def youtube(root: Path) -> Path:
    videos = {}
    for name in ("0a", "0b"):
        clip(root / "JPEGImages" / name, root / "Annotations" / name, step=5)
        frames = [f"{time * 5:05d}" for time in range(4)]
        videos[name] = {"objects": {"1": {"category": "cat", "frames": frames}, "2": {"category": "dog", "frames": frames}}}
    (root / "meta.json").write_text(json.dumps({"videos": videos}))
    return root


def coco(root: Path) -> Path:
    picture(root / "train2017/7.jpg")
    big = [2, 2, 20, 2, 20, 20, 2, 20]
    small = {"counts": [24 * 4 + 4, 4, 20, 4, 24 * 32 - 24 * 5 - 8], "size": list(SIZE)}
    annotations = [
        {"id": 1, "image_id": 7, "category_id": 1, "iscrowd": 0, "area": 8, "segmentation": small},
        {"id": 2, "image_id": 7, "category_id": 1, "iscrowd": 0, "area": 324, "segmentation": [big]},
        {"id": 3, "image_id": 7, "category_id": 1, "iscrowd": 1, "area": 9, "segmentation": small},
    ]
    images = [
        {"id": 7, "file_name": "7.jpg", "height": 24, "width": 32},
        {"id": 8, "file_name": "8.jpg", "height": 9, "width": 9},
    ]
    (root / "annotations").mkdir()
    index = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "thing"}]}
    (root / "annotations/instances_train2017.json").write_text(json.dumps(index))
    return root
