"""Octavo: LLM weights in 8 and 4 bits, and products with them.

octavo.quantize_model(model, "w8a16")        a model in memory
octavo.load(path)                            a checkpoint that `octavo quantize` wrote
QuantizedLinear.from_linear(linear)          one layer
octavo.int8_gemm(x, q, scale)                one product
octavo.compile_options()                     torch.compile around quantized layers
"""

from importlib.metadata import PackageNotFoundError, version

from .compile import compile_options
from .convert import Coverage, INT8Quantizer, quantize_model
from .functional import (
    calculate_quantization_error,
    dequantize,
    int8_gemm,
    int8_gemm_torch,
    matmul,
    quantize_symmetric,
    quantize_weight_per_channel,
)
from .fused import quantize_static, rms_norm, rms_norm_quantize, silu_mul, silu_mul_quantize
from .join import join_weights
from .load import load
from .memory import MemoryFootprint, compare_memory_footprint
from .modules import (
    DynamicInt8Linear,
    Int8Linear,
    LLMInt8Linear,
    QuantizedLinear,
    StaticInt8Linear,
    W4A8Linear,
    WeightOnlyInt8Linear,
)
from .perplexity import perplexity
from .scheme import Scheme, parse_scheme

try:
    __version__ = version("octavo")
except PackageNotFoundError:  # run from the source tree
    __version__ = "0+unknown"

__all__ = [
    "Coverage",
    "DynamicInt8Linear",
    "INT8Quantizer",
    "Int8Linear",
    "LLMInt8Linear",
    "MemoryFootprint",
    "QuantizedLinear",
    "Scheme",
    "StaticInt8Linear",
    "W4A8Linear",
    "WeightOnlyInt8Linear",
    "calculate_quantization_error",
    "compare_memory_footprint",
    "compile_options",
    "dequantize",
    "int8_gemm",
    "int8_gemm_torch",
    "join_weights",
    "load",
    "matmul",
    "parse_scheme",
    "perplexity",
    "quantize_model",
    "quantize_static",
    "quantize_symmetric",
    "quantize_weight_per_channel",
    "rms_norm",
    "rms_norm_quantize",
    "silu_mul",
    "silu_mul_quantize",
]
