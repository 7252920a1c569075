"""Weights: safe loading, fingerprints, errors that name what is wrong, saving with a hash, conversion, pre-training files."""

from __future__ import annotations

import argparse
import gzip
import json
import os
import pickle
import re
import stat
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import vosformer.weights.loading as loading
from vosformer import registry
from vosformer.cli import weights as cli
from vosformer.convert import adapter
from vosformer.encoders.resnet import ResNet
from vosformer.encoders.swin import Swin
from vosformer.errors import InputError, OutputError, VOSError, WeightsError
from vosformer.models import aot
from vosformer.weights import build, convert, inspect, load_pretrained_encoder, load_weights, read_weights, save_weights
from vosformer.weights.matching import compare, fitting_variants, skeleton

FIXTURES = Path(__file__).parents[1] / "fixtures"
TINY = "test-aot-tiny"
AOT_T = aot.VARIANTS["aot-t"].build


def official(name: str) -> dict[str, Tensor]:
    """Official names and shapes, without values."""
    keys: dict[str, Any] = {}
    for file in ("aot_keys.json.gz", "vit_keys.json.gz"):
        keys |= json.loads(gzip.decompress((FIXTURES / file).read_bytes()))
    return {key: torch.empty(shape, dtype=getattr(torch, kind), device="meta") for key, (_, kind, *shape) in keys[name].items()}


@pytest.fixture(autouse=True)
def tiny_variant() -> Iterator[None]:
    """A small variant that a user has registered."""
    registry.register(registry.Variant(TINY, "aot", partial(AOT_T, tiny=True), "for tests"))
    yield
    registry._EXTRA.clear()


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return {name: torch.randn_like(tensor) for name, tensor in AOT_T(tiny=True).state_dict().items()}


def equal(model: nn.Module, state: dict[str, Tensor]) -> bool:
    own = model.state_dict()
    return own.keys() == state.keys() and all(torch.equal(own[name], state[name]) for name in own)


# Checkpoints of every form


WRAPPERS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "bare": lambda s: s,
    "state_dict": lambda s: {"state_dict": s, "optimizer": {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": []}},
    "model": lambda s: {"model": s, "epoch": 3, "args": argparse.Namespace(lr=1e-4)},
    "model_state_dict": lambda s: {
        "model_state_dict": s,
        "best": np.float64(0.85),
        "steps": np.int64(7),
        "array": np.arange(3),
    },
    "ema": lambda s: {"ema": s, "decay": 0.999},
}


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    wrapper=st.sampled_from(sorted(WRAPPERS)),
    prefix=st.sampled_from(["", "module.", "_orig_mod.", "module._orig_mod."]),
    suffix=st.sampled_from([".pth", ".safetensors", ".bin"]),
    mask_token=st.booleans(),
    seed=st.randoms(use_true_random=False),
)
def test_every_form_of_checkpoint_loads(
    tmp_path: Path, state: dict[str, Tensor], wrapper: str, prefix: str, suffix: str, mask_token: bool, seed: Any
) -> None:
    names = list(state)
    seed.shuffle(names)
    tensors = {prefix + name: state[name] for name in names}
    if mask_token:
        tensors[f"{prefix}LSTT.mask_token"] = torch.zeros(1, 1, 32)
    path = tmp_path / f"weights{suffix}"
    if suffix == ".safetensors":
        safetensors.torch.save_file(tensors, path)
    else:
        torch.save(WRAPPERS[wrapper](tensors), path)
    model = build(TINY, path)
    assert equal(model, state)
    assert not model.training
    assert equal(load_weights(AOT_T(tiny=True), path), state)
    assert equal(load_weights(TINY, path), state)


