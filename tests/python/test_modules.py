"""The quantized Linears: what they compute, and the life of a module around it."""

import copy
import io
import logging
import pickle

import pytest
import torch
from torch import nn

import octavo
from octavo import DynamicInt8Linear, Int8Linear, LLMInt8Linear, QuantizedLinear, W4A8Linear, WeightOnlyInt8Linear

FLOATS = [torch.float32, torch.float16, torch.bfloat16]
# Scheme, its class, and the SNR in dB that its output has at least on normal weights and activations.
SCHEMES = [
    ("w8a16", QuantizedLinear, 40),
    ("w8a16-tensor", QuantizedLinear, 38),
    ("w8a16-g32", QuantizedLinear, 40),
    ("w8a16-g32-asym", QuantizedLinear, 40),
    ("w6a16", QuantizedLinear, 26),
    ("w4a16-g32", QuantizedLinear, 19),
    ("w4a16-g32-asym", QuantizedLinear, 20),
    ("w4a16", QuantizedLinear, 15),
    ("w3a16-g32", QuantizedLinear, 11),
    ("w8a8", DynamicInt8Linear, 36),
    ("w8a8-tensor", DynamicInt8Linear, 35),
    ("w4a8-g32", W4A8Linear, 19),
    ("w4a8-g32-asym", W4A8Linear, 20),
    ("llm.int8", LLMInt8Linear, 36),
]
NAMES = [scheme for scheme, _, _ in SCHEMES]
K, N = 200, 48  # 200 is not a multiple of 32: the last group is short


@pytest.fixture
def linear():
    return nn.Linear(K, N)


def snr_db(exact, approximate):
    return 10 * torch.log10(exact.square().sum() / (exact - approximate).square().sum()).item()


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(("scheme", "kind", "db"), SCHEMES, ids=NAMES)
def test_output_is_near_that_of_the_linear(linear, scheme, kind, db, dtype):
    module = QuantizedLinear.from_linear(linear.to(dtype), scheme)
    assert type(module) is kind
    x = torch.randn(64, K).to(dtype)
    with torch.no_grad():
        y = module(x)
        exact = nn.functional.linear(x.double(), linear.weight.double(), linear.bias.double())
    assert y.dtype == dtype
    assert snr_db(exact, y.double()) > min(db, 38 if dtype == torch.bfloat16 else 99)


