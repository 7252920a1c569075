"""Work for worker processes; they find it by its name."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from vosformer.errors import DataError


def squares():
    def work(item, advance):
        advance(item)
        if item == 5:
            raise DataError("five does not decode")
        return item * item, os.getpid()

    return work


def broken():
    raise DataError("no weights")


def deadly():
    """Items are (name, folder, times): the process is killed so often on it, and then leaves a file."""

    def work(item, advance):
        name, folder, times = item
        with (Path(folder) / f"{name}.log").open("a") as log:
            log.write(f"{os.getpid()}\n")
        if len((Path(folder) / f"{name}.log").read_text().split()) <= times:
            os.kill(os.getpid(), signal.SIGKILL)
        (Path(folder) / f"{name}.done").touch()
        return name

    return work


def slow():
    """Items are (name, folder): a file with the process, then a long wait."""

    def work(item, advance):
        name, folder = item
        (Path(folder) / f"{name}.pid").write_text(str(os.getpid()))
        time.sleep(60)

    return work


def where():
    """Items are folders: give the node of a Ray cluster that the worker runs on, once another one has begun as well."""
    import ray

    def work(item, advance):
        node = ray.get_runtime_context().get_node_id()
        (Path(item) / node).touch()
        deadline = time.monotonic() + 120
        while len(list(Path(item).iterdir())) < 2 and time.monotonic() < deadline:
            time.sleep(0.1)
        return node

    return work


def short():
    """Items are (name, folder): a second's work."""

    def work(item, advance):
        time.sleep(1)
        return item[0]

    return work
