"""Runs a small training in a process of its own: `python train_run.py FOLDER STEPS SAVE_EVERY SLEEP WORKERS`; several through
torchrun's environment variables. Prints `step N` after each step that was logged.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import torch
from train_dummy import Dummy, Squares

from vosformer.data.types import Clip
from vosformer.registry import Variant, register
from vosformer.train.distributed import join
from vosformer.train.recipe import Data, Loss, Model, Optim, Recipe, Rollout, Run
from vosformer.train.trainer import Trainer


def recipe(steps: int = 24, **run: Any) -> Recipe:
    """A run through every phase: warm-up, own masks, resting identities, falling shares of pixels."""
    # Not on import: tests that list all variants when they are collected would list this one, too.
    register(Variant("dummy", "dummy", Dummy, "for tests"))
    settings: dict[str, Any] = {
        "batch": 4,
        "precision": "fp32",
        "save_every": 5,
        "log_every": 1,
        "picture_every": 0,
        "workers": 0,
    }
    return Recipe(
        "test",
        "test",
        model=Model("dummy"),
        data=Data(max_objects=3),
        optim=Optim(lr=3e-3, lr_min=1e-4, warmup=3, ema=0.9, lr_scales=((r"^encoder\.", 0.1),), clip=0.5),
        loss=Loss(top_until=12, auxiliary=1.0, auxiliary_until=20),
        rollout=Rollout(own_masks_from=12, gap=2, freeze_own_masks=(r"^id_bank\.",)),
        run=Run(steps=steps, **{**settings, **run}),
    )


class Slow(Squares):
    """Clips that take their time, so that a run can be met in its middle."""

    pause = 0.0

    def __getitem__(self, index: int) -> Clip:
        time.sleep(self.pause)
        return super().__getitem__(index)


def trainer(folder: Path, steps: int = 24, pause: float = 0.0, **run: Any) -> Trainer:
    """A trainer that began, or goes on where the folder is."""
    torch.manual_seed(0)
    clips = Slow(vary=True)
    clips.pause = pause
    made = Trainer(Dummy(), recipe(steps, **run), clips, folder, join("cpu"))
    made.resume()
    return made


if __name__ == "__main__":
    torch.set_num_threads(1)
    save_every, pause, workers = (kind(text) for kind, text in zip((int, float, int), sys.argv[3:], strict=True))
    run = trainer(Path(sys.argv[1]), int(sys.argv[2]), pause, save_every=save_every, workers=workers)
    print(f"ready at {run.step}", flush=True)
    processes = run.processes
    run.run()
    del run  # as at the end of `vosformer train`: it holds the group of processes
    processes.close()
