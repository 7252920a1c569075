"""Whether a file's tensors fit a model, and which variants they fit."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn

from vosformer.convert import adapter
from vosformer.errors import VOSError
from vosformer.protocol import VOSModel
from vosformer.registry import Variant, variants


@dataclass(frozen=True)
class Fit:
    """How a file's tensors compare with a model's.

    Attributes:
        tensors: the file's, under the model's names.
        missing: names that the model has and the file lacks.
        extra: names that the file has and the model lacks.
        misshaped: name -> (shape in the file, shape in the model).
        share: of the names on either side, those that agree in name and shape, in [0,1].
    """

    tensors: dict[str, Tensor]
    missing: tuple[str, ...]
    extra: tuple[str, ...]
    misshaped: dict[str, tuple[tuple[int, ...], tuple[int, ...]]]
    share: float

    @property
    def good(self) -> bool:
        """Nothing is missing, extra or of another shape."""
        return not (self.missing or self.extra or self.misshaped)

    def complaint(self, names: int = 10) -> str:
        """Return what is wrong, with at most so many names of each kind."""
        shapes = [f"{name} {list(found)} instead of {list(expected)}" for name, (found, expected) in self.misshaped.items()]
        parts = (("missing", self.missing), ("extra", self.extra), ("of another shape", shapes))
        return "; ".join(f"{len(found)} {what}: {_listed(found, names)}" for what, found in parts if found)


def compare(state: Mapping[str, Tensor], model: nn.Module, system: str, allow_missing: Sequence[str] = ()) -> Fit:
    """Bring a file's tensors to the names of a model, and compare the two.

    Args:
        state: the file's tensors, under our names or under the official ones.
        model: what they are for; may live on the `meta` device.
        system: whose adapter translates official names.
        allow_missing: regular expressions of whole names that the file may lack.
    """
    own = model.state_dict()
    rules = adapter(system)
    optional = (*rules.OPTIONAL, *allow_missing)
    plain = fit_tensors(state, own, optional)
    if plain.good:
        return plain
    try:
        translated = fit_tensors(rules.from_official(state, model), own, optional)
    except (VOSError, LookupError, RuntimeError, ValueError):  # they are not official ones of this system
        return plain
    return max(plain, translated, key=lambda fit: (fit.good, fit.share))


def fit_tensors(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor], optional: Sequence[str] = ()) -> Fit:
    """Compare tensors with a model's, name by name.

    Args:
        tensors: under the model's names.
        own: the model's state dict.
        optional: regular expressions of whole names that may be missing.
    """
    may_lack = re.compile("|".join(f"(?:{rule})" for rule in optional) or r"(?!)")
    missing = tuple(name for name in own if name not in tensors and not may_lack.fullmatch(name))
    extra = tuple(name for name in tensors if name not in own)
    misshaped = {
        name: (tuple(tensor.shape), tuple(own[name].shape))
        for name, tensor in tensors.items()
        if name in own and tensor.shape != own[name].shape
    }
    agreeing = len(own.keys() & tensors.keys()) - len(misshaped)
    return Fit(dict(tensors), missing, extra, misshaped, agreeing / max(len(own.keys() | tensors.keys()), 1))


def fitting_variants(state: Mapping[str, Tensor]) -> tuple[tuple[str, ...], tuple[str, Fit] | None]:
    """Return the names of all registered variants that tensors of these names and shapes fit.

    Returns:
        The names, and, if there are none, the closest variant with what does not fit (None if hardly anything agrees).
    """
    shapes = {name: tensor.detach().to("meta") for name, tensor in state.items()}
    fits = [(variant.name, compare(shapes, skeleton(variant), variant.system)) for variant in variants()]
    good = tuple(name for name, fit in fits if fit.good)
    closest = max(fits, key=lambda pair: pair[1].share, default=None)
    if good or closest is None or closest[1].share < 0.1:
        return good, None
    return good, closest


def not_fitting(state: Mapping[str, Tensor], fit: Fit, asked: str) -> str:
    """Return the rest of a sentence that says that a file does not fit, why, and what it fits instead.

    Args:
        state: the file's tensors, as they were read.
        fit: how they compare with the model asked for.
        asked: the variant's name, or the system's.
    """
    good, closest = fitting_variants(state)
    others = [repr(name) for name in good if name != asked]
    if others:
        return f"fits {_either(others)}, not {asked!r} ({fit.complaint(3)})"
    if good:
        return f"fits {asked!r} as published, not with the options that it was built with here ({fit.complaint()})"
    if closest is not None and closest[0] != asked:
        near = f"The closest is {closest[0]!r}: {closest[1].complaint(3)}"
        return f"does not fit {asked!r}, nor any other variant. {fit.complaint()}. {near}"
    return f"does not fit {asked!r}, nor any other variant. {fit.complaint()}"


def startable_variants(state: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Return the names of all registered variants whose encoder a pre-training file with these tensors can start."""
    shapes = {name: tensor.detach().to("meta") for name, tensor in state.items()}
    return tuple(variant.name for variant in variants() if _starts(shapes, variant))


def _starts(shapes: Mapping[str, Tensor], variant: Variant) -> bool:
    model = skeleton(variant)
    try:
        found = adapter(variant.system).from_pretrained(shapes, model)
    except (VOSError, LookupError, RuntimeError, ValueError):
        return False
    return fit_tensors(found, model.state_dict(), optional=(".*",)).good


@lru_cache(maxsize=256)
def skeleton(variant: Variant) -> VOSModel:
    """Build the variant's modules without values; shared by all callers."""
    try:
        with torch.device("meta"):
            return variant.build()
    except (RuntimeError, NotImplementedError):  # a builder that looks at values cannot run without any
        return variant.build().to("meta")


def _listed(names: Sequence[str], most: int) -> str:
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")


def _either(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"
