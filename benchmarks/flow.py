"""The baseline that any model must beat: the first mask, carried on by optical flow.

    python benchmarks/flow.py DAVIS --split 2016/dev -o out/flow

Each frame's labels are the last frame's, looked up where OpenCV's DIS flow (from this frame back to the last one) points. Scored
like a model: every object, first and last frame left out.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
from rich.console import Console

from vosformer.evaluation import evaluate
from vosformer.io import image_folder, indexed_png, read_labels, write_bytes


def carry(labels: np.ndarray, last: np.ndarray, now: np.ndarray, flow: cv2.DISOpticalFlow) -> np.ndarray:
    """The labels [H,W] of `last` moved to `now`; both uint8 gray [H,W]."""
    back = flow.calc(now, last, None)
    rows, columns = np.mgrid[: labels.shape[0], : labels.shape[1]].astype(np.float32)
    moved = cv2.remap(
        labels.astype(np.float32),
        columns + back[..., 0],
        rows + back[..., 1],
        cv2.INTER_NEAREST,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return moved.astype(labels.dtype)


def follow(images: Path, masks: Path, out: Path, single: bool) -> None:
    """Carry the first mask of one sequence through it and write all masks."""
    flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    last = None
    out.mkdir(parents=True, exist_ok=True)
    for frame in image_folder(images):
        now = cv2.cvtColor(frame.image, cv2.COLOR_RGB2GRAY)
        if last is None:
            labels = read_labels(masks / f"{frame.name}.png").labels
            labels = (labels > 0).astype(np.int32) if single else labels
        else:
            labels = carry(labels, last, now, flow)
        write_bytes(out / f"{frame.name}.png", indexed_png(labels))
        last = now


def main() -> None:
    """Run the baseline over a data set in the DAVIS layout."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("--split", default="2017/val")
    parser.add_argument("--resolution", default="480p")
    parser.add_argument("-o", "--out", type=Path, default=Path("runs/flow"))
    options = parser.parse_args()
    names = (options.root / "ImageSets" / f"{options.split}.txt").read_text().split("\n")
    single = options.split.startswith("2016")
    for line in filter(None, names):
        name = Path(line.split()[0]).parent.name or line.split()[0]
        images = options.root / "JPEGImages" / options.resolution / name
        follow(images, options.root / "Annotations" / options.resolution / name, options.out / name, single)
    truth = options.root / "Annotations" / options.resolution
    report = evaluate(options.out, truth, rules="davis2016" if single else "davis", split=options.split)
    Console().print(report.table())


if __name__ == "__main__":
    main()
