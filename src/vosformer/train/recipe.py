"""A training recipe as data: what one stage of a paper's training is, and how a user changes a single number of it.

Schedules are given in steps of the recipe's own `run.steps`. `Recipe.scaled` stretches all of them together, so that a run of 50
steps goes through every phase of a run of 100,000.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from vosformer.errors import InputError

Feedback = Literal["hard", "soft"]
Memories = Literal["policy", "random"]


@dataclass(frozen=True)
class DataSource:
    """One data set of a recipe.

    Attributes:
        kind: name of a data set ("davis2017", "youtube2019", "coco", ...), or "videos", "stills", "groups", "crowds", "composed" for
            clips that are composed of whatever the folders hold.
        repeat: how many times the set counts in the plain concatenation of all sets; of composed clips: the weight.
        gap_max: the largest distance between two sampled frames, in labeled frames of this set.
        gap_divisor: what a gap curriculum is divided by for this set (sets with 6 labeled frames a second, not 24).
    """

    kind: str
    repeat: int = 1
    gap_max: int = 1
    gap_divisor: int = 1


@dataclass(frozen=True)
class Model:
    """What is trained.

    Attributes:
        variant: name of the variant.
        options: keyword arguments of its builder (ablations), e.g. (("drop_path", 0.1),).
        encoder: a file of pretrained encoder weights (None: fresh ones).
        start: weights that the stage begins with; in recipes the name of the stage before or of packaged weights, for the user to
            give with `--from`.
        may_miss: regular expressions of tensors that those weights may lack: they begin fresh.
        deepen: those weights may be of a variant with fewer layers: see `vosformer.weights.combining.deepened`.
        freeze: regular expressions; parameters whose names match one are never trained.
    """

    variant: str = "deaot-t"
    options: tuple[tuple[str, Any], ...] = ()
    encoder: str | None = None
    start: str | None = None
    may_miss: tuple[str, ...] = ()
    deepen: bool = False
    freeze: tuple[str, ...] = ()


@dataclass(frozen=True)
class Data:
    """What it is trained on, and how clips are cut from it.

    Attributes:
        sources: the sets, concatenated.
        frames: T, frames of a clip.
        crop: side of the square crop in pixels.
        width: of the crop, where it is not square (None); "composed" alone.
        window: (smallest, largest) side of the crop before it is resized, as share of what fits into a frame; "composed" alone.
        pipeline: whose augmentation and frame sampling.
        reverse: probability that time runs backwards.
        merge: probability that a second clip is pasted on the first.
        max_objects: objects kept in a clip.
        ignored: a clip with a larger share of ignored pixels (255) in one of its frames is drawn again (VOST).
        gap_curriculum: (step, gap) pairs from which on another largest gap holds (JointFormer); empty: the sources' own.
        plain_from: step from which frames are no longer rotated and sheared (JointFormer's last steps); None: never.
    """

    sources: tuple[DataSource, ...] = (DataSource("composed", gap_max=5),)
    frames: int = 5
    crop: int = 465
    width: int | None = None
    window: tuple[float, float] = (0.45, 1.0)
    pipeline: Literal["composed", "aot", "deaot", "simvos", "jointformer", "jointformer-bl30k", "onevos"] = "composed"
    reverse: float = 0.5
    merge: float = 0.0
    max_objects: int = 10
    ignored: float = 1.0
    gap_curriculum: tuple[tuple[int, int], ...] = ()
    plain_from: int | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the crop, pixels."""
        return self.crop, self.width or self.crop


@dataclass(frozen=True)
class Optim:
    """How weights move.

    Attributes:
        algorithm: "adamw", or "adam" (weight decay as part of the gradient).
        lr: the highest learning rate.
        lr_min: where warm-up begins and polynomial decay ends.
        lr_scales: (regular expression, factor): matches have the rate lr_min + factor * (rate - lr_min); the first match wins.
        lr_times: (regular expression, times): matches have that rate so many times, but at most the full one (OneVOS).
        weight_decay: of all parameters that `no_decay` does not name.
        no_decay: regular expressions of parameters without weight decay.
        no_decay_1d: biases and norms (at most one dimension) have no weight decay either.
        schedule: "poly" (`power`) or "step" (times `step_factor` at each of `step_at`).
        power: of the polynomial decay.
        step_at: steps at which the rate falls.
        step_factor: what it is multiplied with there.
        warmup: steps of linear warm-up.
        clip: largest total norm of the gradient (None: not clipped).
        ema: decay of the moving average of the weights (None: no average).
        betas: of Adam.
    """

    algorithm: Literal["adamw", "adam"] = "adamw"
    lr: float = 4e-4
    lr_min: float = 2e-5
    lr_scales: tuple[tuple[str, float], ...] = ()
    lr_times: tuple[tuple[str, float], ...] = ()
    weight_decay: float = 0.03
    no_decay: tuple[str, ...] = ()
    no_decay_1d: bool = True
    schedule: Literal["poly", "step"] = "poly"
    power: float = 0.9
    step_at: tuple[int, ...] = ()
    step_factor: float = 0.1
    warmup: int = 0
    clip: float | None = 5.0
    ema: float | None = 0.9999
    betas: tuple[float, float] = (0.9, 0.999)


@dataclass(frozen=True)
class Loss:
    """What is minimized.

    Attributes:
        ce: weight of the bootstrapped cross-entropy.
        jaccard: weight of the soft Jaccard loss.
        dice: weight of the dice loss.
        top_share: share of the pixels (those with the highest loss) that the cross-entropy keeps in the end.
        top_from: step until which all pixels are kept.
        top_until: step from which only `top_share` is; linear in between.
        frames: "mean" or "sum" over the predicted frames.
        auxiliary: weight of the loss on the reference frame's own decoding at the first step.
        auxiliary_until: step at which that weight has fallen to 0 (linearly).
        alpha: AOST: the loss of depth n + 1 weighs this many times that of depth n; infinity = only the deepest.
    """

    ce: float = 0.5
    jaccard: float = 0.5
    dice: float = 0.0
    top_share: float = 0.15
    top_from: int = 0
    top_until: int = 50_000
    frames: Literal["mean", "sum"] = "mean"
    auxiliary: float = 0.0
    auxiliary_until: int = 0
    alpha: float = 2.0


@dataclass(frozen=True)
class Rollout:
    """How a clip is gone through.

    Attributes:
        own_masks_from: step from which the memory gets the model's own masks instead of the truth (None: never).
        feedback: what the own masks are: "hard" labels, or "soft" probabilities that gradients flow through (None: the model's way).
        memory: "policy": the model's memory policy; "random": the first frame and `references` - 1 random earlier ones (JointFormer).
        gap: frames between two long-term memories in training (None: as the model's policy has it).
        references: see `memory`.
        update_probability: share of the frames whose memory is written with the recurrent token (JointFormer's Update(2)).
        permute: objects take random channels of their slot in each clip.
        freeze_own_masks: regular expressions of parameters that rest once the model's own masks are used (AOT: the identities).
    """

    own_masks_from: int | None = 50_000
    feedback: Feedback | None = None
    memory: Memories = "policy"
    gap: int | None = None
    references: int = 2
    update_probability: float = 1.0
    permute: bool = True
    freeze_own_masks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Clicks:
    """How the user of an interactive training is simulated; of recipes with task "clicks" alone.

    Attributes:
        prompts: probabilities of what is said first: a click, a box, clicks on a damaged mask, several clicks, scribbles.
        rounds: probabilities of 0, 1, 2, ... further clicks on the network's own errors before the prediction that it learns from.
        exact: probability that a click is exactly in the middle of the largest error, not only well inside it.
        focal: weight of the normalized focal loss.
        jaccard: weight of the soft Jaccard loss.
        focal_gamma: of the focal weights.
        iou: weight of the squared error of the predicted IoU.
    """

    prompts: tuple[float, float, float, float, float] = (0.5, 0.2, 0.15, 0.1, 0.05)
    rounds: tuple[float, ...] = (0.45, 0.25, 0.2, 0.1)
    exact: float = 0.5
    focal: float = 1.0
    jaccard: float = 0.5
    focal_gamma: float = 2.0
    iou: float = 1.0


@dataclass(frozen=True)
class Run:
    """How it is computed.

    Attributes:
        steps: optimizer steps.
        batch: clips of one step, over all processes and accumulated parts together.
        accumulate: parts that a process computes one after the other for one step; 0: on a CPU as many as keep memory small.
        precision: of the forward and backward pass, weights stay fp32; "amp" is fp16 on CUDA, and bf16 where the CPU has it.
        seed: everything random follows from it and from the step.
        checkpointing: recompute activations in the backward pass to save memory.
        channels_last: convolutions in that memory layout.
        compile: `torch.compile` the encoder.
        workers: processes that prepare clips (0: none, in the training process itself).
        save_every: steps between two checkpoints.
        keep: newest checkpoints that stay.
        shard_mib: largest file of a checkpoint in MiB (None: one file each).
        log_every: steps between two lines of the log.
        picture_every: steps between two picture strips (0: none).
    """

    steps: int = 100_000
    batch: int = 16
    accumulate: int = 0
    precision: Literal["amp", "fp32", "bf16", "fp16"] = "amp"
    seed: int = 0
    checkpointing: bool = False
    channels_last: bool = True
    compile: bool = False
    workers: int = 1
    save_every: int = 1000
    keep: int = 3
    shard_mib: int | None = None
    log_every: int = 10
    picture_every: int = 500


@dataclass(frozen=True)
class Recipe:
    """One stage of training. `paper` says where its numbers come from, `task` what is learned (see `vosformer.train.tasks`)."""

    name: str
    paper: str
    model: Model = field(default_factory=Model)
    data: Data = field(default_factory=Data)
    optim: Optim = field(default_factory=Optim)
    loss: Loss = field(default_factory=Loss)
    rollout: Rollout = field(default_factory=Rollout)
    run: Run = field(default_factory=Run)
    task: Literal["video", "clicks"] = "video"
    clicks: Clicks = field(default_factory=Clicks)

    def scaled(self, steps: int) -> Recipe:
        """Return the same recipe over another number of steps: every schedule is stretched with it.

        Raises:
            InputError: fewer than one step.
        """
        if steps < 1:
            raise InputError(f"a run needs at least 1 step, not {steps}")
        ratio = steps / self.run.steps

        def at(step: int) -> int:
            return round(step * ratio)

        ema = self.optim.ema
        return replace(
            self,
            data=replace(
                self.data,
                gap_curriculum=tuple((at(s), gap) for s, gap in self.data.gap_curriculum),
                plain_from=None if self.data.plain_from is None else at(self.data.plain_from),
            ),
            optim=replace(
                self.optim,
                warmup=at(self.optim.warmup),
                step_at=tuple(at(s) for s in self.optim.step_at),
                # The average looks back over a share of the run: 1 - 1 / (0.1 * steps) in AOT.
                ema=None if ema is None else max(0.0, 1 - min(1.0, (1 - ema) / ratio)),
            ),
            loss=replace(
                self.loss,
                top_from=at(self.loss.top_from),
                top_until=at(self.loss.top_until),
                auxiliary_until=at(self.loss.auxiliary_until),
            ),
            rollout=replace(
                self.rollout,
                own_masks_from=None if self.rollout.own_masks_from is None else at(self.rollout.own_masks_from),
            ),
            run=replace(self.run, steps=steps),
        )

    def shortened(self, steps: int | None) -> Recipe:
        """`scaled`, with checkpoints and pictures often enough for a short run; None: as it is."""
        if steps is None or steps == self.run.steps:
            return self
        short = self.scaled(steps)
        run = short.run
        return replace(
            short,
            run=replace(
                run,
                save_every=max(1, min(run.save_every, steps // 2)),
                log_every=max(1, min(run.log_every, steps // 5)),
                picture_every=max(1, min(run.picture_every, steps // 2)) if run.picture_every else 0,
            ),
        )

    def flat(self) -> Iterator[tuple[str, Any]]:
        """Return (dotted key, value) of every setting, in order."""
        return _flat(self, "")


def _flat(part: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    for entry in dataclasses.fields(part):
        value = getattr(part, entry.name)
        if dataclasses.is_dataclass(value):
            yield from _flat(value, f"{prefix}{entry.name}.")
        else:
            yield f"{prefix}{entry.name}", value


_AT_LEAST = {
    "data.frames": 1,
    "data.crop": 16,
    "data.width": 16,
    "data.max_objects": 1,
    "rollout.gap": 1,
    "rollout.references": 1,
    "run.steps": 1,
    "run.batch": 1,
    "run.accumulate": 0,
    "run.seed": 0,
    "run.workers": 0,
    "run.save_every": 1,
    "run.keep": 0,
    "run.shard_mib": 1,
    "run.log_every": 1,
    "run.picture_every": 0,
    "optim.warmup": 0,
    "optim.lr": 0.0,
    "optim.lr_min": 0.0,
    "optim.weight_decay": 0.0,
    "optim.clip": 0.0,
}
_SHARES = ("data.reverse", "data.merge", "data.ignored", "optim.ema", "loss.top_share", "rollout.update_probability")
_POSITIVE = ("optim.lr", "optim.clip", "loss.top_share")


def checked(recipe: Recipe) -> Recipe:
    """Return the recipe itself.

    Raises:
        InputError: a number out of its range, numbers that contradict each other, or a pattern that is no regular expression; the
            message names the setting.
    """
    values = dict(recipe.flat())
    for key, least in _AT_LEAST.items():
        value = values[key]
        if value is not None and not (math.isfinite(value) and value >= least):
            raise InputError(f"{key} is {value}, expected at least {least}")
    for key in _SHARES:
        if values[key] is not None and not 0 <= values[key] <= 1:
            raise InputError(f"{key} is {values[key]}, expected 0 to 1")
    for key in _POSITIVE:
        if values[key] == 0:
            raise InputError(f"{key} is 0, expected a number above 0")
    if recipe.data.frames < 2 and recipe.task == "video":
        raise InputError(f"data.frames is {recipe.data.frames}, expected at least 2: following objects is learned from clips")
    low, high = recipe.data.window
    if not 0 < low <= high <= 1:
        raise InputError(f"data.window is {recipe.data.window}, expected (smallest, largest) above 0 and up to 1")
    curriculum = recipe.data.gap_curriculum
    if curriculum and curriculum[0][0] != 0:
        raise InputError(f"data.gap_curriculum begins at step {curriculum[0][0]}, expected a gap from step 0 on, e.g. 0:5")
    _check_optim(recipe)
    for key, patterns in _patterns(recipe):
        for pattern in patterns:
            try:
                re.compile(pattern)
            except re.error as error:
                raise InputError(f"{key}: {pattern!r} is no regular expression: {error}") from None
    return recipe


def _check_optim(recipe: Recipe) -> None:
    optim = recipe.optim
    if optim.ema is not None and optim.ema >= 1:
        raise InputError(f"optim.ema is {optim.ema}, expected less than 1: the average would never change")
    if not all(0 <= beta < 1 for beta in optim.betas):
        raise InputError(f"optim.betas are {optim.betas}, expected two numbers from 0 to below 1")
    if optim.schedule == "poly" and optim.lr < optim.lr_min:
        raise InputError(
            f"optim.lr is {optim.lr:g}, less than optim.lr_min = {optim.lr_min:g}, so the rate would rise; lower optim.lr_min, too"
        )


def _patterns(recipe: Recipe) -> Iterable[tuple[str, Iterable[str]]]:
    return (
        ("model.freeze", recipe.model.freeze),
        ("model.may_miss", recipe.model.may_miss),
        ("optim.no_decay", recipe.optim.no_decay),
        ("optim.lr_scales", [pattern for pattern, _ in recipe.optim.lr_scales]),
        ("optim.lr_times", [pattern for pattern, _ in recipe.optim.lr_times]),
        ("rollout.freeze_own_masks", recipe.rollout.freeze_own_masks),
    )
