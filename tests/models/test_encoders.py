"""ResNet and Swin: names, numbers recorded from the official code, freezing, stochastic depth, sizes that nothing divides."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from aot_recordings import fill_value, make_clip
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from vosformer.encoders import swin as swin_module
from vosformer.encoders.resnet import ResNet, resnet50
from vosformer.encoders.swin import Swin, SwinBlock, swin_base
from vosformer.geometry import Geometry
from vosformer.nn.drop import DropPath
from vosformer.nn.norm import FrozenBatchNorm2d

FIXTURES = Path(__file__).parents[1] / "fixtures"
RELEASED = {"R50_DeAOTL": (resnet50, True), "SwinB_DeAOTL": (swin_base, False)}


def small_resnet(**options: int) -> ResNet:
    return ResNet(width=8, depths=(1, 2, 1), **options)


def small_swin(**options: float) -> Swin:
    return Swin(embed=8, depths=(2, 2, 2), heads=(1, 2, 4), window=4, **options)  # type: ignore[arg-type]


def scrambled(model: nn.Module, seed: int = 0) -> nn.Module:
    """Everything random, norms' statistics and biases too."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            value = torch.randn(tensor.shape, generator=generator) * 0.3
            tensor.copy_(value.abs() + 0.5 if name.endswith(("running_var", "norm.weight")) else value)
    return model


@pytest.mark.parametrize("name", RELEASED)
def test_tensors_have_the_official_names_shapes_and_kinds(name: str) -> None:
    keys = json.loads(gzip.decompress((FIXTURES / "aot_keys.json.gz").read_bytes()))[name]
    wanted = {key.removeprefix("encoder."): tuple(value) for key, value in keys.items() if key.startswith("encoder.")}
    with torch.device("meta"):
        model = RELEASED[name][0]()
    parameters = dict(model.named_parameters())
    found = {
        key: ("p" if key in parameters else "b", str(tensor.dtype).removeprefix("torch."), *tensor.shape)
        for key, tensor in model.state_dict().items()
    }
    assert found == wanted


@pytest.mark.parametrize("name", RELEASED)
def test_maps_equal_the_recorded_ones(name: str) -> None:
    build, aligned = RELEASED[name]
    model = build().eval()
    for key, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            tensor.copy_(fill_value(f"encoder.{key}", tensor.shape))
    size = (97, 129) if aligned else (96, 128)
    geometry = Geometry("resize", aligned)
    image = geometry.image(make_clip(size, 2, "three")[1][0], geometry.place(*size, None))
    recorded = np.load(FIXTURES / "aot" / f"{name}.npz")
    with torch.inference_mode():
        *maps, final = model(image)
    assert final is maps[-1]
    for level, map_, channels in zip(("enc4", "enc8", "enc16"), maps, model.channels, strict=False):
        assert map_.shape[1] == channels
        assert np.abs(map_[0].mean((1, 2)).numpy() - recorded[f"trace_{level}_chmean"]).max() < 2e-5
        assert np.abs(map_[0, 0].numpy() - recorded[f"trace_{level}_ch0"]).max() < 2e-5


def plain_resnet(model: ResNet, x: Tensor) -> list[Tensor]:
    """The definition, one operation after the other."""

    def norm(y: Tensor, n: FrozenBatchNorm2d) -> Tensor:
        return F.batch_norm(y, n.running_mean, n.running_var, n.weight, n.bias, False, 0.0, n.eps)

    x = F.max_pool2d(norm(model.conv1(x), model.bn1).relu(), 3, 2, 1)
    maps = []
    for stage in (model.layer1, model.layer2, model.layer3):
        for block in stage:
            y = norm(block.conv1(x), block.bn1).relu()
            y = norm(block.conv2(y), block.bn2).relu()
            y = norm(block.conv3(y), block.bn3)
            x = (y + (x if block.downsample is None else norm(block.downsample[0](x), block.downsample[1]))).relu()
        maps.append(x)
    return maps


