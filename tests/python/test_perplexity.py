import math

import pytest
import torch
from tiny_models import SETTINGS, TEXT, VOCABULARY, byte_tokenizer, llama
from torch.nn import functional as F
from transformers import CohereConfig, CohereForCausalLM, Gemma2Config, Gemma2ForCausalLM, GPT2Config, GPT2LMHeadModel

from octavo import _logits
from octavo.perplexity import perplexity, token_windows


def naive(model, tokenizer, text, window):
    """The definition, with every logit at once: one loss a predicted token, one mean over them all."""
    ids = torch.tensor(tokenizer(text)["input_ids"])
    losses = []
    for start in range(0, len(ids), window):
        part = ids[start : start + window]
        if len(part) > 1:
            with torch.no_grad():
                logits = model(part[None]).logits[0].double()
            losses += (-logits[:-1].log_softmax(-1).gather(1, part[1:, None])[:, 0]).tolist()
    return math.exp(sum(losses) / len(losses))


def gpt2():
    return GPT2LMHeadModel(GPT2Config(vocab_size=VOCABULARY, n_embd=32, n_layer=1, n_head=4, initializer_range=0.3))


def gemma2():
    """Caps its logits after the output embeddings."""
    return Gemma2ForCausalLM(Gemma2Config(**SETTINGS, head_dim=8, final_logit_softcapping=2.0))


def cohere():
    """Scales its logits after the output embeddings."""
    return CohereForCausalLM(CohereConfig(**SETTINGS, logit_scale=0.25))


@pytest.mark.parametrize("make", [llama, gpt2, gemma2, cohere])
@pytest.mark.parametrize("window", [64, 100])  # 440 tokens: a last window of 56 and of 40
def test_it_is_what_the_definition_says(make, window):
    torch.manual_seed(1)
    model, tokenizer = make().eval(), byte_tokenizer()
    assert perplexity(model, tokenizer, TEXT, window) == pytest.approx(naive(model, tokenizer, TEXT, window), rel=1e-5)


@pytest.mark.parametrize(("make", "split"), [(llama, True), (gpt2, True), (gemma2, False), (cohere, False)])
def test_states_are_hidden_where_logits_follow_from_them(make, split):
    torch.manual_seed(1)
    model = make().eval()
    cut = _logits.SplitModel(model)
    ids = torch.arange(2, 30)
    with torch.no_grad():
        states = cut.states(ids)
        assert states.shape == (28, 32 if split else VOCABULARY)
        torch.testing.assert_close(cut.head.logits(states), model(ids[None]).logits[0])


def test_a_model_that_knows_nothing_has_the_vocabulary_as_perplexity():
    model = llama()
    model.lm_head.weight.data.zero_()
    assert perplexity(model, byte_tokenizer(), TEXT, 64) == pytest.approx(VOCABULARY, rel=1e-6)


def test_logits_in_chunks_change_nothing(monkeypatch):
    model, tokenizer = llama(), byte_tokenizer()
    whole = perplexity(model, tokenizer, TEXT, 64)
    rows = []
    cross_entropy = F.cross_entropy
    monkeypatch.setattr(F, "cross_entropy", lambda x, *a, **k: rows.append(len(x)) or cross_entropy(x, *a, **k))
    monkeypatch.setattr(_logits, "_AT_ONCE", 10 * VOCABULARY)
    assert perplexity(model, tokenizer, TEXT, 64) == pytest.approx(whole, rel=1e-6)
    assert max(rows) == 10


def test_windows():
    model, tokenizer = llama(max_position_embeddings=96), byte_tokenizer()
    ids = tokenizer(TEXT)["input_ids"]
    windows = token_windows(model, tokenizer, TEXT, 4096)
    assert [len(w) for w in windows] == [96, 96, 96, 96, 56]
    assert torch.cat(windows).tolist() == ids
    assert len(token_windows(model, tokenizer, TEXT, 50, max_windows=3)) == 3
    # One token left over predicts nothing.
    assert [len(w) for w in token_windows(model, tokenizer, "x" * 65, 64)] == [64]


def test_the_model_is_left_as_it_was():
    model = llama(attention_dropout=0.5).train()
    first = perplexity(model, byte_tokenizer(), TEXT, 64)
    assert model.training
    assert not model.lm_head._forward_pre_hooks
    assert perplexity(model, byte_tokenizer(), TEXT, 64) == first


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("", {}, "0 tokens"),
        ("x", {}, "1 tokens"),
        (TEXT, {"window": 1}, "at least 2"),
        (TEXT, {"max_windows": 0}, "at least 1"),
    ],
)
def test_nothing_to_predict(text, options, message):
    with pytest.raises(ValueError, match=message):
        perplexity(llama(), byte_tokenizer(), text, **options)


def test_a_broken_model_gives_a_number():
    model = llama()
    model.lm_head.weight.data.fill_(float("nan"))
    assert math.isnan(perplexity(model, byte_tokenizer(), TEXT, 64))
