"""Operators on CUDA tensors that octavo_torch.so has no CUDA kernels for, composed of torch's own: correct, and all
there is where the library was built without CUDA.

Weight-only products dequantize and multiply. Integer products are exact (in float64, which holds every sum), so they
give the CPU's bits. What is not worth composing goes through the CPU and back.
"""

import torch

from . import _library  # noqa: F401  (registers the operators whose kernels these are)

_ops = torch.ops.octavo
_MAX_INTEGER_K = 131071


def _on_cpu(op):
    """The CPU's kernel of an operator, for tensors wherever they are."""

    def run(*args):
        device = next(a.device for a in args if isinstance(a, torch.Tensor))
        result = op(*(a.cpu() if isinstance(a, torch.Tensor) else a for a in args))
        if isinstance(result, torch.Tensor):
            return result.to(device)
        return tuple(part.to(device) for part in result)

    return run


def _per_element(parameter: torch.Tensor, N: int, K: int, group_size: int) -> torch.Tensor:
    """Scales or zero points as a matrix that broadcasts over [N, K]."""
    if group_size <= 0:
        return parameter.reshape(-1, 1)
    return parameter.reshape(N, -1).repeat_interleave(group_size, dim=1)[:, :K]


def _dequantize(q, scale, zero_point, num_bits, group_size, packed, K, dtype):
    if packed:
        offset = 8 if zero_point is None else 0
        q = torch.stack((q & 15, q >> 4), dim=-1).reshape(q.shape[0], -1)[:, :K].to(torch.float32) - offset
    w = q.to(torch.float32)
    if zero_point is not None:
        w = w - _per_element(zero_point, q.shape[0], K, group_size).to(torch.float32)
    return (w * _per_element(scale, q.shape[0], K, group_size)).to(dtype)


