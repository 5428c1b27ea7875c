"""quantize_model: which layers it takes, what it leaves, and that sharing survives."""

import gc
import logging
import weakref

import pytest
import torch
import torch._dynamo.testing
from tiny_models import llama
from torch import nn

import octavo
from octavo import DynamicInt8Linear, Int8Linear, LLMInt8Linear, QuantizedLinear


class Language(nn.Module):
    """A small model with the parts that matter: an embedding, Linears, a norm, and an output layer."""

    def __init__(self, tied=False):
        super().__init__()
        self.embed = nn.Embedding(50, 32)
        self.layers = nn.ModuleList(
            nn.ModuleDict({"up": nn.Linear(32, 64), "down": nn.Linear(64, 32, bias=False)}) for _ in range(2)
        )
        self.norm = nn.LayerNorm(32)
        self.lm_head = nn.Linear(32, 50, bias=False)
        if tied:
            self.lm_head.weight = self.embed.weight

    def forward(self, tokens):
        x = self.embed(tokens)
        for layer in self.layers:
            x = x + layer["down"](layer["up"](x).relu())
        return self.lm_head(self.norm(x))


BLOCKS = ["layers.0.up", "layers.0.down", "layers.1.up", "layers.1.down"]
TOKENS = torch.arange(24).reshape(2, 12)


def kinds(model):
    return {
        name: type(module) for name, module in model.named_modules() if isinstance(module, (nn.Linear, QuantizedLinear))
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("scheme", "limit"), [("w8a16", 0.01), ("w8a8", 0.03), ("llm.int8", 0.03), ("w4a16-g16", 0.2)])
def test_model_keeps_its_meaning(scheme, limit, dtype):
    model = Language().to(dtype).eval()
    with torch.no_grad():
        exact = model(TOKENS).float()
        octavo.quantize_model(model, scheme)
        y = model(TOKENS)
    assert y.dtype == dtype
    assert (y.float() - exact).norm() / exact.norm() < limit + (0.01 if dtype == torch.bfloat16 else 0)


def test_coverage_says_what_was_done(caplog):
    model = Language()
    with caplog.at_level(logging.INFO, logger="octavo"):
        coverage = octavo.quantize_model(model, "w8a16")
    assert coverage.quantized == BLOCKS
    assert coverage.left == {"lm_head": "output embedding"}
    assert (coverage.quantized_weights, coverage.linear_weights) == (4 * 2048, 4 * 2048 + 1600)
    assert str(coverage) == "4 of 5 Linears, 83.7 % of weights; left: lm_head (output embedding)"
    assert str(coverage) in caplog.text


def test_embeddings_norms_and_the_head_stay():
    model = Language()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    octavo.quantize_model(model)
    assert type(model.embed) is nn.Embedding
    assert type(model.norm) is nn.LayerNorm
    assert type(model.lm_head) is nn.Linear
    for name in ("embed.weight", "norm.weight", "lm_head.weight", "layers.0.up.bias"):
        assert torch.equal(model.state_dict()[name], before[name])


@pytest.mark.parametrize(
    ("options", "taken"),
    [
        ({"ignore": "down"}, ["layers.0.up", "layers.1.up"]),
        ({"ignore": [r"\.0\.", "up$"]}, ["layers.1.down"]),
        ({"only": r"layers\.1"}, ["layers.1.up", "layers.1.down"]),
        ({"only": ["up", "lm_head"]}, ["layers.0.up", "layers.1.up", "lm_head"]),
        ({"only": "up", "ignore": r"\.0\."}, ["layers.1.up"]),
    ],
)
def test_selection(options, taken):
    model = Language()
    coverage = octavo.quantize_model(model, **options)
    assert coverage.quantized == taken
    assert [name for name, kind in kinds(model).items() if kind is QuantizedLinear] == taken


@pytest.mark.parametrize("options", [{"ignore": "lm_haed"}, {"only": ["up", "gate"]}])
def test_an_expression_that_is_found_nowhere_is_an_error(options):
    model = Language()
    with pytest.raises(ValueError, match="lm_haed|gate"):
        octavo.quantize_model(model, **options)
    assert set(kinds(model).values()) == {nn.Linear}


