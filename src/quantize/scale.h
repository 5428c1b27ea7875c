// From the range of a slice to its scale and zero point.
#pragma once

#include <algorithm>

#include "octavo/quantize.h"

namespace octavo {

struct ScaleZero {
  float scale = 1;
  float zero_point = 0;  // a whole number
};

inline float absmax_of(const Range& range) { return std::max(range.hi, -range.lo); }

// The scale for values in [range.lo, range.hi] (lo <= 0 <= hi, finite), rounded to scale_dtype but never to 0, and the zero
// point that goes with it. A slice of zeros has scale 1. The scale is infinite when it overflows scale_dtype.
ScaleZero scale_of(const Range& range, const WeightFormat& format, DType scale_dtype);

// The symmetric int8 scale of activations, absmax / 127.
float activation_scale(float absmax);

// The error that an infinite scale means.
Status scale_overflow(DType scale_dtype, std::int64_t row, const Range& range);

}  // namespace octavo
