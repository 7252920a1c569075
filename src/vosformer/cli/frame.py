"""`vosformer frame`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

from vosformer.cli.source_options import SourceOptions
from vosformer.cli.terminal import messages, show_notes
from vosformer.errors import InputError
from vosformer.io import DAVIS_PALETTE, write_picture


def frame(
    video: Annotated[str, tyro.conf.Positional],
    /,
    out: Annotated[Path, tyro.conf.arg(aliases=("-o",))],
    number: Annotated[int, tyro.conf.arg(aliases=("-n",))] = 0,
    reading: Annotated[SourceOptions, tyro.conf.arg(name="")] = SourceOptions(),
) -> None:
    """Write one frame of a video as a picture, to mark objects on: turned and numbered as `track` sees it.

    Args:
        video: video file, folder, list or pattern of images, stream (rtsp://..., http://...), or camera:0.
        out: picture to write, .png or any other kind.
        number: of the frame; the first is 0.
        reading: how the frames are read.
    """
    with reading.open(video) as source:
        found = source.read(number)
        if found.image is None:
            raise InputError(f"{source.name}: frame {number} cannot be shown: {found.problem}")
        if Path(video).resolve() in (out.resolve(), out.resolve().parent):
            raise InputError(f"{out} would become part of the video; choose another place with -o")
        write_picture(out, found.image)
    console = messages()
    show_notes(source.notes)
    height, width = found.image.shape[:2]
    console.print(f"frame {number} of {source.name}, {width} x {height} pixels: {out}")
    colors = ", ".join(f"({red}, {green}, {blue})" for red, green, blue in DAVIS_PALETTE[1:5].tolist())
    console.print(
        f"Mark objects on a black or transparent layer above it, without anti-aliasing: white for a single one, or {colors}, ... "
        f"for objects 1, 2, 3, 4, ...; save that layer as a PNG of {width} x {height} pixels. Then:\n"
        f"vosformer track {video} --mask THAT.png{f' --mask-frame {number}' if number else ''} -o OUT/",
    )
