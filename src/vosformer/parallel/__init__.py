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

With one worker everything runs in this process. `shard` cuts a list for several machines: each takes its own part. `cluster` spreads
the workers over the machines of a Ray cluster, which must share the folders that items and results lie in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from vosformer.errors import InputError
from vosformer.parallel.items import Advance, Item, Outcome, Result, Work, WorkerLostError, shard
from vosformer.parallel.processes import serially, spread

__all__ = ["Advance", "Outcome", "Work", "WorkerLostError", "run_all", "shard"]


def run_all(
    items: Sequence[Item],
    start: Callable[[], Work[Item, Result]],
    *,
    workers: int = 1,
    cluster: str | None = None,
    advance: Callable[[int, int], None] | None = None,
) -> Iterator[Outcome[Result]]:
    """Work on all items, and yield each outcome as soon as it is known.

    A worker that dies is replaced and its item tried again, three times in all. If this process dies, its workers end at once.

    Args:
        items: what to work on; with several workers they must be picklable.
        start: makes the work, once in each worker; with several workers it must be picklable (at the top of a module).
        workers: processes; 1 = this one.
        cluster: address of a Ray cluster ("auto": the one that this machine belongs to); its nodes run the workers then.
        advance: called with (index of the item, what its work reported).

    Raises:
        InputError: fewer than one worker, `start` or an item cannot be pickled, or there is no such cluster.
        Exception: that `start` raised.
    """
    if workers < 1:
        raise InputError(f"workers is {workers}, expected at least 1")
    if cluster is not None:
        from vosformer.parallel.cluster import spread_on_cluster

        return spread_on_cluster(items, start, workers, cluster, advance)
    return serially(items, start, advance) if workers == 1 or len(items) < 2 else spread(items, start, workers, advance)
