"""CUDA tensors give the CPU's results: to the bit where integers are summed, within rounding otherwise."""

import copy

import pytest
import torch

import octavo

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")

SCHEMES = ("w8a16", "w8a16-tensor", "w8a16-g32-asym", "w4a16-g32", "w4a16-g64-asym", "w8a8", "w4a8-g32", "llm.int8")
EXACT = ("w8a8", "w4a8-g32", "llm.int8")


def on_cuda(function, *arguments):
    moved = [a.cuda() if isinstance(a, torch.Tensor) else a for a in arguments]
    result = function(*moved)
    parts = result if isinstance(result, tuple) else (result,)
    assert all(part.is_cuda for part in parts)
    return [part.cpu() for part in parts]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_module_moves_and_agrees(scheme, dtype):
    linear = torch.nn.Linear(192, 80, dtype=dtype)
    x = torch.randn(3, 5, 192, dtype=dtype)
    x[0, 0, 7] = 20.0
    module = octavo.QuantizedLinear.from_linear(linear, scheme)
    expected = module(x)
    module = module.cuda()
    assert all(tensor.is_cuda for tensor in module.state_dict().values())
    y = module(x.cuda())
    assert y.is_cuda and y.dtype == dtype
    if scheme in EXACT:
        assert torch.equal(y.cpu(), expected)
    else:
        unit = torch.finfo(dtype).eps
        torch.testing.assert_close(y.cpu(), expected, rtol=4 * unit, atol=16 * max(unit, 2**-20))
    assert torch.equal(copy.deepcopy(module)(x.cuda()), y)
    assert torch.equal(module.cpu()(x), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_quantizing_a_cuda_weight_gives_the_cpus_bits(scheme, dtype):
    linear = torch.nn.Linear(130, 40, dtype=dtype)
    expected = octavo.QuantizedLinear.from_linear(copy.deepcopy(linear), scheme).state_dict()
    found = octavo.QuantizedLinear.from_linear(linear.cuda(), scheme).state_dict()
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        assert tensor.is_cuda
        assert torch.equal(tensor.cpu(), expected[name]), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("group_size", [-1, 32])
def test_quantize_per_token_gives_the_cpus_bits(dtype, group_size):
    x = torch.randn(64, 577, dtype=dtype) * torch.logspace(-6, 3, 64).to(dtype)[:, None]
    x[3] = 0
    x[4, 5] = float("nan")
    x[5, 6] = float("inf")
    q, scale = torch.ops.octavo.quantize_per_token(x, group_size)
    q_cuda, scale_cuda = on_cuda(torch.ops.octavo.quantize_per_token, x, group_size)
    assert torch.equal(q, q_cuda)
    assert torch.equal(scale.nan_to_num(-1), scale_cuda.nan_to_num(-1))


@pytest.mark.parametrize("shape", [(1, 1, 1), (7, 33, 65), (64, 128, 4096), (2, 3, 100_000)])
@pytest.mark.parametrize("out_dtype", [torch.int32, torch.float32, torch.bfloat16])
def test_scaled_mm_gives_the_cpus_bits(shape, out_dtype):
    M, N, K = shape
    x = torch.randint(-128, 128, (M, K), dtype=torch.int8)
    w = torch.randint(-128, 128, (N, K), dtype=torch.int8)
    bias = None if out_dtype == torch.int32 else torch.randn(N)
    arguments = (x, w, torch.rand(M), torch.rand(N), bias, out_dtype)
    assert torch.equal(torch.ops.octavo.scaled_mm(*arguments), on_cuda(torch.ops.octavo.scaled_mm, *arguments)[0])


def test_matmul():
    x = torch.randint(-128, 128, (5, 300), dtype=torch.int8)
    y = torch.randint(-128, 128, (9, 300), dtype=torch.int8)
    assert torch.equal(octavo.matmul(x, y, 0.01), octavo.matmul(x.cuda(), y.cuda(), 0.01).cpu())


def test_quantized_model_moves():
    model = torch.nn.Sequential(torch.nn.Linear(64, 96), torch.nn.GELU(), torch.nn.Linear(96, 8)).cuda()
    octavo.quantize_model(model, "w8a16")
    x = torch.randn(4, 64, device="cuda")
    y = model(x)
    assert y.is_cuda
    torch.testing.assert_close(model.cpu()(x.cpu()), y.cpu(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("scheme", ["w8a16", "w4a16-g32"])
def test_compiles(scheme):
    module = octavo.QuantizedLinear.from_linear(torch.nn.Linear(64, 48), scheme).cuda()
    compiled = torch.compile(module, fullgraph=True, dynamic=True)
    for rows in (1, 3, 17):
        x = torch.randn(rows, 64, device="cuda")
        torch.testing.assert_close(compiled(x), module(x))
