#include "quantize/check.h"

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "core/error.h"
#include "core/macros.h"
#include "quantize/reference.h"

namespace octavo {
namespace {

Status check_shape(const MatrixView& m, std::string_view name, std::int64_t rows, std::int64_t cols) {
  if (m.rows == rows && m.cols == cols) return {};
  return invalid("{} has shape [{}, {}]; it must be [{}, {}]", name, m.rows, m.cols, rows, cols);
}

Status check_dtype(const MatrixView& m, std::string_view name, DType dtype) {
  if (m.dtype == dtype) return {};
  return invalid("{} is {}; it must be {}", name, to_string(m.dtype), to_string(dtype));
}

std::string place(const Device& device) {
  return device.type == DeviceType::kCpu ? "the CPU" : format_text("cuda:{}", device.index);
}

// Where x is, of its type and shape.
Status check_like(const MatrixView& x, const MatrixView& m, std::string_view name) {
  OCTAVO_RETURN_IF_ERROR(check_on(x.device, m, name));
  OCTAVO_RETURN_IF_ERROR(check_dtype(m, name, x.dtype));
  return check_shape(m, name, x.rows, x.cols);
}

}  // namespace

Status check_on(const Device& device, const MatrixView& m, std::string_view name) {
  if (m.device != device) {
    return invalid("{} is on {} and other operands on {}; all must be on one device", name, place(m.device), place(device));
  }
  if (m.rows < 0 || m.cols < 0) return invalid("{} has shape [{}, {}]", name, m.rows, m.cols);
  if (m.empty()) return {};
  if (m.data == nullptr) return invalid("{} has no data", name);
  const int width = std::max(1, bits_of(m.dtype) / 8);
  if (reinterpret_cast<std::uintptr_t>(m.data) % width != 0 || m.stride % width != 0) {
    return invalid("{} is not aligned to its elements of {} bytes", name, width);
  }
  return {};
}

Status check_on_cpu(const MatrixView& m, std::string_view name) {
  if (m.device.type == DeviceType::kCpu) return check_on(m.device, m, name);
  return invalid("{} is on {}; without a Stream, this function takes CPU memory", name, place(m.device));
}

Status check_on_cuda(const MatrixView& m, std::string_view name) {
  if (m.device.type == DeviceType::kCuda) return check_on(m.device, m, name);
  return invalid("{} is on the CPU; with a Stream, this function takes memory of a CUDA device", name);
}

Status check_float(const MatrixView& m, std::string_view name, const Device& device) {
  OCTAVO_RETURN_IF_ERROR(check_on(device, m, name));
  if (!is_float(m.dtype) || m.dtype == DType::kFloat64) {
    return invalid("{} is {}; it must be float32, float16 or bfloat16", name, to_string(m.dtype));
  }
  return {};
}

Status check_weight(const QuantizedWeight& w, const Device& device, Scales scales) {
  const WeightFormat& format = w.format;
  if (format.num_bits < 2 || format.num_bits > 8) return invalid("weights have 2 to 8 bits, not {}", format.num_bits);
  if (format.group_size < kPerChannel) return invalid("{} is not a group size", format.group_size);
  OCTAVO_RETURN_IF_ERROR(check_on(device, w.q, "q"));
  OCTAVO_RETURN_IF_ERROR(check_on(device, w.scale, "scale"));
  const bool packed = bits_of(w.q.dtype) == 4;
  if (packed && format.num_bits > 4)
    return invalid("q is packed two a byte, which holds up to 4 bits, not {}", format.num_bits);
  OCTAVO_RETURN_IF_ERROR(check_dtype(w.q, "q", storage_dtype(format, packed)));
  const std::int64_t scale_rows = format.group_size == kPerTensor ? 1 : w.q.rows;
  const std::int64_t scale_cols = format.groups(w.q.cols);
  OCTAVO_RETURN_IF_ERROR(scales == Scales::kAnyFloat ? check_float(w.scale, "scale", device)
                                                     : check_dtype(w.scale, "scale", DType::kFloat32));
  OCTAVO_RETURN_IF_ERROR(check_shape(w.scale, "scale", scale_rows, scale_cols));
  if (format.symmetric) return {};
  OCTAVO_RETURN_IF_ERROR(check_on(device, w.zero_point, "zero_point"));
  OCTAVO_RETURN_IF_ERROR(check_dtype(w.zero_point, "zero_point", DType::kUInt8));
  return check_shape(w.zero_point, "zero_point", scale_rows, scale_cols);
}

Status check_zero_points(const QuantizedWeight& w, std::int64_t n) {
  if (w.format.symmetric) return {};
  const std::int64_t row = w.format.group_size == kPerTensor ? 0 : n;
  for (std::int64_t g = 0; g < w.zero_point.cols; ++g) {
    const int value = w.zero_point.row<std::uint8_t>(row)[g];
    if (value > w.format.qmax()) {
      return invalid("zero_point[{}, {}] is {}; with {}-bit weights it must be in [0, {}]", row, g, value, w.format.num_bits,
                     w.format.qmax());
    }
  }
  return {};
}

Status check_quantize(const MatrixView& w, const QuantizeOptions& options, const MutableQuantizedWeight& out) {
  OCTAVO_RETURN_IF_ERROR(check_float(w, "weight", w.device));
  OCTAVO_RETURN_IF_ERROR(check_weight(as_const(out), w.device));
  OCTAVO_RETURN_IF_ERROR(check_shape(as_const(out.q), "q", w.rows, w.cols));
  if (!(options.percentile > 0 && options.percentile <= 100)) {
    return invalid("percentile is {}; it must be above 0 and at most 100", options.percentile);
  }
  if (!is_float(options.scale_dtype) || options.scale_dtype == DType::kFloat64) {
    return invalid("scales are stored as float32, float16 or bfloat16, not {}", to_string(options.scale_dtype));
  }
  if (options.tensor_range) {
    if (out.format.group_size != kPerTensor || options.clip != Clip::kAbsmax) {
      return invalid("a tensor_range goes with scales per tensor and absmax");
    }
    const Range range = *options.tensor_range;
    if (!(range.lo <= 0 && range.hi >= 0 && std::isfinite(range.lo) && std::isfinite(range.hi))) {
      return invalid("tensor_range [{}, {}] must be finite and include 0", range.lo, range.hi);
    }
  }
  return {};
}

Status check_dequantize(const QuantizedWeight& w, const MutableMatrixView& out) {
  const bool on_cuda = w.q.device.type == DeviceType::kCuda;
  OCTAVO_RETURN_IF_ERROR(check_weight(w, w.q.device, on_cuda ? Scales::kAnyFloat : Scales::kFloat32));
  OCTAVO_RETURN_IF_ERROR(check_float(as_const(out), "output", w.q.device));
  return check_shape(as_const(out), "output", w.q.rows, w.q.cols);
}

Status check_errors(const MatrixView& original, const QuantizedWeight& w) {
  OCTAVO_RETURN_IF_ERROR(check_weight(w));
  OCTAVO_RETURN_IF_ERROR(check_float(original, "original"));
  return check_shape(original, "original", w.q.rows, w.q.cols);
}

Status check_per_token(const MatrixView& x, std::int64_t group_size, const MutableMatrixView& q,
                       const MutableMatrixView& scale) {
  OCTAVO_RETURN_IF_ERROR(check_float(x, "x", x.device));
  if (group_size != kPerChannel && group_size < 1) return invalid("{} is not a group size", group_size);
  OCTAVO_RETURN_IF_ERROR(check_on(x.device, as_const(q), "q"));
  OCTAVO_RETURN_IF_ERROR(check_dtype(as_const(q), "q", DType::kInt8));
  OCTAVO_RETURN_IF_ERROR(check_shape(as_const(q), "q", x.rows, x.cols));
  OCTAVO_RETURN_IF_ERROR(check_on(x.device, as_const(scale), "scale"));
  OCTAVO_RETURN_IF_ERROR(check_dtype(as_const(scale), "scale", DType::kFloat32));
  const WeightFormat groups = {8, true, group_size};
  return check_shape(as_const(scale), "scale", x.rows, groups.groups(x.cols));
}

Status check_static(const MatrixView& x, const MatrixView& scale, const MutableMatrixView& q) {
  OCTAVO_RETURN_IF_ERROR(check_float(x, "x", x.device));
  OCTAVO_RETURN_IF_ERROR(check_on(x.device, scale, "scale"));
  OCTAVO_RETURN_IF_ERROR(check_dtype(scale, "scale", DType::kFloat32));
  OCTAVO_RETURN_IF_ERROR(check_shape(scale, "scale", 1, 1));
  OCTAVO_RETURN_IF_ERROR(check_on(x.device, as_const(q), "q"));
  OCTAVO_RETURN_IF_ERROR(check_dtype(as_const(q), "q", DType::kInt8));
  return check_shape(as_const(q), "q", x.rows, x.cols);
}

Status check_static_scale(float scale) {
  if (scale > 0 && std::isfinite(scale)) return {};
  return invalid("the scale is {}; it must be finite and greater than 0", scale);
}

Status check_rms_norm(const MatrixView& x, const MatrixView& weight, float eps) {
  OCTAVO_RETURN_IF_ERROR(check_float(x, "x", x.device));
  OCTAVO_RETURN_IF_ERROR(check_on(x.device, weight, "weight"));
  OCTAVO_RETURN_IF_ERROR(check_dtype(weight, "weight", x.dtype));
  OCTAVO_RETURN_IF_ERROR(check_shape(weight, "weight", 1, x.cols));
  if (!(eps >= 0 && std::isfinite(eps))) return invalid("eps is {}; it must be finite and at least 0", eps);
  return {};
}

Status check_add(const MatrixView& x, const MatrixView& residual, const MutableMatrixView& sum) {
  OCTAVO_RETURN_IF_ERROR(check_like(x, residual, "residual"));
  return check_like(x, as_const(sum), "sum");
}

Status check_silu_mul(const MatrixView& gate, const MatrixView& up) {
  OCTAVO_RETURN_IF_ERROR(check_float(gate, "gate", gate.device));
  return check_like(gate, up, "up");
}

Status check_rounded(const MatrixView& x, const MutableMatrixView& y) { return check_like(x, as_const(y), "y"); }

Status not_finite(const MatrixView& w, std::int64_t n, std::int64_t first_row) {
  for (std::int64_t k = 0; k < w.cols; ++k) {
    const float value = reference::element(w, n, k);
    if (std::isfinite(value)) continue;
    const std::string_view name = std::isnan(value) ? "NaN" : value > 0 ? "Inf" : "-Inf";
    return invalid("element [{}, {}] is {}; weights must be finite", first_row + n, k, name);
  }
  return {};
}

}  // namespace octavo
