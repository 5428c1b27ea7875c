"""Where modules hold their weights: packed on this machine's CPU, row-major in every file and on every other device."""

import copy
import io
import pickle

import pytest
import torch
from safetensors.torch import load_file
from tiny_models import llama
from torch import nn

import octavo
from octavo import LLMInt8Linear, QuantizedLinear

ops = torch.ops.octavo
N, K = 48, 200
SCHEMES = [
    *("w8a16", "w8a16-tensor", "w8a16-g32-asym", "w6a16", "w4a16-g32", "w4a16-g64-asym", "w4a16", "w3a16-g32"),
    *("w8a8", "w8a8-tensor", "w4a8-g32", "w4a8-g32-asym", "llm.int8"),
]
ROW_MAJOR = ("weight_int8", "weight_int4", "scale", "zero_point")


def is_packed(module):
    """Checks that a module holds its weight once, and says how."""
    names = {name for name, _ in module.named_buffers()}
    assert names == {"packed_weight"} or names <= set(ROW_MAJOR)
    assert "packed_weight" not in module.state_dict()
    return names == {"packed_weight"}


def kernels_pack(scheme="w8a16"):
    """Whether this machine packs at all: on one without fast kernels the tests of packing have nothing to test."""
    s = octavo.parse_scheme(scheme)
    op = octavo.modules.linear_class(s)._op
    return ops.best_layout(op, torch.float32, s.num_bits, s.symmetric, s.group_size, N, K) == 1


pytestmark = pytest.mark.skipif(not kernels_pack(), reason="no kernel of this machine reads packed weights")


@pytest.fixture
def linear():
    return nn.Linear(K, N)


@pytest.fixture
def row_major(monkeypatch):
    """Makes modules that stay row-major, because the kernel that is forced while they are made reads nothing else."""

    def make(linear, scheme, **options):
        s = octavo.parse_scheme(scheme)
        names = ("float_w4" if s.packed else "float_w8", "s8_w8", "s8g_w4", "llmint8_w8")
        with monkeypatch.context() as patch:
            patch.setenv("OCTAVO_KERNEL", f"cpu_{names[octavo.modules.linear_class(s)._op]}_reference")
            module = QuantizedLinear.from_linear(linear, scheme, **options)
        assert not is_packed(module)
        return module

    return make


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_packed_module_shows_row_major_tensors(linear, row_major, scheme):
    module, reference = QuantizedLinear.from_linear(linear, scheme), row_major(linear, scheme)
    assert is_packed(module) == kernels_pack(scheme)
    state, expected = module.state_dict(), reference.state_dict()
    assert list(state) == list(expected)
    for name, tensor in expected.items():
        assert (state[name].dtype, state[name].shape) == (tensor.dtype, tensor.shape)
        assert torch.equal(state[name], tensor)
        assert torch.equal(getattr(module, name), tensor)
    assert torch.equal(module.weight, reference.weight)
    assert (module.zero_point is None) == module.scheme.symmetric
    absent = "weight_int8" if module.scheme.packed else "weight_int4"
    assert not hasattr(module, absent)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("rows", [1, 7, 40])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_packed_and_row_major_modules_agree(linear, row_major, scheme, rows, dtype):
    linear = linear.to(dtype)
    module, reference = QuantizedLinear.from_linear(linear, scheme), row_major(linear, scheme)
    x = torch.randn(rows, K).to(dtype)
    y, expected = module(x), reference(x)
    assert y.dtype == dtype
    if module.scheme.activation:
        assert torch.equal(y, expected)
    else:
        w, bias = ops.dequantize_packed(module.packed_weight, N, K, torch.float32).double(), linear.bias.double()
        exact, magnitude = x.double() @ w.T + bias, x.double().abs() @ w.abs().T + bias.abs()
        bound = torch.finfo(dtype).eps / 2 * exact.abs() + 2**-23 * (K / 16 + 8) * magnitude
        assert ((y.double() - exact).abs() <= bound).all()


def test_one_copy_is_held(linear):
    module = QuantizedLinear.from_linear(linear)
    assert sum(buffer.nbytes for buffer in module.buffers()) == ops.packed_size(8, True, -1, N, K)
    assert all(not isinstance(value, torch.Tensor) for value in vars(module).values())


