"""What stands in front of a product: for octavo::scaled_mm quantized in the same pass, or with a static scale; for
weight-only products in floating point, by kernels behind which theirs start early.

The results are the same bits on the CPU and on every GPU; docs/numerics.md says how they are computed. Those that
quantize have no gradient.
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


def rms_norm(
    x: torch.Tensor, weight: torch.Tensor, eps: float = 1e-6, residual: torch.Tensor | None = None
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    """y of rms_norm_quantize, rounded once to x's dtype instead.

    Returns:
        y like x; and the sum, if there is a residual.
    """
    if residual is None:
        return torch.ops.octavo.rms_norm(x, weight, eps)
    return torch.ops.octavo.add_rms_norm(x, residual, weight, eps)


def silu_mul_quantize(gate_up: torch.Tensor, up: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """silu(gate) · up, silu(g) = g / (1 + exp(-g)), quantized per token.

    Args:
        gate_up: [..., 2K], gate first, float32, float16 or bfloat16; or gate [..., K], with
        up: [..., K], of the same dtype.

    Returns:
        q int8 [..., K] and scale float32 [..., 1].
    """
    return torch.ops.octavo.silu_mul_quantize(gate_up, up)


def silu_mul(gate_up: torch.Tensor, up: torch.Tensor | None = None) -> torch.Tensor:
    """silu(gate) · up as in silu_mul_quantize, rounded once to its dtype instead: [..., K]."""
    return torch.ops.octavo.silu_mul(gate_up, up)


# --- Gradients, computed in float32 by torch's operators --------------------------------------------------------------


def _rms_norm_gradients(ctx, grad):
    """Of y in x, or in the sum, and in weight, where that trains."""
    x, weight = ctx.saved_tensors
    wide, grad = x.float(), grad.float()
    factor = torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + ctx.eps)
    normalized = wide * factor
    scaled = grad * weight.float()
    grad_x = factor * (scaled - normalized * (scaled * normalized).mean(-1, keepdim=True))
    if not ctx.needs_input_grad[-2]:
        return grad_x.to(x.dtype), None
    grad_weight = (grad * normalized).reshape(-1, x.shape[-1]).sum(0)
    return grad_x.to(x.dtype), grad_weight.to(weight.dtype)


def _save_row(ctx, inputs, output) -> None:
    """What is normalized: x, or the sum that add_rms_norm returns."""
    *_, weight, ctx.eps = inputs
    ctx.save_for_backward(inputs[0] if isinstance(output, torch.Tensor) else output[1], weight)


def _rms_norm_backward(ctx, grad):
    return *_rms_norm_gradients(ctx, grad), None


def _add_rms_norm_backward(ctx, grad, grad_sum):
    grad_x, grad_weight = _rms_norm_gradients(ctx, grad)
    grad_x = grad_x + grad_sum
    return grad_x, grad_x, grad_weight, None


def _silu_mul_backward(ctx, grad):
    gate, up = ctx.saved_tensors
    parts = gate.chunk(2, -1) if up is None else (gate, up)
    wide, factor, grad = (t.float() for t in (*parts, grad))
    sigmoid = torch.sigmoid(wide)
    grad_gate = (grad * factor * sigmoid * (1 + wide * (1 - sigmoid))).to(gate.dtype)
    grad_up = (grad * wide * sigmoid).to(gate.dtype)
    return (torch.cat((grad_gate, grad_up), -1), None) if up is None else (grad_gate, grad_up)


torch.library.register_autograd("octavo::rms_norm", _rms_norm_backward, setup_context=_save_row)
torch.library.register_autograd("octavo::add_rms_norm", _add_rms_norm_backward, setup_context=_save_row)
torch.library.register_autograd(
    "octavo::silu_mul",
    _silu_mul_backward,
    setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*inputs),
)
