"""The command line: `vosformer COMMAND ...`. One small module a command; only the one that is called is imported."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import fields, is_dataclass
from importlib import import_module
from importlib.metadata import version
from inspect import signature
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import tyro
from rich.table import Table

from vosformer.cli.command_line import WORDS
from vosformer.cli.terminal import messages, results, show_error
from vosformer.errors import InputError, VOSError


class _Command(NamedTuple):
    module: str
    function: str
    summary: str

    def load(self) -> Callable[..., Any]:
        function: Callable[..., Any] = getattr(import_module(self.module), self.function)
        return function


COMMANDS = {
    "track": _Command("vosformer.cli.track", "track", "follow marked objects through a video: masks, overlay video, more"),
    "annotate": _Command("vosformer.cli.annotate", "annotate", "mark, follow, correct and export on a page in your browser"),
    "review": _Command("vosformer.cli.review", "review", "list the doubtful frames of a result, worst first"),
    "mark": _Command("vosformer.cli.mark", "mark", "clicks, boxes and polygons on a frame become masks to track"),
    "frame": _Command("vosformer.cli.frame", "frame", "write one frame of a video as a picture, to mark objects on"),
    "batch": _Command(
        "vosformer.cli.batch", "batch", "track many videos: a folder or a list, resumable, over several processes"
    ),
    "convert": _Command("vosformer.cli.convert", "convert", "turn masks from one annotation format into another"),
    "formats": _Command("vosformer.cli.convert", "formats", "list the annotation formats, and what each can hold"),
    "demo": _Command("vosformer.cli.demo", "demo", "make a clip with exact masks, track it, score it"),
    "serve": _Command("vosformer.cli.serve", "serve", "follow objects for other programs, over HTTP and WebSocket"),
    "label-studio": _Command(
        "vosformer.cli.label_studio", "label_studio", "a backend for Label Studio: boxes on a frame become boxes on all"
    ),
    "evaluate": _Command("vosformer.cli.evaluate", "evaluate", "score result masks against true ones: J, F, J&F"),
    "benchmark": _Command("vosformer.cli.benchmark", "benchmark", "run a model over a data set by its protocol, and score it"),
    "trax": _Command("vosformer.cli.trax", "trax", "a tracker that VOT's toolkit drives"),
    "train": _Command("vosformer.cli.train", "train", "train a system with its paper's recipe, or on your own clips"),
    "recipes": _Command("vosformer.cli.recipes", "recipes", "list every training recipe"),
    "data check": _Command("vosformer.cli.data", "check", "say what a data folder holds, and name every bad file"),
    "data compose": _Command("vosformer.cli.data", "compose", "render composed multi-object clips with exact masks"),
    "data vosw": _Command("vosformer.cli.data", "vosw", "turn VIPSeg into objects to follow, as VOSW's authors describe it"),
    "weights inspect": _Command("vosformer.cli.weights", "inspect", "what a weights file holds and which variants it fits"),
    "weights average": _Command("vosformer.cli.weights", "average", "the mean of several trainings of one variant"),
    "weights convert": _Command("vosformer.cli.weights", "convert", "turn an official checkpoint into safetensors"),
    "weights info": _Command("vosformer.cli.weights", "info", "recipe, data, terms and hash of the packaged weights"),
    "export": _Command("vosformer.cli.export", "export", "write a model with its memory as ONNX or torch.export graphs"),
    "inspect": _Command("vosformer.cli.inspect", "inspect", "plot what a model looks at, layer by layer"),
    "variants": _Command("vosformer.cli.variants", "variants", "list every variant, with parameters, GFLOPs and memory"),
}

_ONE_SOURCE = ("track", "annotate", "mark", "frame")


def main(arguments: list[str] | None = None) -> int:
    """Run one command.

    Returns:
        The exit code: 0, 1 if a command found something wrong (e.g. bad data), 2 for an error of the user's, 130 if interrupted.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    if words in (["--version"], ["-V"]):
        print(version("vosformer"))
        return 0
    for length in (2, 1):
        name = " ".join(words[:length])
        if name in COMMANDS and len(words) >= length:
            return _run(name, words[length:], debug)
    return _overview(words)


