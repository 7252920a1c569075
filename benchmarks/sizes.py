"""What the size that the model sees is worth: J and F of the first frames of some clips, and process time a frame.

    python benchmarks/sizes.py DAVIS --clips soccerball dance-jump --sizes 240 360 480

One thread, fp32, one object (whatever is marked on the first frame), no windows; the first frame is left out of the scores.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import numpy as np
import torch

from vosformer import Session
from vosformer.data.datasets.media import read_image, read_labels
from vosformer.device import tune_process
from vosformer.evaluation.metrics import frame_scores
from vosformer.weights import build


def main() -> None:
    """Print a line a size and clip."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, help="a folder with JPEGImages/480p and Annotations/480p")
    parser.add_argument("--clips", nargs="+", required=True)
    parser.add_argument("--sizes", type=int, nargs="+", default=[240, 360, 480])
    parser.add_argument("--model", default="default-fast")
    parser.add_argument("--frames", type=int, default=24)
    options = parser.parse_args()
    torch.set_num_threads(1)
    tune_process(torch.device("cpu"))
    model = build(options.model).eval().requires_grad_(False)
    for size in options.sizes:
        for clip in options.clips:
            paths = sorted((options.root / "JPEGImages/480p" / clip).glob("*.jpg"))[: options.frames]
            truth = [read_labels(options.root / "Annotations/480p" / clip / f"{path.stem}.png", True) > 0 for path in paths]
            session = Session(model, device="cpu", dtype="fp32", size=size, closer="off")
            found, spent = [], []
            for n, path in enumerate(paths):
                frame = read_image(path)
                begin = time.process_time()
                found.append(session.step(frame, truth[0].astype(np.int32) if n == 0 else None).labels == 1)
                spent.append(1000 * (time.process_time() - begin))
            j, f = (100 * float(np.mean(values)) for values in frame_scores(np.stack(truth[1:]), np.stack(found[1:])))
            print(f"{size} {clip}: J {j:.1f}, F {f:.1f}, {statistics.median(spent[1:]):.0f} ms", flush=True)


if __name__ == "__main__":
    main()
