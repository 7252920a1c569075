"""A session in a user's own program beside one in the command line's process: milliseconds a frame, in processes that take turns.

    python benchmarks/session.py --rounds 3 --model default

`untuned` is `Session(tune=False)`, `session` what a user gets, `command` what the command line does before it builds its session.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time

KINDS = ("untuned", "session", "command")


def measure(kind: str, model: str, height: int, frames: int) -> dict[str, float]:
    """Return median process and wall time of a step, and the process time of the first two steps and of those after a reset, in ms.

    The first step is given masks and reads nothing; the second one reads for the first time.
    """
    import numpy as np

    import vosformer

    if kind == "command":
        from vosformer.cli.common import prepare_machine

        prepare_machine(None)
    session = vosformer.Session(model, tune=kind != "untuned")
    rng = np.random.default_rng(0)
    base = rng.integers(0, 256, (height // 8, height * 16 // 9 // 8, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    labels = np.zeros(base.shape[:2], np.int32)
    labels[100:200, 100:250], labels[220:300, 300:400] = 1, 2
    spent, walls = [], []
    for n in [*range(frames), 0, 1]:
        if n == 0:
            session.reset()
        begin, wall = time.process_time(), time.perf_counter()
        session.step(np.roll(base, 3 * n, 1), labels if n == 0 else None)
        spent.append((time.process_time() - begin) * 1000)
        walls.append((time.perf_counter() - wall) * 1000)
    kept = slice(2, frames)
    return {
        "process": statistics.median(spent[kept]),
        "wall": statistics.median(walls[kept]),
        "first": spent[0],
        "second": spent[1],
        "first again": spent[frames],
        "second again": spent[frames + 1],
    }


def main() -> None:
    """Run all kinds in turn, and print the median of each."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", default="default")
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--frames", type=int, default=10)
    parser.add_argument("--kind", choices=KINDS)
    options = parser.parse_args()
    if options.kind is not None:
        print(json.dumps(measure(options.kind, options.model, options.height, options.frames)))
        return
    found: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
    for _ in range(options.rounds):
        for kind in KINDS:
            output = subprocess.run(
                [sys.executable, __file__, *sys.argv[1:], "--kind", kind], capture_output=True, text=True, check=True
            )
            found[kind].append(json.loads(output.stdout.splitlines()[-1]))
            print(kind, found[kind][-1], flush=True)
    for kind in KINDS:
        print(kind, {name: round(statistics.median(one[name] for one in found[kind]), 1) for name in found[kind][0]})


if __name__ == "__main__":
    main()
