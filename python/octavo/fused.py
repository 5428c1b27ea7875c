"""Quantized activations for octavo::scaled_mm: with a static scale, or in one pass with what stands in front of a
product.

The results are the same bits on the CPU and on every GPU; docs/numerics.md says how they are computed. None of these
has a gradient.
"""

import torch

from . import ops  # noqa: F401  (registers the operators)


def quantize_static(x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """q = clamp(rint(x / scale), -128, 127) with one given scale. NaN gives 0, infinities the ends of the range.

    Args:
        x: [..., K], float32, float16 or bfloat16.
        scale: float32, one element, finite and greater than 0; on CUDA nobody looks.

    Returns:
        int8 [..., K].
    """
    return torch.ops.octavo.quantize_static(x, scale)


def rms_norm_quantize(
    x: torch.Tensor, weight: torch.Tensor, eps: float = 1e-6, residual: torch.Tensor | None = None
) -> tuple[torch.Tensor, ...]:
    """RMSNorm (Zhang and Sennrich, 2019), x / sqrt(mean(x²) + eps) · weight, quantized per token.

    Args:
        x: [..., K], float32, float16 or bfloat16.
        weight: [K], of x's dtype.
        eps: finite, at least 0.
        residual: added to x before, of its shape and dtype. The sum, rounded to that dtype, is what is normalized.

    Returns:
        q int8 [..., K] and scale float32 [..., 1]; and the sum, if there is a residual: the next one.
    """
    if residual is None:
        return torch.ops.octavo.rms_norm_quantize(x, weight, eps)
    return torch.ops.octavo.add_rms_norm_quantize(x, residual, weight, eps)


def silu_mul_quantize(gate_up: torch.Tensor, up: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """silu(gate) · up, silu(g) = g / (1 + exp(-g)), quantized per token.

    Args:
        gate_up: [..., 2K], gate first, float32, float16 or bfloat16; or gate [..., K], with
        up: [..., K], of the same dtype.

    Returns:
        q int8 [..., K] and scale float32 [..., 1].
    """
    return torch.ops.octavo.silu_mul_quantize(gate_up, up)
