"""Linear layers with quantized weights, in place of torch.nn.Linear."""

import logging
from functools import cache

import torch
from torch import nn

from . import ops
from .packed import PACKED_WEIGHT, PackableWeight
from .scheme import Activation, Scheme, parse_scheme

logger = logging.getLogger("octavo")

_CLIPS = {"absmax": 0, "mse": 1, "percentile": 2}
_RULES = {"token": 0, "batch": 1}
_MANY_ROWS = 4096  # of a long prompt


class QuantizedLinear(PackableWeight):
    """y = x · ŵᵀ + bias with a quantized weight: x [..., K] float32, float16 or bfloat16 → y [..., N] of x's dtype.

    This class computes the weight-only schemes (w8a16, w4a16-g64-asym …); its subclasses those that also quantize
    activations. QuantizedLinear.from_linear chooses the class that a scheme needs.

    The state, of which the bias is a parameter and the rest are buffers:
        weight_int8  int8 [N, K], uint8 when the scheme is asymmetric; or, for schemes of up to 4 bits,
        weight_int4  uint8 [N, ceil(K / 2)], two weights a byte, that of the lower k in the lower nibble, stored + 8
                     when symmetric
        scale        float32 [N]; [N, ceil(K / group_size)] in groups; [1] per tensor. No cast of the module changes its
                     values. On CUDA, from compute capability 9.0 on, those of an even number of groups of 32, 64 or 128
                     are held in the module's dtype where it has them exactly, as it has those that quantize_weights
                     makes; x of another dtype, as under autocast, then costs a conversion of them at every call
        zero_point   uint8, shaped like scale; asymmetric schemes only
        bias         [N], or None

    On a CPU whose kernels read packed weights the module holds one packed copy instead, and the tensors above are what
    its attributes and state dict say: see PackableWeight.

    Args:
        in_features, out_features: K and N.
        bias: whether there is a bias.
        scheme: one of those the class computes.
        device, dtype: of the state; dtype is the bias's, and that of `weight`.

    A new module has no weight yet: quantize_weights or load_state_dict gives it one. On the meta device it counts as
    waiting to be filled from a checkpoint.
    """

    default_scheme = "w8a16"
    straight_through = False
    _product = ops.LINEAR

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        scheme: str | Scheme | None = None,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        scheme = scheme or self.default_scheme
        scheme = scheme if isinstance(scheme, Scheme) else parse_scheme(scheme)
        needed = linear_class(scheme)
        if needed._op != self._op:
            raise ValueError(f"{type(self).__name__} does not compute {scheme}; {needed.__name__} does")
        dtype = dtype or torch.get_default_dtype()
        super().__init__(out_features, in_features, scheme, dtype, device)
        bias = nn.Parameter(torch.zeros(out_features, dtype=dtype, device=device)) if bias else None
        self.register_parameter("bias", bias)

    @classmethod
    def from_linear(
        cls,
        linear: nn.Linear,
        scheme: str | None = None,
        *,
        clip: str = "absmax",
        percentile: float = 99.9,
        **options,
    ) -> "QuantizedLinear":
        """A quantized copy of a Linear, on its device, which keeps (and shares) its bias.

        Args:
            linear: weight [N, K] float32, float16 or bfloat16.
            scheme: QuantizedLinear takes any; a subclass, those that it computes. None: the class's default.
            clip, percentile: see quantize_weights.
            options: further arguments of the class that the scheme needs, such as LLMInt8Linear's threshold.

        Raises:
            ValueError: an unknown scheme, or one that the class does not compute.
            RuntimeError: NaN or Inf in the weight.
        """
        return cls.from_weight(linear.weight, linear.bias, scheme, clip=clip, percentile=percentile, **options).train(
            linear.training
        )

    @classmethod
    def from_weight(
        cls,
        weight: torch.Tensor,
        bias: nn.Parameter | None = None,
        scheme: str | None = None,
        *,
        clip: str = "absmax",
        percentile: float = 99.9,
        **options,
    ) -> "QuantizedLinear":
        """from_linear for a bare weight [N, K] and bias [N]."""
        parsed = parse_scheme(scheme or cls.default_scheme)
        target = linear_class(parsed) if cls is QuantizedLinear else cls
        N, K = weight.shape
        # On the meta device first: the buffers are made once, by the quantizer.
        module = target(K, N, bias=False, scheme=parsed, device="meta", dtype=weight.dtype, **options)
        module._set_weight(weight, clip, percentile)
        module.bias = bias
        return module

    def quantize_weights(self, weight: torch.Tensor, clip: str = "absmax", percentile: float = 99.9) -> None:
        """Quantizes a weight [N, K] (float32, float16 or bfloat16) into this module, on the module's device.

        Scales are rounded to the weight's type (not to that of the module), as `octavo quantize` stores them: both give
        the same weights.

        Args:
            clip: how the range that a scale covers is chosen: "absmax", all of it; "mse", what gives the least squared
                error; "percentile", the given percentile of |w|.
            percentile: in (0, 100].

        Raises:
            ValueError: another shape, or an unknown clip.
            RuntimeError: NaN or Inf in the weight, with row and column.
        """
        expected = (self.out_features, self.in_features)
        if tuple(weight.shape) != expected:
            raise ValueError(f"expected a weight of shape {list(expected)}, not {list(weight.shape)}")
        self._set_weight(weight if self._device.type == "meta" else weight.to(self._device), clip, percentile)

    def _set_weight(self, weight: torch.Tensor, clip: str, percentile: float) -> None:
        if clip not in _CLIPS:
            raise ValueError(f"clip is one of {', '.join(_CLIPS)}, not {clip!r}")
        scheme = self.scheme
        q, scale, zero_point = torch.ops.octavo.quantize(
            weight.detach().contiguous(),
            scheme.num_bits,
            scheme.symmetric,
            scheme.group_size,
            _CLIPS[clip],
            percentile,
            weight.dtype,
        )
        q = torch.ops.octavo.pack(q) if scheme.packed else q
        self._hold_row_major(self._named(q, scale, None if scheme.symmetric else zero_point))
        self._has_weight = True
        self.pack()

    @property
    def weight(self) -> torch.Tensor:
        """The dequantized weight [N, K] in the module's dtype: computed at each access, for inspection and for code
        that asks a Linear for its weight's dtype, device or shape."""
        return self._dequantized(self.dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        packed = self._buffers.get(PACKED_WEIGHT)
        if packed is None and not (self._settled or torch.compiler.is_compiling()):
            self.pack()
            packed = self._packed
        if packed is None:
            return self._row_major_forward(x)
        bias = self._parameters["bias"]
        arguments = (x, packed, bias, self.out_features, *self._options())
        if torch.is_grad_enabled() and (x.requires_grad or (bias is not None and bias.requires_grad)):
            return ops.packed_product_with_gradient(self._product, *arguments, straight_through=self.straight_through)
        return ops.PACKED_PRODUCTS[self._product](*arguments)

    def _options(self) -> tuple:
        """Arguments that only this class's product has."""
        return ()

    def _row_major_forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self._has_weight:
            raise RuntimeError(
                f"{type(self).__name__} has no weight yet: call quantize_weights or load a state_dict first"
            )
        q, scale, zero_point = self._row_major().values()
        return self._row_major_product(x, q, scale, zero_point)

    def _row_major_product(self, x, q, scale, zero_point) -> torch.Tensor:
        s = self.scheme
        return torch.ops.octavo.linear(x, q, scale, zero_point, self.bias, s.num_bits, s.group_size, s.packed)

    def pack(self) -> None:
        super().pack()
        if self._settled and self._packed is None:
            kernel = self._kernel(self.dtype, _MANY_ROWS)
            shape = (self.out_features, self.in_features)
            _announce_fallback(type(self).__name__, kernel, self.scheme, *shape, self.dtype)

    def _kernel(self, dtype: torch.dtype, rows: int = 1) -> str:
        """Name of the kernel that a product with rows of x of this dtype runs on; "" when there is none."""
        s, device = self.scheme, self._device
        if device.type == "meta":
            return ""
        layout = ops.ROW_MAJOR if self._packed is None else ops.PACKED
        shape = (rows, self.out_features, self.in_features)
        try:
            return torch.ops.octavo.select_kernel(
                self._op, dtype, s.num_bits, s.symmetric, s.group_size, s.packed, layout, *shape, device.type == "cuda"
            )
        except RuntimeError:
            return ""

    def extra_repr(self) -> str:
        kernel = self._kernel(self.dtype)
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}, "
            f"scheme={self.scheme}" + (f", kernel={kernel}" if kernel else "")
        )


