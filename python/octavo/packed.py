"""Where a quantized Linear holds its weight: row-major, or packed for the kernels of this machine. Never both."""

import copy
from typing import Any

import torch
from torch import nn

from . import ops
from .scheme import PER_TENSOR, Scheme

PACKED_WEIGHT = "packed_weight"  # the name of the buffer
_ROW_MAJOR = ("weight_int8", "weight_int4", "scale", "zero_point")
_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
_SHORT_SCALE_GROUPS = (32, 64, 128)  # of which octavo::linear on CUDA takes scales of x's dtype, an even number along K


def _holds(dtype: torch.dtype, values: torch.Tensor) -> bool:
    """Whether a dtype has all the values, of up to 32 bits."""
    return dtype in (values.dtype, torch.float32) or torch.equal(values.to(dtype).float(), values.float())


class PackableWeight(nn.Module):
    """A quantized weight [N, K] as the state of a module.

    Row-major, it is the buffers weight_int8 or weight_int4, scale and zero_point; packed, the buffer packed_weight.
    A weight is packed as soon as it is complete on a CPU whose kernels read it so. What completes one calls pack():
    quantizing, load_state_dict, octavo.load, a move to the CPU, unpickling. Whoever fills the buffers one by one, as
    accelerate does, leaves it to the first forward.

    Outside nothing changes. The row-major tensors remain the module's attributes, computed at each access; state dicts
    and pickles hold them, and load_state_dict takes them. A move to another device unpacks.

    On CUDA the weight stays row-major; pack() makes its scales as short as its kernels take them without changing one.
    """

    _op = ops.LINEAR

    def __init__(self, out_features: int, in_features: int, scheme: Scheme, dtype: torch.dtype, device):
        super().__init__()
        self.in_features = in_features
        self.out_features = out_features
        self.scheme = scheme
        self.dtype = dtype
        N, K = out_features, in_features
        group_size = scheme.group_size
        scale_shape = (1,) if group_size == PER_TENSOR else (N,) if group_size < 0 else (N, scheme.groups(K))
        weight_shape = (N, (K + 1) // 2) if scheme.packed else (N, K)
        weight_dtype = torch.int8 if scheme.symmetric and not scheme.packed else torch.uint8
        self.register_buffer(self._weight_name, torch.empty(weight_shape, dtype=weight_dtype, device=device))
        self.register_buffer("scale", torch.empty(scale_shape, dtype=torch.float32, device=device))
        zero_point = None if scheme.symmetric else torch.empty(scale_shape, dtype=torch.uint8, device=device)
        self.register_buffer("zero_point", zero_point)
        self._non_persistent_buffers_set.add(PACKED_WEIGHT)
        self._scale_shape = scale_shape
        self._has_weight = self.scale.is_meta
        self._settled = False  # whether pack() has decided, and nothing has changed since

    @property
    def _weight_name(self) -> str:
        return "weight_int4" if self.scheme.packed else "weight_int8"

    @property
    def _packed(self) -> torch.Tensor | None:
        return self._buffers.get(PACKED_WEIGHT)

    @property
    def _device(self) -> torch.device:
        weight = self._buffers.get(PACKED_WEIGHT)
        return self._buffers["scale"].device if weight is None else weight.device

    def pack(self) -> None:
        """Packs the weight if it is complete and kernels of this machine read it packed; unpacks it if they do not."""
        device = self._device
        self._settled = self._has_weight and not device.type == "meta"
        if not self._settled:
            return
        s, layout = self.scheme, ops.ROW_MAJOR
        if device.type == "cpu" and self.dtype in _DTYPES:
            layout = torch.ops.octavo.best_layout(
                self._op, self.dtype, s.num_bits, s.symmetric, s.group_size, self.out_features, self.in_features
            )
        if layout == ops.ROW_MAJOR:
            self._unpack()
            self._shorten_scales()
        elif self._packed is None:
            q, scale, zero_point = (self._buffers[name] for name in (self._weight_name, "scale", "zero_point"))
            with torch.inference_mode(False), torch.no_grad():  # a tensor that autograd can save, whoever asks first
                packed = torch.ops.octavo.pack_weight(
                    q, scale, zero_point, s.num_bits, s.group_size, s.packed, self.in_features
                )
            self._buffers[PACKED_WEIGHT] = packed
            for name in _ROW_MAJOR:
                self._buffers.pop(name, None)

    def _shorten_scales(self) -> None:
        """Holds the scales in the module's dtype if products take them so and it has their values, else in float32.

        Nothing is done where values cannot be looked at: while a graph is captured, and with tensors that have none.
        """
        scale = self._buffers["scale"]
        if type(scale) is not torch.Tensor or (scale.is_cuda and torch.cuda.is_current_stream_capturing()):
            return
        takes_short = (
            scale.is_cuda
            and torch.cuda.get_device_capability(scale.device) >= (9, 0)  # before, products would be slower
            and self._op == ops.LINEAR
            and self.dtype in (torch.float16, torch.bfloat16)
            and self.scheme.group_size in _SHORT_SCALE_GROUPS
            and scale.shape[-1] % 2 == 0
        )
        dtype = self.dtype if takes_short else torch.float32
        if scale.dtype == dtype:
            return
        with torch.inference_mode(False), torch.no_grad():  # as in pack()
            self._buffers["scale"] = scale.to(dtype if _holds(dtype, scale) else torch.float32)

    def _unpack(self) -> None:
        if self._packed is not None:
            self._hold_row_major(self._row_major())

    def _hold_row_major(self, tensors: dict[str, torch.Tensor | None]) -> None:
        self._buffers.update(tensors)
        self._buffers.pop(PACKED_WEIGHT, None)
        self._settled = False

    def _row_major(self) -> dict[str, torch.Tensor | None]:
        """The row-major buffers: the module's own, or new tensors."""
        if self._packed is None:
            return {name: self._buffers[name] for name in _ROW_MAJOR if name in self._buffers}
        s = self.scheme
        with torch.no_grad():
            q, scale, zero_point = torch.ops.octavo.unpack_weight(
                self._packed, self.out_features, self.in_features, s.symmetric, s.group_size, s.packed
            )
        return self._named(q, scale, None if s.symmetric else zero_point)

    def _named(self, q, scale, zero_point) -> dict[str, torch.Tensor | None]:
        """Tensors of the shapes that the operators have, as buffers."""
        shape = self._scale_shape
        return {
            self._weight_name: q,
            "scale": scale.reshape(shape),
            "zero_point": None if zero_point is None else zero_point.reshape(shape),
        }

    def _dequantized(self, dtype: torch.dtype) -> torch.Tensor:
        if self._packed is not None:
            return torch.ops.octavo.dequantize_packed(self._packed, self.out_features, self.in_features, dtype)
        s = self.scheme
        q, scale, zero_point = self._row_major().values()
        return torch.ops.octavo.dequantize(
            q, scale, zero_point, s.num_bits, s.group_size, s.packed, self.in_features, dtype
        )

    def __getattr__(self, name: str) -> Any:
        if name in _ROW_MAJOR and PACKED_WEIGHT in self.__dict__.get("_buffers", ()):
            tensors = self._row_major()
            if name in tensors:
                return tensors[name]
        return super().__getattr__(name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _ROW_MAJOR:
            self._unpack()
            self.__dict__["_settled"] = False
        super().__setattr__(name, value)

    def _apply(self, fn, recurse=True):
        # .half(), .to(dtype) and the like cast every floating-point tensor; scales follow to the device alone.
        was_meta = self._device.type == "meta"
        probe = fn(torch.empty(0, dtype=self.dtype, device=self._device))
        self.dtype = probe.dtype
        if probe.device != self._device:
            self._unpack()
        scale = self._buffers.get("scale")
        super()._apply(fn, recurse)
        if scale is not None and self.scale.dtype != scale.dtype:
            self.scale = scale.to(self.scale.device)
        if not was_meta:  # to_empty gives memory that is filled later: load_state_dict or the first forward packs it
            self.pack()
        return self

    def _save_to_state_dict(self, destination, prefix, keep_vars):
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self._packed is not None:
            tensors = self._row_major().items()
            destination.update({prefix + name: tensor for name, tensor in tensors if tensor is not None})

    def _load_from_state_dict(self, state_dict, prefix, *args):
        self._unpack()
        scale = self._buffers["scale"]
        if not _holds(scale.dtype, state_dict.get(prefix + "scale", scale)):
            self._buffers["scale"] = scale.float()  # else values go where the old ones are, as joined weights need
        super()._load_from_state_dict(state_dict, prefix, *args)
        if not self._buffers["scale"].is_cuda:
            self.scale = self.scale.float()  # with assign=True it has the dtype of the file
        self._has_weight |= prefix + "scale" in state_dict
        self.pack()

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        if self._packed is not None:
            others = {name: buffer for name, buffer in self._buffers.items() if name != PACKED_WEIGHT}
            state["_buffers"] = others | self._row_major()
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.pack()

    def __deepcopy__(self, memo: dict) -> "PackableWeight":
        # Not by way of __getstate__: copies share what `memo` says is shared, and need not be packed again.
        twin = type(self).__new__(type(self))
        memo[id(self)] = twin
        twin.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return twin
