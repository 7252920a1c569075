"""OneVOS as a model: switches, selector, gradients, number formats, arithmetic, weights."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from onevos_small import HEIGHT, SMALL, WIDTH, N, images, masks, roll, small
from torch.utils.flop_counter import FlopCounterMode

from vosformer.convert import onevos as adapter
from vosformer.encoders.convmae import CONVVIT_L, ConvStem, from_convmae
from vosformer.encoders.vit import VIT_TINY
from vosformer.errors import InputError, WeightsError
from vosformer.inference.session import Session
from vosformer.memory import Memory
from vosformer.models.onevos import VARIANTS, OneVOS, OneVOSConfig
from vosformer.nn.maps import Grid
from vosformer.nn.small_objects import dilate_small
from vosformer.nn.token_selector import rate_loss
from vosformer.nn.vit_blocks import resize_positions
from vosformer.policy import DynamicTokens, EveryK, OneVOSQueue
from vosformer.protocol import VOSModel
from vosformer.train.batch import Batch
from vosformer.train.recipe import Recipe
from vosformer.train.rollout import ClipRollout

SWITCHES = [
    {"decouple_current": False, "decouple_memory": False},
    {"decouple_current": True, "decouple_memory": False},
    {"decouple_current": False, "decouple_memory": True},
    {},
    {"selector": "dts"},
    {"selector": "dts-t"},
    {"form": "added"},
    {"mask_layers": "first6", "depth": 8},
    {"mask_layers": "last6", "depth": 8},
    {"mask_layers": "last6", "depth": 8, "form": "added", "decouple_memory": False},
]


def name(switch: dict) -> str:
    return ",".join(f"{key}={value}" for key, value in switch.items()) or "released"


@pytest.mark.parametrize("switch", SWITCHES, ids=name)
def test_every_switch_reads_writes_and_learns(switch: dict):
    """Gradients reach every parameter, through the memory, too."""
    model = small(**switch).train()
    assert isinstance(model, VOSModel)
    memory = Memory(OneVOSQueue(1, 5, None) if "selector" not in switch else DynamicTokens(1, None))
    logits = roll(model, memory, 4)
    assert len(logits) == 3
    assert logits[0].shape == (1, 11, 16, 24)
    weight = torch.randn_like(logits[-1])
    sum((each * weight).sum() for each in logits).backward()
    silent = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert silent == []


@torch.no_grad()
def test_switches_change_the_result():
    found = {}
    for switch in SWITCHES[:4]:
        found[name(switch)] = roll(small(**switch), Memory(OneVOSQueue(1, 5)), 4)[-1]
    for a, b in product(found, found):
        if a < b:
            assert (found[a] - found[b]).abs().max() > 1e-4, (a, b)
    first, last = (small(mask_layers=which, depth=8) for which in ("first6", "last6"))
    forms = [[block.attn.form for block in model.backbone.blocks3] for model in (first, last)]
    assert forms == [["gated"] * 6 + ["none"] * 2, ["none"] * 2 + ["gated"] * 6]


def test_selector_needs_both_decouplings():
    with pytest.raises(InputError, match="needs decouple_current"):
        small(selector="dts", decouple_memory=False)


def test_reading_before_writing_and_policies_that_do_not_fit():
    model = small()
    features = model.encode(images(1)[0])
    with pytest.raises(InputError, match="first frame"):
        model.read(features, Memory(model.policy))
    coupled, memory = small(decouple_current=False), Memory(EveryK(1))
    with pytest.raises(InputError, match="use OneVOSQueue"), torch.no_grad():
        roll(coupled, memory, 3)


@torch.no_grad()
def test_the_memory_is_what_its_policy_says():
    """Other frames in memory give another result; the order of what is remembered does not matter."""
    model = small()
    every, third = (roll(model, Memory(OneVOSQueue(gap, 5)), 5)[-1] for gap in (1, 3))
    assert (every - third).abs().max() > 1e-3
    with_every_k = roll(model, Memory(EveryK(1, None)), 2)[-1]
    assert torch.isfinite(with_every_k).all()


@pytest.mark.parametrize("selector", ["dts", "dts-t"])
@torch.no_grad()
def test_closed_gates_are_the_same_as_tokens_left_out(selector: str):
    """What training computes with gates (here: hard ones) is what inference computes with fewer tokens."""
    model = small(selector=selector)
    short = roll(model, Memory(DynamicTokens(1, None)), 4)
    chosen = model._chosen
    model._chosen = lambda layer, gate, ragged: {**layer, "gate": gate}  # type: ignore[method-assign]
    memory = Memory(DynamicTokens(1, None))
    gated = roll(model, memory, 4)
    model._chosen = chosen  # type: ignore[method-assign]
    gate = torch.cat([memory.bank(i)["gate"] for i in range(3)])
    assert 0 < gate.mean() < 1
    for a, b in zip(short, gated, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("selector", ["dts", "dts-t"])
@pytest.mark.parametrize("policy", [DynamicTokens(1, 8), OneVOSQueue(1, 3)], ids=["tokens", "frames"])
@torch.no_grad()
def test_slots_may_select_different_numbers(selector: str, policy: object):
    """Several samples at once give what each gives alone; taking slots away changes nothing for the others."""
    model = small(selector=selector)
    together = roll(model, Memory(policy), 5, samples=2)
    frames = images(5, 2)
    for s in range(2):
        memory = Memory(policy)
        for t in range(5):
            features = model.encode(frames[t][s : s + 1])
            reading = model.read(features, memory) if t else None
            if reading is not None:
                torch.testing.assert_close(reading.logits[0], together[t - 1][s], rtol=1e-4, atol=1e-4)
            targets = masks(t, t == 0, 2)
            targets = targets._replace(own=targets.own[s : s + 1], others=targets.others[s : s + 1])
            memory.add(model.write(features, targets, reading, memory if t else None), t, t == 0)


@pytest.mark.parametrize("selector", ["none", "dts", "dts-t"])
@torch.no_grad()
def test_taking_a_slot_away_changes_nothing_for_the_other(selector: str):
    model, results = small(selector=selector), []
    frames = images(6)
    for leave in (None, 3):
        memory, logits = Memory(model.policy.limited(2)), []
        for t, image in enumerate(frames):
            features = model.encode(image)
            reading = model.read(features, memory) if t else None
            if reading is not None:
                logits.append(reading.logits[-1])
            targets = masks(t, t in (0, 2), 2)
            if leave is not None and t > leave:
                targets = targets._replace(own=targets.own[1:], others=targets.others[1:])
            memory.add(model.write(features, targets, reading, memory if t else None), t, t in (0, 2))
            if t == leave:
                memory.select([1])
        results.append(torch.stack(logits))
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("ratio", [0.0, 1.0])
@torch.no_grad()
def test_selecting_nothing_and_everything(ratio: float):
    model, plain = small(selector="dts"), small()
    for block in model.backbone.blocks3:
        block.selector.score.bias.copy_(torch.tensor([0.0, 1e6 if ratio else -1e6]))
        block.selector.ratio.fill_(ratio)
    plain.load_state_dict({n: t for n, t in model.state_dict().items() if "selector" not in n})
    memory = Memory(DynamicTokens(1, 8))
    logits = roll(model, memory, 4)
    if ratio:
        expected = roll(plain, Memory(OneVOSQueue(1, 8)), 4)
        for a, b in zip(logits, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    else:
        assert memory.bank(0) == {}
        assert memory.last(2)["k"].shape[1] == 0
        assert all(torch.isfinite(each).all() for each in logits)


def test_training_records_ratios_and_a_fixed_rate_can_be_learned():
    model = small(selector="dts").train()
    memory = Memory(DynamicTokens(1, None))
    with torch.no_grad():
        for block in model.backbone.blocks3:
            block.selector.score.bias.copy_(torch.tensor([1e6, -1e6]))
        roll(model, memory, 4)
    # Four frames without a single token, momentum 0.01 each.
    assert [float(block.selector.ratio) for block in model.backbone.blocks3] == pytest.approx([0.99**4] * 3)
    model = small(selector="dts", rate=0.5).train()
    optimizer = torch.optim.Adam([p for n, p in model.named_parameters() if "selector" in n], 0.05)
    features, shares = model.encode(images(1)[0]), []
    torch.manual_seed(0)
    for _ in range(15):
        entry = model.write(features, masks(0, True), None)
        loss = model.entry_loss(entry) / 2
        torch.testing.assert_close(loss, rate_loss([layer["gate"] for layer in entry.layers], 0.5))
        optimizer.zero_grad()
        loss.backward(retain_graph=True)
        optimizer.step()
        shares.append(float(loss.detach()))
    assert small(selector="dts").train().entry_loss(entry) is None
    assert np.mean(shares[-5:]) < min(0.5 * np.mean(shares[:3]), 0.05)


@pytest.mark.parametrize("selector", ["dts", "dts-t"])
def test_training_adds_the_loss_of_a_fixed_rate(selector: str):
    labels = torch.zeros(1, 4, 64, 96, dtype=torch.uint8)
    labels[:, :, 10:40, 20:60] = 1
    batch = Batch(torch.randint(0, 255, (1, 4, 3, 64, 96), dtype=torch.uint8), labels, torch.tensor([1]), torch.arange(1))
    terms = {}
    for rate in (None, 0.9):
        model = small(selector=selector, rate=rate).train()
        rolled = ClipRollout(model, Recipe("test", "test"))(batch, 0)
        rolled.loss.backward()
        terms[rate] = float(rolled.terms[ClipRollout.TERMS.index("auxiliary")])
        assert all(block.selector.score.weight.grad.abs().sum() > 0 for block in model.blocks)
    assert terms[None] == 0
    assert terms[0.9] > 0


@torch.no_grad()
def test_a_fresh_selector_keeps_everything():
    model = OneVOS(OneVOSConfig(size=SMALL, decoder=16, selector="dts")).eval()
    entry = model.write(model.encode(images(1)[0]), masks(0, True), None)
    assert [layer["k"].shape[1] for layer in entry.layers] == [N] * 3
    assert [message.frame_tokens for message in entry.for_banks] == [N] * 3


@torch.no_grad()
def test_dynamic_memory_stays_within_capacity_and_keeps_the_first_frame():
    model = small(selector="dts")
    for block in model.backbone.blocks3:
        block.selector.ratio.fill_(0.5)
    memory, firsts = Memory(DynamicTokens(1, 3, 10)), set()
    for t, image in enumerate(images(9)):
        features = model.encode(image)
        reading = model.read(features, memory) if t else None
        memory.add(model.write(features, masks(t, t == 0), reading, memory if t else None), t, t == 0)
        for layer in range(3):
            bank = memory.bank(layer)
            if bank:
                assert bank["k"].shape[1] <= 0.5 * N * 3
                firsts.add((layer, int((bank["frame"] == 0).sum())))
                assert bank["position"].min() >= 0
                assert bank["position"].max() < N
    assert len(firsts) == len({layer for layer, _ in firsts})


@pytest.mark.parametrize("switch", [{}, {"selector": "dts"}, {"form": "added", "decouple_current": False}], ids=name)
@torch.no_grad()
def test_bfloat16(switch: dict):
    model = small(**switch)
    policy = DynamicTokens(1, 3) if "selector" in switch else OneVOSQueue(1, 3)
    full = roll(model, Memory(policy), 4)
    half = roll(model.bfloat16(), Memory(policy), 4)
    assert half[-1].dtype == torch.bfloat16
    difference = (full[-1] - half[-1].float()).abs().max() / full[-1].abs().max()
    assert difference < (0.2 if "selector" in switch else 0.06)  # a selector may flip on a few tokens


@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_arithmetic_and_parameters_at_480p(variant: str):
    """1016 GFLOP a steady frame with one memory frame, for any number of objects up to 10; shapes only."""
    with torch.device("meta"), torch.no_grad():
        model = VARIANTS[variant].build().eval()
        memory, image = Memory(model.policy), torch.empty(1, 3, 480, 864)
        own = masks(0).own.new_empty(1, 10, 480, 864, device="meta")
        for t in range(3):
            with FlopCounterMode(display=False) as counter:
                features = model.encode(image)
                reading = model.read(features, memory) if t else None
                targets = masks(0)._replace(own=own, others=own[:, :1])
                memory.add(model.write(features, targets, reading, memory if t else None), t, t == 0)
    gflop = counter.get_total_flops() / 1e9
    millions = sum(p.numel() for p in model.parameters()) / 1e6
    expected = {"onevos-b": (1016, 96.98), "onevos-l": (3531, 353.5), "onevos-vit-b": (990, 100.35), "onevos-tiny": (49, 3.09)}
    most, count = expected[variant.removesuffix("-d")]
    assert gflop <= most * (1.01 if variant.endswith("-d") else 1)
    assert gflop > 0.95 * most
    assert millions == pytest.approx(count, rel=0.03)


def test_public_convmae_and_mae_files_start_the_encoder():
    model = OneVOS(OneVOSConfig(size=SMALL, decoder=16))
    own = model.state_dict()
    table = torch.randn(1, 196, 32)
    public = {
        n.removeprefix("backbone."): torch.randn_like(t)
        for n, t in own.items()
        if n.startswith("backbone.") and "ID_KV" not in n and "pos_embed" not in n
    }
    more = {
        "pos_embed": table,
        "mask_token": torch.zeros(1, 1, 8),
        "norm.weight": torch.ones(32),
        "decoder_pred.bias": torch.ones(3),
    }
    started = adapter.from_pretrained(from_convmae({"model": {**public, **more}}), model)
    assert set(started) == {n for n in own if n.startswith("backbone.") and "ID_KV" not in n}
    assert all(started[n].shape == own[n].shape for n in started)
    assert torch.equal(started["backbone.blocks3.1.mlp.fc1.weight"], public["blocks3.1.mlp.fc1.weight"])
    torch.testing.assert_close(started["backbone.pos_embed"], resize_positions(table, Grid(29, 29), by_scale=True))
    plain = OneVOS(OneVOSConfig(size=VIT_TINY, decoder=16))
    mae = {
        n.removeprefix("backbone.").replace("blocks3.", "blocks."): t
        for n, t in plain.state_dict().items()
        if n.startswith("backbone.") and not any(part in n for part in ("ID_KV", "pos_embed", "up8", "up4"))
    }
    mae |= {"pos_embed": torch.randn(1, 197, 192), "cls_token": torch.zeros(1, 1, 192)}
    started = adapter.from_pretrained(mae, plain)
    torch.testing.assert_close(
        started["backbone.pos_embed"], resize_positions(mae["pos_embed"][:, 1:], Grid(29, 29), by_scale=True)
    )
    assert started["backbone.blocks3.0.attn.qkv.weight"].shape == (576, 192)
    with pytest.raises(WeightsError, match="not a ViT encoder"):
        adapter.from_pretrained({"fc.weight": torch.zeros(2, 2)}, model)
    with pytest.raises(WeightsError, match="not a ConvMAE encoder"):
        from_convmae({"fc.weight": torch.zeros(2, 2)})
    with pytest.raises(WeightsError, match="square grid"):
        adapter.from_pretrained({**public, "pos_embed": torch.zeros(1, 200, 32)}, model)


def test_a_onevos_file_starts_onevos_d():
    plain, dynamic = small(), small(selector="dts")
    official = adapter.to_official(plain.state_dict(), plain)
    assert official["backbone.backbone.norm.weight"].shape == (32,)
    again = adapter.from_official(official, plain)
    assert {n: t.shape for n, t in again.items()} == {n: t.shape for n, t in plain.state_dict().items()}
    missing, unexpected = dynamic.load_state_dict(adapter.from_pretrained(official, dynamic), strict=False)
    assert unexpected == []
    assert all("selector" in n for n in missing)


def test_large_encoder_has_the_published_number_of_parameters():
    with torch.device("meta"):
        stem = ConvStem(CONVVIT_L)
    width, depth = CONVVIT_L.widths[2], CONVVIT_L.depths[2]
    blocks = depth * (12 * width**2 + 13 * width)
    assert (sum(p.numel() for p in stem.parameters()) + blocks) / 1e6 == pytest.approx(322, abs=1)  # ConvMAE, Table 1


def test_small_objects_of_thin_and_ordinary_shape():
    labels = torch.zeros(60, 60, dtype=torch.int32)
    labels[10, 10:30] = 7  # one pixel high: its shorter side counts as 1
    labels[30:38, 30:38] = 3  # 64 pixels are not small
    labels[40:45, 30:33] = -2
    grown = dilate_small(labels)
    assert grown.dtype == torch.int32
    rows, columns = torch.nonzero(grown == 7, as_tuple=True)
    assert (int(rows.min()), int(rows.max())) == (6, 14)
    assert (int(columns.min()), int(columns.max())) == (0, 51)  # kernel 9 + 2 * 18
    assert int((grown == -2).sum()) == (5 + 10) * (3 + 8)  # extents 4 and 2: kernel 11 down, 9 across
    assert int((grown == 3).sum()) < 64  # grown objects win
    assert torch.equal(dilate_small(torch.zeros(4, 4, dtype=torch.int64)), torch.zeros(4, 4, dtype=torch.int64))


@pytest.mark.parametrize("selector", ["none", "dts", "dts-t"])
def test_in_a_session(selector: str):
    """More than ten objects, later ones, removal, branching, save and restore."""
    model = small(selector=selector)
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 255, (7, 64, 96, 3), np.uint8)
    labels = np.zeros((64, 96), np.int32)
    for i in range(12):
        labels[16 * (i // 6) : 16 * (i // 6) + 12, 16 * (i % 6) : 16 * (i % 6) + 12] = 5 * i + 1
    session = Session(model, device="cpu", dtype="fp32", size=None)
    session.step(frames[0], labels)
    out = session.step(frames[1])
    assert len(out.ids) == 12
    late = np.zeros_like(labels)
    late[40:60, 40:60] = 99
    session.step(frames[2], late)
    session.remove(1)
    state = session.state
    rest = [session.step(frame).labels for frame in frames[3:]]
    session.state = state
    assert all(np.array_equal(session.step(frame).labels, known) for frame, known in zip(frames[3:], rest, strict=True))
    with pytest.raises(InputError, match="options \\['depth'\\]"):
        session.step(frames[3], depth=2)


def test_small_objects_of_the_first_frame_are_grown_before_they_are_written():
    model, seen = small(), []
    write = model.write
    model.write = lambda features, targets, *rest: seen.append(targets.own[0, 0].sum()) or write(features, targets, *rest)  # type: ignore[method-assign]
    frames = np.random.default_rng(0).integers(0, 255, (3, 64, 96, 3), np.uint8)
    labels = np.zeros((64, 96), np.int32)
    labels[20:24, 20:24] = 7
    session = Session(model, device="cpu", dtype="fp32", size=None)
    assert (session.step(frames[0], labels).labels == labels).all()
    session.step(frames[1], labels)
    assert seen == [12 * 12, 4 * 4]


@pytest.mark.parametrize("selector", ["none", "dts", "dts-t"])
def test_saving_a_session(selector: str, tmp_path):
    model = small(selector=selector)
    frames = np.random.default_rng(1).integers(0, 255, (6, 64, 96, 3), np.uint8)
    labels = np.zeros((64, 96), np.int32)
    labels[10:40, 20:60] = 4
    sessions = [Session(model, device="cpu", dtype="fp32", size=None) for _ in range(2)]
    sessions[0].step(frames[0], labels)
    for frame in frames[1:3]:
        sessions[0].step(frame)
    sessions[0].save(tmp_path / "state.safetensors")
    sessions[1].load(tmp_path / "state.safetensors")
    for frame in frames[3:]:
        a, b = (session.step(frame) for session in sessions)
        assert np.array_equal(a.labels, b.labels)
        assert np.array_equal(a.probability(4), b.probability(4))


def test_the_training_log_gets_the_share_that_each_layer_selects() -> None:
    model = VARIANTS["onevos-tiny-d"].build()
    found = model.training_report()
    assert found == {f"selected_{i}": 1.0 for i in range(len(model.blocks))}
    model.blocks[1].selector.ratio.fill_(0.25)
    assert model.training_report()["selected_1"] == 0.25
    assert VARIANTS["onevos-tiny"].build().training_report() == {}


def test_memory_of_references_that_are_run_when_read_stays_within_its_bound():
    """What a frame takes is only known when the next one was read; the bound holds all the same."""
    frames = np.random.default_rng(0).integers(0, 255, (8, HEIGHT, WIDTH, 3), np.uint8)
    labels = np.zeros((HEIGHT, WIDTH), np.int32)
    labels[10:40, 10:40] = 1
    session = Session(small(decouple_current=False), device="cpu", dtype="fp32", size=64, memory="every-1", max_memory_mb=0.06)
    session.step(frames[0], labels)
    for frame in frames[1:]:
        session.step(frame)
        assert 0 < session.memory_bytes <= 60_000