class Int8Linear(QuantizedLinear):
    """Weight-only INT8, one scale per output channel: scheme w8a16."""

    def __init__(self, in_features, out_features, bias=False, scheme=None, **factory):
        super().__init__(in_features, out_features, bias, scheme, **factory)
        if self.scheme.text != self.default_scheme:
            raise ValueError(
                f"{type(self).__name__} computes {self.default_scheme}; use QuantizedLinear for {self.scheme}"
            )


class WeightOnlyInt8Linear(Int8Linear):
    """Int8Linear under the name and with the constructor that textbooks use."""

    @classmethod
    def from_float(cls, linear: nn.Linear) -> "WeightOnlyInt8Linear":
        """The same as from_linear."""
        return cls.from_linear(linear)


class _IntegerLinear(QuantizedLinear):
    """Base of the modules that quantize their activations.

    Rounded activations have no gradient. With straight_through=True the backward pass treats the quantization of x as
    the identity, dx = dy · ŵ; without, it raises RuntimeError where x needs a gradient. The bias has its own.
    """

    def __init__(self, in_features, out_features, bias=True, scheme=None, *, straight_through=False, **factory):
        super().__init__(in_features, out_features, bias, scheme, **factory)
        self.straight_through = straight_through

    def _row_major_forward(self, x: torch.Tensor) -> torch.Tensor:
        if not (self.straight_through and torch.is_grad_enabled()):
            return super()._row_major_forward(x)
        with torch.no_grad():
            y = super()._row_major_forward(x)
        s = self.scheme
        weight = self._row_major().values()
        return ops.AttachGradient.apply(x, self.bias, y, *weight, s.num_bits, s.group_size, s.packed)


