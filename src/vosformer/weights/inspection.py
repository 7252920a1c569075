"""What a weights file holds."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from vosformer.errors import VOSError
from vosformer.weights.files import FileFormat, WeightsFile, read_weights
from vosformer.weights.loading import build
from vosformer.weights.matching import fitting_variants, startable_variants


@dataclass(frozen=True)
class WeightsInfo:
    """What a weights file holds.

    Attributes:
        path: where it is.
        format: "safetensors" or "torch".
        bytes: size of the file.
        sha256: of the file, in hexadecimal.
        tensors: how many there are.
        parameters: floating point values in them, all together (norms' statistics included).
        dtypes: how many tensors there are of each dtype, e.g. {"float16": 100}.
        fits: the variants that can load it.
        starts: if there are none, the variants whose encoder the file can start (see `load_pretrained_encoder`).
        misfit: if there are neither, the closest variant and what does not fit; else "".
        metadata: of a safetensors file; ours hold "variant", "overrides", "vosformer" (version) and "sha256" (of the tensors).
        names: name and shape of every tensor, in the file's order.
    """

    path: Path
    format: FileFormat
    bytes: int
    sha256: str
    tensors: int
    parameters: int
    dtypes: dict[str, int]
    fits: tuple[str, ...]
    starts: tuple[str, ...]
    misfit: str
    metadata: dict[str, str]
    names: dict[str, tuple[int, ...]]


def inspect(path: str | Path, *, trust: bool = False) -> WeightsInfo:
    """Look into a weights file.

    Args:
        path: safetensors, or what `torch.save` wrote.
        trust: see `load_weights`.

    Raises:
        WeightsError: it cannot be read, is damaged, or holds objects other than tensors.
    """
    file = read_weights(path, trust=trust)
    fits, misfit = _fits(file)
    starts = () if fits else startable_variants(file.tensors)
    tensors = file.tensors
    return WeightsInfo(
        path=file.path,
        format=file.format,
        bytes=file.path.stat().st_size,
        sha256=_file_hash(file.path),
        tensors=len(tensors),
        parameters=sum(tensor.numel() for tensor in tensors.values() if tensor.is_floating_point()),
        dtypes=dict(Counter(str(tensor.dtype).removeprefix("torch.") for tensor in tensors.values())),
        fits=fits,
        starts=starts,
        misfit="" if starts else misfit,
        metadata=file.metadata,
        names={name: tuple(tensor.shape) for name, tensor in tensors.items()},
    )


def _fits(file: WeightsFile) -> tuple[tuple[str, ...], str]:
    good, closest = fitting_variants(file.tensors)
    if not good and file.ours and _builds(file):
        return (file.metadata["variant"],), ""
    if good or closest is None:
        return good, ""
    return good, f"closest is {closest[0]}: {closest[1].complaint()}"


def _builds(file: WeightsFile) -> bool:
    """Tell whether a file whose variant was changed by overrides fits the variant that it names, with these."""
    try:
        build(file.metadata.get("variant", ""), file.path)
    except VOSError:
        return False
    return True


def _file_hash(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
