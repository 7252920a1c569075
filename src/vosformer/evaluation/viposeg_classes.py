"""VIPOSeg's classes (those of VIPSeg, 0 to 123) by the groups that it scores."""

from __future__ import annotations


def _numbers(text: str) -> frozenset[int]:
    return frozenset(int(number) for number in text.split())


_CLASSES = {
    "thing_unseen": _numbers("102 99 109 47 55 61 118 72 46 96 64 101 86 97 100 116 95"),
    "stuff_unseen": _numbers("9 71 120 58 94 5 34 20 6 26 112 17 57 113 25 81 38"),
    "thing_seen": _numbers(
        "60 89 90 8 48 2 79 106 76 84 114 74 108 91 83 85 54 65 78 44 92 122 107 43 88 117 50 51 87 "
        "52 62 115 10 41 77 82 56 123 49 4 63"
    ),
    "stuff_seen": _numbers(
        "28 66 0 14 15 13 7 12 22 68 1 59 27 75 40 29 18 21 19 39 30 11 53 111 45 35 36 119 42 104 23 80 93 67 3 31 16 69 103 37 "
        "121 110 105 33 24 70 73 32"
    ),
}
_OTHER_MACHINE = 98  # some of the videos with this class were held back from training
_OTHER_MACHINE_UNSEEN = """
187_WUZUSD4477I 319_l1Dz12fxQzQ 320_nhKXemkIvh4 517_AWvYuplla_s 532_QmZyJuLlEec 774_devdFjIpDcc 1016_HG0AsTOxI5g 1017_IAU0WGB9VPw
1020_TgCIv6bp3XM 1021_cPOxAMo28yk 1022_emSaDd2ddj0 1033_sh81AwYuihg 1065_d2sHRyAHKqI 1067_fk3jhxBi1pA 1068_gxnZkf0LQfk
1069_jFHRbZxswz8 1070_uTJB31tuYes 1072_zvNEdUk5k0Q 1230_AGY-gQ_3O8Y 1333__iprMPKLdOQ 1334_qlmfvYA3_rk 2004_1btxeVbyojs
2005_83KrhWajwfw
"""


def group_of(number: int, video: str) -> str | None:
    """Name the group that a class is scored in, in this video; None for the classes of no group (they count in the decay alone)."""
    if number == _OTHER_MACHINE:
        return "stuff_unseen" if video in _OTHER_MACHINE_UNSEEN.split() else "stuff_seen"
    return next((name for name, members in _CLASSES.items() if number in members), None)
