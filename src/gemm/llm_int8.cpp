#include "gemm/llm_int8.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "gemm/epilogue.h"
#include "quantize/reference.h"
#include "quantize/scale.h"

namespace octavo {
namespace {

bool is_outlier(float x, float threshold) { return threshold > 0 && std::fabs(x) >= threshold; }

std::vector<std::vector<std::int64_t>> find_outliers(const MatrixView& x, float threshold, OutlierRule rule) {
  std::vector<std::vector<std::int64_t>> columns(rule == OutlierRule::kBatch ? 1 : static_cast<std::size_t>(x.rows));
  if (rule == OutlierRule::kToken) {
    for (std::int64_t m = 0; m < x.rows; ++m) {
      for (std::int64_t k = 0; k < x.cols; ++k) {
        if (is_outlier(reference::element(x, m, k), threshold)) columns[static_cast<std::size_t>(m)].push_back(k);
      }
    }
    return columns;
  }
  for (std::int64_t k = 0; k < x.cols; ++k) {
    bool any = false;
    for (std::int64_t m = 0; m < x.rows && !any; ++m) any = is_outlier(reference::element(x, m, k), threshold);
    if (any) columns[0].push_back(k);
  }
  return columns;
}

}  // namespace

OutlierSplit split_outliers(const MatrixView& x, float threshold, OutlierRule rule) {
  OutlierSplit split;
  split.rule = rule;
  split.columns = find_outliers(x, threshold, rule);
  split.q.resize(static_cast<std::size_t>(x.rows * x.cols));
  split.scale.resize(static_cast<std::size_t>(x.rows));
  std::vector<float> row(static_cast<std::size_t>(x.cols));
  for (std::int64_t m = 0; m < x.rows; ++m) {
    for (std::int64_t k = 0; k < x.cols; ++k) row[static_cast<std::size_t>(k)] = reference::element(x, m, k);
    for (const std::int64_t k : split.outliers(m)) row[static_cast<std::size_t>(k)] = 0;
    const MatrixView regular(row.data(), DType::kFloat32, 1, x.cols);
    const MutableMatrixView q(split.q.data() + m * x.cols, DType::kInt8, 1, x.cols);
    const MutableMatrixView scale(split.scale.data() + m, DType::kFloat32, 1, 1);
    (void)quantize_per_token(regular, kPerChannel, q, scale);  // cannot fail: the views fit by construction
  }
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
