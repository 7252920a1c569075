"""JointFormer: its equations in float64, its switches, the compressed memory, and that nothing is computed twice."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import vit_naive as naive
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from vosformer.convert import jointformer as adapter
from vosformer.encoders.convmae import ConvViTSize
from vosformer.encoders.vit import ViTSize
from vosformer.errors import InputError
from vosformer.inference.objects import merge_slots
from vosformer.memory import Memory
from vosformer.models.jointformer import VARIANTS, JointFormer
from vosformer.models.jointformer_config import joint_blocks
from vosformer.nn.joint import sigmoid_attention, update_compressed_memory
from vosformer.nn.maps import Grid
from vosformer.policy import FirstAndPrevious, Policy, Queue
from vosformer.protocol import Features, ObjectMasks

CONV = ConvViTSize((8, 12, 24), (1, 1, 6), (2, 2, 2), 2)
VIT = ViTSize(24, 6, 2, 2)
SMALL = {"size": CONV, "fused": 32, "decoder": 16, "topk": None}
SIZE = (48, 64)
GRID = Grid(3, 4)
MODES = ("a", "b", "c", "d")


def build(seed: int = 0, **overrides: Any) -> JointFormer:
    """A very small model in float64 whose every weight counts."""
    torch.manual_seed(seed)
    model = VARIANTS["jointformer-b"].build(**{**SMALL, **overrides}).double().eval()
    for parameter in model.parameters():
        if parameter.dim() == 1:
            torch.nn.init.normal_(parameter, std=0.3)
    if model.token is not None:
        torch.nn.init.normal_(model.token)
    return model


def clip(frames: int, seed: int = 1) -> Tensor:
    return torch.randn(frames, 1, 3, *SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def masks(objects: int, given: bool = True, seed: int = 2) -> ObjectMasks:
    chances = torch.rand(objects + 1, *SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    own = (8 * chances).softmax(0)[1:, None]
    return ObjectMasks(own, own.sum(0, keepdim=True) - own, given)


def remember(model: Any, frames: list[tuple[Features, ObjectMasks]], policy: Policy | None = None) -> Memory:
    """Frames that are written one after the other, without being read."""
    memory = Memory(policy or FirstAndPrevious())
    for t, (features, targets) in enumerate(frames):
        memory.add(model.write(features, targets, None, None), t, t == 0)
    return memory


def match(model: JointFormer, image: Tensor, memory: Memory, topk: int | None = None) -> Tensor:
    past = [memory.references(layer) for layer in range(len(model.joint) if model.config.mode == "d" else 1)]
    return model.match(model.encode(image), past, topk)[0]


def places(model: JointFormer) -> Tensor:
    table = model.positions[:, 1:].transpose(1, 2).reshape(1, -1, 24, 24)
    return torch.nn.functional.interpolate(table, GRID, mode="bicubic", align_corners=False).flatten(2)[0].T


def reference_input(model: JointFormer, image: Tensor, targets: ObjectMasks, s: int) -> Tensor:
    """Reference tokens H_z^0 [N,C] of object s."""
    both = torch.cat([image, targets.own[s : s + 1], targets.others[s : s + 1]], 1)
    maps = model.stem(both, "patch_embed1_memory")
    return model.stem.tokens(maps.f16)[0] + places(model)


def current_input(model: JointFormer, image: Tensor) -> Tensor:
    return model.stem.tokens(model.stem(image, "patch_embed1_query").f16)[0] + places(model)


def test_equation_1_with_plain_patches() -> None:
    """H_z = p_z E_z + P, H_x = p_x E_x + P, as the paper writes it: a plain ViT and 4-channel reference pairs."""
    model = build(size=VIT, features="last", others=False, mode="b")
    image, current = clip(2)
    targets = masks(2)
    entry = model.write(model.encode(image), targets, None, None)
    for s in range(2):
        pair = torch.cat([image[0], targets.own[s]])
        expected = naive.patches(model.stem["patch_embed1_memory"].proj, pair) + places(model)
        torch.testing.assert_close(entry.layers[0]["x"][s], expected)
    found = model.encode(current).pyramid[-4].flatten(2)[0].T
    torch.testing.assert_close(found, naive.patches(model.stem["patch_embed1_query"].proj, current[0]) + places(model))


def equation_2(model: JointFormer, references: list[Tensor], x: Tensor, keep: int | None = None) -> Tensor:
    """The current tokens through all blocks: every stream recomputed, block by block, in the model's mode."""
    mode = model.config.mode
    for i, block in enumerate(model.blocks):
        own = [naive.projections(block, z) for z in references]
        q, k, v = naive.projections(block, x)
        if i not in model.joint:
            references = [naive.finish(block, z, naive.attention(*p)) for z, p in zip(references, own, strict=True)]
            x = naive.finish(block, x, naive.attention(q, k, v))
            continue
        moved = []
        for n, z in enumerate(references):
            seen = [own[n]]
            seen += [p for m, p in enumerate(own) if m != n and mode in "ab"]
            seen += [(q, k, v)] if mode in "ac" else []
            keys, values = (torch.cat([p[part] for p in seen], 1) for part in (1, 2))
            moved.append(naive.finish(block, z, naive.attention(own[n][0], keys, values)))
        keys, values = (torch.cat([*(p[part] for p in own), (q, k, v)[part]], 1) for part in (1, 2))
        limit = keep if i in model._filtered(model.config.topk_blocks) else None
        x = naive.finish(block, x, naive.attention(q, keys, values, sum(map(len, references)), limit))
        references = moved
    return x


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("joint", ["all", "first-3", "last-3", "even-2", (1, 4)])
def test_equation_2_joint_modeling(mode: str, joint: Any) -> None:
    model = build(mode=mode, joint=joint)
    first, previous, current = clip(3)
    targets = [masks(2), masks(2, False, 3)]
    frames = [(model.encode(image), t) for image, t in zip((first, previous), targets, strict=True)]
    memory = remember(model, frames)
    found = match(model, current, memory)
    for s in range(2):
        references = [reference_input(model, image, t, s) for image, t in zip((first, previous), targets, strict=True)]
        expected = equation_2(model, references, current_input(model, current))
        torch.testing.assert_close(found[s], expected)