@pytest.mark.parametrize("only", [None, "lm_head|up"])
def test_a_weight_tied_to_an_embedding_stays_tied(only):
    model = Language(tied=True)
    coverage = octavo.quantize_model(model, only=only)
    assert coverage.left["lm_head"] == "tied"
    assert model.lm_head.weight is model.embed.weight


def test_linears_that_share_a_weight_share_the_quantized_one():
    model = nn.ModuleDict({"a": nn.Linear(8, 8, bias=False), "b": nn.Linear(8, 8, bias=False), "c": nn.Linear(8, 8)})
    model["b"].weight = model["c"].weight = model["a"].weight
    x = torch.randn(3, 8)
    exact = {name: module(x) for name, module in model.items()}
    coverage = octavo.quantize_model(model)
    assert (len(coverage.quantized), coverage.quantized_weights) == (3, 64)
    a, b, c = (dict(model[name].named_buffers()) for name in "abc")
    assert a and all(a[name] is b[name] is c[name] for name in a)
    for name, module in model.items():
        torch.testing.assert_close(module(x), exact[name], atol=0.02, rtol=0)


def test_one_module_in_two_places_stays_one():
    linear = nn.Linear(8, 8)
    model = nn.ModuleDict({"a": linear, "b": nn.Sequential(linear)})
    octavo.quantize_model(model)
    assert model["a"] is model["b"][0]
    assert isinstance(model["a"], QuantizedLinear)


def test_ignoring_one_place_of_a_shared_weight_leaves_all():
    model = nn.ModuleDict({"a": nn.Linear(8, 8), "b": nn.Linear(8, 8)})
    model["b"].weight = model["a"].weight
    coverage = octavo.quantize_model(model, ignore="b")
    assert coverage.quantized == []
    assert coverage.left == {"a": "shares its weight with such a layer", "b": "ignored"}


def test_originals_are_freed_one_by_one(monkeypatch):
    model = Language()
    weights = [weakref.ref(model.get_submodule(name).weight) for name in BLOCKS]
    alive = []
    original = QuantizedLinear.from_weight.__func__

    def from_weight(cls, *args, **options):
        gc.collect()
        alive.append(sum(weight() is not None for weight in weights))
        return original(cls, *args, **options)

    monkeypatch.setattr(QuantizedLinear, "from_weight", classmethod(from_weight))
    octavo.quantize_model(model)
    assert alive == [4, 3, 2, 1]


def test_modes_and_options_reach_the_modules():
    model = Language().eval()
    model.layers[0].train()
    octavo.quantize_model(model, "llm.int8", threshold=4.5, rule="batch", straight_through=True)
    first, second = model.layers[0]["up"], model.layers[1]["up"]
    assert (first.threshold, first.rule, first.straight_through) == (4.5, "batch", True)
    assert first.training and not second.training


def test_conv1d_of_gpt2_is_converted():
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(vocab_size=60, n_positions=32, n_embd=32, n_layer=2, n_head=2)
    model = transformers.GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        exact = model(TOKENS).logits
        coverage = octavo.quantize_model(model)
        y = model(TOKENS).logits
    assert len(coverage.quantized) == 8
    assert coverage.left == {"lm_head": "tied"}
    assert model.transformer.h[0].attn.c_attn.weight_int8.shape == (96, 32)
    assert (y - exact).norm() / exact.norm() < 0.01


def test_fused_experts_are_reported(caplog):
    class Experts(nn.Module):
        def __init__(self):
            super().__init__()
            self.gate = nn.Linear(16, 4)
            self.up = nn.Parameter(torch.randn(4, 16, 48))
            self.conv = nn.Conv1d(16, 16, 4)

    with caplog.at_level(logging.WARNING, logger="octavo"):
        coverage = octavo.quantize_model(Experts())
    assert coverage.expert_weights == 4 * 16 * 48
    assert coverage.share == pytest.approx(64 / (64 + 3072))
    assert "98.0 %" in caplog.text


