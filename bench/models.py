"""Language models with random weights: decoding does not take its time from their values."""

import torch
from transformers import LlamaConfig, LlamaForCausalLM


def random_llama(dtype: torch.dtype, device: str = "cpu", **configuration) -> LlamaForCausalLM:
    """A Llama of this configuration whose parameters are drawn on the device."""
    torch.manual_seed(0)
    with torch.device("meta"):
        model = LlamaForCausalLM(LlamaConfig(**configuration))
    model = model.to(dtype).to_empty(device=device).eval()
    model.model.rotary_emb = type(model.model.rotary_emb)(config=model.config).to(device)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.02)
    model.tie_weights()
    return model
