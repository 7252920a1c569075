"""The papers' formulas in their slowest, plainest form and in float64, against the modules of AOT, AOST and DeAOT."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from vosformer.memory import Memory
from vosformer.models import aost, aot, deaot
from vosformer.nn.attention import attend, attend_locally
from vosformer.nn.gpm import GPM, CoupledGPM, GatedPropagation
from vosformer.nn.identity import IdentityBank, one_hot
from vosformer.nn.lstt import LSTTBlock, RelativeBias, ScalableLSTTBlock
from vosformer.nn.maps import Grid
from vosformer.nn.positions import sine_positions
from vosformer.nn.propagation import Past
from vosformer.policy import EveryK
from vosformer.protocol import ObjectMasks

GRID = Grid(4, 5)
N = GRID.tokens


@pytest.fixture(autouse=True)
def _doubles() -> None:
    torch.manual_seed(0)


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def filled(module: nn.Module) -> nn.Module:
    """Every weight random, so that no term can hide behind a zero or a one."""
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    return module.double().eval()


def close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


# ---------------------------------------------------------------------------------------------------------------- plain forms


def corr(q: Tensor, k: Tensor) -> Tensor:
    """Corr(Q, K) = Softmax(Q K^tr / sqrt(C)): [N,C], [M,C] -> [N,M] (AOT Eq. 1)."""
    rows = []
    for query in q:
        scores = torch.stack([(query * key).sum() / math.sqrt(q.shape[1]) for key in k])
        rows.append(scores.exp() / scores.exp().sum())
    return torch.stack(rows)


def heads_of(x: Tensor, heads: int) -> list[Tensor]:
    width = x.shape[-1] // heads
    return [x[..., width * h : width * (h + 1)] for h in range(heads)]


def multi_head(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    parts = zip(heads_of(q, heads), heads_of(k, heads), heads_of(v, heads), strict=True)
    return torch.cat([corr(a, b) @ c for a, b, c in parts], 1)


def neighbors(p: int, window: int) -> list[tuple[int, int]]:
    """N(p): the places of the window around p, with the index of their offset."""
    y, x = divmod(p, GRID.width)
    reach = window // 2
    found = []
    for dy in range(-reach, reach + 1):
        for dx in range(-reach, reach + 1):
            if 0 <= y + dy < GRID.height and 0 <= x + dx < GRID.width:
                found.append(((y + dy) * GRID.width + x + dx, (dy + reach) * window + dx + reach))
    return found


def short_term(
    q: Tensor, keys: list[Tensor], values: list[Tensor], window: int, weight: Tensor, bias: Tensor, told: Tensor | None
) -> Tensor:
    """One head of AOT Eq. 6 with the relative embeddings of the official code: [N,d] -> [N,D]."""
    out = []
    for p in range(N):
        scores, carried = [], []
        for k, v in zip(keys, values, strict=True):
            for place, offset in neighbors(p, window):
                scores.append(q[p] @ k[place] / math.sqrt(q.shape[1]) + weight[offset] @ q[p] + bias[offset])
                carried.append(v[place] if told is None else v[place] + told[:, offset])
        out.append(torch.stack(scores).softmax(0) @ torch.stack(carried))
    return torch.stack(out)


def linear(layer: nn.Linear, x: Tensor) -> Tensor:
    return x @ layer.weight.T + layer.bias


def depthwise(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """[N,C] -> [N,C]."""
    size, reach = conv.weight.shape[-1], conv.weight.shape[-1] // 2
    out = torch.zeros_like(x)
    for p in range(N):
        y, column = divmod(p, GRID.width)
        for i in range(size):
            for j in range(size):
                yy, xx = y + i - reach, column + j - reach
                if 0 <= yy < GRID.height and 0 <= xx < GRID.width:
                    out[p] += conv.weight[:, 0, i, j] * x[yy * GRID.width + xx]
    return out


def group_norm(norm: nn.GroupNorm, x: Tensor) -> Tensor:
    """Over all places and the channels of a group: [N,C] -> [N,C]."""
    parts = [(part - part.mean()) / (part.var(unbiased=False) + norm.eps).sqrt() for part in heads_of(x, norm.num_groups)]
    return torch.cat(parts, 1) * norm.weight + norm.bias


# ----------------------------------------------------------------------------------------------------------------------- AOT


def test_attention_eq_1() -> None:
    q, k, v = noise(2, 3, 8), noise(2, 6, 8), noise(2, 6, 12)
    close(attend(q, k, v, 2), torch.stack([multi_head(q[s], k[s], v[s], 2) for s in range(2)]))


@pytest.mark.parametrize("frames", [1, 2, 3])
@pytest.mark.parametrize("window", [3, 5, 15])
def test_short_term_attention_eq_6(frames: int, window: int) -> None:
    heads, d = 2, 3
    bank = filled(RelativeBias(heads * d, heads, window))
    told = noise(heads, d, window**2)
    q = noise(2, N, heads * d)
    keys, values = [noise(2, N, heads * d) for _ in range(frames)], [noise(2, N, heads * d) for _ in range(frames)]
    ours = attend_locally(q, keys, values, bank(told), GRID, window)
    weight, bias = bank.weight.view(heads, window**2, d), bank.bias.view(heads, window**2)
    for s in range(2):
        plain = [
            short_term(
                heads_of(q[s], heads)[h],
                [heads_of(k[s], heads)[h] for k in keys],
                [heads_of(v[s], heads)[h] for v in values],
                window,
                weight[h],
                bias[h],
                told[h],
            )
            for h in range(heads)
        ]
        close(ours[s], torch.cat(plain, 1))


@pytest.mark.parametrize("aligned", [True, False])
def test_identification_embedding_eq_2(aligned: bool) -> None:
    """E = Y P D: every pixel of a patch adds the vector that the bank holds for its identity and its place in the patch."""
    bank = filled(IdentityBank(3, 4, aligned))
    side = 33 if aligned else 32
    labels = torch.randint(0, 4, (side, side))
    own = torch.stack([(labels == i).double() for i in (1, 2, 3)])[None]
    ours = bank(ObjectMasks(own, torch.zeros(1, 1, side, side), True))[0]
    kernel, before = bank.kernel_size[0], bank.padding[0]
    across = (side - 1) // 16 + 1 if aligned else side // 16
    for p in range(across**2):
        top, left = 16 * (p // across) - before, 16 * (p % across) - before
        vector = bank.bias.clone()
        for i in range(kernel):
            for j in range(kernel):
                if 0 <= top + i < side and 0 <= left + j < side:
                    vector = vector + bank.weight[:, labels[top + i, left + j], i, j]
        close(ours[p], vector)


def test_background_and_unknown_pixels() -> None:
    """What is no own object is background, other slots' objects included; what nobody knows is nothing at all."""
    own = torch.tensor([[[[1.0, 0, 0, 0]], [[0.0, 1, 0, 0]]]])
    others = torch.tensor([[[[0.0, 0, 1, 0]]]])
    ignore = torch.tensor([[[[0.0, 0, 0, 1]]]])
    assert one_hot(ObjectMasks(own, others, True))[0, 0].tolist() == [[0, 0, 1, 1]]
    assert one_hot(ObjectMasks(own, others, True, ignore))[0].sum(0).tolist() == [[1, 1, 1, 0]]


