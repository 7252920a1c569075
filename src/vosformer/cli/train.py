"""`vosformer train`: a recipe, data, and what to change of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import tyro
from rich.table import Table
from rich.text import Text
from torch import nn

from vosformer.cli.terminal import messages, results, show_table
from vosformer.errors import InputError
from vosformer.options import from_words
from vosformer.train.data import PROCEDURAL
from vosformer.train.distributed import Processes, join, precision, shares
from vosformer.train.overrides import with_settings
from vosformer.train.recipe import Recipe, checked
from vosformer.train.recipes import recipe as find_recipe
from vosformer.train.tasks import task_of
from vosformer.train.trainer import Trainer


def train(
    recipe: Annotated[str, tyro.conf.Positional],
    data: tuple[str, ...] = (PROCEDURAL,),
    out: Path | None = None,
    set: tuple[str, ...] = (),
    option: tuple[str, ...] = (),
    steps: int | None = None,
    variant: str | None = None,
    encoder: Path | None = None,
    from_: Annotated[Path | None, tyro.conf.arg(name="from")] = None,
    minutes: float | None = None,
    device: str | None = None,
    threads: int | None = None,
    dry_run: bool = False,
) -> int:
    """Train a system with a recipe. Run the same command again to go on after an interruption.

    Several processes or GPUs: `torchrun --nproc-per-node 4 -m vosformer.cli.train RECIPE ...`.

    Args:
        recipe: its name, e.g. deaot-pre; see docs/training.md.
        data: folders that hold the data sets, or "composed" for composed video that needs no files (on a CPU: small clips).
        out: folder of checkpoints, logs and weights (default: runs/RECIPE-VARIANT).
        set: changes of single settings, e.g. optim.lr=1e-4 data.frames=3; --dry-run shows all of them.
        option: options of the system, e.g. size=vit-b prototypes=16,16; they are kept in the weights file.
        steps: train for so many steps; all schedules are stretched or shrunk with it.
        variant: train another variant than the recipe's.
        encoder: file of pretrained encoder weights (ImageNet, MAE or ConvMAE), safetensors or .pth.
        from_: begin with these weights (a file, a run's folder or a checkpoint).
        minutes: stop with a checkpoint after so many minutes.
        device: cpu, cuda, cuda:N or mps (default: the best there is).
        threads: CPU threads (default: PyTorch's choice).
        dry_run: print the whole plan and stop.

    Returns:
        0: finished, or stopped with a checkpoint.
    """
    processes = join(device)
    try:
        chosen = _chosen(recipe, steps, variant, encoder)
        if data == (PROCEDURAL,) and processes.device.type == "cpu":
            chosen = _small(chosen, processes.leads)
        chosen = _with_options(checked(with_settings(chosen, set)), option)
        task = task_of(chosen)
        chosen, start = task.resolve(chosen, from_)
        if encoder is not None and start is not None:
            raise InputError(
                f"--encoder was given, but {chosen.name} begins with {start}: whole weights have an encoder of their own"
            )
        model = task.build(chosen, start)
        chosen, asked = task.fit(chosen, model), chosen
        if processes.leads:
            _note(chosen, asked, start, model)
            _tell_data(chosen, data)
        folder = out or Path("runs") / f"{chosen.name}-{chosen.model.variant}"
        if dry_run:
            _show(chosen, folder, data, processes, start, model)
        else:
            _train(chosen, folder, data, processes, model, minutes, threads)
    finally:
        processes.close()
    return 0


def _with_options(recipe: Recipe, words: tuple[str, ...]) -> Recipe:
    options = {**dict(recipe.model.options), **from_words(words, "--option")}
    return replace(recipe, model=replace(recipe.model, options=tuple(options.items())))


def _chosen(name: str, steps: int | None, variant: str | None, encoder: Path | None) -> Recipe:
    chosen = find_recipe(name)
    if variant is not None:
        chosen = replace(chosen, model=replace(chosen.model, variant=variant))
    if encoder is not None:
        chosen = replace(chosen, model=replace(chosen.model, encoder=str(encoder)))
    return chosen.shortened(steps)


def _small(recipe: Recipe, tell: bool) -> Recipe:
    """Composed video on a CPU is for trying things out: small clips, few at a time. What the user sets himself wins."""
    data, run = recipe.data, recipe.run
    crop, frames, batch = min(data.crop, 208 + data.crop % 16), min(data.frames, 4), min(run.batch, 4)
    if tell and (crop, frames, batch) != (data.crop, data.frames, run.batch):
        messages().print(
            f"composed video on a CPU: unless --set says otherwise, {batch} clips of {frames} frames at {crop} x {crop} a step; the"
            f" recipe's own size is data.crop={data.crop} data.frames={data.frames} run.batch={run.batch}",
        )
    return replace(
        recipe, data=replace(data, crop=crop, frames=frames), run=replace(run, batch=batch, accumulate=0, checkpointing=False)
    )


def _note(recipe: Recipe, asked: Recipe, start: Path | None, model: nn.Module) -> None:
    """Tell what a run begins with and sees, where that is not what its recipe says."""
    console = messages()
    if recipe.data.size != asked.data.size:
        console.print(f"crops of {recipe.data.size}, not {asked.data.size}: {recipe.model.variant} takes no others")
    if start is not None:
        return
    begun = "" if recipe.model.start is None else f"goes on from {recipe.model.start}, but no weights were given with --from"
    if recipe.model.encoder is None:
        resting = any(not parameter.requires_grad for parameter in model.parameters())
        begun = begun or "wants a pretrained encoder, but none was given with --encoder"
        begun += ": it begins with random weights" + (", some of which are never trained" if resting else "")
    if begun:
        console.print(f"{recipe.name} {begun}")


def _tell_data(recipe: Recipe, roots: tuple[str, ...]) -> None:
    """Tell where the clips are not those of the recipe."""
    replaced = [source.kind for source in recipe.data.sources if source.kind != PROCEDURAL]
    if replaced and roots == (PROCEDURAL,):
        messages().print(f"composed video instead of {', '.join(replaced)}: give the folders of these data sets with --data")


def _train(
    recipe: Recipe,
    folder: Path,
    data: tuple[str, ...],
    processes: Processes,
    model: nn.Module,
    minutes: float | None,
    threads: int | None,
) -> None:
    import torch

    if threads is not None:
        if threads < 1:
            raise InputError(f"--threads {threads}: at least 1 is needed")
        torch.set_num_threads(threads)
    clips = task_of(recipe).data(recipe, data)
    trainer = Trainer(model, recipe, clips, folder, processes)
    if trainer.resume() and processes.leads:
        messages().print(f"going on from step {trainer.step} of {folder}")
    trainer.run(minutes)


def _show(
    recipe: Recipe, folder: Path, data: tuple[str, ...], processes: Processes, start: Path | None, model: nn.Module
) -> None:
    """Print every setting, the parameter groups and the shares of each process."""
    from vosformer.train.optim import freeze, groups

    console = results()
    console.print(Text.assemble((recipe.name, "bold"), f": {recipe.paper}"))
    table = Table(show_header=False, box=None)
    for key, value in recipe.flat():
        if key not in ("name", "paper"):
            table.add_row(key, str(value))
    show_table(table)
    frozen = freeze(model, recipe.model.freeze)
    mine = shares(recipe, processes)
    console.print(f"data: {', '.join(data)}    out: {folder}    from: {start or recipe.model.encoder or 'fresh weights'}")
    console.print(
        f"{processes.world} process(es) on {processes.device}: {mine.part} clips x {mine.accumulate} part(s) each in"
        f" {precision(recipe, processes.device)};"
        f" {recipe.run.steps} steps = {recipe.run.steps * recipe.run.batch} clips of {recipe.data.frames} frames",
    )
    for group in groups(model, recipe.optim):
        number = sum(p.numel() for p in group["params"])
        rate = recipe.optim.lr_min + group["scale"] * (recipe.optim.lr - recipe.optim.lr_min)
        console.print(f"  {number:>11,} parameters: lr up to {rate:.3g}, weight decay {group['weight_decay']:g}")
    resting = sum(p.numel() for p in model.parameters() if not p.requires_grad)
    console.print(f"  {resting:>11,} parameters not trained ({len(frozen)} tensors named by model.freeze)")


if __name__ == "__main__":
    import sys

    from vosformer.cli import main

    sys.exit(main(["train", *sys.argv[1:]]))
