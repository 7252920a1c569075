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
