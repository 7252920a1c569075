"""The trainer: one loop for all systems, one process or many, with exact resume.

Everything random in a step follows from the seed and the step's number, so a checkpoint needs no state of random generators: a run
that was killed and resumed does what one that was not killed does.
"""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Generator, Iterator
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from vosformer.device import tune_process
from vosformer.errors import InputError, OutputError, TrainingError, VOSError
from vosformer.options import to_json
from vosformer.protocol import VOSModel
from vosformer.train import checkpoint as checkpoints
from vosformer.train.batch import Batch, Clips, loader, torch_seed
from vosformer.train.distributed import Processes, join, precision, shares
from vosformer.train.logger import TrainingLog, gpu_memory_gib
from vosformer.train.optim import Average, freeze, load_optimizer, new_optimizer, optimizer_tensors, set_rate
from vosformer.train.recipe import Recipe, checked
from vosformer.train.tasks import task_of
from vosformer.weights.saving import save_tensors

# What a run cannot change half-way: which clips a step sees, and what the checkpoint's tensors mean.
_SAME = ("name", "model.variant", "run.seed", "run.batch", "optim.algorithm")
_DTYPES = {"fp32": torch.bfloat16, "bf16": torch.bfloat16, "fp16": torch.float16}


class TrainingResult(NamedTuple):
    """How a run ended.

    Attributes:
        step: steps done in all.
        finished: all steps of the recipe are done.
        weights: the last weights file written (the average if there is one), or None if the run was stopped before its end.
    """

    step: int
    finished: bool
    weights: Path | None


@dataclass
class StepTiming:
    """Seconds since the last line of the log."""

    begun: float = 0.0
    waited: float = 0.0
    steps: int = 0

    def restart(self) -> None:
        """Begin anew."""
        self.begun, self.waited, self.steps = time.perf_counter(), 0.0, 0


