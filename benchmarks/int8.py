"""Does a frame take less time with int8 weights in the token products? Measured before anything is built on it.

    python benchmarks/int8.py --model default --height 480

Every TokenLinear gets a twin: weights in int8 by output channel, tokens in int8 by a scale that is found at each call, sums in int32
(PyTorch's `quantized::linear_dynamic`). Times are of the process, one thread, taking turns with fp32: of each shape alone, then of
whole frames. The share of these layers in a frame says what could be gained at most. Weights do not matter for the time.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from vosformer import Session
from vosformer.device import tune_process
from vosformer.nn import onednn
from vosformer.nn.linear import TokenLinear
from vosformer.nn.onednn import Activation
from vosformer.weights import build


class Int8Linear(nn.Module):
    """A linear layer on tokens with int8 weights; takes what TokenLinear takes."""

    def __init__(self, layer: TokenLinear) -> None:
        super().__init__()
        self._layer = layer
        self._packed: dict[tuple[int, int], torch.ScriptObject] = {}

    def forward(self, input: Tensor, activation: Activation = "none", rows: slice | None = None) -> Tensor:
        """See `TokenLinear.forward`."""
        first, end, _ = (rows or slice(None)).indices(self._layer.out_features)
        if (first, end) not in self._packed:
            weight, bias = self._layer.weight[first:end], self._layer.bias
            scales = weight.abs().amax(1).clamp(min=1e-8).double() / 127
            zeros = torch.zeros(len(scales), dtype=torch.int64)
            whole = torch.quantize_per_channel(weight, scales, zeros, 0, torch.qint8)
            self._packed[first, end] = torch.ops.quantized.linear_prepack(whole, None if bias is None else bias[first:end])
        # Without VNNI, sums of two products must fit 16 bits: tokens take 7 bits.
        product = torch.ops.quantized.linear_dynamic(input.contiguous(), self._packed[first, end], reduce_range=True)
        return onednn.activate(product, activation)


def spent(work: Callable[[], object], times: int = 1) -> float:
    """Milliseconds of process time."""
    begin = time.process_time()
    for _ in range(times):
        work()
    return 1000 * (time.process_time() - begin) / times


@torch.inference_mode()
def shapes(model: nn.Module, tokens: int) -> None:
    """Time each shape of token product alone."""
    layers = {(m.in_features, m.out_features): m for m in model.modules() if isinstance(m, TokenLinear)}
    for (inputs, outputs), layer in sorted(layers.items()):
        x, quantized = torch.randn(1, tokens, inputs), Int8Linear(layer)
        pairs = [(spent(lambda: layer(x), 5), spent(lambda: quantized(x), 5)) for _ in range(6)][1:]  # noqa: B023
        plain, small = (statistics.median(pair[i] for pair in pairs) for i in range(2))
        print(f"{tokens} x {inputs} -> {outputs}: fp32 {plain:.2f} ms, int8 {small:.2f} ms: {small / plain:.2f}", flush=True)


def frames(model: nn.Module, height: int, count: int) -> None:
    """Time whole frames, and the part that token products take of them."""
    session = Session(model, device="cpu", dtype="fp32", size=height, closer="off", tune=False)
    width = height * 16 // 9
    base = np.random.default_rng(0).integers(0, 256, (height // 8, width // 8, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    labels = np.zeros(base.shape[:2], np.int32)
    labels[height // 5 : height // 2, width // 8 : width // 3], labels[height // 2 :, width // 2 :] = 1, 2
    session.step(base, labels)
    network = session.model
    places = [
        (parent, name, child)
        for parent in network.modules()
        for name, child in parent.named_children()
        if isinstance(child, TokenLinear)
    ]
    twins = [Int8Linear(child) for *_, child in places]
    inside: list[float] = []
    plain_forward = TokenLinear.forward

    def timed(self: TokenLinear, *args: object, **kwargs: object) -> Tensor:
        begin = time.process_time()
        out = plain_forward(self, *args, **kwargs)  # type: ignore[arg-type]
        inside.append(1000 * (time.process_time() - begin))
        return out

    def put(modules: list[nn.Module]) -> None:
        for (parent, name, _), module in zip(places, modules, strict=True):
            setattr(parent, name, module)

    rows = []
    TokenLinear.forward = timed  # type: ignore[method-assign, assignment]
    for n in range(count + 1):
        frame, row = np.roll(base, 3 * n, 1), []
        for modules in ([child for *_, child in places], twins):
            put(list(modules))
            kept = session.state
            inside.clear()
            row.append(spent(lambda: session.step(frame)))  # noqa: B023
            row.append(sum(inside))
            session.state = kept
        rows.append((row[0], row[2], row[1]))
    TokenLinear.forward = plain_forward  # type: ignore[method-assign]
    plain, small, products = (statistics.median(row[i] for row in rows[1:]) for i in range(3))
    print(
        f"a frame at {height}p: fp32 {plain:.0f} ms, of which token products {products:.0f}; int8 {small:.0f} ms: {small / plain:.2f}"
    )


def main() -> None:
    """Time the shapes, then frames."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="default")
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--frames", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    tune_process(torch.device("cpu"))
    model = build(options.model).eval().requires_grad_(False)
    print(f"{options.model}, one thread, quantized by {torch.backends.quantized.engine}, torch {torch.__version__}")
    shapes(model, (options.height // 16 + 1) * (options.height * 16 // 9 // 16 + 1))
    frames(model, options.height, options.frames)


if __name__ == "__main__":
    main()
