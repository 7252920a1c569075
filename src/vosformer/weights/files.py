"""Reading tensors from files that may be anything, without ever running code that a file brings along."""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from vosformer.errors import WeightsError

FileFormat = Literal["safetensors", "torch"]

SUFFIXES = (".safetensors", ".pth", ".pt")
"""Of weights files: ours, and official checkpoints."""

# How torch files begin: as zip files or, if they are old, as pickles.
_TORCH = (b"PK\x03\x04", *(bytes([0x80, protocol]) for protocol in range(2, 6)))
# Where checkpoints keep their tensors, tried in this order; the first two as in the official loader.
_WRAPPERS = ("state_dict", "model", "model_state_dict", "ema_state_dict", "model_ema", "ema", "net", "network")
# Put in front of names by data-parallel training and by torch.compile.
_PREFIXES = ("module.", "_orig_mod.")
# Found in honest checkpoints beside the tensors: numpy scalars of an optimizer or scheduler, and parsed arguments. An inert stand-in
# replaces them, so that a file cannot run anything of numpy or argparse either.
_HARMLESS = (
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "numpy.core.multiarray._reconstruct",
    "numpy._core.multiarray._reconstruct",
    "numpy.ndarray",
    "numpy.dtype",
    "argparse.Namespace",
    "pathlib.PosixPath",
    "pathlib.WindowsPath",
)
# How torch's unpickler names what it refuses, and what it says around that.
_FOREIGN = re.compile(
    r"(?:GLOBAL|[Uu]nsupported class|[Tt]rying to (?:call|instantiate|execute)(?: reduce for)?(?: class)?) ([\w.]+)"
)
_BOILERPLATE = re.compile(r"Weights only load failed|weights_only|Check the documentation|Please file an issue")


@dataclass(frozen=True)
class WeightsFile:
    """What a weights file holds.

    Attributes:
        path: where it is.
        format: "safetensors", or "torch" for what `torch.save` wrote.
        tensors: by name, on the CPU, without `module.` prefixes.
        metadata: of safetensors files.
    """

    path: Path
    format: FileFormat
    tensors: dict[str, Tensor]
    metadata: dict[str, str]

    @property
    def ours(self) -> bool:
        """Whether `save_weights` wrote it: its names are ours then, not the official ones."""
        return "vosformer" in self.metadata


def read_weights(path: str | Path, *, trust: bool = False) -> WeightsFile:
    """Read the tensors of a safetensors file or of a torch checkpoint (a state dict, or one under "state_dict", "model", "ema", ...).

    Args:
        path: the file.
        trust: unpickle whatever a torch file holds. This runs code of the file's author on your machine.

    Raises:
        WeightsError: it is missing, empty, damaged, no weights file, or holds objects other than tensors; or its SHA-256 is wrong.
    """
    path = Path(path)
    head = _head(path)
    if head.startswith(_TORCH):
        loaded = _load_torch(path, trust)
        return WeightsFile(path, "torch", _plain_names(path, _find_tensors(path, loaded)), {})
    if len(head) > 8 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 1 << 32:
        tensors, metadata = _load_safetensors(path)
        _verify(path, tensors, metadata)
        return WeightsFile(path, "safetensors", _plain_names(path, tensors), metadata)
    raise WeightsError(f"{path} is no weights file: {_describe(head)}; expected safetensors or a torch checkpoint (.pth)")


def tensor_hash(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256, in hexadecimal, over the names, dtypes, shapes and bytes of all tensors, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except FileNotFoundError:
        raise WeightsError(f"{path}: there is no such weights file") from None
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}") from None
    if not head:
        raise WeightsError(f"{path} is empty, expected safetensors or a torch checkpoint (.pth)")
    return head


def _describe(head: bytes) -> str:
    start = head.lstrip().lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        return "it is a web page, perhaps the log-in or warning page of a download site instead of the file"
    if start.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer, the file itself was not fetched (git lfs pull)"
    try:
        text = head.decode("utf-8", "strict") if len(head) < 512 else head[:-3].decode("utf-8", "ignore")
    except UnicodeDecodeError:
        return "its first bytes are of no known format"
    if text.strip() and all(c.isprintable() or c.isspace() for c in text):
        return f"it is a text file that begins with {text.strip()[:40]!r}"
    return "its first bytes are of no known format"


def _load_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(sorted((file.metadata() or {}).items()))  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise WeightsError(f"{path} is a truncated or damaged safetensors file: {error}") from None


def _load_torch(path: Path, trust: bool) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if trust:
                return torch.load(path, map_location="cpu", weights_only=False)
            with torch.serialization.safe_globals([(_Inert, name) for name in _HARMLESS]):
                return torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # the unpickler lets any kind of error out, depending on where a file breaks off
        raise _torch_error(path, error) from None


def _torch_error(path: Path, error: Exception) -> WeightsError:
    text = str(error)
    if "TorchScript" in text:
        return WeightsError(f"{path} is a TorchScript program, not a checkpoint; expected the state dict that it was made from")
    named = _FOREIGN.search(text)
    if named:
        return WeightsError(
            f"{path} holds more than tensors ({named.group(1)}): loading it could run code of its author, so it was not loaded. "
            f"Convert it where it comes from, or, if you trust that source, by `vosformer weights convert --trust` (trust=True)"
        )
    lines = [line.strip() for line in text.splitlines() if line.strip() and not _BOILERPLATE.search(line)]
    reason = lines[0][:200] if lines else type(error).__name__
    return WeightsError(f"{path} is a truncated or damaged torch checkpoint, or another kind of pickle or zip file: {reason}")


def _find_tensors(path: Path, loaded: Any) -> dict[str, Tensor]:
    if isinstance(loaded, torch.nn.Module):
        return dict(loaded.state_dict())
    if not isinstance(loaded, Mapping):
        raise WeightsError(f"{path} holds a {type(loaded).__name__}, expected a dictionary of named tensors")
    for part in (*(loaded.get(key) for key in _WRAPPERS), loaded):
        if isinstance(part, torch.nn.Module):
            return dict(part.state_dict())
        if isinstance(part, Mapping):
            tensors = {str(name): value.detach() for name, value in part.items() if isinstance(value, Tensor)}
            if tensors:
                return tensors
    raise WeightsError(f"{path} holds no tensors; its entries are {', '.join(map(repr, list(loaded)[:8])) or 'none at all'}")


def _plain_names(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    plain: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        short = name
        while short.startswith(_PREFIXES):
            short = short.partition(".")[2]
        if short in plain:
            raise WeightsError(f"{path} holds {short!r} twice, with and without a prefix ({name!r})")
        plain[short] = tensor
    return plain


def _verify(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    expected = metadata.get("sha256")
    if expected is None or "vosformer" not in metadata:
        return
    actual = tensor_hash(tensors)
    if actual != expected:
        raise WeightsError(
            f"{path} is corrupted: the SHA-256 of its tensors is {actual[:16]}..., expected {expected[:16]}...; get it again"
        )


class _Inert:
    """Takes the place of the harmless objects beside the tensors; it keeps nothing."""

    def __new__(cls, *arguments: object) -> _Inert:
        return super().__new__(cls)

    def __init__(self, *arguments: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass
