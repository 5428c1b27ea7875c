"""What torch needs to know of the `octavo::` operators beside their kernels: output shapes, and gradients.

Importing this module loads the operators. They are called as torch.ops.octavo.<name>:

    quantize            weight [N, K] float → q int8 or uint8 [N, K], scale float32 [N, G], zero_point uint8 [N, G], [0]
    dequantize          q, scale, zero_point → [N, K] of the given dtype
    pack, unpack        q of up to 4 bits [N, K] ↔ uint8 [N, ceil(K / 2)], the low nibble first
    quantize_per_token  x [..., K] float → q int8 like x, scale float32 [..., 1], or [..., G] in groups along K
    linear              x [..., K] float · weight-only quantized [N, K] → [..., N] of x's dtype
    linear_w4a8         the same with x quantized to int8 per token and group
    linear_llm_int8     the same with x quantized per token but for its outliers
    scaled_mm           x int8 [M, K] · w int8 [N, K] with scales → float, or the raw int32 sums
    matmul              alpha · x int8 [M, K] · y int8 [N, K] → bfloat16 [M, N]

All products are with the transposed second operand. G = ceil(K / group_size), 1 per channel (group_size -1); per tensor
(group_size 0) there is one scale. Errors are RuntimeError.
"""

import torch

from . import _cuda  # noqa: F401  (registers the operators, and their kernels on CUDA)

_INTEGER_GRADIENT = (
    "octavo::{}: products with int8 activations have no gradient; pass straight_through=True to the module, or use a "
    "weight-only scheme such as w8a16"
)


def groups(K: int, group_size: int) -> int:
    """Number of scales along K."""
    return -(-K // group_size) if group_size > 0 else 1


@torch.library.register_fake("octavo::quantize")
def _(weight, num_bits, symmetric, group_size, clip, percentile, scale_dtype):
    N, K = weight.shape
    scale_shape = (1, 1) if group_size == 0 else (N, groups(K, group_size))
    q = weight.new_empty((N, K), dtype=torch.int8 if symmetric else torch.uint8)
    scale = weight.new_empty(scale_shape, dtype=torch.float32)
    return q, scale, weight.new_empty((0,) if symmetric else scale_shape, dtype=torch.uint8)


@torch.library.register_fake("octavo::dequantize")
def _(q, scale, zero_point, num_bits, group_size, packed, K, dtype):
    return q.new_empty((q.shape[0], K), dtype=dtype)


@torch.library.register_fake("octavo::pack")
def _(q):
    return q.new_empty((q.shape[0], (q.shape[1] + 1) // 2), dtype=torch.uint8)


@torch.library.register_fake("octavo::unpack")
def _(packed, K, symmetric):
    return packed.new_empty((packed.shape[0], K), dtype=torch.int8 if symmetric else torch.uint8)


@torch.library.register_fake("octavo::quantize_per_token")
def _(x, group_size):
    scale_shape = (*x.shape[:-1], groups(x.shape[-1], group_size))
    return x.new_empty(x.shape, dtype=torch.int8), x.new_empty(scale_shape, dtype=torch.float32)


@torch.library.register_fake("octavo::linear")
def _(x, q, scale, zero_point, bias, num_bits, group_size, packed):
    return x.new_empty((*x.shape[:-1], q.shape[0]))


@torch.library.register_fake("octavo::linear_w4a8")
def _(x, q, scale, zero_point, bias, num_bits, group_size, packed):
    return x.new_empty((*x.shape[:-1], q.shape[0]))


@torch.library.register_fake("octavo::linear_llm_int8")
def _(x, q, scale, bias, threshold, rule):
    return x.new_empty((*x.shape[:-1], q.shape[0]))


@torch.library.register_fake("octavo::scaled_mm")
def _(x, w, x_scale, w_scale, bias, out_dtype):
    return x.new_empty((*x.shape[:-1], w.shape[0]), dtype=out_dtype)


@torch.library.register_fake("octavo::matmul")
def _(x, y, alpha):
    return x.new_empty((x.shape[0], y.shape[0]), dtype=torch.bfloat16)


def weight_gradients(ctx, grad: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """Gradients of x and bias of y = x · ŵᵀ + bias: dy · ŵ, and dy summed over its leading dimensions. The context
    holds the quantized weight, K and the bias's dtype, as save_weight leaves it."""
    q, scale, zero_point = ctx.saved_tensors
    grad_x = grad_bias = None
    if ctx.needs_input_grad[0]:
        weight = torch.ops.octavo.dequantize(
            q, scale, zero_point, ctx.num_bits, ctx.group_size, ctx.packed, ctx.K, grad.dtype
        )
        grad_x = grad @ weight
    if ctx.bias_dtype is not None:
        grad_bias = grad.reshape(-1, grad.shape[-1]).sum(0).to(ctx.bias_dtype)
    return grad_x, grad_bias


def save_weight(ctx, x, q, scale, zero_point, bias, num_bits, group_size, packed) -> None:
    """Keeps what weight_gradients needs."""
    ctx.save_for_backward(q, scale, zero_point)
    ctx.num_bits, ctx.group_size, ctx.packed, ctx.K = num_bits, group_size, packed, x.shape[-1]
    ctx.bias_dtype = bias.dtype if bias is not None and bias.requires_grad else None


def _linear_backward(ctx, grad):
    grad_x, grad_bias = weight_gradients(ctx, grad)
    return grad_x, None, None, None, grad_bias, None, None, None


torch.library.register_autograd(
    "octavo::linear", _linear_backward, setup_context=lambda ctx, inputs, output: save_weight(ctx, *inputs)
)


def _refuse_gradient(name: str) -> None:
    def backward(ctx, *grads):
        raise RuntimeError(_INTEGER_GRADIENT.format(name))

    torch.library.register_autograd(f"octavo::{name}", backward)


for _name in ("quantize_per_token", "scaled_mm", "linear_w4a8", "linear_llm_int8"):
    _refuse_gradient(_name)


class AttachGradient(torch.autograd.Function):
    """The straight-through estimator: the value of `y`, computed with quantized activations, with the gradients that
    the product of the unquantized x with the same weight has (Bengio et al., 2013)."""

    @staticmethod
    def forward(ctx, x, bias, y, q, scale, zero_point, num_bits, group_size, packed):
        save_weight(ctx, x, q, scale, zero_point, bias, num_bits, group_size, packed)
        return y.view_as(y)

    @staticmethod
    def backward(ctx, grad):
        return (*weight_gradients(ctx, grad), None, None, None, None, None, None, None)
