// Activations to int8, one slice at a time.
#pragma once

#include <cstring>
#include <limits>

#include "quantize/slices.h"

namespace octavo {

// q int8 [n] and the scale of n neighbours that share one.
inline void quantize_slice(const SliceKernels& kernels, const void* slice, DType dtype, std::int64_t n, std::int8_t* q,
                           float& scale) {
  const Extremes extremes = kernels.extremes(slice, dtype, n);
  if (!extremes.finite) {
    scale = std::numeric_limits<float>::quiet_NaN();
    std::memset(q, 0, static_cast<std::size_t>(n));
    return;
  }
  const float absmax = absmax_of(extremes.range);
  scale = activation_scale(absmax);
  kernels.quantize(slice, dtype, n, absmax, {scale, 0}, WeightFormat{8, true, kPerChannel}, q);
}

}  // namespace octavo
