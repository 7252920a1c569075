"""Work spread over the machines of a Ray cluster."""

from __future__ import annotations

import logging
import pickle
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from vosformer.errors import InputError
from vosformer.parallel.items import TRIES, Item, Outcome, Result, Work, lost, pack, portable

_LOOK = 1.0  # seconds between two questions how far the workers are


class _Board:
    """Lives on the cluster: workers write on it how far they are."""

    def __init__(self) -> None:
        self._done: dict[int, int] = {}

    def write(self, index: int, done: int) -> None:
        self._done[index] = done

    def read(self) -> dict[int, int]:
        news, self._done = self._done, {}
        return news


_work: dict[bytes, Any] = {}  # of this worker process: what made it -> the work


def _run(start: bytes, index: int, item: bytes, board: Any) -> tuple[str, Any]:
    """Do one item in a process of the cluster, which makes the work at its first one."""
    try:
        if start not in _work:
            _work.clear()
            _work[start] = pickle.loads(start)()
    except Exception as error:
        return "start", portable(error)
    try:
        return "done", _work[start](pickle.loads(item), lambda done: board.write.remote(index, done))
    except Exception as error:
        return "failed", portable(error)


def spread_on_cluster(
    items: Sequence[Item],
    start: Callable[[], Work[Item, Result]],
    workers: int,
    address: str,
    advance: Callable[[int, int], None] | None,
) -> Iterator[Outcome[Result]]:
    """Work on all items on the nodes of a cluster; see `run_all`.

    Each worker takes a CPU, and a GPU where the cluster has any. The item of a worker or node that dies is tried again. If this
    process dies, Ray ends its workers.

    Raises:
        InputError: Ray is not installed, or there is no such cluster.
    """
    packed, making = pack(items, start)
    ray = _connect(address)
    gpus = 1 if ray.cluster_resources().get("GPU") else 0
    begin = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=0, scheduling_strategy="SPREAD")(_run).remote
    board = ray.remote(num_cpus=0)(_Board).remote()
    waiting, tries = deque(range(len(items))), [0] * len(items)
    busy: dict[Any, int] = {}  # an answer that is waited for -> the item
    try:
        while waiting or busy:
            while waiting and len(busy) < workers:
                index = waiting.popleft()
                busy[begin(making, index, packed[index], board)] = index
            ready, _ = ray.wait(list(busy), timeout=_LOOK)
            if advance is not None:
                _report(ray, board, advance)
            for answer in ready:
                index = busy.pop(answer)
                try:
                    kind, value = ray.get(answer)
                except ray.exceptions.RayError:  # the worker or its node is gone
                    tries[index] += 1
                    if tries[index] < TRIES:
                        waiting.appendleft(index)
                        continue
                    kind, value = "failed", lost("a worker of the cluster")
                if kind == "start":
                    raise value
                yield Outcome(index, value) if kind == "done" else Outcome(index, error=value)
    finally:
        for answer in busy:
            ray.cancel(answer, force=True)
        ray.kill(board)


def _report(ray: Any, board: Any, advance: Callable[[int, int], None]) -> None:
    """Pass on what the workers wrote; a board whose node is gone says nothing any more."""
    try:
        news = ray.get(board.read.remote(), timeout=_LOOK)
    except ray.exceptions.RayError:
        return
    for index, done in news.items():
        advance(index, done)


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