def test_sine_positions() -> None:
    ours = sine_positions(GRID, 8, torch.device("cpu"), torch.float64)[0]
    for p in range(N):
        y, x = divmod(p, GRID.width)
        expected = []
        for coordinate, length in ((y, GRID.height), (x, GRID.width)):
            angle = coordinate / (length - 1 + 1e-6) * 2 * math.pi
            for i in range(4):
                rate = 10000 ** (2 * (i // 2) / 4)
                expected.append(math.sin(angle / rate) if i % 2 == 0 else math.cos(angle / rate))
        torch.testing.assert_close(ours[p], torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-6)


class PlainLSTT:
    """An LSTT block for one sample, long-hand; x and all others [N,C]."""

    def __init__(self, block: LSTTBlock, heads: int, window: int) -> None:
        self.b, self.heads, self.window = block, heads, window

    def begin(self, x: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        b = self.b
        normed = b.norm1(x)
        placed, s = normed + positions, b.self_attn
        found = multi_head(linear(s.linear_Q, placed), linear(s.linear_K, placed), linear(s.linear_V, normed), self.heads)
        x = x + linear(s.projection, found)
        return x, b.norm2(x)

    def end(self, x: Tensor, q: Tensor, long: tuple[Tensor, Tensor], short: list[tuple[Tensor, Tensor]]) -> Tensor:
        b, st = self.b, self.b.short_term_attn
        x_long = linear(b.long_term_attn.projection, multi_head(q, *long, self.heads))
        d = q.shape[1] // self.heads
        weight = st.relative_emb_k.weight.view(self.heads, -1, d)
        bias = st.relative_emb_k.bias.view(self.heads, -1)
        per_head = [
            short_term(
                heads_of(q, self.heads)[h],
                [heads_of(k, self.heads)[h] for k, _ in short],
                [heads_of(v, self.heads)[h] for _, v in short],
                self.window,
                weight[h],
                bias[h],
                st.relative_emb_v[h],
            )
            for h in range(self.heads)
        ]
        x = x + x_long + linear(st.projection, torch.cat(per_head, 1))
        hidden = linear(b.linear1, b.norm3(x))
        hidden = group_norm(b.activation.gn, hidden)
        hidden = 0.5 * hidden * (1 + torch.erf(hidden / math.sqrt(2)))
        return x + linear(b.linear2, depthwise(b.activation.conv, hidden))


def test_lstt_block_eqs_3_and_5() -> None:
    """Att_LT(X, X^m | E) = Att(X W_K, X^m W_K, V^m) with V^m = (X^m + E) W_V: the official code adds E before the projection."""
    block = filled(LSTTBlock(8, 2, 32, 3, 5, 0.1))
    plain = PlainLSTT(block, 2, 3)
    positions = sine_positions(GRID, 8, torch.device("cpu"), torch.float64)[0]
    x, past_x, identity = noise(1, N, 8), noise(1, N, 8), noise(1, N, 8)
    (_,), before = block.prepare((past_x,), GRID)
    remembered = block.remember(before, identity)
    (entered,), state = block.prepare((x,), GRID)
    (ours,) = block.propagate((entered,), state, Past(remembered, (remembered,)), GRID)

    _, past_y = plain.begin(past_x[0], positions)
    memory = (linear(block.linear_Q, past_y), linear(block.linear_V, past_y + identity[0]))
    theirs, y = plain.begin(x[0], positions)
    close(ours[0], plain.end(theirs, linear(block.linear_Q, y), memory, [memory]))


@pytest.mark.parametrize(("id_weight", "gate"), [(True, True), (True, False), (False, True), (False, False)])
def test_layer_wise_id_attention_eq_8(id_weight: bool, gate: bool) -> None:
    """AttID(Q, K, V | E) = Att(Q, K * (1 + tanh(E W_gate)), V + E W_id), with one gate a head."""
    block = filled(ScalableLSTTBlock(8, 2, 32, 3, 5, 0.1, id_weight=id_weight, gate=gate))
    identity, x = noise(1, N, 8), noise(1, N, 8)
    _, state = block.prepare((x,), GRID)
    ours = block.remember(state, identity)
    k, v = state["k"][0].clone(), state["v"][0].clone()
    outputs = linear(block.linear_ID_KV, identity[0]) if block.linear_ID_KV is not None else None
    if gate:
        for p in range(N):
            for h in range(2):
                k[p, 4 * h : 4 * h + 4] *= 1 + torch.tanh(outputs[p, h])
    v = v + (outputs[:, 2 * gate :] if id_weight else identity[0])
    close(ours["k"][0], k)
    close(ours["v"][0], v)
    positions = sine_positions(GRID, 8, torch.device("cpu"), torch.float64)[0]
    (entered,), state = block.prepare((x,), GRID)
    (out,) = block.propagate((entered,), state, Past(ours, (ours,)), GRID)
    plain = PlainLSTT(block, 2, 3)
    theirs, y = plain.begin(x[0], positions)
    close(out[0], plain.end(theirs, linear(block.linear_QV, y)[:, :8], (k, v), [(k, v)]))


# --------------------------------------------------------------------------------------------------------------------- DeAOT


def gated(gp: GatedPropagation, u: Tensor, attention: list[Tensor], values: list[Tensor]) -> Tensor:
    """GP(U, Q, K, V) = F_dw(sigma(U) * Corr(Q, K) V) W_O, with sigma(U) and the maps of the heads given (DeAOT Eq. 5)."""
    streams = []
    for v in values:
        streams.append(
            torch.cat([corr_h @ part for corr_h, part in zip(attention, heads_of(v, len(attention)), strict=True)], 1)
        )
    return linear(gp.projection, depthwise(gp.dw_conv.conv, u * torch.cat(streams, 1)))


def window_map(gp: GatedPropagation, q: Tensor, k: Tensor, heads: int, window: int) -> list[Tensor]:
    """The maps [N,N] of short-term propagation (DeAOT Eqs. 8 and 9), with the official relative bias from the query."""
    d = q.shape[1] // heads
    weight = gp.relative_emb_k.weight.view(heads, -1, d)
    bias = gp.relative_emb_k.bias.view(heads, -1)
    maps = []
    for h in range(heads):
        a, b = heads_of(q, heads)[h], heads_of(k, heads)[h]
        out = torch.zeros(N, N, dtype=q.dtype)
        for p in range(N):
            near = neighbors(p, window)
            scores = [a[p] @ b[place] / math.sqrt(d) + weight[h][o] @ a[p] + bias[h][o] for place, o in near]
            for (place, _), share in zip(near, torch.stack(scores).softmax(0), strict=True):
                out[p, place] = share
        maps.append(out)
    return maps


def silu(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("first", [True, False])
def test_gated_propagation_module_eqs_5_to_11(first: bool, heads: int) -> None:
    block = filled(GPM(first, 8, 4, 6, heads, 3, 5))
    identity = noise(1, N, 8)
    past_stream = (noise(1, N, 8),) if first else (noise(1, N, 8), noise(1, N, 8))
    stream = (noise(1, N, 8),) if first else (noise(1, N, 8), noise(1, N, 8))
    _, before = block.prepare(past_stream, GRID)
    remembered = block.remember(before, identity)
    _, state = block.prepare(stream, GRID)
    ours = block.propagate(stream, state, Past(remembered, (remembered,)), GRID)

    past_y, y = block.norm1(past_stream[0][0]), block.norm1(stream[0][0])
    past_qv, qv = linear(block.linear_QV, past_y), linear(block.linear_QV, y)
    k, v = past_qv[:, :4], silu(past_qv[:, 4:])
    q = qv[:, :4]
    gate = silu(linear(block.linear_U, y))
    if first:
        id_v, id_gate = silu(linear(block.linear_ID_V, identity[0])), torch.ones_like(gate)
    else:
        past_z, z = block.id_norm1(past_stream[1][0]), block.id_norm1(stream[1][0])
        id_v = silu(linear(block.linear_ID_V, torch.cat([past_z, identity[0]], 1)))
        id_gate = silu(linear(block.linear_ID_U, z))
    gates = torch.cat([gate, id_gate], 1)
    everywhere = [corr(a, b) for a, b in zip(heads_of(q, heads), heads_of(k, heads), strict=True)]
    nearby = window_map(block.short_term_attn, q, k, heads, 3)
    found = gated(block.long_term_attn, gates, everywhere, [v, id_v]) + gated(block.short_term_attn, gates, nearby, [v, id_v])
    x = stream[0][0] + found[:, :8]
    m = found[:, 8:] if first else stream[1][0] + found[:, 8:]

    s = block.self_attn
    xn, mn = block.norm2(x), block.id_norm2(m)
    q = linear(s.linear_QK, torch.cat([xn, mn], 1))
    values = [silu(linear(s.linear_V1, xn)), silu(linear(s.linear_V2, mn))]
    gates = silu(torch.cat([linear(s.linear_U1, xn), linear(s.linear_U2, mn)], 1))
    within = [corr(a, a) for a in heads_of(q, heads)]
    found = gated(s, gates, within, values)
    close(ours[0][0], x + found[:, :8])
    close(ours[1][0], m + found[:, 8:])


def test_coupled_propagation_eq_2() -> None:
    """Without decoupling (Table 3a) one stream carries both, and the ID embedding enters the values as in AOT."""
    block = filled(CoupledGPM(8, 4, 6, 1, 3, 5))
    identity, past_x, x = noise(1, N, 8), noise(1, N, 8), noise(1, N, 8)
    _, before = block.prepare((past_x,), GRID)
    remembered = block.remember(before, identity)
    _, state = block.prepare((x,), GRID)
    (ours,) = block.propagate((x,), state, Past(remembered, (remembered,)), GRID)
    past_y, y = block.norm1(past_x[0]), block.norm1(x[0])
    k, v = linear(block.linear_Q, past_y), silu(linear(block.linear_V, past_y + identity[0]))
    q, gate = linear(block.linear_Q, y), silu(linear(block.linear_U, y))
    plain = x[0] + gated(block.long_term_attn, gate, [corr(q, k)], [v])
    plain = plain + gated(block.short_term_attn, gate, window_map(block.short_term_attn, q, k, 1, 3), [v])
    s = block.self_attn
    xn = block.norm2(plain)
    q = linear(s.linear_QK, xn)
    plain = plain + gated(s, silu(linear(s.linear_U1, xn)), [corr(q, q)], [silu(linear(s.linear_V1, xn))])
    close(ours[0], plain)


@pytest.mark.parametrize("maps", ["visual", "both"])
def test_self_maps_table_3c(maps: str) -> None:
    block = filled(GPM(False, 8, 4, 6, 1, 3, 5, past_maps=maps, self_maps=maps))
    stream = (noise(1, N, 8), noise(1, N, 8))
    _, state = block.prepare(stream, GRID)
    changed = (stream[0], stream[1] + noise(1, N, 8))
    _, other = block.prepare(changed, GRID)
    assert torch.equal(state["k"], other["k"]) == (maps == "visual")
    normed = block.norm2(stream[0])
    seen = torch.cat([normed, block.id_norm2(stream[1])], 2) if maps == "both" else normed
    assert block.self_attn.linear_QK.in_features == seen.shape[2]


# -------------------------------------------------------------------------------------------------------------- whole systems


@pytest.mark.parametrize(
    "table", [aot.VARIANTS["aot-l"], aost.VARIANTS["aost"], deaot.VARIANTS["deaot-l"]], ids=lambda v: v.name
)
def test_first_frame_is_its_own_past(table: object) -> None:
    """ "When extracting features from the first frame ... we use X^1 to replace X^m" (AOT Sec. 4.1.2), layer after layer."""
    model = filled(table.build(tiny=True))
    grid = Grid(3, 3)
    image, own = noise(1, 3, 33, 33), torch.zeros(1, 10, 33, 33, dtype=torch.float64)
    own[:, 2, 5:20, 8:30] = 1
    features, targets = model.encode(image), ObjectMasks(own, torch.zeros(1, 1, 33, 33), True)
    entry = model.write(features, targets, None, None)
    identity = model.embed(targets)
    stream = (features.pyramid[3].flatten(2).transpose(1, 2),)
    for index in range(3):
        block = model.LSTT.block(index)
        stream, state = block.prepare(stream, grid)
        mine = block.remember(state, identity)
        close(entry.layers[index]["k"], mine["k"])
        close(entry.layers[index]["v"], mine["v"])
        stream = block.propagate(stream, state, Past(mine, (mine,)), grid)


def test_predicted_frames_are_written_from_their_reading() -> None:
    """The memory of a predicted frame comes from features that saw the masks through propagation, not from a second pass."""
    model = filled(aot.VARIANTS["aot-l"].build(tiny=True))
    memory = Memory(EveryK(1, None))
    own = torch.zeros(1, 10, 33, 33, dtype=torch.float64)
    own[:, 0, 5:20, 8:30] = 1
    targets = ObjectMasks(own, torch.zeros(1, 1, 33, 33), True)
    memory.add(model.write(model.encode(noise(1, 3, 33, 33)), targets, None, None), 0, True)
    features = model.encode(noise(1, 3, 33, 33))
    reading = model.read(features, memory)
    entry = model.write(features, targets._replace(given=False), reading, memory)
    identity = model.embed(targets)
    for index, layer in enumerate(entry.layers):
        block, state = model.LSTT.layers[index], reading.carry.states[index]
        close(layer["v"], linear(block.linear_V, state["y"] + identity))
        close(layer["k"], linear(block.linear_Q, state["y"]))
