"""The first minutes with a GPU: whether everything gives there what it gives on the CPU, and how fast.

    python benchmarks/gpu.py                                        # under ten minutes; ends with 1 if anything disagrees
    python benchmarks/gpu.py --device cpu --tiny --backend eager    # a rehearsal
    python benchmarks/gpu.py --variants default r50-aot-l --json gpu.json

For every variant (fresh weights, except for packaged ones): a short clip in fp32, fp16 and bf16 there against fp32 on the CPU,
label by label; milliseconds a frame and peak memory of each. First, for one variant: `torch.compile` of encode and read, a batch of
videos through encode, read and write against one by one, and how often `Session.step` makes the host wait. When the time is up
(`--minutes`) what is left is named and skipped.
"""

from __future__ import annotations

import argparse
import json
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from vosformer import Session, VOSError
from vosformer.memory import Memory
from vosformer.policy import named_policy
from vosformer.protocol import ObjectMasks, VOSModel
from vosformer.registry import new_model, variants
from vosformer.weights import build, packaged

DTYPES = ("fp32", "fp16", "bf16")
LEAST = {"fp32": 0.999, "fp16": 0.98, "bf16": 0.95}  # of the pixels; random weights make near ties, trained ones hardly any


def clip(frames: int, height: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Two discs that move over noise, and their masks on the first frame."""
    width = round(height * 16 / 9)
    y, x = np.mgrid[:height, :width] / height
    ground = np.random.default_rng(0).integers(0, 90, (height, width, 3), np.uint8)
    pictures, first = [], np.zeros((height, width), np.int32)
    for t in range(frames):
        picture = ground.copy()
        for i, (row, column, color) in enumerate(((0.4, 0.5, (220, 60, 40)), (0.6, 1.2, (40, 200, 90)))):
            inside = (y - row) ** 2 + (x - column - 0.01 * t) ** 2 < 0.15**2
            picture[inside] = color
            if t == 0:
                first[inside] = i + 1
        pictures.append(picture)
    return pictures, first


def wait(device: torch.device) -> None:
    """Let the device finish."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def tracked(session: Session, frames: list[np.ndarray], labels: np.ndarray, device: torch.device) -> tuple[np.ndarray, float]:
    """Labels of all frames, and the median milliseconds of those after the first three."""
    session.reset()
    found, spent = [], []
    for t, frame in enumerate(frames):
        wait(device)
        begin = time.perf_counter()
        found.append(session.step(frame, labels if t == 0 else None).labels)
        wait(device)
        spent.append(1000 * (time.perf_counter() - begin))
    return np.stack(found), float(np.median(spent[min(3, len(spent) - 1) :]))


def made(name: str, tiny: bool) -> VOSModel:
    """The model: packaged weights where there are any, else fresh ones, the same each time."""
    torch.manual_seed(0)
    return build(name).eval() if name in packaged() else new_model(name, **({"tiny": True} if tiny else {})).eval()


def compare(name: str, options: argparse.Namespace, frames: list[np.ndarray], labels: np.ndarray) -> list[dict[str, Any]]:
    """One variant: fp32 against the CPU, the other formats against fp32."""
    device, model = torch.device(options.device), made(name, options.tiny)
    short, few = labels.shape[0], frames[: options.equal]
    settings: dict[str, Any] = {"size": short, "closer": "off"}
    reference, _ = tracked(Session(model, device="cpu", dtype="fp32", **settings), few, labels, torch.device("cpu"))
    rows = []
    for dtype in DTYPES:
        row: dict[str, Any] = {"variant": name, "dtype": dtype}
        try:
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(device)
            session = Session(model, device=device, dtype=dtype, **settings)
            found, row["ms"] = tracked(session, frames, labels, device)
            row["same"] = float((found[: len(few)] == reference).mean())
            row["ok"] = row["same"] >= LEAST[dtype]
            if device.type == "cuda":
                row["peak_mb"] = torch.cuda.max_memory_allocated(device) / 1e6
        except VOSError as error:  # a format that this device does not have
            row |= {"ok": True, "note": str(error)}
        except (RuntimeError, NotImplementedError) as error:
            row |= {"ok": False, "note": f"{type(error).__name__}: {str(error).splitlines()[0]}"}
        rows.append(row)
    return rows


@torch.inference_mode()
def through(model: VOSModel, images: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Logits of the last of some frames [T,B,3,H,W], with masks [B,K,H,W] on the first."""
    memory, reading = Memory(named_policy("default", model.policy)), None
    for t, image in enumerate(images):
        features = model.encode(image)
        if t:
            reading = model.read(features, memory)
        own = ObjectMasks(masks, torch.zeros_like(masks[:, :1]), t == 0)
        memory.add(model.write(features, own, reading, memory if t else None), t, t == 0)
    assert reading is not None
    return reading.logits.float()


def extras(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Compilation, batches of videos and waits of the host, for one variant."""
    device, model = torch.device(options.device), made(options.one, options.tiny)
    model = model.to(device)
    height, width = model.geometry.place(options.short, round(options.short * 16 / 9), options.short).network
    images = torch.randn(3, 2, 3, height, width, generator=torch.Generator().manual_seed(0)).to(device)
    masks = torch.zeros(2, model.slot_size, height, width, device=device)
    masks[:, 0, height // 4 : height // 2, width // 4 : width // 2] = 1
    single = torch.cat([through(model, images[:, b : b + 1], masks[b : b + 1]) for b in range(2)])
    rows = []
    far = (through(model, images, masks) - single).abs().max().item()
    rows.append({"check": "a batch of two videos", "ok": far < 1e-2, "note": f"largest difference of a logit {far:.1e}"})
    try:
        encode, read = model.encode, model.read
        model.encode, model.read = (torch.compile(each, backend=options.backend) for each in (encode, read))  # type: ignore[method-assign]
        far = (through(model, images[:, :1], masks[:1]) - single[:1]).abs().max().item()
        wait(device)
        begin = time.perf_counter()
        through(model, images[:, :1], masks[:1])
        wait(device)
        spent = 1000 * (time.perf_counter() - begin) / len(images)
        rows.append({"check": "torch.compile", "ok": far < 1e-2, "note": f"difference {far:.1e}; {spent:.0f} ms a frame"})
    except Exception as error:  # the compiler has many of its own
        rows.append(
            {"check": "torch.compile", "ok": False, "note": f"{type(error).__name__}: {str(error).splitlines()[0][:100]}"}
        )
    finally:
        with suppress(AttributeError):
            del model.encode, model.read
    if device.type == "cuda":
        rows.append(waits(model, options, device))
    return rows


def waits(model: VOSModel, options: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """Count how often a step makes the host wait for the device: the scores' and the labels' copies are two."""
    import warnings

    frames, labels = clip(6, options.short)
    session = Session(model, device=device, dtype="fp32", size=options.short, closer="off")
    for t in range(5):
        session.step(frames[t], labels if t == 0 else None)
    torch.cuda.set_sync_debug_mode("warn")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        session.step(frames[5])
    torch.cuda.set_sync_debug_mode("default")
    count = sum("synchroniz" in str(each.message) for each in caught)
    return {"check": "waits of the host in a step", "ok": count <= 3, "note": f"{count}"}


def main() -> None:
    """Check and measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--variants", nargs="+", help="default: the packaged weights and every variant")
    parser.add_argument("--one", default="aot-t", help="the variant for compilation and batches")
    parser.add_argument("--backend", default="inductor", help="of torch.compile")
    parser.add_argument("--tiny", action="store_true", help="every variant at tiny size and small frames: a rehearsal")
    parser.add_argument("--short", type=int, default=480)
    parser.add_argument("--frames", type=int, default=12, help="frames that are timed")
    parser.add_argument("--equal", type=int, default=4, help="frames that are compared with the CPU")
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.tiny:
        options.short, options.frames = 96, 5
    began, console = time.perf_counter(), Console(width=130)
    device = torch.device(options.device)
    console.print(f"{torch.cuda.get_device_name(device) if device.type == 'cuda' else device}, torch {torch.__version__}")
    frames, labels = clip(options.frames, options.short)
    rows: list[dict[str, Any]] = extras(options)
    skipped = []
    for name in options.variants or [*([] if options.tiny else packaged()), *(each.name for each in variants())]:
        if time.perf_counter() - began > 60 * options.minutes:
            skipped.append(name)
            continue
        rows += compare(name, options, frames, labels)
        console.print(f"  {name}: {[round(row.get('ms', 0), 1) for row in rows[-len(DTYPES) :]]} ms", style="dim")
    table = Table("variant or check", "dtype", "ms a frame", "peak MB", "same labels as the CPU in fp32", "", "note")
    for row in rows:
        ms, peak, same = row.get("ms"), row.get("peak_mb"), row.get("same")
        table.add_row(
            row.get("variant", row.get("check")), row.get("dtype", ""), "" if ms is None else f"{ms:.1f}",
            "" if peak is None else f"{peak:.0f}", "" if same is None else f"{same:.3%}", "ok" if row["ok"] else "[red]WRONG[/]",
            row.get("note", ""),
        )  # fmt: skip
    console.print(table)
    if skipped:
        console.print(f"out of time, not looked at: {', '.join(skipped)}")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))
    raise SystemExit(0 if all(row["ok"] for row in rows) else 1)


if __name__ == "__main__":
    main()
