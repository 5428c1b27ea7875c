"""A causal language model's logits, some tokens at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# fp32 logits held at once: 2^24 values are 64 MiB, 341 tokens of a vocabulary of 49152.
_AT_ONCE = 1 << 24


@contextlib.contextmanager
def evaluating(model: torch.nn.Module) -> Iterator[None]:
    """Without gradients and dropout; the model's training mode is restored."""
    training = model.training
    model.eval()
    try:
        # Not inference_mode: layers that pack their weights at the first forward would keep inference tensors.
        with torch.no_grad():
            yield
    finally:
        model.train(training)


class Head:
    """The last step from a model's states to its logits: its output embeddings, or nothing."""

    def __init__(self, module: torch.nn.Module | None, vocabulary: int):
        self._module = module
        self._rows = max(1, _AT_ONCE // vocabulary)

    def logits(self, states: torch.Tensor) -> torch.Tensor:
        """fp32 [rows, vocabulary] of states [rows, D], on the device of the output embeddings."""
        if self._module is None:
            return states.float()
        return self._module(states.to(next(self._module.parameters()).device)).float()

    def next_token_logits(self, states: torch.Tensor) -> Iterator[tuple[slice, torch.Tensor]]:
        """A text's predictions in chunks: which tokens of it are predicted, and their logits. states [T, D]."""
        predicted = states.shape[0] - 1
        for start in range(0, predicted, self._rows):
            stop = min(start + self._rows, predicted)
            yield slice(start + 1, stop + 1), self.logits(states[start:stop])


class SplitModel:
    """A causal LM cut before its output embeddings: `states` of a whole text, then `head` for logits of some rows.

    Final hidden states are some hundred times smaller than logits, so they can be kept for a whole text, and with the
    head alone the rest of the model is free to go. The model itself computes the states; they are caught on their way
    into the output embeddings. Where logits aren't simply what the output embeddings return (some models scale or cap
    them), the states are the logits themselves.
    """

    def __init__(self, model: PreTrainedModel):
        self._model = model
        self._embeddings = model.get_output_embeddings()
        self._vocabulary = model.config.get_text_config().vocab_size
        self._head: Head | None = None

    @property
    def head(self) -> Head:
        """Fixed by the first call of `states`."""
        assert self._head is not None
        return self._head

    def states(self, ids: torch.Tensor) -> torch.Tensor:
        """[T, D] in the model's dtype, of one text's tokens `ids`, int64 [T]."""
        if self._embeddings is None:
            self._head = self._head or Head(None, self._vocabulary)
            return self._logits(ids)
        caught: list[torch.Tensor] = []

        def catch(_module, args):
            caught.append(args[0])
            return (args[0][:, -1:], *args[1:])

        with self._embeddings.register_forward_pre_hook(catch):
            last = self._logits(ids)[-1:]
        if self._head is None and not self._is_last(caught, ids, last):
            self._embeddings = None
            return self.states(ids)
        self._head = self._head or Head(self._embeddings, self._vocabulary)
        return caught[0][0]

    def _is_last(self, caught: list[torch.Tensor], ids: torch.Tensor, last: torch.Tensor) -> bool:
        if len(caught) != 1 or caught[0].shape[:-1] != (1, ids.numel()):
            return False
        return torch.allclose(self._embeddings(caught[0][:, -1:])[0], last)

    def _logits(self, ids: torch.Tensor) -> torch.Tensor:
        return self._model(input_ids=ids[None].to(self._model.device), use_cache=False).logits[0]