@pytest.mark.parametrize("scheme", SCHEMES)
def test_state_goes_through_a_file_bit_by_bit(linear, scheme):
    module = QuantizedLinear.from_linear(linear, scheme)
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    file.seek(0)
    state = torch.load(file)
    for device, assign in (("cpu", False), ("cpu", True), ("meta", True)):
        fresh = type(module)(K, N, True, scheme, device=device)
        assert not is_packed(fresh)
        fresh.load_state_dict(state, assign=assign)
        assert is_packed(fresh) == is_packed(module)
        again = fresh.state_dict()
        assert list(again) == list(state)
        assert all(torch.equal(again[name], state[name]) for name in state)
    other = QuantizedLinear.from_linear(nn.Linear(K, N), scheme)
    other.load_state_dict(state)  # into what is packed already
    assert is_packed(other) == is_packed(module)
    assert all(torch.equal(other.state_dict()[name], state[name]) for name in state)


def test_part_of_a_state_changes_that_part(linear):
    module = QuantizedLinear.from_linear(linear)
    before = module.state_dict()
    module.load_state_dict({"scale": before["scale"] * 2}, strict=False)
    assert is_packed(module)
    assert torch.equal(module.scale, before["scale"] * 2)
    assert torch.equal(module.weight_int8, before["weight_int8"])
    with pytest.raises(RuntimeError, match="size mismatch"):
        module.load_state_dict({"scale": torch.ones(3)}, strict=False)
    assert torch.equal(module.scale, before["scale"] * 2)


@pytest.mark.parametrize("scheme", ["w8a16", "w4a16-g64-asym", "llm.int8"])
def test_pickles_hold_row_major_tensors(linear, row_major, scheme):
    module = QuantizedLinear.from_linear(linear, scheme)
    assert len(pickle.dumps(module)) == pytest.approx(len(pickle.dumps(row_major(linear, scheme))), abs=200)
    x = torch.randn(3, K)
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    for other in (pickle.loads(pickle.dumps(module)), copy.copy(module), torch.load(file, weights_only=False)):
        assert is_packed(other)
        assert torch.equal(other(x), module(x))


def test_deep_copies_are_apart(linear):
    module = QuantizedLinear.from_linear(linear)
    twin = copy.deepcopy(module)
    assert is_packed(twin)
    twin.quantize_weights(torch.randn(N, K))
    assert not torch.equal(twin.weight_int8, module.weight_int8)
    assert torch.equal(module.weight_int8, octavo.quantize_weight_per_channel(linear.weight)[0])


def test_casts_keep_it_packed(linear):
    module = QuantizedLinear.from_linear(linear, "w4a16-g32")
    state = module.state_dict()
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        module.to(dtype)
        assert is_packed(module)
        assert module(torch.randn(2, K).to(dtype)).dtype == module.weight.dtype == dtype
    assert torch.equal(module.scale, state["scale"])
    assert torch.equal(module.weight_int4, state["weight_int4"])


def test_x_may_have_another_dtype_than_the_module(linear):
    module = QuantizedLinear.from_linear(linear)
    for dtype in (torch.float16, torch.bfloat16):
        x = torch.randn(2, K).to(dtype)
        torch.testing.assert_close(module(x).float(), linear(x.float()), rtol=0.05, atol=0.05)


def test_other_devices_have_it_row_major(linear):
    module = QuantizedLinear.from_linear(linear)
    state = module.state_dict()
    module.to("meta")
    assert not is_packed(module)
    module.to_empty(device="cpu").load_state_dict(state)
    assert is_packed(module)
    assert torch.equal(module.weight_int8, state["weight_int8"])


def test_memory_that_nothing_has_filled_is_not_packed(linear):
    module = QuantizedLinear.from_linear(linear, "w4a16-g64-asym")
    state, x = module.state_dict(), torch.randn(2, K)
    y = module(x)
    module.to("meta").to_empty(device="cpu")
    assert not is_packed(module)  # whatever its zero points are
    for name, tensor in state.items():
        getattr(module, name).data.copy_(tensor)
    assert torch.equal(module(x), y)
    assert is_packed(module)


def test_a_zero_point_out_of_range_is_named(linear):
    module = QuantizedLinear.from_linear(linear, "w4a16-g64-asym")
    state = module.state_dict()
    state["zero_point"][5, 3] = 16
    with pytest.raises(RuntimeError, match=r"zero_point\[5, 3\] is 16; with 4-bit weights it must be in \[0, 15\]"):
        module.load_state_dict(state)


def test_buffers_filled_one_by_one_are_packed_by_the_first_forward(linear):
    accelerate = pytest.importorskip("accelerate.utils")
    module = QuantizedLinear.from_linear(linear)
    empty = QuantizedLinear(K, N, device="meta")
    for name, tensor in module.state_dict().items():
        accelerate.set_module_tensor_to_device(empty, name, "cpu", value=tensor)
    assert not is_packed(empty)
    x = torch.randn(2, K)
    assert torch.equal(empty(x), module(x))
    assert is_packed(empty)


