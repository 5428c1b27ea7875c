"""Utilities on plain tensors: names, arguments, shapes and dtypes that users of INT8 libraries know."""

import math

import pytest
import torch
import torch.nn.functional as F

import octavo

FLOATS = [torch.float32, torch.float16, torch.bfloat16]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize(
    ("shape", "dim", "scale_shape"),
    [
        ((6, 10), None, ()),
        ((6, 10), 1, (6,)),
        ((6, 10), -1, (6,)),
        ((6, 10), 0, (10,)),
        ((10,), 0, ()),
        ((2, 3, 5), 1, (2, 5)),
        ((2, 3, 5), 2, (2, 3)),
        ((2, 3, 4, 5), 0, (3, 4, 5)),
        ((), None, ()),
        ((0, 10), 1, (0,)),
    ],
)
def test_quantize_symmetric_follows_its_definition(shape, dim, scale_shape, bits, dtype):
    tensor = torch.randn(shape).to(dtype)
    q, scale = octavo.quantize_symmetric(tensor, bits=bits, dim=dim)
    assert (q.dtype, q.shape) == (torch.int8, tensor.shape)
    assert (scale.dtype, scale.shape) == (torch.float32, scale_shape)
    assert q.is_contiguous()

    # In float64: q may differ from the nearest integer only where the quotient is a tie but for rounding.
    w = tensor.double()
    absmax = w.abs().amax() if dim is None else w.abs().amax(dim=dim, keepdim=True)
    limit = 2 ** (bits - 1) - 1
    expected = (absmax.float() / limit).double()
    broadcast = scale.double() if dim is None else scale.double().unsqueeze(dim)
    torch.testing.assert_close(broadcast, expected, rtol=1e-6, atol=0)
    assert ((w / broadcast - q.double()).abs() <= 0.5 + 1e-5).all()

    restored = octavo.dequantize(q, scale, torch.float32, dim)
    assert ((restored.double() - w).abs() <= broadcast / 2 * (1 + 1e-5) + 2**-22 * w.abs()).all()


def test_zeros_have_scale_one():
    q, scale = octavo.quantize_symmetric(torch.zeros(3, 4), dim=1)
    assert scale.tolist() == [1, 1, 1]
    assert not q.any()


def test_quantizing_what_was_dequantized_changes_nothing():
    q, scale = octavo.quantize_weight_per_channel(torch.randn(64, 100))
    again, scale_again = octavo.quantize_weight_per_channel(octavo.dequantize(q, scale, torch.float32, 1))
    assert torch.equal(q, again)
    torch.testing.assert_close(scale, scale_again, rtol=1e-6, atol=0)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_non_finite_values_are_refused(bad):
    tensor = torch.randn(4, 8)
    tensor[1, 2] = bad
    with pytest.raises(RuntimeError, match=r"1.*2"):
        octavo.quantize_symmetric(tensor, dim=1)


@pytest.mark.parametrize("dtype", FLOATS)
def test_dequantize_rounds_once_to_the_dtype(dtype):
    q, scale = octavo.quantize_weight_per_channel(torch.randn(16, 24))
    restored = octavo.dequantize(q, scale, dtype, dim=1)
    assert torch.equal(restored, (q.float() * scale[:, None]).to(dtype))
    # Per-channel scales need no dim, also where the matrix is square.
    square, square_scale = octavo.quantize_weight_per_channel(torch.randn(16, 16))
    assert torch.equal(
        octavo.dequantize(square, square_scale, dtype), octavo.dequantize(square, square_scale, dtype, 1)
    )


def test_dequantize_gives_float16_unless_told():
    q, scale = octavo.quantize_symmetric(torch.randn(4, 4))
    assert octavo.dequantize(q, scale).dtype == torch.float16


def test_dequantize_refuses_a_scale_that_does_not_fit():
    q, _ = octavo.quantize_symmetric(torch.randn(4, 6))
    with pytest.raises(ValueError, match=r"\[5\].*\[4, 6\]"):
        octavo.dequantize(q, torch.ones(5), dim=1)
    with pytest.raises(ValueError, match="without axis dim"):
        octavo.dequantize(q, torch.ones(6), dim=1)