def _quantize_per_token(x, group_size):
    K = x.shape[-1]
    size = group_size if group_size > 0 else max(K, 1)
    groups = -(-K // size) if group_size > 0 else 1
    padded = torch.nn.functional.pad(x.to(torch.float32), (0, groups * size - K)).unflatten(-1, (groups, size))
    absmax = padded.abs().amax(dim=-1)
    # CUDA divides by a number as it multiplies by its reciprocal; by a tensor, it divides.
    scale = torch.where(absmax == 0, 1.0, (absmax / torch.full_like(absmax, 127)).clamp(min=2.0**-126))
    scale = torch.where(absmax.isfinite(), scale, float("nan"))
    q = torch.round(padded / scale.unsqueeze(-1)).clamp(-128, 127).nan_to_num(0.0)
    return q.to(torch.int8).flatten(-2)[..., :K].contiguous(), scale


def _linear(x, q, scale, zero_point, bias, num_bits, group_size, packed):
    # In float32 and rounded once, whatever autocast would choose: docs/numerics.md bounds the error.
    with torch.autocast("cuda", enabled=False):
        w = _dequantize(q, scale, zero_point, num_bits, group_size, packed, x.shape[-1], torch.float32)
        y = torch.nn.functional.linear(x.to(torch.float32), w, None if bias is None else bias.to(torch.float32))
        return y.to(x.dtype)


def _scaled_mm(x, w, x_scale, w_scale, bias, out_dtype, constant_w=False):
    if x.shape[-1] > _MAX_INTEGER_K:
        raise RuntimeError(
            f"octavo: K = {x.shape[-1]} is above {_MAX_INTEGER_K}, up to which sums of int8 products are exact in "
            "int32; use a weight-only scheme"
        )
    with torch.autocast("cuda", enabled=False):
        sums = torch.matmul(x.to(torch.float64), w.to(torch.float64).T)
    if out_dtype == torch.int32:
        return sums.to(torch.int32)
    y = sums.to(torch.float32) * w_scale.reshape(1, -1)
    y = y.reshape(-1, w.shape[0]) * x_scale.reshape(-1, 1)
    if bias is not None:
        y = y + bias.to(torch.float32)
    return y.reshape(*x.shape[:-1], w.shape[0]).to(out_dtype)


def _matmul(x, y, alpha):
    one = torch.ones(1, device=x.device)
    return _scaled_mm(x, y, one, one * alpha, None, torch.bfloat16)


def _linear_w8a8(x, q, scale, bias):
    x_q, x_scale = _quantize_per_token(x, -1)
    return _scaled_mm(x_q, q, x_scale, scale, bias, x.dtype)


def _linear_joined(x, q, scale, zero_point, bias, *form):
    parts = (q, scale, zero_point or [None] * len(q), bias or [None] * len(q))
    return torch.cat([_linear(x, *each, *form) for each in zip(*parts, strict=True)], -1)


def _linear_w8a8_joined(x, q, scale, bias):
    return torch.cat([_linear_w8a8(x, *each) for each in zip(q, scale, bias or [None] * len(q), strict=True)], -1)


_pack_on_cpu, _unpack_on_cpu = _on_cpu(_ops.pack), _on_cpu(_ops.unpack)


def _pack(q):
    if q.ndim != 2 or q.dtype not in (torch.int8, torch.uint8):
        return _pack_on_cpu(q)  # which says what is wrong
    nibbles = ((q + 8).view(torch.uint8) if q.dtype == torch.int8 else q) & 15
    nibbles = torch.nn.functional.pad(nibbles, (0, q.shape[1] % 2))
    return nibbles[:, 0::2] | (nibbles[:, 1::2] << 4)


def _unpack(packed, K, symmetric):
    if packed.ndim != 2 or packed.dtype != torch.uint8 or packed.shape[1] != (K + 1) // 2:
        return _unpack_on_cpu(packed, K, symmetric)
    q = torch.stack((packed & 15, packed >> 4), dim=-1).reshape(packed.shape[0], -1)[:, :K].contiguous()
    return q.view(torch.int8) - 8 if symmetric else q


COMPOSED = {
    "dequantize": _dequantize,
    "linear": _linear,
    "linear_joined": _linear_joined,
    "linear_w8a8": _linear_w8a8,
    "linear_w8a8_joined": _linear_w8a8_joined,
    "matmul": _matmul,
    "pack": _pack,
    "quantize_per_token": _quantize_per_token,
    "scaled_mm": _scaled_mm,
    "unpack": _unpack,
}

# Those that a library built with CUDA registers itself, in src/torch.
IN_LIBRARY = (
    *("linear_joined", "linear_w8a8_joined"),
    *("dequantize", "linear", "linear_w8a8", "linear_w8a8_static", "matmul", "quantize", "quantize_per_token"),
    *("quantize_static", "scaled_mm", "rms_norm_quantize", "add_rms_norm_quantize", "silu_mul_quantize"),
    *("rms_norm", "add_rms_norm", "silu_mul"),
)

THROUGH_CPU = [
    *("quantize", "linear_w8a8_static", "linear_w4a8", "linear_llm_int8"),
    *("quantize_static", "rms_norm_quantize", "add_rms_norm_quantize", "silu_mul_quantize"),
    *("rms_norm", "add_rms_norm", "silu_mul"),
    # Packed weights are the CPU's; that they meet CUDA tensors is not meant to happen.
    *("pack_weight", "unpack_weight", "dequantize_packed"),
    *(
        "linear_packed",
        "linear_w8a8_packed",
        "linear_w8a8_static_packed",
        "linear_w4a8_packed",
        "linear_llm_int8_packed",
    ),
]


def _register() -> None:
    kernels = {name: _on_cpu(getattr(_ops, name)) for name in THROUGH_CPU}
    kernels |= COMPOSED
    for name in IN_LIBRARY if _ops.has_cuda() else ():
        del kernels[name]
    for name, kernel in kernels.items():
        torch.library.impl(f"octavo::{name}", "CUDA")(kernel)


_register()
