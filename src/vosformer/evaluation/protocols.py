"""The benchmarks: where their frames and masks lie, which are shown and given, and what is handed in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from vosformer.errors import InputError
from vosformer.evaluation.rules import RULES, Rules

Family = Literal["davis", "youtube", "mose", "lvos", "vost", "visor", "viposeg", "sav", "burst", "own"]
HandInForm = Literal["masks", "visor", "burst", "youtube-vis"]


@dataclass(frozen=True)
class Protocol:
    """The protocol of one benchmark.

    Attributes:
        name: what users type.
        summary: one line for the help.
        family: data sets of one family have the same presets, see `presets`.
        images: where the frames may be, below the data set's root: folders of one folder a video.
        masks: where the masks that are given may be.
        rules: of its scorer, see `RULES`.
        truth: where the true masks may be; empty = where the given ones are.
        split: list of videos in ImageSets, or its file; None = every video that has masks.
        meta_frames: only the frames that meta.json names are asked for (YouTube-VOS: 6 a second).
        scored_frames: folders of frames whose names are asked for, where more frames than these are shown; empty = all.
        public_truth: all true masks come with the data set, so it can be scored here.
        gives_later: masks of objects that enter later are given, even if the scorer does not look at these.
        zip_prefix: folder inside the zip file that its server takes.
        clips: the root may also hold a folder for each video, with its frames and masks in ``frames`` and ``masks``.
        larger: frames are larger than the masks; logits are resampled to the masks' size, as released code does.
        object_folders: every object has a folder of masks, and objects may overlap (SA-V).
        handin: what its server takes: the masks, or VISOR's polygons, or tracks in the JSON of BURST or YouTube-VIS. Of the last
            two the given masks lie in JSON files as well, and `rules` are those of `TRACK_RULES`; see `track_videos`.
    """

    name: str
    summary: str
    family: Family
    images: tuple[str, ...]
    masks: tuple[str, ...]
    rules: str
    truth: tuple[str, ...] = ()
    split: str | None = None
    meta_frames: bool = False
    scored_frames: tuple[str, ...] = ()
    public_truth: bool = True
    gives_later: bool = False
    zip_prefix: str = ""
    clips: bool = False
    larger: bool = False
    object_folders: bool = False
    handin: HandInForm = "masks"

    @property
    def scoring(self) -> Rules:
        """The rules of its scorer; of label maps only."""
        return RULES[self.rules]

    @property
    def tracks(self) -> bool:
        """Masks lie in JSON files, and are scored as tracks."""
        return self.handin in ("burst", "youtube-vis")


_DAVIS = (("JPEGImages/480p",), ("Annotations/480p",))
_FULL = (("JPEGImages/Full-Resolution",), _DAVIS[1])
_VALID = (("valid/JPEGImages", "JPEGImages"), ("valid/Annotations", "Annotations"))
_TEST = (("test/JPEGImages", "JPEGImages"), ("test/Annotations", "Annotations"))
_ALL_FRAMES = (("valid_all_frames/JPEGImages", "../valid_all_frames/JPEGImages"), _VALID[1])
_FLAT = (("JPEGImages", "images"), ("Annotations", "masks"))
_OWN = (("JPEGImages", "images", "frames"), _FLAT[1])
_SAV = (("JPEGImages_24fps",), ("Annotations_6fps",))


def _davis(name: str, summary: str, split: str, **more: Any) -> tuple[Protocol, Protocol]:
    common: dict[str, Any] = {"rules": "davis", "split": split} | more
    return (
        Protocol(name, f"{summary}, 480p", "davis", *_DAVIS, **common),
        Protocol(
            f"{name}-full", f"{summary}, frames in full resolution, scored at 480p", "davis", *_FULL, **common, larger=True
        ),
    )


def _youtube(year: int) -> tuple[Protocol, Protocol]:
    name = f"youtube{year}-val"
    common: dict[str, Any] = {"rules": "youtube", "meta_frames": True, "public_truth": False, "zip_prefix": "Annotations/"}
    return (
        Protocol(name, f"YouTube-VOS {year} validation, 6 frames a second", "youtube", *_VALID, **common),
        Protocol(
            f"{name}-all-frames",
            f"YouTube-VOS {year} validation, all frames seen, 6 a second scored",
            "youtube",
            *_ALL_FRAMES,
            **common,
        ),
    )


def _vost(name: str, summary: str, split: str, **more: Any) -> Protocol:
    places: dict[str, Any] = {"images": _FLAT[0]} | more
    return Protocol(name, summary, "vost", masks=_FLAT[1], rules="vost", split=split, **places)


def _burst(split: str) -> Protocol:
    summary = f"BURST {split}, exemplar-guided"
    return Protocol(
        f"burst-{split}", summary, "burst", ("frames",), ("annotations",), rules="burst", split=split, handin="burst"
    )


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        *_davis("davis2016-val", "DAVIS-2016 validation, one object", "2016/val", rules="davis2016"),
        *_davis("davis2017-val", "DAVIS-2017 validation", "2017/val"),
        *_davis("davis2017-test-dev", "DAVIS-2017 test-dev", "2017/test-dev", public_truth=False),
        *_youtube(2018),
        *_youtube(2019),
        Protocol("mose-val", "MOSE v1 validation", "mose", *_VALID, rules="mose", public_truth=False),
        Protocol("mosev2-val", "MOSEv2 validation", "mose", *_VALID, rules="mosev2", public_truth=False),
        Protocol(
            "lvos-val", "LVOS v1 and v2 validation, objects may enter later", "lvos", *_VALID, rules="lvos", gives_later=True
        ),
        Protocol(
            "lvos-test",
            "LVOS v1 and v2 test",
            "lvos",
            *_TEST,
            rules="lvos",
            gives_later=True,
            public_truth=False,
            zip_prefix="Annotations/",
        ),
        _vost("vost-val", "VOST validation, 5 frames a second", "val"),
        _vost(
            "vost-val-10fps",
            "VOST validation, 10 frames a second seen, 5 scored",
            "val",
            images=("JPEGImages_10fps",),
            scored_frames=_FLAT[0],
        ),
        _vost("vost-test", "VOST test, 5 frames a second", "test", public_truth=False),
        Protocol("visor-val", "VISOR validation", "visor", *_DAVIS, rules="visor", split="2022/val", handin="visor"),
        Protocol(
            "visor-val-unseen",
            "VISOR validation, kitchens not in training",
            "visor",
            *_DAVIS,
            rules="visor",
            split="2022/val_unseen",
            handin="visor",
        ),
        Protocol(
            "viposeg-val",
            "VIPOSeg validation, objects may enter later",
            "viposeg",
            *_VALID,
            rules="viposeg",
            truth=("valid/Annotations_gt", "Annotations_gt"),
            gives_later=True,
        ),
        Protocol("vosw", "VOSW, objects may enter later", "viposeg", *_FLAT, rules="plain"),
        Protocol(
            "sav-val", "SA-V validation, objects may overlap", "sav", *_SAV, rules="sav", split="sav_val", object_folders=True
        ),
        Protocol(
            "sav-test", "SA-V test, objects may overlap", "sav", *_SAV, rules="sav", split="sav_test", object_folders=True
        ),
        _burst("val"),
        _burst("test"),
        Protocol(
            "youtube-vis",
            "YouTube-VIS, each object given on its first frame",
            "youtube",
            *_VALID,
            rules="youtube-vis",
            split="valid",
            handin="youtube-vis",
        ),
        Protocol("pumavos", "PUMaVOS", "own", *_FLAT, rules="plain"),
        Protocol(
            "folder",
            "own clips: CLIP/frames and CLIP/masks, or JPEGImages/CLIP and Annotations/CLIP",
            "own",
            *_OWN,
            rules="plain",
            clips=True,
        ),
    )
}


def named_protocol(name: str) -> Protocol:
    """Find the protocol of that name.

    Raises:
        InputError: there is none.
    """
    if name not in PROTOCOLS:
        raise InputError(f"there is no benchmark {name!r}; known: {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]
