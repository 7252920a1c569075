"""How well the presence score says whether an object is in the frame: AUC, and whether 0.5 means even odds.

    vosformer data compose out/exits --clips 8 --frames 24 --seed 301 --assets DATA DATA/stills    # objects leave and come back
    python benchmarks/presence.py out/exits
    python benchmarks/presence.py out/exits --fit
    python benchmarks/presence.py out/exits --json one.json && python benchmarks/presence.py out/exits2 --add one.json --fit

The masks of the first frame are given; every object counts on every later frame. It is in the frame if the true mask has a pixel.
The AUC is the chance that an object in the frame scores higher than one that is not. `--fit` fits scale and bias on the log-odds of
the scores (Platt 1999, with his smoothed targets): fit on one set of clips, look at the result on another. Weights keep the two
numbers in their metadata, as `presence` (see docs/weights.md); with them in place, the fit of their scores is 1 and 0.
"""

from __future__ import annotations

import argparse
import itertools
import json
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from vosformer import Session
from vosformer.io import image_folder, read_labels

BINS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
TINY = 1e-6

Values = NDArray[np.float64]


def auc(scores: Values, present: NDArray[np.bool_]) -> float:
    """The chance that a score of `present` is above one that is not; equal ones count half (Mann and Whitney)."""
    _, place, count = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(count) - (count - 1) / 2)[place]
    inside, outside = present.sum(), (~present).sum()
    return float((ranks[present].sum() - inside * (inside + 1) / 2) / (inside * outside))


def log_odds(scores: Values) -> Values:
    """Of scores in [0,1], kept away from both ends."""
    kept = np.clip(scores, TINY, 1 - TINY)
    return np.log(kept / (1 - kept))


def fit(scores: Values, present: NDArray[np.bool_]) -> tuple[float, float]:
    """Scale and bias that make sigmoid(scale * log-odds + bias) the likeliest chances of being in the frame, by Newton's steps."""
    inside, outside = present.sum(), (~present).sum()
    target = np.where(present, (inside + 1) / (inside + 2), 1 / (outside + 2))
    columns = np.stack([log_odds(scores), np.ones_like(scores)], 1)
    found = np.array([0.0, np.log((inside + 1) / (outside + 1))])
    for _ in range(50):
        chance = 1 / (1 + np.exp(-columns @ found))
        curvature = (columns * (chance * (1 - chance))[:, None]).T @ columns + 1e-9 * np.eye(2)
        found = found - np.linalg.solve(curvature, columns.T @ (chance - target))
    return float(found[0]), float(found[1])


def follow(session: Session, images: Path, masks: Path) -> list[tuple[int, int, float, bool]]:
    """(frame, object, score, whether it is there) of a clip."""
    session.reset()
    found = []
    for number, frame in enumerate(image_folder(images)):
        truth = read_labels(masks / f"{frame.name}.png", allow_empty=True).labels
        out = session.step(frame.image, truth if number == 0 else None)
        if number:
            found += [(number, i, out.score(i), bool((truth == i).any())) for i in out.ids]
    return found


def table(scores: Values, present: NDArray[np.bool_]) -> Table:
    """How often objects are there, by their score."""
    shown = Table(
        "score", "object frames", "mean score", "in the frame", title="In percent; calibrated if the last two columns agree"
    )
    for low, high in itertools.pairwise(BINS):
        chosen = (scores >= low) & ((scores < high) | (high == 1))
        if chosen.any():
            shown.add_row(
                f"{100 * low:.0f} to {100 * high:.0f}",
                str(chosen.sum()),
                f"{100 * scores[chosen].mean():.1f}",
                f"{100 * present[chosen].mean():.1f}",
            )
    return shown


def main() -> None:
    """Score a data set in the DAVIS layout."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("--split", default="2017/val")
    parser.add_argument("--model", default="default")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--size", type=int, default=480, help="short side that the model sees")
    parser.add_argument("--closer", default="auto", choices=("auto", "off"), help="see `track --closer`")
    parser.add_argument("--clips", nargs="+", help="only these")
    parser.add_argument("--fit", action="store_true", help="fit scale and bias")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--json", type=Path, help="every object's score on every frame, of these clips")
    parser.add_argument("--add", type=Path, nargs="+", default=[], help="such files of other clips, whose scores count, too")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    names = options.clips or (options.root / "ImageSets" / f"{options.split}.txt").read_text().split()
    session = Session(options.model, options.weights, size=options.size, closer=options.closer)
    console = Console(width=120)
    rows = []
    for name in names:
        images, masks = (options.root / kind / "480p" / name for kind in ("JPEGImages", "Annotations"))
        rows += [(name, *row) for row in follow(session, images, masks)]
        console.print(f"{name}: {len(rows)} scores", style="dim")
    if options.json:
        options.json.write_text(json.dumps(rows) + "\n", encoding="utf-8")
    rows += [row for path in options.add for row in json.loads(path.read_text(encoding="utf-8"))]
    scores, present = np.array([row[3] for row in rows]), np.array([row[4] for row in rows])
    console.print(table(scores, present))
    wrong = ((scores >= 0.5) != present).mean()
    console.print(
        f"{(~present).sum()} of {len(present)} absent; AUC {auc(scores, present):.4f}; wrong at 0.5: {100 * wrong:.1f} %"
    )
    console.print(f"Brier score {((scores - present) ** 2).mean():.4f}")
    if options.fit:
        scale, bias = fit(scores, present)
        console.print(
            f"fit: scale {scale:.3f}, bias {bias:.3f}; 0.5 lies at a score of {1 / (1 + np.exp(bias / scale)):.3f} today"
        )


if __name__ == "__main__":
    main()
