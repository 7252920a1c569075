"""The options of every command that runs a model, in one place."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, get_type_hints

from vosformer.cli.common import need_weights, prepare_machine
from vosformer.geometry import FrameSize
from vosformer.inference.closer import Closeness
from vosformer.inference.islands import Islands
from vosformer.inference.session import Session
from vosformer.options import from_words, typed
from vosformer.protocol import read_options
from vosformer.registry import Variant, variant
from vosformer.weights import build, packaged
from vosformer.weights.files import read_weights
from vosformer.weights.matching import skeleton
from vosformer.weights.saving import variant_of


@dataclass(frozen=True)
class SessionOptions:
    """How the model runs.

    Attributes:
        model: variant, see `vosformer variants`, or packaged weights, see `vosformer weights info`.
        weights: weights file of the variant, ours or an official checkpoint.
        device: auto, cpu, cuda, cuda:N or mps.
        dtype: auto (the fastest that agrees), fp32, bf16 or fp16.
        size: short side in pixels that the model sees, smaller or larger than the video's own; own: as the released code of the
            system resizes; None: the video's own. Masks come back at the video's size.
        memory: memory policy: default, paper, given-only, every-5, queue-3-every-5, ...
        max_memory: most megabytes that the memory bank may hold.
        scales: look at every frame at these factors of the size and average.
        flip: look at the mirrored frame, too.
        closer: look closer at small and thin objects, in windows that the model sees this many times larger, besides the whole
            frame; auto: 2 times, thin ones 3 times, with packaged weights, not with others; off: never.
        islands: drop: leave parts of a mask out that lie apart from the object and are small beside it, unless it was marked in
            several parts; keep: never; auto: drop with packaged weights, keep with others.
        option: options of the system, NAME=VALUE: how it is built (size=vit-b prototypes=16,16) or read (depth=2 for AOST).
        threads: CPU threads (default: one a core, or 1 if other programs keep the cores busy).
    """

    model: str = "default"
    weights: Path | None = None
    device: str = "auto"
    dtype: str = "auto"
    size: FrameSize = 480
    memory: str = "default"
    max_memory: float | None = None
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    closer: Closeness = "auto"
    islands: Islands = "auto"
    option: tuple[str, ...] = ()
    threads: int | None = None

    def prepare(self) -> None:
        """Set the process up, and refuse to go on without weights.

        Raises:
            InputError: there is no such variant, it has no weights, or fewer than one thread is asked for.
        """
        need_weights(self.model, self.weights)
        prepare_machine(self.threads)

    def session(self) -> Session:
        """Build the session.

        Raises:
            InputError: an option that cannot be used.
        """
        built_with = self.built_with
        return Session(
            build(self.model, self.weights, **built_with) if built_with else self.model,
            None if built_with else self.weights,
            device=self.device,
            dtype=self.dtype,
            size=self.size,
            memory=self.memory,
            max_memory_mb=self.max_memory,
            scales=self.scales,
            flip=self.flip,
            closer=self.closer,
            islands=self.islands,
        )

    @property
    def built_with(self) -> dict[str, Any]:
        """What the model is built with."""
        return self._options[0]

    @property
    def read_options(self) -> dict[str, Any]:
        """What the model's `read` is called with."""
        return self._options[1]

    @property
    def variant(self) -> Variant:
        """The variant that runs, also where `model` names packaged weights.

        Raises:
            InputError: there is none of that name.
        """
        packed = packaged().get(self.model)
        return variant(self.model if packed is None else variant_of(read_weights(packed)))

    @cached_property
    def _options(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The options that the model is built with, and those that it is read with."""
        words = from_words(self.option, "--option")
        if not words:
            return {}, {}
        model = skeleton(self.variant)
        hints = get_type_hints(type(model).read)
        reading = {name: typed(hints[name], words.pop(name), f"option {name}") for name in read_options(model) if name in words}
        return dict(words), reading

    @property
    def decisive(self) -> dict[str, Any]:
        """What changes the masks: two runs with the same of it may go on from each other."""
        return {
            "model": self.model,
            "weights": _identity(self.weights),
            "dtype": self.dtype,
            "memory": self.memory,
            "max_memory_mb": self.max_memory,
            "size": self.size,
            "scales": list(self.scales),
            "flip": self.flip,
            "closer": self.closer,
            "islands": self.islands,
            "options": list(self.option),
        }


def _identity(weights: Path | None) -> list[str | int] | None:
    """Return what changes if another file is given, under the same name, too."""
    if weights is None or not weights.exists():
        return None
    status = weights.stat()
    return [str(weights), status.st_size, status.st_mtime_ns]