def test_modes_differ() -> None:
    found = []
    for mode in MODES:
        model = build(mode=mode)
        first, previous, current = clip(3)
        memory = remember(model, [(model.encode(first), masks(1)), (model.encode(previous), masks(1, False, 3))])
        found.append(match(model, current, memory))
    assert all((a - b).abs().max() > 1e-6 for n, a in enumerate(found) for b in found[:n])


@pytest.mark.parametrize(
    ("joint", "depth", "expected"),
    [
        ("all", 4, (0, 1, 2, 3)), ("first-6", 11, (0, 1, 2, 3, 4, 5)), ("last-6", 11, (5, 6, 7, 8, 9, 10)),
        ("even-2", 12, (5, 11)), ("even-2", 11, (5, 10)), ((3, 1), 4, (1, 3)),
    ],
)  # fmt: skip
def test_locations_of_joint_blocks(joint: Any, depth: int, expected: tuple[int, ...]) -> None:
    assert joint_blocks(joint, depth) == expected


@pytest.mark.parametrize("count", [1, 2, 3])
def test_equation_3_update_of_the_compressed_memory(count: int) -> None:
    """K_M = [H, H_M] for the token, K = [H] for the frame's own tokens."""
    model = build(updates=count)
    assert len(model.update_blocks) == count
    x, token = torch.randn(2, 12, 24).double(), torch.randn(2, 1, 24).double()
    layers: list[Any] = []
    found = update_compressed_memory(model.update_blocks, token, x, range(count), layers.append)
    for s in range(2):
        tokens, memory = x[s], token[s]
        for i, block in enumerate(model.update_blocks):
            q, k, v = naive.projections(block, tokens)
            qm, km, vm = naive.projections(block, memory)
            torch.testing.assert_close(layers[i]["k"][s], k.transpose(0, 1).flatten(1))
            torch.testing.assert_close(layers[i]["v"][s], v.transpose(0, 1).flatten(1))
            memory = naive.finish(block, memory, naive.attention(qm, torch.cat([k, km], 1), torch.cat([v, vm], 1)))
            tokens = naive.finish(block, tokens, naive.attention(q, k, v))
        assert found is not None
        torch.testing.assert_close(found[s], memory)


