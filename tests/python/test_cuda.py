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


FORMATS = [(8, True, -1), (8, True, 0), (8, False, 0), (8, False, 48), (4, True, 32), (4, False, 16), (3, False, -1)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("scale_dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("num_bits", "symmetric", "group_size"), FORMATS)
def test_quantize_pack_and_dequantize_give_the_cpus_bits(num_bits, symmetric, group_size, scale_dtype, dtype):
    weight = torch.randn(40, 131).to(dtype) * torch.logspace(-5, 2, 40).to(dtype)[:, None]
    weight[3] = 0
    weight[4] = weight[4].abs()
    arguments = (weight, num_bits, symmetric, group_size, 0, 99.9, scale_dtype)
    expected = torch.ops.octavo.quantize(*arguments)
    found = on_cuda(torch.ops.octavo.quantize, *arguments)
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))
    q, scale, zero_point = expected
    zero_point = None if symmetric else zero_point
    for packed in (False, True)[: 1 + (num_bits <= 4)]:
        if packed:
            assert torch.equal(on_cuda(torch.ops.octavo.unpack, torch.ops.octavo.pack(q), 131, symmetric)[0], q)
            assert torch.equal(on_cuda(torch.ops.octavo.pack, q)[0], torch.ops.octavo.pack(q))
        stored = torch.ops.octavo.pack(q) if packed else q
        for out in (torch.float32, torch.float16, torch.bfloat16):
            form = (stored, scale, zero_point, num_bits, group_size, packed, 131, out)
            assert torch.equal(torch.ops.octavo.dequantize(*form), on_cuda(torch.ops.octavo.dequantize, *form)[0])
        # Small enough for the plain kernel, which sums as the CPU's does.
        x = torch.randn(3, 131).to(dtype)
        product = (x, stored, scale, zero_point, torch.randn(40).to(dtype), num_bits, group_size, packed)
        y = on_cuda(torch.ops.octavo.linear, *product)[0]
        torch.testing.assert_close(y, torch.ops.octavo.linear(*product), rtol=4 * torch.finfo(dtype).eps, atol=1e-2)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("group_size", [0, -1, 32])
def test_weights_that_are_not_finite_are_errors_that_name_the_place(value, group_size):
    weight = torch.randn(6, 96)
    weight[2, 40] = value
    with pytest.raises(RuntimeError, match=r"element \[2, 40\]"):
        torch.ops.octavo.quantize(weight.cuda(), 8, True, group_size, 0, 99.9, torch.float32)
    with pytest.raises(RuntimeError, match="overflows float16"):
        torch.ops.octavo.quantize(torch.full((2, 32), 1e30).cuda(), 8, True, group_size, 0, 99.9, torch.float16)


@pytest.mark.parametrize("clip", [1, 2])
def test_other_clips_give_the_cpus_bits(clip):
    arguments = (torch.randn(8, 64), 8, True, -1, clip, 99.0, torch.float32)
    found = on_cuda(torch.ops.octavo.quantize, *arguments)
    assert all(torch.equal(a, b) for a, b in zip(torch.ops.octavo.quantize(*arguments), found, strict=True))


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


def integers(*shape):
    return torch.randint(-128, 128, shape, dtype=torch.int8)


def test_matmul_compiles():
    def scaled(x, y):
        return octavo.matmul(x, y, 0.02) + 1

    compiled = torch.compile(scaled, fullgraph=True, dynamic=True)
    for M, K in ((1, 64), (5, 96), (130, 200)):
        x, y = integers(M, K).cuda(), integers(33, K).cuda()
        assert torch.equal(compiled(x, y), scaled(x, y))


def w8a8(N=300, K=528, dtype=torch.bfloat16):
    """A module, an input for it, and what the CPU makes of it."""
    module = octavo.QuantizedLinear.from_linear(torch.nn.Linear(K, N, dtype=dtype), "w8a8")
    x = torch.randn(29, K, dtype=dtype)
    return module.cuda(), x.cuda(), copy.deepcopy(module).cpu()(x)


def test_side_streams():
    module, x, expected = w8a8()
    torch.cuda.synchronize()
    streams = [torch.cuda.Stream() for _ in range(4)]
    results = []
    for turn in range(40):
        with torch.cuda.stream(streams[turn % 4]):
            results.append(module(x))
    torch.cuda.synchronize()
    assert all(torch.equal(y.cpu(), expected) for y in results)


def test_a_stream_is_followed():
    """Work of other libraries before and behind ours on a stream is neither overtaken nor disturbed."""
    module, x, expected = w8a8()
    doubled = x * 2
    torch.cuda.synchronize()
    with torch.cuda.stream(torch.cuda.Stream()):
        torch.cuda._sleep(20_000_000)
        late = doubled / 2  # what module(x) must wait for
        y = module(late)
        late.zero_()
        y2 = y + 0
        y.zero_()
    torch.cuda.synchronize()
    assert torch.equal(y2.cpu(), expected)


