"""Weights of layers that take the same input, side by side in memory, for one kernel to multiply with all of them."""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import nn

from .modules import QuantizedLinear
from .packed import PACKED_WEIGHT


def join_weights(model: nn.Module) -> int:
    """Moves the weights of a module's children with the same K, scheme and dtype, such as q_proj, k_proj and v_proj,
    side by side in memory, in their order.

    Modules, state_dicts and results stay what they are; every module's weights are now views of a longer tensor. Code
    that torch.compile compiles with compile_options() multiplies those of one input with one kernel, which takes less
    time than one each: each begins and ends with a time in which it does not read at full speed. To be called when
    the model is on its device; what moves weights later (model.to) takes them apart again. Peak memory: one module's
    weights more.

    Returns:
        The number of layers whose weights moved. None do of packed weights, which the CPU's kernels read, and of
        schemes with one scale in all.
    """
    moved = 0
    for module in model.modules():
        alike = defaultdict(list)
        for layer in module.children():
            if isinstance(layer, QuantizedLinear) and _can_move(layer):
                bias = layer.bias
                key = (type(layer), str(layer.scheme), layer.in_features, layer.scale.device)
                alike[(*key, None if bias is None else bias.dtype)].append(layer)
        for layers in alike.values():
            if len(layers) > 1:
                _move_together(layers)
                moved += len(layers)
    return moved


def _can_move(layer: QuantizedLinear) -> bool:
    return PACKED_WEIGHT not in layer._buffers and layer.scheme.group_size != 0 and not layer.scale.is_meta


@torch.no_grad()
def _move_together(layers: list[QuantizedLinear]) -> None:
    rows = [layer.out_features for layer in layers]
    for name in (layers[0]._weight_name, "scale", "zero_point"):
        if layers[0]._buffers[name] is None:
            continue
        whole = torch.cat([layer._buffers[name] for layer in layers])
        for layer, part in zip(layers, whole.split(rows), strict=True):
            layer._buffers[name] = part
    if layers[0].bias is not None:
        whole = torch.cat([layer.bias for layer in layers])
        for layer, part in zip(layers, whole.split(rows), strict=True):
            layer.bias.data = part
