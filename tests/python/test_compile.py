"""join_weights(), linear_joined, and the pass of compile_options(), which the CPU runs here too."""

import copy

import pytest
import torch
import torch.nn.functional as F
from compiled import RecordedPass, close, compiled_by
from tiny_models import llama
from torch import nn
from transformers import CompileConfig

import octavo
from octavo import QuantizedLinear, parse_scheme
from octavo._linear_pass import QuantizedLinearPass
from octavo.scheme import Activation

ops = torch.ops.octavo
SCHEMES = ["w8a16", "w4a16-g32", "w4a16-g64-asym", "w8a16-tensor"]
CUDA = pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"))
DEVICES = ["cpu", CUDA]
HIDDEN, WIDE = 128, 256


class RowMajorLinear(nn.Module):
    """A weight-only Linear whose weight is never packed, as on CUDA: what the pass sees on either device."""

    def __init__(self, K, N, scheme, bias, dtype):
        super().__init__()
        s = self.scheme = parse_scheme(scheme)
        weight = torch.randn(N, K) * 0.05
        q, scale, zero_point = ops.quantize(weight, s.num_bits, s.symmetric, s.group_size, 0, 99.9, torch.float32)
        self.register_buffer("q", ops.pack(q) if s.packed else q)
        self.register_buffer("scale", scale)
        self.register_buffer("zero_point", None if s.symmetric else zero_point)
        self.bias = nn.Parameter(torch.randn(N, dtype=dtype), requires_grad=False) if bias else None

    @property
    def parts(self):
        return self.q, self.scale, self.zero_point, self.bias

    @property
    def form(self):
        return self.scheme.num_bits, self.scheme.group_size, self.scheme.packed

    def forward(self, x):
        if self.scheme.activation != Activation.FLOAT:
            return ops.linear_w8a8(x, self.q, self.scale, self.bias)
        return ops.linear(x, *self.parts, *self.form)


class RmsNorm(nn.Module):
    """As transformers' Llama has it."""

    def __init__(self, dtype):
        super().__init__()
        self.weight = nn.Parameter((torch.rand(HIDDEN) + 0.5).to(dtype), requires_grad=False)
        self.eps = 1e-5

    def forward(self, x):
        wide = x.to(torch.float32)
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)
        return self.weight * wide.to(x.dtype)


class Layer(nn.Module):
    """What the pass knows of a decoder layer, around something else in attention's place."""

    def __init__(self, scheme="w4a16-g32", bias=False, dtype=torch.float16):
        super().__init__()
        linear = lambda K, N: RowMajorLinear(K, N, scheme, bias, dtype)  # noqa: E731
        self.norm1, self.norm2 = RmsNorm(dtype), RmsNorm(dtype)
        self.q, self.k, self.v = linear(HIDDEN, HIDDEN), linear(HIDDEN, 64), linear(HIDDEN, 64)
        self.o, self.gate, self.up, self.down = (
            linear(K, N) for K, N in ((HIDDEN, HIDDEN), (HIDDEN, WIDE), (HIDDEN, WIDE), (WIDE, HIDDEN))
        )

    def forward(self, x):
        h = self.norm1(x)
        x = x + self.o(self.q(h) * torch.cat((self.k(h), self.v(h)), -1).sigmoid())
        h = self.norm2(x)
        return x + self.down(F.silu(self.gate(h)) * self.up(h))


@pytest.mark.parametrize(
    ("scheme", "bias", "dtype"),
    [
        ("w8a16", False, torch.float16),
        ("w8a16", True, torch.bfloat16),
        ("w8a16-tensor", True, torch.float16),
        ("w4a16-g32", False, torch.bfloat16),
        ("w4a16-g64-asym", True, torch.float16),
        ("w8a8", True, torch.float16),
    ],
)
@pytest.mark.parametrize("device", DEVICES)
@torch.no_grad()
def test_a_layer(device, scheme, bias, dtype):
    layer, the_pass = Layer(scheme, bias, dtype).to(device), RecordedPass()
    compiled = compiled_by(layer, the_pass, dynamic=False)
    for leading in ((1, 1), (2, 5)):
        x = torch.randn(*leading, HIDDEN, dtype=dtype, device=device)
        assert close(compiled(x), layer(x))
        one, several = ("linear_w8a8", "linear_w8a8_joined") if scheme == "w8a8" else ("linear", "linear_joined")
        assert the_pass.left == sorted(["rms_norm", several, one, "add_rms_norm", several, "silu_mul", one])


