"""Several processes: torch.distributed as `torchrun` starts it, or a single process without any of it."""

from __future__ import annotations

import gc
import math
import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from vosformer.device import choose_device, choose_dtype
from vosformer.errors import DeviceError, InputError
from vosformer.train.batch import Shares
from vosformer.train.recipe import Recipe


@dataclass(frozen=True)
class Processes:
    """One process among all.

    Attributes:
        rank: its number.
        world: how many there are.
        device: where it computes.
    """

    rank: int
    world: int
    device: torch.device

    @property
    def leads(self) -> bool:
        """Whether this one writes files and prints."""
        return self.rank == 0

    def wrap(self, module: nn.Module) -> nn.Module:
        """Return the module with its gradients averaged over all processes."""
        if self.world == 1:
            return module
        ids = [self.device.index] if self.device.type == "cuda" else None
        # Phases of training leave some parameters without a gradient.
        return DistributedDataParallel(module, device_ids=ids, find_unused_parameters=True)

    def without_sync(self, module: nn.Module) -> AbstractContextManager[Any]:
        """Return the context for all parts of a step but the last."""
        return cast(DistributedDataParallel, module).no_sync() if self.world > 1 else nullcontext()

    def mean(self, values: Tensor) -> Tensor:
        """Return the mean over all processes."""
        if self.world > 1:
            dist.all_reduce(values)
            values /= self.world
        return values

    def agree(self, number: int) -> bool:
        """Tell whether all processes have the same number."""
        if self.world == 1:
            return True
        ends = torch.tensor([number, -number], device=self.device)
        dist.all_reduce(ends, dist.ReduceOp.MAX)
        return bool(ends[0] == -ends[1])

    def wait(self) -> None:
        """Until all processes are here."""
        if self.world > 1:
            dist.barrier()

    def close(self) -> None:
        """Leave the group; the trainer should be gone by then."""
        if self.world > 1 and dist.is_initialized():
            # A wrapped model that is still there holds the group, whose threads abort a process that ends with them.
            gc.collect()
            dist.destroy_process_group()


def join(device: str | None = None) -> Processes:
    """Find out about this process from torchrun's environment, and join the others.

    Args:
        device: "cpu", "cuda", "cuda:1", "mps"; None = the best there is.

    Raises:
        DeviceError: the device does not exist here, or several processes were to share a GPU.
    """
    rank, world, local = (
        int(os.environ.get(name, least)) for name, least in (("RANK", 0), ("WORLD_SIZE", 1), ("LOCAL_RANK", 0))
    )
    asked_for = device or "auto"
    if world > 1 and asked_for.startswith("cuda:"):
        raise DeviceError(f"{asked_for} was asked for, but {world} processes need a GPU each: say cuda, and each takes its own")
    chosen = choose_device(asked_for)
    if chosen.type == "cuda":
        chosen = chosen if ":" in asked_for else choose_device(f"cuda:{local}")
        torch.cuda.set_device(chosen)
    if world > 1 and not dist.is_initialized():
        gpu = chosen if chosen.type == "cuda" else None
        dist.init_process_group("gloo" if gpu is None else "nccl", device_id=gpu)
    return Processes(rank, world, chosen)


# On a CPU, pixels of all frames that are worked on at once; more only costs memory.
_CPU_PIXELS = 2_500_000


def shares(recipe: Recipe, processes: Processes) -> Shares:
    """Tell who computes which clips, and in how many parts.

    Raises:
        InputError: the batch cannot be shared evenly.
    """
    run, data = recipe.run, recipe.data
    if run.accumulate or processes.device.type != "cpu" or run.batch % processes.world:
        return Shares(run.batch, run.accumulate or 1, processes.rank, processes.world).checked()
    each = run.batch // processes.world
    most = max(1, _CPU_PIXELS // (data.frames * math.prod(data.size)))
    parts = next(parts for parts in range(1, each + 1) if each % parts == 0 and each // parts <= most)
    return Shares(run.batch, parts, processes.rank, processes.world).checked()


def precision(recipe: Recipe, device: torch.device) -> str:
    """Return the number format, fp32, bf16 or fp16: what the recipe asks for; "amp" is the papers' or the nearest that the
    device has.

    Raises:
        InputError: fp16 without a CUDA GPU.
    """
    asked_for = recipe.run.precision
    if asked_for == "fp16" and device.type != "cuda":
        raise InputError(f"run.precision=fp16 needs a CUDA GPU (device is {device}); use bf16 or fp32")
    if asked_for != "amp":
        return asked_for
    if device.type == "cuda":
        return "fp16"
    return "bf16" if choose_dtype("auto", device) is torch.bfloat16 else "fp32"
