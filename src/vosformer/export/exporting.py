"""A model with its memory as graphs for other runtimes, with all that a runner has to know about them."""

from __future__ import annotations

import copy
import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, is_dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch

from vosformer.errors import InputError, OutputError
from vosformer.export import runner
from vosformer.export.onnx_files import need_onnx, write_onnx
from vosformer.export.programs import write_programs
from vosformer.export.shapes import Free
from vosformer.export.signatures import Graphs, make_graphs, named
from vosformer.geometry import MEAN, STD, FrameSize
from vosformer.io.files import make_folder, output_errors
from vosformer.models.jointformer import JointFormer
from vosformer.models.onevos import OneVOS
from vosformer.nn.norm import for_inference
from vosformer.policy import DynamicTokens, EveryK, FirstAndPrevious, GivenOnly, OneVOSQueue, Policy, Queue, named_policy
from vosformer.protocol import VOSModel

Target = Literal["onnx", "torch"]
_FORMAT = 1
_KINDS = (GivenOnly, EveryK, FirstAndPrevious, Queue, OneVOSQueue, DynamicTokens)
_BOUND = 8  # frames of a bank without a bound of its own
_EXAMPLE = (480, 854)  # pixels of the frames that a dynamic export is traced with


def export(
    model: VOSModel,
    folder: str | Path,
    *,
    to: Target = "onnx",
    size: tuple[int, int] | None = None,
    frame_size: FrameSize = 480,
    dtype: torch.dtype = torch.float32,
    memory: str | Policy = "default",
    capacity: int | None = None,
    fixed_bank: bool = False,
    objects: int = 10,
    options: Mapping[str, Any] | None = None,
    name: str = "",
    overwrite: bool = False,
    say: Callable[[str], None] = lambda message: None,
) -> Path:
    """Write a model's `encode`, `read` and `write` over a bank of fixed capacity as graphs, with a runner beside them.

    Args:
        model: with its weights; it stays as it is.
        folder: to make; see `docs/export.md` for what lies in it.
        to: "onnx" (`encode.onnx` and so on, `weights.bin`, and `runner.py`, which needs NumPy and onnxruntime alone) or "torch"
            (`encode.pt2` and so on, programs of torch.export).
        size: (H, W) of the network's input, the only one that the graphs will take; None = any.
        frame_size: where `size` is None, the frame size that the runner takes by default.
        dtype: torch.float32 or torch.float16.
        memory: a policy, or its name, as `Session` takes it.
        capacity: most frames in the bank; None = as the policy says (8 where it has no bound).
        fixed_bank: the graphs always take the whole bank, its empty places included, so that with `size` every shape is fixed;
            else only as much of it as is filled, which is faster.
        objects: that may begin on one frame; only SimVOS with token refinement looks at it.
        options: of the model's `read`, fixed in the graphs, e.g. {"depth": 2} for AOST.
        name: of the variant or weights, for model.json.
        overwrite: replace a folder that is there.
        say: called with a sentence about each step.

    Returns:
        The folder.

    Raises:
        InputError: a system or option that cannot be exported, or a size that the network does not take.
        OutputError: the folder is there, or cannot be written.
    """
    out, options = Path(folder), dict(options or {})
    if to not in ("onnx", "torch"):
        raise InputError(f"--to is {to!r}, expected onnx or torch")
    if to == "onnx":
        need_onnx()
    if out.exists() and not overwrite:
        raise OutputError(f"{out} is there already: name another folder, or allow overwriting it")
    _check(model, size, dtype, capacity, fixed_bank, objects)
    model.check_options(**options)
    policy = bounded_policy(model, memory, capacity)
    network = _example_size(model, size, frame_size)
    ready = for_inference(copy.deepcopy(model).eval().to("cpu", dtype))
    say(f"running the model once at {network[0]} x {network[1]} pixels")
    graphs = make_graphs(ready, network, policy.capacity or _BOUND, dtype, objects, options)
    about = describe(model, graphs, policy, name, dtype, size, frame_size, options)
    free = Free(size is None, not fixed_bank)
    make_folder(out.parent)
    with output_errors(out):
        work = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
        try:
            notes = {key: value if isinstance(value, str) else json.dumps(value) for key, value in about.items()}
            if to == "onnx":
                files = write_onnx(graphs.graphs, work, _outputs_taken(graphs), notes, free, say)
                shutil.copy(runner.__file__, work / "runner.py")
            else:
                files = write_programs(graphs.graphs, work, notes, free, say)
            suffix = ".onnx" if to == "onnx" else ".pt2"
            about["graphs"] = {graph: {"file": graph + suffix, **names} for graph, names in files.items()}
            (work / "model.json").write_text(json.dumps(about, indent=1) + "\n", "utf-8")
            if out.exists():
                shutil.rmtree(out)
            work.chmod(0o755)
            work.rename(out)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return out


