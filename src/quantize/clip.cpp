#include "quantize/clip.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "core/fp_env.h"
#include "core/half.h"

namespace octavo {
namespace {

// The share with the least error; ties go to the larger one.
template <class ErrorOf>
Range least_error(const Range& full, ErrorOf error_of) {
  double least = std::numeric_limits<double>::infinity();
  Range best = full;
  for (int step = 0; step <= kClipSteps; ++step) {
    const Range range = shrink(full, step);
    const double error = error_of(range);
    if (error < least) {
      least = error;
      best = range;
    }
  }
  return best;
}

Range cut_at_percentile(std::vector<float>& magnitudes, const Range& full, double percentile) {
  const auto nth = magnitudes.begin() + percentile_rank(percentile, static_cast<std::int64_t>(magnitudes.size()));
  std::nth_element(magnitudes.begin(), nth, magnitudes.end());
  return cut(full, *nth);
}

}  // namespace

Range shrink(const Range& range, int step) {
  const float share = static_cast<float>(100 - step) / 100.0f;
  return {range.lo * share, range.hi * share};
}

Range cut(const Range& range, float limit) {
  if (limit == 0) return range;
  return {std::max(range.lo, -limit), std::min(range.hi, limit)};
}

std::int64_t percentile_rank(double percentile, std::int64_t n) {
  const auto rank = static_cast<std::int64_t>(std::ceil(percentile / 100.0 * static_cast<double>(n)));
  return std::clamp<std::int64_t>(rank, 1, n) - 1;
}

void widen_row(const MatrixView& w, std::int64_t n, float* out) {
  visit_float(w.dtype, [&](auto type) {
    const auto* row = w.row<decltype(type)>(n);
    for (std::int64_t k = 0; k < w.cols; ++k) out[k] = to_float(row[k]);
  });
}

Range clip_slice(const float* w, std::int64_t n, const Range& full, const QuantizeOptions& options,
                 const WeightFormat& format, const SliceKernels& kernels) {
  if (n == 0 || options.clip == Clip::kAbsmax) return full;
  if (options.clip == Clip::kPercentile) {
    std::vector<float> magnitudes(w, w + n);
    for (float& m : magnitudes) m = std::fabs(m);
    return cut_at_percentile(magnitudes, full, options.percentile);
  }
  return least_error(full, [&](const Range& range) {
    return kernels.trial_error(w, n, scale_of(range, format, options.scale_dtype), format);
  });
}

Range clip_tensor(const MatrixView& w, const Range& full, const QuantizeOptions& options, const WeightFormat& format,
                  const SliceKernels& kernels, Parallel& parallel) {
  if (w.empty() || options.clip == Clip::kAbsmax) return full;
  if (options.clip == Clip::kPercentile) {
    std::vector<float> magnitudes(static_cast<std::size_t>(w.rows * w.cols));
    parallel.run(0, w.rows, 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t n = begin; n < end; ++n) widen_row(w, n, magnitudes.data() + n * w.cols);
    });
    for (float& m : magnitudes) m = std::fabs(m);
    return cut_at_percentile(magnitudes, full, options.percentile);
  }
  std::vector<double> row_error(static_cast<std::size_t>(w.rows));
  return least_error(full, [&](const Range& range) {
    const ScaleZero scale = scale_of(range, format, options.scale_dtype);
    parallel.run(0, w.rows, 1, [&](std::int64_t begin, std::int64_t end) {
      const ExactFloatScope exact;
      std::vector<float> row(static_cast<std::size_t>(w.cols));
      for (std::int64_t n = begin; n < end; ++n) {
        widen_row(w, n, row.data());
        row_error[static_cast<std::size_t>(n)] = kernels.trial_error(row.data(), w.cols, scale, format);
      }
    });
    double sum = 0;
    for (const double error : row_error) sum += error;
    return sum;
  });
}

}  // namespace octavo
