"""Work spread over processes of this machine, or done in this one."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any, cast

from vosformer.parallel.items import TRIES, Item, Outcome, Result, Work, WorkerLostError, lost, pack, portable


def serially(
    items: Sequence[Item], start: Callable[[], Work[Item, Result]], advance: Callable[[int, int], None] | None
) -> Iterator[Outcome[Result]]:
    """Work on all items in this process."""
    work = start() if items else None
    for index, item in enumerate(items):
        assert work is not None

        def report(done: int, index: int = index) -> None:
            if advance is not None:
                advance(index, done)

        try:
            outcome = Outcome(index, work(item, report))
        except Exception as error:
            outcome = Outcome[Result](index, error=error)
        yield outcome


class _Worker:
    """A process and the item that it works on."""

    def __init__(self, start: bytes) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, other = context.Pipe()
        self.process = context.Process(target=_serve, args=(other, start), daemon=True)
        self.process.start()
        other.close()
        self.index: int | None = None

    def give(self, index: int, item: bytes) -> None:
        self.index = index
        try:
            self.connection.send_bytes(item)
        except OSError:
            return  # it has died; that is seen when its answer is waited for

    def stop(self) -> None:
        self.connection.close()
        self.process.kill()
        self.process.join()


def spread(
    items: Sequence[Item],
    start: Callable[[], Work[Item, Result]],
    workers: int,
    advance: Callable[[int, int], None] | None,
) -> Iterator[Outcome[Result]]:
    """Work on all items in processes of this machine; see `run_all`."""
    packed, making = pack(items, start)
    waiting, tries = deque(range(len(items))), [0] * len(items)
    team = [_Worker(making) for _ in range(min(workers, len(items)))]
    try:
        for worker in team:
            worker.give(waiting[0], packed[waiting.popleft()])
        while any(worker.index is not None for worker in team):
            busy = [worker for worker in team if worker.index is not None]
            ready = wait([worker.connection for worker in busy])
            for worker in (worker for worker in busy if worker.connection in ready):
                index = cast(int, worker.index)
                outcome = _receive(worker, index, advance)
                if outcome is None:
                    continue
                if isinstance(outcome.error, WorkerLostError):
                    tries[index] += 1
                    worker.stop()
                    team[team.index(worker)] = worker = _Worker(making)
                    if tries[index] < TRIES:
                        waiting.appendleft(index)
                        outcome = None
                worker.index = None
                if waiting:
                    worker.give(waiting[0], packed[waiting.popleft()])
                if outcome is not None:
                    yield cast(Outcome[Result], outcome)
    finally:
        for worker in team:
            worker.stop()


def _receive(worker: _Worker, index: int, advance: Callable[[int, int], None] | None) -> Outcome[Any] | None:
    """Take one message of a worker; None for one that says how far it is."""
    try:
        kind, value = worker.connection.recv()
    except (EOFError, OSError):
        return Outcome(index, error=lost("a worker process"))
    if kind == "progress":
        if advance is not None:
            advance(index, value)
        return None
    if kind == "start":
        raise cast(Exception, value)
    return Outcome(index, value) if kind == "done" else Outcome(index, error=value)


def _serve(connection: Connection, start: bytes) -> None:
    """Run in a worker: take items until the connection ends, and end with the parent."""
    _end_with_parent()
    try:
        work = pickle.loads(start)()
    except Exception as error:
        connection.recv_bytes()
        connection.send(("start", portable(error)))
        return
    while True:
        try:
            item = pickle.loads(connection.recv_bytes())
        except EOFError:
            return
        try:
            answer = ("done", work(item, lambda done: connection.send(("progress", done))))
        except Exception as error:
            answer = ("failed", portable(error))
        connection.send(answer)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="end-with-parent").start()
