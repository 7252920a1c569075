"""`vosformer data check`, `vosformer data compose` and `vosformer data vosw`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import tyro

from vosformer.errors import InputError


def check(root: Annotated[Path, tyro.conf.Positional], /, jobs: int = 4, show: int = 50) -> int:
    """Say what a data folder holds, and name every bad file. Exit code 1 if there are errors.

    Args:
        root: Folder of one or several data sets.
        jobs: Threads that read files.
        show: Problems printed for each data set; 0 = all.
    """
    from vosformer.data.datasets.check import check as check_folder

    reports = check_folder(root, jobs)
    for report in reports:
        unit = "videos" if report.kind == "video" else "pictures"
        frames = f"{report.frames} labeled frames, " if report.kind == "video" else ""
        print(f"{report.layout}: {report.folder}: {report.clips} {unit}, {frames}{report.objects} objects")
        problems = sorted(report.problems, key=lambda problem: problem.severity)
        for problem in problems[: show or None]:
            print(f"  {problem.severity}: {problem.path}: {problem.text}")
        if show and len(problems) > show:
            print(f"  ... and {len(problems) - show} more (--show 0 prints all)")
        if not problems:
            print("  no problems")
    return int(any(report.errors for report in reports))


def compose(
    out: Annotated[Path, tyro.conf.Positional],
    /,
    clips: int = 8,
    frames: int = 60,
    size: str = "480x854",
    seed: int = 1,
    assets: tuple[Path, ...] = (),
    kind: Literal["mixed", "natural"] = "mixed",
    split: str = "val",
    sheet: Path | None = None,
) -> None:
    """Render composed multi-object clips with exact masks, in the DAVIS layout.

    Args:
        out: Folder to write to.
        clips: Number of clips.
        frames: Frames of each clip.
        size: Height x width in pixels.
        seed: The same seed gives the same clips.
        assets: Folders with pictures and masks, DAVIS clips or sprites; without them everything is procedural.
        kind: Mixed: all that is there. Natural: soft cut-outs of photographs over real clips, in three groups that take turns: two
            to three objects ("few"), four to six ("several"), look-alikes ("alike").
        split: Name of the list in ImageSets/2017.
        sheet: Picture file (PNG or JPEG) for a contact sheet: six frames of each clip with their masks.
    """
    from vosformer.data.datasets.find import read_videos
    from vosformer.data.synthetic.assets import split_assets
    from vosformer.data.synthetic.preview import sheet_of_videos
    from vosformer.data.synthetic.render import render_clips
    from vosformer.io.images import write_picture

    height, width = parse_size(size)
    # Evaluation clips are made of what `Assets.split` keeps out of training.
    made_of = split_assets(assets)[1]
    folders = render_clips(out, made_of, clips, frames, (height, width), seed, split, kind=kind)
    print(f"{clips} clips of {frames} frames, {height} x {width} pixels: {out} (list: ImageSets/2017/{split}.txt)")
    print(f"masks: {folders[0].parent}")
    if sheet:
        write_picture(sheet, sheet_of_videos(read_videos("davis2017", out, split)))
        print(f"contact sheet: {sheet}")


def vosw(
    vipseg: Annotated[Path, tyro.conf.Positional],
    out: Annotated[Path, tyro.conf.Positional],
    /,
    split: str = "val",
    short_side: int | None = None,
    specks: int = 0,
    seed: int = 0,
) -> None:
    """Turn VIPSeg's panoptic masks into objects to follow, as AOST's section 5 describes for VOSW.

    Args:
        vipseg: Folder of VIPSeg (imgs/, panomasks/).
        out: Folder to write to; videos that are there already are kept.
        split: VIPSeg's list ("val", "train"), a file with a video on each line, or "all".
        short_side: Of the frames in pixels, e.g. 720. Default: as they are.
        specks: Leave out pieces of an object with fewer pixels than this. VOSW's authors removed such noise by hand.
        seed: Of the order of the objects' ids, which is shuffled for each video.
    """
    from vosformer.data.datasets.vosw import convert_vipseg

    made = convert_vipseg(vipseg, out, split=None if split == "all" else split, short_side=short_side, specks=specks, seed=seed)
    objects, later = sum(len(video.objects) for video in made), sum(len(video.later) for video in made)
    dropped = sum(video.dropped for video in made)
    print(f"{len(made)} videos with {objects} objects ({objects / len(made):.1f} a video), {later} of which enter later: {out}")
    if dropped:
        print(f"left out: {dropped} objects that were nothing but specks, or beyond 254 in a video")
    print("not the authors' VOSW: their list of 348 videos and their corrections by hand are not public")
    print(f"run it: vosformer benchmark vosw {out} -o runs/vosw --model ... --weights ...")


def parse_size(text: str) -> tuple[int, int]:
    """Sides of a size, e.g. (480, 854) of "480x854".

    Raises:
        InputError: it is something else.
    """
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise InputError(f"the size {text!r} is not understood; expected HEIGHTxWIDTH in pixels, e.g. 480x854")
    return int(parts[0]), int(parts[1])