def test_quantize_weight_per_channel():
    weight = torch.randn(32, 48, dtype=torch.float16)
    q, scale = octavo.quantize_weight_per_channel(weight)
    assert (q.dtype, q.shape, scale.dtype, scale.shape) == (torch.int8, (32, 48), torch.float32, (32,))
    assert (q.abs().amax(dim=1) == 127).all()
    with pytest.raises(ValueError, match="shape"):
        octavo.quantize_weight_per_channel(torch.randn(4))


def test_int8_of_normal_weights_has_more_than_40_db():
    weight = torch.randn(256, 1024)
    q, scale = octavo.quantize_weight_per_channel(weight)
    assert octavo.calculate_quantization_error(weight, q, scale, dim=1)["snr_db"] > 40


def test_error_metrics_of_a_known_case():
    original = torch.tensor([[10.0, -5.0, 0.5, 0.0]])
    q = torch.tensor([[10, -4, 1, 0]], dtype=torch.int8)
    error = octavo.calculate_quantization_error(original, q, torch.tensor(1.0))
    assert error["max_abs_error"] == 1
    assert error["mean_abs_error"] == 1.5 / 4
    assert error["relative_error_pct"] == pytest.approx(20)  # 0.5 is below a tenth of the maximum
    assert error["snr_db"] == pytest.approx(10 * math.log10(125.25 / 1.25))


def test_error_of_an_exact_and_of_an_empty_tensor():
    original = torch.tensor([[2.0, -3.0]])
    exact = octavo.calculate_quantization_error(original, original.to(torch.int8), torch.tensor(1.0))
    assert exact == {"max_abs_error": 0, "mean_abs_error": 0, "relative_error_pct": 0, "snr_db": math.inf}
    empty = octavo.calculate_quantization_error(torch.empty(0, 4), torch.empty(0, 4, dtype=torch.int8), torch.ones(0))
    assert empty["snr_db"] == math.inf


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("leading", [(), (1,), (5,), (2, 3), (0,)])
@pytest.mark.parametrize("with_bias", [False, True])
def test_int8_gemm_is_the_product_with_the_dequantized_weight(dtype, leading, with_bias):
    q, scale = octavo.quantize_weight_per_channel(torch.randn(24, 40))
    x = torch.randn(*leading, 40).to(dtype)
    bias = torch.randn(24).to(dtype) if with_bias else None
    y = octavo.int8_gemm(x, q, scale, bias)
    assert (y.dtype, y.shape) == (dtype, (*leading, 24))

    weight = q.double() * scale.double()[:, None]
    exact = F.linear(x.double(), weight, None if bias is None else bias.double())
    unit = {torch.float32: 2**-24, torch.float16: 2**-11, torch.bfloat16: 2**-8}[dtype]
    products = F.linear(x.double().abs(), weight.abs(), None if bias is None else bias.double().abs())
    assert ((y.double() - exact).abs() <= unit * exact.abs() + 2**-23 * (40 / 16 + 8) * products + 1e-7).all()

    by_torch = octavo.int8_gemm_torch(x, q, scale, bias)
    assert (by_torch.dtype, by_torch.shape) == (y.dtype, y.shape)
    torch.testing.assert_close(by_torch.double(), exact, rtol=16 * unit, atol=40 * unit)


def test_int8_gemm_takes_the_arguments_of_other_libraries():
    q, scale = octavo.quantize_weight_per_channel(torch.randn(8, 16))
    x = torch.randn(3, 16)
    expected = octavo.int8_gemm(x, q, scale)
    others = {"weight_transposed": q.t().contiguous(), "scale_fp16": scale.half(), "use_cublas": True}
    assert torch.equal(octavo.int8_gemm(x, q, scale, None, **others), expected)
    assert torch.equal(octavo.int8_gemm(x, q, scale[:, None]), expected)


def test_int8_gemm_takes_one_scale_per_tensor():
    q, scale = octavo.quantize_symmetric(torch.randn(8, 16))
    x = torch.randn(3, 16)
    torch.testing.assert_close(octavo.int8_gemm(x, q, scale), octavo.int8_gemm_torch(x, q, scale))


def test_matmul_is_exact_before_its_rounding():
    x = torch.randint(-128, 128, (5, 300), dtype=torch.int8)
    y = torch.randint(-128, 128, (7, 300), dtype=torch.int8)
    sums = x.long() @ y.long().t()
    assert torch.equal(octavo.matmul(x, y), sums.float().bfloat16())
    assert torch.equal(octavo.matmul(x, y, alpha=0.125), (sums.float() * 0.125).bfloat16())
