"""Trainings of the default recipe that differ in one thing, each for the same time on one core, and what each then scores.

    vosformer data compose multi --kind natural --clips 3 --frames 24 --seed 7 --assets DATA DATA/stills
    python benchmarks/equal_time.py DATA DATA/stills --davis DATA/DAVIS --clips multi --encoders DATA/encoder --minutes 60 -o out

Every arm begins at the ImageNet encoder and sees the same sources (`_SOURCES`), with the rates of `default-static`. A few steps tell
how long one takes; the number of steps follows from that, and all schedules are stretched to it. Run again, it goes on where it was
stopped; with `--only` arms can be given to several processes, one a core, that share `-o`. Seeds are fixed: another one moves a
short training by some points, so small differences say nothing.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

from vosformer.io.files import write_json

_SOURCES = "videos:40:8,stills:10:5,groups:20:5,crowds:30:7"
_MOBILENET, _LITE = "mobilenet_v2_imagenet_folded.safetensors", "efficientnet_lite1_imagenet.safetensors"
_PROBE = 8  # steps that tell how long one takes; the first three are left out
_SMOOTH = 40  # steps that a learning curve is the mean of
_EVALUATION = {"davis": ("davis2016-val", "2016/dev"), "clips": ("davis2017-val", "2017/val")}


class Arm(NamedTuple):
    """One training of the comparison.

    Attributes:
        what: in which it differs from the first.
        variant: of the model.
        encoder: file of the ImageNet weights.
        crop: side of the crops, pixels.
        freeze_at: stages of the encoder at rest.
        options: of the system besides (`--option`).
        settings: of the recipe (`--set`).
        memory: policy of the evaluation.
        static: share of the time that goes to `default-static` on pictures alone before.
    """

    what: str
    variant: str = "deaot-s"
    encoder: str = _MOBILENET
    crop: int = 209
    freeze_at: int = 1
    options: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    memory: str = "every-5"
    static: float = 0.0


ARMS = {
    "base": Arm("DeAOT-S, MobileNetV2, every 5th frame remembered, 209 px"),
    "lite": Arm("EfficientNet-Lite1", encoder=_LITE, options=("encoder=efficientnet_lite1",)),
    "crop": Arm("305 px", crop=305),
    "frozen": Arm("two stages of the encoder at rest, not one", freeze_at=2),
    "static": Arm("half of the time pictures alone", static=0.5),
    "aot": Arm("AOT-S", variant="aot-s"),
    "aost": Arm("AOST", variant="aost"),
    "given": Arm("the first frame alone remembered", settings=("rollout.gap=none",), memory="given-only"),
}


def _vosformer(*arguments: str | Path) -> None:
    subprocess.run([sys.executable, "-m", "vosformer", *map(str, arguments)], check=True)


def train(arm: Arm, out: Path, steps: int, given: argparse.Namespace, start: Path | None, pictures: bool) -> list[float]:
    """Run one training, or go on with it; return the seconds of each step that its log has."""
    sources = [] if pictures else [f"data.sources={_SOURCES}", "data.frames=4"]
    begin = ("--encoder", given.encoders / arm.encoder) if start is None else ("--from", start)
    _vosformer(
        "train", "default-static", "--data", *given.data, "--out", out, "--steps", str(steps), "--threads", "1", *begin,
        "--variant", arm.variant, "--option", f"freeze_at={arm.freeze_at}", *arm.options,
        "--set", f"data.crop={arm.crop}", *sources, *arm.settings, "run.log_every=1", "run.picture_every=0",
    )  # fmt: skip
    if not (out / "weights.safetensors").exists():  # a training that is stopped saves a checkpoint, and is no failure
        raise SystemExit(f"{out}: stopped; run this again to go on")
    return logged(out, "seconds")


def logged(out: Path, value: str) -> list[float]:
    """Return a value of every step that a training's log has; nothing where there is no log."""
    log = out / "log.jsonl"
    rows = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    return [row[value] for row in rows if value in row]


