"""How fast does a 7B model decode on this GPU in each scheme, and how much of that do the linear layers allow?

    python bench/gpu_decode.py --machine h200

Llama-2-7B's configuration with random weights, in FP16 and quantized in memory. transformers' modules and static
cache; decoder layers compiled, --together of them at a time (all share one graph of torch.compile), and a whole step,
from token to token, one CUDA graph. Rows are (batch, length): so many sequences decode that many tokens, greedily,
into a cache of that length. Times are the GPU's, between events around each step. torch's kernels take part in
programmatic dependent launch, in FP16 as in every scheme, unless --without-dependent-launch says otherwise. Schemes
are compiled with octavo.compile_options() after octavo.join_weights(), and also, `plain`, as torch compiles them
without.

`linears_us` is the time of the decoder layers' linear layers alone, in a graph of their own, joined where the step has
them so; `rest_us` what else the step takes. Amdahl: with a scheme's linears and FP16's rest, a step could be `possible`
times as fast as FP16's; `share` of that is reached. With a machine's name, writes bench/results/NAME/decode_e2e.json.
"""

import argparse
import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from common import record, results_folder
from cuda_timing import Graph, gpu_facts
from models import random_llama
from transformers import Cache, LlamaForCausalLM, StaticCache
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

import octavo

LLAMA_2_7B = dict(
    hidden_size=4096, intermediate_size=11008, num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=32,
    vocab_size=32000, max_position_embeddings=4096,
)  # fmt: skip
SCHEMES = ("w8a16", "w4a16-g128", "w8a8")
ROWS = [(1, 128), (1, 512), (4, 128), (8, 128), (16, 128)]
REPLAYS = 10


