"""Perplexity of a causal language model on a text."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F
from tqdm import tqdm

from ._logits import SplitModel, evaluating

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

DEFAULT_WINDOW = 2048


def perplexity(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    text: str,
    window: int = DEFAULT_WINDOW,
    *,
    max_windows: int | None = None,
    progress: bool | None = None,
) -> float:
    """exp of the mean negative log-likelihood, in nats, of the text's tokens.

    The text is tokenized as a whole, as the tokenizer does by default, and cut into disjoint windows of `window`
    tokens (at most what the model's positions allow; the last may be shorter). In each window every token but the
    first is predicted from those before it in the same window, and the mean is taken over all predicted tokens of
    all windows. So longer windows give lower figures: compare only figures of equal windows.

    Works with any causal LM of transformers, on the device and in the dtype it has; log-softmax is fp32, the sum fp64.
    Logits are computed for some hundred tokens at a time, so memory stays small for large vocabularies.
    `max_windows` takes only the first so many windows; `progress` shows a bar (default: on a terminal).
    Raises ValueError when the text has fewer than two tokens or `window` is less than 2.
    """
    windows = token_windows(model, tokenizer, text, window, max_windows)
    mean = Mean()
    with evaluating(model), tqdm(windows, "perplexity", unit="window", disable=hidden(progress)) as bar:
        split = SplitModel(model)
        for ids in bar:
            states = split.states(ids)
            for predicted, logits in split.head.next_token_logits(states):
                mean.add(token_losses(logits, ids[predicted]))
            bar.set_postfix_str(f"{exp(mean.value):.3f}")
    return exp(mean.value)


def token_windows(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    text: str,
    window: int = DEFAULT_WINDOW,
    max_windows: int | None = None,
) -> list[torch.Tensor]:
    """The text's tokens in disjoint windows: int64 [2 … window] each, bounded by the model's positions."""
    if window < 2:
        raise ValueError(f"a window of {window} tokens predicts nothing; it must have at least 2")
    if max_windows is not None and max_windows < 1:
        raise ValueError(f"cannot evaluate {max_windows} windows; at least 1 is needed")
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if positions:
        window = min(window, positions)
    ids = torch.tensor(tokenizer(text, verbose=False)["input_ids"], dtype=torch.int64)
    windows = [part for part in ids.split(window) if part.numel() >= 2][:max_windows]
    if not windows:
        raise ValueError(f"the text has {ids.numel()} tokens; at least 2 are needed")
    return windows


def token_losses(logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """-log p(token) of each row, in nats. fp32 logits [T, vocabulary], ids [T] → fp32 [T]."""
    return F.cross_entropy(logits, ids.to(logits.device), reduction="none")


class Mean:
    """A running mean, summed in fp64."""

    def __init__(self):
        self._sum, self._count = 0.0, 0

    def add(self, values: torch.Tensor) -> None:
        self._sum += values.sum(dtype=torch.float64).item()
        self._count += values.numel()

    @property
    def value(self) -> float:
        return self._sum / self._count


def exp(nats: float) -> float:
    """math.exp that overflows to infinity: a broken model's perplexity is large, not an error."""
    return math.exp(nats) if nats < 700 else (math.nan if math.isnan(nats) else math.inf)


def hidden(progress: bool | None) -> bool | None:
    """tqdm's `disable`: None hides the bar unless standard error is a terminal."""
    return None if progress is None else not progress
