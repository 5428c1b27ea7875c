"""The compressed-tensors format: which scheme its config gives a module, and its tensors as those of our modules.

pack-quantized, weight-only: weight_packed int32 [N, ceil(K·b / 32)], values along K in a stream of bits, the least
significant first, stored + 2^(b-1) when symmetric; weight_scale [N, G]; weight_shape [2]; asymmetric also
weight_zero_point int32 [ceil(N·b / 32), G], packed along N.
int-quantized: weight int8 [N, K], weight_scale [N, 1] or [1]; with static activation scales also input_scale [1].
"""

import re
from typing import Any

import torch

from .modules import QuantizedLinear
from .scheme import Activation

_FORMATS = ("pack-quantized", "int-quantized", "mixed-precision")


class Layout:
    """A `quantization_config` of config.json. Raises ValueError when it is not one that this package computes."""

    def __init__(self, config: dict[str, Any]):
        method = config.get("quant_method")
        if method != "compressed-tensors":
            raise ValueError(f"quantization method {method!r} cannot be loaded; 'compressed-tensors' can")
        if config.get("format") not in _FORMATS:
            raise ValueError(f"format {config.get('format')!r} cannot be loaded; {', '.join(_FORMATS[:2])} can")
        self._groups = list(config.get("config_groups", {}).values())

    def scheme(self, module: str) -> str:
        """The scheme of a module: that of the group that names it, else of the group for all Linears."""
        for matches in (_names, _covers_linears):
            for group in self._groups:
                if any(matches(target, module) for target in group["targets"]):
                    return _scheme_text(module, group)
        raise ValueError(f"{module}: the checkpoint has a quantized weight for it, but no group of config.json does")


def _names(target: str, module: str) -> bool:
    return bool(re.match(target[3:], module)) if target.startswith("re:") else target == module


def _covers_linears(target: str, module: str) -> bool:
    return target == "Linear"


def _scheme_text(module: str, group: dict[str, Any]) -> str:
    weights, activations = group["weights"], group.get("input_activations")
    if weights.get("type") != "int" or weights.get("strategy") not in ("tensor", "channel", "group"):
        raise ValueError(
            f"{module}: weights of type {weights.get('type')!r} with strategy {weights.get('strategy')!r} cannot be "
            "loaded; int with tensor, channel or group can"
        )
    static = bool(activations) and not activations.get("dynamic")
    if static and not (activations.get("strategy") == "tensor" and activations.get("symmetric", True)):
        raise ValueError(
            f"{module}: static activation scales can be loaded if they are one a tensor and symmetric; these have "
            f"strategy {activations.get('strategy')!r}, symmetric {activations.get('symmetric', True)}"
        )
    if weights.get("actorder"):
        raise ValueError(f"{module}: weights in activation order cannot be loaded")
    text = f"w{weights['num_bits']}a{8 if activations else 16}"
    if weights["strategy"] == "tensor":
        text += "-tensor"
    if weights["strategy"] == "group":
        text += f"-g{weights['group_size']}"
    if static:
        text += "-static"
    return text if weights.get("symmetric", True) else text + "-asym"


def quantized_modules(names: set[str]) -> set[str]:
    """Modules that have a quantized weight among these tensors."""
    return {name.removesuffix(".weight_scale") for name in names if name.endswith(".weight_scale")}


def complete(parts: dict[str, torch.Tensor], module: QuantizedLinear) -> bool:
    """Whether these are all tensors of a module's weight."""
    if "weight" in parts:
        return "weight_scale" in parts and ("input_scale" in parts or not _is_static(module))
    expected = {"weight_packed", "weight_scale", "weight_shape"}
    return parts.keys() >= (expected if module.scheme.symmetric else expected | {"weight_zero_point"})


def _is_static(module: QuantizedLinear) -> bool:
    return module.scheme.activation == Activation.INT8_STATIC


