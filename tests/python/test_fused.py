"""What stands in front of a product, quantized in the same pass; and layers with static activation scales."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F

import octavo
from octavo import QuantizedLinear, StaticInt8Linear

FLOATS = [torch.float32, torch.float16, torch.bfloat16]
CUDA = pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"))
DEVICES = ["cpu", CUDA]
K = 192


def same(found, expected):
    """Whether two tensors, or tuples of them, have the same values, NaN for NaN."""
    if isinstance(expected, tuple):
        return len(found) == len(expected) and all(map(same, found, expected))
    found = found.cpu()
    return found.dtype == expected.dtype and torch.equal(found.nan_to_num(-7), expected.nan_to_num(-7))


def close(q, scale, exact):
    """Whether q · scale is half a step or less from an exact result, but for rounding in float32."""
    error = (q.double() * scale.double() - exact).abs()
    return bool((error <= scale.double() / 2 + exact.abs() * 2**-20).all())


def rows(dtype, *leading, columns=K, seed=0):
    x = torch.randn(*leading, columns, generator=torch.Generator().manual_seed(seed))
    return (x * 3).to(dtype)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("leading", [(), (1,), (2, 3), (600,), (0, 2)])
@pytest.mark.parametrize("device", DEVICES)
def test_rms_norm(device, leading, dtype):
    x, residual = rows(dtype, *leading).to(device), rows(dtype, *leading, seed=1).to(device)
    weight = rows(dtype, seed=2).to(device)
    q, scale = octavo.rms_norm_quantize(x, weight, 1e-5)
    assert (q.dtype, q.shape, scale.dtype, scale.shape) == (torch.int8, x.shape, torch.float32, (*leading, 1))
    assert close(q, scale, F.rms_norm(x.double(), (K,), weight.double(), 1e-5))
    # As torch computes it, in float32 until its result is rounded.
    step = 1 if dtype == torch.float32 else torch.finfo(dtype).eps
    torchs = F.rms_norm(x, (K,), weight, 1e-5).double()
    bound = scale.double() / 2 + torchs.abs() * (2**-19 if dtype == torch.float32 else step)
    assert ((q.double() * scale.double() - torchs).abs() <= bound).all()

    q, scale, total = octavo.rms_norm_quantize(x, weight, 1e-5, residual)
    assert torch.equal(total, x + residual)
    assert same((q, scale), tuple(t.cpu() for t in octavo.rms_norm_quantize(total, weight, 1e-5)))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("leading", [(), (1,), (2, 3), (600,), (0, 2)])
@pytest.mark.parametrize("device", DEVICES)
def test_silu_mul(device, leading, dtype):
    gate_up = rows(dtype, *leading, columns=2 * K).to(device)
    gate, up = gate_up.chunk(2, dim=-1)
    q, scale = octavo.silu_mul_quantize(gate_up)
    assert (q.dtype, q.shape, scale.dtype, scale.shape) == (torch.int8, gate.shape, torch.float32, (*leading, 1))
    assert close(q, scale, F.silu(gate.double()) * up.double())
    assert same(octavo.silu_mul_quantize(gate, up), (q.cpu(), scale.cpu()))


def torchs_silu_mul(gate, up):
    return F.silu(gate) * up


def torchs_rms_norm(x, weight, residual=None):
    total = x if residual is None else x + residual
    y = F.rms_norm(total, (K,), weight, 1e-5)
    return y if residual is None else (y, total)


def rms_norm(x, weight, residual=None):
    return octavo.rms_norm(x, weight, 1e-5, residual)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("leading", [(), (1,), (2, 3), (600,), (0, 2)])
@pytest.mark.parametrize("device", DEVICES)
def test_rounded_results(device, leading, dtype):
    x, other = rows(dtype, *leading).to(device), rows(dtype, *leading, seed=1).to(device)
    weight = rows(dtype, seed=2).to(device)
    bound = dict(rtol=2**-19 if dtype == torch.float32 else torch.finfo(dtype).eps / 2 * 1.01, atol=1e-7)

    def check(y, exact):
        assert y.dtype == dtype
        torch.testing.assert_close(y.double(), exact, **bound)

    check(rms_norm(x, weight), torchs_rms_norm(x.double(), weight.double()))
    y, total = rms_norm(x, weight, other)
    assert torch.equal(total, x + other) and torch.equal(y, rms_norm(total, weight))
    y = octavo.silu_mul(x, other)
    check(y, torchs_silu_mul(x.double(), other.double()))
    assert torch.equal(octavo.silu_mul(torch.cat((x, other), -1)), y)


@pytest.mark.parametrize(
    ("function", "torchs", "count"),
    [
        (rms_norm, torchs_rms_norm, 2),
        (rms_norm, torchs_rms_norm, 3),
        (octavo.silu_mul, torchs_silu_mul, 2),
        (octavo.silu_mul, lambda x: torchs_silu_mul(*x.chunk(2, -1)), 1),
    ],
)
@pytest.mark.parametrize("device", DEVICES)
def test_gradients_of_rounded_results(device, function, torchs, count):
    x, weight, residual = rows(torch.float32, 2, 5), rows(torch.float32, seed=1), rows(torch.float32, 2, 5, seed=2)
    inputs = [x, weight if function is rms_norm else residual, residual][:count]
    inputs = [i.to(device).requires_grad_() for i in inputs]

    def gradients(of, compiled=False):
        torch.manual_seed(0)
        outputs = (torch.compile(of) if compiled else of)(*inputs)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        return torch.autograd.grad(outputs, inputs, [torch.randn_like(o) for o in outputs])

    for compiled in (False, True):
        for found, expected in zip(gradients(function, compiled), gradients(torchs), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("device", DEVICES)
def test_static_scale(device, dtype):
    x = rows(dtype, 5, 7)
    x[0, 0, :3] = torch.tensor([float("nan"), float("inf"), -float("inf")])
    scale = torch.tensor(0.03)
    q = octavo.quantize_static(x.to(device), scale.to(device))
    expected = torch.round(x.float() / scale).clamp(-128, 127).nan_to_num(0).to(torch.int8)
    assert same(q, expected)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("columns", [1, 8, 41, 576, 4096, 14336])
@pytest.mark.parametrize("M", [1, 5, 520])
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_gives_the_cpus_bits(M, columns, dtype):
    x, residual = rows(dtype, M, columns=columns), rows(dtype, M, columns=columns, seed=1)
    if M > 1:
        x[1, 0], x[2, columns // 2], x[3, -1] = float("nan"), float("inf"), -float("inf")
    weight, scale = rows(dtype, columns=columns, seed=2), torch.tensor([0.05])
    calls = [
        (octavo.rms_norm_quantize, (x, weight, 1e-6)),
        (octavo.rms_norm_quantize, (x, weight, 1e-6, residual)),
        (octavo.silu_mul_quantize, (x, residual)),
        (octavo.silu_mul_quantize, (torch.cat((x, residual), -1),)),
        (octavo.rms_norm, (x, weight, 1e-6)),
        (octavo.rms_norm, (x, weight, 1e-6, residual)),
        (octavo.silu_mul, (x, residual)),
        (octavo.silu_mul, (torch.cat((x, residual), -1),)),
        (octavo.quantize_static, (x, scale)),
    ]
    for function, arguments in calls:
        on_cuda = [a.cuda() if isinstance(a, torch.Tensor) else a for a in arguments]
        assert same(function(*on_cuda), function(*arguments)), function.__name__


OPERATORS = [
    ("quantize_static", (rows(torch.float16, 3), torch.tensor([0.02]))),
    ("rms_norm_quantize", (rows(torch.bfloat16, 2, 3), rows(torch.bfloat16), 1e-6)),
    ("add_rms_norm_quantize", (rows(torch.float16, 3), rows(torch.float16, 3, seed=1), rows(torch.float16), 1e-6)),
    ("silu_mul_quantize", (rows(torch.bfloat16, 3), rows(torch.bfloat16, 3))),
    ("silu_mul_quantize", (rows(torch.float32, 2, 3), None)),
]


@pytest.mark.parametrize(("name", "arguments"), OPERATORS, ids=[f"{n}-{i}" for i, (n, _) in enumerate(OPERATORS)])
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_opcheck_on_cuda(name, arguments):
    moved = tuple(a.cuda() if isinstance(a, torch.Tensor) else a for a in arguments)
    torch.library.opcheck(getattr(torch.ops.octavo, name).default, moved)


def test_what_does_not_fit_is_an_error_that_says_so():
    x, weight = rows(torch.float16, 3), rows(torch.float16)
    with pytest.raises(RuntimeError, match="weight is float32; it must be float16"):
        octavo.rms_norm_quantize(x, weight.float())
    with pytest.raises(RuntimeError, match=r"residual has shape \[2, 192\]; it must be \[3, 192\]"):
        octavo.rms_norm_quantize(x, weight, residual=x[:2])
    with pytest.raises(RuntimeError, match="weight is float32; it must be float16"):
        octavo.rms_norm(x, weight.float())
    for function in (octavo.rms_norm, octavo.rms_norm_quantize):
        with pytest.raises(RuntimeError, match="x has no dimensions"):
            function(x[0, 0], weight)
    with pytest.raises(RuntimeError, match="eps is nan"):
        octavo.rms_norm(x, weight, float("nan"), x)
    with pytest.raises(RuntimeError, match=r"up has shape \[2, 192\]; it must be \[3, 192\]"):
        octavo.silu_mul(x, x[:2])
    with pytest.raises(RuntimeError, match="an even number"):
        octavo.silu_mul(x[:, :7])
    with pytest.raises(RuntimeError, match="eps is -1"):
        octavo.rms_norm_quantize(x, weight, -1)
    with pytest.raises(RuntimeError, match="an even number"):
        octavo.silu_mul_quantize(x[:, :7])
    with pytest.raises(RuntimeError, match=r"scale has shape \[3, 1\]; it must be \[1, 1\]"):
        octavo.quantize_static(x, torch.ones(3))
    with pytest.raises(RuntimeError, match="finite and greater than 0"):
        octavo.quantize_static(x, torch.zeros(1))
    with pytest.raises(RuntimeError, match="straight_through=True"):
        octavo.rms_norm_quantize(x.requires_grad_(), weight)[1].sum().backward()


class Mlp(torch.nn.Module):
    """A decoder layer's second half on int8 products, as docs/gpu-int8.md shows it."""

    def __init__(self, dtype):
        super().__init__()
        self.norm = torch.nn.Parameter(rows(dtype, seed=3), requires_grad=False)
        self.gate_up = QuantizedLinear.from_linear(torch.nn.Linear(K, 2 * 256, bias=False, dtype=dtype), "w8a8")
        self.down = QuantizedLinear.from_linear(torch.nn.Linear(256, K, bias=False, dtype=dtype), "w8a8")

    def forward(self, x, residual):
        def product(q, scale, layer):
            return torch.ops.octavo.scaled_mm(q, layer.weight_int8, scale, layer.scale, None, x.dtype)

        q, scale, residual = octavo.rms_norm_quantize(x, self.norm, 1e-6, residual)
        hidden = product(q, scale, self.gate_up)
        return product(*octavo.silu_mul_quantize(hidden), self.down), residual