def test_old_torch_files_and_whole_modules_load(tmp_path: Path, state: dict[str, Tensor]) -> None:
    torch.save({"state_dict": state}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert equal(build(TINY, tmp_path / "old.pth"), state)
    whole = load_weights(AOT_T(tiny=True), tmp_path / "old.pth")
    torch.save({"model": whole}, tmp_path / "module.pth")
    with pytest.raises(WeightsError, match="more than tensors"):
        build(TINY, tmp_path / "module.pth")
    assert equal(build(TINY, tmp_path / "module.pth", trust=True), state)


def test_weights_load_into_half_precision_models_and_stay_on_their_device(tmp_path: Path, state: dict[str, Tensor]) -> None:
    torch.save(state, tmp_path / "w.pth")
    model = AOT_T(tiny=True).bfloat16()
    load_weights(model, tmp_path / "w.pth")
    assert all(torch.equal(tensor, state[name].bfloat16()) for name, tensor in model.state_dict().items())


# Which variant a file is of


OFFICIAL = {
    "AOTT": ("aot-t",),
    "AOTS": ("aot-s",),
    "AOTB": ("aot-b", "aot-l"),
    "AOTL": ("aot-b", "aot-l"),
    "R50_AOTL": ("r50-aot-l",),
    "SwinB_AOTL": ("swinb-aot-l",),
    "DeAOTT": ("deaot-t",),
    "DeAOTS": ("deaot-s",),
    "DeAOTB": ("deaot-b", "deaot-l"),
    "DeAOTL": ("deaot-b", "deaot-l"),
    "R50_DeAOTL": ("r50-deaot-l",),
    "SwinB_DeAOTL": ("swinb-deaot-l",),
    "AOST": ("aost",),
    "R50_AOST": ("r50-aost",),
    "SwinB_AOST": ("swinb-aost",),
    "simvos": ("simvos-b", "simvos-bs"),
    "jointformer": ("jointformer-b",),
    "onevos": ("onevos-b",),
}


@pytest.mark.parametrize("name", OFFICIAL)
def test_official_checkpoints_are_recognized_by_names_and_shapes(name: str) -> None:
    fits, closest = fitting_variants(official(name))
    assert fits == OFFICIAL[name]
    assert closest is None


@pytest.mark.parametrize("name", OFFICIAL)
def test_official_names_come_back(name: str) -> None:
    """Ours -> official -> ours is nothing, and what we write is what the official code reads, save tensors that it never uses."""
    theirs = official(name)
    for variant in OFFICIAL[name]:
        known = registry.variant(variant)
        model = skeleton(known)
        rules, own = adapter(known.system), model.state_dict()
        written = rules.to_official(own, model)
        assert {key: value.shape for key, value in rules.from_official(written, model).items()} == {
            key: value.shape for key, value in own.items()
        }
        assert all(value.shape == theirs[key].shape for key, value in written.items())
        unused = re.compile(
            r"LSTT\.mask_token|cls_token|pos_embed|head\..*|fc_norm\..*|backbone\.backbone\.norm\..*|tlearner.*"
        )
        assert all(unused.fullmatch(key) for key in theirs.keys() - written.keys())


@pytest.mark.parametrize("variant", [v.name for v in registry.variants()])
def test_every_variant_fits_itself_and_its_official_form(variant: str) -> None:
    known = registry.variant(variant)
    model = skeleton(known)
    assert compare(model.state_dict(), model, known.system).good
    assert compare(adapter(known.system).to_official(model.state_dict(), model), model, known.system).good
    assert variant in fitting_variants(model.state_dict())[0]


def test_simvos_b_does_not_need_the_token_refinement_of_its_file() -> None:
    bare = {name: tensor for name, tensor in official("simvos").items() if "tlearner" not in name}
    assert fitting_variants(bare)[0] == ("simvos-b",)


def test_a_variant_registered_later_is_recognized(tmp_path: Path) -> None:
    class Mine(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 4)
            self.scale = float(torch.ones(2).sum())  # looks at values: cannot be built without any

    torch.save({"layer.weight": torch.ones(4, 3), "layer.bias": torch.ones(4)}, tmp_path / "mine.pth")
    assert inspect(tmp_path / "mine.pth").fits == ()
    registry.register(registry.Variant("mine", "my_system", Mine, ""))
    assert inspect(tmp_path / "mine.pth").fits == ("mine",)
    assert build("mine", tmp_path / "mine.pth").layer.weight.sum() == 12


def test_a_file_of_another_variant_is_named(tmp_path: Path) -> None:
    tensors = {name: torch.zeros(t.shape, dtype=t.dtype) for name, t in official("DeAOTT").items()}
    torch.save({"state_dict": tensors}, tmp_path / "d.pth")
    with pytest.raises(WeightsError, match=r"d\.pth fits 'deaot-t', not 'aot-t' .*missing.*extra.*of another shape"):
        build("aot-t", tmp_path / "d.pth")


def test_missing_extra_and_misshaped_tensors_are_named_and_the_model_is_left_alone(
    tmp_path: Path, state: dict[str, Tensor]
) -> None:
    broken = dict(state)
    del broken["decoder.conv_out.bias"]
    broken["decoder.surplus"] = torch.zeros(1)
    broken["encoder_projector.weight"] = torch.zeros(5, 6, 1, 1)
    torch.save(broken, tmp_path / "w.pth")
    model = AOT_T(tiny=True)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(WeightsError) as caught:
        load_weights(model, tmp_path / "w.pth")
    message = str(caught.value)
    assert "1 missing: decoder.conv_out.bias" in message
    assert "1 extra: decoder.surplus" in message
    assert f"encoder_projector.weight [5, 6, 1, 1] instead of {list(state['encoder_projector.weight'].shape)}" in message
    assert "w.pth" in message
    assert equal(model, before)
    with pytest.raises(WeightsError, match=f"closest is '{TINY}'"):
        build("simvos-tiny", tmp_path / "w.pth")


def test_parts_that_may_be_missing_keep_their_values(tmp_path: Path, state: dict[str, Tensor]) -> None:
    torch.save({name: t for name, t in state.items() if not name.startswith("decoder.")}, tmp_path / "w.pth")
    model = AOT_T(tiny=True)
    before = model.state_dict()["decoder.conv_out.weight"].clone()
    with pytest.raises(WeightsError, match=r"missing: decoder\."):
        load_weights(model, tmp_path / "w.pth")
    load_weights(model, tmp_path / "w.pth", allow_missing=[r"decoder\..*"])
    assert torch.equal(model.state_dict()["decoder.conv_out.weight"], before)
    assert torch.equal(model.state_dict()["encoder_projector.bias"], state["encoder_projector.bias"])


def test_weights_of_other_options_say_so(tmp_path: Path, state: dict[str, Tensor]) -> None:
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=f"fits '{TINY}' as published, not with the options"):
        build(TINY, tmp_path / "w.pth", identities=4)


