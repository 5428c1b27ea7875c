"""Greedy text from a causal language model, and how fast it comes."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def encode_prompt(tokenizer: PreTrainedTokenizerBase, prompt: str, *, chat: bool | None = None) -> dict[str, Any]:
    """Model inputs of batch 1. With `chat` the prompt is a user's turn in the tokenizer's chat template (default:
    where it has one), else plain text that the model continues. ValueError where nothing is left to continue."""
    if chat is None:
        chat = tokenizer.chat_template is not None
    if not chat:
        inputs = tokenizer(prompt, return_tensors="pt")
        if inputs["input_ids"].numel() == 0:
            raise ValueError("the prompt is empty; the model needs at least one token to continue")
        return inputs
    if tokenizer.chat_template is None:
        raise ValueError("the tokenizer has no chat template; give the prompt as plain text (--raw)")
    turn = [{"role": "user", "content": prompt}]
    return tokenizer.apply_chat_template(turn, add_generation_prompt=True, return_tensors="pt", return_dict=True)


def generate_greedily(
    model: PreTrainedModel,
    inputs: dict[str, Any],
    max_new_tokens: int,
    *,
    min_new_tokens: int = 0,
    streamer: Any = None,
) -> list[int]:
    """The new tokens, each the most likely one, until the model ends its text or `max_new_tokens` are there."""
    inputs = {name: tensor.to(model.device) for name, tensor in inputs.items() if name != "token_type_ids"}
    output = model.generate(
        **inputs,
        max_new_tokens=max_new_tokens,
        min_new_tokens=min_new_tokens,
        do_sample=False,
        num_beams=1,
        # Sampling settings that a checkpoint may bring would only cause warnings here.
        temperature=None,
        top_k=None,
        top_p=None,
        streamer=streamer,
    )
    return output[0, inputs["input_ids"].shape[1] :].tolist()


def decode_speed(model: PreTrainedModel, inputs: dict[str, Any], new_tokens: int = 32, repeats: int = 3) -> float:
    """Tokens per second of greedy decoding with a KV cache at batch 1: the median of `repeats` runs.

    A run generates `new_tokens` (at least 2) tokens after a short prompt and is timed from the first to the last of
    them, so reading the prompt is left out; an untimed run comes first.
    """
    generate_greedily(model, inputs, 2, min_new_tokens=2)
    return statistics.median(_decode_once(model, inputs, new_tokens) for _ in range(repeats))


def _decode_once(model: PreTrainedModel, inputs: dict[str, Any], new_tokens: int) -> float:
    clock = _TokenClock()
    generate_greedily(model, inputs, new_tokens, min_new_tokens=new_tokens, streamer=clock)
    first, last = clock.times[1], clock.times[-1]  # times[0] is the prompt's
    return (len(clock.times) - 2) / (last - first)


class _TokenClock:
    """A streamer for generate(), which hands it the prompt and then every token, already on the host."""

    def __init__(self):
        self.times: list[float] = []

    def put(self, _tokens) -> None:
        self.times.append(time.perf_counter())

    def end(self) -> None:
        pass
