"""EfficientNet-Lite1 as an encoder: against its plain form, its file's names, and inside a system."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

import vosformer
from vosformer.encoders.efficientnet_lite import EfficientNetLite1
from vosformer.errors import WeightsError
from vosformer.geometry import MEAN, STD
from vosformer.weights import load_pretrained_encoder

# (repeats, channels, stride, expansion, kernel) of the table that comes with the ImageNet file.
TABLE = [
    (1, 16, 1, 1, 3),
    (3, 24, 2, 6, 3),
    (3, 40, 2, 6, 5),
    (4, 80, 2, 6, 3),
    (4, 112, 1, 6, 5),
    (5, 192, 2, 6, 5),
    (1, 320, 1, 6, 3),
]


def random_file(seed: int = 0) -> dict[str, Tensor]:
    """Every tensor of such a file, by the table alone."""
    generator = torch.Generator().manual_seed(seed)
    tensors: dict[str, Tensor] = {}

    def conv(name: str, outputs: int, inputs: int, kernel: int) -> None:
        tensors[f"{name}.weight"] = (
            torch.randn(outputs, inputs, kernel, kernel, generator=generator) * (1.5 / (inputs * kernel**2)) ** 0.5
        )

    def norm(name: str, channels: int) -> None:
        for part in ("weight", "running_var"):
            tensors[f"{name}.{part}"] = torch.rand(channels, generator=generator) + 0.5
        for part in ("bias", "running_mean"):
            tensors[f"{name}.{part}"] = torch.randn(channels, generator=generator) * 0.2

    conv("_conv_stem", 32, 3, 3)
    norm("_bn0", 32)
    inputs, number = 32, 0
    for repeats, channels, _, expansion, kernel in TABLE:
        for _ in range(repeats):
            block, hidden = f"_blocks.{number}", inputs * expansion
            if expansion > 1:
                conv(f"{block}._expand_conv", hidden, inputs, 1)
                norm(f"{block}._bn0", hidden)
            conv(f"{block}._depthwise_conv", hidden, 1, kernel)
            norm(f"{block}._bn1", hidden)
            conv(f"{block}._project_conv", channels, hidden, 1)
            norm(f"{block}._bn2", channels)
            inputs, number = channels, number + 1
    conv("_conv_head", 1280, 320, 1)
    norm("_bn1", 1280)
    return tensors


def plain(tensors: dict[str, Tensor], pixels: Tensor, stop: int) -> list[Tensor]:
    """The network of the table, float64, as for classification: outputs of the first `stop` blocks; pixels in [0,1]."""
    t = {name: tensor.double() for name, tensor in tensors.items()}

    def norm(x: Tensor, name: str) -> Tensor:
        return F.batch_norm(x, *(t[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")), eps=1e-3)

    x = (pixels.double() - 0.498) / 0.502
    x = norm(F.conv2d(x, t["_conv_stem.weight"], stride=2, padding=1), "_bn0").clamp(0, 6)
    outputs, number = [], 0
    for repeats, channels, stride, expansion, kernel in TABLE:
        for repeat in range(repeats):
            if number == stop:
                return outputs
            block, y = f"_blocks.{number}", x
            if expansion > 1:
                y = norm(F.conv2d(y, t[f"{block}._expand_conv.weight"]), f"{block}._bn0").clamp(0, 6)
            step = stride if repeat == 0 else 1
            y = F.conv2d(y, t[f"{block}._depthwise_conv.weight"], stride=step, padding=kernel // 2, groups=y.shape[1])
            y = norm(y, f"{block}._bn1").clamp(0, 6)
            y = norm(F.conv2d(y, t[f"{block}._project_conv.weight"]), f"{block}._bn2")
            x = x + y if step == 1 and x.shape[1] == channels else y
            outputs.append(x)
            number += 1
    return outputs


def test_maps_are_those_of_the_plain_network_up_to_stride_16():
    tensors = random_file()
    encoder = EfficientNetLite1().double()
    encoder.load_state_dict(tensors)
    pixels = torch.rand(2, 3, 65, 97, generator=torch.Generator().manual_seed(1))
    image = ((pixels - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)).double()
    with torch.no_grad():
        maps = encoder(image)
        expected = plain(tensors, pixels, 15)
    assert [tuple(m.shape) for m in maps] == [(2, 24, 17, 25), (2, 40, 9, 13), (2, 112, 5, 7), (2, 1280, 5, 7)]
    for found, number in zip(maps, (3, 6, 14), strict=False):
        assert torch.allclose(found, expected[number], atol=1e-4 * float(expected[number].abs().max()))


def test_without_its_stride_the_last_stage_sees_the_same_places():
    """Where a map is kept at stride 16, every second place of it is what stride 32 would have had, away from the border."""
    tensors = random_file(2)
    encoder = EfficientNetLite1().double()
    encoder.load_state_dict(tensors)
    pixels = torch.rand(1, 3, 513, 513, generator=torch.Generator().manual_seed(3))
    image = ((pixels - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)).double()
    with torch.no_grad():
        head = encoder(image)[3]
        last = plain(tensors, pixels, 21)[-1]
        x = F.conv2d(last, tensors["_conv_head.weight"].double())
        parts = (tensors[f"_bn1.{part}"].double() for part in ("running_mean", "running_var", "weight", "bias"))
        coarse = F.batch_norm(x, *parts, eps=1e-3).clamp(0, 6)
    assert torch.allclose(head[..., ::2, ::2], coarse, atol=1e-3 * float(coarse.abs().max()))


def test_its_file_starts_a_system_and_another_one_does_not(tmp_path):
    save_file(random_file(), tmp_path / "lite1.safetensors")
    model = vosformer.build("deaot-t", encoder="efficientnet_lite1")
    names = load_pretrained_encoder(model, tmp_path / "lite1.safetensors")
    assert set(names) == {f"encoder.{name}" for name in random_file()}
    assert torch.equal(model.encoder._conv_head.weight, random_file()["_conv_head.weight"])
    frozen = {name for name, p in model.encoder.named_parameters() if not p.requires_grad}
    assert frozen == {
        f"_blocks.{n}.{c}_conv.weight" for n in range(4) for c in ("_expand", "_depthwise", "_project") if n or c != "_expand"
    } | {"_conv_stem.weight"}
    with pytest.raises(WeightsError, match="belongs to the encoder MobileNetV2"):
        load_pretrained_encoder(vosformer.build("deaot-t"), tmp_path / "lite1.safetensors")
    damaged = {name: tensor for name, tensor in random_file().items() if "_blocks.7." not in name}
    save_file(damaged, tmp_path / "damaged.safetensors")
    with pytest.raises(WeightsError, match="are missing"):
        load_pretrained_encoder(model, tmp_path / "damaged.safetensors")
