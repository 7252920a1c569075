"""The fast kernels for inference on a CPU give what the plain ones give, and step aside where they cannot serve."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vosformer.memory import Memory
from vosformer.models import aost, aot, deaot
from vosformer.models.identity_system import IdentitySystem
from vosformer.nn import attention, onednn
from vosformer.nn.attention import Relative, attend, attend_locally
from vosformer.nn.conv import Conv2d
from vosformer.nn.identity import IdentityBank
from vosformer.nn.linear import TokenLinear
from vosformer.nn.maps import Grid
from vosformer.nn.norm import FrozenBatchNorm2d, for_inference
from vosformer.nn.onednn import reference_kernels
from vosformer.policy import EveryK
from vosformer.protocol import ObjectMasks

KNOWN = {**aot.VARIANTS, **aost.VARIANTS, **deaot.VARIANTS}
ROUGH = {torch.float32: 2e-5, torch.bfloat16: 4e-2}
kinds = pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])


@pytest.fixture(autouse=True)
def _inference() -> object:
    torch.manual_seed(0)
    with torch.inference_mode():
        yield


def close(fast: Tensor, plain: Tensor, kind: torch.dtype) -> None:
    assert fast.dtype == kind
    torch.testing.assert_close(fast.float(), plain.float(), rtol=ROUGH[kind], atol=ROUGH[kind])


def test_this_machine_is_served() -> None:
    """Else the tests below would compare the plain kernels with themselves."""
    if not torch.backends.mkldnn.is_available():
        pytest.skip("this PyTorch has no oneDNN")
    assert onednn.serves(torch.zeros(1))


def test_who_is_served() -> None:
    x = torch.zeros(1)
    assert not onednn.serves(x.double())
    with reference_kernels():
        assert not onednn.serves(x)
    with torch.inference_mode(False):
        assert not onednn.serves(torch.zeros(1))
        with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
            assert not onednn.serves(torch.zeros(1))
        with torch.no_grad():
            assert onednn.serves(torch.zeros(1)) == torch.backends.mkldnn.is_available()


@pytest.fixture
def forgetful() -> Iterator[None]:
    """What the machine can do is found out anew in this test, and after it."""
    onednn._available.cache_clear()
    yield
    onednn._available.cache_clear()


@pytest.mark.usefixtures("forgetful")
def test_without_the_private_operators(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", None)
    assert not onednn.serves(torch.zeros(1))


@pytest.mark.usefixtures("forgetful")
def test_on_a_processor_whose_operators_know_no_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    def picky(x: Tensor, *others: object, convolve=torch.ops.mkldnn._convolution_pointwise) -> Tensor:
        if x.dtype is torch.bfloat16:
            raise RuntimeError("mkldnn_convolution: bf16 path needs the cpu support avx512bw")
        return convolve(x, *others)

    monkeypatch.setattr(torch.ops.mkldnn, "_convolution_pointwise", picky)
    assert onednn.serves(torch.zeros(1)) == torch.backends.mkldnn.is_available()
    assert not onednn.serves(torch.zeros(1, dtype=torch.bfloat16))
    layer, x = Conv2d(8, 12, 3, padding=1).bfloat16(), torch.randn(1, 8, 9, 7).bfloat16()
    close(layer(x), F.conv2d(x, layer.weight, layer.bias, padding=1), torch.bfloat16)


@kinds
@pytest.mark.parametrize("activation", ["none", "relu", "relu6", "silu"])
def test_token_products(kind: torch.dtype, activation: onednn.Activation) -> None:
    layer = TokenLinear(24, 40).to(kind)
    x = torch.randn(2, 7, 48).to(kind)[..., 4:28]  # not contiguous
    with reference_kernels():
        plain = layer(x, activation)
    close(layer(x, activation), plain, kind)
    expected = {"none": lambda y: y, "relu": F.relu, "relu6": F.relu6, "silu": F.silu}[activation]
    close(plain, expected(F.linear(x, layer.weight, layer.bias)), kind)


@kinds
@pytest.mark.parametrize(
    ("kernel", "options"),
    [
        (1, {}),
        (3, {"padding": 1}),
        (3, {"padding": 2, "dilation": 2, "groups": 16}),
        (5, {"stride": 2, "padding": 2, "groups": 16}),
    ],
)
def test_convolutions(kind: torch.dtype, kernel: int, options: dict[str, int]) -> None:
    conv, norm = Conv2d(16, 32, kernel, bias=False, **options).to(kind), FrozenBatchNorm2d(32).to(kind)
    for buffer in norm.buffers():
        buffer.uniform_(0.5, 1.5)
    for x in (
        torch.randn(2, 16, 9, 11).to(kind),
        torch.randn(2, 16, 9, 11).to(kind).contiguous(memory_format=torch.channels_last),
    ):
        with reference_kernels():
            plain, normed = conv(x, "relu"), norm(x, conv, "relu6")
        close(conv(x, "relu"), plain, kind)
        close(norm(x, conv, "relu6"), normed, kind)
        close(norm(x, nn.Sequential(conv), "relu6"), normed, kind)  # a module that wraps a convolution
        close(normed, F.relu6(norm(conv(x))), kind)


@kinds
@pytest.mark.parametrize(("heads", "values"), [(1, 40), (4, 16), (4, 32)])
def test_full_attention(kind: torch.dtype, heads: int, values: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vosformer.nn.attention_cpu._SCORES", 128 * 150)  # several chunks, the last one smaller
    q, bank, v = torch.randn(2, 150, 16).to(kind), torch.randn(2, 200, 16).to(kind), torch.randn(2, 200, values).to(kind)
    k, v = bank[:, :150], v[:, :150]  # views of a bank that is not full
    with reference_kernels():
        plain = attend(q, k, v, heads)
    close(attend(q, k, v, heads), plain, kind)


@kinds
@pytest.mark.parametrize("heads", [1, 4])
@pytest.mark.parametrize("frames", [1, 3])
@pytest.mark.parametrize(
    ("grid", "window"), [(Grid(9, 40), 15), (Grid(4, 18), 5), (Grid(3, 2), 15), (Grid(1, 1), 3), (Grid(11, 19), 1)], ids=str
)
def test_local_attention(kind: torch.dtype, heads: int, frames: int, grid: Grid, window: int) -> None:
    d, e = 4, 6
    q = torch.randn(2, grid.tokens, heads * d).to(kind)
    keys = [torch.randn(2, grid.tokens, heads * d).to(kind) for _ in range(frames)]
    values = [torch.randn(2, grid.tokens, heads * e).to(kind) for _ in range(frames)]
    weight, bias = torch.randn(heads, window**2, d).to(kind), torch.randn(heads, window**2).to(kind)
    for told in (None, torch.randn(heads, e, window**2).to(kind)):
        relative = Relative(weight, bias, told)
        with reference_kernels():
            exact = Relative(*(None if part is None else part.float() for part in relative))
            plain = attend_locally(q.float(), [k.float() for k in keys], [v.float() for v in values], exact, grid, window)
        fast = attend_locally(q, keys, values, relative, grid, window)
        torch.testing.assert_close(fast.float(), plain, rtol=2 * ROUGH[kind], atol=2 * ROUGH[kind])


@pytest.mark.parametrize("window", [1, 5, 15])
@pytest.mark.parametrize("told", [True, False])
def test_local_attention_of_large_maps_goes_by_rows(monkeypatch: pytest.MonkeyPatch, window: int, told: bool) -> None:
    """As on a GPU, where no tiles are used: strips of a large map see what the whole map does."""
    grid = Grid(11, 6)
    random = torch.Generator().manual_seed(5)

    def some(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random, dtype=torch.float64)

    relative = Relative(some(2, window**2, 4), some(2, window**2), some(2, 3, window**2) if told else None)
    q, keys, values = some(2, 66, 8), [some(2, 66, 8) for _ in range(2)], [some(2, 66, 6) for _ in range(2)]
    whole = attend_locally(q, keys, values, relative, grid, window)
    monkeypatch.setattr(attention, "_WHOLE", 0)
    torch.testing.assert_close(attend_locally(q, keys, values, relative, grid, window), whole, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize(("height", "width"), [(5, 7), (2, 2), (1, 3), (1, 1)])
@pytest.mark.parametrize("places", [(), (0,), (1, 3)])
def test_identity_embedding(aligned: bool, height: int, width: int, places: tuple[int, ...]) -> None:
    """Places that no pixel belongs to need no convolution."""
    bank = IdentityBank(4, 8, aligned)
    nn.init.normal_(bank.weight)
    rows, columns = (16 * (side - 1) + 1 if aligned else 16 * side for side in (height, width))
    labels = torch.randint(0, len(places) + 1, (2, rows, columns))
    own = torch.zeros(2, 4, rows, columns)
    for i, place in enumerate(places, 1):
        own[:, place] = labels == i
    ignore = (torch.rand(2, 1, rows, columns) > 0.8).float()
    for unknown in (None, ignore):
        targets = ObjectMasks(own, torch.zeros(2, 1, rows, columns), True, unknown)
        with reference_kernels():
            plain = bank(targets)
        torch.testing.assert_close(bank(targets), plain, rtol=1e-5, atol=2e-4)


def follow(model: IdentitySystem) -> Tensor:
    side = 49 if model.geometry.align_corners else 48
    generator = torch.Generator().manual_seed(2)
    own = torch.zeros(2, 10, side, side)
    own[0, 0, 5:30, 4:28] = 1
    own[1, 4, 20:40, 10:44] = 1
    kind = next(model.parameters()).dtype
    targets = ObjectMasks(own.to(kind), torch.zeros(2, 1, side, side, dtype=kind), True)
    memory = Memory(EveryK(1, None))
    outputs = []
    for t in range(3):
        features = model.encode(torch.randn(1, 3, side, side, generator=generator).to(kind))
        reading = model.read(features, memory) if t else None
        outputs += [reading.logits] if reading else []
        memory.add(model.write(features, targets._replace(given=t == 0), reading, memory), t, t == 0)
    return torch.stack(outputs)


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_whole_models(name: str) -> None:
    with torch.inference_mode(False):
        model = KNOWN[name].build(tiny=True).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_(std=0.1)
    with reference_kernels():
        plain = follow(model)
    torch.testing.assert_close(follow(model), plain, rtol=0, atol=2e-5)
    torch.testing.assert_close(follow(for_inference(model)), plain, rtol=0, atol=2e-5)


def test_a_model_for_inference_shares_its_weights() -> None:
    with torch.inference_mode(False):
        model = KNOWN["aot-t"].build(layers=1, channels=32, hidden=64, heads=2, window=3).eval()
        for norm in model.encoder.modules():
            if isinstance(norm, FrozenBatchNorm2d):
                norm.running_var.uniform_(0.5, 2)
                norm.bias.normal_()
    twin = for_inference(model)
    ours, theirs = model.state_dict(), twin.state_dict()
    assert list(ours) == list(theirs)
    assert all(ours[name].data_ptr() == theirs[name].data_ptr() for name in ours)
    first, again = follow(twin), follow(twin)
    with reference_kernels():
        torch.testing.assert_close(first, follow(model), rtol=0, atol=2e-5)
    assert torch.equal(first, again)
    assert all(n.folded is not None for n in twin.encoder.modules() if isinstance(n, FrozenBatchNorm2d))
    assert all(n.folded is None for n in model.encoder.modules() if isinstance(n, FrozenBatchNorm2d))
