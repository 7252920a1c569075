"""How the time of a frame grows: with objects, with resolution, with the frames in memory, with the length of the video.

    python benchmarks/growth.py --threads 1 --json growth.json --picture docs/images/growth.png
    python benchmarks/growth.py --parts resolution --frames 3 --json growth.json      # measures a part again, and keeps the others
    python benchmarks/growth.py --model deaot-t --tiny --quick                        # a rehearsal in a minute

Times are those of the process (`time.process_time`), so that other programs count little; several threads add up.
Each row is the median of some frames, and beside it how many times as long it takes as the row before, against how many times as much
arithmetic it is (torch's FlopCounterMode over the same frame): where the time grows more steeply than the work, something is wrong.
Length compares early and late frames of one session, that goes round a short clip, and again after reset().
"""

from __future__ import annotations

import argparse
import gc
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from vosformer import Session
from vosformer.device import tune_process
from vosformer.nn.onednn import reference_kernels
from vosformer.weights import build

PARTS = ("objects", "resolution", "memory", "length")
TITLES = {"objects": "objects", "resolution": "pixels of the short side", "memory": "frames in memory"}


@dataclass
class Row:
    """One measured point: what was varied, milliseconds, GFLOP, and megabytes in the banks."""

    what: str
    at: float
    ms: float
    gflop: float
    memory_mb: float


def picture(height: int, objects: int, t: int) -> tuple[np.ndarray, np.ndarray]:
    """A 16:9 frame with a grid of discs that sway, and their masks."""
    width = round(height * 16 / 9)
    y, x = np.mgrid[:height, :width] / height
    columns = int(np.ceil(np.sqrt(objects * 16 / 9)))
    step = 16 / 9 / columns
    labels = np.zeros((height, width), np.int32)
    for i in range(objects):
        row, column = divmod(i, columns)
        labels[(y - (row + 0.5) * step) ** 2 + (x - (column + 0.5) * step - 0.02 * np.sin(t / 3)) ** 2 < (0.35 * step) ** 2] = (
            i + 1
        )
    color = np.stack([labels * 37 % 256, labels * 91 % 256, 255 - labels * 53 % 256], 2)
    noise = np.random.default_rng(0).integers(0, 40, (height, width, 3))
    return np.clip(color // 2 + noise, 0, 255).astype(np.uint8), labels


def warm(session: Session, height: int, objects: int, frames: int = 2) -> None:
    """Begin, and take a frame or two."""
    session.reset()
    session.step(*picture(height, objects, 0))
    for t in range(1, frames):
        session.step(picture(height, objects, t)[0])


def work(session: Session, frame: np.ndarray) -> float:
    """GFLOP of the next frame; the session goes on from where it was."""
    kept, counter = session.state, FlopCounterMode(display=False)
    with counter, reference_kernels():
        session.step(frame)
    session.state = kept
    return counter.get_total_flops() / 1e9


def measured(session: Session, what: str, at: float, pictures: Sequence[np.ndarray]) -> Row:
    """Return one point: of the next frames, one of which is also counted; the session has been warmed."""
    gflop = work(session, pictures[0])
    spent = []
    for frame in pictures:
        begin = time.process_time()
        session.step(frame)
        spent.append(1000 * (time.process_time() - begin))
    return Row(what, at, float(np.median(spent)), gflop, session.memory_bytes / 1e6)


def frames_of(height: int, objects: int, count: int) -> list[np.ndarray]:
    """Return the first frames of a clip."""
    return [picture(height, objects, t)[0] for t in range(count)]


def length(session: Session, short: int, points: Sequence[int], frames: int) -> Iterator[Row]:
    """Frames of one session at each of the points, and those of the first one again after reset()."""
    pictures = frames_of(short, 3, 20)
    now = 0
    for n, begin in enumerate((*points, points[0])):
        if n in (0, len(points)):
            session.reset()
            gc.collect()
            session.step(*picture(short, 3, 0))
            now = 1
        while now < begin:
            session.step(pictures[now % 20])
            now += 1
        what = "length" if n < len(points) else "after reset()"
        yield measured(session, what, begin, [pictures[(now + i) % 20] for i in range(frames)])
        now += frames


def chart(rows: list[Row], path: Path) -> None:
    """One panel a quantity: measured times, and the arithmetic scaled to the first point."""
    kinds = [kind for kind in TITLES if sum(row.what == kind for row in rows) > 1]
    side, margin = 420, 60
    image = np.full((side, side * len(kinds), 3), 255, np.uint8)
    for panel, kind in enumerate(kinds):
        own = [row for row in rows if row.what == kind]
        most = max(max(row.ms for row in own), max(row.gflop for row in own) / own[0].gflop * own[0].ms)
        far = max(row.at for row in own)

        def place(at: float, ms: float, panel: int = panel, far: float = far, most: float = most) -> tuple[int, int]:
            inner = side - 2 * margin
            return panel * side + margin + round(inner * at / far), side - margin - round(inner * ms / most)

        cv2.rectangle(image, place(0, 0), place(far, most), (210, 210, 210), 1)
        scaled = [row.gflop / own[0].gflop * own[0].ms for row in own]
        for values, color in (([row.ms for row in own], (164, 101, 52)), (scaled, (34, 126, 230))):
            points = [place(row.at, value) for row, value in zip(own, values, strict=True)]
            cv2.polylines(image, [np.array(points)], False, color, 2, cv2.LINE_AA)
            for point in points:
                cv2.circle(image, point, 4, color, -1, cv2.LINE_AA)
        font = cv2.FONT_HERSHEY_SIMPLEX
        cv2.putText(
            image, f"{TITLES[kind]}, up to {far:g}", (panel * side + margin, side - 25), font, 0.5, (40, 40, 40), 1, cv2.LINE_AA
        )
        cv2.putText(
            image, f"ms a frame, up to {most:.0f}", (panel * side + margin, 30), font, 0.5, (164, 101, 52), 1, cv2.LINE_AA
        )
        cv2.putText(image, "arithmetic, to scale", (panel * side + margin, 50), font, 0.5, (34, 126, 230), 1, cv2.LINE_AA)
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), image)


