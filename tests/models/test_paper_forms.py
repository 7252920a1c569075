"""Forms that the papers compare or describe and no released code has: each against a plain computation of its own."""

from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor

from vosformer.encoders.convvit import ConvViTEncoder
from vosformer.encoders.vit import VIT_TINY, from_mae
from vosformer.errors import InputError, WeightsError
from vosformer.memory import Memory
from vosformer.models.aost import AOST
from vosformer.models.extract_then_match import ExtractThenMatch
from vosformer.models.jointformer import JointFormer
from vosformer.models.jointformer_config import joint_blocks
from vosformer.nn.lstt import ScalableLSTTBlock
from vosformer.nn.maps import Grid
from vosformer.nn.sensory import SensoryMemory
from vosformer.nn.stm_decoder import Decoded
from vosformer.nn.vit_blocks import make_blocks, resize_positions
from vosformer.policy import FirstAndPrevious, Queue
from vosformer.protocol import ObjectMasks
from vosformer.registry import new_model, variant
from vosformer.weights import load_pretrained_encoder
from vosformer.weights.saving import save_weights


def scrambled(module: torch.nn.Module) -> torch.nn.Module:
    generator = torch.Generator().manual_seed(1)
    for parameter in module.parameters():
        parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)
    return module.double().eval()


# ------------------------------------------------------------------ AOST


def test_one_gate_a_place_as_the_paper_of_aost_has_it():
    """K' = K (1 + tanh(E w_gate)) with w_gate in R^{C x 1}, V' = V + E W_id (AOST Eq. 8)."""
    block = scrambled(ScalableLSTTBlock(8, 2, 32, 3, 3, 0.0, gate="position"))
    assert isinstance(block, ScalableLSTTBlock)
    k, v, e = torch.randn(3, 2, 5, 8, dtype=torch.float64)
    found = block.remember({"k": k, "v": v}, e)
    weight, bias = block.linear_ID_KV.weight, block.linear_ID_KV.bias
    assert weight.shape == (9, 8)
    gate = torch.tanh((e * weight[0]).sum(2, keepdim=True) + bias[0])
    torch.testing.assert_close(found["k"], k * (1 + gate))
    torch.testing.assert_close(found["v"], v + e @ weight[1:].T + bias[1:])


def test_shared_blocks_keep_identities_and_gates_of_each_layer():
    torch.manual_seed(0)
    model, released = (new_model("aost", tiny=True, shared=shared) for shared in ("blocks", True))
    assert isinstance(model, AOST)
    assert model.LSTT.block(0).prepare.__self__._block is model.LSTT.block(2).prepare.__self__._block
    extra = sum(p.numel() for p in model.parameters()) - sum(p.numel() for p in released.parameters())
    assert extra == 2 * sum(p.numel() for p in model.LSTT.identity_layers[0].parameters())
    state = {"k": torch.randn(1, 4, 32), "v": torch.randn(1, 4, 32)}
    identity = torch.randn(1, 4, 32)
    layers = [model.LSTT.block(i).remember(state, identity) for i in range(3)]
    assert not torch.allclose(layers[0]["v"], layers[1]["v"])
    # Nothing is there twice: an average of the weights, or a file of them, has one of each.
    assert len(model.state_dict()) - len(list(model.buffers())) == len(list(model.parameters()))


def test_forms_that_aost_does_not_have():
    with pytest.raises(InputError, match="one of position"):
        new_model("aost", tiny=True, gate="head")
    with pytest.raises(InputError, match="one of blocks"):
        new_model("aost", tiny=True, shared="layers")


# ------------------------------------------------------------------ ConvViT as an encoder


@pytest.mark.parametrize("name", ["convvit-aot-l", "convvit-deaot-l"])
def test_convvit_as_an_encoder(name):
    model = variant(name).build(tiny=True)
    assert isinstance(model.encoder, ConvViTEncoder)
    assert not model.geometry.align_corners
    maps = model.encoder(torch.randn(1, 3, 48, 64))
    assert [tuple(level.shape[1:]) for level in maps] == [(48, 12, 16), (96, 6, 8), (192, 3, 4), (192, 3, 4)]
    frozen = {name.split(".")[0] for name, p in model.encoder.named_parameters() if not p.requires_grad}
    assert frozen == {"patch_embed1", "blocks1"}


def test_convvit_starts_from_a_convmae_file(tmp_path):
    torch.manual_seed(0)
    model, donor = variant("convvit-aot-l").build(tiny=True), ConvViTEncoder(variant("jointformer-tiny").build().config.size)
    state = {name: torch.randn_like(tensor) for name, tensor in donor.state_dict().items() if name != "pos_embed"}
    state |= {
        "pos_embed": torch.randn(1, 196, 192),
        "mask_token": torch.zeros(1, 1, 8),
        "decoder_embed.weight": torch.zeros(8, 8),
    }
    torch.save({"model": state}, tmp_path / "convmae.pth")
    loaded = load_pretrained_encoder(model, tmp_path / "convmae.pth")
    assert len(loaded) == len(donor.state_dict())
    torch.testing.assert_close(model.encoder.blocks3[1].mlp.fc1.weight, state["blocks3.1.mlp.fc1.weight"])
    torch.testing.assert_close(model.encoder.pos_embed, resize_positions(state["pos_embed"], Grid(29, 29)))
    del state["blocks2.0.conv1.weight"]
    torch.save(state, tmp_path / "part.pth")
    with pytest.raises(WeightsError, match=r"blocks2\.0\.conv1"):
        load_pretrained_encoder(model, tmp_path / "part.pth")