# Files that are no weights


class Evil:
    """What unpickling must never run."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (f"touch {Evil.mark}",)

    mark: Path


def test_code_in_a_file_is_not_run(tmp_path: Path, state: dict[str, Tensor]) -> None:
    Evil.mark = tmp_path / "was-run"
    torch.save({"state_dict": state, "extra": Evil()}, tmp_path / "evil.pth")
    torch.save({"state_dict": state, "extra": Evil()}, tmp_path / "evil-old.pth", _use_new_zipfile_serialization=False)
    (tmp_path / "evil.pkl").write_bytes(pickle.dumps(Evil(), protocol=4))
    for name in ("evil.pth", "evil-old.pth", "evil.pkl"):
        for use in (read_weights, inspect, partial(build, TINY), partial(load_weights, AOT_T(tiny=True))):
            with pytest.raises(WeightsError, match=name) as caught:
                use(tmp_path / name)
            assert not Evil.mark.exists()
        if name.endswith(".pth"):
            assert re.search(r"more than tensors \((posix|nt)\.system\).*trust", str(caught.value))
    assert equal(build(TINY, tmp_path / "evil.pth", trust=True), state)
    assert Evil.mark.exists()


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html>\n<html><body>Google Drive - Virus scan warning</body></html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "Git LFS pointer"),
        (b"hello, these are my weights\n" * 40, "text file that begins with 'hello, these"),
        ('{"a": "\u00e4\u00f6\u00fc"}'.encode() * 60, "text file"),
        (bytes(range(128, 256)) * 300, "no known format"),
        (b"PK\x03\x04" + b"\0" * 500, "truncated or damaged"),
        (pickle.dumps({"a": [1, 2]}, protocol=4), "damaged torch checkpoint, or another kind of pickle"),
        ((80).to_bytes(8, "little") + b'{"a":', "truncated or damaged safetensors"),
    ],
)
def test_files_that_are_no_weights_are_described(tmp_path: Path, content: bytes, complaint: str) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=complaint) as caught:
        build(TINY, path)
    assert str(path) in str(caught.value)


def test_missing_files_folders_and_empty_checkpoints(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no such weights file"):
        build(TINY, tmp_path / "none.pth")
    with pytest.raises(WeightsError, match="cannot be read"):
        build(TINY, tmp_path)
    for content, complaint in (({"epoch": 1}, "holds no tensors; its entries are 'epoch'"), ([torch.ones(1)], "holds a list")):
        torch.save(content, tmp_path / "w.pth")
        with pytest.raises(WeightsError, match=complaint):
            build(TINY, tmp_path / "w.pth")


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    suffix=st.sampled_from([".pth", ".safetensors"]), cut=st.floats(0, 0.999), flips=st.lists(st.floats(0, 0.999), max_size=4)
)
def test_a_damaged_file_is_refused_or_equal_but_never_a_crash(
    tmp_path: Path, state: dict[str, Tensor], suffix: str, cut: float, flips: list[float]
) -> None:
    path = tmp_path / f"w{suffix}"
    if suffix == ".pth":
        torch.save({"state_dict": state}, path)
    else:
        model = AOT_T(tiny=True)
        model.load_state_dict(state)
        save_weights(model, TINY, path, dtype=torch.float32)
    data = bytearray(path.read_bytes())
    for place in flips:
        data[int(place * len(data))] ^= 0x41
    path.write_bytes(data if flips else data[: int(cut * len(data))])
    try:
        loaded = build(TINY, path)
    except WeightsError as error:
        assert str(path) in str(error)  # noqa: PT017 (other outcomes are right, too)
    else:
        assert flips, "a truncated file was loaded"
        assert suffix == ".pth" or equal(loaded, state), "corrupted values passed the hash"


def test_values_that_are_not_finite_are_refused(tmp_path: Path, state: dict[str, Tensor]) -> None:
    bad = {**state, "decoder.conv_out.bias": torch.full_like(state["decoder.conv_out.bias"], torch.nan)}
    torch.save(bad, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"NaN or infinity\) in 1 tensors, e\.g\. decoder\.conv_out\.bias"):
        build(TINY, tmp_path / "w.pth")
    model = AOT_T(tiny=True)
    model.load_state_dict(bad)
    with pytest.raises(WeightsError, match=r"decoder\.conv_out\.bias holds NaN"):
        save_weights(model, TINY, tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()


# Saving


def test_saved_weights_come_back(tmp_path: Path, state: dict[str, Tensor]) -> None:
    model = AOT_T(tiny=True)
    model.load_state_dict(state)
    path = save_weights(model, TINY, tmp_path / "new" / "w.safetensors", {"recipe": "deaot-pre", "scores": {"dev": 0.87}})
    again = build(TINY, path)
    for name, tensor in again.state_dict().items():
        wanted = state[name] if tensor.dim() < 2 else state[name].half().float()
        assert torch.equal(tensor, wanted), name
    info = inspect(path)
    assert info.format == "safetensors"
    assert TINY in info.fits
    assert info.metadata["recipe"] == "deaot-pre"
    assert json.loads(info.metadata["scores"]) == {"dev": 0.87}
    assert info.metadata["variant"] == TINY
    assert info.metadata["vosformer"]
    assert info.parameters == sum(tensor.numel() for tensor in state.values())
    assert info.names.keys() == state.keys()
    assert info.dtypes == {
        "float32": sum(t.dim() < 2 for t in state.values()),
        "float16": sum(t.dim() >= 2 for t in state.values()),
    }
    assert stat.S_IMODE(path.stat().st_mode) & 0o400
    assert [each.name for each in path.parent.iterdir()] == ["w.safetensors"]


def test_the_options_of_a_model_are_kept_in_its_file(tmp_path: Path) -> None:
    model = registry.new_model(TINY, identities=4, window=5)
    path = save_weights(model, TINY, tmp_path / "w.safetensors")
    assert build(TINY, path).slot_size == 4
    again = save_weights(build(TINY, path, gap=3), TINY, tmp_path / "again.safetensors")
    assert json.loads(read_weights(again).metadata["overrides"]) == {"identities": 4, "window": 5, "gap": 3}
    stated = save_weights(model, TINY, tmp_path / "stated.safetensors", overrides={"identities": 4})
    assert json.loads(read_weights(stated).metadata["overrides"]) == {"identities": 4}
    assert load_weights(TINY, path).slot_size == 4
    assert inspect(path).fits == (TINY,)
    with pytest.raises(WeightsError, match="does not fit"):
        build(TINY, path, identities=6)
    with pytest.raises(InputError, match="there is no option 'identitis'; did you mean: identities"):
        build(TINY, identitis=4)


def test_what_float16_cannot_hold_stays_float32(tmp_path: Path, state: dict[str, Tensor]) -> None:
    big = {**state, "encoder_projector.weight": state["encoder_projector.weight"] * 1e6}
    model = AOT_T(tiny=True)
    model.load_state_dict(big)
    again = build(TINY, save_weights(model, TINY, tmp_path / "w.safetensors"))
    assert torch.equal(again.state_dict()["encoder_projector.weight"], big["encoder_projector.weight"])


def test_a_changed_tensor_is_detected(tmp_path: Path) -> None:
    path = save_weights(registry.new_model(TINY), TINY, tmp_path / "w.safetensors")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(WeightsError, match="is corrupted: the SHA-256"):
        build(TINY, path)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_weights(registry.new_model(TINY), TINY, tmp_path / "w.safetensors")
    before = path.read_bytes()

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match=r"w\.safetensors cannot be written: the disk is full"):
        save_weights(registry.new_model(TINY), TINY, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_metadata_that_cannot_be_kept_is_refused(tmp_path: Path) -> None:
    model = registry.new_model(TINY)
    with pytest.raises(InputError, match="must not set sha256"):
        save_weights(model, TINY, tmp_path / "w.safetensors", {"sha256": "0"})
    with pytest.raises(InputError, match="must be JSON values"):
        save_weights(model, TINY, tmp_path / "w.safetensors", {"thing": object()})
    with pytest.raises(InputError, match="no variant 'nobody'"):
        save_weights(model, "nobody", tmp_path / "w.safetensors")


# The packaged weights


def test_default_is_what_the_packaged_file_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: dict[str, Tensor]
) -> None:
    monkeypatch.setattr(loading, "packaged", dict)
    with pytest.raises(WeightsError, match="no default weights"):
        build("default")
    with pytest.raises(InputError, match="no variant 'defualt'"):
        build("defualt")
    model = registry.new_model(TINY, identities=4)
    path = save_weights(model, TINY, tmp_path / "default.safetensors", overrides={"identities": 4}, dtype=torch.float32)
    monkeypatch.setattr(loading, "packaged", lambda: {"default": path})
    assert equal(build("default"), model.state_dict())
    torch.save(state, tmp_path / "mine.pth")
    assert equal(build("default", tmp_path / "mine.pth"), state)


@pytest.mark.skipif(not loading.packaged(), reason="no weights are packaged yet")
@pytest.mark.parametrize("name", sorted(loading.packaged()))
def test_packaged_weights_build_and_are_small(name: str) -> None:
    assert loading.packaged()[name].stat().st_size <= 25 * 2**20
    assert build(name).slot_size >= 1


# Conversion and the command line


def test_conversion_there_and_back(tmp_path: Path, state: dict[str, Tensor]) -> None:
    torch.save(
        {"state_dict": {f"module.{name}": tensor for name, tensor in state.items()}, "step": 3}, tmp_path / "official.pth"
    )
    assert convert(tmp_path / "official.pth", tmp_path / "ours.safetensors", TINY) == TINY
    assert read_weights(tmp_path / "ours.safetensors").metadata["source"] == "official.pth"
    assert convert(tmp_path / "ours.safetensors", tmp_path / "back.pth") == TINY
    back = torch.load(tmp_path / "back.pth", weights_only=True)
    assert back.keys() == {"state_dict"}
    assert all(torch.equal(back["state_dict"][name], tensor) for name, tensor in state.items())
    with pytest.raises(InputError, match=r"ends in \.safetensors"):
        convert(tmp_path / "official.pth", tmp_path / "ours.onnx", TINY)
    registry.register(registry.Variant("twin", "aot", partial(AOT_T, gap=3, tiny=True), ""))
    with pytest.raises(WeightsError, match="alike: say which one"):
        convert(tmp_path / "official.pth", tmp_path / "ours.safetensors")


def test_a_first_stage_jointformer_file_gets_a_channel_for_the_other_objects(tmp_path: Path) -> None:
    model = registry.new_model("jointformer-tiny")
    state = adapter("jointformer").to_official(model.state_dict(), model)
    name = "convmae.patch_embed1_memory.proj.weight"
    torch.save({**state, name: state[name][:, :4].clone()}, tmp_path / "w.pth")
    loaded = build("jointformer-tiny", tmp_path / "w.pth").stem.patch_embed1_memory.proj.weight
    assert torch.equal(loaded[:, :4], state[name][:, :4])
    assert 0.015 < loaded[:, 4].std() < 0.025


@pytest.mark.parametrize("variant", ["simvos-tiny", "onevos-tiny", "jointformer-tiny"])
def test_conversion_of_systems_with_other_official_names(variant: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = registry.new_model(variant).eval()
    save_weights(model, variant, tmp_path / "a.safetensors", dtype=torch.float32)
    convert(tmp_path / "a.safetensors", tmp_path / "b.pth")
    bare = "state_dict" not in torch.load(tmp_path / "b.pth", weights_only=True)
    assert bare == (variant != "onevos-tiny")
    assert equal(build(variant, tmp_path / "b.pth"), model.state_dict())


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], state: dict[str, Tensor], monkeypatch: Any) -> None:
    torch.save(state, tmp_path / "w.pth")
    assert cli.convert(tmp_path / "w.pth", tmp_path / "w.safetensors", variant=TINY, dtype="float16") == 0
    assert f"w.safetensors: {TINY}, " in capsys.readouterr().out
    assert cli.inspect(tmp_path / "w.safetensors", names=True) == 0
    text = capsys.readouterr().out
    info = inspect(tmp_path / "w.safetensors")
    assert info.sha256 in text
    assert re.search(rf"fits +.*{TINY}", text)
    assert all(f"{name}  {list(tensor.shape)}" in text for name, tensor in state.items())
    assert cli.inspect(tmp_path / "w.pth", json=True) == 0
    assert json.loads(capsys.readouterr().out)["tensors"] == len(state)
    torch.save({"x": torch.ones(1)}, tmp_path / "x.pth")
    assert cli.inspect(tmp_path / "x.pth") == 1
    monkeypatch.setattr(cli, "packaged", lambda: {"default": tmp_path / "w.safetensors"})
    assert cli.info() == 0
    assert info.metadata["sha256"] in capsys.readouterr().out
    with pytest.raises(InputError, match="neither a file nor the name"):
        cli.info("other")


# Pre-training files


def imagenet_resnet(width: int = 8) -> dict[str, Tensor]:
    """What torchvision saves, with the parts that a segmentation encoder leaves out."""
    state = {name: torch.randn(t.shape).abs() + 0.1 for name, t in ResNet(width, (1, 1, 1)).state_dict().items()}
    counts = {name.replace("running_var", "num_batches_tracked"): torch.tensor(5) for name in state if "running_var" in name}
    return {
        **state,
        **counts,
        "layer4.0.conv1.weight": torch.ones(4, 4, 1, 1),
        "fc.weight": torch.ones(4, 4),
        "fc.bias": torch.ones(4),
    }


def test_an_imagenet_resnet_starts_the_encoder(tmp_path: Path) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = ResNet(8, (1, 1, 1))
            self.decoder = nn.Linear(2, 2)

    file = imagenet_resnet()
    torch.save(file, tmp_path / "resnet.pth")
    model = Model()
    decoder = model.decoder.weight.clone()
    loaded = load_pretrained_encoder(model, tmp_path / "resnet.pth")
    assert set(loaded) == {f"encoder.{name}" for name in model.encoder.state_dict()}
    assert all(torch.equal(tensor, file[name]) for name, tensor in model.encoder.state_dict().items())
    assert torch.equal(model.decoder.weight, decoder)
    alone = ResNet(8, (1, 1, 1))
    load_pretrained_encoder(alone, tmp_path / "resnet.pth")
    assert equal(alone, model.encoder.state_dict())


def test_batch_norm_folded_into_the_convolutions_gives_the_same_maps(tmp_path: Path) -> None:
    torch.manual_seed(0)
    whole = ResNet(8, (1, 1, 1)).eval()
    whole.load_state_dict({name: tensor for name, tensor in imagenet_resnet().items() if name in whole.state_dict()})
    state, folded = whole.state_dict(), {}
    norms = {"conv": "bn", "downsample.0": "downsample.1"}
    for name, weight in state.items():
        if name.endswith("weight") and weight.dim() == 4:
            stem = name.removesuffix(".weight")
            norm = next(stem.replace(old, new) for old, new in norms.items() if old in stem)
            scale = state[f"{norm}.weight"] / (state[f"{norm}.running_var"] + 1e-5).sqrt()
            folded[name] = weight * scale[:, None, None, None]
            folded[f"{stem}.bias"] = state[f"{norm}.bias"] - state[f"{norm}.running_mean"] * scale
    safetensors.torch.save_file(folded, tmp_path / "folded.safetensors")
    model = ResNet(8, (1, 1, 1)).eval()
    load_pretrained_encoder(model, tmp_path / "folded.safetensors")
    image = torch.randn(1, 3, 33, 49)
    for found, wanted in zip(model(image), whole(image), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_an_imagenet_swin_starts_the_encoder(tmp_path: Path) -> None:
    model = Swin(embed=8, depths=(2, 2, 2), heads=(1, 2, 4), window=4)
    own = {
        name: torch.randn(t.shape)
        for name, t in model.state_dict().items()
        if "index" not in name and not name.startswith("norm")
    }
    extra = {
        "layers.0.blocks.1.attn_mask": torch.ones(1),
        "layers.2.downsample.reduction.weight": torch.ones(64, 128),
        "layers.3.blocks.0.norm1.weight": torch.ones(64),
        "norm.weight": torch.ones(64),
        "norm.bias": torch.ones(64),
        "head.weight": torch.ones(10, 64),
        "head.bias": torch.ones(10),
    }
    torch.save({"model": {**own, **extra}}, tmp_path / "swin.pth")
    before = model.norm0.weight.clone()
    loaded = load_pretrained_encoder(model, tmp_path / "swin.pth")
    assert set(loaded) == own.keys()
    assert torch.equal(model.state_dict()["layers.2.blocks.1.attn.qkv.weight"], own["layers.2.blocks.1.attn.qkv.weight"])
    assert torch.equal(model.norm0.weight, before)


def test_pretraining_files_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    file = imagenet_resnet()
    torch.save(file, tmp_path / "resnet.pth")
    with pytest.raises(WeightsError, match=r"resnet\.pth: none of its .* belongs to the encoder MobileNetV2"):
        load_pretrained_encoder(registry.new_model("aot-t"), tmp_path / "resnet.pth")
    with pytest.raises(WeightsError, match=r"resnet\.pth does not fit .*of another shape: conv1\.weight"):
        load_pretrained_encoder(ResNet(4, (1, 1, 1)), tmp_path / "resnet.pth")
    del file["layer3.0.conv2.weight"]
    torch.save(file, tmp_path / "resnet.pth")
    with pytest.raises(WeightsError, match=r"1 tensors of the encoder ResNet are missing: layer3\.0\.conv2\.weight"):
        load_pretrained_encoder(ResNet(8, (1, 1, 1)), tmp_path / "resnet.pth")


def mae_file(width: int, depth: int) -> dict[str, Tensor]:
    block = {"norm1": (width,), "norm2": (width,), "attn.qkv": (3 * width, width), "attn.proj": (width, width)}
    block |= {"mlp.fc1": (4 * width, width), "mlp.fc2": (width, 4 * width)}
    state = {"cls_token": torch.randn(1, 1, width), "pos_embed": torch.randn(1, 197, width), "mask_token": torch.ones(1, 1, 8)}
    state |= {"patch_embed.proj.weight": torch.randn(width, 3, 16, 16), "patch_embed.proj.bias": torch.randn(width)}
    state |= {"norm.weight": torch.randn(width), "norm.bias": torch.randn(width), "decoder_embed.weight": torch.ones(8, width)}
    for i in range(depth):
        for name, shape in block.items():
            state |= {f"blocks.{i}.{name}.weight": torch.randn(shape), f"blocks.{i}.{name}.bias": torch.randn(shape[0])}
    return state


def test_an_mae_file_starts_simvos(tmp_path: Path) -> None:
    file = mae_file(192, 4)
    torch.save({"model": file, "args": argparse.Namespace(mask_ratio=0.75)}, tmp_path / "mae.pth")
    model = registry.new_model("simvos-tiny")
    load_pretrained_encoder(model, tmp_path / "mae.pth")
    state = model.state_dict()
    assert torch.equal(state["blocks.3.mlp.fc2.weight"], file["blocks.3.mlp.fc2.weight"])
    square = file["pos_embed"][:, 1:].transpose(1, 2).unflatten(2, (14, 14))
    wanted = nn.functional.interpolate(square, (24, 24), mode="bicubic", align_corners=False).flatten(2).transpose(1, 2)
    torch.testing.assert_close(state["positions"][:, 1:], wanted)
    torch.testing.assert_close(state["positions"][:, :1], file["pos_embed"][:, :1])
    for depth, complaint in ((3, r"missing: blocks\.3\.norm1"), (5, r"extra: blocks\.4\.norm1")):
        torch.save(mae_file(192, depth), tmp_path / "mae.pth")
        with pytest.raises(WeightsError, match=complaint):
            load_pretrained_encoder(model, tmp_path / "mae.pth")


@pytest.mark.parametrize("variant", ["onevos-tiny", "jointformer-tiny"])
def test_a_convmae_file_starts_the_convvit_systems(variant: str, tmp_path: Path) -> None:
    torch.manual_seed(2)
    source = registry.new_model("onevos-tiny").backbone
    file = {name: torch.randn(t.shape) for name, t in source.state_dict().items() if "linear_ID_KV" not in name}
    width = file["pos_embed"].shape[2]
    file |= {"pos_embed": torch.randn(1, 196, width), "norm.weight": torch.randn(width), "norm.bias": torch.randn(width)}
    file |= {"mask_token": torch.ones(1, 1, 8), "stage1_output_decode.weight": torch.ones(4, 4, 4, 4)}
    torch.save({"model": file}, tmp_path / "convmae.pth")
    model = registry.new_model(variant)
    loaded = load_pretrained_encoder(model, tmp_path / "convmae.pth")
    state = model.state_dict()
    assert len(loaded) >= len(file) - 4
    stem, blocks, first = {
        "onevos-tiny": ("backbone.", "backbone.blocks3.", ("patch_embed1",)),
        "jointformer-tiny": ("stem.", "blocks.", ("patch_embed1_query", "patch_embed1_memory")),
    }[variant]
    assert torch.equal(state[f"{blocks}0.attn.qkv.weight"], file["blocks3.0.attn.qkv.weight"])
    assert torch.equal(state[f"{stem}blocks2.0.attn.weight"], file["blocks2.0.attn.weight"])
    for name in first:
        assert torch.equal(state[f"{stem}{name}.proj.weight"][:, :3], file["patch_embed1.proj.weight"])
        assert torch.equal(state[f"{stem}{name}.norm.bias"], file["patch_embed1.norm.bias"])
    if variant == "onevos-tiny":
        square = file["pos_embed"].transpose(1, 2).unflatten(2, (14, 14))
        factor = 29.1 / 14
        wanted = nn.functional.interpolate(square, scale_factor=(factor, factor), mode="bicubic", align_corners=False)
        torch.testing.assert_close(state["backbone.pos_embed"], wanted.flatten(2).transpose(1, 2))
    else:
        assert torch.equal(state["positions"], registry.new_model(variant).state_dict()["positions"])


def test_every_error_is_a_users_error() -> None:
    assert issubclass(WeightsError, VOSError)


def test_options_that_an_official_checkpoint_cannot_hold_are_told(tmp_path: Path) -> None:
    save_weights(AOT_T(tiny=True), TINY, tmp_path / "w.safetensors", overrides={"gap": 3})
    with pytest.warns(UserWarning, match="no place for the options gap=3"):
        convert(tmp_path / "w.safetensors", tmp_path / "w.pth")
