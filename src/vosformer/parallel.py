"""Many items over several processes: any worker may be killed, and nothing is lost or done twice.

`run_all` gives each item (a video, say) to one of several worker processes and yields what comes of it. The work itself must leave
its results behind in one stroke (a folder that is renamed when it is complete), so that an item is either done or not begun:

    def start():                                    # runs once in each worker; both functions at the top of a module
        session = vosformer.Session("default")

        def work(item, advance):                    # advance(frames done) is optional
            ...
            return 42                               # anything that can be pickled

        return work

    for outcome in run_all(videos, start, workers=4, advance=bar):
        if outcome.error is not None:
            print(videos[outcome.index], outcome.error)

With one worker everything runs in this process. `shard` cuts a list for several machines: each takes its own part.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import re
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, TypeVar, cast

from vosformer.errors import InputError, VOSError

Item = TypeVar("Item")
Result = TypeVar("Result")
Advance = Callable[[int], None]
Work = Callable[[Item, Advance], Result]

_TRIES = 3  # workers that an item may cost before it is given up


class WorkerLostError(VOSError):
    """A worker process ended without an answer, as often as an item is tried."""


@dataclass(frozen=True)
class Outcome(Generic[Result]):
    """What came of one item.

    Attributes:
        index: of the item.
        value: that the work returned; None if it failed.
        error: that it raised, or `WorkerLostError`; None if it did not fail.
    """

    index: int
    value: Result | None = None
    error: Exception | None = None


def shard(items: Sequence[Item], part: str | None) -> list[Item]:
    """Take one part of a list: "i/n" is each n-th item from the i-th on, counted from 0; None is all of it.

    Raises:
        InputError: another form, or i is not below n.
    """
    if part is None:
        return list(items)
    match = re.fullmatch(r"(\d+)/(\d+)", part)
    if match is None or int(match[1]) >= int(match[2]):
        raise InputError(f"the shard is {part!r}, expected i/n with i from 0 to n - 1, such as 0/4")
    return list(items[int(match[1]) :: int(match[2])])


def run_all(
    items: Sequence[Item],
    start: Callable[[], Work[Item, Result]],
    *,
    workers: int = 1,
    advance: Callable[[int, int], None] | None = None,
) -> Iterator[Outcome[Result]]:
    """Work on all items, and yield each outcome as soon as it is known.

    A worker that dies is replaced and its item tried again, three times in all. If this process dies, its workers end at once.

    Args:
        items: what to work on; with several workers they must be picklable.
        start: makes the work, once in each worker; with several workers it must be picklable (at the top of a module).
        workers: processes; 1 = this one.
        advance: called with (index of the item, what its work reported).

    Raises:
        InputError: fewer than one worker, or `start` or an item cannot be pickled.
        Exception: that `start` raised.
    """
    if workers < 1:
        raise InputError(f"workers is {workers}, expected at least 1")
    return _serially(items, start, advance) if workers == 1 or len(items) < 2 else _spread(items, start, workers, advance)


def _serially(
    items: Sequence[Item], start: Callable[[], Work[Item, Result]], advance: Callable[[int, int], None] | None
) -> Iterator[Outcome[Result]]:
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


def _spread(
    items: Sequence[Item],
    start: Callable[[], Work[Item, Result]],
    workers: int,
    advance: Callable[[int, int], None] | None,
) -> Iterator[Outcome[Result]]:
    try:
        packed, making = [pickle.dumps(item) for item in items], pickle.dumps(start)
    except Exception as error:
        raise InputError(f"the work cannot be given to other processes: {error}") from error
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
                    if tries[index] < _TRIES:
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
        return Outcome(index, error=WorkerLostError(f"a worker process ended without an answer ({_TRIES} times in all)"))
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
        connection.send(("start", _portable(error)))
        return
    while True:
        try:
            item = pickle.loads(connection.recv_bytes())
        except EOFError:
            return
        try:
            answer = ("done", work(item, lambda done: connection.send(("progress", done))))
        except Exception as error:
            answer = ("failed", _portable(error))
        connection.send(answer)


def _portable(error: Exception) -> Exception:
    """Return the error, if it survives pickling, else one of ours with its words."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return VOSError(f"{type(error).__name__}: {error}")
    return error


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="end-with-parent").start()