# ------------------------------------------------------------------ files for plain ViTs


def vit_file(rows: int) -> dict[str, Tensor]:
    blocks = make_blocks(VIT_TINY.depth, VIT_TINY.width, VIT_TINY.heads)
    state = {f"blocks.{name}": torch.randn_like(tensor) * 0.1 for name, tensor in blocks.state_dict().items()}
    return state | {
        "patch_embed.proj.weight": torch.randn(192, 3, 16, 16),
        "patch_embed.proj.bias": torch.randn(192),
        "pos_embed": torch.randn(1, rows, 192),
        "norm.weight": torch.randn(192),
        "norm.bias": torch.randn(192),
    }


def test_deit_iii_blocks_with_layer_scale_give_the_same_numbers_without():
    """x + gamma_1 * attention, then x + gamma_2 * mlp, as DeiT-III has it; no position for the class token."""
    torch.manual_seed(0)
    state = vit_file(196)
    for i in range(VIT_TINY.depth):
        state |= {f"blocks.{i}.gamma_{n}": torch.rand(192) for n in (1, 2)}
    found = from_mae({"model": state | {"cls_token": torch.zeros(1, 1, 192), "head.weight": torch.zeros(5, 192)}})
    assert not any("gamma" in name for name in found)
    assert found["pos_embed"].shape == (1, 197, 192)
    assert torch.equal(found["pos_embed"][:, 1:], state["pos_embed"])
    block = make_blocks(1, VIT_TINY.width, VIT_TINY.heads)[0].double()
    own = {name.removeprefix("blocks.1."): tensor.double() for name, tensor in state.items() if name.startswith("blocks.1.")}
    gammas = own.pop("gamma_1"), own.pop("gamma_2")
    block.load_state_dict(own)
    x = torch.randn(1, 6, 192, dtype=torch.float64)
    zero = {name: torch.zeros_like(tensor) for name, tensor in own.items()}
    plain = make_blocks(1, VIT_TINY.width, VIT_TINY.heads)[0].double()
    plain.load_state_dict(own | {name: zero[name] for name in ("mlp.fc2.weight", "mlp.fc2.bias")})
    middle = x + gammas[0] * (plain(x) - x)
    expected = middle + gammas[1] * block.mlp(block.norm2(middle))
    block.load_state_dict({n.removeprefix("blocks.1."): t.double() for n, t in found.items() if n.startswith("blocks.1.")})
    torch.testing.assert_close(block(x), expected, rtol=1e-6, atol=1e-6)


def test_moco_v3_files_give_their_base_encoder(tmp_path):
    state = vit_file(197)
    wrapped = {f"module.base_encoder.{name}": tensor for name, tensor in state.items()}
    wrapped |= {f"module.momentum_encoder.{name}": torch.zeros_like(tensor) for name, tensor in state.items()}
    wrapped |= {"module.base_encoder.head.0.weight": torch.zeros(4, 192), "module.predictor.0.weight": torch.zeros(4, 4)}
    torch.save({"epoch": 300, "arch": "vit_base", "state_dict": wrapped}, tmp_path / "moco.pth")
    model = new_model("simvos-tiny")
    load_pretrained_encoder(model, tmp_path / "moco.pth")
    torch.testing.assert_close(model.blocks[3].attn.qkv.weight, state["blocks.3.attn.qkv.weight"])


# ------------------------------------------------------------------ JointFormer's comparisons


def test_both_readings_of_evenly_two():
    assert joint_blocks("even-2", 11) == (5, 10)  # the last block of each half
    assert joint_blocks("every-2", 11) == (0, 2, 4, 6, 8, 10)  # every second block
    assert joint_blocks((10, 0, 5), 11) == (0, 5, 10)


def test_settings_that_json_can_hold_build_the_same(tmp_path):
    """A model that was built by the names of things can be saved and built again."""
    model = new_model("jointformer-tiny", size="vit-tiny", features="last", policy="queue-3-every-5", joint="every-2")
    assert isinstance(model, JointFormer)
    assert model.config.size == VIT_TINY
    assert model.policy == Queue(5, 3)
    assert model.joint == (0, 2)
    save_weights(model, "jointformer-tiny", tmp_path / "w.safetensors")
    assert new_model("simvos-tiny", prototypes="16,32").config.prototypes == (16, 32)
    for options in ({"prototypes": "16"}, {"size": "vit-h"}):
        with pytest.raises(InputError):
            new_model("simvos-tiny", **options)
    assert json.loads(json.dumps(model.built_with)) == model.built_with


