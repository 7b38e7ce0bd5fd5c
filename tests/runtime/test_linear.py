"""Weight classes against the plain matrix product, and their error against what the format allows."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from redline.runtime.linear import FP8_MAX, Fp8, Int8, Joined, Packed, Plain, can_pack, dense, to_fp8


@pytest.fixture
def weight() -> torch.Tensor:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    return torch.randn(96, 64)


@pytest.fixture
def bias() -> torch.Tensor:
    return torch.randn(96, generator=torch.Generator().manual_seed(1))


def inputs(tokens: int) -> torch.Tensor:
    return torch.randn(tokens, 64, generator=torch.Generator().manual_seed(tokens))


@pytest.mark.parametrize("tokens", [1, 2, 7, 40])
@pytest.mark.parametrize("with_bias", [False, True])
def test_packed_against_plain(weight: torch.Tensor, bias: torch.Tensor, tokens: int, with_bias: bool) -> None:
    if not can_pack(torch.float32):
        pytest.skip("this build of torch has no oneDNN")
    x, b = inputs(tokens), bias if with_bias else None
    packed = Packed(weight, b)
    assert torch.allclose(packed.apply(x), Plain(weight, b).apply(x), atol=1e-4)
    assert torch.equal(packed.dequantized(), weight)


def test_bfloat16_weights_under_float32_activations(weight: torch.Tensor) -> None:
    stored, x = weight.bfloat16(), inputs(5)
    out = dense(stored).apply(x)
    assert out.dtype == torch.float32
    wanted = F.linear(x.bfloat16().float(), stored.float())
    assert (out - wanted).abs().max() <= wanted.abs().max() * 2**-8


def test_int8_is_within_half_a_step(weight: torch.Tensor) -> None:
    """Half a step of 1/127 of the channel's largest, and what rounding the scale to bfloat16 can cut off."""
    error = (Int8(weight).dequantized() - weight).abs().amax(1)
    largest = weight.abs().amax(1)
    assert (error <= largest * (0.5 / 127 + 2**-8)).all()
    assert error.max() > 0


@pytest.mark.parametrize("switch", [0, 64])
def test_int8_both_ways_against_its_own_weights(weight: torch.Tensor, bias: torch.Tensor, switch: int) -> None:
    layer, x = Int8(weight, bias.bfloat16()), inputs(6)
    layer.switch = switch
    wanted = F.linear(x.bfloat16().float(), layer.dequantized(), bias)
    assert (layer.apply(x) - wanted).abs().max() <= wanted.abs().max() * 2**-6


def test_fp8_weights_are_within_the_formats_rounding(weight: torch.Tensor) -> None:
    """Three bits of mantissa: half of 1/8 relative; below 2^-6 of scaled values the step is 2^-9."""
    layer = Fp8.quantize(weight)
    error = (layer.dequantized() - weight).abs()
    allowed = torch.maximum(weight.abs() / 16, layer.scale[:, None] * 2**-10)
    assert (error <= allowed * 1.001).all()


def test_fp8_emulation_against_its_definition(weight: torch.Tensor, bias: torch.Tensor) -> None:
    layer, x = Fp8.quantize(weight, bias), inputs(3)
    out = layer.apply(x)
    for row in range(3):
        scale = x[row].abs().max() / FP8_MAX
        rounded = (x[row] / scale).to(torch.float8_e4m3fn).float()
        for column in (0, 95):
            total = (rounded.double() * layer.weight[column].float().double()).sum()
            wanted = total * scale.double() * layer.scale[column].double() + bias[column].double()
            assert out[row, column].item() == pytest.approx(wanted.item(), rel=1e-4, abs=1e-4)


def test_fp8_error_of_the_product(weight: torch.Tensor) -> None:
    x = inputs(50)
    wanted = F.linear(x, weight)
    relative = (Fp8.quantize(weight).apply(x) - wanted).norm() / wanted.norm()
    assert 0.005 < relative < 0.05


def test_fp8_of_zeros_is_zero() -> None:
    assert torch.equal(Fp8.quantize(torch.zeros(16, 16)).apply(torch.zeros(2, 16)), torch.zeros(2, 16))


def test_fp8_saturates() -> None:
    assert to_fp8(torch.tensor([1e4, -1e4])).float().tolist() == [FP8_MAX, -FP8_MAX]


def test_joined(weight: torch.Tensor) -> None:
    x = inputs(4)
    joined = Joined([Plain(weight[:32]), Plain(weight[32:])])
    assert torch.allclose(joined.apply(x), F.linear(x, weight), atol=1e-5)
    assert torch.equal(joined.dequantized(), weight)
