"""What torch needs to know of the `octavo::` operators beside their kernels: output shapes, and gradients.

Importing this module loads the operators. They are called as torch.ops.octavo.<name>:

    quantize            weight [N, K] float → q int8 or uint8 [N, K], scale float32 [N, G], zero_point uint8 [N, G], [0]
    dequantize          q, scale, zero_point → [N, K] of the given dtype
    pack, unpack        q of up to 4 bits [N, K] ↔ uint8 [N, ceil(K / 2)], the low nibble first
    quantize_per_token  x [..., K] float → q int8 like x, scale float32 [..., 1], or [..., G] in groups along K
    quantize_static     x [..., K] float, scale float32 [1] → q int8 like x
    rms_norm_quantize   x [..., K] float, normalized and times weight [K], quantized per token → q, scale [..., 1];
                        add_rms_norm_quantize: that of sum = x + residual → q, scale, sum
    silu_mul_quantize   silu(gate) · up, quantized per token; without up, gate [..., 2K] holds both → q, scale [..., 1]
    rms_norm, add_rms_norm, silu_mul   the same rounded to x's dtype instead → y; y, sum; y
    linear              x [..., K] float · weight-only quantized [N, K] → [..., N] of x's dtype
    linear_joined       linear with the weights of several layers, lists of q, scale, zero_point and bias (or none):
                        their results side by side; one product where the weights are side by side in memory. No
                        gradient. linear_w8a8_joined: the same for linear_w8a8
    linear_w8a8         x [..., K] float, quantized per token · int8 [N, K] → [..., N] of x's dtype
    linear_w8a8_static  the same with one scale of x, float32 [1]
    linear_w4a8         linear with x quantized to int8 per token and group
    linear_llm_int8     linear_w8a8 with outliers of x in floating point
    scaled_mm           x int8 [..., K] · w int8 [N, K] with scales → float, or the raw int32 sums. constant_w=True: on
                        CUDA, no kernel that the stream has not ended writes w, which may then be read early
    matmul              alpha · x int8 [M, K] · y int8 [N, K] → bfloat16 [M, N]

    best_layout         PACKED where this machine's kernels read packed weights for an operation, else ROW_MAJOR
    pack_weight         q, scale, zero_point → uint8 [packed_size]: the weight as those kernels read it, with a header
    unpack_weight       the exact inverse; dequantize_packed → [N, K] of the given dtype
    linear_packed       x [..., K] float · packed weight [N, K] → [..., N] of x's dtype: as linear; and in the same
                        way linear_w8a8_packed, linear_w8a8_static_packed, linear_w4a8_packed, linear_llm_int8_packed

    has_cuda            whether the library was built with CUDA kernels
    select_kernel       the name of the kernel that a product runs on

Packed weights belong to the process that packed them; what is stored is row-major. The products with them have no
gradient, which keeps Python out of their calls; packed_product_with_gradient has. All products are with the transposed
second operand. G = ceil(K / group_size), 1 per channel (group_size -1); per tensor (group_size 0) there is one scale.
linear and dequantize take scales in float16 and bfloat16 too. On CUDA, linear reads those of x's dtype as they are, of
groups of 32, 64 or 128 and an even G; else, and on the CPU, it makes a float32 copy of them at every call.
Errors are RuntimeError.
"""

from collections.abc import Callable, Sequence

import torch

from . import _cuda  # noqa: F401  (registers the operators, and their kernels on CUDA)

_INTEGER_GRADIENT = (
    "octavo::{}: int8 activations have no gradient; pass straight_through=True to the module, or use a weight-only "
    "scheme such as w8a16"
)


# `op` of best_layout and select_kernel, and the product of each with a packed weight; that with static scales, whose
# `op` is SCALED_MM; layouts.
LINEAR, SCALED_MM, LINEAR_W4A8, LINEAR_LLM_INT8, STATIC_SCALED_MM = range(5)
PACKED_PRODUCTS = (
    torch.ops.octavo.linear_packed.default,
    torch.ops.octavo.linear_w8a8_packed.default,
    torch.ops.octavo.linear_w4a8_packed.default,
    torch.ops.octavo.linear_llm_int8_packed.default,
    torch.ops.octavo.linear_w8a8_static_packed.default,
)
_PACKED_NAMES = tuple(product.name().removeprefix("octavo::") for product in PACKED_PRODUCTS)
ROW_MAJOR, PACKED = range(2)


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


@torch.library.register_fake("octavo::pack_weight")
def _(q, scale, zero_point, num_bits, group_size, packed, K):
    size = torch.ops.octavo.packed_size(num_bits, zero_point is None, group_size, q.shape[0], K)
    return q.new_empty((size,), dtype=torch.uint8)