def masks(count: int, size: tuple[int, int]) -> ObjectMasks:
    own = torch.zeros(count, 1, *size)
    for i in range(count):
        own[i, 0, 4 * i : 4 * i + 20, 8 : 8 + 20] = 1
    return ObjectMasks(own, own.sum(0, keepdim=True) - own, True)


@torch.no_grad()
def test_where_the_filter_works_can_be_said_with_every_call():
    torch.manual_seed(0)
    model = new_model("jointformer-tiny", topk=3).eval()
    assert isinstance(model, JointFormer)
    features, later = model.encode(torch.randn(1, 3, 48, 64)), model.encode(torch.randn(1, 3, 48, 64))
    memory = Memory(FirstAndPrevious())
    memory.add(model.write(features, masks(2, (48, 64)), None, None), 0, True)
    found = {
        blocks: model.read(later, memory, topk_blocks=blocks).logits for blocks in ("all", "first-half", "second-half", "last")
    }
    for blocks, logits in found.items():
        fixed = new_model("jointformer-tiny", topk=3, topk_blocks=blocks).eval()
        fixed.load_state_dict(model.state_dict())
        assert torch.equal(fixed.read(later, memory).logits, logits)
    assert len({float(logits.double().sum()) for logits in found.values()}) == 4
    with pytest.raises(InputError, match="first-half"):
        model.check_options(topk_blocks="first")


@torch.no_grad()
def test_sensory_memory_is_a_gated_recurrent_unit():
    torch.manual_seed(0)
    unit = scrambled(SensoryMemory(6, 4, 3, middle=5))
    assert isinstance(unit, SensoryMemory)
    parts = [
        torch.randn(2, channels, *size, dtype=torch.float64)
        for channels, size in ((1, (8, 12)), (6, (2, 3)), (4, (4, 6)), (4, (8, 12)))
    ]
    decoded, state = Decoded(*parts), torch.randn(2, 3, 2, 3, dtype=torch.float64)

    def pooled(x: Tensor, side: int) -> Tensor:
        return x.unflatten(3, (-1, side)).unflatten(2, (-1, side)).mean((3, 5))

    def one(conv: torch.nn.Conv2d, x: Tensor) -> Tensor:
        return torch.einsum("oc,bchw->bohw", conv.weight[..., 0, 0], x) + conv.bias[:, None, None]

    x = one(unit.from16, decoded.g16) + one(unit.from8, pooled(decoded.g8, 2))
    x = x + one(unit.from4, pooled(torch.cat([decoded.g4, decoded.logits], 1), 4))
    gates = torch.nn.functional.conv2d(torch.cat([x, state], 1), unit.transform.weight, unit.transform.bias, padding=1)
    forget, update, fresh = gates[:, :3], gates[:, 3:6], gates[:, 6:]
    expected = forget.sigmoid() * state * (1 - update.sigmoid()) + update.sigmoid() * fresh.tanh()
    torch.testing.assert_close(unit(state, decoded), expected)


@torch.no_grad()
def test_the_recurrent_map_goes_from_frame_to_frame():
    torch.manual_seed(0)
    model = variant("jointformer-gru").build(tiny=True).eval()
    frames = [model.encode(torch.randn(1, 3, 48, 64)) for _ in range(3)]
    memory = Memory(FirstAndPrevious())
    memory.add(model.write(frames[0], masks(2, (48, 64)), None, None), 0, True)
    assert memory.token.shape == (2, 16, 3, 4)
    assert not memory.token.any()
    reading = model.read(frames[1], memory)
    memory.add(model.write(frames[1], masks(2, (48, 64)), reading, memory), 1, False)
    assert torch.equal(memory.token, reading.carry)
    assert memory.token.any()
    before = model.read(frames[2], memory).logits
    memory.token = torch.zeros_like(memory.token)
    assert not torch.allclose(model.read(frames[2], memory).logits, before)
    with pytest.raises(InputError, match="stands in for the compressed memory"):
        new_model("jointformer-tiny", gru=8)


@torch.no_grad()
def test_the_naive_baseline_matches_after_extraction():
    """Values of all remembered places, weighted by the softmax of dot products of keys."""
    torch.manual_seed(0)
    model = scrambled(variant("jointformer-naive").build(tiny=True))
    assert isinstance(model, ExtractThenMatch)
    frames = [model.encode(torch.randn(1, 3, 48, 64, dtype=torch.float64)) for _ in range(3)]
    memory = Memory(FirstAndPrevious())
    given = masks(2, (48, 64))
    given = given._replace(own=given.own.double(), others=given.others.double())
    for t in range(2):
        memory.add(model.write(frames[t], given, None, None), t, t == 0)
    seen: list[Tensor] = []
    model.decoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model.read(frames[2], memory)
    keys = torch.cat([layer["k"] for layer in memory.references(0)], 1)
    values = torch.cat([layer["v"] for layer in memory.references(0)], 1)
    assert keys.shape[1] == 2 * 12
    query = frames[2].pyramid[3].flatten(2).transpose(1, 2)
    weights = torch.softmax(query @ keys.transpose(1, 2) / 16**0.5, 2)
    expected = (weights @ values).transpose(1, 2).unflatten(2, (3, 4))
    torch.testing.assert_close(seen[0][:, :96], expected)
