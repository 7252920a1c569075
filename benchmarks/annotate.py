"""How long a person waits in the annotator: from a key to the frame, from a click to the mask.

    python benchmarks/annotate.py clip.mp4
    python benchmarks/annotate.py            # makes a clip of 20,000 frames, 640 x 360

Times are of what the server does for a request: CPU seconds of this process, and wall-clock seconds, which mean something only on a
machine with nothing else to do. What the browser adds is not measured.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from vosformer.annotate.editor import Editor
from vosformer.annotate.pictures import frame_jpeg, labels_as_rgb_png
from vosformer.annotate.project import Project
from vosformer.io import open_source
from vosformer.io.random_access import RandomAccess


def make_clip(path: Path, frames: int, height: int, width: int, gop: int) -> None:
    """A clip of a square that moves over noise."""
    ground = (
        np.random.default_rng(0).integers(60, 200, (height // 10, width // 10, 3)).astype(np.uint8).repeat(10, 0).repeat(10, 1)
    )
    side = height // 6
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(25))
        stream.height, stream.width, stream.pix_fmt = *ground.shape[:2], "yuv420p"
        stream.codec_context.gop_size = gop
        stream.options = {"preset": "ultrafast", "crf": "30"}
        for n in range(frames):
            image = ground.copy()
            x = 3 * n % (ground.shape[1] - side)
            image[side : 2 * side, x : x + side] = (250, 30, 30)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))


def resident_mb() -> float:
    """Memory of this process (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6


def measure(name: str, calls: list[Callable[[], object]]) -> None:
    """Print the median and the largest time of calls."""
    cpu, wall = [], []
    for call in calls:
        begun = time.process_time(), time.perf_counter()
        call()
        cpu.append(time.process_time() - begun[0])
        wall.append(time.perf_counter() - begun[1])
    print(
        f"{name:34} CPU median {statistics.median(cpu):6.3f} s, most {max(cpu):6.3f} s; wall {statistics.median(wall):6.3f}, "
        f"{max(wall):6.3f}; memory {resident_mb():5.0f} MB"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("video", nargs="?")
    parser.add_argument("--frames", type=int, default=20_000)
    parser.add_argument("--size", type=int, nargs=2, default=(360, 640), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--gop", type=int, default=250, help="frames between key frames of the clip that is made")
    said = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(said.video or Path(folder) / "clip.mp4")
        if said.video is None:
            make_clip(path, said.frames, *said.size, said.gop)
        source = open_source(path)
        project = Project(Path(folder) / "project", source)
        access = RandomAccess(source)
        editor = Editor(project, access)
        print(f"{path}: {project.frames} frames of {source.width} x {source.height}")

        def show(n: int) -> Callable[[], object]:
            return lambda: (frame_jpeg(access.read(n), project.size, 1080), labels_as_rgb_png(project.labels(n), 1080))

        dice = random.Random(0)
        middle = project.frames // 2
        measure("a frame anywhere", [show(dice.randrange(project.frames)) for _ in range(30)])
        measure("the next frame", [show(n) for n in range(middle, min(middle + 40, project.frames))])
        measure("the frame before", [show(n) for n in range(middle + 30, max(middle - 10, 0), -1)])
        thing = editor.add_object()
        height, width = project.size
        spots = [(width * (0.3 + 0.4 * dice.random()), height * (0.3 + 0.4 * dice.random())) for _ in range(8)]

        def click(at: tuple[float, float]) -> Callable[[], object]:
            return lambda: (editor.click(middle, thing.id, [at], [1]), labels_as_rgb_png(project.labels(middle), 1080))

        measure("a click, first one included", [click(at) for at in spots])
        box = (0.3 * width, 0.1 * height, 0.6 * width, 0.5 * height)
        measure("a box", [lambda: editor.click(middle + 1, thing.id, [], [], box) for _ in range(3)])
        stroke = [(width * (0.2 + 0.006 * k), height * 0.5) for k in range(100)]
        measure("a stroke", [lambda: editor.stroke(middle, thing.id, stroke, 8) for _ in range(10)])
        project.close()


if __name__ == "__main__":
    main()
