// The inner loops of quantization, each over one slice: neighbouring elements of a row that share a scale. One table of them
// per instruction set, all equal to the bit.
#pragma once

#include <cstdint>

#include "octavo/quantize.h"
#include "quantize/scale.h"

namespace octavo {

struct Extremes {
  Range range;         // both ends include 0
  bool finite = true;  // no NaN, no Inf; without it the range means nothing
};

// Squares and absolute values of errors are summed in kErrorLanes interleaved partial sums, lane j those of elements
// k ≡ j modulo kErrorLanes in ascending order, and the lanes as in add_lanes.
inline constexpr int kErrorLanes = 8;

inline double add_lanes(const double (&lane)[kErrorLanes]) {
  return ((lane[0] + lane[4]) + (lane[2] + lane[6])) + ((lane[1] + lane[5]) + (lane[3] + lane[7]));
}

// `w` points to n elements of a 16- or 32-bit floating-point type, `q` to n integers one a byte (int8 where the format is
// symmetric, else uint8).
struct SliceKernels {
  Extremes (*extremes)(const void* w, DType dtype, std::int64_t n);
  // `absmax` is at least the largest |w|; where it shows that nothing is far out of range, clamping costs less.
  void (*quantize)(const void* w, DType dtype, std::int64_t n, float absmax, ScaleZero scale, const WeightFormat& format,
                   void* q);
  void (*dequantize)(const void* q, bool is_signed, std::int64_t n, ScaleZero scale, void* out, DType dtype);
  ErrorSums (*errors)(const void* w, DType dtype, const void* q, bool is_signed, std::int64_t n, ScaleZero scale);
  // Σ (w - ŵ)² that quantizing w would leave.
  double (*trial_error)(const float* w, std::int64_t n, ScaleZero scale, const WeightFormat& format);
  // Copies a finished row past the caches, for results too large to be read from them. Other threads see it after
  // finish_streaming().
  void (*stream_bytes)(const std::uint8_t* from, std::int64_t n, std::uint8_t* to);
  void (*finish_streaming)();
};

extern const SliceKernels kScalarSlices;
#if defined(__x86_64__)
extern const SliceKernels kAvx2Slices;    // only where cpu_features().avx2
extern const SliceKernels kAvx512Slices;  // only where cpu_features().avx512
#endif

// The fastest table that this processor runs.
const SliceKernels& slice_kernels();

}  // namespace octavo
