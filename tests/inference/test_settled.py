"""A user's program is set up once, like the command line, and told what slows it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

BEGIN = """
import warnings, torch
warnings.simplefilter("always")
from vosformer import Session, device
from vosformer.testing import tiny_model
calls = []
keep = device._keep_freed_memory
device._keep_freed_memory = lambda: (calls.append(1), keep())
model = tiny_model("aot-t")
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
"""
END = """
print(len(calls), torch.get_num_threads(), *[str(each.message).split(":")[0] for each in said], sep="|")
"""


def run(body: str, **environment: str) -> list[str]:
    lines = "".join(f"    {line}\n" for line in body.splitlines())
    done = subprocess.run(
        [sys.executable, "-c", BEGIN + lines + END], capture_output=True, text=True, env={**os.environ, **environment}
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.strip().split("|")


TWO = 'Session(model, dtype="fp32", size=64)\nSession(model, dtype="fp32", size=64)'


def test_the_process_is_set_up_once_and_told_once_that_one_thread_is_few() -> None:
    assert run(f"device._cores = lambda: 2\n{TWO}") == ["1", "1", "PyTorch computes with one thread, and 2 cores are there"]
    assert run(f"device._cores = lambda: 1\n{TWO}") == ["1", "1"]


def test_busy_cores_get_one_thread_and_that_is_told() -> None:
    busy = "torch.set_num_threads(2)\ndevice.free_threads = lambda: 1\n"
    assert run(busy + TWO) == ["1", "1", "other programs keep the cores busy"]
    free = "torch.set_num_threads(2)\ndevice.free_threads = lambda: 2\n"
    assert run(free + TWO) == ["1", "2"]


@pytest.mark.parametrize("own", ["from vosformer.cli.common import prepare_machine; prepare_machine(1)", ""])
def test_programs_of_our_own_and_those_that_do_not_want_it_are_left_alone(own: str) -> None:
    tune = "" if own else ", tune=False"
    session = f'Session(model, dtype="fp32", size=64{tune})'
    assert run(f"{own}\ndevice._cores = lambda: 2\n{session}") == ["1" if own else "0", "1"]
