"""The operators against tests/golden, which the C++ reference wrote; its names are explained in tests/gemm/golden.h.

Every implementation is held against the same files: the CPU's operators, and the compositions that CUDA tensors use.
"""

from collections import defaultdict
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import octavo
from octavo import _cuda

GOLDEN = Path(__file__).parents[1] / "golden"
CLIPS = {"absmax": 0, "mse": 1, "percentile": 2}
OPS = {
    "cpu": torch.ops.octavo,
    "composed": type("Composed", (), {name: staticmethod(kernel) for name, kernel in _cuda.COMPOSED.items()}),
}


def cases(*operations):
    found = defaultdict(dict)
    for file in ("quantize.safetensors", "products.safetensors"):
        for name, tensor in load_file(GOLDEN / file).items():
            case, part = name.rsplit("/", 1)
            if case.split("/")[0] in operations:
                found[case][part] = tensor
    assert found
    return [pytest.param(case.split("/"), parts, id=case) for case, parts in sorted(found.items())]


def same(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a.nan_to_num(nan=-1e30), b.nan_to_num(nan=-1e30))


def weight_of(parts, scheme):
    scheme = octavo.parse_scheme(scheme)
    zero_point = parts.get("zero_point")
    return parts["q"], parts["scale"], zero_point, scheme


@pytest.mark.parametrize(("case", "parts"), cases("quantize"))
def test_quantize(case, parts):
    _, _, text, clip, scale_dtype = case
    s = octavo.parse_scheme(text)
    dtype = getattr(torch, scale_dtype)
    q, scale, zero_point = torch.ops.octavo.quantize(
        parts["weight"], s.num_bits, s.symmetric, s.group_size, CLIPS[clip], 99.9, dtype
    )
    assert same(q, parts["q"])
    assert same(scale, parts["scale"])
    if not s.symmetric:
        assert same(zero_point, parts["zero_point"])


@pytest.mark.parametrize("ops", OPS.values(), ids=OPS.keys())
@pytest.mark.parametrize(("case", "parts"), cases("quantize"))
def test_dequantize(case, parts, ops):
    q, scale, zero_point, s = weight_of(parts, case[2])
    K = q.shape[1]
    assert same(
        ops.dequantize(q, scale, zero_point, s.num_bits, s.group_size, False, K, torch.bfloat16), parts["dequantized"]
    )
    if s.num_bits <= 4:
        packed = torch.ops.octavo.pack(q)
        restored = ops.dequantize(packed, scale, zero_point, s.num_bits, s.group_size, True, K, torch.bfloat16)
        assert same(restored, parts["dequantized"])


@pytest.mark.parametrize("ops", OPS.values(), ids=OPS.keys())
@pytest.mark.parametrize(("case", "parts"), cases("quantize_per_token"))
def test_quantize_per_token(case, parts, ops):
    q, scale = ops.quantize_per_token(parts["x"], int(case[2][1:]))
    assert same(q, parts["q"])
    assert same(scale, parts["scale"])


@pytest.mark.parametrize("ops", OPS.values(), ids=OPS.keys())
@pytest.mark.parametrize(("case", "parts"), cases("scaled_mm"))
def test_scaled_mm(case, parts, ops):
    y = ops.scaled_mm(parts["x"], parts["w"], parts["x_scale"], parts["w_scale"], parts["bias"][0], parts["y"].dtype)
    assert same(y, parts["y"])


@pytest.mark.parametrize("ops", OPS.values(), ids=OPS.keys())
@pytest.mark.parametrize(("case", "parts"), cases("linear"))
def test_linear(case, parts, ops):
    q, scale, zero_point, s = weight_of(parts, case[2])
    y = ops.linear(parts["x"], q, scale, zero_point, parts["bias"][0], s.num_bits, s.group_size, False)
    # The bound of docs/numerics.md; the file holds y* after one rounding, so that unit counts twice.
    K = parts["x"].shape[1]
    w = torch.ops.octavo.dequantize(q, scale, zero_point, s.num_bits, s.group_size, False, K, torch.float32).double()
    magnitude = parts["x"].double().abs() @ w.abs().T + parts["bias"].double().abs()
    unit = torch.finfo(y.dtype).eps / 2
    bound = 2 * unit * parts["y"].double().abs() + 2**-23 * (K / 16 + 8) * magnitude
    assert y.dtype == parts["y"].dtype
    assert ((y.double() - parts["y"].double()).abs() <= bound).all()


@pytest.mark.parametrize(("case", "parts"), cases("linear_w4a8"))
def test_linear_w4a8(case, parts):
    q, scale, zero_point, s = weight_of(parts, case[2])
    bias = parts["bias"][0]
    y = torch.ops.octavo.linear_w4a8(parts["x"], q, scale, zero_point, bias, s.num_bits, s.group_size, False)
    assert same(y, parts["y"])
    packed = torch.ops.octavo.pack(q)
    y = torch.ops.octavo.linear_w4a8(parts["x"], packed, scale, zero_point, bias, s.num_bits, s.group_size, True)
    assert same(y, parts["y"])


@pytest.mark.parametrize(("case", "parts"), cases("linear_llm_int8"))
def test_linear_llm_int8(case, parts):
    rule = ("token", "batch").index(case[2])
    y = torch.ops.octavo.linear_llm_int8(parts["x"], parts["q"], parts["scale"], parts["bias"][0], 6.0, rule)
    assert same(y, parts["y"])