@pytest.mark.parametrize("device", DEVICES)
@torch.no_grad()
def test_layers_of_any_batch_in_one_graph(device):
    layers, the_pass = nn.Sequential(Layer(), Layer(), Layer()).to(device), RecordedPass()
    compiled = compiled_by(layers, the_pass)
    names = ("rms_norm", "add_rms_norm", "silu_mul", "linear")
    for M in (3, 7, 33):  # compiled for 3, then for any number
        x = torch.randn(1, M, HIDDEN, dtype=torch.float16, device=device)
        assert close(compiled(x), layers(x))
        # The residual goes from layer to layer.
        assert [the_pass.left.count(name) for name in names] == [1, 5, 3, 6]
    # Where dynamic is asked for, eps too is an input: torch normalizes.
    compiled = compiled_by(layers, the_pass, dynamic=True)
    assert close(compiled(x), layers(x))
    assert [the_pass.left.count(name) for name in names] == [0, 0, 3, 6]


def graph_of(function, *inputs):
    the_pass = RecordedPass()
    with torch.no_grad():
        compiled = compiled_by(function, the_pass)
        found, expected = compiled(*inputs), function(*inputs)
    for a, b in zip(*((t,) if isinstance(t, torch.Tensor) else t for t in (found, expected)), strict=True):
        assert close(a, b)
    return the_pass.left


@torch.no_grad()
def test_what_is_left_alone():
    layer, wide = Layer(), Layer(dtype=torch.float32)
    x, other = torch.randn(2, 3, HIDDEN).half(), torch.randn(2, 3, HIDDEN).half()
    assert graph_of(layer.norm1, x) == []  # no product behind it
    assert graph_of(lambda x: F.silu(x) * x, x) == []
    assert graph_of(lambda x: layer.k(F.silu(x) * 2), x) == ["linear"]
    for shape in ([HIDDEN], [2, 3, 1], [1, 3, HIDDEN]):
        assert graph_of(lambda x, y: layer.k(F.silu(x) * y), x, torch.randn(shape).half()) == ["linear"]
        assert graph_of(lambda x, y: layer.k(F.silu(y) * x), x, torch.randn(shape).half()) == ["linear"]
    assert graph_of(lambda x, y: layer.k(layer.norm1(layer.o(x) + y)), x, x[0, 0]) == ["linear", "linear", "rms_norm"]
    assert graph_of(lambda x, y: (layer.k(x), layer.v(y)), x, other) == ["linear", "linear"]  # two inputs
    eights = RowMajorLinear(HIDDEN, 64, "w8a16", False, torch.float16)
    assert graph_of(lambda x: (layer.k(x), eights(x)), x) == ["linear", "linear"]  # two formats
    assert graph_of(wide, x.float()) == ["linear", "linear", "linear_joined", "linear_joined"]
    far = lambda x: (layer.k(x), layer.o(x + 1), layer.v(x))  # noqa: E731
    assert graph_of(far, x) == ["linear"] * 3  # another product stands between
    tensor_eps = RmsNorm(torch.float16)
    tensor_eps.eps = torch.tensor(1e-5)
    assert graph_of(lambda x: layer.k(tensor_eps(x)), x) == ["linear"]
    # The sum of what are no products stays; another use of what is in between, too.
    assert graph_of(lambda x, y: layer.k(layer.norm1(x + y)), x, other) == ["linear", "rms_norm"]
    assert graph_of(lambda x: (layer.k(layer.norm1(x)), x.float().pow(2)), x) in (["linear"], ["linear", "rms_norm"])
    # Only on the devices that it is for.
    the_pass = RecordedPass(("cuda",))
    compiled_by(layer, the_pass)(x)
    assert the_pass.left == ["linear"] * 7


