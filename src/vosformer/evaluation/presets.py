"""How each system is run on each data set, by its paper and released code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from vosformer.evaluation.protocols import Family


@dataclass(frozen=True)
class Preset:
    """Settings of a system on a data set.

    Attributes:
        memory: name of the memory policy, see `named_policy`.
        options: of the model's `read` (topk of JointFormer's filter).
        source: where this is said.
    """

    memory: str = "paper"
    options: Mapping[str, int] = field(default_factory=dict)
    source: str = "the paper's memory"


def find_preset(system: str, family: Family, dataset: str) -> Preset:
    """Find the settings of a system on a data set; where the paper has none of its own for it, those of its memory.

    Args:
        system: "aot", "aost", "deaot", "simvos", "jointformer", "onevos", or another one.
        family: of the data set.
        dataset: the benchmark's name.
    """
    if system == "jointformer":
        policy, topk = _JOINTFORMER.get(family, _JOINTFORMER["youtube"])
        return Preset(policy, {"topk": topk}, source="JointFormer sec. 4.1 and 4.2.2; k of its released commands")
    if system == "onevos":
        cap, gap = (4, 10) if dataset.startswith("davis2017-test-dev") else _ONEVOS.get(family, (5, 10))
        return Preset(f"cap-{cap}-every-{gap}", source="OneVOS sec. 4.1; gap and Cap of its released commands")
    return Preset()


# Memory and k of the top-k filter.
_JOINTFORMER: dict[Family, tuple[str, int]] = {
    "davis": ("first-and-previous", 60),
    "visor": ("first-and-previous", 600),
    "youtube": ("queue-3-every-5", 120),
    "lvos": ("queue-3-every-5", 120),
    "mose": ("queue-3-every-5", 180),
    "vost": ("queue-3-every-5", 30),
    "burst": ("queue-3-every-5", 30),
}
# Cap and gap.
_ONEVOS: dict[Family, tuple[int, int]] = {"davis": (5, 10), "youtube": (3, 11), "mose": (5, 5), "lvos": (5, 10)}
