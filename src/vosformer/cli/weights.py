"""`vosformer weights inspect | convert | average | info`."""

from __future__ import annotations

import dataclasses
import json as jsonlib
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro
from rich.table import Table

from vosformer.cli.terminal import results, show_table
from vosformer.errors import InputError
from vosformer.weights import WeightsInfo, packaged
from vosformer.weights import average as average_weights
from vosformer.weights import convert as convert_weights
from vosformer.weights import inspect as inspect_weights

_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def inspect(file: Annotated[Path, tyro.conf.Positional], names: bool = False, json: bool = False, trust: bool = False) -> int:
    """Show what a weights file holds and which variants it fits.

    Args:
        file: safetensors, or a torch checkpoint (.pth). Encoder files of ImageNet, MAE or ConvMAE are known, too.
        names: list every tensor with its shape.
        json: print JSON instead of a table.
        trust: unpickle whatever a torch file holds; this runs code of the file's author.

    Returns:
        0, or 1 if no variant can use the file.
    """
    info = inspect_weights(file, trust=trust)
    if json:
        print(jsonlib.dumps({**dataclasses.asdict(info), "path": str(info.path)}, indent=2))
    else:
        _show(info, names)
    return 0 if info.fits or info.starts else 1


def convert(
    source: Annotated[Path, tyro.conf.Positional],
    target: Annotated[Path, tyro.conf.Positional],
    variant: str | None = None,
    dtype: Literal["float32", "float16", "bfloat16"] = "float32",
    trust: bool = False,
) -> int:
    """Turn an official checkpoint into safetensors with metadata and SHA-256, or a file of ours into an official checkpoint.

    Args:
        source: the file to read.
        target: the file to write: .safetensors for ours, .pth for an official checkpoint.
        variant: what the file is; default: what it says itself, or what its tensors fit.
        dtype: how tensors with two dimensions or more are stored in safetensors; the others stay float32.
        trust: unpickle whatever a torch file holds; this runs code of the file's author.
    """
    name = convert_weights(source, target, variant, dtype=_DTYPES[dtype], trust=trust)
    _say_written(target, name)
    return 0


def average(
    sources: Annotated[tuple[Path, ...], tyro.conf.Positional],
    out: Path,
    variant: str | None = None,
    dtype: Literal["float32", "float16", "bfloat16"] = "float32",
) -> int:
    """Write the mean of several trainings of one variant, tensor by tensor.

    Args:
        sources: two weights files or more, ours or official; one that is named twice counts twice.
        out: the safetensors file to write.
        variant: what the mean is; default: what the first file says itself, or what its tensors fit. Files of a variant with fewer
            layers are deepened: they get layers that do nothing.
        dtype: how tensors with two dimensions or more are stored; the others stay float32.
    """
    _say_written(out, average_weights(sources, out, variant, dtype=_DTYPES[dtype]))
    return 0


def info(file: Annotated[str, tyro.conf.Positional] = "default") -> int:
    """Show recipe, data, terms and hash of the packaged weights, or of a file.

    Args:
        file: name of packaged weights, or a weights file.
    """
    known = packaged()
    if file not in known and not Path(file).exists():
        raise InputError(
            f"{file} is neither a file nor the name of packaged weights; packaged are: {', '.join(known) or 'none'}"
        )
    _show(inspect_weights(known.get(file, Path(file))), names=False)
    return 0


def _say_written(file: Path, variant: str) -> None:
    results().print(f"{file}: {variant}, {file.stat().st_size / 1e6:.1f} MB")


def _show(info: WeightsInfo, names: bool) -> None:
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    rows = {
        "file": str(info.path),
        "format": f"{info.format}, {info.bytes / 1e6:.1f} MB",
        "tensors": f"{info.tensors} ({', '.join(f'{count} {dtype}' for dtype, count in info.dtypes.items())})",
        "parameters": f"{info.parameters:,}",
        "fits": ", ".join(info.fits) or f"no variant as a whole{'; ' if info.misfit else ''}{info.misfit}",
        "starts the encoder of": ", ".join(info.starts),
        "SHA-256 of file": info.sha256,
        "SHA-256 of tensors": info.metadata.get("sha256", ""),
        **{key: value for key, value in info.metadata.items() if key not in ("sha256", "format")},
    }
    for key, value in rows.items():
        if value:
            table.add_row(key, value)
    show_table(table, whole=True)
    if names:
        for name, shape in info.names.items():
            results().print(f"{name}  {list(shape)}")