@pytest.mark.parametrize("scheme", ["w8a16", "w8a16-tensor", "w4a16-g32-asym", "w3a16-g32"])
def test_weight_only_product_is_that_with_the_dequantized_weight(linear, scheme):
    module = QuantizedLinear.from_linear(linear, scheme)
    x = torch.randn(7, K)
    torch.testing.assert_close(module(x), nn.functional.linear(x, module.weight, linear.bias), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("leading", [(), (0,), (1,), (2, 3), (2, 0, 3)])
@pytest.mark.parametrize("scheme", NAMES)
def test_any_leading_dimensions(linear, scheme, leading):
    module = QuantizedLinear.from_linear(linear, scheme)
    x = torch.randn(*leading, K)
    y = module(x)
    assert y.shape == (*leading, N)
    rows = x.reshape(-1, K)
    torch.testing.assert_close(y.reshape(-1, N), module(rows), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("scheme", "expected"),
    [
        ("w8a16", {"weight_int8": (torch.int8, (N, K)), "scale": (torch.float32, (N,))}),
        ("w8a16-tensor", {"weight_int8": (torch.int8, (N, K)), "scale": (torch.float32, (1,))}),
        (
            "w8a16-g64-asym",
            {
                "weight_int8": (torch.uint8, (N, K)),
                "scale": (torch.float32, (N, 4)),
                "zero_point": (torch.uint8, (N, 4)),
            },
        ),
        ("w4a16-g64", {"weight_int4": (torch.uint8, (N, K // 2)), "scale": (torch.float32, (N, 4))}),
        ("llm.int8", {"weight_int8": (torch.int8, (N, K)), "scale": (torch.float32, (N,))}),
    ],
)
def test_state_dict_is_canonical(linear, scheme, expected):
    state = QuantizedLinear.from_linear(linear, scheme).state_dict()
    assert {name: (t.dtype, tuple(t.shape)) for name, t in state.items() if name != "bias"} == expected
    assert torch.equal(state["bias"], linear.bias)


def test_canonical_weight_is_that_of_the_function(linear):
    q, scale = octavo.quantize_weight_per_channel(linear.weight)
    module = QuantizedLinear.from_linear(linear)
    assert torch.equal(module.weight_int8, q)
    assert torch.equal(module.scale, scale)


@pytest.mark.parametrize("scheme", NAMES)
def test_copies_compute_the_same(linear, scheme):
    module = QuantizedLinear.from_linear(linear, scheme)
    x = torch.randn(3, K)
    y = module(x)
    assert torch.equal(copy.deepcopy(module)(x), y)
    assert torch.equal(pickle.loads(pickle.dumps(module))(x), y)

    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    file.seek(0)
    state = torch.load(file)
    fresh = type(module)(K, N, True, scheme)
    with pytest.raises(RuntimeError, match="no weight yet"):
        fresh(x)
    fresh.load_state_dict(state)
    assert torch.equal(fresh(x), y)
    on_meta = type(module)(K, N, True, scheme, device="meta")
    on_meta.load_state_dict(state, assign=True)
    assert torch.equal(on_meta(x), y)


@pytest.mark.parametrize("cast", [nn.Module.half, nn.Module.bfloat16, lambda m: m.to(torch.float16)])
@pytest.mark.parametrize("scheme", ["w8a16", "w4a16-g32-asym"])
def test_casts_leave_scales_alone(linear, scheme, cast):
    module = QuantizedLinear.from_linear(linear, scheme)
    scale = module.scale.clone()
    reference = cast(nn.Linear(4, 4))
    cast(module)
    assert module.scale.dtype == torch.float32
    assert torch.equal(module.scale, scale)
    assert module.bias.dtype == module.weight.dtype == reference.weight.dtype
    assert module.weight.shape == (N, K)


def test_state_of_16_bit_scales_loads_as_float32(linear):
    module = QuantizedLinear.from_linear(linear)
    state = {name: t.half() if name == "scale" else t for name, t in module.state_dict().items()}
    for assign in (False, True):
        module.load_state_dict(state, assign=assign)
        assert module.scale.dtype == torch.float32


def test_module_goes_to_meta_and_back(linear):
    module = QuantizedLinear.from_linear(linear, "w4a16-g32")
    state = module.state_dict()
    module.to("meta")
    assert module.weight_int4.is_meta
    assert "kernel" not in repr(module)
    module.to_empty(device="cpu").load_state_dict(state)
    assert torch.equal(module.scale, state["scale"])


def test_linear_on_meta_gives_a_module_on_meta():
    module = QuantizedLinear.from_linear(nn.Linear(K, N, device="meta"), "w4a16-g32-asym")
    assert module.weight_int4.shape == (N, K // 2)
    assert module.zero_point.shape == (N, 7)
    assert all(tensor.is_meta for tensor in module.state_dict().values())


def test_accelerate_fills_a_module_on_meta(linear):
    accelerate = pytest.importorskip("accelerate.utils")
    module = QuantizedLinear.from_linear(linear)
    empty = Int8Linear(K, N, bias=True, device="meta")
    for name, tensor in module.state_dict().items():
        accelerate.set_module_tensor_to_device(empty, name, "cpu", value=tensor)
    x = torch.randn(2, K)
    assert torch.equal(empty(x), module(x))


def test_repr_shows_scheme_and_kernel(linear):
    text = repr(LLMInt8Linear.from_linear(linear, threshold=5))
    assert text.startswith("LLMInt8Linear(in_features=200, out_features=48, bias=True, scheme=llm.int8, kernel=cpu_")
    assert text.endswith("threshold=5, rule=token)")


def test_int8_linear_as_a_drop_in():
    module = Int8Linear(K, N)
    assert module.bias is None
    with pytest.raises(RuntimeError, match="quantize_weights"):
        module(torch.randn(2, K))
    weight = torch.randn(N, K)
    module.quantize_weights(weight)
    x = torch.randn(2, K)
    torch.testing.assert_close(module(x), octavo.int8_gemm(x, *octavo.quantize_weight_per_channel(weight)))
    with pytest.raises(ValueError, match=r"\[48, 200\]"):
        module.quantize_weights(weight.t())


def test_textbook_name(linear):
    x = torch.randn(2, K)
    module = WeightOnlyInt8Linear.from_float(linear)
    assert isinstance(module, WeightOnlyInt8Linear)
    assert torch.equal(module(x), QuantizedLinear.from_linear(linear)(x))


def test_classes_refuse_schemes_that_are_not_theirs(linear):
    with pytest.raises(ValueError, match="DynamicInt8Linear does"):
        Int8Linear.from_linear(linear, "w8a8")
    with pytest.raises(ValueError, match="QuantizedLinear does"):
        DynamicInt8Linear.from_linear(linear, "w8a16")
    with pytest.raises(ValueError, match="use QuantizedLinear"):
        Int8Linear.from_linear(linear, "w4a16-g64")
    with pytest.raises(ValueError, match="calibration"):
        QuantizedLinear.from_linear(linear, "w8a8-static")
    with pytest.raises(ValueError, match="w9a16"):
        QuantizedLinear.from_linear(linear, "w9a16")
    with pytest.raises(ValueError, match="token, batch"):
        LLMInt8Linear.from_linear(linear, rule="row")
    with pytest.raises(ValueError, match="absmax, mse, percentile"):
        QuantizedLinear.from_linear(linear, clip="min")


def test_clipping_by_mse_lowers_the_error(linear):
    def error(clip):
        return (QuantizedLinear.from_linear(linear, "w3a16", clip=clip).weight - linear.weight).square().sum()

    assert error("mse") < error("absmax")


def test_outliers_keep_their_precision(linear):
    x = torch.randn(16, K)
    x[:, 7] *= 100
    exact = linear(x)
    plain = snr_db(exact, DynamicInt8Linear.from_linear(linear)(x))
    outliers = snr_db(exact, LLMInt8Linear.from_linear(linear)(x))
    assert outliers > plain + 6
    without = LLMInt8Linear.from_linear(linear, threshold=0)(x)
    assert torch.equal(without, DynamicInt8Linear.from_linear(linear)(x))


def test_rule_token_is_independent_of_the_batch(linear):
    x = torch.randn(4, K)
    x[3, 7] = 50
    token = LLMInt8Linear.from_linear(linear, rule="token")
    assert torch.equal(token(x)[:3], token(x[:3]))
    batch = LLMInt8Linear.from_linear(linear, rule="batch")
    assert not torch.equal(batch(x)[:3], batch(x[:3]))


@pytest.mark.parametrize("scheme", NAMES)
def test_adapters_train_on_top(linear, scheme):
    options = {} if "a16" in scheme else {"straight_through": True}
    module = QuantizedLinear.from_linear(linear, scheme, **options)
    x = torch.randn(5, K, requires_grad=True)
    grad = torch.randn(5, N)
    module(x).backward(grad)
    torch.testing.assert_close(x.grad, grad @ module.weight)
    torch.testing.assert_close(module.bias.grad, grad.sum(0))
    assert not module.scale.requires_grad


@pytest.mark.parametrize("scheme", ["w8a8", "w4a8-g32", "llm.int8"])
def test_integer_schemes_refuse_a_gradient(linear, scheme):
    module = QuantizedLinear.from_linear(linear, scheme)
    x = torch.randn(5, K, requires_grad=True)
    with pytest.raises(RuntimeError, match="straight_through=True"):
        module(x).sum().backward()


@pytest.mark.parametrize("scheme", ["w8a8", "w4a8-g32", "llm.int8"])
@pytest.mark.parametrize("compiles", [False, True])
def test_the_bias_of_an_integer_scheme_trains(linear, scheme, compiles):
    torch.compiler.reset()
    module = QuantizedLinear.from_linear(linear, scheme)
    product = torch.compile(module, fullgraph=True, dynamic=True, backend="aot_eager") if compiles else module
    x, grad = torch.randn(2, 3, K), torch.randn(2, 3, N)
    y = product(x)
    assert torch.equal(y.detach(), module(x).detach())
    y.backward(grad)
    torch.testing.assert_close(module.bias.grad, grad.reshape(-1, N).sum(0))

    # A compiler traces the gradient of whatever requires one; that x has none shows where somebody asks for it.
    x = torch.randn(5, K, requires_grad=True)
    y = product(x)
    with pytest.raises(RuntimeError, match="straight_through=True"):
        y.sum().backward()


@pytest.mark.parametrize("scheme", ["w8a8", "w4a8-g32", "llm.int8"])
def test_straight_through_changes_no_value(linear, scheme):
    x = torch.randn(5, K)
    plain = QuantizedLinear.from_linear(linear, scheme)
    through = QuantizedLinear.from_linear(linear, scheme, straight_through=True)
    assert torch.equal(plain(x), through(x))


@pytest.mark.parametrize("scheme", NAMES)
def test_compiles_to_one_graph_for_any_batch(linear, scheme):
    module = QuantizedLinear.from_linear(linear, scheme)
    torch.compiler.reset()  # its limit of recompilations counts over all tests
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph

    compiled = torch.compile(module, fullgraph=True, dynamic=True, backend=backend)
    with torch.no_grad():
        for batch in (2, 3, 17):
            x = torch.randn(batch, 4, K)
            assert torch.equal(compiled(x), module(x))
    assert len(graphs) == 1


@pytest.mark.parametrize("scheme", ["w4a16-g32", "w8a8"])
def test_inductor_compiles_it_with_its_gradient(linear, scheme):
    torch.compiler.reset()
    options = {"straight_through": True} if scheme == "w8a8" else {}
    module = QuantizedLinear.from_linear(linear, scheme, **options)
    compiled = torch.compile(module, fullgraph=True, dynamic=True)
    x = torch.randn(5, K, requires_grad=True)
    y = compiled(x)
    y.sum().backward()
    eager = x.detach().clone().requires_grad_()
    expected = module(eager)
    expected.sum().backward()
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(x.grad, eager.grad)


@pytest.mark.parametrize("rows", [1, 64])
def test_autocast_changes_nothing(rows):
    module = QuantizedLinear.from_linear(torch.nn.Linear(576, 256))
    x = torch.randn(rows, 576)
    expected = module(x)
    with torch.autocast("cpu", torch.bfloat16):
        y = module(x)
    assert y.dtype == torch.float32
    assert torch.equal(y, expected)


def test_fallback_is_logged_once(linear, caplog, monkeypatch):
    monkeypatch.setenv("OCTAVO_KERNEL", "cpu_float_w8_reference")  # as on a machine without a fast kernel
    with caplog.at_level(logging.INFO, logger="octavo"):
        for _ in range(2):
            module = QuantizedLinear.from_linear(linear, "w5a16-g40")
            for rows in (2, 64):
                x = torch.randn(rows, K)
                expected = nn.functional.linear(x, module.weight, linear.bias)
                torch.testing.assert_close(module(x), expected, rtol=1e-4, atol=1e-5)
    assert len([record for record in caplog.records if "dequantize" in record.message]) == 1


def test_bad_input_is_an_error(linear):
    module = QuantizedLinear.from_linear(linear)
    for columns in (K - 1, K + 1):
        with pytest.raises(RuntimeError):
            module(torch.randn(2, columns))
    with pytest.raises(RuntimeError):
        module(torch.randint(0, 9, (2, K)))
    with torch.no_grad():
        linear.weight[3, 4] = float("inf")
    with pytest.raises(RuntimeError, match=r"3.*4"):
        QuantizedLinear.from_linear(linear)
