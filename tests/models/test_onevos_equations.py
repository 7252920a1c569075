"""Each numbered equation of the OneVOS paper in plain float64 form, against the model (a quotation of the paper, not of our code)."""

from __future__ import annotations

import math

import pytest
import torch
from onevos_small import SMALL, N, images, masks, small
from torch import Tensor

from vosformer.memory import Memory
from vosformer.models.onevos import OneVOS
from vosformer.nn.attention import attend
from vosformer.nn.hybrid import HybridAttention, HybridBlock, marked_keys
from vosformer.nn.token_selector import TokenSelector, received_attention
from vosformer.policy import DynamicTokens, OneVOSQueue

HEADS = SMALL.heads
C = SMALL.widths[2]


def heads(x: Tensor) -> Tensor:
    """[N,C] -> [heads,N,d]."""
    return torch.stack(x.split(C // HEADS, 1))


def softmax_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Softmax(Q K' / sqrt(d)) V with every weight written out."""
    out = []
    for a, b, c in zip(heads(q), heads(k), heads(v), strict=True):
        scores = torch.stack([torch.stack([(row * key).sum() / math.sqrt(C // HEADS) for key in b]) for row in a])
        weights = scores.exp() / scores.exp().sum(1, keepdim=True)
        out.append(weights @ c)
    return torch.cat(out, 1)


def norm(x: Tensor, layer: torch.nn.LayerNorm) -> Tensor:
    mean = x.mean(1, keepdim=True)
    variance = ((x - mean) ** 2).mean(1, keepdim=True)
    return (x - mean) / (variance + 1e-6).sqrt() * layer.weight + layer.bias


def qkv(block: HybridBlock, x: Tensor) -> list[Tensor]:
    weight, bias = block.attn.qkv.weight, block.attn.qkv.bias
    y = norm(x, block.norm1)
    return [y @ weight[i * C : (i + 1) * C].T + bias[i * C : (i + 1) * C] for i in range(3)]


def rest(block: HybridBlock, x: Tensor, a: Tensor) -> Tensor:
    x = x + a @ block.attn.proj.weight.T + block.attn.proj.bias
    hidden = norm(x, block.norm2) @ block.mlp.fc1.weight.T + block.mlp.fc1.bias
    hidden = hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))
    return x + hidden @ block.mlp.fc2.weight.T + block.mlp.fc2.bias


class Slow:
    """The transformer of the paper, one frame at a time, in its plain form (mask embedding added to V).

    Args:
        model: whose weights.
        first: Decoup1, Eq. 5.
        second: Decoup2, Eq. 6.
    """

    def __init__(self, model: OneVOS, first: bool, second: bool) -> None:
        self.model, self.first, self.second = model, first, second
        self.memory: list[dict[str, list[Tensor]]] = [{"k": [], "v": []} for _ in model.backbone.blocks3]

    def frame(self, e_t: Tensor, e_ref: Tensor, m_ref: Tensor, store: bool) -> Tensor:
        """e_t^L; the reference's K and V go to the memory (Eq. 4) if `store`."""
        for block, known in zip(self.model.backbone.blocks3, self.memory, strict=True):
            q_ref, k_ref, v_ref = qkv(block, e_ref)
            v_ref = v_ref + m_ref  # Eq. 1
            q_t, k_t, v_t = qkv(block, e_t)
            k_m, v_m = list(known["k"]), list(known["v"])
            k_all, v_all = torch.cat([*k_m, k_ref, k_t]), torch.cat([*v_m, v_ref, v_t])
            if not (self.first or self.second):
                # Eq. 2: both streams at once.
                both = softmax_attention(torch.cat([q_ref, q_t]), k_all, v_all)
                a_ref, a_t = both[:N], both[N:]
            else:
                a_t = softmax_attention(q_t, k_all, v_all)  # Eq. 3 and the second line of Eq. 6
                keys, values = [k_ref], [v_ref]
                if not self.second:
                    keys, values = [*k_m, *keys], [*v_m, *values]  # Eq. 5
                if not self.first:
                    keys, values = [*keys, k_t], [*values, v_t]
                a_ref = softmax_attention(q_ref, torch.cat(keys), torch.cat(values))
            if store:
                known["k"].append(k_ref)
                known["v"].append(v_ref)
            e_ref, e_t = rest(block, e_ref, a_ref), rest(block, e_t, a_t)
        return e_t


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("second", [False, True])
@torch.no_grad()
def test_equations_1_to_6(first: bool, second: bool):
    """Mask embedding, hybrid attention, its decomposition, token memory, both decouplings: four frames, memory every frame."""
    model = small(form="added", decouple_current=first, decouple_memory=second).double()
    slow, memory = Slow(model, first, second), Memory(OneVOSQueue(1, 5))
    outputs: list[Tensor] = []
    model.decoder.register_forward_hook(lambda module, inputs, output: outputs.append(inputs[0].flatten(2)[0].T))
    before: tuple[Tensor, Tensor] | None = None
    for t, image in enumerate(images(4)):
        features = model.encode(image.double())
        reading = model.read(features, memory) if t else None
        tokens = features.pyramid[3][0]
        if before is not None:
            expected = slow.frame(tokens, *before, store=True)
            torch.testing.assert_close(outputs[-1], expected, rtol=1e-9, atol=1e-9)
        targets = masks(t, t == 0)
        memory.add(model.write(features, targets, reading, memory if t else None), t, t == 0)
        planes = torch.cat([1 - targets.own.sum(1, keepdim=True), targets.own], 1).double()
        patches = planes.unfold(2, 16, 16).unfold(3, 16, 16).permute(0, 2, 3, 1, 4, 5).flatten(3)[0].flatten(0, 1)
        bank = model.patch_wise_id_bank
        before = (tokens, patches @ bank.weight.flatten(1).T + bank.bias)
    for layer, known in enumerate(slow.memory):  # Eq. 4: M = {K_refs, V_refs}
        for name in ("k", "v"):
            torch.testing.assert_close(memory.bank(layer)[name][0], torch.cat(known[name]), rtol=1e-9, atol=1e-9)


@torch.no_grad()
def test_equation_1_as_released():
    """K_ref (1 + tanh(a)) a head and token, V_ref + b; the current frame sees the reference's raw keys."""
    torch.manual_seed(0)
    attention = HybridAttention(C, HEADS, "gated").double()
    k, v, m = torch.randn(3, 5, C).double()
    got_v, mark = attention.identify(v[None], m[None])
    assert mark is not None
    got_k = marked_keys({"k": k[None], "mark": mark})
    assert attention.linear_ID_KV is not None
    code = m @ attention.linear_ID_KV.weight.T + attention.linear_ID_KV.bias
    d = C // HEADS
    for h in range(HEADS):
        expected = k[:, h * d : (h + 1) * d] * (1 + torch.tanh(code[:, h]))[:, None]
        torch.testing.assert_close(got_k[0, :, h * d : (h + 1) * d], expected)
    torch.testing.assert_close(got_v[0], v + code[:, HEADS:])
    model, memory = small(), Memory(OneVOSQueue(1, 5))
    features = model.encode(images(1)[0])
    memory.add(model.write(features, masks(0, True), None), 0, True)
    seen: list[Tensor] = []
    model.read(features, memory, probe=lambda layer: seen.append(torch.cat(layer.keys, 1)))
    raw = model.backbone.blocks3[0].project(features.pyramid[3])[1]
    torch.testing.assert_close(seen[0][:, :N], raw)
    torch.testing.assert_close(memory.last(0)["k"], raw)
    assert (marked_keys(memory.last(0)) - raw).abs().max() > 0.01
    memory.add(model.write(model.encode(images(2)[1]), masks(1), None), 1, False)
    kept = marked_keys(memory.bank(0))
    seen.clear()
    model.read(features, memory, probe=lambda layer: seen.append(torch.cat(layer.keys, 1)))
    torch.testing.assert_close(seen[0][:, :N], kept)


@torch.no_grad()
def test_equation_3_weights_of_memory_reference_and_current():
    """W = softmax(Q K') splits into W_tM, W_tref and W_tt: what `received_attention` sums up."""
    torch.manual_seed(0)
    q, k = torch.randn(1, 6, C).double(), torch.randn(1, 20, C).double()
    weights = [
        torch.stack([torch.stack([(row * key).sum() / math.sqrt(C // HEADS) for key in b]) for row in a]).softmax(1)
        for a, b in zip(heads(q[0]), heads(k[0]), strict=True)
    ]
    expected = torch.stack(weights).sum((0, 1)) / (HEADS * 6)
    torch.testing.assert_close(received_attention(q, k, HEADS, chunk=4)[0].double(), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("now", [False, True])
@torch.no_grad()
def test_equation_7(now: bool):
    """p = Softmax(MLP([MaxPool(z); z])), z = MLP(Norm(e)); DTS-t pools the current frame's z."""
    torch.manual_seed(0)
    selector = TokenSelector(C).double()
    e_ref, e_t = torch.randn(2, 7, C).double()

    def gelu(x: Tensor) -> Tensor:
        return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))

    def encoded(e: Tensor) -> Tensor:
        return gelu(norm(e, selector.norm) @ selector.local.weight.T + selector.local.bias)

    z, context = encoded(e_ref), encoded(e_t if now else e_ref)
    pooled = torch.stack([max(context[:, c]) for c in range(context.shape[1])])
    joined = torch.stack([torch.cat([pooled, row]) for row in z])
    scores = gelu(joined @ selector.joint.weight.T + selector.joint.bias) @ selector.score.weight.T + selector.score.bias
    p = scores.exp() / scores.exp().sum(1, keepdim=True)
    got = selector.logits(selector.encode(e_ref[None]), selector.encode(e_t[None]) if now else None)
    torch.testing.assert_close(got.softmax(2)[0], p)
    kept = selector.eval()(selector.encode(e_ref[None]), selector.encode(e_t[None]) if now else None)
    assert torch.equal(kept[0, :, 0] == 1, p[:, 1] > p[:, 0])


def test_gates_are_weights_of_the_softmax():
    """g exp(s) / sum(g exp(s)), and the gradient of a closed gate is that of this quotient."""
    torch.manual_seed(0)
    q, k, v = torch.randn(1, 5, C).double(), torch.randn(1, 9, C).double(), torch.randn(1, 9, C).double()
    gate = (torch.rand(1, 9, 1) > 0.5).double().requires_grad_()
    plain = gate.detach().clone().requires_grad_()
    out = attend(q, [k], [v], HEADS, gate)
    expected = []
    for a, b, c in zip(heads(q[0]), heads(k[0]), heads(v[0]), strict=True):
        strength = plain[0, :, 0] * (a @ b.T / math.sqrt(C // HEADS)).exp()
        expected.append(strength / strength.sum(1, keepdim=True) @ c)
    torch.testing.assert_close(out[0], torch.cat(expected, 1), rtol=1e-4, atol=1e-4)
    weight = torch.randn_like(out)
    (out * weight).sum().backward()
    (torch.cat(expected, 1) * weight[0]).sum().backward()
    assert (gate.grad[plain == 0] != 0).all()
    torch.testing.assert_close(gate.grad, plain.grad, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_equation_8():
    """c_l = r_l N Cap in every layer, whatever was selected."""
    model = small(selector="dts")
    ratios = (0.25, 0.0, 0.5)
    for block, ratio in zip(model.backbone.blocks3, ratios, strict=True):
        block.selector.ratio.fill_(ratio)
    cap, memory = 2, Memory(DynamicTokens(gap=1, capacity=2, keep=5))
    most = [0, 0, 0]
    for t, image in enumerate(images(7)):
        features = model.encode(image)
        reading = model.read(features, memory) if t else None
        memory.add(model.write(features, masks(t, t == 0), reading, memory if t else None), t, t == 0)
        held = [memory.bank(i)["k"].shape[1] if memory.bank(i) else 0 for i in range(3)]
        most = [max(pair) for pair in zip(most, held, strict=True)]
        assert all(count <= ratio * N * cap for count, ratio in zip(held, ratios, strict=True))
    assert most[0] > 0
    assert most[1] == 0
