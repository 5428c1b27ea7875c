"""Model directories on disk: what they hold and how they are opened for evaluation and text generation."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_SHORT_DTYPES = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}


def read_config(path: str | os.PathLike) -> dict[str, Any]:
    """config.json of a Hugging Face model directory. FileNotFoundError or ValueError where it isn't one."""
    file = Path(path) / "config.json"
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(f"{path}: no config.json; expected a Hugging Face model directory") from None
    except ValueError as error:
        raise ValueError(f"{file}: not valid JSON: {error}") from None
    if not isinstance(config, dict):
        raise ValueError(f"{file}: expected a JSON object")
    return config


def is_quantized(path: str | os.PathLike) -> bool:
    return bool(read_config(path).get("quantization_config"))


def scheme_name(path: str | os.PathLike) -> str:
    """The scheme that octavo.json states; else the quantization method or the dtype of the weights."""
    config = read_config(path)
    facts = Path(path) / "octavo.json"
    if facts.is_file():
        scheme = json.loads(facts.read_text(encoding="utf-8")).get("scheme")
        if isinstance(scheme, str):
            return scheme
    if quantization := config.get("quantization_config"):
        return str(quantization.get("quant_method", "quantized"))
    dtype = str(config.get("dtype") or config.get("torch_dtype") or "float32")
    return _SHORT_DTYPES.get(dtype, dtype)


def weight_bytes(path: str | os.PathLike) -> int:
    """Bytes of the weight files: every *.safetensors, or *.bin where there are none."""
    for pattern in ("*.safetensors", "*.bin"):
        if sizes := [file.stat().st_size for file in Path(path).glob(pattern)]:
            return sum(sizes)
    raise FileNotFoundError(f"{path}: no weights; expected *.safetensors files")


def open_model(
    path: str | os.PathLike, *, dtype: torch.dtype | None = None, device: str | torch.device = "cpu"
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model and its tokenizer: compressed-tensors checkpoints on Octavo's kernels, others as transformers has them.

    `dtype` is that of activations and unquantized weights; by default fp32 on CPUs, where it is what runs fastest
    everywhere, and the checkpoint's own elsewhere.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    quantization = read_config(path).get("quantization_config") or {}
    device = torch.device(device)
    if dtype is None:
        dtype = torch.float32 if device.type == "cpu" else "auto"
    if quantization.get("quant_method") == "compressed-tensors":
        import octavo

        model = octavo.load(path, dtype=dtype, device=device)
    else:
        model = AutoModelForCausalLM.from_pretrained(path, dtype=dtype).to(device)
    return model.eval(), AutoTokenizer.from_pretrained(path)
