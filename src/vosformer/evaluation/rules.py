"""Which frames and objects count: the rules of each benchmark's scorer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vosformer.errors import InputError

VOID = 255  # the label of pixels that are neither object nor background


@dataclass(frozen=True)
class Rules:
    """What of a sequence is scored.

    Attributes:
        name: what users type.
        summary: one line for the help.
        later: objects that appear after the first annotated frame are scored, too, from the frame after their first on. Else
            the objects are the ids of the first annotated frame.
        given: the frame on which an object's mask is given counts.
        last: the last annotated frame counts.
        merged: all labels are one object.
        void: what label 255 in the true masks means: background (as the official DAVIS scorer takes it for semi-supervised results),
            pixels that do not count, or an object like any other.
        groups: seen and unseen categories are scored apart, where they are known.
    """

    name: str
    summary: str
    later: bool = False
    given: bool = False
    last: bool = False
    merged: bool = False
    void: Literal["background", "ignored", "object"] = "background"
    groups: bool = False


RULES = {
    rules.name: rules
    for rules in (
        Rules("davis", "DAVIS-2017: first and last frame left out, ids of the first frame"),
        Rules(
            "davis2016",
            "DAVIS-2016: first and last frame left out, all labels merged to one object",
            merged=True,
            void="object",
        ),
        Rules(
            "youtube",
            "YouTube-VOS: each object from the frame after its first on; seen and unseen categories where meta.json tells them",
            later=True,
            last=True,
            groups=True,
        ),
        Rules("mose", "MOSE: as davis"),
        Rules("lvos", "LVOS: as davis"),
        Rules("vost", "VOST: as davis, pixels of label 255 do not count", void="ignored"),
        Rules(
            "plain",
            "own data: each object from the frame after its first on, 255 is an id",
            later=True,
            last=True,
            void="object",
        ),
        Rules(
            "all", "own data: every frame and every id, given masks included", later=True, given=True, last=True, void="object"
        ),
    )
}


def named_rules(name: str) -> Rules:
    """The rules of that name.

    Raises:
        InputError: there are none.
    """
    if name not in RULES:
        raise InputError(f"there are no rules {name!r}; known: {', '.join(RULES)}")
    return RULES[name]
