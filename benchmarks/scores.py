"""How fast J and F are: this package against the plain form, on 480p masks, in one run on one machine.

The plain form is one frame at a time with a disk-shaped dilation of whole boundary maps (cv2.dilate, the fastest there is), as the
official scorer works. Usage: python benchmarks/scores.py [--repeats N] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vosformer.evaluation import evaluate, frame_scores

HEIGHT, WIDTH, FRAMES = 480, 854, 48
TASK_FRAMES = 4  # as `evaluate` hands frames to its threads

Masks = NDArray[np.uint8]


def plain_boundary(mask: Masks) -> Masks:
    """Where a mask differs from its right, lower and lower right neighbors."""
    right, below, diagonal = np.zeros_like(mask), np.zeros_like(mask), np.zeros_like(mask)
    right[:, :-1] = mask[:, 1:]
    below[:-1] = mask[1:]
    diagonal[:-1, :-1] = mask[1:, 1:]
    edge = mask ^ right | mask ^ below | mask ^ diagonal
    edge[-1] = mask[-1] ^ right[-1]
    edge[:, -1] = mask[:, -1] ^ below[:, -1]
    edge[-1, -1] = 0
    return edge


def plain_scores(truth: Masks, result: Masks) -> tuple[float, float]:
    """J and F of one frame, masks of 0 and 1."""
    union = int((truth | result).sum())
    j = int((truth & result).sum()) / union if union else 1.0
    radius = math.ceil(0.008 * float(np.linalg.norm(truth.shape)))
    rows, columns = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    disk = (rows**2 + columns**2 <= radius**2).astype(np.uint8)
    edges = [plain_boundary(mask) for mask in (truth, result)]
    near = [cv2.dilate(edge, disk) for edge in edges]
    true, ours = (int(edge.sum()) for edge in edges)
    if not true or not ours:
        return j, float(true == ours)
    recall, precision = int((edges[0] & near[1]).sum()) / true, int((edges[1] & near[0]).sum()) / ours
    return j, 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def make_masks(frames: int, coverage: float, seed: int) -> tuple[Masks, Masks]:
    """True masks [frames,HEIGHT,WIDTH] (a wobbling blob that moves) and results (the same, a little off)."""
    rng = np.random.default_rng(seed)
    angles = np.linspace(0, 2 * np.pi, 200, endpoint=False)
    radius = math.sqrt(coverage * HEIGHT * WIDTH / math.pi)
    waves = rng.uniform(0.02, 0.12, 6)

    def blob(at: float, shift: float) -> Masks:
        wobble = sum(w * np.cos((k + 2) * angles + at * (k + 1) + shift) for k, w in enumerate(waves))
        reach = radius * (1 + wobble)
        x = WIDTH * (0.5 + 0.3 * math.sin(at)) + 4 * shift + reach * np.cos(angles)
        y = HEIGHT * (0.5 + 0.2 * math.cos(at)) + 3 * shift + reach * np.sin(angles)
        mask = np.zeros((HEIGHT, WIDTH), np.uint8)
        cv2.fillPoly(mask, [np.stack([x, y], 1).astype(np.int32)], 1)
        return mask

    times = [0.1 * t for t in range(frames)]
    return np.stack([blob(t, 0.0) for t in times]), np.stack([blob(t, rng.uniform(0, 0.6)) for t in times])


def best_of(repeats: int, work: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    """Seconds of the fastest of some repeats."""
    times = []
    for _ in range(repeats):
        began = clock()
        work()
        times.append(clock() - began)
    return min(times)


def threaded(truth: Masks, result: Masks, pool: ThreadPoolExecutor) -> NDArray[np.float64]:
    """J and F [n,2] of all frames, a few at a time in threads."""
    starts = range(0, len(truth), TASK_FRAMES)
    parts = pool.map(lambda at: frame_scores(truth[at : at + TASK_FRAMES], result[at : at + TASK_FRAMES]), starts)
    return np.concatenate([np.stack(part, 1) for part in parts])


def write_sequence(folder: Path, masks: Masks) -> None:
    """Indexed PNGs, as data sets have them."""
    folder.mkdir(parents=True)
    for number, mask in enumerate(masks):
        image = Image.fromarray(mask)
        image.putpalette([0, 0, 0, 128, 0, 0])
        image.save(folder / f"{number:05d}.png")


def measure(coverage: float, repeats: int, cores: int) -> dict[str, float]:
    """Milliseconds a frame of each form, for an object that covers a share of the picture."""
    truth, result = make_masks(FRAMES, coverage, seed=1)
    plain = np.array([plain_scores(*pair) for pair in zip(truth, result, strict=True)])
    with ThreadPoolExecutor(cores) as pool:
        fast = threaded(truth, result, pool)
        if not np.array_equal(plain, fast):
            raise SystemExit(f"the scores differ by up to {np.abs(plain - fast).max()}")

        def plainly() -> object:
            return [plain_scores(*pair) for pair in zip(truth, result, strict=True)]

        def quickly() -> object:
            return frame_scores(truth, result)

        # Processor time is what counts on a machine that others use, too.
        seconds = {
            "plain": best_of(repeats, plainly),
            "one_thread": best_of(repeats, quickly),
            "all_cores": best_of(repeats, lambda: threaded(truth, result, pool)),
            "plain_cpu": best_of(repeats, plainly, time.process_time),
            "one_thread_cpu": best_of(repeats, quickly, time.process_time),
        }
    with tempfile.TemporaryDirectory() as folder:
        write_sequence(Path(folder) / "truth" / "clip", truth)
        write_sequence(Path(folder) / "result" / "clip", result)
        roots = Path(folder) / "result", Path(folder) / "truth"
        seconds["files_all_cores"] = best_of(repeats, lambda: evaluate(*roots, workers=cores))
    row = {name: 1000 * value / FRAMES for name, value in seconds.items()}
    ratios = {"ratio": row["plain"] / row["all_cores"], "ratio_cpu": row["plain_cpu"] / row["one_thread_cpu"]}
    return {"coverage": coverage, **row, **ratios}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    machine = f"{platform.processor() or platform.machine()}, {cores} cores, NumPy {np.__version__}, OpenCV {cv2.__version__}"
    rows = [measure(coverage, options.repeats, cores) for coverage in (0.01, 0.07, 0.3, 0.6)]
    print(f"J and F of {WIDTH}x{HEIGHT} masks, ms a frame and object; {machine}")
    print(
        "object covers   plain   1 thread   all cores   with PNG files   plain / all cores   CPU time: plain   1 thread   ratio"
    )
    for row in rows:
        print(
            f"{row['coverage']:>12.0%}{row['plain']:>9.2f}{row['one_thread']:>11.3f}{row['all_cores']:>12.3f}"
            f"{row['files_all_cores']:>17.3f}{row['ratio']:>20.1f}"
            f"{row['plain_cpu']:>18.2f}{row['one_thread_cpu']:>11.3f}{row['ratio_cpu']:>8.1f}"
        )
    if options.json:
        options.json.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