@torch.no_grad()
def test_a_sum_that_others_use():
    layer = Layer()
    x, residual = (torch.randn(2, 3, HIDDEN).half() for _ in range(2))

    def two_norms(x, residual):
        total = layer.o(x) + residual
        return layer.k(layer.norm1(total)), layer.v(layer.norm2(total)), total

    left = graph_of(two_norms, x, residual)
    assert left.count("add_rms_norm") + left.count("rms_norm") == 2 and left.count("add_rms_norm") >= 1


@torch.no_grad()
def test_what_is_returned_keeps_its_strides_and_size():
    layer, x = Layer(), torch.randn(2, 3, HIDDEN).half()
    the_pass = RecordedPass()

    def heads(x):
        k = layer.k(x).view(2, 3, 4, 16).transpose(1, 2)
        return k, layer.v(x), layer.q(x).sum()

    found, expected = compiled_by(heads, the_pass)(x), heads(x)
    assert the_pass.left == ["linear_joined"]
    for a, b in zip(found[:2], expected[:2], strict=True):
        assert close(a, b) and a.untyped_storage().nbytes() == b.untyped_storage().nbytes()


@pytest.mark.parametrize("device", DEVICES)
@torch.no_grad()
def test_transformers_llama_is_known(device, monkeypatch):
    monkeypatch.setattr(QuantizedLinear, "pack", lambda self: None)  # row-major on the CPU too
    model = llama(hidden_size=256, intermediate_size=512, initializer_range=0.05).to(device, torch.float16)
    octavo.quantize_model(model, "w4a16-g64")
    assert octavo.join_weights(model) == 2 * 6  # o_proj has the K of q, k and v
    the_pass, tokens = RecordedPass(), torch.arange(2, 12, device=device).reshape(2, 5)
    found = compiled_by(model, the_pass)(tokens, use_cache=False).logits
    assert ((found - model(tokens, use_cache=False).logits).norm() / found.norm()).item() < 0.02
    names = ("rms_norm", "add_rms_norm", "silu_mul", "linear_joined", "linear")
    assert [the_pass.left.count(name) for name in names] == [1, 3, 2, 4, 4]


def test_gradients_pass_through():
    layer, plain = Layer(), None
    x = torch.randn(2, 3, HIDDEN).half()
    for function in (layer, compiled_by(layer, RecordedPass())):
        own = x.clone().requires_grad_()
        function(own).sum().backward()
        plain = own.grad if plain is None else plain
    torch.testing.assert_close(own.grad, plain, rtol=0.02, atol=0.02)


def test_options():
    options = octavo.compile_options("max-autotune")
    assert options["max_autotune"] and options["triton.cudagraphs"]
    assert isinstance(options["post_grad_custom_pre_pass"], QuantizedLinearPass)
    assert octavo.compile_options(dependent_launch=True).get("triton.enable_pdl", True)
    assert "triton.enable_pdl" not in octavo.compile_options()
    with pytest.raises(RuntimeError, match="fastest"):
        octavo.compile_options("fastest")
    # Torch takes them, and may cache what it compiled.
    layer, x = Layer(), torch.randn(1, 2, HIDDEN).half()
    torch.compiler.reset()
    with torch.no_grad():
        assert close(torch.compile(layer, options=octavo.compile_options())(x), layer(x))
    first, second = (QuantizedLinearPass(["cuda"]) for _ in range(2))
    assert first.uuid() == second.uuid() != QuantizedLinearPass(["cpu"]).uuid()


@pytest.mark.parametrize("device", DEVICES)
@torch.no_grad()
def test_transformers_generate(device):
    model = llama(hidden_size=256, intermediate_size=512, initializer_range=0.05).to(device, torch.float16)
    octavo.quantize_model(model, "w4a16-g64")
    octavo.join_weights(model)
    torch.compiler.reset()
    config = CompileConfig(mode=None, options=octavo.compile_options("reduce-overhead"))
    config._compile_all_devices = True
    assert config == CompileConfig(mode=None, options=octavo.compile_options("reduce-overhead"))
    tokens = torch.arange(2, 12, device=device).reshape(2, 5)
    options = dict(max_new_tokens=2, do_sample=False, output_logits=True, return_dict_in_generate=True)
    expected = model.generate(tokens, **options).logits
    # The first token is not a compiled step's, the second is.
    found = model.generate(tokens, **options, cache_implementation="static", compile_config=config).logits
    for a, b in zip(found, expected, strict=True):
        assert close(a.half(), b.half())


