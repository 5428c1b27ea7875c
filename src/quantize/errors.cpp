#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "core/fp_env.h"
#include "core/macros.h"
#include "octavo/quantize.h"
#include "quantize/check.h"
#include "quantize/clip.h"
#include "quantize/rows.h"
#include "quantize/slices.h"

namespace octavo {
namespace {

ErrorSums sums_of_row(const MatrixView& original, const QuantizedWeight& w, std::int64_t n, const std::uint8_t* q) {
  const std::int64_t length = slice_length(w.format, original.cols);
  ErrorSums row;
  for (std::int64_t g = 0, k = 0; k < original.cols; ++g, k += length) {
    row.add(slice_kernels().errors(original.row<char>(n) + row_bytes(original.dtype, k), original.dtype, q + k,
                                   w.format.symmetric, std::min(length, original.cols - k), scale_zero(w, n, g)));
  }
  return row;
}

// The largest relative error of a row, in percent, where |w| > threshold.
double relative_error_of_row(const MatrixView& original, const QuantizedWeight& w, std::int64_t n, const std::uint8_t* q,
                             double threshold, std::vector<float>& value, std::vector<float>& restored) {
  widen_row(original, n, value.data());
  const std::int64_t length = slice_length(w.format, original.cols);
  for (std::int64_t g = 0, k = 0; k < original.cols; ++g, k += length) {
    slice_kernels().dequantize(q + k, w.format.symmetric, std::min(length, original.cols - k), scale_zero(w, n, g),
                               restored.data() + k, DType::kFloat32);
  }
  double largest = 0;
  for (std::size_t k = 0; k < value.size(); ++k) {
    const double magnitude = std::fabs(static_cast<double>(value[k]));
    if (magnitude <= threshold) continue;
    const double error = std::fabs(static_cast<double>(value[k]) - static_cast<double>(restored[k]));
    largest = std::max(largest, 100.0 * (error / magnitude));
  }
  return largest;
}

}  // namespace

void ErrorSums::add(const ErrorSums& other) {
  squared_signal += other.squared_signal;
  squared_error += other.squared_error;
  absolute_error += other.absolute_error;
  max_absolute_error = std::max(max_absolute_error, other.max_absolute_error);
  count += other.count;
}

double snr_db(const ErrorSums& sums) {
  if (sums.squared_error == 0) return std::numeric_limits<double>::infinity();
  return 10.0 * std::log10(sums.squared_signal / sums.squared_error);
}

Result<ErrorSums> error_sums(const MatrixView& original, const QuantizedWeight& w, Parallel& parallel) {
  OCTAVO_RETURN_IF_ERROR(check_errors(original, w));
  std::vector<ErrorSums> rows(static_cast<std::size_t>(original.rows));
  parallel.run(0, original.rows, row_grain(original.cols), [&](std::int64_t begin, std::int64_t end) {
    const ExactFloatScope exact;
    RowReader read(w);
    for (std::int64_t n = begin; n < end; ++n) {
      rows[static_cast<std::size_t>(n)] = sums_of_row(original, w, n, read(n));
    }
  });
  ErrorSums total;
  for (const ErrorSums& row : rows) total.add(row);
  return total;
}

Result<ErrorMetrics> error_metrics(const MatrixView& original, const QuantizedWeight& w, Parallel& parallel) {
  OCTAVO_ASSIGN_OR_RETURN(const ErrorSums sums, error_sums(original, w, parallel));
  OCTAVO_ASSIGN_OR_RETURN(const Range range, range_of(original, parallel));
  const double threshold = 0.1 * static_cast<double>(absmax_of(range));
  std::vector<double> relative(static_cast<std::size_t>(original.rows));
  parallel.run(0, original.rows, row_grain(original.cols), [&](std::int64_t begin, std::int64_t end) {
    const ExactFloatScope exact;
    RowReader read(w);
    std::vector<float> value(static_cast<std::size_t>(original.cols));
    std::vector<float> restored(value.size());
    for (std::int64_t n = begin; n < end; ++n) {
      relative[static_cast<std::size_t>(n)] = relative_error_of_row(original, w, n, read(n), threshold, value, restored);
    }
  });
  ErrorMetrics metrics;
  metrics.max_abs_error = sums.max_absolute_error;
  metrics.mean_abs_error = sums.count == 0 ? 0 : sums.absolute_error / static_cast<double>(sums.count);
  for (const double error : relative) metrics.relative_error_pct = std::max(metrics.relative_error_pct, error);
  metrics.snr_db = snr_db(sums);
  return metrics;
}

}  // namespace octavo