class DynamicInt8Linear(_IntegerLinear):
    """INT8 weights and activations, x quantized per token when the product is computed: schemes w8a8 and w8a8-tensor.

    Args:
        straight_through: whether the backward pass ignores the quantization of x; without, it raises RuntimeError
            where x needs a gradient.
        (others as in QuantizedLinear)
    """

    default_scheme = "w8a8"
    _op = _product = ops.SCALED_MM

    def _row_major_product(self, x, q, scale, zero_point):
        return torch.ops.octavo.linear_w8a8(x, q, scale, self.bias)


class StaticInt8Linear(_IntegerLinear):
    """INT8 weights and activations, x quantized with one scale for all: schemes w8a8-static and w8a8-tensor-static.

    The state has one buffer more, input_scale float32 [1], whose dtype no cast of the module changes.

    Args:
        input_scale: the scale of x from a calibration, such as the 99.9th percentile of |x| over 127; finite and
            greater than 0. None: load_state_dict or a checkpoint gives it.
        straight_through: as in DynamicInt8Linear.
        (others as in QuantizedLinear)
    """

    default_scheme = "w8a8-static"
    _op, _product = ops.SCALED_MM, ops.STATIC_SCALED_MM

    def __init__(self, in_features, out_features, bias=True, scheme=None, *, input_scale=None, device=None, **options):
        super().__init__(in_features, out_features, bias, scheme, device=device, **options)
        if input_scale is None:
            scale = torch.full((1,), float("nan"), device=device)
        else:
            scale = torch.as_tensor(input_scale, dtype=torch.float32).detach().reshape(1).clone()
            if not (scale > 0 and scale.isfinite()):
                raise ValueError(f"input_scale is {scale.item():g}; it must be finite and greater than 0")
            scale = scale.to(self.scale.device if not self.scale.is_meta else scale.device)
        self.register_buffer("input_scale", scale)

    def _set_weight(self, weight, clip, percentile):
        if self.input_scale.is_meta:
            raise ValueError(f"{self.scheme} needs a scale of the activations from a calibration; pass input_scale")
        super()._set_weight(weight, clip, percentile)
        self.input_scale = self.input_scale.to(weight.device)

    def _apply(self, fn, recurse=True):
        scale = self.input_scale
        super()._apply(fn, recurse)
        if self.input_scale.dtype != scale.dtype:
            self.input_scale = scale.to(self.input_scale.device)
        return self

    def _load_from_state_dict(self, *args):
        super()._load_from_state_dict(*args)
        self.input_scale = self.input_scale.float()  # with assign=True it has the dtype of the file

    def _options(self):
        return (self.input_scale,)

    def _row_major_product(self, x, q, scale, zero_point):
        return torch.ops.octavo.linear_w8a8_static(x, q, scale, self.bias, self.input_scale)