def test_both_updates_of_a_frame() -> None:
    """Update(1) with decoder tokens when a frame is read, Update(2) with reference tokens when it is written."""
    model = build()
    first, second = clip(2)
    targets = masks(2)
    memory = remember(model, [(model.encode(first), targets)])
    row = model.positions[0, :1]
    for s in range(2):
        token = model.token[0] + row
        z = reference_input(model, first, targets, s)
        for block in model.blocks:
            q, k, v = naive.projections(block, z)
            qm, km, vm = naive.projections(block, token)
            token = naive.finish(block, token, naive.attention(qm, torch.cat([k, km], 1), torch.cat([v, vm], 1)))
            z = naive.finish(block, z, naive.attention(q, k, v))
        torch.testing.assert_close(memory.token[s], naive.norm(model.norm, token))
    kept = {}
    model.decoder.fuser_all.register_forward_hook(lambda module, inputs, output: kept.update(tokens=output))
    features = model.encode(second)
    reading = model.read(features, memory)
    for s in range(2):
        token = naive.linear(model.update_embed, memory.token[s]) + row
        tokens = naive.linear(model.update_embed, kept["tokens"][s]) + places(model)
        for block in model.update_blocks:
            q, k, v = naive.projections(block, tokens)
            qm, km, vm = naive.projections(block, token)
            token = naive.finish(block, token, naive.attention(qm, torch.cat([k, km], 1), torch.cat([v, vm], 1)))
            tokens = naive.finish(block, tokens, naive.attention(q, k, v))
        torch.testing.assert_close(reading.carry[s], naive.norm(model.norm, token))
    skipped = model.write(features, targets, reading, memory, update=False)
    torch.testing.assert_close(skipped.token, reading.carry)
    updated = model.write(features, targets, reading, memory)
    assert (updated.token - reading.carry).abs().max() > 1e-3
    for one, other in zip(skipped.layers, updated.layers, strict=True):
        # The frame's own tokens never look at the compressed memory.
        torch.testing.assert_close(one["k"], other["k"])
        torch.testing.assert_close(one["v"], other["v"])


@pytest.mark.parametrize("mode", ["a", "d"])
def test_compressed_memory_is_carried_in_every_mode(mode: str) -> None:
    tokens = [remember(build(mode=m), [(build(mode=m).encode(clip(1)[0]), masks(2))]).token for m in (mode, "d")]
    torch.testing.assert_close(tokens[0], tokens[1])


def test_equation_4_target_enhancement() -> None:
    model = build()
    block = model.enhance_blocks[0]
    x, token = torch.randn(2, 12, 24).double(), torch.randn(2, 1, 24).double()
    found = sigmoid_attention(block, x, token)
    for s in range(2):
        q, _, _ = naive.projections(block, x[s])
        _, k, v = naive.projections(block, token[s])
        heads = [1 / (1 + torch.exp(-(q[h] @ k[h].T) / 12**0.5)) @ v[h] for h in range(2)]
        # Unlike Eq. 4, the block has its residuals and its feed-forward part.
        torch.testing.assert_close(found[s], naive.finish(block, x[s], torch.cat(heads, 1)))
    embedded = naive.linear(model.enhance_embed, x[0]) + places(model)
    memory = naive.linear(model.enhance_embed, token[0]) + model.positions[0, :1]
    expected = naive.norm(model.norm, sigmoid_attention(block, embedded[None], memory[None])[0])
    torch.testing.assert_close(model.enhance(x, token, GRID)[0], expected)