def _check(
    model: VOSModel, size: tuple[int, int] | None, dtype: torch.dtype, capacity: int | None, fixed_bank: bool, objects: int
) -> None:
    """Refuse what cannot be exported.

    Raises:
        InputError: says what it is.
    """
    if dtype not in (torch.float32, torch.float16):
        raise InputError(f"graphs are exported in fp32 or fp16, not in {str(dtype).removeprefix('torch.')}")
    if capacity is not None and capacity < 1:
        raise InputError(f"the bank's capacity is {capacity}, expected at least 1 frame")
    if fixed_bank and size is None:
        raise InputError(
            "a fixed bank needs a fixed size: a frame of another size has other tokens (--size, or no --fixed-bank)"
        )
    if objects < 1:
        raise InputError(f"--objects is {objects}, expected at least 1")
    if size is not None:
        extra = int(model.geometry.align_corners)
        if any(side < 16 + extra or (side - extra) % 16 for side in size):
            plus = " and 1 more" if extra else ""
            raise InputError(
                f"a network input of {size[0]} x {size[1]} cannot be: this model takes multiples of 16 pixels{plus}"
            )
    if getattr(model, "local_frames", 1) > 1:
        raise InputError(f"a model with local_frames={model.local_frames} cannot be exported: only one local frame can")
    if isinstance(model, JointFormer) and model.config.mode != "d":
        raise InputError(
            f"JointFormer in mode {model.config.mode!r} cannot be exported: only mode 'd' computes a memory frame once"
        )
    if isinstance(model, OneVOS) and (model.coupled or model.config.selector == "dts-t"):
        raise InputError("this ablation of OneVOS cannot be exported: its reference frame depends on the frame that follows")


def bounded_policy(model: VOSModel, memory: str | Policy, capacity: int | None) -> Policy:
    """Return the policy that the runner follows, with a bound on its frames.

    Raises:
        InputError: the runner does not know it.
    """
    policy = named_policy(memory, model.policy) if isinstance(memory, str) else memory
    if capacity is not None:
        # The exported bank may hold more than the session's default bound.
        policy = (model.policy if memory == "default" else policy).limited(capacity)
    elif policy.capacity is None:
        policy = policy.limited(_BOUND)
    if not isinstance(policy, _KINDS):
        raise InputError(f"the memory policy {policy!r} cannot be exported: the runner knows vosformer's own ones")
    return policy


def _example_size(model: VOSModel, size: tuple[int, int] | None, frame_size: FrameSize) -> tuple[int, int]:
    if size is not None:
        return size
    network = model.geometry.place(*_EXAMPLE, frame_size).network
    return network[0], network[1]


def _outputs_taken(graphs: Graphs) -> dict[str, list[str]]:
    """Return the outputs of each graph that another one, or the runner, takes."""
    taken = {name for graph in graphs.graphs.values() for name in graph.inputs}
    layers = {name.split("/")[1] for name in graphs.graphs["read"].inputs if name.startswith("last/")}
    outputs = {"encode": [name for name in graphs.graphs["encode"].outputs if name in taken]}
    carried = [name for name in graphs.graphs["write"].inputs if name.startswith("carry/")]
    for name in {"read", "rank"} & graphs.graphs.keys():
        usage = [each for each in graphs.graphs[name].outputs if each.endswith("_usage")]
        outputs[name] = ["logits", *carried, *usage]
    for name in ("write", "begin"):
        outputs[name] = ["token", *(f"{kind}/{layer}/" for kind in ("layers", "recent") for layer in layers)]
    return outputs


def describe(
    model: VOSModel,
    graphs: Graphs,
    policy: Policy,
    name: str,
    dtype: torch.dtype,
    size: tuple[int, int] | None,
    frame_size: FrameSize,
    options: Mapping[str, Any],
) -> dict[str, Any]:
    """Make model.json but for the names of the graphs' inputs."""
    assert is_dataclass(policy)
    geometry = asdict(model.geometry)
    memory = {n: t.shape[2] for n, t in graphs.graphs["read"].inputs.items() if n.startswith(("bank/", "last/"))}
    entry = named(graphs.graphs["write"].outputs, "layers/0/")
    tokens = next(iter(entry.values())).shape[1]
    return {
        "format": _FORMAT,
        "variant": name or type(model).__name__,
        "built_with": {key: str(value) for key, value in model.built_with.items()},
        "hash": _hash(model),
        "vosformer": version("vosformer"),
        "dtype": "fp32" if dtype == torch.float32 else "fp16",
        "options": dict(options),
        "size": None if size is None else list(size),
        "frame_size": frame_size,
        "geometry": {**geometry, "mean": list(MEAN), "std": list(STD)},
        "policy": {"kind": type(policy).__name__, **asdict(policy)},
        "slot_size": model.slot_size,
        "shares_memory": model.shares_memory,
        "feedback": model.feedback,
        "merging": {key: getattr(model.merging, key) for key in ("clamp", "lone_slot", "free_channels_compete")},
        "presence": list(model.presence),
        "grows_small_objects": isinstance(model, OneVOS),
        "begins": graphs.begins,
        "cohort": graphs.cohort,
        "quota": list(graphs.quota),
        "memory": memory,
        "tokens_per_frame": tokens if graphs.cohort else None,
        "least_tokens": max(2, 1 + _kept(model, options)),
    }


def _kept(model: VOSModel, options: Mapping[str, Any]) -> int:
    """Return k of JointFormer's top-k filter: a bank of any size must have more tokens than that."""
    if not isinstance(model, JointFormer):
        return 0
    chosen: int | None = options.get("topk", model.config.topk)
    return chosen or 0


def _hash(model: VOSModel) -> str:
    """Return the first 16 digits of the sha256 of all names, shapes and values of a model's weights."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
