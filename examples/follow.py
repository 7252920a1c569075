"""Follow one object in a webcam, a stream or a file, frame by frame: one line of JSON for each frame.

    python examples/follow.py camera:0 --box 200,120,380,400
    python examples/follow.py rtsp://10.0.0.7/live --mask first.png
    python examples/follow.py clip.mp4 --mask first.png | head -n 100

This is the loop of a robot or a video pipeline: a source, a session, and what to do with each prediction. Memory stays flat however
long it runs; of a live source, frames for which there is no time are left out.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from typing import Any

import numpy as np

import vosformer
from vosformer.io import open_source, read_labels

OBJECT = 1


def follow(video: str, mask: str | None, box: list[float] | None, model: str, size: int) -> Iterator[dict[str, Any]]:
    """Yield for each frame its number, how surely the object is in it (0 to 1), its box and its area in pixels."""
    session = vosformer.Session(model, size=size)
    with open_source(video) as source:
        for frame in source.frames():
            if frame.image is None:  # it did not decode; the next one may
                continue
            labels = None
            if not session.ids:
                found = read_labels(mask).labels > 0 if mask else vosformer.mark(frame.image, box=box)
                labels = np.where(found, OBJECT, 0)
            prediction = session.step(frame.image, labels)
            yield {
                "frame": frame.number,
                "score": round(prediction.score(OBJECT), 3),
                "box": prediction.boxes().get(OBJECT),
                "area": int((prediction.labels == OBJECT).sum()),
            }


def main() -> None:
    """Read the command line and print what is found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", help="file, folder of images, camera:0, or the address of a stream")
    parser.add_argument("--mask", help="label image of the first frame; everything that is not 0 is the object")
    parser.add_argument("--box", help="x0,y0,x1,y1 around the object on the first frame, in pixels")
    parser.add_argument("--model", default="default-fast")
    parser.add_argument("--size", type=int, default=480, help="short side in pixels that the model sees")
    options = parser.parse_args()
    if not (options.mask or options.box):
        parser.error("say where the object is on the first frame: --mask or --box")
    box = [float(value) for value in options.box.split(",")] if options.box else None
    for line in follow(options.video, options.mask, box, options.model, options.size):
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
