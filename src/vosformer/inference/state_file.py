"""A session's state as one safetensors file: written atomically, read without running any code of the file's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from vosformer.errors import InputError
from vosformer.inference.closer import Box, CloserWindow
from vosformer.inference.islands import Whole
from vosformer.inference.objects import Cohort
from vosformer.inference.step import State
from vosformer.memory import Memory
from vosformer.policy import Policy
from vosformer.weights.saving import save_tensors

_FORMAT = "vosformer-state-2"  # 1, until 2026-11-25, described the banks in another way
_WINDOW = ("top", "left", "side", "zoom", "longest", "homes", "frames")


def save_state(state: State, path: Path) -> None:
    """Write `state` to `path`.

    Raises:
        OutputError: it could not be written; a file that was there before is untouched.
    """
    tensors: dict[str, Tensor] = {}
    views = []
    for v, cohorts in enumerate((*state.views, *(window.cohorts for window in state.windows))):
        known = []
        for c, cohort in enumerate(cohorts):
            held, about = cohort.memory.export()
            tensors.update(
                {f"{v}/{c}/{name}": tensor.clone(memory_format=torch.contiguous_format) for name, tensor in held.items()}
            )
            known.append({"began": cohort.began, "slots": cohort.slots, "memory": about})
        views.append(known)
    windows = [
        {"last": list(window.last.items()), **{key: getattr(window, key) for key in _WINDOW}} for window in state.windows
    ]
    about_all = {
        "frames": state.frames,
        "source": state.source,
        "views": views,
        "windows": windows,
        "wholes": list(state.wholes.items()),
        "origin": dict(state.origin),
    }
    save_tensors(path, tensors, {"format": _FORMAT, "state": json.dumps(about_all)})


def load_state(path: Path, policy: Policy, device: torch.device) -> State:
    """Read what `save_state` wrote.

    Args:
        path: the file.
        policy: of the session that takes the state over.
        device: where its tensors go.

    Raises:
        InputError: the file is missing, broken or something else.
    """
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name).to(device) for name in file.keys()}  # noqa: SIM118 (no mapping)
        if metadata.get("format") == "vosformer-state-1":
            raise InputError(f"{path}: an older vosformer saved this session, and this one cannot go on with it; begin it anew")
        if metadata.get("format") != _FORMAT:
            raise InputError(f"{path}: a session's state was expected, found format {metadata.get('format')!r}")
        about: dict[str, Any] = json.loads(metadata["state"])
        views = tuple(
            [_cohort(known, f"{v}/{c}/", tensors, policy) for c, known in enumerate(view)]
            for v, view in enumerate(about["views"])
        )
        known = about.get("windows", [])
        views, near = views[: len(views) - len(known)], views[len(views) - len(known) :]
        windows = [_window(window, cohorts) for window, cohorts in zip(known, near, strict=True)]
        source = about["source"]
        size = None if source is None else (source[0], source[1])
        wholes = {i: None if whole is None else Whole(tuple(whole[0]), whole[1]) for i, whole in about.get("wholes", ())}
        return State(about["frames"], size, views, windows, wholes, dict(about["origin"]))
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: no session can be read from it: {error}") from None


def _window(known: dict[str, Any], cohorts: list[Cohort]) -> CloserWindow:
    boxes = dict.fromkeys(known["homes"]) | dict(known.get("last", ()))  # older states do not say it
    last = {i: None if box is None else Box(*box) for i, box in boxes.items()}
    return CloserWindow(**{**known, "homes": tuple(known["homes"]), "last": last}, cohorts=cohorts)


def _cohort(known: dict[str, Any], prefix: str, tensors: dict[str, Tensor], policy: Policy) -> Cohort:
    held = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    return Cohort(Memory.restore(policy, held, known["memory"]), known["began"], known["slots"])
