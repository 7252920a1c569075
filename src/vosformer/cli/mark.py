"""`vosformer mark`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from vosformer.cli.common import prepare_machine
from vosformer.cli.prompting import Marks, mark_frame
from vosformer.cli.source_options import SourceOptions
from vosformer.cli.terminal import messages, show_notes
from vosformer.errors import InputError
from vosformer.formats import read_masks
from vosformer.io import indexed_png, write_bytes


def mark(
    video: Annotated[str, tyro.conf.Positional],
    /,
    out: Annotated[Path, tyro.conf.arg(aliases=("-o",))],
    number: Annotated[int, tyro.conf.arg(aliases=("-n",))] = 0,
    marks: Annotated[Marks, tyro.conf.arg(name="")] = Marks(),
    mask: Path | None = None,
    classical: bool = False,
    network: Path | None = None,
    threads: int | None = None,
    reading: Annotated[SourceOptions, tyro.conf.arg(name="")] = SourceOptions(),
) -> None:
    """Mark objects on one frame of a video: clicks, boxes, scribbles and polygons become a label image that `track --mask` takes.

    Places are x,y in pixels of the frame, from its top left corner; `7:` in front says which object is meant (default: 1). All flags
    can be given several times.

    Args:
        video: video file, folder, list or pattern of images.
        out: label image to write, an indexed .png.
        number: of the frame; the first is 0.
        marks: what is said about objects.
        mask: label image of this frame, in which points repair objects; objects that nothing is said about stay as they are.
        classical: GrabCut and a random walker in place of the click network.
        network: weights of a click network of your own (see `vosformer train clicks`).
        threads: CPU threads (default: one a core, or 1 if other programs keep the cores busy).
        reading: how the frames are read.
    """
    prepare_machine(threads)
    if out.suffix.lower() != ".png":
        raise InputError(f"-o {out}: a label image is written as .png")
    if not marks:
        raise InputError("nothing is marked: say where objects are with --point, --box, --scribble or --polygon")
    if Path(video).resolve() in (out.resolve(), out.resolve().parent):
        raise InputError(f"{out} would become part of the video; choose another place with -o")
    with reading.open(video) as source:
        held = None if mask is None else read_masks(mask, source, frame=number).labels.get(number)
        marked = mark_frame(source, number, marks, held, classical=classical, network=network)
    ids, pixels = np.unique(marked.labels, return_counts=True)
    if ids[0] < 0 or ids[-1] > 255:
        raise InputError(
            f"the id {ids[0] if ids[0] < 0 else ids[-1]} does not fit a label image, which holds ids from 1 to 255"
        )
    write_bytes(out, indexed_png(marked.labels))
    show_notes([*source.notes, *marked.notes])
    sizes = ", ".join(f"object {i}: {n} pixels" for i, n in zip(ids, pixels, strict=True) if i)
    messages().print(f"{sizes or 'no object'}; written to {out}")
    messages().print(f"vosformer track {video} --mask {out}{f' --mask-frame {number}' if number else ''} -o OUT/")