def test_cuda_graphs():
    module, x, expected = w8a8()
    module(x)
    graph = torch.cuda.CUDAGraph()
    static_x = torch.zeros_like(x)
    with torch.cuda.graph(graph):
        hidden = module(static_x)
        y = hidden + 0
    for _ in range(3):
        static_x.copy_(x)
        graph.replay()
        assert torch.equal(y.cpu(), expected)
        static_x.zero_()


def test_matmul_waits_for_what_the_kernel_in_front_writes():
    a, b = torch.randn(16, 2048).bfloat16(), [torch.randn(512, 2048).bfloat16() for _ in range(4)]

    def product(x, y):
        x = torch.ops.octavo.quantize_per_token(x, -1)[0]
        return octavo.matmul(x, torch.ops.octavo.quantize_per_token(y, -1)[0], 0.01)

    expected = [product(a, y) for y in b]
    a, b = a.cuda(), [y.cuda() for y in b]
    found = [product(a, b[i % 4]) for i in range(200)]
    assert all(torch.equal(y.cpu(), expected[i % 4]) for i, y in enumerate(found))


def test_nothing_waits_for_the_device():
    module, x, expected = w8a8()

    def work():
        octavo.matmul(module.weight_int8, module.weight_int8)
        return module(x)

    work()  # what is allocated once, is now
    torch.cuda.synchronize()
    torch.cuda._sleep(2_000_000_000)  # about a second
    busy = torch.cuda.Event()
    busy.record()
    y = work()
    assert not busy.query()
    assert torch.equal(y.cpu(), expected)


def test_a_device_that_is_not_current():
    if torch.cuda.device_count() < 2:
        pytest.skip("one CUDA device")
    module, x, expected = w8a8()
    assert torch.cuda.current_device() == 0
    module, x = module.to("cuda:1"), x.to("cuda:1")
    y = module(x)
    assert y.device == torch.device("cuda:1") and torch.equal(y.cpu(), expected)
    assert torch.cuda.current_device() == 0
    with pytest.raises(RuntimeError, match="must be on one device"):
        torch.ops.octavo.matmul(integers(2, 16).to("cuda:1"), integers(2, 16).to("cuda:0"), 1.0)


def test_views_and_odd_addresses():
    x, w = integers(40, 300), integers(50, 300)
    x_cuda, w_cuda = x.cuda(), w.cuda()
    for columns in (slice(0, 256), slice(1, 257), slice(3, 20), slice(16, 16 + 128)):
        expected = octavo.matmul(x[:, columns], w[:, columns])
        assert torch.equal(octavo.matmul(x_cuda[:, columns], w_cuda[:, columns]).cpu(), expected)
    flat = integers(4 * 333 + 1)
    odd, odd_cuda = flat[1:].view(4, 333), flat.cuda()[1:].view(4, 333)
    assert torch.equal(octavo.matmul(odd, odd), octavo.matmul(odd_cuda, odd_cuda).cpu())
    assert torch.equal(octavo.matmul(x.T, x.T), octavo.matmul(x_cuda.T, x_cuda.T).cpu())


@pytest.mark.parametrize("shape", [(0, 5, 8), (3, 0, 8), (3, 5, 0)])
def test_empty_products(shape):
    M, N, K = shape
    arguments = (integers(M, K), integers(N, K), torch.ones(M), torch.ones(N), torch.randn(N), torch.float16)
    assert torch.equal(torch.ops.octavo.scaled_mm(*arguments), on_cuda(torch.ops.octavo.scaled_mm, *arguments)[0])
    weight = (integers(N, K), torch.ones(N), None)
    x = torch.randn(M, K)
    assert torch.equal(torch.ops.octavo.linear_w8a8(x, *weight), on_cuda(torch.ops.octavo.linear_w8a8, x, *weight)[0])


