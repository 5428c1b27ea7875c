"""How fast do whole models decode on this CPU, and what share of a step is not the linear layers?

    make build && .venv/bin/python bench/decode.py --machine epyc-zen4-2c --threads 2

Configurations of two models with random weights (decoding does not take its time from their values): SmolLM2-135M and
a Llama of 1.1 billion parameters. Batch 1, greedy, a static cache, tokens a second from the median step; eagerly and,
where asked for, compiled whole (torch.compile, fullgraph). `rest` is the share of an eager step that is left when the
quantized linears return zeros at once: Python, attention, norms and the output layer. With a machine's name, writes
bench/results/NAME/decode.json.
"""

import argparse
import gc
import statistics
import time

import torch
import transformers
from common import facts, record, results_folder
from models import random_llama
from transformers import LlamaForCausalLM, StaticCache

import octavo

CONFIGURATIONS = {
    "smollm2-135m": dict(
        hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9, num_key_value_heads=3,
        vocab_size=49152, tie_word_embeddings=True,
    ),
    "llama-1b": dict(
        hidden_size=2048, intermediate_size=8192, num_hidden_layers=16, num_attention_heads=32, num_key_value_heads=8,
        vocab_size=32000,
    ),
}  # fmt: skip
SCHEMES = ("torch", "w8a16", "w8a8", "w4a8-g32", "w4a16-g128")
COMPILED = ("torch", "w8a16", "w8a8")
PROMPT = 16


def step_seconds(model: LlamaForCausalLM, step, steps: int) -> float:
    """The median of `steps` steps after a prompt, the first few left out."""
    cache = StaticCache(config=model.config, max_cache_len=PROMPT + steps)
    seconds = []
    with torch.no_grad():
        positions = torch.arange(PROMPT)
        logits = model(positions[None] + 100, past_key_values=cache, cache_position=positions).logits
        for position in range(PROMPT, PROMPT + steps):
            token = logits[:, -1].argmax(-1, keepdim=True)
            start = time.perf_counter()
            logits = step(input_ids=token, past_key_values=cache, cache_position=torch.tensor([position])).logits
            seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[3:])


class WithoutLinears:
    """While it is open, a model's quantized linears return zeros."""

    def __init__(self, model: LlamaForCausalLM):
        self.linears = [m for m in model.modules() if isinstance(m, octavo.QuantizedLinear)]

    def __enter__(self):
        for linear in self.linears:
            linear.forward = lambda x, N=linear.out_features: x.new_zeros(*x.shape[:-1], N)

    def __exit__(self, *_):
        for linear in self.linears:
            del linear.forward


def measure(model: LlamaForCausalLM, scheme: str, steps: int, compiles: bool) -> dict:
    row = {"scheme": scheme, "activation": str(model.dtype).removeprefix("torch.")}
    if scheme != "torch":
        octavo.quantize_model(model, scheme)
        gc.collect()
    eager = step_seconds(model, model, steps)
    row["tokens_per_second"] = round(1 / eager, 2)
    if scheme != "torch":
        with WithoutLinears(model):
            row["rest"] = round(step_seconds(model, model, steps) / eager, 3)
    if compiles and scheme in COMPILED:
        torch.compiler.reset()
        compiled = torch.compile(model, fullgraph=True, dynamic=False)
        row["compiled_tokens_per_second"] = round(1 / step_seconds(model, compiled, steps), 2)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--machine", help="record the figures under this name")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--compile", action="store_true", help="measure compiled models too (a minute each)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = []
    for name, configuration in CONFIGURATIONS.items():
        for dtype in (torch.float32, torch.bfloat16):
            for scheme in SCHEMES:
                model = random_llama(dtype, max_position_embeddings=512, **configuration)
                rows.append({"model": name} | measure(model, scheme, options.steps, options.compile))
                print(rows[-1], flush=True)
                del model
                gc.collect()
    if options.machine:
        command = f"python bench/decode.py --threads {options.threads}" + (" --compile" if options.compile else "")
        content = facts(options.machine, command) | {
            "threads": options.threads,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "rows": rows,
        }
        record(results_folder(options.machine) / "decode.json", content)


if __name__ == "__main__":
    main()
