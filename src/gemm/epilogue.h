// From an integer sum to an output: the order of operations that gives the same bits everywhere.
#pragma once

#include "core/half.h"
#include "gemm/arguments.h"

namespace octavo {

// Scales of rows or columns, of which there may be one for all.
inline float scale_of_row(const MatrixView& scale, std::int64_t row) {
  return scale.row<float>(scale.rows == 1 ? 0 : row)[0];
}

inline float bias_at(const MatrixView& bias, std::int64_t n) {
  return visit_float(bias.dtype, [&](auto type) { return to_float(bias.row<decltype(type)>(0)[n]); });
}

// float(acc) · s_w[n], · s_x[m], each step rounded to float32.
inline float scale_sum(std::int32_t acc, float w_scale, float x_scale) {
  const float t = static_cast<float>(acc) * w_scale;
  return t * x_scale;
}

// + float(bias[n]), then one rounding to the output's type.
inline void store_with_bias(const Arguments& a, std::int64_t m, std::int64_t n, float t) {
  if (!a.bias.empty()) t += bias_at(a.bias, n);
  visit_float(a.y.dtype, [&](auto type) { a.y.row<decltype(type)>(m)[n] = from_float<decltype(type)>(t); });
}

inline void store_sum(const Arguments& a, std::int64_t m, std::int64_t n, std::int32_t acc) {
  if (a.y.dtype == DType::kInt32) {
    a.y.row<std::int32_t>(m)[n] = acc;
  } else {
    store_with_bias(a, m, n, scale_sum(acc, scale_of_row(a.w.scale, n), scale_of_row(a.x_scale, m)));
  }
}

}  // namespace octavo
