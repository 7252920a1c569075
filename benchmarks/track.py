"""How fast every variant tracks on this machine, against what the machine can do.

    python benchmarks/track.py                          # AOT, DeAOT and AOST on MobileNetV2 and ResNet-50
    python benchmarks/track.py simvos-b jointformer-b   # these
    python benchmarks/track.py jointformer-b --set topk=None --objects 1
    python benchmarks/track.py --all --json out.json

In one run: the machine's limits in fp32 and bf16 (the best of matrix products and channels_last convolutions), then per variant the
milliseconds a frame by stage at 480 x 854 with 3 objects (the mean of all frames after the first, while the memory fills), the peak
of the resident memory, the arithmetic of the same frames (torch's FlopCounterMode, on the meta device) and the share of the limit
that was reached. Weights are random: the arithmetic does not depend on them. Each variant runs in a process of its own. Measure on a
quiet machine (`uptime` below 1): the load is printed, too.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

USUAL = ("aot-t", "deaot-t", "aot-l", "deaot-l", "r50-aot-l", "r50-deaot-l", "aost")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
SIZE = (480, 854)


def limit(dtype: torch.dtype) -> float:
    """GFLOP/s: the best of a matrix product and of 1x1 and 3x3 channels_last convolutions."""
    side, pixels = 2048, (40, 41)
    a, b = torch.randn(side, side).to(dtype), torch.randn(side, side).to(dtype)
    wide = torch.randn(1, 768, *pixels).to(dtype).contiguous(memory_format=torch.channels_last)
    point = torch.randn(3072, 768, 1, 1).to(dtype).contiguous(memory_format=torch.channels_last)
    large = torch.randn(1, 256, 120, 214).to(dtype).contiguous(memory_format=torch.channels_last)
    square = torch.randn(256, 256, 3, 3).to(dtype).contiguous(memory_format=torch.channels_last)
    work = (
        (lambda: a @ b, 2 * side**3),
        (lambda: torch.nn.functional.conv2d(wide, point), 2 * 768 * 3072 * pixels[0] * pixels[1]),
        (lambda: torch.nn.functional.conv2d(large, square, padding=1), 2 * 256 * 256 * 9 * 120 * 214),
    )
    return max(flops / fastest(run) / 1e9 for run, flops in work)


def fastest(run, times: int = 5) -> float:
    """Seconds of the fastest of some runs, after a warm-up."""
    run()
    seconds = []
    for _ in range(times):
        begin = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - begin)
    return min(seconds)


class Stages:
    """Milliseconds spent in a model's methods, frame by frame."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.frames: list[dict[str, float]] = []
        self._spent: dict[str, float] = defaultdict(float)
        for name in ("encode", "read", "decode", "write"):
            if hasattr(model, name):
                setattr(model, name, self._timed(name, getattr(model, name)))

    def _timed(self, name, method):
        def run(*inputs, **options):
            begin = time.perf_counter()
            result = method(*inputs, **options)
            self._spent[name] += 1000 * (time.perf_counter() - begin)
            return result

        return run

    def end(self, total: float) -> None:
        """Close a frame that took `total` milliseconds."""
        spent = dict(self._spent)
        self._spent.clear()
        if "decode" in spent:
            spent["read"] -= spent["decode"]
        self.frames.append({**spent, "rest": total - sum(spent.values()), "total": total})


def clip(frames: int, objects: int) -> tuple[list[np.ndarray], np.ndarray]:
    """A noisy moving picture and a first mask; what is in it does not change the time."""
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (SIZE[0], SIZE[1] + 4 * frames, 3), np.uint8)
    labels = np.zeros(SIZE, np.int32)
    for i in range(objects):
        labels[60 + 20 * i : 200 + 20 * i, 40 + 150 * i : 160 + 150 * i] = i + 1
    return [np.ascontiguousarray(picture[:, 4 * t : 4 * t + SIZE[1]]) for t in range(frames)], labels


