"""The operators as torch sees them: schemas, fake kernels, gradients, compilation."""

import pytest
import torch
from torch.utils._pytree import tree_map_only

from octavo import _library

ops = torch.ops.octavo

FLOATS = [torch.float32, torch.float16, torch.bfloat16]


def test_missing_library_and_old_torch_are_import_errors(monkeypatch, tmp_path):
    monkeypatch.setenv("OCTAVO_TORCH_LIBRARY", str(tmp_path / "absent.so"))
    with pytest.raises(ImportError, match=r"absent\.so does not exist"):
        _library.load_library()
    (tmp_path / "broken.so").write_bytes(b"not a library")
    monkeypatch.setenv("OCTAVO_TORCH_LIBRARY", str(tmp_path / "broken.so"))
    with pytest.raises(ImportError, match=r"cannot be loaded from .*broken\.so"):
        _library.load_library()
    monkeypatch.setattr(torch, "__version__", "2.9.1+cpu")
    with pytest.raises(ImportError, match=r"torch 2\.10 or newer; this is 2\.9\.1"):
        _library.load_library()


def quantized(N, K, num_bits=8, symmetric=True, group_size=-1, seed=0):
    """weight float32 [N, K], and its q, scale, zero_point (None when symmetric)."""
    weight = torch.randn(N, K, generator=torch.Generator().manual_seed(seed))
    q, scale, zero_point = ops.quantize(weight, num_bits, symmetric, group_size, 0, 99.9, torch.float32)
    return weight, q, scale, None if symmetric else zero_point


def cases():
    """Every operator with arguments that differ in what decides the shapes and dtypes of its results."""
    weight = torch.randn(6, 40)
    for symmetric, group_size in [(True, -1), (False, -1), (True, 0), (False, 0), (True, 16), (False, 16)]:
        yield "quantize", (weight, 8, symmetric, group_size, 0, 99.9, torch.float32)
    yield "quantize", (weight.half(), 4, False, 32, 1, 99.9, torch.float16)
    _, q8, scale, _ = quantized(6, 41)
    yield "dequantize", (q8, scale, None, 8, -1, False, 41, torch.bfloat16)
    _, q4, group_scale, zero_point = quantized(6, 41, 4, False, 16)
    packed = ops.pack(q4)
    yield "dequantize", (packed, group_scale, zero_point, 4, 16, True, 41, torch.float32)
    yield "pack", (q4,)
    yield "pack", (quantized(6, 40, 4)[1],)
    yield "unpack", (packed, 41, False)
    yield "unpack", (packed, 42, True)
    x = torch.randn(2, 3, 41)
    bias = torch.randn(6)
    yield "quantize_per_token", (x.half(), -1)
    yield "quantize_per_token", (x, 16)
    one = torch.tensor([0.02])
    yield "quantize_static", (x.half(), one)
    yield "quantize_static", (x[0], one.reshape(()))
    for dtype in FLOATS:
        yield "rms_norm_quantize", (x.to(dtype), torch.randn(41).to(dtype), 1e-6)
        yield "add_rms_norm_quantize", (x.to(dtype), x.flip(0).to(dtype), torch.randn(41).to(dtype), 1e-6)
        yield "rms_norm", (x.to(dtype), torch.randn(41).to(dtype), 1e-6)
        yield "add_rms_norm", (x.to(dtype), x.flip(0).to(dtype), torch.randn(41).to(dtype), 1e-6)
    yield "silu_mul", (x, x.flip(0))
    yield "silu_mul", (x[..., :40].bfloat16(), None)
    yield "silu_mul_quantize", (x, x.flip(0))
    yield "silu_mul_quantize", (x[..., :40].bfloat16(), None)
    yield "linear", (x, q8, scale, None, bias, 8, -1, False)
    yield "linear", (x[0].bfloat16(), packed, group_scale, zero_point, None, 4, 16, True)
    yield "linear_joined", (x, [q8, q8], [scale, scale], [], [bias, bias], 8, -1, False)
    yield "linear_joined", (x[0].bfloat16(), [packed], [group_scale], [zero_point], [], 4, 16, True)
    yield "linear_w8a8_joined", (x.half(), [q8, q8], [scale, scale], [bias.half(), bias.half()])
    yield "linear_w4a8", (x.half(), packed, group_scale, zero_point, bias.half(), 4, 16, True)
    yield "linear_llm_int8", (x, q8, scale, bias, 1.0, 0)
    yield "linear_llm_int8", (x.half(), q8, scale, None, 1.0, 1)
    xq, x_scale = ops.quantize_per_token(x[0], -1)
    for dtype in [*FLOATS, torch.int32]:
        yield "scaled_mm", (xq, q8, x_scale, scale, None, dtype)
    yield "matmul", (xq, q8, 0.5)
    yield "linear_w8a8", (x, q8, scale, bias)
    yield "linear_w8a8", (x[0].bfloat16(), q8, scale, None)
    yield "linear_w8a8_static", (x, q8, scale, bias, one)
    yield "linear_w8a8_static", (x[0].bfloat16(), q8, scale, None, one)
    yield "pack_weight", (q8, scale, None, 8, -1, False, 41)
    yield "pack_weight", (packed, group_scale, zero_point, 4, 16, True, 41)
    block8 = ops.pack_weight(q8, scale, None, 8, -1, False, 41)
    block4 = ops.pack_weight(packed, group_scale, zero_point, 4, 16, True, 41)
    per_tensor = ops.quantize(weight, 8, False, 0, 0, 99.9, torch.float32)
    yield "unpack_weight", (block8, 6, 41, True, -1, False)
    yield "unpack_weight", (block4, 6, 41, False, 16, True)
    yield "unpack_weight", (ops.pack_weight(*per_tensor, 8, 0, False, 40), 6, 40, False, 0, False)
    yield "dequantize_packed", (block4, 6, 41, torch.bfloat16)
    yield "linear_packed", (x, block8, bias, 6)
    yield "linear_packed", (x[0].bfloat16(), block4, None, 6)
    yield "linear_w8a8_packed", (x.half(), block8, bias, 6)
    yield "linear_w8a8_static_packed", (x.half(), block8, bias, 6, one)
    yield "linear_w4a8_packed", (x, block4, None, 6)
    yield "linear_llm_int8_packed", (x, block8, bias, 6, 1.0, 1)


