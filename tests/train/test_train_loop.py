"""The loop: exact resume, several processes, signals, failures that must not cost the run."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from train_dummy import Dummy, Squares
from train_run import recipe, trainer

from vosformer.errors import DataError, InputError, OutputError, TrainingError
from vosformer.train import checkpoint as checkpoints
from vosformer.train.batch import Shares, collate, limit_objects, loader
from vosformer.train.distributed import Processes, join, precision, shares
from vosformer.train.logger import strip
from vosformer.train.trainer import Trainer

HERE = Path(__file__).parents[1] / "support"
CPU = Processes(0, 1, torch.device("cpu"))


def start(
    folder: Path, steps: int, save_every: int = 5, pause: float = 0.0, workers: int = 0, **more: str
) -> subprocess.Popen[str]:
    """A training in a process group of its own."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")]),
        "OMP_NUM_THREADS": "1",
        **more,
    }
    command = [sys.executable, str(HERE / "train_run.py"), str(folder), str(steps), str(save_every), str(pause)]
    return subprocess.Popen(
        [*command, str(workers)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def weights(folder: Path) -> dict[str, torch.Tensor]:
    live, average = load_file(folder / "weights-live.safetensors"), load_file(folder / "weights.safetensors")
    return {**live, **{f"average {name}": t for name, t in average.items()}}


def assert_same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> None:
    assert one.keys() == two.keys()
    for name in one:
        assert torch.equal(one[name], two[name]), name


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    result = trainer(folder).run()
    assert result.finished
    return weights(folder)


def test_training_moves_the_weights_and_the_average(uninterrupted):
    torch.manual_seed(0)
    fresh = Dummy().state_dict()
    assert all(not torch.equal(fresh[name], uninterrupted[name]) for name in fresh)
    assert any(not torch.equal(uninterrupted[name], uninterrupted[f"average {name}"]) for name in fresh)


@pytest.mark.parametrize("stop_at", [3, 12, 13, 23])
def test_a_stopped_run_goes_on_exactly(tmp_path, uninterrupted, stop_at):
    first = trainer(tmp_path)
    after = first._one

    def one(*arguments):
        if first.step == stop_at - 1:
            first.stop()
        return after(*arguments)

    first._one = one
    assert first.run() == (stop_at, False, None)
    second = trainer(tmp_path)
    assert second.step == stop_at
    assert second.run().finished
    assert_same(weights(tmp_path), uninterrupted)


def test_a_gpu_that_waits_for_clips_is_told_of_once(tmp_path):
    run, said = trainer(tmp_path), []
    journal = SimpleNamespace(say=said.append)
    run._tell_waiting(journal, {"data_wait": 0.9})  # a CPU has no core to spare for more of them
    assert said == []
    run.processes = Processes(0, 1, torch.device("cuda"))
    for share in (0.1, 0.6, 0.7):
        run._tell_waiting(journal, {"data_wait": share})
    (line,) = said
    assert "60% of the time" in line
    assert "--set run.workers=" in line


def test_workers_and_parts_of_files_change_nothing(tmp_path, uninterrupted):
    trainer(tmp_path, workers=2, shard_mib=1).run()
    assert_same(weights(tmp_path), uninterrupted)


def test_accumulated_parts_give_the_same_gradients(tmp_path, uninterrupted):
    trainer(tmp_path, accumulate=2).run()
    for name, value in weights(tmp_path).items():
        torch.testing.assert_close(value, uninterrupted[name], atol=2e-4, rtol=2e-3)


def test_a_run_in_bf16_stays_near_that_in_fp32(tmp_path, uninterrupted):
    run = trainer(tmp_path, precision="bf16")
    formats = set()
    run.model.head.register_forward_hook(lambda module, inputs, output: formats.add(output.dtype))
    assert run.run().finished
    assert formats == {torch.bfloat16}
    found = weights(tmp_path)
    assert all(tensor.dtype == torch.float32 for tensor in found.values())
    torch.manual_seed(0)
    fresh = Dummy().state_dict()
    for name, start in fresh.items():
        assert 0 < (found[name] - uninterrupted[name]).norm() < 0.5 * (uninterrupted[name] - start).norm(), name


def test_fp16_scales_its_loss_and_passes_over_steps_that_overflow(tmp_path, monkeypatch):
    monkeypatch.setattr("vosformer.train.trainer.precision", lambda recipe, device: "fp16")  # which asks for a GPU
    run = trainer(tmp_path, steps=8, save_every=4)
    run.scaler = torch.amp.GradScaler("cpu", 2.0**22)  # far too large: gradients overflow until it has come down
    scales, moved = [], []

    def one(*arguments, step=run._one):
        before = run.model.head.weight.detach().clone()
        result = step(*arguments)
        scales.append(run.scaler.get_scale())
        moved.append(not torch.equal(before, run.model.head.weight))
        return result

    run._one = one
    assert run.run().finished
    assert scales == sorted(scales, reverse=True)
    assert scales[-1] < 2.0**22
    # A step counts if it did not lower the scale.
    assert moved == [after == before for before, after in zip([2.0**22, *scales], scales, strict=False)]
    assert any(moved)
    assert all(tensor.isfinite().all() for tensor in weights(tmp_path).values())
    again = trainer(tmp_path, steps=8, save_every=4)
    assert again.scaler.get_scale() == scales[-1]


def test_a_killed_run_goes_on_exactly(tmp_path):
    steps = 60
    whole = tmp_path / "whole"
    trainer(whole, steps, save_every=3).run()
    folder = tmp_path / "killed"
    process = start(folder, steps, save_every=3, pause=0.004)
    deadline = time.monotonic() + 120
    while not list((folder / "checkpoints").glob("step-*")) and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(random.uniform(0, 0.5))
    process.kill()
    assert process.wait() == -signal.SIGKILL
    resumed = trainer(folder, steps, save_every=3)
    assert 0 < resumed.step < steps
    resumed.run()
    assert_same(weights(folder), weights(whole))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_whole_group_writes_a_checkpoint_and_ends_well(tmp_path, number):
    # As Ctrl-C in a terminal and batch systems do it: the processes that prepare the data get the signal, too. They are slow here,
    # so that the step under way still waits for them.
    process = start(tmp_path, 5000, save_every=5000, pause=0.05, workers=2)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("step 3/"):
            break
    os.killpg(process.pid, number)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert "run the same command to go on" in output
    found = checkpoints.newest(tmp_path / "checkpoints")
    assert found is not None
    assert found.step >= 3


def together(*folders):
    """A process a folder, which know of each other."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        common = {"WORLD_SIZE": str(len(folders)), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    return [start(folder, 24, RANK=str(r), LOCAL_RANK=str(r), **common) for r, folder in enumerate(folders)]


def test_processes_that_do_not_share_their_folder_do_not_go_on(tmp_path):
    trainer(tmp_path / "here", 5).run()
    for rank in together(tmp_path / "here", tmp_path / "there"):
        output, _ = rank.communicate(timeout=200)
        assert rank.returncode != 0
        assert "must be one folder that all machines share" in output


def test_two_processes_give_the_result_of_one(tmp_path):
    trainer(tmp_path / "one", 24).run()
    for rank in together(tmp_path / "two", tmp_path / "two"):
        output, _ = rank.communicate(timeout=200)
        assert rank.returncode == 0, output
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    for name in one:
        torch.testing.assert_close(two[name], one[name], atol=2e-4, rtol=2e-3)


def test_a_corrupted_checkpoint_is_skipped(tmp_path, uninterrupted):
    first = trainer(tmp_path)
    first.run()
    newest = tmp_path / "checkpoints" / "step-00000024"
    (newest / "model.safetensors").write_bytes(b"rubbish")
    with pytest.warns(UserWarning, match="step-00000024"):
        second = trainer(tmp_path)
    assert second.step == 20
    second.run()
    assert_same(weights(tmp_path), uninterrupted)


def test_another_run_in_the_folder_is_refused(tmp_path):
    trainer(tmp_path, 5).run()
    with pytest.raises(InputError, match=r"run.seed=0, not 1: give another folder"):
        trainer(tmp_path, 5, seed=1)
    with pytest.raises(InputError, match=r"run.batch=4, not 2"):
        trainer(tmp_path, 5, batch=2)
    later = Trainer(Dummy(), replace(recipe(5), name="later"), Squares(), tmp_path, join("cpu"))
    with pytest.raises(InputError, match=r"name='test', not 'later'"):
        later.resume()


def test_a_loss_that_is_not_finite_stops_and_saves_the_batch(tmp_path):
    run = trainer(tmp_path)
    after = run._one

    def one(*arguments):
        if run.step == 7:
            run.model.key.weight.data[0] = float("nan")
        return after(*arguments)

    run._one = one
    with pytest.raises(TrainingError, match="step 7") as caught:
        run.run()
    batch = load_file(tmp_path / "bad-batch-step7-rank0.safetensors")
    assert str(tmp_path / "bad-batch-step7-rank0.safetensors") in str(caught.value)
    assert batch["indices"].tolist() == [28, 29, 30, 31]
    assert batch["images"].shape == (4, 4, 3, 33, 33)
    # The checkpoint from before is good.
    again = trainer(tmp_path)
    assert again.step == 5
    assert all(torch.isfinite(p).all() for p in again.model.parameters())


def test_a_full_disk_is_a_warning_until_the_end(tmp_path, monkeypatch, capfd, uninterrupted):
    whole = checkpoints.save_file
    failures = []

    def sometimes(tensors, path, *rest):
        if "00000010" in str(path):
            failures.append(path)
            raise OSError(28, "No space left on device")
        return whole(tensors, path, *rest)

    monkeypatch.setattr(checkpoints, "save_file", sometimes)
    trainer(tmp_path).run()
    assert failures
    assert "the disk is full" in capfd.readouterr().err
    assert_same(weights(tmp_path), uninterrupted)
    assert not list((tmp_path / "checkpoints").glob(".tmp*"))


def test_a_log_that_cannot_be_written_stops_nothing(tmp_path, capfd, uninterrupted):
    (tmp_path / "log.jsonl").symlink_to("/dev/full")
    (tmp_path / "pictures").write_text("in the way")
    trainer(tmp_path).run()
    assert capfd.readouterr().err.count("No space left") == 1
    assert_same(weights(tmp_path), uninterrupted)


def test_a_full_disk_at_the_end_is_an_error(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    run = trainer(tmp_path, 3)
    monkeypatch.setattr(checkpoints, "save_file", full)
    with pytest.raises(OutputError, match="cannot be written: the disk is full"):
        run.run()


def test_minutes_stop_the_run_with_a_checkpoint(tmp_path):
    result = trainer(tmp_path, 10_000).run(minutes=0.02)
    assert 0 < result.step < 10_000
    assert not result.finished
    assert trainer(tmp_path, 10_000).step == result.step


def test_the_log_tells_what_happened(tmp_path):
    trainer(tmp_path, 6, picture_every=2).run()
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert lines[0]["event"] == "start"
    assert lines[0]["optim.lr"] == "0.003"
    steps = [line for line in lines if "loss" in line]
    assert [line["step"] for line in steps] == [1, 2, 3, 4, 5, 6]
    assert all(
        {"ce", "jaccard", "gradient_norm", "lr", "seconds", "clips_per_second", "data_wait"} <= set(line) for line in steps
    )
    assert all(0 <= line["data_wait"] <= 1 for line in steps)
    assert lines[-1] == {**lines[-1], "event": "finished", "step": 6}
    assert len(list((tmp_path / "pictures").iterdir())) == 3
    assert list((tmp_path / "tensorboard").iterdir())


def test_clipping_happens_before_the_step(tmp_path):
    run = trainer(tmp_path, 4)
    norms = []
    step = run.optimizer.step

    def watched(*arguments, **options):
        gradients = [p.grad for g in run.optimizer.param_groups for p in g["params"] if p.grad is not None]
        norms.append(float(torch.linalg.vector_norm(torch.cat([g.flatten() for g in gradients]))))
        return step(*arguments, **options)

    run.optimizer.step = watched
    run.run()
    assert len(norms) == 4
    assert max(norms) <= 0.5 + 1e-5
    logged = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert max(line["gradient_norm"] for line in logged if "loss" in line) > 0.5


def test_identities_rest_once_own_masks_are_used(tmp_path):
    run = trainer(tmp_path, 14)
    held = {}
    after = run._one

    def one(*arguments):
        held[run.step] = run.model.id_bank.weight.detach().clone()
        return after(*arguments)

    run._one = one
    run.run()
    assert not torch.equal(held[11], held[12])
    assert torch.equal(held[12], held[13])
    assert torch.equal(held[12], run.model.id_bank.weight)


def test_a_system_without_identities_to_rest_trains_on(tmp_path):
    rollout = replace(recipe().rollout, own_masks_from=1, freeze_own_masks=(r"^of_another_system\.",))
    run = Trainer(Dummy(), replace(recipe(3), rollout=rollout), Squares(vary=True), tmp_path, join("cpu"))
    assert run.run().finished


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_of_the_data_is_told_as_it_is(tmp_path, workers):
    class Broken(Squares):
        def __getitem__(self, index):
            if index == 5:
                raise DataError("a.jpg: cut short")
            return super().__getitem__(index)

    run = Trainer(Dummy(), recipe(3, workers=workers), Broken(vary=True), tmp_path, join("cpu"))
    with pytest.raises(DataError, match=r"^a\.jpg: cut short$") as caught:
        run.run()
    # The error's traceback, which `caught` keeps, must not keep workers: they would hold up the end of the program.
    assert caught.tb is not None
    assert multiprocessing.active_children() == []


def test_no_worker_outlives_a_run_that_fails(tmp_path):
    run = trainer(tmp_path, workers=1)
    run._update = lambda used: run._fail(used, float("nan"))
    with pytest.raises(TrainingError) as caught:
        run.run()
    assert caught.tb is not None
    assert multiprocessing.active_children() == []


def test_precision_and_parts_follow_the_device():
    base = recipe(precision="amp", accumulate=0, batch=16)
    assert precision(base, torch.device("cuda")) == "fp16"
    assert precision(base, torch.device("cpu")) in ("bf16", "fp32")
    with pytest.raises(InputError, match="fp16 needs a CUDA GPU"):
        precision(recipe(precision="fp16"), torch.device("cpu"))
    large = replace(base, data=replace(base.data, crop=465, frames=5))
    assert shares(large, CPU) == Shares(16, 8)
    assert shares(large, CPU).part == 2
    assert shares(replace(base, data=replace(base.data, crop=97)), CPU).accumulate == 1


def test_uneven_shares_are_refused():
    with pytest.raises(InputError, match="choose a multiple of 3"):
        shares(recipe(batch=4), Processes(0, 3, torch.device("cpu")))


def test_every_clip_of_a_step_is_computed_once():
    for step in range(3):
        seen = [i for rank in range(2) for part in range(3) for i in Shares(12, 3, rank, 2).indices(step, part)]
        assert sorted(seen) == list(range(12 * step, 12 * step + 12))


def test_the_loader_begins_where_it_is_told():
    batches = loader(Squares(), Shares(4, 2), 5, 7, seed=0, max_objects=10, workers=0, pin=False)
    assert [batch.indices.tolist() for batch in batches] == [[20, 21], [22, 23], [24, 25], [26, 27]]


def test_objects_beyond_the_limit_become_background():
    labels = torch.tensor([[[0, 1, 2], [3, 4, 255]], [[1, 1, 2], [3, 4, 0]]])
    limited = limit_objects(labels, 4, 2, np.random.default_rng(0))
    assert set(limited[0].flatten().tolist()) == {0, 1, 2, 255}
    assert (limited[0] == 1).sum() == (limited[0] == 2).sum() == 1
    kept = {int(labels[0].flatten()[(limited[0] == i).flatten()]) for i in (1, 2)}
    assert torch.equal(limited[1] > 0, torch.isin(labels[1], torch.tensor(sorted(kept))))


def test_a_strip_shows_frames_truth_and_prediction():
    clip = Squares()[0]
    batch = collate([(clip.images, clip.labels, clip.count, 0)])
    image = strip(batch, batch.labels)
    assert image.shape == (3 * 33, 4 * 33, 3)
    assert (image[:33, :33] == clip.images[0].permute(1, 2, 0).numpy()).all()
    assert (image[33:66] == image[66:]).all()


def test_a_short_run_goes_through_all_phases():
    short = recipe(steps=1000, save_every=500, log_every=100).shortened(10)
    assert short.run.steps == 10
    assert short.run.save_every == 5
    assert short.run.log_every == 2


def test_a_single_process_is_found_without_an_environment(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    found = join("cpu")
    assert (found.rank, found.world, found.leads) == (0, 1, True)
    assert found.mean(torch.ones(2)).tolist() == [1, 1]


@pytest.mark.slow
def test_a_compiled_encoder_computes_the_same(tmp_path, uninterrupted):
    trainer(tmp_path, compile=True).run()
    for name, value in weights(tmp_path).items():
        torch.testing.assert_close(value, uninterrupted[name], atol=2e-4, rtol=2e-3)


def test_training_without_an_average_saves_the_live_weights(tmp_path):
    base = recipe(3)
    run = Trainer(Dummy(), replace(base, optim=replace(base.optim, ema=None)), Squares(), tmp_path, CPU)
    result = run.run()
    assert result.weights is not None
    assert torch.equal(load_file(result.weights)["key.weight"], run.model.key.weight)
    assert not (tmp_path / "weights-live.safetensors").exists()