def test_equation_6_soft_aggregation_uses_odds() -> None:
    """M = softmax(log(m / (1 - m))): the released code; the paper's text has softmax(log m)."""
    chances = torch.tensor([0.7, 0.2, 0.6], dtype=torch.float64)
    logits = torch.logit(chances)
    slots = [torch.stack([torch.zeros_like(z), z]).view(1, 2, 1, 1) for z in logits]
    found = merge_slots(slots, JointFormer.merging).softmax(1)[0, :, 0, 0]
    background = (1 - chances).prod()
    odds = torch.cat([background[None], chances])
    odds = odds / (1 - odds)
    torch.testing.assert_close(found, odds / odds.sum())


@pytest.mark.parametrize("blocks", ["all", "second-half", "last"])
def test_topk_filter(blocks: str) -> None:
    model = build(topk=5, topk_blocks=blocks)
    assert list(model._filtered(blocks)) == {"all": [0, 1, 2, 3, 4, 5], "second-half": [3, 4, 5], "last": [5]}[blocks]
    first, previous, current = clip(3)
    targets = [masks(1), masks(1, False, 3)]
    frames = [(model.encode(image), t) for image, t in zip((first, previous), targets, strict=True)]
    memory = remember(model, frames)
    found = match(model, current, memory, 5)
    references = [reference_input(model, image, t, 0) for image, t in zip((first, previous), targets, strict=True)]
    torch.testing.assert_close(found[0], equation_2(model, references, current_input(model, current), 5))


def test_topk_is_an_option_of_the_call_and_rests_in_training() -> None:
    model, plain = build(topk=5), build()
    first, current = clip(2)
    memory, features = remember(model, [(model.encode(first), masks(1))]), model.encode(current)
    unfiltered = plain.read(features, memory).logits
    assert (model.read(features, memory).logits - unfiltered).abs().max() > 1e-6
    torch.testing.assert_close(model.read(features, memory, topk=0).logits, unfiltered)
    torch.testing.assert_close(model.read(features, memory, topk=10**6).logits, unfiltered)
    torch.testing.assert_close(plain.read(features, memory, topk=5).logits, model.read(features, memory).logits)
    torch.testing.assert_close(model.train().read(features, memory).logits, unfiltered)
    with pytest.raises(InputError, match="topk"):
        model.check_options(topk=-1)


def rolled(model: JointFormer, frames: Tensor, own: ObjectMasks) -> list[Tensor]:
    """The logits of a clip whose every frame is read and written."""
    memory = Memory(model.policy)
    logits = []
    for t, image in enumerate(frames):
        features = model.encode(image)
        reading = model.read(features, memory) if t else None
        if reading is not None:
            logits.append(reading.logits)
        memory.add(model.write(features, own, reading, memory if t else None), t, t == 0)
    return logits


VARIATIONS: list[dict[str, Any]] = [
    {},
    {"updates": 1}, {"updates": 3}, {"updates": 0}, {"enhance": 0}, {"enhance": 2},
    {"others": False}, {"topk": 4}, {"policy": Queue(2, 3)},
    {"features": "middle"}, {"features": "last"}, {"features": "middle", "joint": "last-3"},
    {"size": VIT, "features": "middle"}, {"size": VIT, "features": "last", "others": False, "mode": "a"},
    {"mode": "a"}, {"mode": "b", "joint": "even-2"}, {"mode": "c", "updates": 0},
]  # fmt: skip


@pytest.mark.parametrize("options", VARIATIONS, ids=str)
def test_every_trainable_parameter_gets_a_gradient(options: dict[str, Any]) -> None:
    model = build(**options).train()
    logits = rolled(model, clip(4), masks(2))
    assert [tuple(z.shape) for z in logits] == [(2, 2, 12, 16)] * 3
    sum((z * torch.linspace(-1, 1, z.numel()).view_as(z)).sum() for z in logits).backward()
    silent = {name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()}
    if options.get("enhance") == 0:
        # Nothing looks at the compressed memory then; it is carried for whoever wants to look at it.
        silent = {name for name in silent if not name.startswith(("token", "update_", "decoder.fuser_all"))}
    if options.get("updates") == 0 and model.config.mode == "d":
        assert not any(name.startswith(("update_", "enhance_", "token")) for name, _ in model.named_parameters())
    assert not silent