CASES = list(cases())


WITHOUT_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.mark.parametrize(("name", "args"), CASES, ids=[f"{name}-{i}" for i, (name, _) in enumerate(CASES)])
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=WITHOUT_CUDA)])
def test_opcheck(name, args, device):
    torch.library.opcheck(getattr(ops, name).default, tree_map_only(torch.Tensor, lambda a: a.to(device), args))


def test_every_operator_with_tensors_is_checked():
    takes_tensors = set()
    for schema in torch._C._jit_get_all_schemas():
        namespace, _, name = schema.name.partition("::")
        if namespace == "octavo" and any(isinstance(arg.type, torch.TensorType) for arg in schema.arguments):
            takes_tensors.add(name)
    takes_tensors.remove("refuse_gradient")  # which raises, whatever it is given
    assert takes_tensors <= {name for name, _ in CASES}


def test_opcheck_of_linear_with_gradients():
    _, q, scale, _ = quantized(6, 40)
    x = torch.randn(3, 40, requires_grad=True)
    bias = torch.randn(6, requires_grad=True)
    torch.library.opcheck(ops.linear.default, (x, q, scale, None, bias, 8, -1, False))


def test_opcheck_of_integer_products_with_a_bias_that_trains():
    _, q, scale, _ = quantized(6, 40)
    x, bias = torch.randn(3, 40), torch.randn(6, requires_grad=True)
    torch.library.opcheck(ops.linear_w8a8.default, (x, q, scale, bias))
    torch.library.opcheck(ops.linear_llm_int8.default, (x, q, scale, bias, 6.0, 0))
    xq, x_scale = ops.quantize_per_token(x, -1)
    torch.library.opcheck(ops.scaled_mm.default, (xq, q, x_scale, scale, bias, torch.float32))


@pytest.mark.parametrize("num_bits,group_size,symmetric", [(8, -1, True), (8, 0, False), (4, 16, False)])
@pytest.mark.parametrize("dtype", FLOATS)
def test_gradient_of_linear_is_that_of_the_dequantized_weight(dtype, num_bits, group_size, symmetric):
    _, q, scale, zero_point = quantized(8, 40, num_bits, symmetric, group_size)
    x = torch.randn(2, 3, 40).to(dtype).requires_grad_()
    bias = torch.randn(8).to(dtype).requires_grad_()
    y = ops.linear(x, q, scale, zero_point, bias, num_bits, group_size, False)
    grad = torch.randn(2, 3, 8).to(dtype)
    y.backward(grad)

    restored = ops.dequantize(q, scale, zero_point, num_bits, group_size, False, 40, dtype)
    torch.testing.assert_close(x.grad, grad @ restored)
    torch.testing.assert_close(bias.grad, grad.reshape(-1, 8).sum(0))