def fill(module: QuantizedLinear, name: str, parts: dict[str, torch.Tensor]) -> None:
    """Makes the tensors of a checkpoint the state of a module. Raises ValueError naming what does not fit."""
    N, K, scheme = module.out_features, module.in_features, module.scheme
    scale = _scale(parts, name, "weight_scale")
    if _is_static(module):
        input_scale = _scale(parts, name, "input_scale")
        if input_scale.numel() != 1:
            raise ValueError(f"{name}.input_scale: has {input_scale.numel()} values; one a tensor can be loaded")
        module.input_scale = input_scale.reshape(1)
    if "weight" in parts:
        if not scheme.symmetric:
            raise ValueError(
                f"{name}: int-quantized weights with zero points cannot be loaded; pack-quantized ones can"
            )
        q = parts["weight"]
    else:
        stored_shape = parts["weight_shape"].tolist()
        if stored_shape != [N, K]:
            raise ValueError(f"{name}.weight_shape: says {stored_shape}, but the model expects {[N, K]}")
        q = _weight(parts["weight_packed"], name, K, module)
    tensors = {"weight_int4" if scheme.packed else "weight_int8": q, "scale": scale}
    if not scheme.symmetric:
        packed = parts["weight_zero_point"].t().contiguous()
        tensors["zero_point"] = _unpack(packed, f"{name}.weight_zero_point", N, scheme.num_bits).t().contiguous()
    for leaf, tensor in tensors.items():
        expected = getattr(module, leaf)
        if tensor.numel() != expected.numel() or tensor.shape[0] != expected.shape[0] or tensor.dtype != expected.dtype:
            raise ValueError(
                f"{name}: {leaf} is {tensor.dtype} {list(tensor.shape)}, but the model expects {expected.dtype} "
                f"{list(expected.shape)}"
            )
        setattr(module, leaf, tensor.reshape(expected.shape))
    module.pack()


def _scale(parts: dict[str, torch.Tensor], name: str, leaf: str) -> torch.Tensor:
    scale = parts[leaf].float()
    if not (scale > 0).logical_and(scale.isfinite()).all():
        raise ValueError(f"{name}.{leaf}: has values that are not finite and greater than 0")
    return scale


def _weight(words: torch.Tensor, name: str, K: int, module: QuantizedLinear) -> torch.Tensor:
    """weight_packed as the module holds it."""
    scheme = module.scheme
    if scheme.num_bits == 4:
        # Two a byte, the low nibble first, offset by 8 when symmetric: the very bytes that the module holds.
        return _bytes(words, f"{name}.weight_packed", K, 4)
    q = _unpack(words, f"{name}.weight_packed", K, scheme.num_bits)
    if scheme.symmetric:
        q = q.sub_(1 << (scheme.num_bits - 1)).view(torch.int8)  # wraps to the same bits as int8
    return torch.ops.octavo.pack(q) if scheme.packed else q


def _bytes(words: torch.Tensor, name: str, count: int, num_bits: int) -> torch.Tensor:
    """The bytes uint8 [R, ceil(count·num_bits / 8)] of words int32 [R, ceil(count·num_bits / 32)]."""
    if words.dtype != torch.int32 or words.ndim != 2 or words.shape[1] != -(-count * num_bits // 32):
        raise ValueError(
            f"{name}: is {words.dtype} {list(words.shape)}; {count} values of {num_bits} bits take "
            f"{-(-count * num_bits // 32)} int32"
        )
    return words.view(torch.uint8)[:, : -(-count * num_bits // 8)].contiguous()


def _unpack(words: torch.Tensor, name: str, count: int, num_bits: int) -> torch.Tensor:
    """The values uint8 [R, count] of words int32 [R, ceil(count·num_bits / 32)]."""
    stream = _bytes(words, name, count, num_bits)
    if num_bits == 8:
        return stream
    # A value of up to 7 bits spans two bytes at most, and int16 holds both.
    stream = torch.nn.functional.pad(stream, (0, 1)).to(torch.int16)
    start = torch.arange(count, device=words.device) * num_bits
    pair = stream[:, start // 8] | stream[:, start // 8 + 1] << 8
    return (pair >> (start % 8).to(torch.int16) & ((1 << num_bits) - 1)).to(torch.uint8)