def test_linears_that_are_used_in_other_ways_stay():
    model = nn.ModuleDict({"attention": nn.MultiheadAttention(16, 2), "exact": nn.Linear(4, 4, dtype=torch.float64)})
    coverage = octavo.quantize_model(model)
    assert coverage.quantized == []
    assert coverage.left == {"attention.out_proj": "NonDynamicallyQuantizableLinear", "exact": "float64"}


def test_errors_name_the_layer():
    model = Language()
    with torch.no_grad():
        model.layers[1]["up"].weight[5, 6] = float("nan")
    with pytest.raises(RuntimeError, match=r"layers\.1\.up: .*5.*6"):
        octavo.quantize_model(model)


@pytest.mark.parametrize(
    ("scheme", "message"), [("w8a8-static", "calibration"), ("w16a16", "w16a16"), ("int8", "int8")]
)
def test_bad_schemes_change_nothing(scheme, message):
    model = Language()
    with pytest.raises(ValueError, match=message):
        octavo.quantize_model(model, scheme)
    assert set(kinds(model).values()) == {nn.Linear}


def test_a_bare_linear_is_refused():
    with pytest.raises(ValueError, match="from_linear"):
        octavo.quantize_model(nn.Linear(4, 4))


@pytest.mark.parametrize(
    ("method", "kind"),
    [("weight_only", QuantizedLinear), ("weight_activation", DynamicInt8Linear), ("llm_int8", LLMInt8Linear)],
)
def test_int8_quantizer(method, kind):
    model = Language()
    quantizer = octavo.INT8Quantizer(model, method=method)
    assert quantizer.quantize() is model
    assert {kinds(model)[name] for name in BLOCKS} == {kind}
    assert quantizer.coverage.quantized == BLOCKS
    with pytest.raises(ValueError, match="weight_only"):
        octavo.INT8Quantizer(model, method="int4")


def test_quantizing_twice_changes_nothing():
    model = Language()
    octavo.quantize_model(model)
    before = kinds(model)
    coverage = octavo.quantize_model(model, "w8a8")
    assert kinds(model) == before
    assert coverage.quantized == []
    assert Int8Linear not in before.values()


@torch.no_grad()
def decode(model, step, prompt, new_tokens):
    """Logits of greedy decoding with a static cache: the prompt by the model, every further token by `step`."""
    from transformers import StaticCache

    cache = StaticCache(config=model.config, max_cache_len=prompt.shape[1] + new_tokens)
    logits = [model(prompt, past_key_values=cache, cache_position=torch.arange(prompt.shape[1])).logits[:, -1]]
    for position in range(prompt.shape[1], prompt.shape[1] + new_tokens - 1):
        ids = logits[-1].argmax(-1, keepdim=True)
        logits.append(step(input_ids=ids, past_key_values=cache, cache_position=torch.tensor([position])).logits[:, -1])
    return torch.stack(logits)


@pytest.mark.parametrize(
    ("scheme", "backend"), [("w8a16", "inductor"), ("w8a8", "aot_eager"), ("w4a8-g32", "aot_eager")]
)
def test_decoding_with_a_static_cache_is_one_graph(scheme, backend):
    model = llama()
    octavo.quantize_model(model, scheme)
    torch.compiler.reset()
    graphs = torch._dynamo.testing.CompileCounterWithBackend(backend)
    step = torch.compile(model, fullgraph=True, backend=graphs)
    torch.testing.assert_close(decode(model, step, TOKENS[:1], 6), decode(model, model, TOKENS[:1], 6))
    assert graphs.frame_count == 1
    nodes = [str(node.target) for node in graphs.graphs[0].graph.nodes]
    assert sum(name.startswith("octavo.") for name in nodes) >= 2 * 7


def test_a_converted_model_compiles():
    model = Language().eval()
    octavo.quantize_model(model, "w8a8")
    torch.compiler.reset()
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend="aot_eager")
    with torch.no_grad():
        for tokens in (TOKENS, TOKENS[:1, :5]):
            torch.testing.assert_close(compiled(tokens), model(tokens))