@pytest.mark.parametrize("device", DEVICES)
def test_compiles(device):
    mlp = Mlp(torch.bfloat16).to(device)
    compiled = torch.compile(mlp, fullgraph=True, dynamic=True)
    with torch.no_grad():
        for M in (1, 3, 17):
            x, residual = rows(torch.bfloat16, M).to(device), rows(torch.bfloat16, M, seed=1).to(device)
            kept = residual.clone()
            assert all(map(torch.equal, compiled(x, residual), mlp(x, residual)))
            assert torch.equal(residual, kept)


# --- Static scales --------------------------------------------------------------------------------------------------


def static(dtype=torch.float32, scheme="w8a8-static", **options):
    linear = torch.nn.Linear(K, 80, dtype=dtype)
    return linear, QuantizedLinear.from_linear(linear, scheme, input_scale=0.1, **options)


@pytest.mark.parametrize("scheme", ["w8a8-static", "w8a8-tensor-static"])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("device", DEVICES)
def test_static_module(device, dtype, scheme):
    linear, module = static(dtype, scheme)
    assert type(module) is StaticInt8Linear
    x = rows(dtype, 2, 5)
    expected = module(x)
    q = octavo.quantize_static(x, module.input_scale)
    arguments = (q, module.weight_int8, module.input_scale, module.scale, module.bias, dtype)
    assert torch.equal(expected, torch.ops.octavo.scaled_mm(*arguments))
    exact = linear(x)
    assert (expected - exact).norm() / exact.norm() < 0.02
    module = module.to(device)
    assert torch.equal(module(x.to(device)).cpu(), expected)
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(twin(x.to(device)).cpu(), expected)
    fresh = StaticInt8Linear(K, 80, True, scheme, dtype=dtype, device=device)
    fresh.load_state_dict(module.state_dict())
    assert torch.equal(fresh(x.to(device)).cpu(), expected)