def own_caches(model: LlamaForCausalLM, batch: int, length: int) -> list[Cache]:
    """A static cache for each decoder layer alone. As first layer of its own cache, every layer runs the same code."""
    config = model.config
    shape = (batch, config.num_key_value_heads, config.hidden_size // config.num_attention_heads)
    whole = StaticCache(config=config, max_cache_len=length)
    whole.early_initialization(*shape, dtype=model.dtype, device=model.device)
    for layer in whole.layers:
        for tensor in (layer.keys, layer.values, layer.cumulative_length):
            del tensor._dynamo_static_input_type  # else each layer's addresses would be compiled in
    return [Cache(layers=[layer]) for layer in whole.layers]


def first(model: LlamaForCausalLM, token: torch.Tensor, position: torch.Tensor, length: int):
    """What the decoder layers take: hidden states, the mask that is added to attention scores, rotary embeddings."""
    hidden = model.model.embed_tokens(token)
    seen = torch.arange(length, device=token.device) <= position
    mask = torch.where(seen, 0.0, float("-inf")).to(hidden.dtype).expand(token.shape[0], 1, 1, length)
    return hidden, mask, model.model.rotary_emb(hidden, position_ids=position[None])


def middle(layers: list[LlamaDecoderLayer], hidden, mask, rotary, caches: list[Cache]) -> torch.Tensor:
    for layer, cache in zip(layers, caches, strict=True):
        hidden = layer(hidden, attention_mask=mask, position_embeddings=rotary, past_key_values=cache)
    return hidden


def last(model: LlamaForCausalLM, hidden: torch.Tensor) -> torch.Tensor:
    return model.lm_head(model.model.norm(hidden))


@dataclass
class Compiling:
    together: int  # decoder layers in a graph of torch.compile
    options: dict[str, Any]

    def compiled(self, function: Callable) -> Callable:
        return torch.compile(function, fullgraph=True, dynamic=False, options=self.options)


class Decoder:
    """Decodes greedily, a step for each token."""

    def __init__(self, model: LlamaForCausalLM, batch: int, length: int, compiling: Compiling):
        self.model, self.length = model, length
        self.caches = own_caches(model, batch, length)
        self._together = compiling.together
        self.token = torch.full((batch, 1), 100, device=model.device)
        self.position = torch.zeros(1, dtype=torch.int64, device=model.device)
        torch.compiler.reset()
        self._first, self._middle, self._last = map(compiling.compiled, (first, middle, last))

    def restart(self) -> None:
        self.token.fill_(100)
        self.position.zero_()
        for cache in self.caches:
            cache.layers[0].cumulative_length.zero_()

    def step(self) -> torch.Tensor:
        """The logits of the token at `position`, after which it is the next one's turn."""
        hidden, mask, rotary = self._first(self.model, self.token, self.position, self.length)
        layers = list(self.model.model.layers)
        for i in range(0, len(layers), self._together):
            some = slice(i, i + self._together)
            hidden = self._middle(layers[some], hidden, mask, rotary, self.caches[some])
        logits = self._last(self.model, hidden)
        self.token.copy_(logits[:, -1].argmax(-1, keepdim=True))
        self.position.add_(1)
        return logits

    def difference(self) -> float:
        """Of two steps' logits from those of the model as transformers runs it: the norm, relative."""
        self.restart()
        tokens, mine = [], []
        for _ in range(2):
            tokens.append(self.token.clone())
            mine.append(self.step())
        cache = StaticCache(config=self.model.config, max_cache_len=self.length)
        for index, layer in enumerate(self.model.model.layers):
            layer.self_attn.layer_idx = index
        theirs = self.model(torch.cat(tokens, 1), past_key_values=cache).logits
        share_layer_number(self.model)
        self.restart()
        return ((torch.cat(mine, 1) - theirs).float().norm() / theirs.float().norm()).item()


def share_layer_number(model: LlamaForCausalLM) -> None:
    for layer in model.model.layers:
        layer.self_attn.layer_idx = 0


def linears(layer: LlamaDecoderLayer, x: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    """A decoder layer's products, of each input one after the other."""
    modules = {
        "attention": (layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj),
        "o": (layer.self_attn.o_proj,),
        "mlp": (layer.mlp.gate_proj, layer.mlp.up_proj),
        "down": (layer.mlp.down_proj,),
    }
    return [module(x[name]) for name, those in modules.items() for module in those]


def linears_us(model: LlamaForCausalLM, batch: int, compiling: Compiling) -> float:
    """Median time of the decoder layers' linears alone, one after the other."""
    hidden, intermediate = model.config.hidden_size, model.config.intermediate_size
    sizes = {"attention": hidden, "o": hidden, "mlp": hidden, "down": intermediate}
    x = {name: torch.randn(batch, 1, K, device=model.device, dtype=model.dtype) for name, K in sizes.items()}
    torch.compiler.reset()
    compiled = compiling.compiled(linears)
    graph = Graph(lambda: [compiled(layer, x) for layer in model.model.layers])
    return statistics.median(graph.us() for _ in range(REPLAYS))


def measure(model: LlamaForCausalLM, batch: int, length: int, compiling: Compiling) -> dict:
    decoder = Decoder(model, batch, length, compiling)
    start = time.perf_counter()
    difference = decoder.difference()
    # Rounding activations to int8 makes much of small differences; what is simply wrong is off by more than 1.
    assert difference < 0.5, f"the compiled step's logits differ from transformers' by {difference:.3f}"
    compiled = time.perf_counter() - start
    torch.cuda.reset_peak_memory_stats()
    graph = Graph(decoder.step)
    decoder.restart()
    steps = [graph.us() for _ in range(length)]
    return {
        "batch": batch,
        "length": length,
        "tokens_per_second": round(1e6 * batch * length / sum(steps), 1),
        "step_us": round(statistics.median(steps), 1),
        "linears_us": round(linears_us(model, batch, compiling), 1),
        "peak_gb": round(torch.cuda.max_memory_allocated() / 1e9, 2),
        "compile_seconds": round(compiled, 1),
        "difference_from_eager": round(difference, 4),
    }


def with_amdahl(row: dict, fp16: dict) -> dict:
    """A row with what FP16's rest allows, and how much of it is reached."""
    rest = fp16["step_us"] - fp16["linears_us"]
    possible = fp16["step_us"] / (rest + row["linears_us"])
    speedup = row["tokens_per_second"] / fp16["tokens_per_second"]
    return row | {
        "rest_us": round(row["step_us"] - row["linears_us"], 1),
        "speedup": round(speedup, 3),
        "possible": round(possible, 3),
        "share": round(speedup / possible, 3),
    }


def quantized_model(scheme: str, configuration: dict) -> LlamaForCausalLM:
    torch.compiler.reset()  # which holds tensors of the model before
    gc.collect()
    model = random_llama(torch.float16, "cuda", **configuration)
    share_layer_number(model)
    if scheme != "fp16":
        octavo.quantize_model(model, scheme)
    gc.collect()
    torch.cuda.empty_cache()
    return model


def held_bytes(model: LlamaForCausalLM) -> int:
    """Of parameters and buffers."""
    tensors = (*model.parameters(), *model.buffers())
    return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())


def parse_row(text: str) -> tuple[int, int]:
    batch, _, length = text.partition("x")
    return int(batch), int(length)


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--machine", help="record the figures under this name")
    parser.add_argument("--layers", type=int, default=LLAMA_2_7B["num_hidden_layers"])
    parser.add_argument("--rows", type=parse_row, nargs="+", default=ROWS, metavar="BATCHxLENGTH")
    parser.add_argument("--schemes", nargs="*", default=SCHEMES, help="beside fp16")
    parser.add_argument("--attention", default="sdpa", choices=("sdpa", "eager"))
    parser.add_argument("--together", type=int, default=4, help="decoder layers in a graph of torch.compile")
    parser.add_argument("--without-dependent-launch", action="store_true")
    options = parser.parse_args()
    dependent_launch = not options.without_dependent_launch
    plain = Compiling(options.together, {"triton.enable_pdl": dependent_launch})
    octavos = Compiling(options.together, octavo.compile_options(dependent_launch=dependent_launch))
    configuration = LLAMA_2_7B | dict(num_hidden_layers=options.layers, attn_implementation=options.attention)
    rows, fp16 = [], {}
    for scheme in ("fp16", *options.schemes):
        model = quantized_model(scheme, configuration)
        held = round(held_bytes(model) / 1e9, 2)
        for compiling in (plain,) if scheme == "fp16" else (plain, octavos):
            if compiling is octavos:
                octavo.join_weights(model)
            for batch, length in options.rows:
                row = measure(model, batch, length, compiling)
                base = fp16.setdefault((batch, length), row)
                facts = {"scheme": scheme, "plain": compiling is plain, "memory_gb": held}
                rows.append(facts | with_amdahl(row, base))
                print(rows[-1], flush=True)
        del model
        gc.collect()
    if options.machine:
        content = gpu_facts(options.machine) | {
            "transformers": transformers.__version__,
            "attention": options.attention,
            "dependent_launch": dependent_launch,
            "together": options.together,
            "layers": options.layers,
            "rows": rows,
        }
        record(results_folder(options.machine) / "decode_e2e.json", content)


if __name__ == "__main__":
    main()
