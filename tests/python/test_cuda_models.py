"""Modules and models on CUDA: loading, memory, state dicts, torch.compile, CUDA graphs, gradients."""

import copy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from compiled import RecordedPass
from recorded import layers, recorded_inputs
from tiny_models import llama

import octavo
from octavo import QuantizedLinear

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")

SCHEMES = ("w8a16", "w4a16-g128", "w4a16-g128-asym", "w8a8", "llm.int8")
# What computes on the device alone, without the host: what graphs can hold.
ON_DEVICE = SCHEMES[:-1]
N, K = 384, 512


def layer(scheme, dtype=torch.float16, **options):
    """A quantized Linear on CUDA, and a batch for it."""
    linear = torch.nn.Linear(K, N, dtype=dtype, device="cuda")
    return QuantizedLinear.from_linear(linear, scheme, **options), torch.randn(2, 3, K, dtype=dtype, device="cuda")


def wide_llama():
    """Linears of up to 2 MB in FP16, beside which everything else is small."""
    return llama(hidden_size=512, intermediate_size=2048, num_hidden_layers=4, initializer_range=0.05).half()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Writes wide_llama() in a scheme, with the program that is installed beside this Python."""
    folder = tmp_path_factory.mktemp("checkpoints")
    wide_llama().save_pretrained(folder / "fp16")

    def write(scheme):
        path = folder / scheme
        if not path.exists():
            program = Path(sys.executable).with_name("octavo")
            subprocess.run([program, "quantize", folder / "fp16", path, "--scheme", scheme, "--quiet"], check=True)
        return path

    return write


def tensor_bytes(tensors):
    """Of different tensors, each rounded up as the allocator does."""
    return sum(-(-t.nbytes // 512) * 512 for t in {t.data_ptr(): t for t in tensors}.values())


class Memory:
    """Bytes that this process allocates on the device from here on: `held` now, and at their `peak`."""

    def __init__(self):
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        self._before = torch.cuda.memory_allocated()

    @property
    def held(self):
        return torch.cuda.memory_allocated() - self._before

    @property
    def peak(self):
        return torch.cuda.max_memory_allocated() - self._before


def difference(found, expected):
    """The norm of it, relative. Where activations are quantized, a rounding in front turns into a step of 1/127 here
    and there: hence float32 where models are compared, since FP16's arithmetic alone moves such logits by 5 %."""
    return ((found - expected).norm() / expected.norm()).item()


def sizes(model):
    """Bytes of a model's tensors, and of its largest layer."""
    layers = [list(module.buffers()) for module in model.modules() if isinstance(module, QuantizedLinear)]
    return tensor_bytes([*model.parameters(), *model.buffers()]), max(map(tensor_bytes, layers))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_load_takes_the_quantized_size_and_one_layer(checkpoint, scheme):
    path = checkpoint(scheme)
    memory = Memory()
    model = octavo.load(path, device="cuda")
    size, largest = sizes(model)
    assert {t.device.type for t in model.state_dict().values()} == {"cuda"}
    assert memory.held <= size + 2**16
    assert memory.peak <= size + largest + 2**16


# With quantized activations logits tell little: torch's attention rounds differently on the two devices, and each
# rounding that this turns is a step of 1/127. Layer by layer, on the same inputs, both give the same bits.
@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_loaded_model_computes_what_it_does_on_the_cpu(checkpoint, scheme):
    tokens = torch.arange(40).reshape(2, 20)
    model = octavo.load(checkpoint(scheme), dtype=torch.float32)
    on_cuda = octavo.load(checkpoint(scheme), dtype=torch.float32, device="cuda")
    with torch.no_grad():
        if scheme in ("w8a8", "llm.int8"):
            inputs = recorded_inputs(model, tokens)
            assert inputs.keys() == layers(on_cuda).keys()
            for name, layer in layers(on_cuda).items():
                assert torch.equal(layer(inputs[name].cuda()).cpu(), layers(model)[name](inputs[name])), name
            return
        assert difference(on_cuda(tokens.cuda()).logits.cpu(), model(tokens).logits) < 1e-4