def show(rows: list[Row], console: Console) -> None:
    """One table; ratios are to the row before of the same part."""
    table = Table("varied", "at", "ms", "times the row before", "arithmetic, times", "memory MB")
    before: Row | None = None
    for row in rows:
        same = before is not None and (before.what == row.what or row.what not in PARTS)
        ratio = f"{row.ms / before.ms:.2f}" if same and before else ""
        flops = f"{row.gflop / before.gflop:.2f}" if same and before and before.gflop else ""
        table.add_row(row.what, f"{row.at:g}", f"{row.ms:.0f}", ratio, flops, f"{row.memory_mb:.0f}")
        before = row
    console.print(table)


def measure(part: str, session: Callable[..., Session], options: argparse.Namespace) -> Iterator[Row]:
    """Yield the rows of one part."""
    short, frames = options.short, options.frames
    if part == "objects":
        for count in options.objects:
            each = session(short)
            warm(each, short, count)
            yield measured(each, part, count, frames_of(short, count, frames))
    elif part == "resolution":
        for size in options.resolutions:
            each = session(size)
            warm(each, size, 3)
            yield measured(each, part, size, frames_of(size, 3, frames))
    elif part == "memory":
        for count in options.memory:
            each = session(short, "given-only")
            for t in range(count):  # every frame with masks stays in the bank, up to eight
                each.step(*picture(short, 3, t))
            yield measured(each, part, count, frames_of(short, 3, frames))
    else:
        yield from length(session(short), short, options.length, frames)


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="default")
    parser.add_argument("--dtype", default="fp32")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--quick", action="store_true", help="few and small points: a rehearsal")
    parser.add_argument("--objects", type=int, nargs="+", default=[1, 3, 10, 20, 50])
    parser.add_argument("--resolutions", type=int, nargs="+", default=[240, 360, 480, 720, 1080])
    parser.add_argument("--memory", type=int, nargs="+", default=[1, 2, 4, 8], help="frames in the bank")
    parser.add_argument("--short", type=int, default=480, help="short side where it is not varied")
    parser.add_argument("--length", type=int, nargs="+", default=[20, 60, 5000], help="frames of one session")
    parser.add_argument("--frames", type=int, default=9, help="frames of a median")
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=PARTS, help="none: only show what --json holds")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument(
        "--json", type=Path, help="written after every row; parts that it holds and that are not measured now stay"
    )
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    if options.quick:
        options.objects, options.resolutions, options.memory = [1, 3, 12], [96, 160], [1, 4]
        options.short, options.length, options.frames = 96, [20, 60], 3
    torch.set_num_threads(options.threads)
    tune_process(torch.device("cpu"))
    model = build(options.model, **({"tiny": True} if options.tiny else {})).eval().requires_grad_(False)

    def session(size: int, memory: str = "default") -> Session:
        return Session(model, device="cpu", dtype=options.dtype, size=size, memory=memory, closer="off")

    rows: list[Row] = []
    if options.json and options.json.exists():
        rows = [Row(**row) for row in json.loads(options.json.read_text())]
    for part in options.parts:
        rows = [row for row in rows if row.what != part and (part != "length" or row.what in PARTS)]
        for row in measure(part, session, options):
            rows.append(row)
            if options.json:
                options.json.write_text(json.dumps([vars(row) for row in rows], indent=1))
    rows.sort(key=lambda row: (*PARTS, row.what).index(row.what))
    console = Console(width=110)
    console.print(f"{options.model} {options.dtype}, {options.threads} threads, torch {torch.__version__}", highlight=False)
    show(rows, console)
    if options.picture:
        chart(rows, options.picture)


if __name__ == "__main__":
    main()
