"""Checkpoints: whole or not at all, cut into files, the newest whole one found."""

from __future__ import annotations

import errno
import json

import pytest
import torch

from vosformer.errors import OutputError, WeightsError
from vosformer.train import checkpoint as checkpoints
from vosformer.train.checkpoint import Checkpoint, load, newest, save


def make(step: int, scale: float = 1.0) -> Checkpoint:
    random = torch.Generator().manual_seed(step)
    model = {"a.weight": scale * torch.randn(300, 700, generator=random), "a.bias": torch.randn(7, generator=random)}
    model["tied"] = model["a.weight"]
    channels_last = torch.randn(2, 3, 4, 5, generator=random).contiguous(memory_format=torch.channels_last)
    optimizer = {"a.weight|exp_avg": channels_last, "a.weight|step": torch.tensor(5.0)}
    return Checkpoint(step, {"model": model, "optimizer": optimizer}, {"seed": 3})


def same(one: Checkpoint, two: Checkpoint) -> bool:
    return all(torch.equal(t, two.parts[part][n]) for part, tensors in one.parts.items() for n, t in tensors.items())


def test_what_is_saved_comes_back(tmp_path):
    saved = make(12)
    path = save(tmp_path, saved, keep=2)
    assert path.name == "step-00000012"
    back = load(path)
    assert (back.step, back.state["seed"]) == (12, 3)
    assert same(saved, back)


def test_files_stay_below_the_limit(tmp_path):
    big = Checkpoint(1, {"model": {f"t{i}": torch.randn(100_000) for i in range(12)} | {"huge": torch.randn(1000, 1100)}}, {})
    path = save(tmp_path, big, keep=1, shard_mib=1)
    sizes = [file.stat().st_size for file in path.glob("*.safetensors")]
    assert len(sizes) >= 9
    assert max(sizes) <= 1 << 20
    assert same(big, load(path))


def test_only_the_newest_are_kept(tmp_path):
    for step in (1, 2, 3, 10):
        save(tmp_path, make(step), keep=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000003", "step-00000010"]


def test_the_one_just_written_is_kept_and_those_it_was_resumed_before_are_not(tmp_path):
    for step in (1, 2, 3):
        save(tmp_path, make(step), keep=5)
    (tmp_path / "step-00000003" / "model.safetensors").unlink()
    save(tmp_path, make(2), keep=1)
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000002"]
    assert newest(tmp_path).step == 2


@pytest.mark.parametrize("damage", ["cut", "flip", "gone", "state"])
def test_a_damaged_newest_one_is_skipped_with_a_warning(tmp_path, damage):
    save(tmp_path, make(1), keep=5)
    path = save(tmp_path, make(2), keep=5)
    file = path / "model.safetensors"
    data = bytearray(file.read_bytes())
    if damage == "cut":
        file.write_bytes(data[:-100])
    elif damage == "flip":
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
    elif damage == "gone":
        file.unlink()
    else:
        (path / "state.json").write_text("{")
    with pytest.warns(UserWarning, match="step-00000002"):
        found = newest(tmp_path)
    assert found is not None
    assert found.step == 1


def test_all_damaged_is_an_error(tmp_path):
    path = save(tmp_path, make(1), keep=5)
    (path / "model.safetensors").unlink()
    with pytest.warns(UserWarning, match="skipped"), pytest.raises(WeightsError, match="damaged"):
        newest(tmp_path)


def test_no_checkpoint_is_none(tmp_path):
    assert newest(tmp_path / "nothing") is None


def test_a_full_disk_leaves_the_older_ones_alone(tmp_path, monkeypatch):
    save(tmp_path, make(1), keep=1)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoints, "save_file", full)
    with pytest.raises(OutputError, match="the disk is full"):
        save(tmp_path, make(2), keep=1)
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000001"]
    assert load(tmp_path / "step-00000001").step == 1


def test_half_written_ones_are_never_seen_and_cleaned_up(tmp_path):
    draft = tmp_path / ".tmp-step-00000009"
    draft.mkdir()
    (draft / "model.safetensors").write_bytes(b"half")
    assert newest(tmp_path) is None
    save(tmp_path, make(1), keep=1)
    assert not draft.exists()


def test_state_is_readable_json(tmp_path):
    path = save(tmp_path, make(4), keep=1)
    state = json.loads((path / "state.json").read_text())
    assert state["step"] == 4
    assert len(state["files"]["model"]["model.safetensors"]) == 64
