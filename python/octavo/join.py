"""Weights of layers that take the same input, side by side in memory, for one kernel to multiply with all of them."""

from __future__ import annotations

from collections import Counter, defaultdict

import torch
from torch import nn

from .modules import QuantizedLinear
from .packed import PACKED_WEIGHT
from .scheme import PER_TENSOR, Activation


def join_weights(model: nn.Module) -> int:
    """Moves the weights of a module's children with the same K, scheme and dtypes, such as q_proj, k_proj and v_proj,
    side by side in memory, in the order in which the module has them.

    Modules, state_dicts and results stay what they are; every module's weights are now views of a longer tensor. Code
    that torch.compile compiles with compile_options() multiplies those that it calls one after the other, in this order
    and with one input, by one kernel. That takes less time than one each: each begins and ends with a time in which it
    does not read at full speed.

    To be called when the model is on its device; what moves weights later (model.to) takes them apart again. Peak
    memory: one module's weights more. torch.save of a single layer's tensors writes those beside them too.

    Returns:
        The number of layers whose weights moved. Those of weight-only schemes and w8a8 do, if they are row-major (the
        CPU's kernels read packed ones), have more than one scale and belong to one module alone; not those of lists and
        sequences, which are no siblings.
    """
    for layer in model.modules():
        if _is_layer(layer):
            layer.pack()  # which moves what is not settled yet
    # Of all places in the model, so that what stands in two is found.
    owners = Counter(id(child) for module in model.modules() for child in module.children())
    holders = Counter(address for layer in model.modules() if _is_layer(layer) for address in _addresses(layer))
    moved = 0
    for module in model.modules():
        if isinstance(module, nn.Sequential | nn.ModuleList | nn.ModuleDict):
            continue
        alike = defaultdict(list)
        for layer in module.children():
            alone = owners[id(layer)] == 1 and all(holders[address] == 1 for address in _addresses(layer))
            if _is_layer(layer) and alone:
                bias = layer.bias
                key = (type(layer), str(layer.scheme), layer.in_features, layer.scale.device, layer.scale.dtype)
                alike[(*key, None if bias is None else bias.dtype)].append(layer)
        for layers in alike.values():
            if len(layers) > 1:
                _move_together(layers)
                moved += len(layers)
    return moved


def _is_layer(module: nn.Module) -> bool:
    """Whether it has a weight that can move."""
    return (
        isinstance(module, QuantizedLinear)
        and module.scheme.activation in (Activation.FLOAT, Activation.INT8_PER_TOKEN)
        and module.scheme.group_size != PER_TENSOR
        and PACKED_WEIGHT not in module._buffers
        and not module.scale.is_meta
    )


def _addresses(layer: nn.Module) -> set[int]:
    """Of its tensors, which other layers may have as their own."""
    tensors = (*layer._buffers.values(), *layer._parameters.values())
    return {t.data_ptr() for t in tensors if t is not None and t.numel() > 0}


def _move_together(layers: list[QuantizedLinear]) -> None:
    def side_by_side(tensors: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        return torch.cat(tensors).split([layer.out_features for layer in layers])

    with torch.inference_mode(False), torch.no_grad():  # tensors that autograd can save, whoever asks for them to move
        for name in (layers[0]._weight_name, "scale", "zero_point"):
            if layers[0]._buffers[name] is not None:
                parts = side_by_side([layer._buffers[name] for layer in layers])
                for layer, part in zip(layers, parts, strict=True):
                    layer._buffers[name] = part
        if layers[0].bias is not None:
            parts = side_by_side([layer.bias.detach() for layer in layers])
            for layer, part in zip(layers, parts, strict=True):
                layer.bias.data = part
