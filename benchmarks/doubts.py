"""How well the list of doubtful frames finds what went wrong, and how often it cries wolf.

    vosformer data compose natural --kind natural --clips 17 --frames 24 --seed 7 --assets DATA DATA/stills
    vosformer benchmark davis2017-val natural -o out
    python benchmarks/doubts.py --data natural --results out/Annotations

A frame is wrong for an object if the intersection over union is below 0.5 and the mask is not empty; it is right above 0.8 if no
frame within two of it is below 0.6 (where a mask comes back, its jump is rightly listed). Presence scores are left out: results as
pictures have none. With `--exact` the true masks themselves are reviewed: whatever is listed then is listed without need.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vosformer.annotate.colors import color_distance, color_histogram
from vosformer.annotate.records import Measures, measure
from vosformer.annotate.review import doubts_of
from vosformer.data.datasets.media import read_image, read_labels

LISTED = 0.3


class Reviewed(NamedTuple):
    """One clip: the numbers of its masks, and how right they are."""

    measures: Measures
    iou: dict[int, NDArray[np.float64]]


def review_clip(frames: list[Path], truths: list[Path], results: list[Path]) -> Reviewed:
    """Measure a clip's masks frame by frame, as a propagation does; the first frame's true masks are the given ones."""
    measures, iou = Measures(len(frames)), dict[int, NDArray[np.float64]]()
    given = {}
    for n, paths in enumerate(zip(frames, truths, results, strict=True)):
        image, truth, found = read_image(paths[0]), read_labels(paths[1], None), read_labels(paths[2 if n else 1], None)
        found = np.where(truth == 255, 0, found).astype(np.int32)
        if n == 0:
            iou = {int(i): np.ones(len(frames)) for i in np.unique(truth) if i not in (0, 255)}
            given = {i: color_histogram(image, truth == i) for i in iou}
        colors = {}
        for i, known in given.items():
            now = color_histogram(image, found == i)
            if now is not None and known is not None:
                colors[i] = color_distance(now, known)
            union = ((found == i) | (truth == i)).sum()
            iou[i][n] = ((found == i) & (truth == i)).sum() / union if union else 1.0
        scores = {i: float((found == i).any()) for i in iou}
        measures.put(n, measure(found, scores, None, colors))
    return Reviewed(measures, iou)


def without_colors(measures: Measures) -> Measures:
    """The same numbers but for the colors."""
    made = Measures(measures.frames)
    for n in range(measures.frames):
        made.put(n, {i: row._replace(color=np.nan) for i, row in measures.at(n).items()})
    return made


def count(reviewed: dict[str, Reviewed], colors: bool) -> dict[str, int]:
    """Wrong and right frames and objects, and how many of them are listed."""
    total = dict.fromkeys(
        ("wrong frames", "of them listed", "objects gone wrong", "of them found", "right frames", "listed"), 0
    )
    for clip in reviewed.values():
        measures = clip.measures if colors else without_colors(clip.measures)
        for i, iou in clip.iou.items():
            listed = doubts_of(measures, i, [0]) >= LISTED
            there = measures.column(i, "pixels") > 0
            wrong = (iou < 0.5) & there
            near = np.convolve(iou < 0.6, np.ones(5), "same") > 0
            right = (iou > 0.8) & there & ~near
            right[0] = False
            total["wrong frames"] += int(wrong.sum())
            total["of them listed"] += int((wrong & listed).sum())
            total["objects gone wrong"] += int(wrong.any())
            total["of them found"] += int(wrong.any() and (near & listed).any())
            total["right frames"] += int(right.sum())
            total["listed"] += int((right & listed).sum())
    return total


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a folder as DAVIS is laid out")
    parser.add_argument("--pictures", default="480p", help="its folder of frames and of masks")
    parser.add_argument("--results", type=Path, help="a folder of a clip each, as `vosformer benchmark` writes them")
    parser.add_argument("--exact", action="store_true", help="review the true masks")
    parser.add_argument("--clips", nargs="+", help="only these")
    parser.add_argument("--every", type=int, default=1, help="frames from one to the next")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if args.exact == (args.results is not None):
        parser.error("give --results, or --exact")
    masks = args.data / "Annotations" / args.pictures
    results = args.results or masks
    reviewed = {}
    for folder in sorted(path for path in results.iterdir() if path.is_dir() and not path.name.startswith(".")):
        if args.clips is not None and folder.name not in args.clips:
            continue
        frames = sorted((args.data / "JPEGImages" / args.pictures / folder.name).iterdir())[:: args.every]
        names = [f"{path.stem}.png" for path in frames]
        truths = [masks / folder.name / name for name in names]
        reviewed[folder.name] = review_clip(frames, truths, [folder / name for name in names])
        worst = {
            i: round(float(np.nanmax(reviewed[folder.name].measures.column(i, "color"))), 3) for i in reviewed[folder.name].iou
        }
        print(f"{folder.name}: largest distance of colors {worst}", flush=True)
    found = {name: count(reviewed, colors) for name, colors in (("without colors", False), ("with colors", True))}
    for name, total in found.items():
        print(f"{name}:", ", ".join(f"{key} {value}" for key, value in total.items()))
    if args.json:
        args.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