@pytest.mark.parametrize(
    "options", [{}, {"mode": "a"}, {"mode": "c", "joint": "even-2"}, {"features": "middle", "joint": "last-3"}]
)
def test_batched_objects_and_samples_are_independent(options: dict[str, Any]) -> None:
    model = build(**options)
    frames, own = torch.cat([clip(3), clip(3, 9)], 1), masks(4)
    together = rolled(model, frames, own)
    for s in range(4):
        single = rolled(model, frames[:, s // 2 : s // 2 + 1], ObjectMasks(own.own[s : s + 1], own.others[s : s + 1], True))
        for one, all_of_them in zip(single, together, strict=True):
            torch.testing.assert_close(all_of_them[s : s + 1], one)


@pytest.mark.parametrize("options", [{}, {"topk": 4}, {"mode": "a"}, {"features": "last", "updates": 0}])
def test_objects_one_by_one_give_the_same(options: dict[str, Any]) -> None:
    """Without gradients a CPU computes the slots one after the other, to save memory."""
    model, frames, own = build(**options), torch.cat([clip(3), clip(3, 9)], 1), masks(4)
    together = rolled(model, frames, own)
    with torch.no_grad():
        for one, all_of_them in zip(rolled(model, frames, own), together, strict=True):
            torch.testing.assert_close(one, all_of_them)


def test_other_objects_are_seen_by_five_channels_only() -> None:
    image, own = clip(1)[0], masks(1)
    rival = own._replace(others=1 - own.own)
    for others in (True, False):
        model = build(others=others)
        features = model.encode(image)
        keys = [model.write(features, t, None, None).layers[0]["k"] for t in (own, rival)]
        assert ((keys[0] - keys[1]).abs().max() > 1e-6) == others


@pytest.mark.parametrize(
    "wrong",
    [
        {"mode": "e"}, {"joint": "some"}, {"joint": "first-7"}, {"joint": ()}, {"joint": (6,)}, {"updates": 4}, {"topk": 0},
        {"topk_blocks": "first"}, {"features": "deep"}, {"size": VIT}, {"enhance": -1},
    ],
)  # fmt: skip
def test_impossible_switches_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        build(**wrong)


def test_a_read_is_query_only() -> None:
    """In mode d no block sees the memory's tokens again: only the current ones go through the feed-forward parts."""
    model = build()
    first, current = clip(2)
    memory = remember(model, [(model.encode(first), masks(3))])
    features = model.encode(current)
    rows = []
    for block in model.blocks:
        block.mlp.register_forward_hook(lambda module, inputs, output: rows.append(tuple(output.shape[:2])) and None)
    calls = []
    for name in ("stem", "decoder.up_16_8.skip_conv", "decoder.up_8_4.skip_conv"):
        model.get_submodule(name).register_forward_hook(lambda module, inputs, output: calls.append(module) and None)
    model.read(features, memory)
    assert rows == [(3, GRID.tokens)] * 6
    assert not calls


def flops(objects: int, policy: Policy, frames: int) -> float:
    """GFLOP of the last frame of a clip at 480 x 864, counted without computing anything."""
    with torch.device("meta"):
        model = VARIANTS["jointformer-b"].build(topk=None).eval().requires_grad_(False)
    memory = Memory(policy)
    for t in range(frames):
        targets = ObjectMasks(*(torch.empty(objects, 1, 480, 864, device="meta") for _ in range(2)), t == 0)
        with torch.inference_mode(), FlopCounterMode(display=False) as counter:
            features = model.encode(torch.empty(1, 3, 480, 864, device="meta"))
            reading = model.read(features, memory) if t else None
            memory.add(model.write(features, targets, reading, memory if t else None), t, t == 0)
    return counter.get_total_flops() / 1e9


@pytest.mark.parametrize(
    ("policy", "frames", "objects", "wanted"),
    [
        (FirstAndPrevious(), 3, 1, 1315), (FirstAndPrevious(), 3, 3, 3602),
        # Frames 0, 2 and 4 of the queue, and 3: four references.
        (Queue(2, 3), 6, 1, 1493), (Queue(2, 3), 6, 3, 4134),
    ],
)  # fmt: skip
def test_flops_of_a_steady_frame(policy: Policy, frames: int, objects: int, wanted: float) -> None:
    found = flops(objects, policy, frames)
    assert 0.98 * wanted < found <= wanted


def test_bfloat16_agrees() -> None:
    torch.manual_seed(0)
    model = VARIANTS["jointformer-tiny"].build(topk=8).eval()
    frames, own = clip(3).float(), masks(2)
    with torch.inference_mode():
        exact = rolled(model, frames, own._replace(own=own.own.float(), others=own.others.float()))
        model.bfloat16()
        found = rolled(model, frames.bfloat16(), own._replace(own=own.own.bfloat16(), others=own.others.bfloat16()))
    for half, full in zip(found, exact, strict=True):
        assert half.dtype == torch.bfloat16
        assert (half.float() - full).abs().max() < 0.05 * full.abs().max() + 0.03


def test_paper_sizes() -> None:
    with torch.device("meta"):
        counts = {name: sum(p.numel() for p in entry.build().parameters()) for name, entry in VARIANTS.items()}
    assert counts["jointformer-b"] == 127_674_748
    assert 2e6 < counts["jointformer-tiny"] < 6e6


def convmae_file(model: JointFormer) -> dict[str, Tensor]:
    state = {name: torch.randn_like(tensor).float() for name, tensor in model.state_dict().items()}
    file = {f"blocks3.{name.removeprefix('blocks.')}": tensor for name, tensor in state.items() if name.startswith("blocks.")}
    file |= {name: tensor for name, tensor in state.items() if name.startswith("norm.")}
    for name, tensor in state.items():
        if name.startswith("stem.") and "memory" not in name:
            file[name.removeprefix("stem.").replace("patch_embed1_query", "patch_embed1")] = tensor
    return {**file, "pos_embed": torch.zeros(1, 196, 24), "mask_token": torch.zeros(1, 1, 8)}


def test_convmae_files_start_the_backbone() -> None:
    """The last two blocks start the update, the last one the enhancement (Sec. 4.1)."""
    model = build()
    file = convmae_file(model)
    found = adapter.from_pretrained({"model": file}, model)
    missing = {name for name in model.state_dict() if name not in found}
    assert all(
        name.startswith(("decoder.", "update_embed.", "enhance_embed.")) or name in ("positions", "token") for name in missing
    )
    assert set(found) <= set(model.state_dict())
    assert all(tensor.shape == model.state_dict()[name].shape for name, tensor in found.items())
    last = file["blocks3.5.attn.qkv.weight"]
    torch.testing.assert_close(found["update_blocks.1.attn.qkv.weight"], last)
    torch.testing.assert_close(found["enhance_blocks.0.attn.qkv.weight"], last)
    torch.testing.assert_close(found["update_blocks.0.attn.qkv.weight"], file["blocks3.4.attn.qkv.weight"])
    memory = found["stem.patch_embed1_memory.proj.weight"]
    torch.testing.assert_close(memory[:, :3], file["patch_embed1.proj.weight"])
    torch.testing.assert_close(memory[:, 3:], model.state_dict()["stem.patch_embed1_memory.proj.weight"][:, 3:].float())


def test_mae_files_start_a_plain_vit() -> None:
    model = build(size=VIT, features="last")
    state = {name: torch.randn_like(tensor).float() for name, tensor in model.state_dict().items()}
    file = {name: tensor for name, tensor in state.items() if name.startswith(("blocks.", "norm."))}
    file |= {f"patch_embed.proj.{part}": state[f"stem.patch_embed1_query.proj.{part}"] for part in ("weight", "bias")}
    found = adapter.from_pretrained({**file, "pos_embed": torch.zeros(1, 197, 24)}, model)
    assert all(tensor.shape == model.state_dict()[name].shape for name, tensor in found.items())
    torch.testing.assert_close(found["enhance_blocks.0.mlp.fc1.weight"], file["blocks.5.mlp.fc1.weight"])