@pytest.mark.parametrize("name", ["linear_w8a8", "linear_w4a8", "linear_llm_int8", "scaled_mm"])
def test_integer_products_refuse_a_gradient(name):
    x = torch.randn(3, 32, requires_grad=True)
    _, q, scale, _ = quantized(8, 32)
    if name == "linear_w4a8":
        _, q, scale, _ = quantized(8, 32, 4, group_size=16)
        y = ops.linear_w4a8(x, ops.pack(q), scale, None, None, 4, 16, True)
    elif name == "linear_w8a8":
        y = ops.linear_w8a8(x, q, scale, None)
    elif name == "linear_llm_int8":
        y = ops.linear_llm_int8(x, q, scale, None, 6.0, 0)
    else:
        xq, x_scale = ops.quantize_per_token(x, -1)
        y = ops.scaled_mm(xq, q, x_scale, scale, None, torch.float32)
    with pytest.raises(RuntimeError, match="straight_through=True"):
        y.sum().backward()


FORMATS = [(8, True, -1), (8, True, 0), (8, False, 16), (6, True, -1), (4, True, 32), (4, False, 16), (3, False, 7)]


@pytest.mark.parametrize("shape", [(1, 1), (6, 41), (70, 200)])
@pytest.mark.parametrize("two_a_byte", [False, True])
@pytest.mark.parametrize(("num_bits", "symmetric", "group_size"), FORMATS)
def test_unpack_weight_is_the_inverse_of_pack_weight(num_bits, symmetric, group_size, two_a_byte, shape):
    if two_a_byte and num_bits > 4:
        return
    _, q, scale, zero_point = quantized(*shape, num_bits, symmetric, group_size)
    q = ops.pack(q) if two_a_byte else q
    weight = ops.pack_weight(q, scale, zero_point, num_bits, group_size, two_a_byte, shape[1])
    assert (weight.dtype, weight.ndim, weight.data_ptr() % 64) == (torch.uint8, 1, 0)
    assert weight.numel() == ops.packed_size(num_bits, symmetric, group_size, *shape)
    found = ops.unpack_weight(weight, *shape, symmetric, group_size, two_a_byte)
    expected = (q, scale, torch.empty(0, dtype=torch.uint8) if symmetric else zero_point)
    for tensor, original in zip(found, expected, strict=True):
        assert (tensor.dtype, tensor.shape) == (original.dtype, original.shape)
        assert torch.equal(tensor, original)
    restored = ops.dequantize(q, scale, zero_point, num_bits, group_size, two_a_byte, shape[1], torch.float16)
    assert torch.equal(ops.dequantize_packed(weight, *shape, torch.float16), restored)


X_SCALE = torch.tensor([0.02])


def products(num_bits, symmetric, group_size):
    """Names of the products that take such a weight, with their row-major form."""
    yield "linear_packed", lambda x, q, s, z, b: ops.linear(x, q, s, z, b, num_bits, group_size, False)
    if num_bits == 8 and symmetric and group_size <= 0:

        def w8a8(x, q, s, z, b):
            xq, x_scale = ops.quantize_per_token(x.reshape(-1, x.shape[-1]), -1)
            return ops.scaled_mm(xq, q, x_scale, s, b, x.dtype).reshape(*x.shape[:-1], -1)

        def w8a8_static(x, q, s, z, b):
            xq = ops.quantize_static(x.reshape(-1, x.shape[-1]), X_SCALE)
            return ops.scaled_mm(xq, q, X_SCALE, s, b, x.dtype).reshape(*x.shape[:-1], -1)

        yield "linear_w8a8_packed", w8a8
        yield "linear_w8a8_static_packed", w8a8_static
        yield "linear_llm_int8_packed", lambda x, q, s, z, b: ops.linear_llm_int8(x, q, s, b, 2.0, 0)
    if num_bits <= 4 and group_size > 0:
        yield "linear_w4a8_packed", lambda x, q, s, z, b: ops.linear_w4a8(x, q, s, z, b, num_bits, group_size, False)


