"""`vosformer demo`: the main job from end to end, on a clip whose true masks are known."""

from __future__ import annotations

import os
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.text import Text

from vosformer.cli.session_options import SessionOptions
from vosformer.cli.terminal import results, show_table
from vosformer.cli.track import track
from vosformer.data.synthetic.assets import Assets
from vosformer.data.synthetic.render import composed_clip
from vosformer.errors import InputError
from vosformer.evaluation import evaluate
from vosformer.io import LabelImages
from vosformer.io.frames import Frame, frame_name
from vosformer.io.overlay import OverlayVideo

_SEED = 2  # several textured objects, one of which passes behind another


def demo(out: Path = Path("demo-out"), frames: int = 40, size: int = 480, model: str = "default", dtype: str = "auto") -> None:
    """Make a clip of moving, occluding, textured objects with exact masks; track it as a user would; score it.

    Args:
        out: folder for the clip, the masks and the overlay video.
        frames: length of the clip.
        size: short side in pixels that the model sees.
        model: variant, see `vosformer variants`.
        dtype: auto, fp32 or bf16.
    """
    if frames < 3:
        raise InputError(f"--frames is {frames}, expected at least 3: the first and the last one are not scored")
    console = results()
    console.print(f"making a clip of {frames} frames ...")
    truth = out / "truth"
    video = make_clip(out, frames)
    console.print(f"vosformer track {video} --mask {truth / frame_name(0)}.png -o {out / 'result'}", style="bold")
    begin = time.perf_counter()
    track(
        str(video),
        mask=truth / f"{frame_name(0)}.png",
        out=out / "result",
        run=SessionOptions(model=model, dtype=dtype, size=size),
    )
    seconds = time.perf_counter() - begin
    report = evaluate(out / "result" / "masks", truth, rules="davis")
    show_table(report.table())
    rest = f" against the exact masks; {frames / seconds:.1f} frames/s over all, start included "
    machine = f"({torch.get_num_threads()} threads, {os.cpu_count()} cores)"
    console.print(Text.assemble("J&F ", (f"{100 * report.jf:.1f}", "bold"), rest, machine))
    overlay, masks = ((str(out / "result" / name), "bold") for name in ("overlay.mp4", "masks"))
    console.print(Text.assemble("look at ", overlay, " and ", masks, f"; the clip is {video}"))


def make_clip(out: Path, frames: int) -> Path:
    """Write the clip as `out/clip.mp4` and its true masks as `out/truth/00000.png` and so on.

    Returns:
        The video's path.
    """
    (out / "truth").mkdir(parents=True, exist_ok=True)
    video = out / "clip.mp4"
    with OverlayVideo(video, Fraction(24), opacity=0) as clip, LabelImages(out / "truth") as truth:
        for number, (image, exact) in enumerate(composed_clip(Assets(), frames, _SEED)):
            frame = Frame(number, frame_name(number), image, number / 24)
            labels = exact.astype(np.int32)
            clip.write(frame, np.zeros_like(labels), {}, _no_probability)
            truth.write(frame, labels, {}, _no_probability)
    return video


def _no_probability(i: int) -> NDArray[np.float32]:
    raise InputError(f"a composed clip has no probability of object {i}: its masks are exact")
