"""How good are masks after so many clicks? Simulated users on DAVIS frames and on pictures that no training saw.

python benchmarks/clicks.py --davis DATA/DAVIS --split 2016/dev --stills DATA DATA/stills --json clicks.json

The user clicks where the mask is most wrong (see `vosformer.prompts.simulate.next_click`), at most 20 times. `--methods` are the
click network ("network"), a random walker from the same clicks ("walker") and GrabCut from them ("grabcut"); boxes are tight, and are
given to the network and to GrabCut. Repairs begin with a damaged mask. Pixels without truth (255) do not count.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from vosformer.data.datasets.media import bounding_box, read_image, read_labels
from vosformer.data.synthetic.assets import split_assets
from vosformer.prompts import Marker, Prompt
from vosformer.prompts.classical import grabcut
from vosformer.prompts.network import ClickNetwork
from vosformer.prompts.simulate import next_click
from vosformer.prompts.weights import default_network, load_network
from vosformer.train.clicks import damaged

Mask = NDArray[np.bool_]
COUNTS = (1, 3, 5, 10)
MOST = 20


class Item(NamedTuple):
    """One object of one picture."""

    name: str
    frame: NDArray[np.uint8]
    truth: Mask
    valid: Mask


def davis_items(root: Path, split: str, each: int) -> Iterator[Item]:
    """Every object of `each` frames of every clip, evenly spread."""
    year, _, name = split.rpartition("/")
    listed = (root / "ImageSets" / year / f"{name}.txt").read_text().split()
    clips = dict.fromkeys(Path(line).parent.name if "/" in line else line for line in listed)
    for clip in clips:
        frames = sorted((root / "JPEGImages" / "480p" / clip).iterdir())
        for at in np.linspace(0, len(frames) - 1, each).round().astype(int):
            mask = root / "Annotations" / "480p" / clip / f"{frames[at].stem}.png"
            labels = read_labels(mask, binary=None)
            for i in np.setdiff1d(np.unique(labels), [0, 255]):
                yield Item(f"{clip}/{frames[at].stem}/{i}", read_image(frames[at]), labels == i, labels != 255)


def still_items(roots: list[Path], limit: int | None) -> Iterator[Item]:
    """One object of every picture that training holds out, drawn by the picture's number."""
    stills = split_assets(roots)[1].stills
    for number in np.linspace(0, len(stills) - 1, min(limit or len(stills), len(stills))).round().astype(int):
        image, labels = stills[number].load()
        areas = np.bincount(labels.ravel(), minlength=256)
        areas[[0, 255]] = 0
        ids = np.flatnonzero(areas >= 300)
        if len(ids):
            i = int(np.random.default_rng(int(number)).choice(ids))
            yield Item(f"{stills[number].name}/{i}", image, labels == i, labels != 255)


def iou(found: Mask, item: Item) -> float:
    """Intersection over union where the truth is known."""
    union = ((found | item.truth) & item.valid).sum()
    return float((found & item.truth & item.valid).sum() / union) if union else 1.0


class User:
    """Clicks on one object with one method, and what comes of it."""

    def __init__(self, item: Item, method: str, network: ClickNetwork | None, side: int, start: Mask | None = None) -> None:
        self.item, self.method, self.start = item, method, start
        self._marker = Marker(item.frame, method="network" if method == "network" else "classical", network=network, side=side)
        self.points: list[tuple[float, float]] = []
        self.labels: list[int] = []
        self.found = np.zeros_like(item.truth) if start is None else start
        self.seconds: list[float] = []

    def click(self) -> float:
        """Click once; returns the IoU afterwards."""
        done = np.zeros_like(self.found)
        for x, y in self.points:
            done[int(y), int(x)] = True
        click = next_click(self.item.truth, self.found, self.item.valid, done=done)
        if click is not None:
            self.points.append((click.x, click.y))
            self.labels.append(int(click.positive))
            begin = time.perf_counter()
            self.found = self._mark()
            self.seconds.append(time.perf_counter() - begin)
        return iou(self.found, self.item)

    def _mark(self) -> Mask:
        if self.method != "grabcut":
            return self._marker.mark(Prompt(self.points, self.labels, mask=self.start))
        height, width = self.found.shape
        marks = np.zeros((height, width), np.int8)
        for (x, y), label in zip(self.points, self.labels, strict=True):
            cv2.circle(marks.view(np.uint8), (int(x), int(y)), 3, 1 if label else 255, -1)
        inset = (0.02 * width, 0.02 * height, 0.98 * width, 0.98 * height)
        return grabcut(self.item.frame, inset, marks)

    def box(self) -> float:
        """The IoU that a tight box alone gives."""
        found = bounding_box(self.item.truth)
        assert found is not None
        top, bottom, left, right = found
        try:
            return iou(self._marker.mark(Prompt(box=(left, top, right, bottom))), self.item)
        except Exception as error:
            Console(stderr=True).print(f"{self.item.name}: {error}", markup=False)
            return 0.0