@pytest.mark.parametrize("scheme", SCHEMES)
def test_quantize_model_holds_one_layer_twice(scheme):
    model = wide_llama().cuda()
    torch.ops.octavo.quantize(torch.randn(8, 128, device="cuda"), 8, True, -1, 0, 99.9, torch.float32)
    before = tensor_bytes(model.parameters())
    memory = Memory()
    octavo.quantize_model(model, scheme)
    size, largest = sizes(model)
    assert memory.held <= size - before + 2**16  # what was FP16 is free
    # Beside the model, before anything of it is free, what a layer needs: integers, one a byte too before two are.
    assert memory.peak <= 2 * 2 * 512 * 2048
    tokens = torch.arange(20, device="cuda").reshape(1, 20)
    with torch.no_grad():
        assert model(tokens).logits.isfinite().all()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_state_dicts(scheme, tmp_path):
    module, x = layer(scheme)
    expected = module(x)
    torch.save(module.state_dict(), tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt")
    assert {t.device.type for t in state.values()} == {"cuda"}
    bias = module.bias is not None
    fresh = type(module)(K, N, bias, scheme, device="cuda", dtype=torch.float16)
    fresh.load_state_dict(state)
    assert torch.equal(fresh(x), expected)
    assigned = type(module)(K, N, bias, scheme, device="meta", dtype=torch.float16)
    assigned.load_state_dict(state, assign=True)
    assert torch.equal(assigned(x), expected)
    # By way of the CPU, which packs its weights: the very same tensors come back.
    on_cpu = type(module)(K, N, bias, scheme, dtype=torch.float16)
    on_cpu.load_state_dict(state)
    back = on_cpu.cuda()
    assert all(torch.equal(a, state[name]) for name, a in back.state_dict().items())
    assert torch.equal(back(x), expected)


@pytest.mark.parametrize("mode", ["default", "reduce-overhead", "max-autotune"])
@pytest.mark.parametrize("scheme", ON_DEVICE)
def test_modules_compile(scheme, mode):
    torch.compiler.reset()
    module, x = layer(scheme)
    compiled = torch.compile(module, fullgraph=True, mode=mode)
    with torch.no_grad():
        expected = module(x)
        for _ in range(4):  # recorded, then replayed
            assert torch.equal(compiled(x), expected)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_modules_compile_for_any_batch_and_with_gradients(scheme):
    torch.compiler.reset()
    module, _ = layer(scheme)
    compiled = torch.compile(module, fullgraph=True, dynamic=True)
    for rows in (1, 3, 17):
        x = torch.randn(rows, K, dtype=torch.float16, device="cuda")
        y = compiled(x)
        assert torch.equal(y, module(x))
    module.bias.grad = None
    y.sum().backward()
    torch.testing.assert_close(module.bias.grad, torch.full_like(module.bias, 17))


@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
@pytest.mark.parametrize("scheme", ["w4a16-g128", "w8a8"])
def test_models_compile_without_graph_breaks(scheme, mode):
    torch.compiler.reset()
    model = wide_llama().float().cuda()
    octavo.quantize_model(model, scheme)
    compiled = torch.compile(model, fullgraph=True, mode=mode, dynamic=False)
    tokens = torch.arange(20, device="cuda").reshape(1, 20)
    with torch.no_grad():
        expected = model(tokens, use_cache=False).logits
        for _ in range(3):
            assert difference(compiled(tokens, use_cache=False).logits, expected) < 0.01


@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
@pytest.mark.parametrize("scheme", ["w8a16", "w4a16-g128", "w4a16-g128-asym", "w8a8"])
def test_models_compile_with_octavos_kernels(scheme, mode):
    torch.compiler.reset()
    model = wide_llama().cuda()
    octavo.quantize_model(model, scheme)
    assert octavo.join_weights(model) > 0
    the_pass = RecordedPass(["cuda"])
    options = octavo.compile_options(mode, dependent_launch=True) | {"post_grad_custom_pre_pass": the_pass}
    compiled = torch.compile(model, fullgraph=True, dynamic=False, options=options)
    joined = "linear_w8a8_joined" if scheme == "w8a8" else "linear_joined"
    with torch.no_grad():
        for length in (1, 20):
            tokens = torch.arange(3 * length, device="cuda").reshape(3, length)
            expected = model(tokens, use_cache=False).logits
            for _ in range(3):
                # FP16's arithmetic alone moves such logits by 5 %; what is wrong is off by more than 1.
                assert difference(compiled(tokens, use_cache=False).logits, expected) < 0.2
            # Of four layers.
            counts = [the_pass.left.count(name) for name in ("rms_norm", "add_rms_norm", "silu_mul", joined)]
            assert counts == [1, 7, 4, 8]


@pytest.fixture
def dependent_launch():
    """torch.compile's kernels start before the ones in front of them have ended (TORCHINDUCTOR_ENABLE_PDL)."""
    with torch._inductor.config.patch({"triton.enable_pdl": True}):
        torch.compiler.reset()
        yield
    torch.compiler.reset()


@pytest.mark.parametrize("scheme", ["w8a16", "w4a16-g128", "w8a8"])
def test_torchs_kernels_may_start_early(scheme, dependent_launch):
    # The second linear may start, and let the sum's kernel start, while the first one runs.
    linears = [torch.nn.Linear(4096, 8192, bias=False, dtype=torch.float16, device="cuda") for _ in range(2)]
    first, second = (QuantizedLinear.from_linear(linear, scheme) for linear in linears)

    def sum_of_both(x):
        return torch.relu(first(x)) + second(x)

    compiled = torch.compile(sum_of_both, fullgraph=True)
    with torch.no_grad():
        inputs = torch.randn(20, 1, 4096, dtype=torch.float16, device="cuda")
        expected = [sum_of_both(x) for x in inputs]
        static_x, graph = inputs[0].clone(), torch.cuda.CUDAGraph()
        compiled(static_x)
        with torch.cuda.graph(graph):
            y = compiled(static_x)
        for x, y_of_x in zip(inputs, expected, strict=True):
            static_x.copy_(x)
            graph.replay()
            assert torch.equal(y, y_of_x)


@pytest.mark.parametrize("scheme", ON_DEVICE)
def test_graphs_follow_their_input(scheme):
    module, x = layer(scheme, torch.bfloat16)
    with torch.no_grad():
        expected = module(x)
        static_x, graph = torch.zeros_like(x), torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            y = module(static_x)
        for _ in range(3):
            static_x.copy_(x)
            graph.replay()
            assert torch.equal(y, expected)
            static_x.zero_()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_adapters_train_on_top(scheme):
    options = {} if "a16" in scheme else {"straight_through": True}
    module, x = layer(scheme, **options)
    grad = torch.randn(2, 3, N, dtype=x.dtype, device="cuda")
    module(x.requires_grad_()).backward(grad)
    torch.testing.assert_close(x.grad, grad @ module.weight)
    torch.testing.assert_close(module.bias.grad, grad.reshape(-1, N).sum(0))


def test_integer_schemes_refuse_a_gradient():
    module, x = layer("w8a8")
    with pytest.raises(RuntimeError, match="straight_through=True"):
        module(x.requires_grad_()).sum().backward()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("leading", [(), (1,), (2, 3), (130,)])
def test_int8_gemm(leading, dtype):
    weight = torch.randn(N, K, device="cuda")
    x, bias = torch.randn(*leading, K, device="cuda").to(dtype), torch.randn(N, device="cuda").to(dtype)
    q, scale = octavo.quantize_weight_per_channel(weight)
    y = octavo.int8_gemm(x, q, scale, bias)
    assert (y.dtype, y.shape) == (dtype, (*leading, N))
    w = q.double() * scale[:, None].double()
    exact = x.double() @ w.T + bias.double()
    unit = {torch.float32: 2**-24, torch.float16: 2**-11, torch.bfloat16: 2**-8}[dtype]
    sums = 2**-23 * (K / 16 + 8) * (x.double().abs() @ w.abs().T)
    assert ((y.double() - exact).abs() <= unit * exact.abs() + sums).all()  # docs/numerics.md
    assert torch.equal(octavo.int8_gemm(x, q, scale[:, None], bias), y)
    one = torch.tensor([0.01], device="cuda")
    torch.testing.assert_close(octavo.int8_gemm(x, q, one), octavo.int8_gemm(x, q, one.expand(N).contiguous()))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("weight_int8", lambda: torch.zeros(N, K, dtype=torch.int8), "is on the CPU"),
        ("scale", lambda: torch.ones(N), "is on the CPU"),
        ("scale", lambda: torch.ones(N + 1, device="cuda"), "scale (is|has)"),
        ("x", lambda: torch.zeros(2, K + 1, device="cuda"), "K"),
    ],
)
def test_int8_gemm_says_what_does_not_fit(name, value, message):
    arguments = dict(
        x=torch.zeros(2, K, device="cuda"),
        weight_int8=torch.zeros(N, K, dtype=torch.int8, device="cuda"),
        scale=torch.ones(N, device="cuda"),
    )
    with pytest.raises(RuntimeError, match=message):
        octavo.int8_gemm(**arguments | {name: value()})
    torch.cuda.synchronize()  # and the device still works


def test_copies_are_independent():
    module, x = layer("w8a16")
    twin = copy.deepcopy(module)
    expected = module(x)
    module.scale = module.scale * 2
    assert torch.equal(twin(x), expected)
    assert not torch.equal(module(x), expected)