def measure(name: str, dtype: str, options: argparse.Namespace) -> dict[str, float]:
    """Track a clip; the mean of all frames after the first, by stage."""
    import vosformer
    from vosformer.device import tune_process

    tune_process(torch.device("cpu"))  # as the command line does
    # As the session wants it, which else would make a copy: that would count in the peak of the memory.
    model = vosformer.build(name, **dict(options.set)).to(DTYPES[dtype])
    session = vosformer.Session(model, device="cpu", dtype=dtype, memory=options.memory)
    stages = Stages(session.model)
    images, labels = clip(options.frames, options.objects)
    for image, given in ((images[0], labels), (images[1], None)):  # kernels are chosen and memory is fetched here
        session.step(image, given)
    session.reset()
    session.step(images[0], labels)
    stages._spent.clear()
    for image in images[1:]:
        begin = time.perf_counter()
        session.step(image)
        stages.end(1000 * (time.perf_counter() - begin))
    result = {key: float(np.mean([frame.get(key, 0.0) for frame in stages.frames])) for key in stages.frames[-1]}
    result["rss_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return result


def in_own_process(name: str, dtype: str, options: argparse.Namespace) -> dict[str, float]:
    """`measure` in a fresh interpreter, so that the peak memory is this variant's alone."""
    command = [sys.executable, __file__, "--child", name, dtype, "--frames", str(options.frames)]
    command += ["--objects", str(options.objects), "--memory", options.memory, "--threads", str(options.threads)]
    command += ["--set", *(f"{key}={value!r}" for key, value in options.set)] if options.set else []
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{name} in {dtype} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def report(results: list[dict], limits: dict[str, float], console: Console) -> None:
    """The table."""
    table = Table(title=f"{SIZE[0]} x {SIZE[1]}, ms a frame (mean)")
    for heading in ("variant", "dtype", "total", "encode", "read", "decode", "write", "rest", "peak MB", "GFLOP", "of limit"):
        table.add_column(heading, justify="left" if heading in ("variant", "dtype") else "right")
    for r in results:
        stages = [f"{r[stage]:.0f}" if stage in r else "-" for stage in ("total", "encode", "read", "decode", "write", "rest")]
        share = r["gflop"] / r["total"] * 1000 / limits[r["dtype"]]
        table.add_row(r["variant"], r["dtype"], *stages, f"{r['rss_mb']:.0f}", f"{r['gflop']:.0f}", f"{share:.0%}")
    console.print(table)


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("variants", nargs="*", help=f"default: {' '.join(USUAL)}")
    parser.add_argument("--all", action="store_true", help="every registered variant")
    parser.add_argument("--dtypes", nargs="+", default=list(DTYPES), choices=DTYPES)
    parser.add_argument("--frames", type=int, default=17)
    parser.add_argument("--objects", type=int, default=3)
    parser.add_argument("--memory", default="paper", help="memory policy of the sessions")
    parser.add_argument(
        "--set", nargs="+", type=keyword, default=[], metavar="NAME=VALUE", help="arguments of the models' builders"
    )
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path, help="write the results here, too")
    parser.add_argument("--child", nargs=2, metavar=("VARIANT", "DTYPE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.child:
        print(json.dumps(measure(*options.child, options)))
        return
    from vosformer.inspection.cost import cost
    from vosformer.registry import variant, variants

    console = Console(width=130)
    names = [v.name for v in variants()] if options.all else (options.variants or list(USUAL))
    limits = {dtype: limit(DTYPES[dtype]) for dtype in options.dtypes}
    machine = {"cpu": processor(), "threads": options.threads, "torch": torch.__version__, "load": os.getloadavg()[0]}
    console.print(f"{machine}   limits in GFLOP/s: { ({k: round(v) for k, v in limits.items()}) }", highlight=False)
    results = []
    for name in names:
        gflop = cost(variant(name), options.objects, options.frames, **dict(options.set)).mean_gflop
        for dtype in options.dtypes:
            results.append({"variant": name, "dtype": dtype, "gflop": gflop, **in_own_process(name, dtype, options)})
            console.print(f"  {name} {dtype}: {results[-1]['total']:.0f} ms", style="dim")
    report(results, limits, console)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps({"machine": machine, "limits": limits, "results": results}, indent=1))


def keyword(text: str) -> tuple[str, object]:
    """NAME=VALUE, the value as Python writes it."""
    name, _, value = text.partition("=")
    return name, ast.literal_eval(value)


def processor() -> str:
    """The processor's name."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())


if __name__ == "__main__":
    main()
