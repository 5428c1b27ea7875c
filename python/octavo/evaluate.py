"""What quantization costs and gains: perplexity, KL divergence, size and speed of models on disk."""

from __future__ import annotations

import gc
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from tqdm import tqdm

from ._generate import decode_speed, encode_prompt, generate_greedily
from ._logits import Head, SplitModel
from ._models import is_quantized, open_model, scheme_name, weight_bytes
from .perplexity import DEFAULT_WINDOW, Mean, exp, hidden, token_losses, token_windows

DEFAULT_PROMPT = "What is a neural network? Answer in two sentences."
SAMPLE_TOKENS = 48


@dataclass
class Row:
    """One model's figures.

    scheme: e.g. "w8a16"; bytes: the weight files on disk; perplexity: see octavo.perplexity; kl_divergence: mean over
    the predicted tokens of KL(reference ‖ model) in nats, None without a reference; tokens_per_second: greedy decoding
    at batch 1, see octavo._generate.decode_speed; sample: greedy text after a prompt; path: as given.
    """

    scheme: str
    bytes: int
    perplexity: float
    kl_divergence: float | None
    tokens_per_second: float
    sample: str
    path: str

    def as_json(self) -> dict[str, Any]:
        """JSON knows no infinity or NaN, which a broken model's figures may be: they become None."""
        return {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in asdict(self).items()
        }


def builtin_text() -> str:
    """A text that every Python has: its language reference (465 kB in Python 3.11; other versions differ)."""
    from pydoc_data.topics import topics

    return "\n\n".join(topics[name].strip() for name in sorted(topics))


def kl_divergence(reference: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """KL(reference ‖ model) of each row's next-token distribution, in nats. fp32 logits [T, vocabulary] → fp32 [T]."""
    expected, found = reference.log_softmax(-1), logits.log_softmax(-1)
    return (expected.exp() * (expected - found)).sum(-1)


@torch.no_grad()
def evaluate(
    paths: Sequence[str | os.PathLike],
    *,
    text: str | None = None,
    reference: str | os.PathLike | None = None,
    window: int = DEFAULT_WINDOW,
    max_windows: int | None = None,
    dtype: torch.dtype | None = None,
    device: str | torch.device = "cpu",
    prompt: str = DEFAULT_PROMPT,
    new_tokens: int = 32,
    progress: bool | None = None,
) -> list[Row]:
    """Evaluates model directories one after the other, never two in memory at once; a Row each, in the order given.

    The text (default: `builtin_text()`) is cut into windows as in octavo.perplexity. `reference` is the model that the
    KL divergence is taken against; by default the first path, where that is not quantized. Of the reference only the
    final hidden states and the output embeddings are kept; its logits are computed from them again.
    `prompt` and `new_tokens` are those of decode_speed; `dtype` and `device` as in open_model.
    Raises FileNotFoundError for what is no model directory, ValueError where tokenizers differ.
    """
    paths = [os.fspath(path) for path in paths]
    if not paths:
        return []
    if reference is None and not is_quantized(paths[0]):
        reference = paths[0]
    apart = reference is not None and not _same_file(reference, paths[0])
    visits = [os.fspath(reference), *paths] if apart else paths
    for path in visits:
        weight_bytes(path)  # a wrong path should fail before the first model has run for minutes

    text = builtin_text() if text is None else text
    rows: list[Row] = []
    kept: _Reference | None = None
    for visit, path in enumerate(visits):
        model, tokenizer = open_model(path, dtype=dtype, device=device)
        windows = token_windows(model, tokenizer, text, window, max_windows)
        if kept is not None:
            kept.check(path, windows)
        split = SplitModel(model)
        bar = tqdm(windows, scheme_name(path), unit="window", disable=hidden(progress))
        states: Iterable[torch.Tensor] = (split.states(ids) for ids in bar)
        if visit == 0 and reference is not None:
            states = list(states)
            kept = _Reference(path, windows, states, split.head)
        if visit > 0 or not apart:
            nats, divergence = _measure(split, windows, states, kept)
            inputs = encode_prompt(tokenizer, prompt)
            sample = generate_greedily(model, inputs, SAMPLE_TOKENS)
            rows.append(
                Row(
                    scheme=scheme_name(path),
                    bytes=weight_bytes(path),
                    perplexity=exp(nats),
                    kl_divergence=divergence,
                    tokens_per_second=decode_speed(model, inputs, new_tokens),
                    sample=tokenizer.decode(sample, skip_special_tokens=True).strip(),
                    path=path,
                )
            )
        del model, split, states
        gc.collect()  # modules hold reference cycles; the next model should find the memory free
    return rows


@dataclass
class _Reference:
    """What is kept of the reference model: the states of every window, and the head that makes logits of them."""

    path: str
    windows: list[torch.Tensor]
    states: list[torch.Tensor]
    head: Head

    def check(self, path: str, windows: list[torch.Tensor]) -> None:
        if len(windows) != len(self.windows) or not all(map(torch.equal, windows, self.windows)):
            raise ValueError(
                f"{path} does not cut the text into the tokens of the reference {self.path}; KL divergence needs the "
                "same tokenizer, and windows that fit both models"
            )


def _measure(
    split: SplitModel, windows: list[torch.Tensor], states: Iterable[torch.Tensor], kept: _Reference | None
) -> tuple[float, float | None]:
    """Mean negative log-likelihood and mean KL(reference ‖ model), in nats."""
    loss, divergence = Mean(), Mean()
    for i, (ids, text_states) in enumerate(zip(windows, states, strict=True)):
        for predicted, logits in split.head.next_token_logits(text_states):
            loss.add(token_losses(logits, ids[predicted]))
            if kept is not None:
                expected = kept.head.logits(kept.states[i][predicted.start - 1 : predicted.stop - 1])
                divergence.add(kl_divergence(expected, logits))
    return loss.value, None if kept is None else divergence.value


def _same_file(a: str | os.PathLike, b: str | os.PathLike) -> bool:
    return os.path.realpath(a) == os.path.realpath(b)
