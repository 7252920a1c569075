"""`vosformer inspect`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from numpy.typing import NDArray
from rich.table import Table

from vosformer.cli.session_options import SessionOptions
from vosformer.cli.source_options import SourceOptions
from vosformer.cli.terminal import messages, show_notes
from vosformer.errors import InputError
from vosformer.formats import read_masks
from vosformer.inspection.onevos_attention import GROUPS, Inspection, inspect_clip
from vosformer.inspection.plots import draw, draw_maps
from vosformer.inspection.weight_maps import inspect_maps
from vosformer.io import MaskFolder, Source
from vosformer.models.onevos import OneVOS

Labels = NDArray[np.int32]


def inspect(
    video: Annotated[str, tyro.conf.Positional],
    /,
    mask: Path,
    out: Annotated[Path, tyro.conf.arg(aliases=("-o",))],
    mask_frame: int = 0,
    frames: int = 10,
    pictures: int = 3,
    point: tuple[int, int] | None = None,
    run: Annotated[SessionOptions, tyro.conf.arg(name="")] = SessionOptions(model="onevos-b"),
    reading: Annotated[SourceOptions, tyro.conf.arg(name="")] = SourceOptions(),
) -> None:
    """Plot what a model looks at, layer by layer, for a clip.

    OneVOS: its paper's Figures 3 to 5. JointFormer: Figures 7 to 9. SimVOS with prototypes: Figure 6. AOT, AOST and DeAOT: the
    long- and short-term attention of a point.

    Args:
        video: video file or folder of images.
        mask: label image of one frame, folder of masks, or annotation file, as for `vosformer track`.
        out: folder for the pictures and inspection.json.
        mask_frame: the frame that a single mask belongs to, where the clip begins; the first is 0.
        frames: how many frames to look at, from the first mask on.
        pictures: of how many of them the token maps are drawn.
        point: x and y of the pixel to look from (default: the middle of the first object in each frame); not for OneVOS and SimVOS.
        run: how the model runs; e.g. model onevos-b-d for OneVOS with a Dynamic Token Selector.
        reading: how the frames are read.
    """
    if frames < 2:
        raise InputError(f"--frames is {frames}: at least 2 are needed, the one with the mask and one that is read")
    run.prepare()
    # Windows would show their own small maps among those of the whole frame.
    session = (replace(run, closer="off") if run.closer == "auto" else run).session()
    with reading.open(video) as source:
        masks = read_masks(mask, source, frame=mask_frame)
        show_notes([*source.notes, *masks.notes])
        clip = list(_clip(source, masks, frames))
    if isinstance(session.model, OneVOS):
        found = inspect_clip(session, clip)
        written = draw(found, out, pictures)
        messages().print(_table(found))
    else:
        written = draw_maps(inspect_maps(session, clip, point), [image for image, _ in clip], out, pictures)
    messages().print(f"{len(written)} files in {out}")


def _clip(source: Source, masks: MaskFolder, frames: int) -> Iterator[tuple[NDArray[np.uint8], Labels | None]]:
    start = next(iter(masks))
    for frame in source.frames(start, start + frames):
        if frame.image is None:
            raise InputError(f"{source.name}: frame {frame.number} cannot be looked at: {frame.problem}")
        yield frame.image, masks[frame.number].labels if frame.number in masks else None


def _table(found: Inspection) -> Table:
    table = Table(title="attention of the objects, mean over the clip")
    for heading in ("layer", *GROUPS, "selected", "tokens in memory"):
        table.add_column(heading, justify="right")
    shares = found.shares.mean(0)
    for i, row in enumerate(shares):
        cells = [f"{share:.1%}" for share in row]
        table.add_row(str(i), *cells, f"{found.ratios[:, i].mean():.1%}", str(found.tokens[-1, i]))
    return table