def _run(name: str, rest: list[str], debug: bool) -> int:
    try:
        command = COMMANDS[name].load()
        WORDS.set(tuple(rest))
        lists = _lists(command)
        if name in _ONE_SOURCE:
            _refuse_several_sources(rest, lists)
        result = tyro.cli(command, prog=f"vosformer {name}", args=_gathered(rest, lists))
    except VOSError as error:
        if debug:
            raise
        show_error(str(error))
        return 2
    except KeyboardInterrupt:
        if debug:
            raise
        print("interrupted; what was written stays valid", file=sys.stderr)
        return 130
    return result if isinstance(result, int) else 0


def _lists(command: Callable[..., Any]) -> set[str]:
    """Return the flags of a command that take several values; options that several commands share come as a dataclass."""
    annotations = {p.name: str(p.annotation) for p in signature(command).parameters.values()}
    for parameter in signature(command).parameters.values():
        if is_dataclass(parameter.default):
            annotations |= {field.name: str(field.type) for field in fields(parameter.default)}
    lists = [name for name, kind in annotations.items() if kind.removeprefix("Annotated[").startswith("tuple[")]
    return {f"--{name.rstrip('_').replace('_', '-')}" for name in lists}


def _refuse_several_sources(words: Sequence[str], lists: Collection[str]) -> None:
    """Refuse more files than one where one source is read: a shell turns png/*.png into a word for each.

    Raises:
        InputError: several files follow each other, and the flag before them takes no list.
    """
    for group in _by_flag(words):
        flagged = bool(group) and group[0].startswith("-")
        if flagged and group[0].partition("=")[0] in lists:
            continue
        sources = group[2:] if flagged else group  # the first behind a flag may be its value
        if len(sources) > 1 and all(Path(file).exists() for file in sources):
            folder = Path(sources[0]).parent
            pattern = folder / f"*{Path(sources[0]).suffix}"
            named = ", ".join(sources[:2]) + (", ..." if len(sources) > 2 else "")
            raise InputError(
                f"{len(sources)} files were given ({named}), and one source is read: for the pictures of one video give "
                f"their folder ({folder}) or a pattern in quotes ('{pattern}'); for several videos there is vosformer batch"
            )


def _gathered(words: Sequence[str], lists: Collection[str]) -> list[str]:
    """Return the words with all values of a repeated list flag behind its first place: of `--set a=1 --set b=2` tyro would
    drop a=1.
    """
    first: dict[str, list[str]] = {}
    kept = []
    for group in _by_flag(words):
        flag, _, value = group[0].partition("=") if group else ("", "", "")
        if flag in lists:
            values = [value, *group[1:]] if value else group[1:]
            if flag in first:
                first[flag] += values
                continue
            group = first[flag] = [flag, *values]
        kept.append(group)
    return list(chain.from_iterable(kept))


def _by_flag(words: Sequence[str]) -> list[list[str]]:
    """Return what stands before the first flag, then each flag with what follows it."""
    groups: list[list[str]] = [[]]
    for word in words:
        if word.startswith("-"):
            groups.append([word])
        else:
            groups[-1].append(word)
    return groups


def _overview(words: list[str]) -> int:
    wrong = bool(words) and words[0] not in ("-h", "--help", "help")
    console = messages() if wrong else results()
    group = [name for name in COMMANDS if words and name.startswith(f"{words[0]} ")]
    if wrong and not group:
        show_error(f"there is no command {words[0]!r}")
    table = Table(show_header=False, box=None, padding=(0, 3, 0, 2))
    table.add_column(style="bold")
    table.add_column()
    for name in group or COMMANDS:
        table.add_row(name, COMMANDS[name].summary)
    console.print("vosformer COMMAND ...   (--help after a command tells its options; --debug shows tracebacks)\n")
    console.print(table)
    return 2 if wrong else 0
