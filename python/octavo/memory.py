"""How many bytes weights take in each format."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

from torch import nn

from .convert import is_linear
from .modules import QuantizedLinear
from .ops import groups

_SCALE_BYTES = 4  # scales are float32; on CUDA those of groups can be half as long


@dataclass(frozen=True)
class MemoryFootprint:
    """Bytes in each format, scales included. Printed, a table."""

    fp32: int
    fp16: int
    int8: int
    int4: int

    def __str__(self) -> str:
        rows = [f"{'format':<8}{'MiB':>12}{'of FP32':>10}"]
        for format in fields(self):
            size = getattr(self, format.name)
            share = f"{100 * size / self.fp32:.1f} %" if self.fp32 else "-"
            rows.append(f"{format.name.upper():<8}{size / 2**20:>12.2f}{share:>10}")
        return "\n".join(rows)


def compare_memory_footprint(what: Sequence[int] | nn.Module, group_size: int = 128) -> MemoryFootprint:
    """Bytes of a weight, or of a model's parameters, in FP32, FP16, INT8 and INT4.

    Args:
        what: the shape (N, K) of a weight; or a model, float or quantized. Of a model the weights of its Linears are
            counted in the format; all else, and Linears whose weight is shared with an embedding, stays FP16 in the
            columns INT8 and INT4.
        group_size: of INT4; its scales are per group, those of INT8 per output channel.
    """
    if not isinstance(what, nn.Module):
        N, K = what
        return _footprint([(N, K)], 0, group_size)
    shapes: dict[int, tuple[int, int]] = {}
    rest: dict[int, int] = {}
    for module in what.modules():
        parameters = dict(module.named_parameters(recurse=False))
        if isinstance(module, QuantizedLinear):
            shapes[id(module)] = (module.out_features, module.in_features)
        elif is_linear(module):
            weight = parameters.pop("weight")
            shapes[id(weight)] = tuple(weight.shape)
        rest.update({id(parameter): parameter.numel() for parameter in parameters.values()})
    linear = [shape for key, shape in shapes.items() if key not in rest]
    return _footprint(linear, sum(rest.values()), group_size)


def _footprint(shapes: list[tuple[int, int]], rest: int, group_size: int) -> MemoryFootprint:
    weights = sum(N * K for N, K in shapes)
    return MemoryFootprint(
        fp32=4 * (weights + rest),
        fp16=2 * (weights + rest),
        int8=weights + sum(N * _SCALE_BYTES for N, _ in shapes) + 2 * rest,
        int4=sum(N * ((K + 1) // 2 + groups(K, group_size) * _SCALE_BYTES) for N, K in shapes) + 2 * rest,
    )
