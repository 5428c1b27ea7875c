#include "gemm/check.h"

#include <cmath>

#include "core/error.h"
#include "core/macros.h"
#include "gemm/alignment.h"
#include "gemm/layout.h"
#include "quantize/check.h"

namespace octavo {
namespace {

Status check_shapes(const Arguments& a) {
  const MatrixView& q = a.w.q;
  if (a.x.cols != q.cols) {
    return invalid("x is [{}, {}] and the weight [{}, {}]: their K differ", a.x.rows, a.x.cols, q.rows, q.cols);
  }
  OCTAVO_RETURN_IF_ERROR(check_on(a.x.device, as_const(a.y), "y"));
  if (a.y.rows != a.x.rows || a.y.cols != q.rows) {
    return invalid("y is [{}, {}]; it must be [{}, {}]", a.y.rows, a.y.cols, a.x.rows, q.rows);
  }
  if (a.bias.data == nullptr) return {};
  OCTAVO_RETURN_IF_ERROR(check_float(a.bias, "bias", a.x.device));
  if (a.bias.rows != 1 || a.bias.cols != q.rows) {
    return invalid("bias is [{}, {}]; it must be [1, {}]", a.bias.rows, a.bias.cols, q.rows);
  }
  return {};
}

Status check_integer_range(std::int64_t K) {
  if (K <= kMaxIntegerK) return {};
  return unsupported("K = {} is above {}, up to which sums of int8 products are exact in int32; use a weight-only scheme", K,
                     kMaxIntegerK);
}

// One scale, or one a row of `rows`.
Status check_scale(const Device& device, const MatrixView& scale, std::string_view name, std::int64_t rows) {
  OCTAVO_RETURN_IF_ERROR(check_on(device, scale, name));
  if (scale.dtype != DType::kFloat32) return invalid("{} is {}; it must be float32", name, to_string(scale.dtype));
  if (scale.cols != 1 || (scale.rows != rows && scale.rows != 1)) {
    return invalid("{} is [{}, {}]; it must be [{}, 1] or [1, 1]", name, scale.rows, scale.cols, rows);
  }
  if (device.type == DeviceType::kCuda && scale.rows > 1 && scale.stride != sizeof(float)) {
    return invalid("{} is not contiguous, which CUDA kernels need: its rows are {} bytes apart", name, scale.stride);
  }
  return {};
}

Status check_int8_format(const WeightFormat& format, std::string_view op) {
  if (format.num_bits == 8 && format.symmetric && format.group_size <= 0) return {};
  return invalid("{} takes symmetric 8-bit weights, one scale a channel or tensor", op);
}

bool is_packed(const Arguments& a) { return !a.packed.data.empty(); }

Status check_float_operands(const Arguments& a, Scales scales = Scales::kFloat32) {
  OCTAVO_RETURN_IF_ERROR(is_packed(a) ? check_packed(a.packed) : check_weight(a.w, a.x.device, scales));
  OCTAVO_RETURN_IF_ERROR(check_float(a.x, "x", a.x.device));
  OCTAVO_RETURN_IF_ERROR(check_float(as_const(a.y), "y", a.x.device));
  return check_shapes(a);
}

// Of scaled_mm and matmul, all but the scales.
Status check_integer_operands(const Arguments& a) {
  OCTAVO_RETURN_IF_ERROR(check_on(a.x.device, a.x, "x"));
  OCTAVO_RETURN_IF_ERROR(is_packed(a) ? check_packed(a.packed) : check_on(a.x.device, a.w.q, "w"));
  OCTAVO_RETURN_IF_ERROR(check_int8_format(a.w.format, "scaled_mm"));
  if (a.x.dtype != DType::kInt8) return invalid("x is {}; it must be int8", to_string(a.x.dtype));
  if (a.w.q.dtype != DType::kInt8) return invalid("w is {}; it must be int8", to_string(a.w.q.dtype));
  OCTAVO_RETURN_IF_ERROR(check_integer_range(a.x.cols));
  OCTAVO_RETURN_IF_ERROR(check_shapes(a));
  if (a.y.dtype != DType::kInt32) return check_float(as_const(a.y), "y", a.x.device);
  if (a.bias.data != nullptr) return invalid("int32 output is the raw sums; it takes no bias");
  return {};
}

}  // namespace

Status takes_scales(const QuantizedWeight& w, DType x) {
  const MatrixView& scale = w.scale;
  if (scale.dtype == DType::kFloat32) return {};
  if (scale.dtype != x) {
    return invalid("scale is {} and x {}: scales of 16 bits must be of x's type; convert them to float32",
                   to_string(scale.dtype), to_string(x));
  }
  const std::int64_t group = w.format.group_size;
  const bool whole_pairs = scale.cols % 2 == 0 && alignment_of(scale) >= 4;
  if ((group == 32 || group == 64 || group == 128) && whole_pairs) return {};
  return invalid(
      "scale is {}, [{}, {}] of groups of {}; of 16 bits are those of groups of 32, 64 or 128, an even number along K, in "
      "rows aligned to 4 bytes; convert others to float32",
      to_string(scale.dtype), scale.rows, scale.cols, group);
}

Status check_linear(const Arguments& a) {
  if (a.x.device.type != DeviceType::kCuda) return check_float_operands(a);
  OCTAVO_RETURN_IF_ERROR(check_float_operands(a, Scales::kAnyFloat));
  return takes_scales(a.w, a.x.dtype);
}

Status check_scaled_mm(const Arguments& a) {
  OCTAVO_RETURN_IF_ERROR(check_integer_operands(a));
  if (a.y.dtype == DType::kInt32) return {};
  OCTAVO_RETURN_IF_ERROR(check_scale(a.x.device, a.x_scale, "x_scale", a.x.rows));
  return is_packed(a) ? Status() : check_scale(a.x.device, a.w.scale, "w_scale", a.w.q.rows);
}

Status check_matmul(const Arguments& a) { return check_integer_operands(a); }

Status check_linear_w8a8(const Arguments& a) {
  OCTAVO_RETURN_IF_ERROR(check_int8_format(a.w.format, "w8a8"));
  OCTAVO_RETURN_IF_ERROR(check_integer_range(a.x.cols));
  OCTAVO_RETURN_IF_ERROR(check_float_operands(a));
  return is_packed(a) ? Status() : check_scale(a.x.device, a.w.scale, "w_scale", a.w.q.rows);
}

Status check_linear_w4a8(const Arguments& a) {
  if (a.w.format.num_bits > 4 || a.w.format.group_size <= 0) {
    return invalid("W4A8 takes weights of 2 to 4 bits in groups, not {} bits with group_size {}", a.w.format.num_bits,
                   a.w.format.group_size);
  }
  OCTAVO_RETURN_IF_ERROR(check_integer_range(std::min(a.x.cols, a.w.format.group_size)));
  return check_float_operands(a);
}

Status check_linear_llm_int8(const Arguments& a) {
  OCTAVO_RETURN_IF_ERROR(check_int8_format(a.w.format, "llm.int8"));
  if (!(a.threshold >= 0)) return invalid("the threshold is {}; it must be 0 (no outliers) or positive", a.threshold);
  OCTAVO_RETURN_IF_ERROR(check_integer_range(a.x.cols));
  return check_float_operands(a);
}

}  // namespace octavo
