"""Which frames and objects count, and what is measured: the rules of each benchmark's scorer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vosformer.errors import InputError


@dataclass(frozen=True)
class Rules:
    """Say which frames and objects of a sequence are scored, and how.

    Attributes:
        name: what users type.
        summary: one line for the help.
        objects: whose scores are taken, and on which frames.
            "counted": 1 to the highest id of the first true mask, gaps included (an object that neither side has scores 1).
            "every": every id of the true masks, each from the frame after its first on.
            "shown": the ids that the truth has on a frame that counts, from the first of these on that truth or result has it on.
            "listed": as a file beside the true masks says (LVOS, MOSEv2, VIPOSeg; see `ranges`).
        given: the first annotated frame (for "every": the first of each object) counts.
        last: the last annotated frame counts.
        merged: all labels are one object.
        void: what label 255 in the true masks means: background (as the official scorers take it for semi-supervised results),
            pixels that do not count, or an object like any other.
        groups: seen and unseen categories are scored apart, where they are known.
        measure: what is measured on each frame, see `MEASURES`.
        mask_folders: where the data set keeps its true masks, looked into before the usual ones.
        numbers: whose official numbers are worked out, see `official`; None = no benchmark's.
        absent: a sequence without results scores 0 even on frames where the truth is empty, too.
    """

    name: str
    summary: str
    objects: Literal["counted", "every", "shown", "listed"] = "counted"
    given: bool = False
    last: bool = False
    merged: bool = False
    void: Literal["background", "ignored", "object"] = "background"
    groups: bool = False
    measure: Literal["davis", "mosev2", "boundary-iou"] = "davis"
    mask_folders: tuple[str, ...] = ()
    numbers: Literal["davis", "vost", "lvos", "mosev2", "sav", "viposeg", "youtube"] | None = None
    absent: bool = False


RULES = {
    rules.name: rules
    for rules in (
        Rules(
            "davis", "DAVIS-2017: first and last frame left out, objects 1 to the highest of the first mask", numbers="davis"
        ),
        Rules(
            "davis2016",
            "DAVIS-2016: first and last frame left out, all labels merged to one object",
            merged=True,
            void="object",
            numbers="davis",
        ),
        Rules(
            "youtube",
            "YouTube-VOS: each object from the frame after its first on; seen and unseen categories where meta.json tells them",
            objects="every",
            last=True,
            groups=True,
            numbers="youtube",
        ),
        Rules("mose", "MOSE v1: as davis", numbers="davis"),
        Rules(
            "mosev2",
            "MOSEv2: objects of meta.json, boundary tolerance by the object's size, scores around disappearance",
            objects="listed",
            measure="mosev2",
            numbers="mosev2",
            absent=True,
        ),
        Rules(
            "lvos",
            "LVOS: each object within its range of valid_meta.json without its first and last frame; seen and unseen by video",
            objects="listed",
            numbers="lvos",
        ),
        Rules(
            "lvos-2022",
            "LVOS as the code of November 2022 scored it: first and last frame of a range count",
            objects="listed",
            given=True,
            last=True,
            numbers="lvos",
        ),
        Rules("vost", "VOST: as davis, J alone, and J of the last quarter (J_tr)", numbers="vost"),
        Rules("visor", "VISOR: as davis, but the last frame counts", last=True, numbers="davis"),
        Rules(
            "viposeg",
            "VIPOSeg and VOSW: each object from the frame after its mask was given on; IoU and boundary IoU by group of classes",
            objects="listed",
            last=True,
            measure="boundary-iou",
            mask_folders=("Annotations_gt", "valid/Annotations_gt"),
            numbers="viposeg",
        ),
        Rules(
            "sav",
            "SA-V: a folder of masks for each object; first and last frame left out, counted from where truth or result shows it",
            objects="shown",
            void="object",
            mask_folders=("Annotations_6fps",),
            numbers="sav",
        ),
        Rules(
            "plain",
            "own data: each object from the frame after its first on, 255 is an id",
            objects="every",
            last=True,
            void="object",
        ),
        Rules(
            "plain-void", "own data: as plain, but pixels of label 255 do not count", objects="every", last=True, void="ignored"
        ),
        Rules(
            "all",
            "own data: every frame and every id, given masks included",
            objects="every",
            given=True,
            last=True,
            void="object",
        ),
    )
}


def named_rules(name: str) -> Rules:
    """Find the rules of that name.

    Raises:
        InputError: there are none.
    """
    if name not in RULES:
        raise InputError(f"there are no rules {name!r}; known: {', '.join(RULES)}")
    return RULES[name]
