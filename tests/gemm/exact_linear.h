// Weight-only products in fp64, as they are without any rounding and with that of weights to the type of x.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "core/half.h"
#include "gemm/arguments.h"
#include "quantize/reference.h"

namespace octavo::test {

inline double rounded(double value, DType dtype) {
  return visit_float(dtype, [&](auto type) {
    return static_cast<double>(to_float(from_float<decltype(type)>(static_cast<float>(value))));
  });
}

// y* and Σ|x||ŵ| of every element, in fp64 from unrounded (q - z) · s; the same y* with ŵ rounded to x's type, and Σ|x| of
// every row.
struct Exact {
  std::vector<double> value, magnitude, of_rounded, x_magnitude;

  Exact(const Arguments& a, Parallel& pool)
      : value(static_cast<std::size_t>(a.x.rows * a.w.q.rows)),
        magnitude(value.size()),
        of_rounded(value.size()),
        x_magnitude(static_cast<std::size_t>(a.x.rows)) {
    const std::int64_t M = a.x.rows, N = a.w.q.rows, K = a.x.cols;
    std::vector<double> x(static_cast<std::size_t>(M * K));
    for (std::int64_t i = 0; i < M * K; ++i)
      x[static_cast<std::size_t>(i)] = static_cast<double>(reference::element(a.x, i / K, i % K));
    for (std::int64_t i = 0; i < M * K; ++i)
      x_magnitude[static_cast<std::size_t>(i / K)] += std::fabs(x[static_cast<std::size_t>(i)]);
    pool.run(0, N, 1, [&](std::int64_t begin, std::int64_t end) {
      std::vector<double> w(static_cast<std::size_t>(K)), rounded_w(w.size());
      for (std::int64_t n = begin; n < end; ++n) {
        for (std::int64_t k = 0; k < K; ++k) {
          w[static_cast<std::size_t>(k)] =
              static_cast<double>(reference::centered(a.w, n, k)) * static_cast<double>(reference::scale_at(a.w, n, k));
          rounded_w[static_cast<std::size_t>(k)] = rounded(w[static_cast<std::size_t>(k)], a.x.dtype);
        }
        const double bias = a.bias.empty() ? 0 : static_cast<double>(reference::element(a.bias, 0, n));
        for (std::int64_t m = 0; m < M; ++m) {
          const double* row = x.data() + m * K;
          double sum = bias, size = std::fabs(bias), rounded_sum = bias;
          for (std::int64_t k = 0; k < K; ++k) {
            const double product = row[k] * w[static_cast<std::size_t>(k)];
            sum += product;
            size += std::fabs(product);
            rounded_sum += row[k] * rounded_w[static_cast<std::size_t>(k)];
          }
          value[static_cast<std::size_t>(m * N + n)] = sum;
          magnitude[static_cast<std::size_t>(m * N + n)] = size;
          of_rounded[static_cast<std::size_t>(m * N + n)] = rounded_sum;
        }
      }
    });
  }
};

// Half of the smallest number that an output can be apart from 0, and the relative error of one rounding.
inline double tiny(DType dtype) { return dtype == DType::kFloat16 ? 0x1p-25 : 1e-30; }
inline double unit(DType dtype) { return dtype == DType::kFloat16 ? 0x1p-11 : dtype == DType::kBFloat16 ? 0x1p-8 : 0x1p-24; }

}  // namespace octavo::test
