"""Many items over several processes: each is done once, whoever dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import parallel_work
import pytest

from vosformer.errors import DataError, InputError
from vosformer.parallel import WorkerLostError, run_all, shard


@pytest.mark.parametrize("workers", [1, 3])
def test_every_item_has_one_outcome(workers):
    calls = []
    outcomes = list(run_all(range(9), parallel_work.squares, workers=workers, advance=lambda *at: calls.append(at)))
    assert sorted(one.index for one in outcomes) == list(range(9))
    assert sorted(calls) == [(i, i) for i in range(9)]
    for one in outcomes:
        if one.index == 5:
            assert isinstance(one.error, DataError)
            assert str(one.error) == "five does not decode"
        else:
            assert one.value[0] == one.index**2
    assert ({one.value[1] for one in outcomes if one.error is None} == {os.getpid()}) is (workers == 1)


def test_killed_workers_are_replaced(tmp_path):
    items = [("a", str(tmp_path), 0), ("b", str(tmp_path), 2), ("c", str(tmp_path), 9), ("d", str(tmp_path), 1)]
    outcomes = {one.index: one for one in run_all(items, parallel_work.deadly, workers=2)}
    assert [outcomes[i].value for i in (0, 1, 3)] == ["a", "b", "d"]
    assert isinstance(outcomes[2].error, WorkerLostError)
    assert sorted(path.stem for path in tmp_path.glob("*.done")) == ["a", "b", "d"]
    assert len((tmp_path / "b.log").read_text().split()) == 3


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes as Linux shows them")
def test_workers_end_with_their_parent(tmp_path):
    items = [(name, str(tmp_path)) for name in "ab"]
    code = "import parallel_work\nfrom vosformer.parallel import run_all\nif __name__ == '__main__':\n"
    code += f"    list(run_all({items!r}, parallel_work.slow, workers=2))\n"
    (tmp_path / "main.py").write_text(code)
    path = os.pathsep.join(sys.path)
    parent = subprocess.Popen([sys.executable, str(tmp_path / "main.py")], env={**os.environ, "PYTHONPATH": path})
    deadline = time.monotonic() + 60
    while len(pids := [p for p in tmp_path.glob("*.pid") if p.read_text()]) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    workers = [int(path.read_text()) for path in pids]
    assert len(workers) == 2
    while any(alive(pid) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(alive(pid) for pid in workers)


def test_what_cannot_start():
    for workers in (1, 2):
        with pytest.raises(DataError, match="no weights"):
            list(run_all([1, 2], parallel_work.broken, workers=workers))
    with pytest.raises(InputError, match="cannot be given to other processes"):
        list(run_all([1, 2], lambda: None, workers=2))
    with pytest.raises(InputError, match="workers is 0"):
        run_all([1], parallel_work.squares, workers=0)
    assert not list(run_all([], parallel_work.broken, workers=3))


def test_shards_are_a_partition():
    items = list(range(10))
    parts = [shard(items, f"{i}/3") for i in range(3)]
    assert sorted(item for part in parts for item in part) == items
    assert shard(items, None) == items
    for wrong in ("3/3", "1", "-1/2", "a/b", "0/0"):
        with pytest.raises(InputError, match="expected i/n"):
            shard(items, wrong)
