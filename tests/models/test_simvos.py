"""SimVOS: its equations in float64, its switches, and that nothing is computed twice."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import vit_naive as naive
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from vosformer.convert import simvos as adapter
from vosformer.encoders.vit import ViTSize, from_mae
from vosformer.errors import InputError, WeightsError
from vosformer.inference.session import Session
from vosformer.memory import Memory
from vosformer.models.simvos import VARIANTS, SimVOS, SimVOSConfig, TokenRefinement, token_masks
from vosformer.nn.maps import Grid
from vosformer.policy import FirstAndPrevious, Policy
from vosformer.protocol import Features, ObjectMasks

SMALL = {"size": ViTSize(24, 9, 2), "fused": 16, "decoder": 8, "drop_path": 0.0}
SIZE = (48, 64)
GRID = Grid(3, 4)


def build(seed: int = 0, **overrides: Any) -> SimVOS:
    """A very small model in float64 whose every weight counts."""
    torch.manual_seed(seed)
    model = VARIANTS["simvos-b"].build(**{**SMALL, **overrides}).double().eval()
    for parameter in model.parameters():
        if parameter.dim() == 1:
            torch.nn.init.normal_(parameter, std=0.3)
    return model


def images(count: int) -> Tensor:
    return torch.randn(count, 1, 3, *SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def masks(objects: int, given: bool = True, seed: int = 2) -> ObjectMasks:
    chances = torch.rand(objects + 1, *SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    own = (8 * chances).softmax(0)[1:, None]
    return ObjectMasks(own, own.sum(0, keepdim=True) - own, given)


def remember(model: Any, frames: list[tuple[Features, ObjectMasks]], policy: Policy | None = None) -> Memory:
    memory = Memory(policy or FirstAndPrevious())
    for t, (features, targets) in enumerate(frames):
        memory.add(model.write(features, targets, None, None), t, t == 0)
    return memory


def embedded(model: SimVOS, image: Tensor, mask: Tensor | None) -> Tensor:
    """Eqs. 1 and 2, with a sine table that is resampled to the grid."""
    table = model.positions[:, 1:].transpose(1, 2).reshape(1, -1, 24, 24)
    places = torch.nn.functional.interpolate(table, GRID, mode="bicubic", align_corners=False).flatten(2)[0].T
    tokens = naive.patches(model.patch_embed.proj, image) + places
    return tokens if mask is None else tokens + naive.patches(model.mask_patch_embed.proj, mask)


def test_equations_1_and_2_mask_embedding() -> None:
    model = build()
    (image,) = images(1)
    targets = masks(2)
    entry = model.write(model.encode(image), targets, None, None)
    for s in range(2):
        torch.testing.assert_close(entry.layers[0]["x"][s], embedded(model, image[0], targets.own[s]))


@pytest.mark.parametrize("within", range(9))
def test_joint_attention_over_first_previous_and_current(within: int) -> None:
    """H^0 = [Z_1; Z_t; X_t+1] through all blocks (Sec. 3.1), the first L of them frame by frame (Sec. 3.2)."""
    model = build(within=within)
    first, previous, current = images(3)
    targets = [masks(2, seed=2), masks(2, False, seed=3)]
    frames = [(model.encode(image), target) for image, target in zip((first, previous), targets, strict=True)]
    memory = remember(model, frames)
    seen = {}
    model.norm.register_forward_hook(lambda module, inputs, output: seen.update(tokens=output))
    model.read(model.encode(current), memory)
    for s in range(2):
        parts = [embedded(model, image[0], t.own[s]) for image, t in zip((first, previous), targets, strict=True)]
        parts.append(embedded(model, current[0], None))
        for block in model.blocks[:within]:
            parts = [naive.self_attention(block, part) for part in parts]
        x = torch.cat(parts)
        for block in model.blocks[within:]:
            x = naive.self_attention(block, x)
        torch.testing.assert_close(seen["tokens"][s], naive.norm(model.norm, x[-GRID.tokens :]))


def test_second_frame_sees_the_first_alone() -> None:
    model = build()
    first, second = images(2)
    features, targets = model.encode(first), masks(1)
    once = model.read(model.encode(second), remember(model, [(features, targets)])).logits
    twice = model.read(model.encode(second), remember(model, [(features, targets), (features, targets)])).logits
    assert (once - twice).abs().max() > 1e-6
    assert once.shape == (1, 2, 12, 16)
    assert (once[:, 0] == 0).all()


@pytest.mark.parametrize("suppress", [True, False])
def test_equations_3_to_5_token_refinement(suppress: bool) -> None:
    torch.manual_seed(0)
    module = TokenRefinement(8, 4, 5).double()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter)
    x = torch.randn(1, 12, 8, dtype=torch.float64)
    mask = torch.rand(1, 12, 1, dtype=torch.float64)
    mask[0, ::3] = 0
    # Eq. 3: W = f([H, phi(M)]): norm, convolution, GELU, linear.
    joined = naive.norm(module.input_norm, torch.cat([x, mask], 2)[0]).T.reshape(9, 3, 4)
    padded = torch.nn.functional.pad(joined, (1, 1, 1, 1))
    hidden = torch.stack(
        [(padded[:, y : y + 3, z : z + 3] * module.conv.weight).sum((1, 2, 3)) for y in range(3) for z in range(4)]
    )
    w = naive.linear(module.assign, hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5)))
    # Eq. 4: softmax over places, those outside the mask suppressed.
    weights = torch.exp(w) * (mask[0] != 0 if suppress else 1)
    weights = weights / weights.sum(0)
    torch.testing.assert_close(module.assignment(x, mask, GRID, suppress)[0], weights)
    # Eq. 5, and the norm that the paper leaves out.
    expected = naive.norm(module.norm, weights.T @ x[0])
    torch.testing.assert_close(module(x, mask, GRID, suppress)[0], expected)


def test_a_mask_that_is_empty_gives_no_prototype() -> None:
    module = TokenRefinement(8, 4, 5).double()
    x = torch.randn(2, 12, 8, dtype=torch.float64, requires_grad=True)
    mask = torch.zeros(2, 12, 1)
    mask[1, 3] = 1
    weights = module.assignment(x, mask, GRID, True)
    assert (weights[0] == 0).all()
    torch.testing.assert_close(weights[1, 3], torch.ones(5, dtype=torch.float64))
    module(x, mask, GRID, True).sum().backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()


def test_masks_of_prototypes() -> None:
    """Every place falls to the most probable object; the background counts only where it is certain."""
    own = torch.zeros(3, 1, 16, 64)
    own[0, 0, :, 16:] = 0.3
    own[1, 0, :, 16:32] = 0.4
    own[2, 0, :, 32:48] = 2.0**-12
    own[0, 0, :, 48:] = 2.0**-26
    targets = ObjectMasks(own, own.sum(0, keepdim=True) - own, False)
    front, back = token_masks(targets, Grid(1, 4), 1)
    assert front.shape == back.shape == (3, 4, 1)
    # Place 0 is background, 1 is object 1's, 2 object 0's, 3 background again: its 2**-26 is nothing.
    torch.testing.assert_close(front[:, :, 0], torch.tensor([[0, 0, 0.3, 0], [0, 0.4, 0, 0], [0, 0, 0, 0]]))
    expected = torch.tensor([[1, 0.7, 0, 1], [1, 0, 1, 1], [1, 1, 1 - 2.0**-12, 1]])
    torch.testing.assert_close(back[:, :, 0], expected)
    uncertain = own.clone()
    uncertain[0, 0, :, :16] = 2.0**-24
    front, _ = token_masks(ObjectMasks(uncertain, uncertain.sum(0, keepdim=True) - uncertain, False), Grid(1, 4), 1)
    assert front[0, 0, 0] == 2.0**-24


def test_objects_of_another_cohort_compete_as_one() -> None:
    own = torch.full((1, 1, 16, 16), 0.4)
    alone = ObjectMasks(own, torch.zeros_like(own), False)
    rival = ObjectMasks(own, torch.full_like(own, 0.5), False)
    assert token_masks(alone, Grid(1, 1), 1)[0].item() == pytest.approx(0.4)
    assert token_masks(rival, Grid(1, 1), 1)[0].item() == 0
    assert token_masks(rival, Grid(1, 1), 1)[1].item() == pytest.approx(0.6)


@pytest.mark.parametrize("prototypes", [(4, 6), (5, 0), (0, 3)])
@pytest.mark.parametrize("suppress", [True, False])
def test_prototypes_stand_for_a_memory_frame(prototypes: tuple[int, int], suppress: bool) -> None:
    model = build(within=2, prototypes=prototypes, suppress=suppress)
    image, current = images(2)
    memory = remember(model, [(model.encode(image), masks(2))])
    assert memory.references(0)[0]["x"].shape == (2, sum(prototypes), 24)
    assert model.read(model.encode(current), memory).logits.isfinite().all()


@pytest.mark.parametrize("wrong", [{"within": 9}, {"within": -1}, {"prototypes": (0, 0)}, {"prototypes": (-1, 4)}])
def test_impossible_switches_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        build(**wrong)


@pytest.mark.parametrize("options", [{}, {"within": 3}, {"within": 3, "prototypes": (4, 4)}])
def test_batched_objects_and_samples_are_independent(options: dict[str, Any]) -> None:
    model = build(**options)
    clip = torch.cat([images(3), images(3).flip(0)], 1)
    targets = [masks(4, seed=seed) for seed in (5, 6)]

    def own(part: slice, sample: int) -> list[ObjectMasks]:
        return [ObjectMasks(t.own[part], t.own[part].sum(0, keepdim=True) - t.own[part], t.given) for t in targets]

    parts = [own(slice(0, 2), 0), own(slice(2, 4), 1)]
    both = [ObjectMasks(torch.cat([a.own, b.own]), torch.cat([a.others, b.others]), True) for a, b in zip(*parts, strict=True)]
    memory = remember(model, [(model.encode(clip[t]), both[t]) for t in range(2)])
    together = model.read(model.encode(clip[2]), memory).logits
    for sample in range(2):
        image = clip[:, sample : sample + 1]
        alone = remember(model, [(model.encode(image[t]), parts[sample][t]) for t in range(2)])
        single = model.read(model.encode(image[2]), alone).logits
        torch.testing.assert_close(together[2 * sample : 2 * sample + 2], single)
    with torch.no_grad():
        # Without gradients a CPU computes the slots one after the other, to save memory.
        memory = remember(model, [(model.encode(clip[t]), both[t]) for t in range(2)])
        torch.testing.assert_close(model.read(model.encode(clip[2]), memory).logits, together)


def test_within_frame_blocks_run_once_a_frame() -> None:
    model = build(within=3)
    calls = []
    for i, block in enumerate(model.blocks):
        block.mlp.register_forward_hook(lambda module, inputs, output, i=i: calls.append((i, len(output))) and None)
    frames = [(model.encode(image), masks(2)) for image in images(2)]
    memory = remember(model, frames)
    calls.clear()
    model.read(model.encode(images(3)[2]), memory)
    # The current frame: once for both objects before the joint blocks, then for each object.
    assert calls == [(i, 1 if i < 3 else 2) for i in range(9)]


def flops(name: str, objects: int, policy: Policy, frames: int = 3, **overrides: Any) -> float:
    """GFLOP of the last frame of a clip at 480 x 864, counted without computing anything."""
    with torch.device("meta"):
        model = VARIANTS[name].build(**overrides).eval().requires_grad_(False)
    memory = Memory(policy)
    for t in range(frames):
        targets = ObjectMasks(*(torch.empty(objects, 1, 480, 864, device="meta") for _ in range(2)), t == 0)
        with torch.inference_mode(), FlopCounterMode(display=False) as counter:
            features = model.encode(torch.empty(1, 3, 480, 864, device="meta"))
            reading = model.read(features, memory) if t else None
            memory.add(model.write(features, targets, reading, memory if t else None), t, t == 0)
    return counter.get_total_flops() / 1e9


@pytest.mark.parametrize(
    ("name", "within", "objects", "wanted"),
    [
        ("simvos-b", 0, 1, 1831), ("simvos-b", 0, 3, 5480), ("simvos-b", 4, 1, 1511), ("simvos-b", 4, 3, 4280),
        ("simvos-bs", 4, 1, 1047), ("simvos-bs", 4, 3, 2889),
    ],
)  # fmt: skip
def test_flops_of_a_steady_frame(name: str, within: int, objects: int, wanted: float) -> None:
    found = flops(name, objects, FirstAndPrevious(), within=within)
    assert 0.98 * wanted < found <= wanted


@pytest.mark.parametrize("options", [{}, {"within": 3, "prototypes": (4, 4)}])
def test_every_trainable_parameter_gets_a_gradient(options: dict[str, Any]) -> None:
    model = build(**{**options, "drop_path": 0.1}).train()
    frames = images(3)
    memory = Memory(FirstAndPrevious(None))
    own = masks(2)
    total = torch.zeros(())
    for t in range(3):
        features = model.encode(frames[t])
        if t:
            logits = model.read(features, memory).logits
            total = total + (logits * torch.linspace(-1, 1, logits.numel()).view_as(logits)).sum()
        memory.add(model.write(features, own, None, None), t, t == 0)
    total.backward()
    silent = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert not silent
    assert not model.positions.requires_grad


@pytest.mark.parametrize("name", ["simvos-b", "simvos-bs", "simvos-tiny"])
def test_bfloat16_agrees(name: str) -> None:
    torch.manual_seed(0)
    model = VARIANTS[name].build(tiny=True).eval()
    frames = [image.float() for image in images(2)]
    own = masks(2)
    own = own._replace(own=own.own.float(), others=own.others.float())
    with torch.inference_mode():
        exact = model.read(model.encode(frames[1]), remember(model, [(model.encode(frames[0]), own)])).logits
        half = model.bfloat16()
        own = own._replace(own=own.own.bfloat16(), others=own.others.bfloat16())
        memory = remember(half, [(half.encode(frames[0].bfloat16()), own)])
        found = half.read(half.encode(frames[1].bfloat16()), memory).logits
    assert found.dtype == torch.bfloat16
    assert (found.float() - exact).abs().max() < 0.05 * exact.abs().max() + 0.02


def test_paper_sizes() -> None:
    with torch.device("meta"):
        counts = {name: sum(p.numel() for p in entry.build().parameters()) / 1e6 for name, entry in VARIANTS.items()}
    assert 100 < counts["simvos-b"] < 110
    assert counts["simvos-l"] > 3 * 100
    assert 2 < counts["simvos-tiny"] < 5
    assert SimVOSConfig() == SimVOSConfig(within=0, prototypes=None, suppress=True, drop_path=0.1)


def mae_file(width: int = 24, depth: int = 9) -> dict[str, Tensor]:
    source = build(3, size=ViTSize(width, depth, 2)).float().state_dict()
    kept = {name: tensor for name, tensor in source.items() if name.startswith(("patch_embed.", "blocks.", "norm."))}
    extra = {
        "cls_token": torch.zeros(1, 1, width),
        "mask_token": torch.zeros(1, 1, 8),
        "decoder_embed.weight": torch.zeros(8, width),
    }
    return {**kept, **extra, "pos_embed": torch.randn(1, 197, width)}


def test_mae_files_load_by_name() -> None:
    file = mae_file()
    found = adapter.from_pretrained(from_mae({"model": {f"module.{k}": v for k, v in file.items()}}), build())
    model = build().float()
    model.load_state_dict(found, strict=False)
    assert set(found) <= set(model.state_dict())
    torch.testing.assert_close(model.blocks[4].attn.qkv.weight, file["blocks.4.attn.qkv.weight"])
    square = file["pos_embed"][:, 1:].transpose(1, 2).reshape(1, 24, 14, 14)
    wanted = torch.nn.functional.interpolate(square, (24, 24), mode="bicubic", align_corners=False)
    torch.testing.assert_close(model.positions[:, 1:], wanted.flatten(2).transpose(1, 2))


def test_other_files_are_no_mae() -> None:
    with pytest.raises(WeightsError, match="not a ViT encoder"):
        from_mae({"model": {"fc.weight": torch.zeros(1)}})
    with pytest.raises(WeightsError, match="dictionary"):
        from_mae({"model": 3})
    wrong = {**mae_file(), "patch_embed.proj.weight": torch.zeros(24, 3, 14, 14)}
    with pytest.raises(WeightsError, match="16 x 16"):
        from_mae(wrong)


def test_old_objects_do_not_keep_the_frame_on_which_another_one_is_given() -> None:
    """YouTube-VOS: an object's memory is the frame it was given on, and the previous one."""
    session = Session(VARIANTS["simvos-tiny"].build(), device="cpu", dtype="fp32", size=48)
    rng = np.random.default_rng(0)
    for t in range(6):
        labels = np.zeros((48, 64), np.int32)
        labels[10:20, 10:20] = {0: 1, 3: 2, 5: 1}.get(t, 0)
        session.step(rng.integers(0, 256, (48, 64, 3), np.uint8), labels if labels.any() else None)
        held = [[frame.number for frame in cohort.memory.frames] for cohort in session.state.views[0]]
        # A correction of an object stays in its own memory.
        assert held == ([[0]] if t < 3 else [[0], [0]] if t < 5 else [[0, 5], [0]])
