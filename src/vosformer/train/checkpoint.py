"""Checkpoints of a run: a folder a step with safetensors files and a small `state.json`.

A checkpoint is written beside its final place and renamed, so that it is there as a whole or not at all. `state.json` holds the
hash of every file. Large tensors can be cut so that no file exceeds a limit.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from vosformer.errors import OutputError, WeightsError
from vosformer.io.files import make_folder, replacing_folder, write_json

_HEADER = 1 << 18  # bytes left for the header of a safetensors file


class Checkpoint(NamedTuple):
    """What a run needs to go on.

    Attributes:
        step: steps done.
        parts: "model", "optimizer", and "average" if there is one: tensors by name.
        state: the rest, as JSON values (seed, configuration, counters).
    """

    step: int
    parts: dict[str, dict[str, Tensor]]
    state: dict[str, Any]


def save(folder: Path, checkpoint: Checkpoint, keep: int, shard_mib: int | None = None) -> Path:
    """Write `folder/step-NNNNNNNN` and delete all but the newest `keep`; and those of later steps, which a run can only have
    passed over because they are damaged.

    Raises:
        OutputError: it could not be written (disk full, no permission); older checkpoints are still there.
    """
    final = folder / f"step-{checkpoint.step:08d}"
    make_folder(folder)
    for left in folder.glob(".tmp-*"):  # by killed runs
        shutil.rmtree(left, ignore_errors=True)
    try:
        with replacing_folder(final, durable=True) as temporary:
            files = {part: _write_part(temporary, part, tensors, shard_mib) for part, tensors in checkpoint.parts.items()}
            write_json(temporary / "state.json", {"step": checkpoint.step, "files": files, **checkpoint.state})
    except SafetensorError as error:
        raise OutputError(f"{final} cannot be written: {error}") from error
    found = _found(folder)
    at = found.index(final)
    for old in [*found[:at], *found[at + keep :]] if keep > 0 else []:
        shutil.rmtree(old, ignore_errors=True)
    return final


def newest(folder: Path) -> Checkpoint | None:
    """Return the newest whole checkpoint; damaged ones are skipped with a warning. None if there is none at all.

    Raises:
        WeightsError: there are checkpoints, and all of them are damaged.
    """
    found = _found(folder)
    for path in found:
        try:
            return load(path)
        except WeightsError as error:
            warnings.warn(f"skipped: {error}", stacklevel=2)
    if found:
        raise WeightsError(f"all {len(found)} checkpoints in {folder} are damaged; delete the folder to begin anew")
    return None


def load(path: Path) -> Checkpoint:
    """Read one checkpoint folder.

    Raises:
        WeightsError: a file is missing, cut short or changed.
    """
    try:
        state = json.loads((path / "state.json").read_text())
        files = state.pop("files")
        parts = {part: _read_part(path, names) for part, names in files.items()}
        return Checkpoint(int(state.pop("step")), parts, state)
    except WeightsError:
        raise
    except Exception as error:
        raise WeightsError(f"checkpoint {path} cannot be read: {error}") from error


def _found(folder: Path) -> list[Path]:
    """Checkpoints, the newest first."""
    return sorted((p for p in folder.glob("step-*") if p.is_dir()), reverse=True) if folder.is_dir() else []


def _write_part(folder: Path, part: str, tensors: Mapping[str, Tensor], shard_mib: int | None) -> dict[str, str]:
    """Write the files of one part; returns file name -> sha256."""
    hashes = {}
    for number, shard in enumerate(_shards(tensors, shard_mib)):
        name = f"{part}.safetensors" if shard_mib is None else f"{part}-{number:05d}.safetensors"
        save_file(shard, folder / name)
        with open(folder / name, "rb") as file:
            hashes[name] = _digest(file)
    return hashes


def _shards(tensors: Mapping[str, Tensor], shard_mib: int | None) -> Iterator[dict[str, Tensor]]:
    """Return groups of tensors no larger than the limit; larger tensors are cut into flat pieces `name@number/pieces:shape`."""
    # A copy each: safetensors refuses tensors that share storage.
    ready = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    if shard_mib is None:
        yield {name: t.clone() for name, t in ready.items()}
        return
    limit = (shard_mib << 20) - _HEADER
    shard: dict[str, Tensor] = {}
    size = 0
    for name, piece in _pieces(ready, limit):
        weight = piece.numel() * piece.element_size()
        if shard and size + weight > limit:
            yield shard
            shard, size = {}, 0
        shard[name] = piece
        size += weight
    yield shard


def _pieces(tensors: Mapping[str, Tensor], limit: int) -> Iterator[tuple[str, Tensor]]:
    for name, tensor in tensors.items():
        most = limit // max(1, tensor.element_size())
        if tensor.numel() <= most:
            yield name, tensor.clone()
            continue
        parts = torch.split(tensor.flatten(), most)
        shape = "x".join(map(str, tensor.shape))
        for number, part in enumerate(parts):
            yield f"{name}@{number}/{len(parts)}:{shape}", part.clone()


def _read_part(folder: Path, files: Mapping[str, str]) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    cut: dict[str, dict[int, Tensor]] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    for name, expected in files.items():
        path = folder / name
        with open(path, "rb") as file:
            found = _digest(file)
        if found != expected:
            raise WeightsError(f"{path} is damaged: its sha256 is {found[:12]}…, expected {expected[:12]}…")
        for key, tensor in load_file(path).items():
            whole, at, rest = key.partition("@")
            if not at:
                tensors[key] = tensor
                continue
            cut.setdefault(whole, {})[int(rest.partition("/")[0])] = tensor
            shapes[whole] = tuple(int(side) for side in rest.partition(":")[2].split("x"))
    for whole, pieces in cut.items():
        tensors[whole] = torch.cat([pieces[number] for number in sorted(pieces)]).view(shapes[whole])
    return tensors


def _digest(file: Any) -> str:
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()
