#include "gemm/llm_int8.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/fp_env.h"
#include "gemm/epilogue.h"
#include "quantize/clip.h"
#include "quantize/reference.h"
#include "quantize/rows.h"
#include "quantize/scale.h"

namespace octavo {
namespace {

bool is_outlier(float x, float threshold) { return threshold > 0 && std::fabs(x) >= threshold; }

void append_outliers(const float* x, std::int64_t n, float threshold, std::vector<std::int64_t>& columns) {
  for (std::int64_t k = 0; k < n; ++k) {
    if (is_outlier(x[k], threshold)) columns.push_back(k);
  }
}

// Columns with an outlier in any row.
std::vector<std::int64_t> outliers_of_batch(const MatrixView& x, float threshold) {
  std::vector<float> row(static_cast<std::size_t>(x.cols));
  std::vector<float> largest(row.size());
  for (std::int64_t m = 0; m < x.rows; ++m) {
    widen_row(x, m, row.data());
    for (std::size_t k = 0; k < row.size(); ++k) largest[k] = std::fmax(largest[k], std::fabs(row[k]));  // without NaNs
  }
  std::vector<std::int64_t> columns;
  append_outliers(largest.data(), x.cols, threshold, columns);
  return columns;
}

}  // namespace

OutlierSplit split_outliers(const MatrixView& x, float threshold, OutlierRule rule, Parallel& parallel) {
  OutlierSplit split;
  split.rule = rule;
  split.columns.resize(rule == OutlierRule::kBatch ? 1 : static_cast<std::size_t>(x.rows));
  if (rule == OutlierRule::kBatch) split.columns[0] = outliers_of_batch(x, threshold);
  split.q.resize(static_cast<std::size_t>(x.rows * x.cols));
  split.scale.resize(static_cast<std::size_t>(x.rows));
  parallel.run(0, x.rows, row_grain(x.cols), [&](std::int64_t begin, std::int64_t end) {
    const ExactFloatScope exact;
    std::vector<float> row(static_cast<std::size_t>(x.cols));
    for (std::int64_t m = begin; m < end; ++m) {
      widen_row(x, m, row.data());
      if (rule == OutlierRule::kToken)
        append_outliers(row.data(), x.cols, threshold, split.columns[static_cast<std::size_t>(m)]);
      for (const std::int64_t k : split.outliers(m)) row[static_cast<std::size_t>(k)] = 0;
      const MatrixView regular(row.data(), DType::kFloat32, 1, x.cols);
      const MutableMatrixView q(split.q.data() + m * x.cols, DType::kInt8, 1, x.cols);
      const MutableMatrixView scale(split.scale.data() + m, DType::kFloat32, 1, 1);
      (void)quantize_per_token(regular, kPerChannel, q, scale);  // cannot fail: the views fit by construction
    }
  });
  return split;
}

void store_llm_int8(const Arguments& a, const OutlierSplit& split, std::int64_t m, std::int64_t n, std::int32_t acc) {
  float outliers = 0;
  for (const std::int64_t k : split.outliers(m)) {
    const float weight = reference::centered(a.w, n, k) * reference::scale_at(a.w, n, k);
    outliers += reference::element(a.x, m, k) * weight;
  }
  const float regular = scale_sum(acc, scale_of_row(a.w.scale, n), split.scale[static_cast<std::size_t>(m)]);
  store_with_bias(a, m, n, regular + outliers);
}

}  // namespace octavo
