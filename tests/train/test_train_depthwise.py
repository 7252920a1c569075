"""The quick gradients of depth-wise convolutions are the gradients."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from vosformer.nn.depthwise import depthwise

CASES = [
    (5, 1, 2, 1),
    (5, 1, 0, 1),
    (3, 1, 2, 2),
    (3, 1, 1, 2),
    (3, 2, 1, 1),
    (3, 1, 1, 1),
    (5, 1, 4, 2),
    (3, 1, 3, 3),
    (5, 2, 2, 1),
]


@pytest.mark.parametrize(("kernel", "stride", "padding", "dilation"), CASES)
@pytest.mark.parametrize("size", [(14, 14), (11, 17)])
def test_gradients_are_those_of_the_plain_convolution(kernel, stride, padding, dilation, size):
    torch.manual_seed(0)
    x = torch.randn(2, 8, *size, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(8, 1, kernel, kernel, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(8, dtype=torch.float64, requires_grad=True)
    expected = F.conv2d(x, weight, bias, stride, padding, dilation, 8)
    pull = torch.randn_like(expected)
    wanted = torch.autograd.grad((expected * pull).sum(), (x, weight, bias))
    out = depthwise(x, weight, bias, stride, padding, dilation)
    torch.testing.assert_close(out, expected)
    for found, want in zip(torch.autograd.grad((out * pull).sum(), (x, weight, bias)), wanted, strict=True):
        torch.testing.assert_close(found, want, atol=1e-10, rtol=1e-10)


def test_autocast_computes_in_bf16_and_gives_fp32_weight_gradients():
    x = torch.randn(1, 4, 8, 8, requires_grad=True)
    weight = torch.randn(4, 1, 5, 5, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        out = depthwise(x, weight, None, 1, 2)
    assert out.dtype == torch.bfloat16
    out.float().sum().backward()
    assert weight.grad is not None
    assert weight.grad.dtype == torch.float32
