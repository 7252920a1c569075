"""`vosformer export`: a model with its memory for other runtimes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro

from vosformer.cli.common import need_weights
from vosformer.cli.session_options import SessionOptions
from vosformer.cli.terminal import messages
from vosformer.errors import InputError
from vosformer.export import export as export_model
from vosformer.weights import build

_DTYPES = {"fp32": torch.float32, "fp16": torch.float16}


def export(
    model: Annotated[str, tyro.conf.Positional],
    /,
    out: Annotated[Path, tyro.conf.arg(aliases=("-o",))],
    to: Literal["onnx", "torch"] = "onnx",
    weights: Path | None = None,
    size: str = "dynamic",
    dtype: Literal["fp32", "fp16"] = "fp32",
    memory: str = "default",
    slots: int | None = None,
    fixed_bank: bool = False,
    objects: int = 10,
    option: tuple[str, ...] = (),
    overwrite: bool = False,
) -> None:
    """Write encode, read and write as graphs over a memory of fixed capacity, with a runner of NumPy and onnxruntime beside them.

    Args:
        model: variant, see `vosformer variants`, or packaged weights, see `vosformer weights info`.
        out: folder to make.
        to: onnx, or torch (programs of torch.export, .pt2).
        weights: weights file of the variant, ours or an official checkpoint.
        size: HxW in pixels, the only network input that the graphs take (multiples of 16, and 1 more for systems that align corners:
            481x849); or dynamic: frames of any size.
        dtype: of weights, features and memory: fp32 or fp16.
        memory: memory policy: default, paper, given-only, every-5, queue-3-every-5, ...
        slots: most frames in the memory bank (default: as the policy says, at most 8).
        fixed_bank: the graphs always take the whole bank, its empty places included, for runtimes that want every shape fixed (with
            --size); slower, since the empty places are computed, too.
        objects: that may begin on one frame (only SimVOS-BS looks at it).
        option: options of the system, NAME=VALUE: how it is built, or read (depth=2 for AOST); they are fixed in the graphs.
        overwrite: replace a folder that is there.
    """
    need_weights(model, weights)
    network = _size(size)
    options = SessionOptions(model=model, weights=weights, option=option)
    folder = export_model(
        build(model, weights, **options.built_with),
        out,
        to=to,
        size=network,
        dtype=_DTYPES[dtype],
        memory=memory,
        capacity=slots,
        fixed_bank=fixed_bank,
        objects=objects,
        options=options.read_options,
        name=model,
        overwrite=overwrite,
        say=messages().print,
    )
    total = sum(file.stat().st_size for file in folder.iterdir())
    messages().print(f"{folder}: {', '.join(sorted(file.name for file in folder.iterdir()))}; {total / 1e6:.1f} MB")


def _size(text: str) -> tuple[int, int] | None:
    if text == "dynamic":
        return None
    found = re.fullmatch(r"(\d+)x(\d+)", text)
    if found is None:
        raise InputError(f"--size is {text!r}, expected HxW in pixels such as 481x849, or dynamic")
    return int(found[1]), int(found[2])
