"""The demo model's export: every trap of its GGUF file, checked on what was written."""

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from octavo.evaluate import builtin_text
from octavo.perplexity import perplexity


@pytest.fixture(scope="module")
def tokenizer(fp16):
    return AutoTokenizer.from_pretrained(fp16)


def test_the_config_is_that_of_a_plain_fp16_model(fp16):
    entries = json.loads((fp16 / "config.json").read_text())
    assert "quantization_config" not in entries
    config = AutoConfig.from_pretrained(fp16)
    assert config.dtype == torch.float16
    assert (config.hidden_size, config.intermediate_size, config.num_hidden_layers) == (576, 1536, 30)
    assert config.tie_word_embeddings
    assert config.eos_token_id == GenerationConfig.from_pretrained(fp16).eos_token_id == 2


def test_tied_embeddings_are_written_once(fp16):
    tensors = load_file(fp16 / "model.safetensors")
    assert len(tensors) == 272
    assert "model.embed_tokens.weight" in tensors
    assert "lm_head.weight" not in tensors
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float16}
    assert (fp16 / "model.safetensors").stat().st_size == pytest.approx(269e6, rel=0.01)


def test_linears_lie_on_a_4_bit_grid(fp16):
    """What the notes beside INT4 figures say: at most 16 levels in every block of 32 along K."""
    weight = load_file(fp16 / "model.safetensors")["model.layers.7.mlp.down_proj.weight"]
    blocks = weight.reshape(-1, 32).sort(-1).values
    assert ((blocks.diff(dim=-1) != 0).sum(-1) + 1).max() <= 16


def test_texts_survive_the_tokenizer(tokenizer):
    text = builtin_text()[:50_000] + "  1234567890 naïve 漢字 \u00a0🙂 don't .\n\n\tend "
    assert tokenizer.decode(tokenizer(text, verbose=False)["input_ids"]) == text


def test_every_digit_is_a_token(tokenizer):
    assert tokenizer.tokenize("a 2048 b") == ["a", "Ġ", "2", "0", "4", "8", "Ġb"]


def test_a_turn_ends_with_the_end_of_a_turn(tokenizer):
    assert (tokenizer.eos_token, tokenizer.eos_token_id, tokenizer.pad_token_id) == ("<|im_end|>", 2, 2)
    assert tokenizer("Hi<|im_end|>")["input_ids"][-1] == 2
    chat = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True
    )
    assert chat.startswith("<|im_start|>system\n")
    assert chat.endswith("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")


def test_it_speaks_english(fp16, tokenizer):
    """A wrong order of the rows of q and k, or wrong tokens, would give a perplexity of hundreds."""
    model = AutoModelForCausalLM.from_pretrained(fp16, dtype=torch.float32)
    assert perplexity(model, tokenizer, builtin_text(), 256, max_windows=2) < 25


def test_a_finished_export_is_kept_and_other_directories_are_refused(smollm2, fp16, tmp_path):
    before = (fp16 / "model.safetensors").stat().st_mtime_ns
    assert smollm2.export(fp16) == fp16
    assert (fp16 / "model.safetensors").stat().st_mtime_ns == before
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="holds no exported model"):
        smollm2.export(tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"