def test_a_tensor_that_is_set_counts(linear):
    module = QuantizedLinear.from_linear(linear)
    x = torch.randn(2, K)
    y = module(x) - module.bias
    module.scale = module.scale * 2
    torch.testing.assert_close(module(x) - module.bias, 2 * y)
    assert is_packed(module)


def test_packing_under_inference_mode_leaves_a_weight_to_train_on(linear):
    with torch.inference_mode():
        module = QuantizedLinear.from_linear(linear)
    x = torch.randn(2, K, requires_grad=True)
    module(x).sum().backward()
    torch.testing.assert_close(x.grad, module.weight.sum(0).expand(2, K))


@pytest.mark.parametrize("straight_through", [False, True])
@pytest.mark.parametrize("scheme", ["w8a16", "w4a16-g32-asym", "w8a8", "w4a8-g32", "llm.int8"])
def test_gradients_are_those_of_a_row_major_module(linear, row_major, scheme, straight_through):
    options = {"straight_through": True} if straight_through and "a16" not in scheme else {}
    module, reference = (make(linear, scheme, **options) for make in (QuantizedLinear.from_linear, row_major))
    if not options and "a16" not in scheme:
        x = torch.randn(3, K, requires_grad=True)
        with pytest.raises(RuntimeError, match="straight_through=True"):
            module(x).sum().backward()
        return
    gradients = []
    grad = torch.randn(2, 3, N)
    data = torch.randn(2, 3, K)
    for m in (module, reference):
        x = data.clone().requires_grad_()
        linear.bias.grad = None
        m(x).backward(grad)
        gradients.append((x.grad, linear.bias.grad))
    for found, expected in zip(*gradients, strict=True):
        assert torch.equal(found, expected)


def test_threshold_and_rule_can_be_changed(linear):
    module = LLMInt8Linear.from_linear(linear)
    x = torch.randn(4, K)
    x[3, 7] = 50
    before = module(x)
    module.threshold, module.rule = 2.0, "batch"
    assert torch.equal(module(x), LLMInt8Linear.from_linear(linear, threshold=2.0, rule="batch")(x))
    assert not torch.equal(module(x), before)


def test_repr_names_the_packed_kernel(linear):
    text = repr(QuantizedLinear.from_linear(linear))
    name = text.partition("kernel=")[2].rstrip(")")
    assert name == ops.select_kernel(0, torch.float32, 8, True, -1, False, 1, 1, N, K, False)


@pytest.mark.parametrize("scheme", ["w8a16", "w8a8"])
def test_a_module_that_is_not_packed_yet_compiles(linear, scheme):
    module = QuantizedLinear.from_linear(linear, scheme)
    fresh = type(module)(K, N, True, scheme, device="meta")
    for name, tensor in module.state_dict().items():
        fresh._buffers.update({name: tensor}) if name != "bias" else setattr(fresh, name, module.bias)
    torch.compiler.reset()
    compiled = torch.compile(fresh, fullgraph=True, dynamic=True, backend="aot_eager")
    x = torch.randn(5, K)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), module(x))
        fresh(x)  # packs, so the next call compiles again
        assert is_packed(fresh)
        assert torch.equal(compiled(x), module(x))


def test_models_hold_and_save_one_copy(tmp_path):
    model = llama()
    row_major = {name: tensor for name, tensor in model.state_dict().items() if "proj" not in name}
    octavo.quantize_model(model)
    modules = {name: m for name, m in model.named_modules() if isinstance(m, QuantizedLinear)}
    assert all(map(is_packed, modules.values()))
    packed = sum(ops.packed_size(8, True, -1, m.out_features, m.in_features) for m in modules.values())
    others = {id(tensor): tensor.nbytes for tensor in row_major.values()}
    rotary = sum(buffer.nbytes for name, buffer in model.named_buffers() if "rotary" in name)
    assert model.get_memory_footprint() == packed + sum(others.values()) + rotary

    model.save_pretrained(tmp_path)
    saved = load_file(tmp_path / "model.safetensors")
    for name, m in modules.items():
        assert torch.equal(saved[f"{name}.weight_int8"], m.weight_int8)
        assert torch.equal(saved[f"{name}.scale"], m.scale)
    assert not any("packed" in name for name in saved)


def test_an_offloaded_model_computes_the_same(linear):
    accelerate = pytest.importorskip("accelerate")
    model = nn.Sequential(linear, nn.ReLU(), nn.Linear(N, 8))
    octavo.quantize_model(model)
    x = torch.randn(2, K)
    with torch.no_grad():
        expected = model(x)
        for offload_buffers in (False, True):
            offloaded = accelerate.cpu_offload(copy.deepcopy(model), "cpu", offload_buffers=offload_buffers)
            assert torch.equal(offloaded(x), expected)
