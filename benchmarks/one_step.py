"""How well a model gives a mask back: on the very same picture, and one, five and twenty frames after the truth.

    python benchmarks/one_step.py out/multi
    python benchmarks/one_step.py DAVIS --split 2016/dev --references 3
    python benchmarks/one_step.py DAVIS --split 2016/dev --model deaot-s --weights runs/x/weights.safetensors --after 0 1

The true masks of a frame are given, then the model tracks. J and F of every object, by its area in the frame that was given,
by the number of objects, and by whether it touches another one; beside them those of copying the given masks. What is below
copying after one frame, or loses masks on the same picture, no memory can mend. Objects out of sight in the given or in the
scored frame do not count.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from vosformer import Session
from vosformer.evaluation import frame_scores
from vosformer.io import image_folder, read_labels

SIZES = (500, 1_000, 2_000, 5_000, 15_000)
"""Bounds of the classes of areas, in pixels of a frame whose short side is 480."""

Labels = NDArray[np.integer]


@dataclass(frozen=True)
class Score:
    """One object, `after` frames after the truth.

    Attributes:
        clip: name.
        object: id.
        after: frames between the masks that were given and those that are scored.
        area: in the frame that was given, pixels at a short side of 480.
        objects: in that frame.
        touches: whether a pixel of another object is within two pixels of it there.
        j: of the model.
        f: of the model.
        copy_j: of the given mask.
        copy_f: of the given mask.
    """

    clip: str
    object: int
    after: int
    area: float
    objects: int
    touches: bool
    j: float
    f: float
    copy_j: float
    copy_f: float


def touching(labels: Labels, one: int) -> bool:
    """Whether another object has a pixel within two pixels of `one`."""
    near = cv2.dilate((labels == one).astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    return bool((near & (labels != one) & (labels > 0)).any())


def score(clip: str, after: int, given: Labels, truth: Labels, result: Labels) -> Iterator[Score]:
    """The scores of a frame's objects."""
    ids = [int(i) for i in np.unique(given) if i]
    unit = (480 / min(given.shape)) ** 2
    for one in ids:
        true = truth == one
        if not true.any():
            continue
        j, f = frame_scores(np.stack([true, true]), np.stack([result == one, given == one]))
        yield Score(
            clip,
            one,
            after,
            float((given == one).sum() * unit),
            len(ids),
            touching(given, one),
            float(j[0]),
            float(f[0]),
            float(j[1]),
            float(f[1]),
        )


def follow(session: Session, images: Path, masks: Path, after: list[int], references: int, single: bool) -> Iterator[Score]:
    """The scores of a clip; the masks of `references` frames are given, evenly spread over it."""
    frames = list(image_folder(images))

    def labels(at: int) -> Labels:
        found = read_labels(masks / f"{frames[at].name}.png", allow_empty=True).labels
        return (found > 0).astype(np.int32) if single else found

    last = max(0, len(frames) - 1 - max(after))
    for start in np.unique(np.linspace(0, last, references).round().astype(int)).tolist():
        given = labels(start)
        if not given.any():
            continue
        session.reset()
        session.step(frames[start].image, given)
        if 0 in after:
            state = session.state
            yield from score(images.name, 0, given, given, session.step(frames[start].image).labels)
            session.state = state
        for step in range(1, min(max(after), len(frames) - 1 - start) + 1):
            result = session.step(frames[start + step].image).labels
            if step in after:
                yield from score(images.name, step, given, labels(start + step), result)


def bucket(bounds: tuple[int, ...], value: float, unit: str = "") -> str:
    """The class of a value, in words."""
    for low, high in zip((0, *bounds), bounds, strict=False):
        if value < high:
            return f"{low:,} to {high:,}{unit}" if low else f"below {high:,}{unit}"
    return f"{bounds[-1]:,}{unit} and more"


GROUPS: dict[str, Callable[[Score], str]] = {
    "area": lambda s: bucket(SIZES, s.area, " px"),
    "objects": lambda s: "1" if s.objects == 1 else "2 to 3" if s.objects < 4 else "4 to 6" if s.objects < 7 else "7 and more",
    "touching": lambda s: "touches another" if s.touches else "free",
    "all": lambda _: "",
}


def table(scores: list[Score], after: list[int]) -> Table:
    """Means over objects, in percent."""
    shown = Table("", "", "objects", title="J and F in percent (in brackets: copying the given masks)")
    for step in after:
        shown.add_column("same picture" if step == 0 else f"{step} after", justify="right")
    for name, key in GROUPS.items():
        groups: dict[str, list[Score]] = defaultdict(list)
        for one in scores:
            groups[key(one)].append(one)
        order = sorted(groups, key=lambda group: np.mean([(s.area, s.objects)[name == "objects"] for s in groups[group]]))
        for group in order:
            cells = []
            for step in after:
                rows = np.array([(s.j, s.f, s.copy_j, s.copy_f) for s in groups[group] if s.after == step])
                j, f, copy_j, copy_f = 100 * rows.mean(0) if len(rows) else [np.nan] * 4
                cells.append(f"{j:.1f} {f:.1f} ({copy_j:.1f} {copy_f:.1f})")
            number = len({(s.clip, s.object) for s in groups[group]})
            shown.add_row(name, group, str(number), *cells)
        shown.add_section()
    return shown


def main() -> None:
    """Score a data set in the DAVIS layout."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("--split", default="2017/val")
    parser.add_argument("--resolution", default="480p")
    parser.add_argument("--model", default="default")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--size", type=int, default=480, help="short side that the model sees")
    parser.add_argument("--scale", type=float, default=1.0, help="how much closer it looks, see `track --scales`")
    parser.add_argument(
        "--closer", default="auto", choices=("auto", "off"), help="how small objects are looked at, see `track --closer`"
    )
    parser.add_argument("--after", type=int, nargs="+", default=[0, 1, 5, 20], help="frames after the truth")
    parser.add_argument("--references", type=int, default=1, help="frames of a clip whose truth is given")
    parser.add_argument("--clips", type=int, help="only the first so many")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--json", type=Path, help="every object's scores")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    lines = (options.root / "ImageSets" / f"{options.split}.txt").read_text().split("\n")
    names = [Path(line.split()[0]).parent.name or line.split()[0] for line in lines if line]
    single = options.split.startswith("2016")
    session = Session(options.model, options.weights, size=options.size, scales=(options.scale,), closer=options.closer)
    folders = [options.root / kind / options.resolution for kind in ("JPEGImages", "Annotations")]
    scores: list[Score] = []
    console = Console(width=160)
    for name in names[: options.clips]:
        images, masks = (folder / name for folder in folders)
        scores += follow(session, images, masks, sorted(options.after), options.references, single)
        console.print(f"{name}: {len(scores)} scores", style="dim")
    console.print(table(scores, sorted(options.after)))
    if options.json:
        options.json.write_text(json.dumps([asdict(one) for one in scores], indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