def stage(arm: Arm, out: Path, minutes: float, given: argparse.Namespace, start: Path | None, pictures: bool) -> int:
    """Train for so many minutes; return the number of steps."""
    plan = out.with_suffix(".json")
    if not plan.exists():
        probe = out.with_name(f"{out.name}-probe")
        seconds = train(arm, probe, _PROBE, given, start, pictures)[3:]
        shutil.rmtree(probe)
        write_json(plan, {"seconds": statistics.median(seconds), "minutes": minutes})
    planned: float = json.loads(plan.read_text())["seconds"]
    steps = max(1, round(60 * minutes / planned))
    train(arm, out, steps, given, start, pictures)
    return steps


def scores(arm: Arm, weights: Path, out: Path, given: argparse.Namespace) -> dict[str, float]:
    """Return J&F on the DAVIS clips and on the composed ones, in percent."""
    found = {}
    for name, (benchmark, split) in _EVALUATION.items():
        to = out / name
        if not (to / "scores.json").exists():
            _vosformer(
                "benchmark", benchmark, getattr(given, name), "--split", split, "-o", to, "--model", arm.variant, "--weights",
                weights, "--memory", arm.memory, "--size", "480", "--dtype", "fp32", "--threads", "1", "--resume",
            )  # fmt: skip
        found[name] = 100 * json.loads((to / "scores.json").read_text())["score"]
    return found


def run(name: str, given: argparse.Namespace) -> None:
    """Train and score one arm, unless its result is there."""
    arm, folder = ARMS[name], given.out / name
    result = folder / "result.json"
    if result.exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    start, steps = None, []
    if arm.static:
        steps.append(stage(arm, folder / "static", given.minutes * arm.static, given, None, True))
        start = folder / "static"
    steps.append(stage(arm, folder / "video", given.minutes * (1 - arm.static), given, start, False))
    write_json(result, {"steps": steps, **scores(arm, folder / "video" / "weights.safetensors", folder, given)})


def table(given: argparse.Namespace) -> Table:
    """Return what is measured so far."""
    made = Table(title=f"{given.minutes:g} minutes of one core each")
    for column in ("arm", "steps of 4 clips", "DAVIS, J&F", "composed, J&F"):
        made.add_column(column)
    for name, arm in ARMS.items():
        path = given.out / name / "result.json"
        if path.exists():
            found = json.loads(path.read_text())
            made.add_row(arm.what, " + ".join(map(str, found["steps"])), f"{found['davis']:.1f}", f"{found['clips']:.1f}")
    return made


def draw(given: argparse.Namespace, path: Path) -> None:
    """Write a picture: the soft Jaccard loss of every arm that has run, over its minutes (needs matplotlib)."""
    from matplotlib.figure import Figure

    figure = Figure((6.5, 3.6), layout="constrained")
    axes = figure.subplots()
    for name in ARMS:
        if (given.out / name / "result.json").exists():
            losses = [loss for part in ("static", "video") for loss in logged(given.out / name / part, "jaccard")]
            mean = np.convolve(losses, np.ones(_SMOOTH) / _SMOOTH, "valid")
            axes.plot(given.minutes * (np.arange(len(mean)) + _SMOOTH) / len(losses), mean, label=name)
    axes.set(xlabel="minutes of one core", ylabel=f"soft Jaccard loss, mean of {_SMOOTH} steps")
    axes.legend(ncols=2, fontsize="small")
    figure.savefig(path, dpi=100)


def main() -> None:
    """Run the arms that are asked for, and print the table of all that have run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="+", help="folders of training data")
    parser.add_argument("--davis", type=Path, required=True, help="DAVIS with the split 2016/dev")
    parser.add_argument("--clips", type=Path, required=True, help="composed clips, in the layout of DAVIS 2017")
    parser.add_argument("--encoders", type=Path, required=True, help="folder of the two files of ImageNet weights")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--only", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--plot", type=Path, help="picture (PNG) of the learning curves")
    given = parser.parse_args()
    for name in given.only:
        run(name, given)
    Console().print(table(given))
    if given.plot:
        draw(given, given.plot)


if __name__ == "__main__":
    main()
