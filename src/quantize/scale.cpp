#include "quantize/scale.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "core/half.h"

namespace octavo {
namespace {

// Nearest value of dtype, at least the smallest positive one that the format keeps.
float round_scale(float scale, DType dtype) {
  switch (dtype) {
    case DType::kFloat16:
      return std::max(to_float(to_float16(scale)), 0x1p-24f);
    case DType::kBFloat16:
      return std::max(to_float(to_bfloat16(scale)), 0x1p-126f);
    default:
      return std::max(scale, 0x1p-126f);
  }
}

}  // namespace

ScaleZero scale_of(const Range& range, const WeightFormat& format, DType scale_dtype) {
  const float steps = static_cast<float>(format.qmax());
  if (format.symmetric) {
    const float absmax = absmax_of(range);
    return {absmax == 0 ? 1.0f : round_scale(absmax / steps, scale_dtype), 0.0f};
  }
  if (range.lo == 0 && range.hi == 0) return {};
  const float scale = round_scale(range.hi / steps - range.lo / steps, scale_dtype);
  const float zero_point = std::clamp(std::rint(-range.lo / scale), 0.0f, steps);
  return {scale, zero_point + 0.0f};  // + 0 turns -0 into 0
}

float activation_scale(float absmax) { return scale_of({0.0f, absmax}, WeightFormat{}, DType::kFloat32).scale; }

Status scale_overflow(DType scale_dtype, std::int64_t row, const Range& range) {
  return {StatusCode::kInvalidArgument,
          format_text("row {}: the scale of values in [{}, {}] overflows {}; store scales as float32 or bfloat16 "
                      "(--scale-dtype float32|bfloat16)",
                      row, range.lo, range.hi, to_string(scale_dtype))};
}

}  // namespace octavo
