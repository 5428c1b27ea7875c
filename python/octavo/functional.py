"""Quantization utilities and products on plain tensors, with the names and arguments that INT8 libraries share."""

import math

import torch
import torch.nn.functional as F

from . import ops  # noqa: F401  (registers the operators)

_ABSMAX = 0  # `clip` of octavo::quantize


def _quantize_rows(rows: torch.Tensor, bits: int) -> tuple[torch.Tensor, torch.Tensor]:
    """rows [R, C] → q int8 [R, C], scale float32 [R]."""
    q, scale, _ = torch.ops.octavo.quantize(rows.detach().contiguous(), bits, True, -1, _ABSMAX, 100.0, torch.float32)
    return q, scale.reshape(-1)


def quantize_symmetric(
    tensor: torch.Tensor, bits: int = 8, dim: int | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Quantizes a tensor symmetrically: q = clamp(rint(tensor / scale)), scale = absmax / (2^(bits-1) - 1).

    Args:
        tensor: float32, float16 or bfloat16, of any shape.
        bits: 2 … 8.
        dim: the axis over which the absolute maximum is taken; every index of the other axes has its own scale. None:
            one scale for the whole tensor.

    Returns:
        q, int8, of the tensor's shape; and scale, float32, of the shape that the other axes have: [N] for [N, K] with
        dim=1, [] with dim=None. `scale.unsqueeze(dim)` broadcasts against q, which is what dequantize does.

    Raises:
        RuntimeError: NaN or Inf in the tensor, another dtype, or bits out of range.
    """
    if dim is None:
        q, scale = _quantize_rows(tensor.reshape(1, -1), bits)
        return q.reshape(tensor.shape), scale.reshape(())
    moved = tensor.movedim(dim, -1)
    q, scale = _quantize_rows(moved.reshape(math.prod(moved.shape[:-1]), moved.shape[-1]), bits)
    return q.reshape(moved.shape).movedim(-1, dim).contiguous(), scale.reshape(moved.shape[:-1])


def dequantize(
    quantized: torch.Tensor, scale: torch.Tensor, dtype: torch.dtype = torch.float16, dim: int | None = None
) -> torch.Tensor:
    """quantized · scale, computed in float32 and rounded once to dtype.

    Args:
        quantized: int8, of any shape.
        scale: as quantize_symmetric returns it for the same dim. With dim=None also [N] for quantized [N, K] (as
            quantize_weight_per_channel returns it), or any shape of quantized's rank that broadcasts.

    Raises:
        ValueError: the scale's shape does not fit.
    """
    return (quantized.float() * _align_scale(quantized, scale, dim)).to(dtype)


def _align_scale(quantized: torch.Tensor, scale: torch.Tensor, dim: int | None) -> torch.Tensor:
    """The scale, float32, in a shape that broadcasts against `quantized` along the right axes."""
    scale = scale.float()
    if scale.numel() == 1:
        return scale.reshape(())
    if dim is not None:
        dim %= quantized.ndim
        if scale.shape == quantized.shape[:dim] + quantized.shape[dim + 1 :]:
            return scale.unsqueeze(dim)
    elif scale.ndim == 1 and quantized.ndim == 2 and scale.shape[0] == quantized.shape[0]:
        return scale.unsqueeze(1)
    if scale.ndim == quantized.ndim and all(s in (1, q) for s, q in zip(scale.shape, quantized.shape, strict=True)):
        return scale
    raise ValueError(
        f"scale of shape {list(scale.shape)} does not fit quantized of shape {list(quantized.shape)} with dim={dim}; "
        "expected one element, or the shape of quantized without axis dim"
    )


def quantize_weight_per_channel(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """weight [N, K] → int8 [N, K] and scale float32 [N], one per output channel."""
    if weight.ndim != 2:
        raise ValueError(f"expected a weight of shape [N, K], not {list(weight.shape)}")
    return quantize_symmetric(weight, bits=8, dim=1)


def calculate_quantization_error(
    original: torch.Tensor, quantized: torch.Tensor, scale: torch.Tensor, dim: int | None = None
) -> dict[str, float]:
    """How far quantized · scale is from the original; sums in float64.

    Returns:
        max_abs_error, mean_abs_error: of |w - ŵ|;
        relative_error_pct: the largest |w - ŵ| / |w| in percent among the |w| above 10 % of the absolute maximum;
        snr_db: 10 · log10(Σw² / Σ(w - ŵ)²), inf when exact.
    """
    w = original.detach().double()
    error = (w - dequantize(quantized, scale, torch.float32, dim).double()).abs()
    magnitude = w.abs()
    if w.numel() == 0:
        return {"max_abs_error": 0.0, "mean_abs_error": 0.0, "relative_error_pct": 0.0, "snr_db": math.inf}
    large = magnitude > 0.1 * magnitude.max()
    noise = error.square().sum().item()
    signal = w.square().sum().item()
    if noise == 0:
        snr_db = math.inf
    else:
        snr_db = 10 * math.log10(signal / noise) if signal > 0 else -math.inf
    return {
        "max_abs_error": error.max().item(),
        "mean_abs_error": error.mean().item(),
        "relative_error_pct": 100 * (error[large] / magnitude[large]).max().item() if large.any() else 0.0,
        "snr_db": snr_db,
    }


def int8_gemm(
    x: torch.Tensor,
    weight_int8: torch.Tensor,
    scale: torch.Tensor,
    bias: torch.Tensor | None = None,
    weight_transposed: torch.Tensor | None = None,
    scale_fp16: torch.Tensor | None = None,
    use_cublas: bool | None = None,
) -> torch.Tensor:
    """x · (weight_int8 · scale)ᵀ + bias on row-major tensors of one device, without ever storing the dequantized weight
    where a kernel allows. Sums are float32, rounded once; which products on CUDA round weights first, docs/numerics.md
    says. x and bias have gradients.

    Args:
        x: [..., K], float32, float16 or bfloat16.
        weight_int8: int8 [N, K].
        scale: float32 [N], [N, 1], or one element.
        bias: [N], or None.
        weight_transposed, scale_fp16, use_cublas: accepted for compatibility; nothing needs them here.

    Returns:
        [..., N] of x's dtype.

    Raises:
        RuntimeError: shapes, dtypes or devices that do not fit.
    """
    del weight_transposed, scale_fp16, use_cublas
    per_tensor = scale.numel() == 1 and weight_int8.shape[0] != 1
    return torch.ops.octavo.linear(x, weight_int8, scale, None, bias, 8, 0 if per_tensor else -1, False)


def int8_gemm_torch(
    x: torch.Tensor, weight_int8: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """What int8_gemm computes, by torch's own operators: the weight is dequantized to x's dtype, then multiplied."""
    return F.linear(x, dequantize(weight_int8, scale, x.dtype), None if bias is None else bias.to(x.dtype))


def matmul(x: torch.Tensor, y: torch.Tensor, alpha: float = 1.0) -> torch.Tensor:
    """alpha · x · yᵀ: x int8 [M, K], y int8 [N, K] → bfloat16 [M, N]. Integer sums are exact; K is at most 131071."""
    return torch.ops.octavo.matmul(x, y, alpha)