class W4A8Linear(_IntegerLinear):
    """Weights of up to 4 bits in groups, x quantized to int8 per token and group: schemes such as w4a8-g128.

    Args:
        straight_through: as in DynamicInt8Linear.
        (others as in QuantizedLinear)
    """

    default_scheme = "w4a8-g128"
    _op = _product = ops.LINEAR_W4A8

    def _row_major_product(self, x, q, scale, zero_point):
        s = self.scheme
        return torch.ops.octavo.linear_w4a8(x, q, scale, zero_point, self.bias, s.num_bits, s.group_size, s.packed)


class LLMInt8Linear(_IntegerLinear):
    """LLM.int8() (Dettmers et al., 2022): INT8 weights and activations, the outliers of x multiplied in floating point.

    Args:
        threshold: |x| from which a value is an outlier; 0: none is.
        rule: "token" decides for each row of x alone; "batch", as published, takes a column with any outlier out of
            every row.
        straight_through: as in DynamicInt8Linear.
        (others as in QuantizedLinear)
    """

    default_scheme = "llm.int8"
    _op = _product = ops.LINEAR_LLM_INT8

    def __init__(self, in_features, out_features, bias=True, scheme=None, *, threshold=6.0, rule="token", **options):
        super().__init__(in_features, out_features, bias, scheme, **options)
        if rule not in _RULES:
            raise ValueError(f"rule is one of {', '.join(_RULES)}, not {rule!r}")
        if not threshold >= 0:
            raise ValueError(f"threshold is at least 0, not {threshold}")
        self.threshold = float(threshold)
        self.rule = rule

    def _options(self):
        return (self.threshold, _RULES[self.rule])

    def _row_major_product(self, x, q, scale, zero_point):
        return torch.ops.octavo.linear_llm_int8(x, q, scale, self.bias, *self._options())

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, threshold={self.threshold:g}, rule={self.rule}"


def linear_class(scheme: Scheme) -> type[QuantizedLinear]:
    """The module that computes a scheme."""
    if scheme.activation == Activation.INT8_STATIC:
        return StaticInt8Linear
    if scheme.activation == Activation.INT8_OUTLIERS:
        return LLMInt8Linear
    if scheme.activation == Activation.INT8_PER_TOKEN:
        return W4A8Linear if scheme.packed else DynamicInt8Linear
    return QuantizedLinear


@cache
def _announce_fallback(module: str, kernel: str, scheme: Scheme, N: int, K: int, dtype: torch.dtype) -> None:
    """Says, once for each kind of product, that no kernel computes large ones on the quantized weight."""
    if kernel.endswith("_dequantize_matmul") or kernel == "cuda_torch":
        logger.info(
            "%s %s [%d, %d] with %s activations: products with many rows run on %s, torch's matrix product after "
            "dequantizing", module, scheme, N, K, dtype, kernel,
        )  # fmt: skip