PRODUCTS = [(*format, name, row_major) for format in FORMATS for name, row_major in products(*format)]


@pytest.mark.parametrize("leading", [(1,), (2, 3), (40,)])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(("num_bits", "symmetric", "group_size", "name", "row_major"), PRODUCTS)
def test_packed_products_are_those_of_row_major_weights(
    num_bits, symmetric, group_size, name, row_major, dtype, leading
):
    N, K = 70, 200
    _, q, scale, zero_point = quantized(N, K, num_bits, symmetric, group_size)
    weight = ops.pack_weight(q, scale, zero_point, num_bits, group_size, False, K)
    x, bias = torch.randn(*leading, K).to(dtype), torch.randn(N)
    options = {"linear_llm_int8_packed": (2.0, 0), "linear_w8a8_static_packed": (X_SCALE,)}.get(name, ())
    y, expected = getattr(ops, name)(x, weight, bias, N, *options), row_major(x, q, scale, zero_point, bias)
    assert (y.dtype, y.shape) == (expected.dtype, expected.shape)
    if name == "linear_packed":
        # Each is as near to the exact product as docs/numerics.md says.
        w = ops.dequantize_packed(weight, N, K, torch.float32).double()
        exact, magnitude = x.double() @ w.T + bias, x.double().abs() @ w.abs().T + bias.abs()
        bound = torch.finfo(dtype).eps / 2 * exact.abs() + 2**-23 * (K / 16 + 8) * magnitude
        for found in (y, expected):
            assert ((found.double() - exact).abs() <= bound).all()
    else:
        assert torch.equal(y, expected)
    strided = torch.randn(*leading, 2 * K).to(dtype)[..., ::2].copy_(x)
    assert torch.equal(getattr(ops, name)(strided, weight, bias, N, *options), y)
    empty = getattr(ops, name)(x[:0], weight, bias, N, *options)
    assert empty.shape == (0, *leading[1:], N)


def test_threads_change_no_bit():
    _, q, scale, _ = quantized(300, 256)
    weight = ops.pack_weight(q, scale, None, 8, -1, False, 256)
    x = torch.randn(40, 256)
    results = []
    before = torch.get_num_threads()
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        results.append((ops.linear_packed(x, weight, None, 300), ops.linear_w8a8_packed(x, weight, None, 300)))
    torch.set_num_threads(before)
    for result in results[1:]:
        assert all(map(torch.equal, result, results[0]))


def test_what_is_no_packed_weight_is_refused():
    _, q, scale, _ = quantized(6, 40)
    weight = ops.pack_weight(q, scale, None, 8, -1, False, 40)
    x = torch.randn(2, 40)
    for bad, message in [
        (q, "none that octavo::pack_weight made"),
        (weight[:10], "none that octavo::pack_weight made"),
        (torch.zeros_like(weight), "none that octavo::pack_weight made"),
        (weight[:-1], "cut short"),
    ]:
        with pytest.raises(RuntimeError, match=message):
            ops.linear_packed(x, bad, None, 6)
    with pytest.raises(RuntimeError, match=r"is \[6, 40\], not \[7, 40\]"):
        ops.linear_packed(x, weight, None, 7)
    with pytest.raises(RuntimeError, match=r"x is \[2, 39\] and the weight \[6, 40\]"):
        ops.linear_packed(x[:, :39], weight, None, 6)
    with pytest.raises(RuntimeError, match="not what it is unpacked as"):
        ops.unpack_weight(weight, 6, 40, False, -1, False)
    with pytest.raises(RuntimeError, match="w8a8 takes symmetric 8-bit weights"):
        _, q4, scale4, _ = quantized(6, 40, 4, group_size=8)
        ops.linear_w8a8_packed(x, ops.pack_weight(q4, scale4, None, 4, 8, False, 40), None, 6)
    unaligned = torch.empty(weight.numel() + 1, dtype=torch.uint8)[1:].copy_(weight)
    with pytest.raises(RuntimeError, match="address"):
        ops.linear_packed(x, unaligned, None, 6)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("K", [1, 2, 7, 64])
