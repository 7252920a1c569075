"""Work spread over the machines of a Ray cluster."""

from __future__ import annotations

import logging
import pickle
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from vosformer.errors import InputError
from vosformer.parallel.items import TRIES, Item, Outcome, Result, Work, lost, pack, portable

_LOOK = 0.5  # seconds between two questions how far the workers are


class _Worker:
    """Runs on a node of the cluster: makes the work once, and does items one by one; another thread says how far it is."""

    def __init__(self, start: bytes) -> None:
        self._start = start
        self._work: Any = None
        self._done = 0

    def run(self, item: bytes) -> tuple[str, Any]:
        try:
            if self._work is None:
                self._work = pickle.loads(self._start)()
        except Exception as error:
            return "start", portable(error)
        self._done = 0
        try:
            return "done", self._work(pickle.loads(item), self._advance)
        except Exception as error:
            return "failed", portable(error)

    def _advance(self, done: int) -> None:
        self._done = done

    def done(self) -> int:
        return self._done


def spread_on_cluster(
    items: Sequence[Item],
    start: Callable[[], Work[Item, Result]],
    workers: int,
    address: str,
    advance: Callable[[int, int], None] | None,
) -> Iterator[Outcome[Result]]:
    """Work on all items on the nodes of a cluster; see `run_all`.

    Each worker takes a CPU, and a GPU where the cluster has any. A worker or node that dies is replaced and its item tried again. If
    this process dies, Ray ends its workers.

    Raises:
        InputError: Ray is not installed, or there is no such cluster.
    """
    packed, making = pack(items, start)
    ray = _connect(address)
    gpus = 1 if ray.cluster_resources().get("GPU") else 0
    hire = ray.remote(num_cpus=1, num_gpus=gpus, max_concurrency=2, scheduling_strategy="SPREAD")(_Worker).remote
    waiting, tries = deque(range(len(items))), [0] * len(items)
    busy: dict[Any, tuple[Any, int]] = {}  # an answer that is waited for -> the worker, and the item
    team: list[Any] = []

    def give(worker: Any) -> None:
        index = waiting.popleft()
        busy[worker.run.remote(packed[index])] = (worker, index)

    try:
        for _ in range(min(workers, len(items))):
            team.append(hire(making))
            give(team[-1])
        while busy:
            ready, _ = ray.wait(list(busy), timeout=None if advance is None else _LOOK)
            for answer in ready:
                worker, index = busy.pop(answer)
                outcome: Outcome[Result] | None
                try:
                    kind, value = ray.get(answer)
                    if kind == "start":
                        raise value
                    outcome = Outcome(index, value) if kind == "done" else Outcome(index, error=value)
                except ray.exceptions.RayError:  # the worker or its node is gone
                    tries[index] += 1
                    team[team.index(worker)] = worker = hire(making)
                    outcome = None if tries[index] < TRIES else Outcome(index, error=lost("a worker of the cluster"))
                    if outcome is None:
                        waiting.appendleft(index)
                if waiting:
                    give(worker)
                if outcome is not None:
                    yield outcome
            if advance is not None:
                _report(ray, busy, advance)
    finally:
        for worker in team:
            ray.kill(worker)


def _report(ray: Any, busy: dict[Any, tuple[Any, int]], advance: Callable[[int, int], None]) -> None:
    """Ask all workers how far they are; one that does not answer at once is passed over."""
    asked = {worker.done.remote(): index for worker, index in busy.values()}
    answered, _ = ray.wait(list(asked), num_returns=len(asked), timeout=_LOOK) if asked else ([], [])
    for answer in answered:
        try:
            advance(asked[answer], ray.get(answer))
        except ray.exceptions.RayError:
            continue  # it has died; that is seen when its work is waited for


def _connect(address: str) -> Any:
    try:
        import ray
    except ImportError as error:
        raise InputError('clusters need Ray: pip install "vosformer[cluster]"') from error
    if not ray.is_initialized():
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise InputError(f"there is no Ray cluster at {address!r} (start one with: ray start --head): {error}") from error
    return ray