# --- linear_joined ----------------------------------------------------------------------------------------------------


def joined_arguments(linears, together):
    """Lists of the linears' tensors: as they are, or side by side."""
    lists = [[part for part in parts if part is not None] for parts in zip(*(m.parts for m in linears), strict=True)]
    if together:
        lists = [list(torch.cat(parts).split([len(p) for p in parts])) if parts else [] for parts in lists]
    return *lists, *linears[0].form


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("scheme", [*SCHEMES, "w4a16-g32-asym"])
@pytest.mark.parametrize("device", DEVICES)
@torch.no_grad()
def test_linear_joined(device, scheme, bias, together):
    if together and scheme == "w8a16-tensor":
        pytest.skip("one scale in all")
    linears = [RowMajorLinear(HIDDEN, N, scheme, bias, torch.float16).to(device) for N in (96, 8, 40, 7)]
    for leading in ((), (1,), (2, 3), (30,), (300,), (0, 2)):
        x = torch.randn(*leading, HIDDEN, dtype=torch.float16, device=device)
        y = ops.linear_joined(x, *joined_arguments(linears, together))
        assert y.shape == (*leading, 151) and y.is_contiguous()
        expected = torch.cat([m(x) for m in linears], -1)
        if device == "cpu":
            assert torch.equal(y, expected)
        else:  # another kernel may be chosen for more channels
            torch.testing.assert_close(y, expected, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("device", DEVICES)
@torch.no_grad()
def test_linear_w8a8_joined(device, bias, together):
    linears = [RowMajorLinear(HIDDEN, N, "w8a8", bias, torch.float16).to(device) for N in (96, 8, 40, 7)]
    q, scale, _, b, *_ = joined_arguments(linears, together)
    for leading in ((), (1,), (2, 3), (30,), (300,), (0, 2)):
        x = torch.randn(*leading, HIDDEN, dtype=torch.float16, device=device)
        y = ops.linear_w8a8_joined(x, q, scale, b)
        assert torch.equal(y, torch.cat([m(x) for m in linears], -1))  # integers: the same bits


def test_linear_joined_says_what_does_not_fit():
    linears = [RowMajorLinear(HIDDEN, 8, "w8a16", True, torch.float16) for _ in range(2)]
    x = torch.randn(1, HIDDEN).half()
    q, scale, _, bias, *form = joined_arguments(linears, False)
    with pytest.raises(RuntimeError, match="there are 2 weights, 1 scales, 0 zero points and 2 biases"):
        ops.linear_joined(x, q, scale[:1], [], bias, *form)
    longer, shorter = torch.zeros(16).half().split([9, 7])
    with pytest.raises(RuntimeError, match="a bias has 9 elements, for a weight of 8 rows"):
        ops.linear_joined(x, q, scale, [], [longer, shorter], *form)
    with pytest.raises(RuntimeError, match="there are 0 weights"):
        ops.linear_joined(x, [], [], [], [], *form)
    with pytest.raises(RuntimeError, match=r"for K = 127 it must be \[N, 127\]"):
        ops.linear_joined(x[:, :-1], q, scale, [], bias, *form)


# --- join_weights -----------------------------------------------------------------------------------------------------


class Projections(nn.Module):
    def __init__(self, scheme, bias):
        super().__init__()
        for name, K, N in (("q", 64, 96), ("k", 64, 32), ("down", 96, 64), ("v", 64, 32)):
            linear = nn.Linear(K, N, bias=bias, dtype=torch.float16)
            setattr(self, name, QuantizedLinear.from_linear(linear, scheme))
        self.other = QuantizedLinear.from_linear(nn.Linear(64, 32, bias=not bias, dtype=torch.float16), scheme)
        self.inner = nn.ModuleList([QuantizedLinear.from_linear(nn.Linear(64, 8, dtype=torch.float16), scheme)])

    def forward(self, x):
        return self.q(x), self.k(x), self.v(x), self.other(x)


def follows(first, second):
    return second.data_ptr() == first.data_ptr() + first.nbytes


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("scheme", ["w8a16", "w4a16-g32", "w4a16-g32-asym"])
@pytest.mark.parametrize("device", DEVICES)
@torch.no_grad()
def test_join_weights(device, scheme, bias, monkeypatch):
    if device == "cpu":  # where they would be packed
        monkeypatch.setattr(QuantizedLinear, "pack", lambda self: None)
    model = Projections(scheme, bias).to(device)
    before = copy.deepcopy(model)
    x = torch.randn(5, 64, dtype=torch.float16, device=device)
    assert octavo.join_weights(model) == 3
    names = ("weight_int8" if scheme == "w8a16" else "weight_int4", "scale", "zero_point", "bias")
    for name in names:
        tensors = [getattr(layer, name) for layer in (model.q, model.k, model.v)]
        if tensors[0] is not None:
            assert follows(tensors[0], tensors[1]) and follows(tensors[1], tensors[2])
            assert all(t.is_contiguous() for t in tensors)
    for found, expected in zip(model(x), before(x), strict=True):
        assert torch.equal(found, expected)
    state = model.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in before.state_dict().items())
    if bias:
        assert isinstance(model.q.bias, nn.Parameter) and "q.bias" in dict(model.named_parameters())
    # Tensors that are loaded go where they were.
    model.load_state_dict(Projections(scheme, bias).to(device).state_dict())
    assert follows(model.q.scale, model.k.scale)
    state = Projections(scheme, bias).state_dict()  # with scales in float32, from the CPU
    model.load_state_dict({name: t.float() if name.endswith("scale") else t for name, t in state.items()})
    assert follows(model.q.scale, model.k.scale)
    assert octavo.join_weights(model) == 3