def test_unpack_is_the_inverse_of_pack(K, symmetric):
    q = torch.randint(-8, 8, (5, K), dtype=torch.int8) if symmetric else torch.randint(0, 16, (5, K), dtype=torch.uint8)
    packed = ops.pack(q)
    assert packed.shape == (5, (K + 1) // 2)
    unpacked = ops.unpack(packed, K, symmetric)
    assert unpacked.dtype == q.dtype
    assert torch.equal(unpacked, q)


def test_pack_puts_the_lower_k_in_the_low_nibble():
    assert ops.pack(torch.tensor([[1, 2, 15]], dtype=torch.uint8)).tolist()[0][0] == 0x21
    assert ops.pack(torch.tensor([[-8, 7]], dtype=torch.int8)).tolist() == [[0xF0]]


@pytest.mark.parametrize("K", [7, 64, 100])
def test_integer_sums_are_exact(K):
    x = torch.randint(-128, 128, (5, K), dtype=torch.int8)
    w = torch.randint(-128, 128, (9, K), dtype=torch.int8)
    one = torch.ones(1)
    expected = x.long() @ w.long().t()
    assert torch.equal(ops.scaled_mm(x, w, one, one, None, torch.int32).long(), expected)
    assert torch.equal(ops.matmul(x, w, 0.5), (expected.float() * 0.5).bfloat16())


def test_scaled_mm_takes_scales_of_every_documented_shape():
    x = torch.randint(-128, 128, (5, 32), dtype=torch.int8)
    w = torch.randint(-128, 128, (9, 32), dtype=torch.int8)
    x_scale, w_scale = torch.rand(5) + 0.5, torch.rand(9) + 0.5
    expected = (x.long() @ w.long().t()).float() * w_scale * x_scale[:, None]
    for xs in (x_scale, x_scale[:, None]):
        for ws in (w_scale, w_scale[:, None]):
            assert torch.equal(ops.scaled_mm(x, w, xs, ws, None, torch.float32), expected)
    half = torch.tensor(0.5)
    expected = (x.long() @ w.long().t()).float() * 0.5 * 0.5
    assert torch.equal(ops.scaled_mm(x, w, half, half.reshape(1), None, torch.float32), expected)


def test_non_finite_weight_is_named():
    weight = torch.randn(4, 8)
    weight[2, 5] = float("nan")
    with pytest.raises(RuntimeError, match=r"2.*5"):
        ops.quantize(weight, 8, True, -1, 0, 99.9, torch.float32)


def test_a_row_of_x_with_nan_gives_a_row_of_nan():
    _, q, scale, _ = quantized(4, 16)
    x = torch.randn(3, 16)
    x[1, 3] = float("inf")
    xq, x_scale = ops.quantize_per_token(x, -1)
    assert torch.isnan(x_scale).flatten().tolist() == [False, True, False]
    y = ops.scaled_mm(xq, q, x_scale, scale, None, torch.float32)
    assert torch.isnan(y).all(dim=1).tolist() == [False, True, False]


@pytest.mark.parametrize("shape", [(40,), (0, 40), (2, 0, 40), (1, 40), (2, 3, 4, 40)])
def test_linear_takes_any_leading_dimensions(shape):
    _, q, scale, _ = quantized(6, 40)
    x = torch.randn(shape)
    y = ops.linear(x, q, scale, None, None, 8, -1, False)
    assert y.shape == (*shape[:-1], 6)
    restored = ops.dequantize(q, scale, None, 8, -1, False, 40, torch.float32)
    torch.testing.assert_close(y, x @ restored.t(), rtol=1e-4, atol=1e-4)


def test_linear_takes_strided_x():
    _, q, scale, _ = quantized(6, 40)
    x = torch.randn(40, 7).t()
    assert torch.equal(
        ops.linear(x, q, scale, None, None, 8, -1, False),
        ops.linear(x.contiguous(), q, scale, None, None, 8, -1, False),
    )


def test_wrong_shapes_are_errors():
    _, q, scale, _ = quantized(6, 40)
    with pytest.raises(RuntimeError):
        ops.linear(torch.randn(2, 39), q, scale, None, None, 8, -1, False)
    with pytest.raises(RuntimeError):
        ops.linear(torch.randn(2, 40), q, scale[:5], None, None, 8, -1, False)
    with pytest.raises(RuntimeError):
        ops.linear(torch.randn(2, 40), q, scale, None, torch.randn(7), 8, -1, False)
