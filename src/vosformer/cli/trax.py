"""`vosformer trax`: a tracker for VOT's toolkit."""

from __future__ import annotations

import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import tyro

from vosformer.cli.session_options import SessionOptions
from vosformer.errors import InputError
from vosformer.evaluation.presets import find_preset
from vosformer.evaluation.trax_tracker import serve_trax, trackers_entry
from vosformer.io.files import output_errors


def trax(
    run: Annotated[SessionOptions, tyro.conf.arg(name="")] = SessionOptions(size="own", memory="preset", dtype="fp32"),
    entry: Path | None = None,
    name: str = "vosformer",
) -> int:
    """Track for VOT's toolkit, which starts this command and speaks TraX with it; or write the entry that lets it do so.

    Args:
        run: how the model runs. The memory "preset" is that of the system's paper.
        entry: add this command, with these options, to a workspace's trackers.ini, and track nothing.
        name: of the tracker in that entry.
    """
    run.prepare()
    if entry is not None:
        _add_entry(entry, name)
        return 0
    if run.memory == "preset":
        run = replace(run, memory=find_preset(run.variant.system, "own", "").memory)
    serve_trax(run.session(), run.read_options)
    return 0


def _add_entry(path: Path, name: str) -> None:
    words = sys.argv[sys.argv.index("trax") + 1 :]
    kept: list[str] = []
    skip = False
    for word in words:
        flag = word.split("=", 1)[0]
        if skip or flag in ("--entry", "--name"):
            skip = not skip and "=" not in word
            continue
        kept.append(str(Path(word).resolve()) if Path(word).is_file() else word)  # the toolkit starts it elsewhere
    text = trackers_entry(name, shlex.join([sys.executable, "-m", "vosformer", "trax", *kept]))
    with output_errors(path):
        former = path.read_text(encoding="utf-8") if path.is_file() else ""
        if f"[{name}]" in former.splitlines():
            raise InputError(f"{path} has a tracker {name} already; choose another --name")
        path.write_text(f"{former.rstrip()}\n\n{text}".lstrip(), encoding="utf-8")
    print(f"{path}: [{name}] is there; then: vot evaluate --workspace {path.parent} {name}")
