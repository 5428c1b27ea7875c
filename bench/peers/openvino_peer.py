"""OpenVINO: MatMul with a compressed weight, which its CPU plugin multiplies as it is."""

import numpy as np
import openvino as ov
from openvino import opset13 as ops

from .contender import Contender, Layer

GROUP = 128


def version() -> str:
    return f"OpenVINO {ov.__version__}"


def _constant(element: str, shape: list[int], fill: int | None) -> ov.Node:
    """A constant of bytes that are `fill`, or random, as f32. The tensor owns them: one of a numpy array would not."""
    tensor = ov.Tensor(getattr(ov.Type, element), ov.Shape(shape))
    data = tensor.data.reshape(-1).view(np.uint8)
    data[:] = np.random.default_rng().integers(0, 256, data.size, dtype=np.uint8) if fill is None else fill
    return ops.convert(ops.constant(tensor), "f32")


def _compressed(layer: Layer, element: str, grouped: bool) -> ov.Node:
    """A constant of `element` type → f32, as NNCF writes it: (q - zero point) · scale."""
    parameters = [layer.N, *([layer.K // GROUP] if grouped else []), 1]
    shape = [layer.N, layer.K // GROUP, GROUP] if grouped else [layer.N, layer.K]
    weight = _constant(element, shape, None)
    if element.startswith("u"):
        weight = ops.subtract(weight, _constant(element, parameters, 0x88 if element == "u4" else 0x80))
    scale = np.full(parameters, 0.01, np.float16)
    weight = ops.multiply(weight, ops.convert(ops.constant(scale), "f32"))
    return ops.reshape(weight, np.array([layer.N, layer.K]), False) if grouped else weight


def _request(layer: Layer, element: str, grouped: bool, hints: dict) -> ov.InferRequest:
    x = ops.parameter([-1, layer.K], np.float32)
    model = ov.Model([ops.matmul(x, _compressed(layer, element, grouped), False, True)], [x])
    threads = {"INFERENCE_NUM_THREADS": layer.threads, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY"}
    return ov.Core().compile_model(model, "CPU", {**threads, **hints}).create_infer_request()


def _contender(layer: Layer, name: str, family: str, element: str, grouped: bool, hints: dict) -> Contender:
    operands = "int8" if family.endswith("a8") else "bf16"
    parameters = layer.N * layer.K // GROUP if grouped else layer.N
    weight_bytes = layer.N * layer.K // (2 if "4" in element else 1) + 2 * parameters
    requests = [_request(layer, element, grouped, hints) for _ in range(layer.copies(weight_bytes))]

    def ready(M):
        x = ov.Tensor(np.random.default_rng().random((M, layer.K), dtype=np.float32) * 2 - 1)
        for request in requests:
            request.set_input_tensor(x)
            request.infer(share_outputs=True)  # builds the product for this M
        return lambda i: requests[i].infer(share_outputs=True)

    return Contender(f"OpenVINO {name}", (family,), "float32", operands, weight_bytes, len(requests), ready)


def contenders(layer: Layer) -> list[Contender]:
    quantized = {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": str(GROUP)}
    as_it_comes = {"INFERENCE_PRECISION_HINT": "bf16", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"}
    return [
        _contender(layer, "u8", "w8a8", "u8", False, quantized),
        _contender(layer, "i8", "w8a8", "i8", False, {}),
        _contender(layer, "i8 weight-only", "w8a16", "i8", False, as_it_comes),
        _contender(layer, "u4 g128", "w4a8", "u4", True, quantized),
        _contender(layer, "i4 g128", "w4a8", "i4", True, {}),
        _contender(layer, "u4 g128 weight-only", "w4a16", "u4", True, as_it_comes),
    ]
