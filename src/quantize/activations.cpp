#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>

#include "core/fp_env.h"
#include "core/half.h"
#include "core/macros.h"
#include "octavo/quantize.h"
#include "quantize/check.h"
#include "quantize/rows.h"
#include "quantize/slices.h"

namespace octavo {
namespace {

// q [n] and the scale of n neighbours that share one.
void quantize_slice(const SliceKernels& kernels, const void* slice, DType dtype, std::int64_t n, std::int8_t* q,
                    float& scale) {
  const Extremes extremes = kernels.extremes(slice, dtype, n);
  if (extremes.finite) {
    const float absmax = absmax_of(extremes.range);
    scale = activation_scale(absmax);
    kernels.quantize(slice, dtype, n, absmax, {scale, 0}, {8, true, kPerChannel}, q);
  } else {
    scale = std::numeric_limits<float>::quiet_NaN();
    std::memset(q, 0, static_cast<std::size_t>(n));
  }
}

// Clamped before it is rounded, so that the sum below holds the integer in its lowest byte. A NaN is 0.
template <class T>
void quantize_with(float scale, const T* x, std::int64_t n, std::int8_t* q) {
  for (std::int64_t k = 0; k < n; ++k) {
    const float quotient = to_float(x[k]) / scale;
    const float in_range = quotient < -128.0f ? -128.0f : quotient > 127.0f ? 127.0f : quotient;
    const float number = quotient == quotient ? in_range : 0.0f;
    q[k] = static_cast<std::int8_t>(std::bit_cast<std::uint32_t>(number + 0x1.8p23f));
  }
}

}  // namespace

Status quantize_per_token(const MatrixView& x, std::int64_t group_size, const MutableMatrixView& q,
                          const MutableMatrixView& scale, Parallel& parallel) {
  OCTAVO_RETURN_IF_ERROR(check_on_cpu(x, "x"));
  OCTAVO_RETURN_IF_ERROR(check_per_token(x, group_size, q, scale));
  const std::int64_t length = slice_length({8, true, group_size}, x.cols);
  const SliceKernels& kernels = slice_kernels();
  parallel.run(0, x.rows, row_grain(x.cols), [&](std::int64_t first, std::int64_t last) {
    const ExactFloatScope exact;
    for (std::int64_t m = first; m < last; ++m) {
      for (std::int64_t g = 0, begin = 0; g < scale.cols; ++g, begin += length) {
        const void* slice = x.row<char>(m) + row_bytes(x.dtype, begin);
        quantize_slice(kernels, slice, x.dtype, std::min(length, x.cols - begin), q.row<std::int8_t>(m) + begin,
                       scale.row<float>(m)[g]);
      }
    }
  });
  return {};
}

Status quantize_static(const MatrixView& x, const MatrixView& scale, const MutableMatrixView& q, Parallel& parallel) {
  OCTAVO_RETURN_IF_ERROR(check_on_cpu(x, "x"));
  OCTAVO_RETURN_IF_ERROR(check_static(x, scale, q));
  const float s = *scale.row<float>(0);
  OCTAVO_RETURN_IF_ERROR(check_static_scale(s));
  parallel.run(0, x.rows, row_grain(x.cols), [&](std::int64_t first, std::int64_t last) {
    const ExactFloatScope exact;
    for (std::int64_t m = first; m < last; ++m) {
      visit_float(x.dtype, [&](auto type) { quantize_with(s, x.row<decltype(type)>(m), x.cols, q.row<std::int8_t>(m)); });
    }
  });
  return {};
}

}  // namespace octavo
