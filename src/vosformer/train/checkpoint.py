"""Checkpoints of a run: a folder a step with safetensors files and a small `state.json`.

A checkpoint is written beside its final place and renamed, so that it is there as a whole or not at all. `state.json` holds the
hash of every file. Large tensors can be cut so that no file exceeds a limit.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from vosformer.errors import OutputError, WeightsError

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
    draft = folder / f".draft-{checkpoint.step:08d}-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _clean(folder)
        draft.mkdir()
        files: dict[str, dict[str, str]] = {}
        for part, tensors in checkpoint.parts.items():
            files[part] = _write_part(draft, part, tensors, shard_mib)
        text = json.dumps({"step": checkpoint.step, "files": files, **checkpoint.state}, indent=1)
        _write_bytes(draft / "state.json", text.encode())
        if final.exists():
            shutil.rmtree(final)
        os.replace(draft, final)
        _sync(folder)
    except Exception as error:
        shutil.rmtree(draft, ignore_errors=True)
        if not isinstance(error, OSError) and type(error).__name__ != "SafetensorError":
            raise
        raise OutputError(f"checkpoint {final} could not be written: {error}") from error
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


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """One safetensors file, atomically.

    Raises:
        OutputError: it could not be written.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, draft, dict(metadata or {}))
        os.replace(draft, path)
    except Exception as error:
        draft.unlink(missing_ok=True)
        raise OutputError(f"{path} could not be written: {error}") from error


def _found(folder: Path) -> list[Path]:
    """Checkpoints, the newest first."""
    return sorted((p for p in folder.glob("step-*") if p.is_dir()), reverse=True) if folder.is_dir() else []


def _clean(folder: Path) -> None:
    """Remove what killed runs left half written."""
    for draft in folder.glob(".draft-*"):
        shutil.rmtree(draft, ignore_errors=True)


def _write_part(folder: Path, part: str, tensors: Mapping[str, Tensor], shard_mib: int | None) -> dict[str, str]:
    """Write the files of one part; returns file name -> sha256."""
    hashes = {}
    for number, shard in enumerate(_shards(tensors, shard_mib)):
        name = f"{part}.safetensors" if shard_mib is None else f"{part}-{number:05d}.safetensors"
        save_file(shard, folder / name)
        with open(folder / name, "rb") as file:
            hashes[name] = _digest(file)
            os.fsync(file.fileno())
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


def _write_bytes(path: Path, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    """Make the rename itself durable, where the system has that."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