BAD = {
    "w on the CPU": (dict(w=integers(5, 64)), "w is on the CPU and other operands on cuda:0"),
    "x on the CPU": (dict(x=integers(3, 64)), "x is on the CPU"),
    "bias on the CPU": (dict(bias=torch.ones(5)), "bias is on the CPU and other operands on cuda:0"),
    "scale on the CPU": (dict(w_scale=torch.ones(5)), "w_scale is on the CPU and other operands on cuda:0"),
    "dtype of x": (dict(x=torch.zeros(3, 64).cuda), "x is float32; it must be int8"),
    "dtype of w": (dict(w=torch.zeros(5, 64, dtype=torch.uint8).cuda), "w is uint8; it must be int8"),
    "dtype of the scale": (dict(w_scale=torch.ones(5).half().cuda), "w_scale is float16; it must be float32"),
    "dtype of the output": (dict(out_dtype=torch.int8), "y is int8; it must be float32, float16 or bfloat16"),
    "K": (dict(w=integers(5, 65).cuda), r"x is \[3, 64\] and the weight \[5, 65\]: their K differ"),
    "scales of x": (dict(x_scale=torch.ones(4).cuda), r"x_scale is \[4, 1\]; it must be \[3, 1\] or \[1, 1\]"),
    "scales of w": (dict(w_scale=torch.ones(3).cuda), r"w_scale is \[3, 1\]; it must be \[5, 1\] or \[1, 1\]"),
    "bias": (dict(bias=torch.ones(4).cuda), r"bias is \[1, 4\]; it must be \[1, 5\]"),
    "dimensions of w": (dict(w=integers(5, 8, 8).cuda), r"w has 3 dimensions; it must be \[N, K\]"),
    "K beyond int32": (
        dict(x=integers(1, 131072).cuda, w=integers(5, 131072).cuda, x_scale=torch.ones(1).cuda),
        "K = 131072 is above 131071",
    ),
}


@pytest.mark.skipif(not torch.ops.octavo.has_cuda(), reason="built without CUDA kernels")
@pytest.mark.parametrize("what", BAD)
def test_what_does_not_fit_is_an_error_that_says_so(what):
    changes, message = BAD[what]
    arguments = dict(
        x=integers(3, 64).cuda, w=integers(5, 64).cuda, x_scale=torch.ones(3).cuda, w_scale=torch.ones(5).cuda
    )
    arguments |= dict(bias=None, out_dtype=torch.bfloat16) | changes
    values = [value() if callable(value) else value for value in arguments.values()]
    with pytest.raises(RuntimeError, match=message):
        torch.ops.octavo.scaled_mm(*values)
    torch.cuda.synchronize()  # and the device still works


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("scheme", ["w4a16-g32", "w4a16-g64-asym", "w4a16-g128", "w8a16-g32"])
def test_scales_of_groups_are_held_in_16_bits(scheme, dtype):
    module = octavo.QuantizedLinear.from_weight(torch.randn(96, 512, dtype=dtype).cuda(), None, scheme)
    on_cpu = copy.deepcopy(module).cpu()
    assert module.scale.dtype == dtype and on_cpu.scale.dtype == torch.float32
    assert torch.equal(module.scale.cpu().float(), on_cpu.scale)
    assert torch.equal(module.weight.cpu(), on_cpu.weight)
    assert torch.equal(copy.deepcopy(on_cpu).cuda().scale, module.scale)
    state, form = module.state_dict(), (module.scheme.num_bits, module.scheme.group_size, module.scheme.packed)
    q, zero_point = state.get("weight_int4", state.get("weight_int8")), state.get("zero_point")
    for rows in (1, 3, 16, 40, 100):
        x = torch.randn(rows, 512, dtype=dtype).cuda()
        in_float32 = torch.ops.octavo.linear(x, q, module.scale.float(), zero_point, None, *form)
        assert torch.equal(module(x), in_float32)
        other = torch.bfloat16 if dtype == torch.float16 else torch.float16  # as under autocast: scales are converted
        expected = torch.ops.octavo.linear(x.to(other), q, module.scale.float(), zero_point, None, *form)
        assert torch.equal(module(x.to(other)), expected)


def test_scales_that_16_bits_do_not_hold_stay_float32():
    weight = torch.randn(8, 256).cuda()
    module = octavo.QuantizedLinear.from_weight(weight.half(), None, "w4a16-g32")
    state = module.state_dict()
    state["scale"] = torch.full((8, 8), 1 / 3).cuda()
    module.load_state_dict(state)
    assert torch.equal(module.scale, state["scale"])
    assert octavo.QuantizedLinear.from_weight(weight, None, "w4a16-g32").scale.dtype == torch.float32
    assert octavo.QuantizedLinear.from_weight(weight[:, :96].half(), None, "w4a16-g32").scale.dtype == torch.float32
    cast = octavo.QuantizedLinear.from_weight(weight.half(), None, "w4a16-g32")
    before = cast.scale.float()
    assert torch.equal(cast.bfloat16().scale.float(), before)  # whether bfloat16 holds them or not
    assert torch.equal(cast.half().scale.float(), before) and cast.scale.dtype == torch.float16


def test_the_module_names_its_kernel():
    module, _, _ = w8a8()
    assert ("kernel=cuda_w8a8_" if torch.ops.octavo.has_cuda() else "kernel=cuda_torch") in repr(module)
