#include <algorithm>
#include <bit>
#include <cmath>

#include "core/cpu_features.h"
#include "core/half.h"
#include "quantize/slices.h"

namespace octavo {
namespace {

// Positive floating-point numbers are ordered as their bits; negative ones, as unsigned bits, by magnitude. So both ends of
// a range are integer maxima, and a NaN or Inf shows as an end beyond the finite ones.
template <class T, class Unsigned, Unsigned kSign, Unsigned kInfinity>
Extremes extremes_of(const T* w, std::int64_t n) {
  Unsigned hi = 0;
  Unsigned lo = kSign;
  for (std::int64_t k = 0; k < n; ++k) {
    const auto bits = std::bit_cast<Unsigned>(w[k]);
    if (bits < kSign) {
      hi = std::max(hi, bits);
    } else {
      lo = std::max(lo, bits);
    }
  }
  return {{to_float(std::bit_cast<T>(lo)) + 0.0f, to_float(std::bit_cast<T>(hi))},
          hi < kInfinity && lo < static_cast<Unsigned>(kSign | kInfinity)};
}

Extremes extremes(const void* w, DType dtype, std::int64_t n) {
  switch (dtype) {
    case DType::kFloat16:
      return extremes_of<Float16, std::uint16_t, 0x8000, 0x7c00>(static_cast<const Float16*>(w), n);
    case DType::kBFloat16:
      return extremes_of<BFloat16, std::uint16_t, 0x8000, 0x7f80>(static_cast<const BFloat16*>(w), n);
    default:
      return extremes_of<float, std::uint32_t, 0x80000000u, 0x7f800000u>(static_cast<const float*>(w), n);
  }
}

float quantize_one(float w, ScaleZero scale, const WeightFormat& format) {
  const float q = std::rint(w / scale.scale + scale.zero_point);
  return std::clamp(q, static_cast<float>(format.qmin()), static_cast<float>(format.qmax()));
}

void quantize(const void* w, DType dtype, std::int64_t n, float /*absmax*/, ScaleZero scale, const WeightFormat& format,
              void* q) {
  visit_float(dtype, [&](auto type) {
    const auto* in = static_cast<const decltype(type)*>(w);
    auto* out = static_cast<std::uint8_t*>(q);
    for (std::int64_t k = 0; k < n; ++k) {
      out[k] = static_cast<std::uint8_t>(static_cast<int>(quantize_one(to_float(in[k]), scale, format)));
    }
  });
}

float dequantize_one(const void* q, bool is_signed, std::int64_t k, ScaleZero scale) {
  const int value = is_signed ? int{static_cast<const std::int8_t*>(q)[k]} : int{static_cast<const std::uint8_t*>(q)[k]};
  return (static_cast<float>(value) - scale.zero_point) * scale.scale;
}

void dequantize(const void* q, bool is_signed, std::int64_t n, ScaleZero scale, void* out, DType dtype) {
  visit_float(dtype, [&](auto type) {
    using T = decltype(type);
    for (std::int64_t k = 0; k < n; ++k) static_cast<T*>(out)[k] = from_float<T>(dequantize_one(q, is_signed, k, scale));
  });
}

ErrorSums errors(const void* w, DType dtype, const void* q, bool is_signed, std::int64_t n, ScaleZero scale) {
  double signal[kErrorLanes] = {};
  double squared[kErrorLanes] = {};
  double absolute[kErrorLanes] = {};
  double largest = 0;
  visit_float(dtype, [&](auto type) {
    const auto* in = static_cast<const decltype(type)*>(w);
    for (std::int64_t k = 0; k < n; ++k) {
      const double value = to_float(in[k]);
      const double error = std::fabs(value - static_cast<double>(dequantize_one(q, is_signed, k, scale)));
      signal[k % kErrorLanes] += value * value;
      squared[k % kErrorLanes] += error * error;
      absolute[k % kErrorLanes] += error;
      largest = std::max(largest, error);
    }
  });
  return {add_lanes(signal), add_lanes(squared), add_lanes(absolute), largest, n};
}

double trial_error(const float* w, std::int64_t n, ScaleZero scale, const WeightFormat& format) {
  double squared[kErrorLanes] = {};
  for (std::int64_t k = 0; k < n; ++k) {
    const float restored = (quantize_one(w[k], scale, format) - scale.zero_point) * scale.scale;
    const double error = static_cast<double>(w[k]) - static_cast<double>(restored);
    squared[k % kErrorLanes] += error * error;
  }
  return add_lanes(squared);
}

void stream_bytes(const std::uint8_t* from, std::int64_t n, std::uint8_t* to) { std::copy_n(from, n, to); }

void finish_streaming() {}

}  // namespace

const SliceKernels kScalarSlices = {extremes, quantize, dequantize, errors, trial_error, stream_bytes, finish_streaming};

const SliceKernels& slice_kernels() {
#if defined(__x86_64__)
  if (cpu_features().avx512) return kAvx512Slices;
  if (cpu_features().avx2) return kAvx2Slices;
#endif
  return kScalarSlices;
}

}  // namespace octavo
