"""Replaces the Linear layers of a model by quantized ones, in place."""

import copy
import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import nn

from .modules import QuantizedLinear, linear_class
from .scheme import parse_scheme

logger = logging.getLogger("octavo")

Patterns = str | Iterable[str]

_METHODS = {"weight_only": "w8a16", "weight_activation": "w8a8", "llm_int8": "llm.int8"}


@dataclass
class Coverage:
    """What quantize_model did. Weights are counted in elements, a shared one once."""

    scheme: str
    quantized: list[str] = field(default_factory=list)  # names of layers
    left: dict[str, str] = field(default_factory=dict)  # name of a layer → why it stays as it is
    quantized_weights: int = 0
    linear_weights: int = 0  # of all Linears
    expert_weights: int = 0  # of 3-D parameters, where models keep fused experts

    @property
    def share(self) -> float:
        """Quantized weights among those of Linears and experts, 0 … 1."""
        total = self.linear_weights + self.expert_weights
        return self.quantized_weights / total if total else 0.0

    def __str__(self) -> str:
        layers = len(self.quantized) + len(self.left)
        text = f"{len(self.quantized)} of {layers} Linears, {100 * self.share:.1f} % of weights"
        if self.left:
            names = [f"{name} ({why})" for name, why in self.left.items()]
            more = f" and {len(names) - 5} more" if len(names) > 5 else ""
            text += f"; left: {', '.join(names[:5])}{more}"
        return text


@torch.no_grad()
def quantize_model(
    model: nn.Module, scheme: str = "w8a16", ignore: Patterns = (), only: Patterns | None = None, **options
) -> Coverage:
    """Quantizes the Linear layers (and transformers' Conv1D) of a model in place, one weight at a time.

    Embeddings, norms and the output embedding (lm_head) stay as they are; so does a Linear whose weight is shared with
    anything but other Linears. Linears that share one weight share one quantized weight. Should a layer fail, those
    before it stay quantized.

    Args:
        model: its Linears float32, float16 or bfloat16, on any device.
        scheme: "w8a16", "w4a16-g64-asym", "w8a8", "w4a8-g128", "llm.int8" …
        ignore: regular expression or expressions, each found in the name of some Linear; these stay as they are.
        only: the same; just these are quantized. One that is found in lm_head quantizes it too, where it is not tied.
        options: clip, percentile, and arguments of the scheme's module, as QuantizedLinear.from_linear takes them.

    Returns:
        The coverage, which is also logged: "112 of 113 Linears, 98.7 % of weights; left: lm_head (not selected)".

    Raises:
        ValueError: an unknown scheme, one that needs calibration, an expression that is found in no name, an offloaded
            weight, or a model that is itself a Linear.
        RuntimeError: a weight with NaN or Inf; the message names the layer.
    """
    linear_class(parse_scheme(scheme))
    if is_linear(model):
        raise ValueError(
            "the model is itself a Linear, which cannot be replaced in place; use QuantizedLinear.from_linear"
        )
    coverage = Coverage(scheme, expert_weights=_expert_weights(model))
    selection = _Selection(model, ignore, only)
    for names in _places_by_weight(model):
        weights = model.get_submodule(names[0]).weight.numel()
        coverage.linear_weights += weights
        reasons = {name: selection.reason_to_leave(name) for name in names}
        if any(reasons.values()):
            # Quantizing some of the places would make a second copy of what is now one.
            coverage.left.update({name: why or "shares its weight with such a layer" for name, why in reasons.items()})
            continue
        _replace(model, names, scheme, options)
        coverage.quantized += names
        coverage.quantized_weights += weights
    logger.info("%s: %s", scheme, coverage)
    if coverage.expert_weights:
        total = coverage.linear_weights + coverage.expert_weights
        logger.warning(
            "%.1f %% of the weights are 3-D parameters (fused experts), not Linears, and stay unquantized",
            100 * coverage.expert_weights / total,
        )
    return coverage


class INT8Quantizer:
    """quantize_model for the three INT8 methods.

    Args:
        model: converted in place by quantize().
        method: "weight_only" (w8a16), "weight_activation" (w8a8) or "llm_int8" (llm.int8).
        options: as quantize_model takes them.
    """

    def __init__(self, model: nn.Module, method: str = "weight_only", **options):
        if method not in _METHODS:
            raise ValueError(f"method is one of {', '.join(_METHODS)}, not {method!r}")
        self.model = model
        self.method = method
        self.options = options
        self.coverage: Coverage | None = None

    def quantize(self) -> nn.Module:
        """Quantizes the model in place and returns it; `coverage` then says what was done."""
        self.coverage = quantize_model(self.model, _METHODS[self.method], **self.options)
        return self.model