def test_the_scale_of_a_static_module_stays_float32():
    _, module = static()
    module = module.to(torch.bfloat16)
    assert module.input_scale.dtype == torch.float32 and module.input_scale.item() == pytest.approx(0.1)
    state = module.state_dict() | {"input_scale": torch.tensor([0.5], dtype=torch.bfloat16)}
    module.load_state_dict(state, assign=True)
    assert module.input_scale.dtype == torch.float32 and module.input_scale.item() == 0.5


def test_static_modules_need_a_scale():
    linear = torch.nn.Linear(K, 80)
    with pytest.raises(ValueError, match="calibration; pass input_scale"):
        QuantizedLinear.from_linear(linear, "w8a8-static")
    for bad in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="finite and greater than 0"):
            QuantizedLinear.from_linear(linear, "w8a8-static", input_scale=bad)
    module = StaticInt8Linear(K, 80)
    module.quantize_weights(linear.weight)
    with pytest.raises(RuntimeError, match="the scale is nan; it must be finite"):
        module(rows(torch.float32, 2))


def test_gradients_of_a_static_module():
    linear, module = static(straight_through=True)
    x = rows(torch.float32, 4).requires_grad_()
    module(x).sum().backward()
    torch.testing.assert_close(x.grad, module.weight.sum(0).expand(4, -1))
    module.straight_through = False
    with pytest.raises(RuntimeError, match="straight_through=True"):
        module(x).sum().backward()


@pytest.mark.parametrize("device", DEVICES)
def test_static_module_compiles(device):
    module = static(torch.bfloat16)[1].to(device)
    compiled = torch.compile(module, fullgraph=True, dynamic=True)
    with torch.no_grad():
        for M in (1, 3, 17):
            x = rows(torch.bfloat16, M).to(device)
            assert torch.equal(compiled(x), module(x))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_static_module_in_a_graph_of_many():
    """Dependent launches in a row: every layer reads its weights while the one before still runs."""
    layers = [
        QuantizedLinear.from_linear(torch.nn.Linear(K, K, dtype=torch.bfloat16), "w8a8-static", input_scale=0.05)
        for _ in range(5)
    ]
    chain = torch.nn.Sequential(*layers * 20)
    x = rows(torch.bfloat16, 9)
    with torch.no_grad():
        expected = chain(x)
        chain, x = chain.cuda(), x.cuda()
        chain(x)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            y = chain(x)
        for _ in range(5):
            y.zero_()
            graph.replay()
            assert torch.equal(y.cpu(), expected)
