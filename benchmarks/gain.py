"""What a correction brings: J&F against the number of corrected frames, chosen by `suggest` and at random.

    vosformer data compose natural --kind natural --clips 6 --frames 24 --size 240x428 --seed 31 --assets DATA DATA/stills
    python benchmarks/gain.py --data natural DATA/DAVIS --splits 2017/val 2016/dev --every 1 3 --json gain.json

All objects of the first frame are given exactly, and followed forward. Then, again and again, one more frame is corrected: its
exact masks are given, and what lies between the neighboring given frames is computed anew from both sides, as the page does it. The
frame is the one that `vosformer.annotate.review.suggest` names first, one drawn at random, or the middle of the longest stretch
without a given frame. J&F is the mean over all objects and all frames but the first; given ones count, as they do for whoever uses
the masks.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from vosformer.annotate.project import Project
from vosformer.annotate.propagation import plan_propagation, plan_repair
from vosformer.annotate.workspace import Workspace
from vosformer.data.datasets.media import read_image, read_labels
from vosformer.evaluation import frame_scores
from vosformer.inference.session import Session
from vosformer.io import open_source

Labels = NDArray[np.int32]
Choose = Callable[[Workspace], int | None]


class Clip(NamedTuple):
    """Frames uint8 [n,H,W,3] with exact masks."""

    name: str
    images: NDArray[np.uint8]
    truth: list[Labels]


def read_clips(root: Path, split: str, most: int, every: int, height: int, only: list[str] | None) -> Iterator[Clip]:
    """So many frames of every clip of a split, `every` apart; what is not known (255) counts as background."""
    pictures = max(path.name for path in (root / "Annotations").iterdir() if path.is_dir())  # e.g. 480p
    year, _, name = split.rpartition("/")
    listed = (root / "ImageSets" / year / f"{name}.txt").read_text().split()
    for clip in dict.fromkeys(Path(line).parent.name if "/" in line else line for line in listed):
        if only is not None and clip not in only:
            continue
        paths = sorted((root / "JPEGImages" / pictures / clip).iterdir())[::every][:most]
        images, truth = [], []
        for path in paths:
            image = read_image(path)
            labels = read_labels(root / "Annotations" / pictures / clip / f"{path.stem}.png", binary=None)
            size = (round(height * image.shape[1] / image.shape[0]), height)
            images.append(np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8))
            small = cv2.resize(np.where(labels == 255, 0, labels).astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
            truth.append(small.astype(np.int32))
        yield Clip(clip, np.stack(images), truth)


def score(project: Project, truth: list[Labels]) -> float:
    """J&F in percent: mean over objects and frames but the first."""
    ids = [int(i) for i in np.unique(truth[0]) if i]
    found, exact = np.stack([project.labels(n) for n in range(1, len(truth))]), np.stack(truth[1:])
    scores = [frame_scores(exact == i, found == i) for i in ids]
    return 100 * float(np.mean([(s.j + s.f) / 2 for s in scores]))


def correct(workspace: Workspace, n: int, labels: Labels, ids: list[int]) -> None:
    """Give the exact masks of a frame, also of objects that are not in it."""
    for i in ids:
        workspace.editor.draw(n, i, labels == i, "replace", "correction")


def free(workspace: Workspace) -> list[int]:
    """Frames on which nothing is given."""
    return [n for n in range(workspace.project.frames) if n not in workspace.project.given]


def suggested(workspace: Workspace) -> int | None:
    """The frame that is named first."""
    return next(iter(workspace.suggest(1)), None)


def at_random(seed: int) -> Choose:
    """Any frame that is not given."""
    dice = np.random.default_rng(seed)
    return lambda workspace: int(dice.choice(free(workspace))) if free(workspace) else None


def in_the_middle(workspace: Workspace) -> int | None:
    """The middle of the longest stretch without a given frame: what a person does who does not look."""
    frames = free(workspace)
    given = sorted(workspace.project.given)
    return max(frames, key=lambda n: (min(abs(n - g) for g in given), -n)) if frames else None


def run(clip: Clip, session: Session, choose: Choose, most: int) -> tuple[list[float], list[int]]:
    """J&F after 0, 1, ... corrections, and the frames that were corrected."""
    ids = [int(i) for i in np.unique(clip.truth[0]) if i]
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace(Project(Path(folder) / "p", open_source(clip.images)), lambda: session)
        for _ in range(max(ids)):
            workspace.editor.add_object()
        correct(workspace, 0, clip.truth[0], ids)
        workspace.propagate(plan_propagation(workspace.project, "forward", 0), "forward")
        workspace.wait()
        curve, chosen = [score(workspace.project, clip.truth)], list[int]()
        while len(chosen) < most:
            n = choose(workspace)
            if n is None:
                break
            correct(workspace, n, clip.truth[n], ids)
            workspace.propagate(plan_repair(workspace.project, n), "repair")
            workspace.wait()
            chosen.append(n)
            curve.append(score(workspace.project, clip.truth))
        workspace.close()
    return [*curve, *[curve[-1]] * (most - len(chosen))], chosen


def show(results: dict[str, Any], most: int) -> None:
    """Print the mean curve of each set and choice."""
    table = Table("set", "clips", "frame chosen", *map(str, range(most + 1)))
    for name, clips in results.items():
        kinds = {kind.partition(" ")[0]: None for clip in clips.values() for kind in clip}
        for kind in kinds:
            curves = [np.mean([v["curve"] for k, v in clip.items() if k.startswith(kind)], 0) for clip in clips.values()]
            table.add_row(
                name, str(len(clips)), kind, *(f"{statistics.fmean(column):.1f}" for column in zip(*curves, strict=True))
            )
    Console(width=180).print(table)


def draw(results: dict[str, Any], most: int, path: Path) -> None:
    """Write a picture: the curve of each clip, thin, and their mean (needs matplotlib)."""
    from matplotlib.figure import Figure

    clips = [clip for clips in results.values() for clip in clips.values()]
    figure = Figure(figsize=(6.4, 4), layout="constrained")
    axes = figure.subplots()
    names = {
        "suggest": ("suggested frames", "C0"),
        "random": ("random frames", "C1"),
        "middle": ("middle of the longest gap", "C2"),
    }
    for kind, (words, color) in names.items():
        found = [[v["curve"] for k, v in clip.items() if k.startswith(kind)] for clip in clips]
        curves = [np.mean(runs, 0) for runs in found if runs]
        for curve in curves:
            axes.plot(range(most + 1), curve, color=color, alpha=0.3, linewidth=0.8)
        if curves:
            axes.plot(range(most + 1), np.mean(curves, 0), color=color, linewidth=2.5, label=words)
    axes.set(xlabel="corrected frames", ylabel="J&F of all frames but the first")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=110)


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="folders as DAVIS is laid out")
    parser.add_argument("--splits", nargs="+", default=["2017/val"], help="one for each of them")
    parser.add_argument("--every", type=int, nargs="+", default=[1], help="frames from one to the next, for each of them")
    parser.add_argument("--clips", nargs="+", help="only these of them")
    parser.add_argument("--frames", type=int, default=24, help="of every clip")
    parser.add_argument("--height", type=int, default=240, help="of the frames, and what the model sees")
    parser.add_argument("--most", type=int, default=10, help="corrections")
    parser.add_argument("--random", type=int, default=2, help="so many random orders")
    parser.add_argument("--choose", nargs="+", default=["suggest", "random"], choices=["suggest", "random", "middle"])
    parser.add_argument("--model", default="default")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--picture", type=Path, help="a .png or .svg of the curves")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    session = Session(args.model, size=args.height, dtype="fp32")
    sets = {
        f"{root.name} {split}": read_clips(root, split, args.frames, every, args.height, args.clips)
        for root, split, every in zip(args.data, args.splits, args.every, strict=True)
    }
    results: dict[str, Any] = {}
    for name, clips in sets.items():
        for clip in clips:
            every_way: dict[str, Choose] = {"suggest": suggested, "middle": in_the_middle}
            every_way |= {f"random {seed}": at_random(seed) for seed in range(args.random)}
            runs = {kind: choose for kind, choose in every_way.items() if kind.partition(" ")[0] in args.choose}
            for kind, choose in runs.items():
                curve, chosen = run(clip, session, choose, args.most)
                results.setdefault(name, {}).setdefault(clip.name, {})[kind] = {"curve": curve, "frames": chosen}
                print(f"{clip.name:20} {kind:10}", " ".join(f"{v:.1f}" for v in curve), chosen, flush=True)
                if args.json:
                    args.json.write_text(json.dumps(results, indent=1))
    show(results, args.most)
    if args.picture:
        draw(results, args.most, args.picture)


if __name__ == "__main__":
    main()
