// Which part of a slice's range its scale covers.
#pragma once

#include <cstdint>

#include "octavo/quantize.h"
#include "quantize/slices.h"

namespace octavo {

inline constexpr int kClipSteps = 50;  // the shares 1.00, 0.99 … 0.50

// The range times (100 - step) / 100.
Range shrink(const Range& range, int step);

// The range cut to magnitudes of at most `limit`; the whole range where limit is 0.
Range cut(const Range& range, float limit);

// Where among n magnitudes, sorted from 0, a percentile is found: nearest rank.
std::int64_t percentile_rank(double percentile, std::int64_t n);

// The range for n neighbouring elements whose whole range is `full`.
Range clip_slice(const float* w, std::int64_t n, const Range& full, const QuantizeOptions& options,
                 const WeightFormat& format, const SliceKernels& kernels);

// The range for a whole tensor.
Range clip_tensor(const MatrixView& w, const Range& full, const QuantizeOptions& options, const WeightFormat& format,
                  const SliceKernels& kernels, Parallel& parallel);

// Row n of a matrix of floats as float32 in out.
void widen_row(const MatrixView& w, std::int64_t n, float* out);

}  // namespace octavo
