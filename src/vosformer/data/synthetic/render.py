"""Composed clips on disk, in the DAVIS layout, for evaluation and demonstrations."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image as PILImage

from vosformer.data.synthetic.assets import Assets
from vosformer.data.synthetic.compose import ComposeConfig, random_scene, settle_table, visible
from vosformer.data.synthetic.scene import Size
from vosformer.data.types import Image, Labels
from vosformer.errors import InputError
from vosformer.io.files import make_folder, write_bytes
from vosformer.io.sinks import indexed_png

VERSION = 2  # of the clips that a seed gives: raised when they change, since scores on others cannot be compared
_TRIES = 50

EVALUATION = ComposeConfig(
    size=(480, 854),
    objects=(0.0, 0.0, 0.3, 0.3, 0.25, 0.15),
    distractors=(0.3, 0.4, 0.3),
    labeled=("video",),
    extent=(0.15, 0.65),
    window=(0.85, 1.0),
    motion=0.8,
    camera=0.8,
    max_objects=6,
    min_area=0.002,
)
"""Clips to score with: two objects or more, look-alikes, at the size of the benchmarks; photographs are backdrops only, since
their masks are not exact.
"""

_NATURAL = replace(
    EVALUATION,
    backdrops={"video": 1.0},
    labeled=(),
    sources={"still": 1.0},
    distractors=(0.5, 0.3, 0.2),
    look_alike=0.0,
    bends=0.7,
    extent=(0.08, 0.55),
    min_area=0.0006,
)

KINDS: dict[str, dict[str, ComposeConfig]] = {
    "mixed": {"composed": EVALUATION},
    "natural": {
        "few": replace(_NATURAL, objects=(0.0, 0.0, 0.5, 0.5)),
        "several": replace(_NATURAL, objects=(0.0, 0.0, 0.0, 0.0, 0.3, 0.4, 0.3)),
        "alike": replace(_NATURAL, objects=(0.0, 0.0, 0.4, 0.3, 0.3), distractors=(0.7, 0.3), look_alike=1.0),
    },
}
"""Kinds of clips to score with, each of one or several groups. "mixed": everything there is. "natural": objects cut out of
photographs, which bend as animals and people do, over real clips whose own objects do not count; two to three of them, four to six,
or look-alikes of one thing.
"""


def composed_clip(
    assets: Assets, frames: int, seed: int, index: int = 0, config: ComposeConfig = EVALUATION
) -> Iterator[tuple[Image, Labels]]:
    """Render clip `index` of the stream `seed`, frame by frame: pictures uint8 [H,W,3], labels uint8 [H,W] with ids 1..n.

    All n >= 2 objects are seen in the first frame, if `config` makes that possible. The stream has nothing in common with the
    training streams of the same seed.
    """
    rng = np.random.default_rng([seed, index, frames, 1])
    for _ in range(_TRIES):
        scene = random_scene(rng, assets, config)
        first = scene.render(0, rng)
        if len(visible(first[1], config.min_area)) >= 2:
            break
    table = settle_table(rng, first[1], config.min_area, config.max_objects)
    yield first[0], table[first[1]]
    for time in range(1, frames):
        image, labels = scene.render(time, rng)
        yield image, table[labels]


def render_clips(
    out: Path,
    assets: Assets,
    clips: int,
    frames: int,
    size: Size,
    seed: int,
    split: str = "val",
    jpeg_quality: int = 92,
    kind: str = "mixed",
) -> list[Path]:
    """Write composed clips as `JPEGImages/<p>/composed-000/00000.jpg`, `Annotations/...png` and `ImageSets/2017/<split>.txt`.

    <p> is the short side, e.g. `480p`. The same arguments give the same files. The groups of a kind (`KINDS`) take turns, and give
    their clips their names. `composed.json` says what they were made of, and by which version of this.

    Returns:
        The folders of the masks, one a clip.

    Raises:
        InputError: a number is out of range.
        OutputError: the files cannot be written.
    """
    if clips < 1 or frames < 1 or min(size) < 32:
        raise InputError(
            f"{clips} clips of {frames} frames of {size[0]} x {size[1]} pixels: expected 1 clip and frame or more, 32 px"
        )
    if kind not in KINDS:
        raise InputError(f"there is no kind of clips {kind!r}; known are {', '.join(KINDS)}")
    about: dict[str, object] = {
        "made_by": "vosformer data compose",
        "version": VERSION,
        "clips": clips,
        "frames": frames,
        "size": list(size),
        "seed": seed,
        "assets": [len(assets.videos), len(assets.stills), len(assets.sprites)],
    }
    if kind != "mixed":
        about["kind"] = kind
    _begin(out, (json.dumps(about, indent=1) + "\n").encode())
    groups = list(KINDS[kind].items())
    names = [f"{groups[number % len(groups)][0]}-{number:03d}" for number in range(clips)]
    resolution = f"{min(size)}p"
    folders = []
    for number, name in enumerate(names):
        pictures = make_folder(out / "JPEGImages" / resolution / name)
        folders.append(make_folder(out / "Annotations" / resolution / name))
        config = replace(groups[number % len(groups)][1], size=size)
        for time, (image, labels) in enumerate(composed_clip(assets, frames, seed, number, config)):
            write_bytes(pictures / f"{time:05d}.jpg", _jpeg(image, jpeg_quality))
            write_bytes(folders[-1] / f"{time:05d}.png", indexed_png(labels))
    lists = make_folder(out / "ImageSets" / "2017")
    write_bytes(lists / f"{split}.txt", "".join(f"{name}\n" for name in names).encode())
    return folders


def _begin(out: Path, about: bytes) -> None:
    """Note what is being made; refuse a folder with other clips, whose frames would stay beside the new ones."""
    note = make_folder(out) / "composed.json"
    if note.exists() and note.read_bytes() != about:
        raise InputError(f"{out} holds other composed clips (see {note.name} there): give an empty folder")
    if not note.exists() and (out / "JPEGImages").exists():
        raise InputError(f"{out} holds clips that were not composed here: give an empty folder")
    write_bytes(note, about)


def _jpeg(image: Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    PILImage.fromarray(image).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()