def measure(items: list[Item], method: str, network: ClickNetwork | None, args: argparse.Namespace) -> dict[str, Any]:
    """All numbers of one method on one set."""
    curves, boxes, repairs, first, later = [], [], [], [], []
    for number, item in enumerate(items):
        user = User(item, method, network, args.side)
        curve = []
        for _ in range(args.most):
            curve.append(user.click())
            if curve[-1] >= 0.9 and len(curve) >= max(c for c in COUNTS if c <= args.most):
                break
        curves.append(curve)
        first.append(user.seconds[0])
        later += user.seconds[1:]
        if method != "walker":
            boxes.append(User(item, "classical" if method == "grabcut" else method, network, args.side).box())
        if method != "grabcut":
            wrong = damaged(np.random.default_rng(number), item.truth) & item.valid
            fixer = User(item, method, network, args.side, wrong)
            repairs.append([iou(wrong, item), *(fixer.click() for _ in range(3))])
    at = {k: statistics.fmean(curve[min(k, len(curve)) - 1] for curve in curves) for k in COUNTS if k <= args.most}
    needed = {
        goal: statistics.fmean(next((k for k, v in enumerate(curve, 1) if v >= goal / 100), args.most) for curve in curves)
        for goal in (85, 90)
    }
    return {
        "objects": len(items),
        **{f"mIoU@{k}": value for k, value in at.items()},
        **{f"NoC@{goal}": value for goal, value in needed.items()},
        "box": statistics.fmean(boxes) if boxes else None,
        "repair": [statistics.fmean(column) for column in zip(*repairs, strict=True)] if repairs else None,
        "seconds first": statistics.median(first),
        "seconds later": statistics.median(later) if later else None,
        "curves": {item.name: curve for item, curve in zip(items, curves, strict=True)},
    }


def seconds_a_click(item: Item, network: ClickNetwork | None, side: int, height: int) -> dict[str, float]:
    """Median seconds of the first click and of five later ones on a frame of that height."""
    width = round(item.frame.shape[1] * height / item.frame.shape[0])
    frame = np.asarray(cv2.resize(item.frame, (width, height)), np.uint8)
    truth = np.asarray(cv2.resize(item.truth.astype(np.uint8), (width, height)), np.uint8) > 0
    first, later = [], []
    for _ in range(3):
        user = User(Item("", frame, truth, np.ones_like(truth)), "network", network, side)
        for _ in range(6):
            user.click()
        first.append(user.seconds[0])
        later += user.seconds[1:]
    return {"first": statistics.median(first), "later": statistics.median(later)}


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--davis", type=Path, help="a folder as DAVIS is laid out")
    parser.add_argument("--split", default="2017/val")
    parser.add_argument("--each", type=int, default=10, help="frames of every clip")
    parser.add_argument("--stills", type=Path, nargs="*", default=[], help="the folders that the training got with --data")
    parser.add_argument("--limit", type=int, help="at most so many of the held-out pictures")
    parser.add_argument(
        "--methods", nargs="+", default=["network", "walker", "grabcut"], choices=["network", "walker", "grabcut"]
    )
    parser.add_argument("--network", type=Path, help="weights in place of the packaged ones")
    parser.add_argument("--side", type=int, default=320)
    parser.add_argument("--most", type=int, default=MOST, help="clicks on an object")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(args.threads)
    network = None if "network" not in args.methods else load_network(args.network) if args.network else default_network()
    sets = {}
    if args.davis:
        sets[f"DAVIS {args.split}"] = list(davis_items(args.davis, args.split, args.each))
    if args.stills:
        sets["held-out stills"] = list(still_items(args.stills, args.limit))
    results: dict[str, Any] = {"side": args.side, "threads": args.threads}
    for name, items in sets.items():
        for method in args.methods:
            found = results.setdefault(name, {})[method] = measure(items, method, network, args)
            show(name, method, found)
            if args.json:
                args.json.write_text(json.dumps(results, indent=1))
    if args.davis and network is not None:
        item = next(davis_items(args.davis, args.split, 1))
        for height in (480, 1080):
            results[f"seconds at {height}p"] = seconds_a_click(item, network, args.side, height)
            print(f"seconds a click at {height}p", results[f"seconds at {height}p"])
    if args.json:
        args.json.write_text(json.dumps(results, indent=1))


def show(name: str, method: str, found: dict[str, Any]) -> None:
    """Print one row."""
    table = Table("set", "method", *[key for key in found if key != "curves"])
    cells = []
    for key, value in found.items():
        if key != "curves":
            cells.append(
                "-" if value is None else " ".join(f"{v:.3f}" for v in value) if isinstance(value, list) else f"{value:.4g}"
            )
    table.add_row(name, method, *cells)
    Console(width=200).print(table)


if __name__ == "__main__":
    main()
