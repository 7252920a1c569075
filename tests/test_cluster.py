"""Work over a Ray cluster of two nodes on this machine: killed workers, a killed node, a killed parent."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import parallel_work
import pytest
from vosformer_on_path import environment

from vosformer.cli import main
from vosformer.errors import DataError, InputError
from vosformer.parallel import WorkerLostError, run_all

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def cluster():
    """Two nodes with a CPU each, as two machines would be; their workers find the tests' helpers."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    before = dict(os.environ)
    os.environ.update(environment(), RAY_USAGE_STATS_ENABLED="0", RAY_DISABLE_IMPORT_WARNING="1")
    made = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 1, "include_dashboard": False, "_system_config": {"worker_niceness": 0}},
    )
    made.add_node(num_cpus=1)
    made.wait_for_nodes()
    yield made
    import ray

    ray.shutdown()
    made.shutdown()
    os.environ.clear()
    os.environ.update(before)


def test_every_item_has_one_outcome_and_both_nodes_work(cluster, tmp_path):
    calls = []
    outcomes = list(
        run_all(range(9), parallel_work.squares, workers=2, cluster=cluster.address, advance=lambda *at: calls.append(at))
    )
    assert sorted(one.index for one in outcomes) == list(range(9))
    for one in outcomes:
        if one.index == 5:
            assert isinstance(one.error, DataError)
            assert str(one.error) == "five does not decode"
        else:
            assert one.value[0] == one.index**2
    assert set(calls) <= {(i, i) for i in range(9)}
    nodes = [one.value for one in run_all([str(tmp_path)] * 2, parallel_work.where, workers=2, cluster=cluster.address)]
    assert len(set(nodes)) == 2


def test_killed_workers_are_replaced(cluster, tmp_path):
    items = [("a", str(tmp_path), 0), ("b", str(tmp_path), 2), ("c", str(tmp_path), 9), ("d", str(tmp_path), 1)]
    outcomes = {one.index: one for one in run_all(items, parallel_work.deadly, workers=2, cluster=cluster.address)}
    assert [outcomes[i].value for i in (0, 1, 3)] == ["a", "b", "d"]
    assert isinstance(outcomes[2].error, WorkerLostError)


def test_a_lost_node_loses_nothing(cluster, tmp_path):
    node = cluster.add_node(num_cpus=1)
    items = [(f"{n}", str(tmp_path)) for n in range(8)]
    outcomes = run_all(items, parallel_work.short, workers=3, cluster=cluster.address)
    first = next(outcomes)
    cluster.remove_node(node, allow_graceful=False)
    values = [first.value, *(one.value for one in outcomes)]
    assert sorted(values) == sorted(name for name, _ in items)


def test_what_cannot_start(cluster):
    with pytest.raises(DataError, match="no weights"):
        list(run_all([1, 2], parallel_work.broken, workers=2, cluster=cluster.address))
    with pytest.raises(InputError, match="cannot be given to other processes"):
        list(run_all([1, 2], lambda: None, workers=2, cluster=cluster.address))


def written(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*.png"))}


@pytest.mark.parametrize("seed", [1, 2])
def test_a_benchmark_whose_parent_is_killed_goes_on_to_the_same_bytes(cluster, tmp_path, seed):
    root = tmp_path / "clips"
    assert main(["data", "compose", str(root), "--clips", "4", "--frames", "6", "--size", "96x128"]) == 0
    model = ["--model", "default-fast", "--size", "96"]
    serial = ["benchmark", "davis2017-val", str(root), *model]
    arguments = [*serial, "--split", "2017/val", "-o"]
    for folder in ("JPEGImages", "Annotations"):
        (root / folder / "480p").symlink_to(root / folder / "96p")
    assert main([*arguments, str(tmp_path / "one")]) == 0
    spread = [*arguments, str(tmp_path / "many"), "--workers", "2", "--cluster", cluster.address]
    command = [sys.executable, "-m", "vosformer", *spread]
    with subprocess.Popen(command, env=environment()) as parent:
        wait_for_masks(tmp_path / "many" / "Annotations", parent)
        time.sleep(random.Random(seed).uniform(0, 3))
        parent.send_signal(signal.SIGKILL)
    subprocess.run([*command, "--resume"], env=environment(), check=True)
    assert written(tmp_path / "many" / "Annotations") == written(tmp_path / "one" / "Annotations")
    assert (tmp_path / "many" / "davis2017-val.zip").read_bytes() == (tmp_path / "one" / "davis2017-val.zip").read_bytes()


def wait_for_masks(folder: Path, process):
    deadline = time.monotonic() + 300
    while process.poll() is None and time.monotonic() < deadline and not any(folder.rglob("*.png")):
        time.sleep(0.1)
