"""ggml, from the shared libraries that llama-cpp-python installs: one matrix product a graph."""

import ctypes
import importlib.metadata
import importlib.util
from ctypes import c_bool, c_char_p, c_int, c_int64, c_size_t, c_void_p
from pathlib import Path

import numpy as np

from .contender import Contender, Layer

F32, Q4_0, Q8_0, Q4_K = 0, 2, 8, 12  # enum ggml_type
WEIGHTS = 1  # enum ggml_backend_buffer_usage
ROWS_QUANTIZED = 64  # the rest of a weight repeats them: quantizing takes long


class InitParams(ctypes.Structure):
    _fields_ = [("mem_size", c_size_t), ("mem_buffer", c_void_p), ("no_alloc", c_bool)]


def _folder() -> Path:
    spec = importlib.util.find_spec("llama_cpp")
    if spec is None:
        raise ImportError("llama-cpp-python is not installed")
    return Path(spec.submodule_search_locations[0]) / "lib"


class Library:
    def __init__(self):
        folder = _folder()
        self._base = ctypes.CDLL(str(folder / "libggml-base.so"), mode=ctypes.RTLD_GLOBAL)
        self._cpu = ctypes.CDLL(str(folder / "libggml-cpu.so"), mode=ctypes.RTLD_GLOBAL)
        p, i64, size = c_void_p, c_int64, c_size_t
        base, cpu = self._base, self._cpu
        self.init = self._function(base, "ggml_init", p, InitParams)
        self.free = self._function(base, "ggml_free", None, p)
        self.tensor_overhead = self._function(base, "ggml_tensor_overhead", size)
        self.graph_overhead = self._function(base, "ggml_graph_overhead", size)
        self.new_tensor_2d = self._function(base, "ggml_new_tensor_2d", p, p, c_int, i64, i64)
        self.mul_mat = self._function(base, "ggml_mul_mat", p, p, p, p)
        self.new_graph = self._function(base, "ggml_new_graph", p, p)
        self.build_forward_expand = self._function(base, "ggml_build_forward_expand", None, p, p)
        self.quantize_chunk = self._function(base, "ggml_quantize_chunk", size, c_int, p, p, i64, i64, i64, p)
        self.row_size = self._function(base, "ggml_row_size", size, c_int, i64)
        self.buft_name = self._function(base, "ggml_backend_buft_name", c_char_p, p)
        self.default_buffer_type = self._function(base, "ggml_backend_cpu_buffer_type", p)
        self.alloc_tensors = self._function(base, "ggml_backend_alloc_ctx_tensors_from_buft", p, p, p)
        self.set_usage = self._function(base, "ggml_backend_buffer_set_usage", None, p, c_int)
        self.buffer_free = self._function(base, "ggml_backend_buffer_free", None, p)
        self.tensor_set = self._function(base, "ggml_backend_tensor_set", None, p, p, size, size)
        self.device_of = self._function(base, "ggml_backend_get_device", p, p)
        self.registry_of = self._function(base, "ggml_backend_dev_backend_reg", p, p)
        self.proc_address = self._function(base, "ggml_backend_reg_get_proc_address", p, p, c_char_p)
        self.supports_op = self._function(base, "ggml_backend_dev_supports_op", c_bool, p, p)
        self.compute = self._function(base, "ggml_backend_graph_compute", c_int, p, p)
        self.backend_init = self._function(cpu, "ggml_backend_cpu_init", p)
        self.set_n_threads = self._function(cpu, "ggml_backend_cpu_set_n_threads", None, p, c_int)
        self._log = ctypes.CFUNCTYPE(None, c_int, c_char_p, c_void_p)(lambda level, text, data: None)
        base.ggml_log_set(self._log, None)
        self.backend = self.backend_init()
        self.device = self.device_of(self.backend)

    @staticmethod
    def _function(library, name, result, *arguments):
        function = getattr(library, name)
        function.restype = result
        function.argtypes = arguments
        return function

    def weight_buffer_types(self) -> list[int]:
        """Those that rearrange weights for this processor, then the plain one."""
        address = self.proc_address(self.registry_of(self.device), b"ggml_backend_dev_get_extra_bufts")
        types = []
        if address:
            listed = ctypes.CFUNCTYPE(ctypes.POINTER(c_void_p), c_void_p)(address)(self.device)
            index = 0
            while listed and listed[index]:
                types.append(listed[index])
                index += 1
        return [*types, self.default_buffer_type()]

    def context(self, extra: int = 0) -> int:
        return self.init(InitParams(8 * self.tensor_overhead() + extra, None, True))


