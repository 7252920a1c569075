"""`vosformer convert` and `vosformer formats`."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import tyro
from rich.table import Table

from vosformer.cli.source_options import SourceOptions
from vosformer.cli.terminal import messages, show_notes, show_table
from vosformer.formats import FORMATS, read_names
from vosformer.formats import convert as convert_file
from vosformer.formats.api import read_along
from vosformer.formats.outputs import BlankFrames, Setting, is_sink, render
from vosformer.io.edges import Edges


def convert(
    source: Annotated[Path, tyro.conf.Positional],
    /,
    to: str,
    out: Annotated[Path, tyro.conf.arg(aliases=("-o",))],
    format: Annotated[str | None, tyro.conf.arg(name="from")] = None,
    video: str | None = None,
    names: Path | None = None,
    legend: Path | None = None,
    frames: str | None = None,
    pictures: bool = False,
    edges: Annotated[Edges, tyro.conf.arg(name="")] = Edges(),
    reading: Annotated[SourceOptions, tyro.conf.arg(name="")] = SourceOptions(),
    overwrite: bool = False,
) -> None:
    """Turn masks from one annotation format into another, or into an overlay, mattes or cut-outs; no model is used.

    Args:
        source: annotation file or folder, of any format that `vosformer formats` lists.
        to: format to write; or, as with `vosformer track --outputs`, overlay, matte, matte-ffv1, matte-png, exr, cutout, rgba.
        out: file or folder to write.
        format: format to read; default: the one that the files are recognized as.
        video: name of the video to read, of a file with several.
        names: objects.json with names, categories and colors: {"7": {"name": "left dog", "category": "dog", "color": "#ff8800"}}.
        legend: which color of label pictures stands for which object, see `vosformer track --help`.
        frames: the video or folder of images that the masks belong to: for formats that do not hold its size, rate or length.
        pictures: write the pictures of the frames, too, where the format has a place for them; needs --frames.
        edges: what is done to the edges of mattes and cut-outs.
        reading: how the frames are read.
        overwrite: replace what is there.
    """
    objects = None if names is None else read_names(names)
    with ExitStack() as stack:
        opened = None if frames is None else stack.enter_context(reading.open(frames))
        if is_sink(to) or edges:
            found = read_along(source, format=format, video=video, names=objects, frames=opened, legend=legend)
            shown = BlankFrames(found) if opened is None else opened
            setting = Setting(shown, Path(shown.name).stem, objects=found.objects, edges=edges)
            notes = [*found.notes, *render(found, to, out, setting, overwrite)]
        else:
            found, notes = convert_file(
                source, out, to, format=format, video=video, names=objects, frames=opened, pictures=pictures,
                overwrite=overwrite, legend=legend,
            )  # fmt: skip
        notes = [*(opened.notes if opened is not None else ()), *notes]
    show_notes(notes)
    count = sum(len(frame.masks) for frame in found.frames)
    messages().print(f"{count} masks of {len(found.objects)} objects on {len(found.frames)} frames, written to {out}")


def formats() -> None:
    """List the annotation formats: read, written, what each has no place for, and which tool it is checked by."""
    table = Table("format", "what it is", "read", "written", "has no place for", "checked by")
    for name, form in FORMATS.items():
        words = {"overlap": "overlap", "ids": "ids", "names": "names", "categories": "categories", "colors": "colors"}
        missing = ", ".join(word for key, word in words.items() if key not in form.holds)
        written = form.write is not None or is_sink(name)
        said = (form.summary, "yes" if form.read else "no", "yes" if written else "no", missing or "-", form.checked or "-")
        table.add_row(name, *said)
    show_table(table)
