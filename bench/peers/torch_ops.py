"""torch's own products: dynamic int8, prepacked bf16 and fp32, weight-only int8 and int4."""

import torch

from .contender import Contender, Layer

BOTH_WIDTHS = ("w8a16", "w4a16")  # what weight-only products replace
OPERANDS = {torch.bfloat16: "bf16", torch.float32: "fp32"}


def version() -> str:
    return f"torch {torch.__version__}"


def _dynamic_int8(layer: Layer, engine: str) -> Contender:
    torch.backends.quantized.engine = engine  # counts when the weight is packed
    scales, zeros = torch.full((layer.N,), 0.01), torch.zeros(layer.N, dtype=torch.long)
    w = torch.quantize_per_channel(torch.randn(layer.N, layer.K), scales, zeros, 0, torch.qint8)
    copies = [torch.ops.quantized.linear_prepack(w, None) for _ in range(layer.copies(layer.N * layer.K))]

    def ready(M):
        x = torch.rand(M, layer.K) * 2 - 1
        return lambda i: torch.ops.quantized.linear_dynamic(x, copies[i], False)

    weight_bytes = layer.N * (layer.K + 4)
    return Contender(f"torch dynamic int8 {engine}", ("w8a8",), "float32", "int8", weight_bytes, len(copies), ready)


def _prepacked(layer: Layer, dtype: torch.dtype) -> Contender:
    """oneDNN's product with a weight reordered for it, as torch.compile does when it freezes a model."""
    weight_bytes = layer.N * layer.K * dtype.itemsize
    w = torch.randn(layer.N, layer.K, dtype=dtype)
    count = layer.copies(weight_bytes)

    def ready(M):
        x = torch.randn(M, layer.K, dtype=dtype)
        copies = [torch.ops.mkldnn._reorder_linear_weight(w, M) for _ in range(count)]
        return lambda i: torch.ops.mkldnn._linear_pointwise(x, copies[i], None, "none", [], "")

    name = str(dtype).removeprefix("torch.")
    return Contender(f"torch {name} prepacked", BOTH_WIDTHS, name, OPERANDS[dtype], weight_bytes, count, ready)


def _linear(layer: Layer, dtype: torch.dtype) -> Contender:
    weight_bytes = layer.N * layer.K * dtype.itemsize
    copies = [torch.randn(layer.N, layer.K, dtype=dtype) for _ in range(layer.copies(weight_bytes))]

    def ready(M):
        x = torch.randn(M, layer.K, dtype=dtype)
        return lambda i: torch.nn.functional.linear(x, copies[i])

    name = str(dtype).removeprefix("torch.")
    return Contender(f"torch {name}", BOTH_WIDTHS, name, OPERANDS[dtype], weight_bytes, len(copies), ready)


def _weight_only_int8(layer: Layer) -> Contender:
    q = torch.randint(-127, 127, (layer.N, layer.K), dtype=torch.int8)
    copies = [q.clone() for _ in range(layer.copies(q.numel()))]
    scale = torch.full((layer.N,), 0.01, dtype=torch.bfloat16)

    def ready(M):
        x = torch.randn(M, layer.K, dtype=torch.bfloat16)
        return lambda i: torch._weight_int8pack_mm(x, copies[i], scale)

    return Contender("torch _weight_int8pack_mm", ("w8a16",), "bfloat16", "bf16", q.numel(), len(copies), ready)


def _weight_only_int4(layer: Layer, group: int = 128) -> Contender:
    q = torch.randint(0, 16, (layer.N, layer.K), dtype=torch.int32)
    packed = torch._convert_weight_to_int4pack_for_cpu(q, 2)
    weight_bytes = layer.N * layer.K // 2 + layer.N * layer.K // group * 4
    copies = [packed.clone() for _ in range(layer.copies(weight_bytes))]
    scales_and_zeros = torch.full((layer.K // group, layer.N, 2), 0.01, dtype=torch.bfloat16)

    def ready(M):
        x = torch.randn(M, layer.K, dtype=torch.bfloat16)
        return lambda i: torch._weight_int4pack_mm_for_cpu(x, copies[i], group, scales_and_zeros)

    return Contender("torch _weight_int4pack_mm g128", ("w4a16",), "bfloat16", "bf16", weight_bytes, len(copies), ready)


def contenders(layer: Layer) -> list[Contender]:
    torch.set_num_threads(layer.threads)
    supported = torch.backends.quantized.supported_engines
    made = [_dynamic_int8(layer, engine) for engine in ("fbgemm", "onednn") if engine in supported]
    made += [_prepacked(layer, torch.bfloat16), _linear(layer, torch.bfloat16), _linear(layer, torch.float32)]
    return [*made, _weight_only_int8(layer), _weight_only_int4(layer)]
