#include "quantize/reference.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "core/error.h"
#include "core/fp_env.h"
#include "core/half.h"
#include "core/macros.h"
#include "quantize/check.h"
#include "quantize/clip.h"
#include "quantize/scale.h"
#include "quantize/slices.h"

namespace octavo::reference {
namespace {

// Writes integer q to element [row, k].
void put(const MutableMatrixView& m, std::int64_t row, std::int64_t k, int q) {
  if (bits_of(m.dtype) == 4) {
    std::uint8_t& byte = m.row<std::uint8_t>(row)[k / 2];
    const int nibble = m.dtype == DType::kInt4 ? q + 8 : q;
    byte = static_cast<std::uint8_t>(k % 2 == 0 ? (byte & 0xf0) | nibble : (byte & 0x0f) | (nibble << 4));
  } else {
    m.row<std::uint8_t>(row)[k] = static_cast<std::uint8_t>(q);
  }
}

int quantize_one(float w, ScaleZero s, const WeightFormat& format) {
  const float q = std::rint(w / s.scale + s.zero_point);
  return static_cast<int>(std::clamp(q, static_cast<float>(format.qmin()), static_cast<float>(format.qmax())));
}

float restore(int q, ScaleZero s) { return (static_cast<float>(q) - s.zero_point) * s.scale; }

// The rows and columns that share one scale.
struct Block {
  std::int64_t row_begin, row_end, k_begin, k_end;
};

// Σ (w - ŵ)² over a block: interleaved lanes along each row, rows in ascending order.
double squared_error(const MatrixView& w, const Block& block, ScaleZero s, const WeightFormat& format) {
  double sum = 0;
  for (std::int64_t n = block.row_begin; n < block.row_end; ++n) {
    double lane[kErrorLanes] = {};
    for (std::int64_t k = block.k_begin; k < block.k_end; ++k) {
      const float value = element(w, n, k);
      const double error = static_cast<double>(value) - static_cast<double>(restore(quantize_one(value, s, format), s));
      lane[(k - block.k_begin) % kErrorLanes] += error * error;
    }
    sum += add_lanes(lane);
  }
  return sum;
}

Range clipped(const MatrixView& w, const Block& block, const Range& full, const QuantizeOptions& options,
              const WeightFormat& format) {
  const bool empty = block.row_begin == block.row_end || block.k_begin == block.k_end;
  if (options.clip == Clip::kPercentile && !empty) {
    std::vector<float> magnitudes;
    for (std::int64_t n = block.row_begin; n < block.row_end; ++n) {
      for (std::int64_t k = block.k_begin; k < block.k_end; ++k) magnitudes.push_back(std::fabs(element(w, n, k)));
    }
    std::sort(magnitudes.begin(), magnitudes.end());
    return cut(full, magnitudes[static_cast<std::size_t>(
                         percentile_rank(options.percentile, static_cast<std::int64_t>(magnitudes.size())))]);
  }
  Range best = full;
  if (options.clip == Clip::kMse) {
    double least = std::numeric_limits<double>::infinity();
    for (int step = 0; step <= kClipSteps; ++step) {
      const Range range = shrink(full, step);
      const double error = squared_error(w, block, scale_of(range, format, options.scale_dtype), format);
      if (error < least) {
        least = error;
        best = range;
      }
    }
  }
  return best;
}

}  // namespace

float element(const MatrixView& m, std::int64_t row, std::int64_t k) {
  switch (m.dtype) {
    case DType::kFloat16:
      return to_float(m.row<Float16>(row)[k]);
    case DType::kBFloat16:
      return to_float(m.row<BFloat16>(row)[k]);
    case DType::kInt8:
      return m.row<std::int8_t>(row)[k];
    case DType::kUInt8:
      return m.row<std::uint8_t>(row)[k];
    case DType::kInt4:
    case DType::kUInt4: {
      const int nibble = (m.row<std::uint8_t>(row)[k / 2] >> (k % 2 == 0 ? 0 : 4)) & 0xf;
      return static_cast<float>(m.dtype == DType::kInt4 ? nibble - 8 : nibble);
    }
    default:
      return m.row<float>(row)[k];
  }
}

float scale_at(const QuantizedWeight& w, std::int64_t row, std::int64_t k) {
  if (w.format.group_size == kPerTensor) return w.scale.row<float>(0)[0];
  return w.scale.row<float>(row)[w.format.group_size > 0 ? k / w.format.group_size : 0];
}

float centered(const QuantizedWeight& w, std::int64_t row, std::int64_t k) {
  const float q = element(w.q, row, k);
  if (w.format.symmetric) return q;
  if (w.format.group_size == kPerTensor) return q - element(w.zero_point, 0, 0);
  return q - element(w.zero_point, row, w.format.group_size > 0 ? k / w.format.group_size : 0);
}

Status quantize(const MatrixView& w, const QuantizeOptions& options, const MutableQuantizedWeight& out) {
  OCTAVO_RETURN_IF_ERROR(check_quantize(w, options, out));
  const ExactFloatScope exact;
  const WeightFormat& format = out.format;
  const bool per_tensor = format.group_size == kPerTensor;
  const std::int64_t group = format.group_size > 0 ? format.group_size : std::max<std::int64_t>(w.cols, 1);
  for (std::int64_t n = 0; n < w.rows; ++n) {
    for (std::int64_t k = 0; k < w.cols; ++k) {
      if (!std::isfinite(element(w, n, k))) return not_finite(w, n);
    }
  }
  for (std::int64_t row = 0; row < out.scale.rows; ++row) {
    for (std::int64_t g = 0; g < out.scale.cols; ++g) {
      const Block block = {per_tensor ? 0 : row, per_tensor ? w.rows : row + 1, g * group,
                           std::min((g + 1) * group, w.cols)};
      Range full;
      for (std::int64_t n = block.row_begin; n < block.row_end; ++n) {
        for (std::int64_t k = block.k_begin; k < block.k_end; ++k) {
          full.lo = std::min(full.lo, element(w, n, k));
          full.hi = std::max(full.hi, element(w, n, k));
        }
      }
      const Range range = clipped(w, block, options.tensor_range.value_or(full), options, format);
      const ScaleZero s = scale_of(range, format, options.scale_dtype);
      if (std::isinf(s.scale)) return scale_overflow(options.scale_dtype, row, range);
      out.scale.row<float>(row)[g] = s.scale;
      if (!format.symmetric) out.zero_point.row<std::uint8_t>(row)[g] = static_cast<std::uint8_t>(s.zero_point);
      for (std::int64_t n = block.row_begin; n < block.row_end; ++n) {
        for (std::int64_t k = block.k_begin; k < block.k_end; ++k) {
          put(out.q, n, k, quantize_one(element(w, n, k), s, format));
        }
      }
    }
  }
  return {};
}

Status dequantize(const QuantizedWeight& w, const MutableMatrixView& out) {
  OCTAVO_RETURN_IF_ERROR(check_dequantize(w, out));
  const ExactFloatScope exact;
  visit_float(out.dtype, [&](auto type) {
    using T = decltype(type);
    for (std::int64_t n = 0; n < out.rows; ++n) {
      for (std::int64_t k = 0; k < out.cols; ++k) {
        out.row<T>(n)[k] = from_float<T>(centered(w, n, k) * scale_at(w, n, k));
      }
    }
  });
  return {};
}

Result<ErrorMetrics> error_metrics(const MatrixView& original, const QuantizedWeight& w) {
  OCTAVO_RETURN_IF_ERROR(check_errors(original, w));
  const ExactFloatScope exact;
  float absmax = 0;
  for (std::int64_t n = 0; n < original.rows; ++n) {
    for (std::int64_t k = 0; k < original.cols; ++k) absmax = std::max(absmax, std::fabs(element(original, n, k)));
  }
  const std::int64_t group = w.format.group_size > 0 ? w.format.group_size : std::max<std::int64_t>(original.cols, 1);
  ErrorSums sums;
  ErrorMetrics metrics;
  for (std::int64_t n = 0; n < original.rows; ++n) {
    ErrorSums row;
    for (std::int64_t begin = 0; begin < original.cols; begin += group) {
      double signal[kErrorLanes] = {};
      double squared[kErrorLanes] = {};
      double absolute[kErrorLanes] = {};
      ErrorSums slice;
      const std::int64_t end = std::min(begin + group, original.cols);
      for (std::int64_t k = begin; k < end; ++k) {
        const double value = element(original, n, k);
        const double error = std::fabs(value - static_cast<double>(centered(w, n, k) * scale_at(w, n, k)));
        const auto lane = static_cast<std::size_t>((k - begin) % kErrorLanes);
        signal[lane] += value * value;
        squared[lane] += error * error;
        absolute[lane] += error;
        slice.max_absolute_error = std::max(slice.max_absolute_error, error);
        if (std::fabs(value) > 0.1 * static_cast<double>(absmax)) {
          metrics.relative_error_pct = std::max(metrics.relative_error_pct, 100.0 * (error / std::fabs(value)));
        }
      }
      slice.squared_signal = add_lanes(signal);
      slice.squared_error = add_lanes(squared);
      slice.absolute_error = add_lanes(absolute);
      slice.count = end - begin;
      row.add(slice);
    }
    sums.add(row);
  }
  metrics.max_abs_error = sums.max_absolute_error;
  metrics.mean_abs_error = sums.count == 0 ? 0 : sums.absolute_error / static_cast<double>(sums.count);
  metrics.snr_db = snr_db(sums);
  return metrics;
}

Status quantize_per_token(const MatrixView& x, std::int64_t group_size, const MutableMatrixView& q,
                          const MutableMatrixView& scale) {
  OCTAVO_RETURN_IF_ERROR(check_per_token(x, group_size, q, scale));
  const ExactFloatScope exact;
  const std::int64_t group = group_size > 0 ? group_size : std::max<std::int64_t>(x.cols, 1);
  for (std::int64_t m = 0; m < x.rows; ++m) {
    for (std::int64_t g = 0; g < scale.cols; ++g) {
      const std::int64_t end = std::min((g + 1) * group, x.cols);
      float absmax = 0;
      bool finite = true;
      for (std::int64_t k = g * group; k < end; ++k) {
        absmax = std::max(absmax, std::fabs(element(x, m, k)));
        finite = finite && std::isfinite(element(x, m, k));
      }
      const float s = finite ? activation_scale(absmax) : std::numeric_limits<float>::quiet_NaN();
      scale.row<float>(m)[g] = s;
      for (std::int64_t k = g * group; k < end; ++k) {
        put(q, m, k, finite ? quantize_one(element(x, m, k), {s, 0}, WeightFormat{}) : 0);
      }
    }
  }
  return {};
}

}  // namespace octavo::reference
