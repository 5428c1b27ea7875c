"""A real model on CUDA: every layer on the inputs that it has there, and the perplexity."""

import pytest
import torch
from recorded import layers, recorded_inputs
from transformers import AutoTokenizer

import octavo
from octavo.evaluate import builtin_text

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
TEXT = "The Python interpreter reads 1 line at a time; a compiler reads whole files, and so it can see further ahead."


@pytest.fixture(scope="module")
def tokenizer(fp16):
    return AutoTokenizer.from_pretrained(fp16)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_w8a8_layers_give_the_cpus_bits(quantized, tokenizer, dtype):
    model = octavo.load(quantized("w8a8"), dtype=dtype)
    inputs = recorded_inputs(model, tokenizer(TEXT, return_tensors="pt")["input_ids"])
    assert len(inputs) == 7 * model.config.num_hidden_layers
    on_cuda = layers(octavo.load(quantized("w8a8"), dtype=dtype, device="cuda"))
    with torch.no_grad():
        for name, module in layers(model).items():
            x = inputs[name]
            for rows in (x, x[:, :1]):  # a prompt, and a token alone
                assert torch.equal(on_cuda[name](rows.cuda()).cpu(), module(rows)), name


# In nats a token, the log of the perplexity, to which rounding adds. On a CPU, arithmetic in FP16 or BF16 rather than
# in FP32 moves it by 2e-4 or 6e-4; two devices' own roundings may differ by some of these.
@pytest.mark.parametrize(("dtype", "nats"), [(torch.float32, 1e-4), (torch.float16, 1e-3), (torch.bfloat16, 3e-3)])
@pytest.mark.parametrize("scheme", ["w8a16", "w4a16-g64-asym"])
def test_the_perplexity_is_the_cpus(quantized, tokenizer, scheme, dtype, nats):
    path, text = quantized(scheme), builtin_text()[:20_000]

    def log_perplexity(device):
        model = octavo.load(path, dtype=dtype, device=device)
        value = octavo.perplexity(model, tokenizer, text, window=512, max_windows=2, progress=False)
        return torch.tensor(value, dtype=torch.float64).log()

    assert abs(log_perplexity("cuda") - log_perplexity("cpu")) < nats
