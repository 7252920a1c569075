"""The maps that are shown are the weights that the model uses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from dummy_models import flat_clip
from PIL import Image

from vosformer.cli import main
from vosformer.errors import InputError
from vosformer.inference.session import Session
from vosformer.inspection.weight_maps import inspect_maps
from vosformer.registry import new_model, variant
from vosformer.weights.saving import save_weights


def looked(name: str, point: tuple[int, int] | None = None, **options):
    torch.manual_seed(0)
    model = variant(name).build(tiny=True, **options).eval()
    for parameter in model.parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)
    session = Session(model, device="cpu", dtype="fp32", size=None)
    images, labels = flat_clip((1, 2), 3, (64, 96))
    clip = [(image, labels[0] if t == 0 else None) for t, image in enumerate(images)]
    return session, inspect_maps(session, clip, point)


@pytest.mark.parametrize("name", ["aot-l", "aost", "deaot-l", "jointformer-tiny"])
def test_weights_of_one_attention_add_up_to_one(name):
    _, views = looked(name, (40, 30))
    assert views[-1].point == (40, 30)
    totals: dict[str, float] = {}
    for each in views[-1].maps:
        if not each.name.startswith("compressed"):
            totals[each.name] = totals.get(each.name, 0.0) + float(each.weights.sum())
    assert len(totals) > 1
    assert list(totals.values()) == [pytest.approx(1.0, abs=1e-5)] * len(totals)


@pytest.mark.parametrize(("name", "part"), [("aot-t", "long_term_attn"), ("aot-t", "short_term_attn")])
def test_the_maps_of_aot_are_what_its_attention_uses(name, part):
    """With one head, the map times the values of the memory is what the attention gives at that token."""
    torch.manual_seed(0)
    model = variant(name).build(tiny=True, heads=1, layers=1).eval()
    kept = {}
    module = getattr(model.LSTT.layers[0], part)
    module.register_forward_hook(lambda _, inputs, output: kept.update(inputs=inputs, output=output))
    session = Session(model, device="cpu", dtype="fp32", size=None)
    images, labels = flat_clip((1, 2), 2, (64, 96))
    clip = [(image, labels[0] if t == 0 else None) for t, image in enumerate(images)]
    views = inspect_maps(session, clip, (50, 20))
    kind = "long-term" if part == "long_term_attn" else "short-term"
    (found,) = [each for each in views[-1].maps if kind in each.name]
    past = kept["inputs"][1]
    values = past["v"] if kind == "long-term" else past[0]["v"]
    weights = torch.from_numpy(found.weights).flatten()
    height, width = found.weights.shape
    token = int(20.5 * (16 * (height - 1) + 1) / 64 / 16 + 0.5) * width + int(50.5 * (16 * (width - 1) + 1) / 96 / 16 + 0.5)
    expected = module.projection(weights[None] @ values[0].float())[0]
    torch.testing.assert_close(kept["output"][0, token], expected, rtol=1e-4, atol=1e-5)


def test_prototypes_of_simvos_come_from_their_own_side_of_the_mask():
    _, views = looked("simvos-bs")
    front, back = views[0].maps
    assert (front.name, back.name) == ("foreground prototypes", "background prototypes")
    assert front.weights.sum() == pytest.approx(1, abs=1e-5)
    assert not (front.weights * back.weights).any()


def test_each_compressed_memory_has_a_map_of_its_own():
    _, views = looked("jointformer-tiny")
    gates = [each for each in views[-1].maps if each.name.startswith("compressed")]
    assert [each.name for each in gates] == ["compressed memory, object 1", "compressed memory, object 2"]
    assert all(each.weights.min() > 0 and each.weights.max() < 1 for each in gates)
    assert not np.array_equal(gates[0].weights, gates[1].weights)


@pytest.mark.parametrize("name", ["jointformer-tiny", "aot-t", "simvos-bs"])
def test_looking_changes_nothing(name):
    session, _ = looked(name)
    plain = Session(session.model, device="cpu", dtype="fp32", size=None)
    images, labels = flat_clip((1, 2), 4, (64, 96))
    for t, image in enumerate(images[:3]):
        plain.step(image, labels[0] if t == 0 else None)
    assert torch.equal(torch.from_numpy(plain.step(images[3]).labels), torch.from_numpy(session.step(images[3]).labels))


def test_what_cannot_be_seen_is_said():
    with pytest.raises(InputError, match="outside"):
        looked("aot-t", (500, 3))
    with pytest.raises(InputError, match="prototypes"):
        looked("simvos-b")
    with pytest.raises(InputError, match="OneVOS are not known"):
        looked("onevos-tiny")


def test_the_command_draws_maps(tmp_path):
    images, labels = flat_clip((1, 2), 3, (64, 96))
    (tmp_path / "frames").mkdir()
    for t, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f"frames/{t:05d}.png")
    Image.fromarray(labels[0].astype(np.uint8)).save(tmp_path / "mask.png")
    save_weights(new_model("jointformer-tiny"), "jointformer-tiny", tmp_path / "w.safetensors")
    words = ["inspect", str(tmp_path / "frames"), "--mask", str(tmp_path / "mask.png"), "-o", str(tmp_path / "out")]
    words += [
        "--model",
        "jointformer-tiny",
        "--weights",
        str(tmp_path / "w.safetensors"),
        "--size",
        "64",
        "--point",
        "30",
        "20",
    ]
    assert main(words) == 0
    assert (tmp_path / "out/maps_00002.png").stat().st_size > 1000
    with np.load(tmp_path / "out/maps.npz") as numbers:
        assert any("compressed memory" in name for name in numbers.files)


@pytest.mark.parametrize(("mode", "sees"), [("a", {0, 1, 2}), ("b", {0, 1}), ("c", {1, 2})])
def test_a_reference_region_is_looked_from_in_every_mode(mode, sees):
    """JointFormer's Fig. 8: references see all frames (a), each other (b), or themselves and the current frame (c)."""
    _, views = looked("jointformer-tiny", (40, 30), mode=mode)
    maps = [one for one in views[-1].maps if one.name.endswith("as reference")]
    assert maps
    for name in {one.name for one in maps}:
        layer = [one for one in maps if one.name == name]
        assert {one.frame for one in layer} == sees
        assert sum(float(one.weights.sum()) for one in layer) == pytest.approx(1, abs=1e-4)


def test_windows_are_not_looked_into(tmp_path, capsys):
    """The packaged weights follow these small disks in windows; their maps are those of the whole frame all the same."""
    images, labels = flat_clip((1, 2), 3, (96, 128))
    (tmp_path / "frames").mkdir()
    for number, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / "frames" / f"{number:05d}.png")
    Image.fromarray(labels[0].astype(np.uint8)).save(tmp_path / "mask.png")
    words = [
        "inspect",
        str(tmp_path / "frames"),
        "--mask",
        str(tmp_path / "mask.png"),
        "-o",
        str(tmp_path / "out"),
        "--size",
        "64",
    ]
    assert main([*words, "--model", "default-fast", "--frames", "2", "--pictures", "1"]) == 0, capsys.readouterr().err
    assert list((tmp_path / "out").glob("*.png"))
    with pytest.raises(InputError, match='closer="off"'):
        inspect_maps(Session("default-fast", device="cpu", dtype="fp32"), [])