_library = None


def library() -> Library:
    global _library
    _library = _library or Library()
    return _library


def version() -> str:
    library()
    return f"ggml of llama-cpp-python {importlib.metadata.version('llama-cpp-python')}"


class Weight:
    """Copies of a quantized weight in the first buffer type that the processor's product takes."""

    def __init__(self, layer: Layer, kind: int):
        g = self._g = library()
        self._layer, self._kind = layer, kind
        row = g.row_size(kind, layer.K)
        self.bytes = row * layer.N
        source = np.random.default_rng(1).standard_normal((ROWS_QUANTIZED, layer.K), dtype=np.float32)
        some = np.empty(row * ROWS_QUANTIZED, np.uint8)
        g.quantize_chunk(kind, source.ctypes.data, some.ctypes.data, 0, ROWS_QUANTIZED, layer.K, None)
        data = np.tile(some, -(-layer.N // ROWS_QUANTIZED))[: self.bytes]
        self._owned = []
        buffer_type = next(each for each in g.weight_buffer_types() if self._takes(each))
        self.place = g.buft_name(buffer_type).decode()
        self.tensors = [self._tensor(buffer_type) for _ in range(layer.copies(self.bytes))]
        for tensor in self.tensors:
            g.tensor_set(tensor, data.ctypes.data, 0, self.bytes)

    def _tensor(self, buffer_type: int) -> int:
        g = self._g
        context = g.context()
        tensor = g.new_tensor_2d(context, self._kind, self._layer.K, self._layer.N)
        buffer = g.alloc_tensors(context, buffer_type)
        g.set_usage(buffer, WEIGHTS)
        self._owned.append((buffer, context))
        return tensor

    def _takes(self, buffer_type: int) -> bool:
        g = self._g
        tensor = self._tensor(buffer_type)
        context = g.context()
        x = g.new_tensor_2d(context, F32, self._layer.K, 1)
        takes = g.supports_op(g.device, g.mul_mat(context, tensor, x))
        g.free(context)
        self._free_last()
        return takes

    def _free_last(self) -> None:
        buffer, context = self._owned.pop()
        self._g.buffer_free(buffer)
        self._g.free(context)

    def __del__(self):
        while getattr(self, "_owned", None):
            self._free_last()


class Products:
    """A graph for each copy of a weight, with M rows of x."""

    def __init__(self, layer: Layer, weight: Weight, M: int):
        g = self._g = library()
        self._weight = weight  # lives as long as its graphs
        self._context = g.context(extra=len(weight.tensors) * (g.graph_overhead() + 2 * g.tensor_overhead()))
        x = g.new_tensor_2d(self._context, F32, layer.K, M)
        self._graphs = []
        for tensor in weight.tensors:
            graph = g.new_graph(self._context)
            g.build_forward_expand(graph, g.mul_mat(self._context, tensor, x))
            self._graphs.append(graph)
        self._buffer = g.alloc_tensors(self._context, g.default_buffer_type())
        data = np.random.default_rng(2).random((M, layer.K), dtype=np.float32) * 2 - 1
        g.tensor_set(x, data.ctypes.data, 0, data.nbytes)

    def __call__(self, i: int) -> None:
        self._g.compute(self._g.backend, self._graphs[i])

    def __del__(self):
        self._g.buffer_free(self._buffer)
        self._g.free(self._context)


def contenders(layer: Layer) -> list[Contender]:
    library().set_n_threads(library().backend, layer.threads)
    made = []
    for name, kind, family in (("Q8_0", Q8_0, "w8a8"), ("Q4_0", Q4_0, "w4a8"), ("Q4_K", Q4_K, "w4a8")):
        weight = Weight(layer, kind)

        def ready(M, weight=weight):
            return Products(layer, weight, M)

        count = len(weight.tensors)
        made.append(
            Contender(
                f"ggml {name}", (family,), "float32", "int8", weight.bytes, count, ready, {"buffer": weight.place}
            )
        )
    return made