@torch.library.register_fake("octavo::unpack_weight")
def _(weight, N, K, symmetric, group_size, packed):
    scale_shape = (1, 1) if group_size == 0 else (N, groups(K, group_size))
    q_dtype = torch.int8 if symmetric and not packed else torch.uint8
    q = weight.new_empty((N, (K + 1) // 2 if packed else K), dtype=q_dtype)
    scale = weight.new_empty(scale_shape, dtype=torch.float32)
    return q, scale, weight.new_empty((0,) if symmetric else scale_shape, dtype=torch.uint8)


@torch.library.register_fake("octavo::dequantize_packed")
def _(weight, N, K, dtype):
    return weight.new_empty((N, K), dtype=dtype)


def _fake_packed_product(x, weight, bias, N, *options):
    return x.new_empty((*x.shape[:-1], N))


for _product in PACKED_PRODUCTS:
    torch.library.register_fake(_product, _fake_packed_product)


@torch.library.register_fake("octavo::quantize_per_token")
def _(x, group_size):
    scale_shape = (*x.shape[:-1], groups(x.shape[-1], group_size))
    return x.new_empty(x.shape, dtype=torch.int8), x.new_empty(scale_shape, dtype=torch.float32)


@torch.library.register_fake("octavo::quantize_static")
def _(x, scale):
    return x.new_empty(x.shape, dtype=torch.int8)


def _fake_rows(x, K):
    return x.new_empty((*x.shape[:-1], K), dtype=torch.int8), x.new_empty((*x.shape[:-1], 1), dtype=torch.float32)


@torch.library.register_fake("octavo::rms_norm_quantize")
def _(x, weight, eps):
    return _fake_rows(x, x.shape[-1])


@torch.library.register_fake("octavo::add_rms_norm_quantize")
def _(x, residual, weight, eps):
    return *_fake_rows(x, x.shape[-1]), x.new_empty(x.shape)


@torch.library.register_fake("octavo::silu_mul_quantize")
def _(gate, up):
    return _fake_rows(gate, gate.shape[-1] // 2 if up is None else gate.shape[-1])


@torch.library.register_fake("octavo::rms_norm")
def _(x, weight, eps):
    return x.new_empty(x.shape)


@torch.library.register_fake("octavo::add_rms_norm")
def _(x, residual, weight, eps):
    torch._check(residual.shape == x.shape, lambda: "octavo: residual has another shape than x")
    return x.new_empty(x.shape), x.new_empty(x.shape)


@torch.library.register_fake("octavo::silu_mul")
def _(gate, up):
    torch._check(up is None or up.shape == gate.shape, lambda: "octavo: up has another shape than gate")
    return gate.new_empty((*gate.shape[:-1], gate.shape[-1] // 2 if up is None else gate.shape[-1]))


@torch.library.register_fake("octavo::linear")
def _(x, q, scale, zero_point, bias, num_bits, group_size, packed):
    return x.new_empty((*x.shape[:-1], q.shape[0]))


@torch.library.register_fake("octavo::linear_joined")
@torch.library.register_fake("octavo::linear_w8a8_joined")
def _(x, q, *_):
    return x.new_empty((*x.shape[:-1], sum(part.shape[0] for part in q)))


@torch.library.register_fake("octavo::linear_w8a8")
def _(x, q, scale, bias):
    return x.new_empty((*x.shape[:-1], q.shape[0]))


@torch.library.register_fake("octavo::linear_w8a8_static")
def _(x, q, scale, bias, x_scale):
    return x.new_empty((*x.shape[:-1], q.shape[0]))


@torch.library.register_fake("octavo::linear_w4a8")
def _(x, q, scale, zero_point, bias, num_bits, group_size, packed):
    return x.new_empty((*x.shape[:-1], q.shape[0]))


@torch.library.register_fake("octavo::linear_llm_int8")
def _(x, q, scale, bias, threshold, rule):
    return x.new_empty((*x.shape[:-1], q.shape[0]))


@torch.library.register_fake("octavo::scaled_mm")
def _(x, w, x_scale, w_scale, bias, out_dtype, constant_w=False):
    return x.new_empty((*x.shape[:-1], w.shape[0]), dtype=out_dtype)


@torch.library.register_fake("octavo::matmul")
def _(x, y, alpha):
    return x.new_empty((x.shape[0], y.shape[0]), dtype=torch.bfloat16)


@torch.library.custom_op("octavo::refuse_gradient", mutates_args=())
def _refuse_gradient(grad: torch.Tensor, shape: Sequence[int], dtype: torch.dtype, name: str) -> torch.Tensor:
    """The gradient of what has none: raises RuntimeError. An operator, because compilers trace the backward pass of
    whatever requires a gradient, also where nobody will run it; they find a node here, and only running it raises."""
    raise RuntimeError(_INTEGER_GRADIENT.format(name))


@_refuse_gradient.register_fake
def _(grad, shape, dtype, name):
    return grad.new_empty(shape, dtype=dtype)


def _bias_gradient(grad: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Of bias in y = x · ŵᵀ + bias: dy summed over its leading dimensions."""
    return grad.reshape(-1, grad.shape[-1]).sum(0).to(dtype)


def _save_bias(ctx, bias) -> None:
    ctx.bias_dtype = bias.dtype if bias is not None and bias.requires_grad else None


def _gradients(
    ctx, grad: torch.Tensor, grad_x: Callable[[], torch.Tensor] | None
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """Gradients of x, where it is asked for, and of bias."""
    return (
        None if grad_x is None else grad_x(),
        None if ctx.bias_dtype is None else _bias_gradient(grad, ctx.bias_dtype),
    )


def _save_weight(ctx, x, q, scale, zero_point, bias, num_bits, group_size, packed) -> None:
    ctx.save_for_backward(q, scale, zero_point)
    ctx.format = (num_bits, group_size, packed, x.shape[-1])
    _save_bias(ctx, bias)


def _weight_gradients(ctx, grad):
    """_gradients with the row-major weight that _save_weight left: that of x is dy · ŵ."""

    def grad_x():
        return grad @ torch.ops.octavo.dequantize(*ctx.saved_tensors, *ctx.format, grad.dtype)

    return _gradients(ctx, grad, grad_x if ctx.needs_input_grad[0] else None)


def _linear_backward(ctx, grad):
    grad_x, grad_bias = _weight_gradients(ctx, grad)
    return grad_x, None, None, None, grad_bias, None, None, None


torch.library.register_autograd(
    "octavo::linear", _linear_backward, setup_context=lambda ctx, inputs, output: _save_weight(ctx, *inputs)
)


def _register_integer_gradient(name: str, bias: int | None = None) -> None:
    """Only `bias`, the argument of that number, has a gradient."""

    def setup_context(ctx, inputs, output):
        ctx.like = [(i.shape, i.dtype) if isinstance(i, torch.Tensor) else None for i in inputs]

    def backward(ctx, *grads):
        grad, result = grads[-1], [None] * len(ctx.like)
        for i, needed in enumerate(ctx.needs_input_grad):
            if needed and i == bias:
                result[i] = _bias_gradient(grad, ctx.like[i][1])
            elif needed:
                result[i] = _refuse_gradient(grad, *ctx.like[i], name)
        return tuple(result)

    torch.library.register_autograd(f"octavo::{name}", backward, setup_context=setup_context)


_BIAS_ARGUMENT = dict(scaled_mm=4, linear_w8a8=3, linear_w8a8_static=3, linear_w4a8=4, linear_llm_int8=3)
for _name in (
    *("quantize_per_token", "quantize_static", "rms_norm_quantize", "add_rms_norm_quantize", "silu_mul_quantize"),
    *_BIAS_ARGUMENT,
):
    _register_integer_gradient(_name, _BIAS_ARGUMENT.get(_name))


class AttachGradient(torch.autograd.Function):
    """The straight-through estimator: the value of `y`, computed with quantized activations, with the gradients that
    the product of the unquantized x with the same weight has (Bengio et al., 2013)."""

    @staticmethod
    def forward(ctx, x, bias, y, q, scale, zero_point, num_bits, group_size, packed):
        _save_weight(ctx, x, q, scale, zero_point, bias, num_bits, group_size, packed)
        return y.view_as(y)

    @staticmethod
    def backward(ctx, grad):
        return (*_weight_gradients(ctx, grad), None, None, None, None, None, None, None)


class _PackedProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx, op, straight_through, x, weight, bias, N, *options):
        ctx.op, ctx.shape, ctx.options = op, (N, x.shape[-1]), len(options)
        ctx.refused = op != LINEAR and not straight_through
        ctx.save_for_backward(weight)
        _save_bias(ctx, bias)
        return PACKED_PRODUCTS[op](x, weight, bias, N, *options)

    @staticmethod
    def backward(ctx, grad):
        (weight,) = ctx.saved_tensors

        def grad_x():
            if ctx.refused:
                return _refuse_gradient(grad, (*grad.shape[:-1], ctx.shape[1]), grad.dtype, _PACKED_NAMES[ctx.op])
            return grad @ torch.ops.octavo.dequantize_packed(weight, *ctx.shape, grad.dtype)

        grad_x, grad_bias = _gradients(ctx, grad, grad_x if ctx.needs_input_grad[2] else None)
        return (None, None, grad_x, None, grad_bias, None, *[None] * ctx.options)


def packed_product_with_gradient(op: int, *arguments, straight_through: bool = False) -> torch.Tensor:
    """PACKED_PRODUCTS[op](*arguments) with the gradients of x and bias. That of an integer product's x is the
    straight-through estimator's; unless that is asked for, the backward pass raises RuntimeError where x needs one."""
    return _PackedProduct.apply(op, straight_through, *arguments)
