"""Which device and which number format to run with."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
import time
import warnings
from multiprocessing import parent_process

import cv2
import torch

from vosformer.errors import DeviceError

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def choose_device(name: str | torch.device) -> torch.device:
    """Return the device asked for, with its number; "auto" is CUDA if there is one, then Apple's MPS, then the CPU.

    Raises:
        DeviceError: this machine does not have it.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError):
        raise DeviceError(f"{name!r} is no device; expected auto, cpu, cuda, cuda:N or mps") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise DeviceError(f"device {str(device)!r} was asked for, but this machine has {torch.cuda.device_count()} CUDA GPUs")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise DeviceError("device 'mps' was asked for, but this machine has no Apple GPU that torch can use")
    if device.type not in ("cpu", "cuda", "mps"):
        raise DeviceError(f"device {str(device)!r} is not supported; expected auto, cpu, cuda, cuda:N or mps")
    if device.index is None and device.type != "cpu":
        # Tensors say their number, and each thread has a current GPU of its own.
        return torch.device(device.type, torch.cuda.current_device() if device.type == "cuda" else 0)
    return device


def choose_dtype(name: str | torch.dtype, device: torch.device) -> torch.dtype:
    """Return the number format asked for; "auto" is bfloat16 where the device computes it natively, float16 on older GPUs,
    else float32.

    Raises:
        DeviceError: no such format, or one that the device does not have.
    """
    if name == "auto":
        return _fast_dtype(device)
    dtype = _DTYPES.get(name) if isinstance(name, str) else name
    if dtype is None or dtype not in _DTYPES.values():
        raise DeviceError(f"{name!r} is no dtype; expected auto, {', '.join(_DTYPES)}")
    if dtype is torch.float16 and device.type == "cpu":
        raise DeviceError("fp16 was asked for on the CPU, which computes it slowly and without enough range; use bf16 or fp32")
    return dtype


def free_threads(most: int | None = None) -> int:
    """Return how many CPU threads are worth using now: `most`, or 1 if something else keeps the cores busy.

    Threads that wait for one another spin, so that two of them on a core that is taken run ten times slower than one. What else runs
    cannot be known, so it is measured: some products with all threads and with one, for 0.1 to 0.4 seconds.

    Args:
        most: default: those that torch uses now.
    """
    before = torch.get_num_threads()
    most = before if most is None else most
    if most == 1:
        return 1
    a = torch.randn(384, 384)

    def seconds(threads: int) -> float:
        torch.set_num_threads(threads)
        a @ a
        begin = time.perf_counter()
        for _ in range(20):
            a @ a
        return time.perf_counter() - begin

    # On a quiet machine, too, two threads may begin on one core; on a busy one no try is quicker than a thread on a free core.
    alone = min(seconds(1) for _ in range(3))
    quicker = any(seconds(most) < 0.9 * alone for _ in range(5))
    torch.set_num_threads(before)
    return most if quicker else 1


def tune_process(device: torch.device) -> None:
    """Set the whole process up, for programs of our own: OpenCV's threads, which would compete with PyTorch's, are not used;
    fp32 is float32 on NVIDIA GPUs, too, whose convolutions would round to 10 bits (TF32); and freed memory is kept: glibc would give
    large tensors back and fault them in again at every frame.
    """
    _settled.set()
    cv2.setNumThreads(1)
    torch.backends.cudnn.allow_tf32 = False
    if device.type == "cpu":
        _keep_freed_memory()


def settle_process(device: torch.device) -> None:
    """Make somebody else's program as quick as our own, once, when its first session is built on the CPU.

    Freed memory is kept, as `tune_process` does, and PyTorch uses one thread if other programs keep the cores busy. What slows the
    program is said as a warning. Nothing is done in programs of our own; processes that a program started for a part of its work keep
    the threads that they were given.
    """
    if device.type != "cpu" or _settled.is_set():
        return
    _settled.set()
    _keep_freed_memory()
    if parent_process() is not None:
        return
    threads, cores = torch.get_num_threads(), _cores()
    free = free_threads()
    if free < threads:
        torch.set_num_threads(free)
        warnings.warn(
            f"other programs keep the cores busy: PyTorch was set to {free} thread instead of {threads}, which would wait for one "
            f"another; torch.set_num_threads({threads}) once the cores are free makes sessions quicker",
            stacklevel=3,
        )
    elif threads == 1 < cores:
        warnings.warn(
            f"PyTorch computes with one thread, and {cores} cores are there: torch.set_num_threads({cores}) makes sessions quicker",
            stacklevel=3,
        )


_settled = threading.Event()


def _cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _keep_freed_memory() -> None:
    if not sys.platform.startswith("linux"):
        return
    try:
        library = ctypes.CDLL("libc.so.6")
        library.mallopt(-4, 0)  # M_MMAP_MAX: no allocation by mmap
        library.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: the heap is not given back
    except (OSError, AttributeError):
        return  # another C library: it goes without


def _fast_dtype(device: torch.device) -> torch.dtype:
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    if device.type == "cpu" and getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)():
        return torch.bfloat16
    return torch.float32
