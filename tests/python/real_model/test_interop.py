"""Our checkpoints in other hands: stock transformers and compressed-tensors open them and compute what we compute."""

import logging

import pytest
import torch
from compressed_tensors.logger import logger as compressed_tensors_logger
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

import octavo
from octavo.evaluate import kl_divergence

WEIGHT_ONLY = ("w8a16", "w4a16-g64", "w4a16-g32-asym")
TEXT = "The Python interpreter reads 1 line at a time; a compiler reads whole files, and so it can see further ahead."


@pytest.fixture(scope="module")
def ids(fp16):
    return AutoTokenizer.from_pretrained(fp16)(TEXT, return_tensors="pt")["input_ids"]


@pytest.fixture
def load_stock(caplog):
    """Opens a checkpoint without any code of ours. Whatever a loader has to say about it is a failure."""
    complaints = []
    sink = compressed_tensors_logger.add(complaints.append, level="WARNING")
    transformers_logging.enable_propagation()

    def load(path):
        with caplog.at_level(logging.WARNING):
            model, report = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, output_loading_info=True)
        assert {name: found for name, found in report.items() if found} == {}
        assert [record.getMessage() for record in caplog.records] == []
        assert complaints == []
        return model

    yield load
    transformers_logging.disable_propagation()
    compressed_tensors_logger.remove(sink)


def logits(model, ids):
    with torch.no_grad():
        return model(ids).logits


def quantized_names(model):
    return [name for name, module in model.named_modules() if isinstance(module, octavo.QuantizedLinear)]


@pytest.mark.parametrize("scheme", WEIGHT_ONLY)
def test_weight_only_checkpoints_mean_the_same_to_everyone(scheme, quantized, fp16, ids, load_stock):
    stock, ours = load_stock(quantized(scheme)), octavo.load(quantized(scheme), dtype=torch.float32)
    names = quantized_names(ours)
    assert len(names) == 30 * 7

    # The same FP32 weights in the same plain layers: every bit of the logits has to agree.
    plain = AutoModelForCausalLM.from_pretrained(fp16, dtype=torch.float32)
    for name in names:
        plain.get_submodule(name).weight = nn.Parameter(ours.get_submodule(name).weight)
    expected = logits(plain, ids)
    assert torch.equal(logits(stock, ids), expected)
    for name in names:
        assert torch.equal(stock.get_submodule(name).weight, plain.get_submodule(name).weight), name

    # Our kernels add in another order, and scale sums rather than weights: FP32 rounding, through 30 layers.
    torch.testing.assert_close(logits(ours, ids), expected, rtol=0, atol=2e-3)
    assert not torch.equal(expected, logits(AutoModelForCausalLM.from_pretrained(fp16, dtype=torch.float32), ids))


def test_w8a8_layers_agree_with_stock_ones(quantized, ids, load_stock):
    """On the same input x both round every value to a step of its token: ours is absmax/127, theirs absmax/127.5.

    So the rounded inputs differ by at most one step, and an output by a step times Σ|ŵ|. Taking the rounding errors
    as independent and uniform, the difference has a variance of 2/12 of a squared step a value: outputs differ by
    0.41 · step · ‖ŵ‖ on average. What is allowed is the bound for each output, and half more than that for the mean.
    """
    stock, ours = load_stock(quantized("w8a8")), octavo.load(quantized("w8a8"), dtype=torch.float32)
    names = quantized_names(ours)
    assert len(names) == 30 * 7
    assert {type(ours.get_submodule(name)) for name in names} == {octavo.DynamicInt8Linear}

    seen = {}
    for name in names:
        stock.get_submodule(name).register_forward_hook(
            lambda _module, args, output, name=name: seen.update({name: (args[0][0], output[0])})
        )
    reference = logits(stock, ids)
    for name in names:
        x, theirs = seen[name]
        layer = ours.get_submodule(name)
        with torch.no_grad():
            difference = (layer(x) - theirs).double()
        weight = layer.weight.double()
        assert torch.equal(stock.get_submodule(name).weight, layer.weight), name
        step = x.abs().amax(-1, keepdim=True).double() / 127
        assert (difference.abs() <= 1.01 * step * weight.abs().sum(-1)).all(), name
        usual = (2 / 12) ** 0.5 * step * weight.norm(dim=-1)
        assert difference.square().mean().sqrt() <= 1.5 * usual.square().mean().sqrt(), name

    # Each is about 0.05 nats from the FP16 model on this text; two unrelated models would be several nats apart.
    assert kl_divergence(reference[0], logits(ours, ids)[0]).mean() < 0.1
