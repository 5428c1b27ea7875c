"""Opens compressed-tensors checkpoints as transformers models whose Linears compute with Octavo's operators."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from . import compressed_tensors
from ._models import read_config
from .modules import LLMInt8Linear, linear_class
from .scheme import Scheme, parse_scheme

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def load(
    path: str | os.PathLike, dtype: torch.dtype | str | None = None, device: torch.device | str | None = None
) -> PreTrainedModel:
    """The model in a directory that `octavo quantize` wrote, ready to generate.

    The model is built without memory and filled tensor by tensor: the peak is the quantized size and one layer.
    Directories that are not quantized load as transformers loads them. To write a quantized model to disk use `octavo
    quantize`: save_pretrained of the result writes names that no other reader knows.

    Args:
        path: a directory with config.json and safetensors files.
        dtype: of activations and of what is not quantized; None or "auto": as config.json says.
        device: where the model goes; None: the CPU.

    Raises:
        FileNotFoundError: no such directory, or a file of it is missing.
        ValueError: a format other than compressed-tensors' integers; tensors missing, unexpected or misshapen; a file
            that is cut short.
    """
    from accelerate import init_empty_weights
    from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

    path = Path(path)
    device = torch.device(device or "cpu")
    quantization = read_config(path).get("quantization_config")
    if not quantization:
        return _load_unquantized(path, dtype or "auto").to(device).eval()
    layout = compressed_tensors.Layout(quantization)
    files = _tensor_files(path)
    names = {name for tensors in files.values() for name in tensors}

    config = AutoConfig.from_pretrained(path)
    del config.quantization_config
    if dtype in (None, "auto"):
        dtype = config.dtype or torch.float32
    # Parameters alone are left out: buffers such as rotary frequencies are in no file and have to be computed.
    with init_empty_weights(include_buffers=False):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    facts = _read_json(path / "octavo.json") if (path / "octavo.json").is_file() else {}
    for name in sorted(compressed_tensors.quantized_modules(names)):
        _put_quantized(model, name, _scheme_of(name, layout, facts), facts)

    _fill(model, files, device)
    model.tie_weights()
    missing = [name for name, tensor in _state(model).items() if tensor.is_meta]
    if missing:
        raise ValueError(f"{path}: {_list(missing)} missing from the safetensors files")
    if (path / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(path)
    return model.to(device).eval()


def _load_unquantized(path: Path, dtype: torch.dtype | str) -> PreTrainedModel:
    from transformers import AutoModelForCausalLM

    model, report = AutoModelForCausalLM.from_pretrained(path, dtype=dtype, output_loading_info=True)
    if missing := report["missing_keys"]:  # transformers would give them random values
        raise ValueError(f"{path}: {_list(missing)} missing from the checkpoint")
    return model


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file}: not valid JSON: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{file}: expected a JSON object")
    return content


def _tensor_files(path: Path) -> dict[Path, list[str]]:
    """The safetensors files of a directory and the tensors in each."""
    from safetensors import SafetensorError, safe_open

    index = path / "model.safetensors.index.json"
    shards = ["model.safetensors"]
    if index.is_file():
        shards = sorted(set(_read_json(index).get("weight_map", {}).values()))
    files = {}
    for shard in shards:
        if Path(shard).name != shard:
            raise ValueError(f"{index}: shard {shard!r} is not a plain file name")
        if not (path / shard).is_file():
            raise FileNotFoundError(f"{path / shard}: no such file")
        try:
            with safe_open(path / shard, "pt") as file:
                files[path / shard] = list(file.keys())
        except SafetensorError as error:
            raise ValueError(f"{path / shard}: {error}") from None
    return files


def _scheme_of(name: str, layout: compressed_tensors.Layout, facts: dict[str, Any]) -> Scheme:
    """What config.json says of a module; but LLM.int8() is stored as w8a16, and octavo.json tells it."""
    own = facts.get("tensors", {}).get(f"{name}.weight", {}).get("scheme")
    return parse_scheme(own if own == LLMInt8Linear.default_scheme else layout.scheme(name))


def _put_quantized(model: nn.Module, name: str, scheme: Scheme, facts: dict[str, Any]) -> None:
    """Replaces a Linear by a quantized one on the meta device."""
    try:
        linear = model.get_submodule(name)
    except AttributeError:
        raise ValueError(
            f"{name}: the checkpoint has a quantized weight for it, {type(model).__name__} no such module"
        ) from None
    if not isinstance(linear, nn.Linear):
        raise ValueError(f"{name}: the checkpoint has a quantized weight for it, but it is a {type(linear).__name__}")
    options = {}
    if scheme.text == LLMInt8Linear.default_scheme and "llm_int8_threshold" in facts:
        options["threshold"] = facts["llm_int8_threshold"]
    shape = (linear.in_features, linear.out_features, linear.bias is not None)
    module = linear_class(scheme)(*shape, scheme, device="meta", dtype=linear.weight.dtype, **options)
    model.set_submodule(name, module)


def _state(model: nn.Module) -> dict[str, torch.Tensor]:
    """Every parameter and buffer by each of its names."""
    return {**dict(model.named_parameters(remove_duplicate=False)), **dict(model.named_buffers(remove_duplicate=False))}


def _fill(model: nn.Module, files: dict[Path, list[str]], device: torch.device) -> None:
    """Reads every tensor of the files into the model."""
    from safetensors import safe_open

    state = _state(model)
    quantized = compressed_tensors.quantized_modules({name for tensors in files.values() for name in tensors})
    parts: dict[str, dict[str, torch.Tensor]] = defaultdict(dict)
    unexpected = []
    for path, names in files.items():
        with safe_open(path, "pt") as file:
            for name in names:
                # Views of the mapped file, which may shrink or vanish while the model is in use: what stays is copied.
                tensor = file.get_tensor(name)
                module, _, leaf = name.rpartition(".")
                if module in quantized and leaf != "bias":
                    parts[module][leaf] = tensor.to(device, copy=True)
                    if compressed_tensors.complete(parts[module], model.get_submodule(module)):
                        compressed_tensors.fill(model.get_submodule(module), module, parts.pop(module))
                elif name in state:
                    _assign(model, name, tensor, state[name], device)
                else:
                    unexpected.append(name)
    unexpected += [f"{module}.{leaf}" for module, tensors in parts.items() for leaf in tensors]
    if unexpected:
        raise ValueError(f"{path.parent}: {type(model).__name__} has no place for {_list(unexpected)}")


def _assign(model: nn.Module, name: str, tensor: torch.Tensor, expected: torch.Tensor, device: torch.device) -> None:
    """Makes a copy of a tensor of a file the parameter or buffer of that name."""
    if tensor.shape != expected.shape:
        raise ValueError(f"{name}: shape {list(tensor.shape)}, but the model expects {list(expected.shape)}")
    module, _, leaf = name.rpartition(".")
    tensor = tensor.to(device, expected.dtype, copy=True)
    if isinstance(expected, nn.Parameter):
        tensor = nn.Parameter(tensor, requires_grad=expected.requires_grad)
    setattr(model.get_submodule(module), leaf, tensor)


def _list(names: Iterable[str]) -> str:
    names = sorted(names)
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