def is_conv1d(module: nn.Module) -> bool:
    """Whether this is transformers' Conv1D (GPT-2): a Linear whose weight is stored as [K, N]."""
    return type(module).__name__ == "Conv1D" and type(module).__module__ == "transformers.pytorch_utils"


def is_linear(module: nn.Module) -> bool:
    """Whether a module is a Linear, of any class that torch or transformers derive or vary."""
    return isinstance(module, nn.Linear) or is_conv1d(module)


class _Selection:
    """Which of a model's Linears stay as they are, and why."""

    def __init__(self, model: nn.Module, ignore: Patterns, only: Patterns | None):
        self._model = model
        self._ignore = _compile(ignore)
        self._only = None if only is None else _compile(only)
        names = [name for name, module in model.named_modules(remove_duplicate=False) if is_linear(module)]
        for pattern in [*self._ignore, *(self._only or [])]:
            if not any(pattern.search(name) for name in names):
                raise ValueError(f"{pattern.pattern!r} is found in the name of no Linear")
        others = (module for module in model.modules() if not is_linear(module))
        self._elsewhere = {id(parameter) for module in others for parameter in module.parameters(recurse=False)}
        self._head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None

    def reason_to_leave(self, name: str) -> str | None:
        linear = self._model.get_submodule(name)
        if id(linear.weight) in self._elsewhere:
            return "tied"
        if any(pattern.search(name) for pattern in self._ignore):
            return "ignored"
        if self._only is not None:
            if not any(pattern.search(name) for pattern in self._only):
                return "not selected"
        elif linear is self._head or name.rpartition(".")[2] == "lm_head":
            return "output embedding"
        if type(linear) is not nn.Linear and not is_conv1d(linear):
            return type(linear).__name__  # its forward may use the weight in its own way
        if linear.weight.dtype not in (torch.float32, torch.float16, torch.bfloat16):
            return str(linear.weight.dtype).removeprefix("torch.")
        return None


def _compile(patterns: Patterns) -> list[re.Pattern[str]]:
    return [re.compile(pattern) for pattern in ([patterns] if isinstance(patterns, str) else patterns)]


def _places_by_weight(model: nn.Module) -> list[list[str]]:
    """Names of all Linears, those of one weight together. Just names, so that weights can be freed one by one."""
    places: dict[int, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        if is_linear(module):
            places.setdefault(id(module.weight), []).append(name)
    return list(places.values())


def _expert_weights(model: nn.Module) -> int:
    return sum(
        parameter.numel()
        for module in model.modules()
        if not isinstance(module, nn.modules.conv._ConvNd)
        for parameter in module.parameters(recurse=False)
        if parameter.ndim == 3 and parameter.shape[0] > 1
    )


def _replace(model: nn.Module, names: list[str], scheme: str, options: dict) -> None:
    """Puts one quantized weight into all places that share one weight. Places whose bias is the same too get the very
    same module, so that the sharing outlives a move to another device."""
    made: dict[int, QuantizedLinear] = {}
    for name in names:
        linear = model.get_submodule(name)
        if id(linear.bias) in made:
            module = made[id(linear.bias)]
        elif made:
            first = next(iter(made.values()))
            module = copy.deepcopy(first, {id(buffer): buffer for buffer in first.buffers()})  # shares the buffers
            module.bias = linear.bias
        else:
            module = _quantized(name, linear, scheme, options)
        made[id(linear.bias)] = module
        model.set_submodule(name, module)


def _quantized(name: str, linear: nn.Module, scheme: str, options: dict) -> QuantizedLinear:
    if linear.weight.is_meta and hasattr(linear, "_hf_hook"):
        raise ValueError(f"{name}: its weight is offloaded; quantize the model before it is dispatched")
    weight = linear.weight.t() if is_conv1d(linear) else linear.weight
    try:
        module = QuantizedLinear.from_weight(weight, linear.bias, scheme, **options)
    except RuntimeError as error:
        raise RuntimeError(f"{name}: {str(error).splitlines()[0]}") from error
    return module.train(linear.training)
