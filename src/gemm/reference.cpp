#include "gemm/reference.h"

#include <vector>

#include "core/fp_env.h"
#include "core/half.h"
#include "gemm/epilogue.h"
#include "gemm/llm_int8.h"
#include "quantize/reference.h"

namespace octavo::reference {
namespace {

// Calls body(n) for every row of W.
template <class Body>
void for_each_channel(const Arguments& a, Parallel& parallel, Body body) {
  parallel.run(0, a.y.cols, 1, [&](std::int64_t begin, std::int64_t end) {
    const ExactFloatScope exact;
    for (std::int64_t n = begin; n < end; ++n) body(n);
  });
}

std::int32_t integer_dot(const std::int8_t* x, const std::int8_t* w, std::int64_t K) {
  std::int32_t acc = 0;  // exact: K <= kMaxIntegerK
  for (std::int64_t k = 0; k < K; ++k) acc += std::int32_t{x[k]} * std::int32_t{w[k]};
  return acc;
}

}  // namespace

// In fp64 from unrounded weights, rounded once: what the bound for mixed products is measured against.
void linear(const Arguments& a, Parallel& parallel) {
  for_each_channel(a, parallel, [&](std::int64_t n) {
    std::vector<double> weights(static_cast<std::size_t>(a.x.cols));
    for (std::int64_t k = 0; k < a.x.cols; ++k) {
      weights[static_cast<std::size_t>(k)] =
          static_cast<double>(centered(a.w, n, k)) * static_cast<double>(scale_at(a.w, n, k));
    }
    for (std::int64_t m = 0; m < a.x.rows; ++m) {
      double sum = 0;
      for (std::int64_t k = 0; k < a.x.cols; ++k) {
        sum += static_cast<double>(element(a.x, m, k)) * weights[static_cast<std::size_t>(k)];
      }
      if (!a.bias.empty()) sum += static_cast<double>(bias_at(a.bias, n));
      visit_float(a.y.dtype, [&](auto type) { a.y.row<decltype(type)>(m)[n] = from_double<decltype(type)>(sum); });
    }
  });
}

void scaled_mm(const Arguments& a, Parallel& parallel) {
  for_each_channel(a, parallel, [&](std::int64_t n) {
    for (std::int64_t m = 0; m < a.x.rows; ++m) {
      store_sum(a, m, n, integer_dot(a.x.row<std::int8_t>(m), a.w.q.row<std::int8_t>(n), a.x.cols));
    }
  });
}

void linear_w4a8(const Arguments& a, Parallel& parallel) {
  const std::int64_t K = a.x.cols;
  const std::int64_t groups = a.w.format.groups(K);
  std::vector<std::int8_t> q(static_cast<std::size_t>(a.x.rows * K));
  std::vector<float> scale(static_cast<std::size_t>(a.x.rows * groups));
  const MutableMatrixView q_view(q.data(), DType::kInt8, a.x.rows, K);
  const MutableMatrixView scale_view(scale.data(), DType::kFloat32, a.x.rows, groups);
  (void)reference::quantize_per_token(a.x, a.w.format.group_size, q_view, scale_view);  // cannot fail: the views fit
  for_each_channel(a, parallel, [&](std::int64_t n) {
    std::vector<std::int32_t> weights(static_cast<std::size_t>(K));
    for (std::int64_t k = 0; k < K; ++k)
      weights[static_cast<std::size_t>(k)] = static_cast<std::int32_t>(centered(a.w, n, k));
    for (std::int64_t m = 0; m < a.x.rows; ++m) {
      float sum = 0;
      for (std::int64_t g = 0, k = 0; g < groups; ++g) {
        std::int32_t acc = 0;
        for (const std::int64_t end = std::min(K, k + a.w.format.group_size); k < end; ++k) {
          acc += std::int32_t{q_view.row<std::int8_t>(m)[k]} * weights[static_cast<std::size_t>(k)];
        }
        sum += static_cast<float>(acc) * (a.w.scale.row<float>(n)[g] * scale_view.row<float>(m)[g]);
      }
      store_with_bias(a, m, n, sum);
    }
  });
}

void linear_llm_int8(const Arguments& a, Parallel& parallel) {
  const OutlierSplit split = split_outliers(a.x, a.threshold, a.rule, parallel);
  for_each_channel(a, parallel, [&](std::int64_t n) {
    for (std::int64_t m = 0; m < a.x.rows; ++m) {
      store_llm_int8(a, split, m, n, integer_dot(split.q.data() + m * a.x.cols, a.w.q.row<std::int8_t>(n), a.x.cols));
    }
  });
}

}  // namespace octavo::reference
