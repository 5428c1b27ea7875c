"""Random language models of some kilobytes, with a tokenizer of single bytes, for tests that need no real model."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

TEXT = "The quick brown fox jumps over the lazy dog, 42 times. " * 8  # 440 tokens
VOCABULARY = 258


def byte_tokenizer(order: int = 1, chat: bool = False) -> PreTrainedTokenizerFast:
    """One token a byte; `order` -1 numbers the bytes the other way round."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())[::order]
    vocabulary = {"<end>": 0, "<start>": 1} | {character: i + 2 for i, character in enumerate(alphabet)}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<start>", eos_token="<end>", pad_token="<end>"
    )
    if chat:
        tokenizer.chat_template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"
    return tokenizer


# What the configurations of Llama's relatives have in common.
SETTINGS = dict(
    vocab_size=VOCABULARY,
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=128,
    initializer_range=0.3,  # the default makes every next token nearly equally likely
    bos_token_id=1,
    eos_token_id=0,
    pad_token_id=0,
)


def llama(seed: int = 0, **config) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    return LlamaForCausalLM(LlamaConfig(**SETTINGS | config)).eval()


def save(path: Path, model, tokenizer) -> Path:
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path