class Trainer:
    """One run.

    Args:
        model: the system or click network, with the weights to begin with. Its trainable parameters are those that require
            gradients and that `recipe.model.freeze` does not name.
        recipe: what to do.
        clips: the training data.
        folder: where checkpoints, logs and weights go.
        processes: this process among all (None: found out from the environment, best device).

    Raises:
        InputError: settings that contradict each other, or options that a weights file cannot hold.
    """

    def __init__(
        self, model: nn.Module, recipe: Recipe, clips: Clips, folder: Path, processes: Processes | None = None
    ) -> None:
        self.recipe, self.clips, self.folder = checked(recipe), clips, folder
        self.processes = processes or join()
        run, device = recipe.run, self.processes.device
        self.shares = shares(recipe, self.processes)
        self.precision = precision(recipe, device)
        self.model = model.to(device).train()
        if run.channels_last:
            self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        freeze(self.model, recipe.model.freeze)
        self.optimizer = new_optimizer(self.model, recipe.optim, fused=True if device.type != "mps" else None)
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.precision == "fp16")
        self.average = None if recipe.optim.ema is None else Average(self.model, recipe.optim.ema)
        self.step = 0
        self._resting: list[nn.Parameter] | None = None
        self._stop = False
        self._told_waiting = False
        self._task = task_of(recipe)
        engine = self._task.engine(self.model, recipe).to(device)
        self._terms: tuple[str, ...] = engine.TERMS  # type: ignore[assignment]
        self._engine = self.processes.wrap(engine)
        to_json(cast(dict[str, Any], model.built_with))  # what cannot be saved in the end is refused before the first step
        if run.compile:
            # Only the encoder: it is the largest part, and the only one whose shapes never change.
            system = cast(VOSModel, self.model)
            system.encode = torch.compile(system.encode)  # type: ignore[method-assign]

    def resume(self) -> bool:
        """Go on from the newest whole checkpoint of the folder, if there is one.

        Raises:
            InputError: it belongs to another recipe or model, or its clips or optimizer were others.
            WeightsError: all checkpoints are damaged.
        """
        found = checkpoints.newest(self.folder / "checkpoints")
        if found is None:
            return False
        saved, now = found.state.get("settings", {}), dict(self.recipe.flat())
        odd = [key for key in _SAME if saved.get(key, repr(now[key])) != repr(now[key])]
        if odd:
            listed = ", ".join(f"{key}={saved[key]}, not {now[key]!r}" for key in odd)
            raise InputError(f"{self.folder} holds a run with {listed}: give another folder with --out, or the same settings")
        try:
            self.model.load_state_dict(found.parts["model"])
            load_optimizer(self.optimizer, found.parts["optimizer"])
        except (RuntimeError, KeyError) as error:
            raise InputError(f"the checkpoint in {self.folder} does not fit this model: {error}") from error
        if self.average is not None:
            self.average.load(found.parts.get("average", found.parts["model"]), int(found.state.get("updates", 0)))
        if self.scaler.is_enabled() and "scaler" in found.state:
            self.scaler.load_state_dict(found.state["scaler"])
        self.step = found.step
        return True

    def run(self, minutes: float | None = None) -> TrainingResult:
        """Train until the recipe's last step, a signal to stop, or `minutes` have passed; then checkpoint.

        Raises:
            TrainingError: a loss or gradient that is not finite; the batch is saved beside the log.
            InputError: several processes resumed from different steps.
            OutputError: the final weights could not be written.
        """
        if not self.processes.agree(self.step):
            raise InputError(
                f"the processes resumed from different steps: {self.folder} must be one folder that all machines share"
            )
        tune_process(self.processes.device)
        end = None if minutes is None else time.monotonic() + 60 * minutes
        total = self.recipe.run.steps
        with TrainingLog(self.folder, total, self.step, self.processes.leads) as journal, _Signals(self):
            journal.note(event="start", step=self.step, **{k: str(v) for k, v in self.recipe.flat()})
            # Closed here, so that its workers end with it, whatever happens.
            with closing(self._batches(total)) as batches:
                self._loop(journal, batches, total, end)
            self._save(journal, final=True)
            weights = self._export() if self.step >= total else None
            journal.note(event="finished" if weights else "stopped", step=self.step)
            journal.say(f"finished: {weights}" if weights else f"stopped at step {self.step}; run the same command to go on")
        self.processes.wait()
        return TrainingResult(self.step, self.step >= total, weights)

    def stop(self) -> None:
        """Ask for a checkpoint and an end after the step under way."""
        self._stop = True

    def _loop(self, journal: TrainingLog, batches: Iterator[Batch], total: int, end: float | None) -> None:
        run = self.recipe.run
        timing = StepTiming()
        timing.restart()
        while self.step < total:
            picture = run.picture_every > 0 and self.step % run.picture_every == 0
            values, last, predicted = self._one(batches, timing, picture)
            self.step += 1
            timing.steps += 1
            logged = self.step % run.log_every == 0 or self.step == total
            report = self._report(values, timing) if logged else None
            journal.step(self.step, report)
            if report is not None:
                self._tell_waiting(journal, report)
                timing.restart()
            if picture and predicted is not None:
                journal.picture(self.step, last, predicted)
            if values["stop"] > 0:
                return
            if self.step % run.save_every == 0 and self.step < total:
                self._save(journal)
            if end is not None and time.monotonic() > end:
                self._stop = True

    def _batches(self, total: int) -> Generator[Batch]:
        run = self.recipe.run
        prepared = loader(
            self.clips,
            self.shares,
            self.step,
            total,
            seed=run.seed,
            max_objects=self.recipe.data.max_objects,
            workers=run.workers,
            pin=self.processes.device.type == "cuda",
        )
        try:
            for batch in prepared:
                if isinstance(batch, VOSError):
                    raise batch
                yield batch
        finally:
            del prepared  # and with it its workers, even if an error's traceback keeps this frame

    def _one(
        self, batches: Iterator[Batch], timing: StepTiming, picture: bool
    ) -> tuple[dict[str, float], Batch, Tensor | None]:
        """One optimizer step; returns what is to be logged, the last batch and its predictions."""
        run, optim, device = self.recipe.run, self.recipe.optim, self.processes.device
        self._enter_phase()
        rate = set_rate(self.optimizer, optim, self.step, run.steps)
        self.optimizer.zero_grad(set_to_none=True)
        terms = torch.zeros(len(self._terms), device=device)
        predicted = None
        used = []
        parts = self.shares.accumulate
        for part in range(parts):
            asked = time.perf_counter()
            host = next(batches)
            timing.waited += time.perf_counter() - asked
            batch = host.to(device)
            used.append(host)
            torch.manual_seed(torch_seed(run.seed, 4, self.step, part, self.processes.rank))
            waits = self.processes.without_sync(self._engine) if part < parts - 1 else nullcontext()
            with waits:
                with torch.autocast(device.type, _DTYPES[self.precision], enabled=self.precision != "fp32"):
                    rolled = self._engine(batch, self.step, picture)
                self.scaler.scale(rolled.loss / parts).backward()
            terms += rolled.terms / parts
            predicted = rolled.labels
        norm = self._update(used)
        stop = torch.tensor([float(self._stop)], device=device)
        means = self.processes.mean(torch.cat([terms, stop])).tolist()
        values = dict(zip((*self._terms, "stop"), means, strict=True))
        return {**values, "gradient_norm": norm, "lr": rate}, used[-1], predicted

    def _update(self, used: list[Batch]) -> float:
        """Clip, check and apply the gradients."""
        optim = self.recipe.optim
        self.scaler.unscale_(self.optimizer)
        parameters = [p for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None]
        norm = float(nn.utils.clip_grad_norm_(parameters, optim.clip if optim.clip is not None else float("inf")))
        # The scaler of fp16 skips such steps and scales down; only if that does not help the loss itself is at fault.
        hopeless = not self.scaler.is_enabled() or self.scaler.get_scale() < 2**-10
        if not math.isfinite(norm) and hopeless:
            self._fail(used, norm)  # gradients are the same in every process, so all of them stop here
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.average is not None:
            self.average.update()
        return norm

    def _fail(self, used: list[Batch], norm: float) -> None:
        path = self.folder / f"bad-batch-step{self.step}-rank{self.processes.rank}.safetensors"
        fields = used[0]._fields
        save_tensors(path, {name: torch.cat([getattr(b, name) for b in used]).cpu() for name in fields}, {})
        raise TrainingError(
            f"step {self.step}: the gradient's norm is {norm}, so the loss is not finite. The batch is saved in {path}. Lower"
            " optim.lr, use run.precision=fp32, or look at the batch; the newest checkpoint is from before"
        )

    def _enter_phase(self) -> None:
        """Once the memory gets the model's own masks, some parameters rest (AOT: the identities)."""
        settings = self.recipe.rollout
        begin = settings.own_masks_from
        if not settings.freeze_own_masks or begin is None or self.step < begin or self._resting is not None:
            return
        # Other systems than the recipe's own may have none of them.
        frozen = set(freeze(self.model, settings.freeze_own_masks, strict=False))
        self._resting = [p for name, p in self.model.named_parameters() if name in frozen]

    def _report(self, values: dict[str, float], timing: StepTiming) -> dict[str, float]:
        seconds = max(1e-9, time.perf_counter() - timing.begun)
        report = {name: value for name, value in values.items() if name != "stop"}
        report["seconds"] = seconds / timing.steps
        report["clips_per_second"] = self.recipe.run.batch * timing.steps / seconds
        report["data_wait"] = timing.waited / seconds
        if isinstance(self.model, VOSModel):  # and not the network of clicks
            report |= self.model.training_report()
        if self.processes.device.type == "cuda":
            report["gpu_gib"] = gpu_memory_gib(self.processes.device)
        return report

    def _tell_waiting(self, journal: TrainingLog, report: dict[str, float]) -> None:
        """Say once that a GPU stands still for want of clips: one process makes 20 or 30 a second, a GPU may take a hundred."""
        if self._told_waiting or self.processes.device.type == "cpu" or report["data_wait"] < 0.25:
            return
        self._told_waiting = True
        journal.say(
            f"waiting for clips takes {report['data_wait']:.0%} of the time: let more processes prepare them, e.g."
            f" --set run.workers={max(2, (os.cpu_count() or 2) // self.processes.world - 1)} (now {self.recipe.run.workers})"
        )

    def _save(self, journal: TrainingLog, final: bool = False) -> None:
        """Write a checkpoint; while the run can go on, a full disk is only a warning."""
        if not self.processes.leads:
            return
        parts = {"model": self.model.state_dict(), "optimizer": optimizer_tensors(self.optimizer)}
        state: dict[str, Any] = {
            "world": self.processes.world,
            "settings": {key: repr(value) for key, value in self.recipe.flat()},
        }
        if self.average is not None:
            parts["average"] = self.average.state(self.model)
            state["updates"] = self.average.updates
        if self.scaler.is_enabled():
            state["scaler"] = self.scaler.state_dict()
        run = self.recipe.run
        try:
            checkpoints.save(
                self.folder / "checkpoints", checkpoints.Checkpoint(self.step, parts, state), run.keep, run.shard_mib
            )
        except OutputError as error:
            if final:
                raise
            journal.say(f"warning: {error}; going on, next attempt at the next checkpoint")
            journal.note(event="checkpoint failed", step=self.step, reason=str(error))

    def _export(self) -> Path:
        """Write the final weights: `weights.safetensors` (the average where there is one) and `weights-live.safetensors`."""
        best = self.folder / "weights.safetensors"
        if not self.processes.leads:
            return best
        about = {"recipe": self.recipe.name, "steps": str(self.step), "seed": str(self.recipe.run.seed)}
        if self.average is None:
            return self._task.save(self.model, self.recipe, best, about)
        live = self.folder / "weights-live.safetensors"
        self._task.save(self.model, self.recipe, live, about)
        with self.average.in_place(self.model):
            return self._task.save(self.model, self.recipe, best, {**about, "average": "yes"})


class _Signals:
    """While inside, SIGTERM and the first Ctrl-C make the trainer stop after the step under way."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self._before: dict[int, Any] = {}

    def __enter__(self) -> None:
        try:
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._handle)
        except ValueError:
            # Not the main thread: whoever started it calls `stop`.
            self._before = {}

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _: FrameType | None) -> None:
        self._trainer.stop()
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)
