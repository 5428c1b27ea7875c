"""What a model's quantized layers are given, so that they can be compared one by one."""

import torch

from octavo import QuantizedLinear


def layers(model) -> dict[str, QuantizedLinear]:
    return {name: module for name, module in model.named_modules() if isinstance(module, QuantizedLinear)}


def recorded_inputs(model, ids) -> dict[str, torch.Tensor]:
    """The last input of every quantized layer when the model runs on these tokens."""
    inputs = {}
    hooks = [
        module.register_forward_pre_hook(lambda _module, args, name=name: inputs.update({name: args[0]}))
        for name, module in layers(model).items()
    ]
    with torch.no_grad():
        model(ids)
    for hook in hooks:
        hook.remove()
    return inputs
