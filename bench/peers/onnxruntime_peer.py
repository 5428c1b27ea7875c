"""ONNX Runtime: MatMulNBits with 4-bit weights in groups; accuracy level 4 quantizes activations to int8."""

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper

from .contender import Contender, Layer


def version() -> str:
    return f"ONNX Runtime {ort.__version__}"


def _model(layer: Layer, group: int) -> bytes:
    groups = layer.K // group
    q = np.random.default_rng().integers(0, 256, layer.N * layer.K // 2, dtype=np.uint8)
    scale = np.full(layer.N * groups, 0.01, np.float32)
    node = helper.make_node(
        "MatMulNBits",
        ["x", "q", "scale"],
        ["y"],
        domain="com.microsoft",
        K=layer.K,
        N=layer.N,
        bits=4,
        block_size=group,
        accuracy_level=4,
    )
    graph = helper.make_graph(
        [node],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["M", layer.K])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["M", layer.N])],
        [
            helper.make_tensor("q", TensorProto.UINT8, [layer.N, groups, group // 2], q.tobytes(), raw=True),
            helper.make_tensor("scale", TensorProto.FLOAT, [layer.N * groups], scale.tobytes(), raw=True),
        ],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString()


def _contender(layer: Layer, group: int) -> Contender:
    options = ort.SessionOptions()
    options.intra_op_num_threads = layer.threads
    options.inter_op_num_threads = 1
    weight_bytes = layer.N * layer.K // 2 + layer.N * layer.K // group * 4
    model = _model(layer, group)
    sessions = [
        ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        for _ in range(layer.copies(weight_bytes))
    ]

    def ready(M):
        x = ort.OrtValue.ortvalue_from_numpy(np.random.default_rng().random((M, layer.K), dtype=np.float32) * 2 - 1)
        y = ort.OrtValue.ortvalue_from_numpy(np.zeros((M, layer.N), np.float32))
        bindings = []
        for session in sessions:
            binding = session.io_binding()
            binding.bind_ortvalue_input("x", x)
            binding.bind_ortvalue_output("y", y)
            bindings.append(binding)
        return lambda i: sessions[i].run_with_iobinding(bindings[i])

    return Contender(f"ONNX Runtime 4 bit g{group}", ("w4a8",), "float32", "int8", weight_bytes, len(sessions), ready)


def contenders(layer: Layer) -> list[Contender]:
    return [_contender(layer, group) for group in (128, 32)]