def test_resnet_is_its_definition() -> None:
    model = scrambled(small_resnet()).double()
    x = torch.randn(2, 3, 45, 70, dtype=torch.float64)
    *maps, _ = model(x)
    for found, wanted in zip(maps, plain_resnet(model, x), strict=True):  # type: ignore[arg-type]
        torch.testing.assert_close(found, wanted)


def plain_block(block: SwinBlock, x: Tensor) -> Tensor:
    """A Swin block token by token: which others a token sees, and with which bias, worked out from its coordinates."""
    _, h, w, C = x.shape
    side, shift, heads = block.window, block.shift, block.attn.heads
    rows, columns = -(-h // side) * side, -(-w // side) * side
    normed = F.pad(block.norm1(x), (0, 0, 0, columns - w, 0, rows - h))
    q, k, v = block.attn.qkv(normed).unflatten(-1, (3, heads, C // heads)).unbind(3)
    out = torch.zeros_like(normed)

    def window_of(y: int, z: int) -> tuple[int, int]:
        return (y - shift) % rows // side, (z - shift) % columns // side

    def place_in_window(y: int, z: int) -> tuple[int, int]:
        return (y - shift) % rows % side, (z - shift) % columns % side

    def wrapped(y: int, z: int) -> tuple[bool, bool]:
        return y < shift, z < shift

    for y in range(rows):
        for z in range(columns):
            seen = [(a, b) for a in range(rows) for b in range(columns) if window_of(a, b) == window_of(y, z)]
            logits = torch.stack([(q[:, y, z] * k[:, a, b]).sum(-1) for a, b in seen], -1) * (C // heads) ** -0.5
            for i, (a, b) in enumerate(seen):
                (py, pz), (pa, pb) = place_in_window(y, z), place_in_window(a, b)
                row = (py - pa + side - 1) * (2 * side - 1) + pz - pb + side - 1
                logits[..., i] += block.attn.relative_position_bias_table[row]
                if shift and wrapped(y, z) != wrapped(a, b):
                    logits[..., i] -= 100
            values = torch.stack([v[:, a, b] for a, b in seen], -1)
            out[:, y, z] = (logits.softmax(-1)[:, :, None] * values).sum(-1).flatten(1)
    x = x + block.attn.proj(out)[:, :h, :w]
    return x + block.mlp(block.norm2(x))


@pytest.mark.parametrize("shift", [0, 1])
@pytest.mark.parametrize("size", [(3, 3), (2, 5), (5, 7)])
def test_swin_block_is_its_definition(size: tuple[int, int], shift: int) -> None:
    block = scrambled(SwinBlock(4, 2, window=3, shift=shift, drop_path=0.0)).double()
    x = torch.randn(2, *size, 4, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(block(x), plain_block(block, x))  # type: ignore[arg-type]


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 70), st.integers(1, 70), st.sampled_from([small_resnet, small_swin]))
def test_any_size_gives_maps_of_the_rounded_up_sizes(height: int, width: int, build: type[ResNet] | type[Swin]) -> None:
    model = build().eval()
    with torch.inference_mode():
        maps = model(torch.randn(1, 3, height, width))
    for map_, stride, channels in zip(maps, (4, 8, 16, 16), model.channels, strict=True):
        assert map_.shape == (1, channels, -(-height // stride), -(-width // stride))
        assert map_.isfinite().all()


@pytest.mark.parametrize("build", [small_resnet, small_swin])
def test_images_of_a_batch_do_not_touch_each_other(build: type[ResNet] | type[Swin]) -> None:
    model = scrambled(build()).eval()
    images = torch.randn(3, 3, 49, 65)
    with torch.inference_mode():
        together = model(images)
        for i in range(3):
            for all_, one in zip(together, model(images[i : i + 1]), strict=True):
                torch.testing.assert_close(all_[i : i + 1], one, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("build", "freeze_at", "frozen"),
    [
        (small_resnet, 0, ()),
        (small_resnet, 1, ("conv1",)),
        (small_resnet, 2, ("conv1", "layer1")),
        (small_resnet, 4, ("conv1", "layer1", "layer2", "layer3")),
        (small_swin, 0, ()),
        (small_swin, 1, ("patch_embed",)),
        (small_swin, 2, ("patch_embed", "layers.0.blocks")),
        (small_swin, 3, ("patch_embed", "layers.0.blocks", "layers.1.blocks")),
    ],
)
def test_exactly_the_stages_below_freeze_at_are_frozen_and_the_rest_learns(
    build: type[ResNet] | type[Swin], freeze_at: int, frozen: tuple[str, ...]
) -> None:
    torch.manual_seed(0)
    model = build(freeze_at=freeze_at).train()
    for module in model.modules():
        if isinstance(module, DropPath):
            module.rate = 0.0
    f4, f8, f16, _ = model(torch.randn(2, 3, 64, 64))
    if f16.requires_grad:
        (f4.square().mean() + f8.square().mean() + f16.square().mean()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == (not name.startswith(frozen)), name
        assert (parameter.grad is not None) == parameter.requires_grad, name
        if parameter.requires_grad:
            assert parameter.grad.abs().max() > 0, name  # type: ignore[union-attr]


def test_released_freezing_and_stochastic_depth() -> None:
    with torch.device("meta"):
        swin, resnet = swin_base(), resnet50()
    rates = [[block.drop_path.rate for block in stage.blocks] for stage in swin.layers]  # type: ignore[union-attr]
    assert rates[0] == [0, 0]
    assert rates[1] == pytest.approx([0.3 * i / 23 for i in (2, 3)])
    assert rates[2][-1] == pytest.approx(0.3 * 21 / 23)  # the released rates go on through the fourth stage
    assert [len(stage.blocks) for stage in swin.layers] == [2, 2, 18]  # type: ignore[arg-type]
    assert swin.layers[0].downsample.reduction.weight.requires_grad  # type: ignore[union-attr]
    assert not resnet.layer1[0].conv1.weight.requires_grad
    assert resnet.layer2[0].conv1.weight.requires_grad


def test_stochastic_depth_acts_in_training_only_and_not_in_frozen_blocks() -> None:
    torch.manual_seed(0)
    model = scrambled(small_swin(drop_path=0.9, freeze_at=2))
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        evaluated, again = model.eval()(x), model(x)
        trained = [model.train()(x) for _ in range(4)]
    assert all(torch.equal(a, b) for a, b in zip(evaluated, again, strict=True))
    assert all(torch.equal(evaluated[0], maps[0]) for maps in trained)
    assert any(not torch.equal(evaluated[2], maps[2]) for maps in trained)


def test_bfloat16_stays_close() -> None:
    image = torch.randn(1, 3, 64, 64)
    for build in (small_resnet, small_swin):
        model = build().eval()
        with torch.inference_mode():
            exact = model(image)[2]
            close = model.bfloat16()(image.bfloat16())[2]
        assert close.dtype == torch.bfloat16
        assert (close.float() - exact).abs().mean() < 0.02 * exact.abs().mean() + 0.02


def test_the_cache_of_shift_masks_is_bounded_and_serves_training_after_inference() -> None:
    model = small_swin(drop_path=0.0)
    with torch.inference_mode():
        model(torch.randn(1, 3, 64, 64))
    model(torch.randn(1, 3, 64, 64))[2].sum().backward()
    sizes = [(8, 8 * n, 4, 2, torch.device("cpu"), torch.float32) for n in range(1, 34)]
    first = swin_module._shift_mask(*sizes[0])
    assert swin_module._shift_mask(*sizes[0]) is first
    for size in sizes[1:]:
        swin_module._shift_mask(*size)
    assert swin_module._shift_mask(*sizes[0]) is not first