@torch.no_grad()
def test_the_order_of_the_calls_may_be_another(monkeypatch):
    monkeypatch.setattr(QuantizedLinear, "pack", lambda self: None)
    model, x = Projections("w8a16", True), torch.randn(5, 64).half()
    octavo.join_weights(model)
    the_pass = RecordedPass()
    found = compiled_by(lambda x: [m(x).relu() for m in (model.v, model.q, model.k)], the_pass)(x)
    assert the_pass.left == ["linear_joined"]
    assert all(torch.equal(y, m(x).relu()) for y, m in zip(found, (model.v, model.q, model.k), strict=True))


def test_joined_in_inference_mode_a_model_still_trains(monkeypatch):
    monkeypatch.setattr(QuantizedLinear, "pack", lambda self: None)
    model = Projections("w8a16", True)
    with torch.inference_mode():
        octavo.join_weights(model)
    x = torch.randn(2, 64, requires_grad=True, dtype=torch.float16)
    model.q(x).sum().backward()
    assert x.grad is not None and model.q.bias.grad is not None


def test_shared_layers_and_weights_stay_where_they_are(monkeypatch):
    monkeypatch.setattr(QuantizedLinear, "pack", lambda self: None)
    model = nn.ModuleDict({"first": Projections("w8a16", False), "second": Projections("w8a16", False)})
    model["second"].q = model["first"].q
    model["second"].k._buffers.update(model["first"].k._buffers)
    assert octavo.join_weights(model) == 0  # of three alike, one is left
    layers = [QuantizedLinear.from_linear(nn.Linear(64, 64, dtype=torch.float16), "w8a16") for _ in range(3)]
    assert octavo.join_weights(nn.Sequential(*layers)) == 0
    assert octavo.join_weights(Projections("llm.int8", False)) == 0


def test_packed_weights_and_single_scales_stay_where_they_are():
    model = Projections("w8a16", False)
    if "packed_weight" in model.q._buffers:
        assert octavo.join_weights(model) == 0
    assert octavo.join_weights(Projections("w8a16-tensor", False)) == 0
    assert octavo.join_weights(nn.Linear(3, 4)) == 0
