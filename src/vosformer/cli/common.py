"""What several commands share."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch

from vosformer.device import free_threads, tune_process
from vosformer.errors import InputError
from vosformer.registry import variant
from vosformer.weights import packaged
from vosformer.weights.files import SUFFIXES


def need_weights(model: str, weights: Path | None) -> None:
    """Refuse to run a variant with random weights: its masks would mean nothing.

    Raises:
        InputError: there is no such variant, or it needs a weights file.
    """
    if weights is not None or model in packaged():
        return
    if Path(model).suffix in SUFFIXES:
        raise InputError(f"--model is {model!r}, a file: give it with --weights, and its variant's name with --model")
    variant(model)
    known = ", ".join(packaged()) or "none"
    raise InputError(
        f"no weights come with {model!r}, and without them its masks mean nothing: give a file with --weights, e.g. its official "
        f"checkpoint (packaged with vosformer: {known})"
    )


def prepare_machine(threads: int | None) -> None:
    """Use so many CPU threads, and set the process up; see `tune_process`.

    Args:
        threads: None: as many as are free now, of those that the process was given.

    Raises:
        InputError: fewer than one.
    """
    if threads is not None and threads < 1:
        raise InputError(f"--threads is {threads}, expected at least 1")
    tune_process(torch.device("cpu"))
    torch.set_num_threads(free_threads(_given_threads()) if threads is None else threads)


@cache
def _given_threads() -> int:
    """Return the threads that the process was given, before `prepare_machine` chose among them."""
    return torch.get_num_threads()
