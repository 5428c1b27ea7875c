#include "octavo/fused.h"

#include <algorithm>
#include <limits>
#include <vector>

#include "core/cpu_features.h"
#include "core/fp_env.h"
#include "core/half.h"
#include "core/macros.h"
#include "core/simd.h"
#include "quantize/check.h"
#include "quantize/formulas.h"
#include "quantize/rows.h"
#include "quantize/slices.h"

namespace octavo {
namespace {

std::int64_t pieces_of(std::int64_t K) { return (K + formulas::kPiece - 1) / formulas::kPiece; }

// What the loops below use, for a thread.
struct Scratch {
  explicit Scratch(std::int64_t K)
      : x(static_cast<std::size_t>(pieces_of(K) * formulas::kPiece)), y(x.size()), sums(x.size() / formulas::kPiece) {}

  std::vector<float> x, y;  // rows, filled up with zeros to whole pieces
  std::vector<float> sums;  // of pieces
};

template <class T>
void widen(const T* from, std::int64_t n, float* to) {
  for (std::int64_t k = 0; k < n; ++k) to[k] = to_float(from[k]);
}

// In the order that formulas.h states.
float squares_of(const std::vector<float>& x, std::vector<float>& sums) {
  for (std::size_t j = 0; j < sums.size(); ++j) {
    float piece[formulas::kPiece];
    std::copy_n(&x[j * formulas::kPiece], formulas::kPiece, piece);
    sums[j] = formulas::sum_of_squares(piece);
  }
  std::size_t count = sums.size(), half = 1;
  while (2 * half < count) half *= 2;
  for (; half > 0; half /= 2) {
    for (std::size_t j = 0; j + half < count; ++j) sums[j] = exact::add(sums[j], sums[j + half]);
    count = std::min(count, half);
  }
  return sums.empty() ? 0.0f : sums[0];
}

// y *= silu(gate).
OCTAVO_HOST_DEVICE void multiply_row(const float* gate, std::int64_t n, float* y) {
  for (std::int64_t k = 0; k < n; ++k) y[k] = exact::mul(formulas::silu(gate[k]), y[k]);
}
OCTAVO_HOST_DEVICE void round_row(const float* y, std::int64_t n, float reciprocal, std::int8_t* q) {
  for (std::int64_t k = 0; k < n; ++k) q[k] = static_cast<std::int8_t>(formulas::quantized(y[k], reciprocal));
}

// The loops with fused multiply-adds, each of which is a call where there is no instruction for it.
struct Loops {
  void (*multiply)(const float* gate, std::int64_t n, float* y);
  void (*round)(const float* y, std::int64_t n, float reciprocal, std::int8_t* q);
};

void multiply_scalar(const float* gate, std::int64_t n, float* y) { multiply_row(gate, n, y); }
void round_scalar(const float* y, std::int64_t n, float reciprocal, std::int8_t* q) { round_row(y, n, reciprocal, q); }
#if defined(__x86_64__)
OCTAVO_AVX2 void multiply_avx2(const float* gate, std::int64_t n, float* y) { multiply_row(gate, n, y); }
OCTAVO_AVX2 void round_avx2(const float* y, std::int64_t n, float reciprocal, std::int8_t* q) {
  round_row(y, n, reciprocal, q);
}
#endif

Loops loops() {
#if defined(__x86_64__)
  if (cpu_features().avx2) return {multiply_avx2, round_avx2};
#endif
  return {multiply_scalar, round_scalar};
}

// Calls compute(m, scratch), which leaves row m's result in scratch.y, and finish(m, scratch.y).
template <class Compute, class Finish>
void each_row(std::int64_t M, std::int64_t K, Parallel& parallel, const Compute& compute, const Finish& finish) {
  parallel.run(0, M, row_grain(K), [&](std::int64_t first, std::int64_t last) {
    const ExactFloatScope exact;
    Scratch scratch(K);
    for (std::int64_t m = first; m < last; ++m) {
      compute(m, scratch);
      finish(m, scratch.y.data());
    }
  });
}

// A finish() that quantizes.
auto quantized(const MutableMatrixView& q, const MutableMatrixView& scale) {
  return [&q, &scale, extremes_of = slice_kernels().extremes, round = loops().round](std::int64_t m, const float* y) {
    const Extremes extremes = extremes_of(y, DType::kFloat32, q.cols);
    if (extremes.finite) {
      const float s = activation_scale(absmax_of(extremes.range));
      *scale.row<float>(m) = s;
      round(y, q.cols, 1.0f / s, q.row<std::int8_t>(m));
    } else {
      *scale.row<float>(m) = std::numeric_limits<float>::quiet_NaN();
      std::fill_n(q.row<std::int8_t>(m), q.cols, std::int8_t{0});
    }
  };
}

// One that rounds to out's type.
auto rounded(const MutableMatrixView& out) {
  return [&out](std::int64_t m, const float* y) {
    visit_float(out.dtype, [&](auto type) {
      using T = decltype(type);
      T* row = out.row<T>(m);
      for (std::int64_t k = 0; k < out.cols; ++k) row[k] = from_float<T>(y[k]);
    });
  };
}

// prepare(m, x) leaves a row to be normalized in x.
template <class Prepare, class Finish>
void normalize(std::int64_t M, const MatrixView& weight, float eps, Parallel& parallel, const Prepare& prepare,
               const Finish& finish) {
  const std::int64_t K = weight.cols;
  std::vector<float> w(static_cast<std::size_t>(K));
  visit_float(weight.dtype, [&](auto type) { widen(weight.row<decltype(type)>(0), K, w.data()); });
  const auto compute = [&](std::int64_t m, Scratch& s) {
    prepare(m, s.x.data());
    const float factor = formulas::rms_factor(squares_of(s.x, s.sums), 1.0f / static_cast<float>(K), eps);
    for (std::size_t k = 0; k < w.size(); ++k) s.y[k] = formulas::normalized(s.x[k], factor, w[k]);
  };
  each_row(M, K, parallel, compute, finish);
}

template <class Finish>
void rms_norm_to(const Finish& finish, const MatrixView& x, const MatrixView& weight, float eps, Parallel& parallel) {
  visit_float(x.dtype, [&](auto type) {
    const auto prepare = [&](std::int64_t m, float* row) { widen(x.row<decltype(type)>(m), x.cols, row); };
    normalize(x.rows, weight, eps, parallel, prepare, finish);
  });
}

template <class Finish>
void add_rms_norm_to(const Finish& finish, const MatrixView& x, const MatrixView& residual, const MatrixView& weight,
                     float eps, const MutableMatrixView& sum, Parallel& parallel) {
  visit_float(x.dtype, [&](auto type) {
    using T = decltype(type);
    const auto prepare = [&](std::int64_t m, float* row) {
      const T *a = x.row<T>(m), *b = residual.row<T>(m);
      T* out = sum.row<T>(m);
      for (std::int64_t k = 0; k < x.cols; ++k) {
        out[k] = from_float<T>(exact::add(to_float(a[k]), to_float(b[k])));
        row[k] = to_float(out[k]);
      }
    };
    normalize(x.rows, weight, eps, parallel, prepare, finish);
  });
}

template <class Finish>
void silu_mul_to(const Finish& finish, const MatrixView& gate, const MatrixView& up, Parallel& parallel) {
  const auto multiply = loops().multiply;
  visit_float(gate.dtype, [&](auto type) {
    using T = decltype(type);
    const auto compute = [&](std::int64_t m, Scratch& s) {
      widen(gate.row<T>(m), gate.cols, s.x.data());
      widen(up.row<T>(m), gate.cols, s.y.data());
      multiply(s.x.data(), gate.cols, s.y.data());
    };
    each_row(gate.rows, gate.cols, parallel, compute, finish);
  });
}

}  // namespace

Status rms_norm_quantize(const MatrixView& x, const MatrixView& weight, float eps, const MutableMatrixView& q,
                         const MutableMatrixView& scale, Parallel& parallel) {
  OCTAVO_RETURN_IF_ERROR(check_on_cpu(x, "x"));
  OCTAVO_RETURN_IF_ERROR(check_rms_norm(x, weight, eps));
  OCTAVO_RETURN_IF_ERROR(check_per_token(x, kPerChannel, q, scale));
  rms_norm_to(quantized(q, scale), x, weight, eps, parallel);
  return {};
}

Status rms_norm(const MatrixView& x, const MatrixView& weight, float eps, const MutableMatrixView& y, Parallel& parallel) {
  OCTAVO_RETURN_IF_ERROR(check_on_cpu(x, "x"));
  OCTAVO_RETURN_IF_ERROR(check_rms_norm(x, weight, eps));
  OCTAVO_RETURN_IF_ERROR(check_rounded(x, y));
  rms_norm_to(rounded(y), x, weight, eps, parallel);
  return {};
}

Status add_rms_norm_quantize(const MatrixView& x, const MatrixView& residual, const MatrixView& weight, float eps,
                             const MutableMatrixView& sum, const MutableMatrixView& q, const MutableMatrixView& scale,
                             Parallel& parallel) {
  OCTAVO_RETURN_IF_ERROR(check_on_cpu(x, "x"));
  OCTAVO_RETURN_IF_ERROR(check_rms_norm(x, weight, eps));
  OCTAVO_RETURN_IF_ERROR(check_per_token(x, kPerChannel, q, scale));
  OCTAVO_RETURN_IF_ERROR(check_add(x, residual, sum));
  add_rms_norm_to(quantized(q, scale), x, residual, weight, eps, sum, parallel);
  return {};
}

Status add_rms_norm(const MatrixView& x, const MatrixView& residual, const MatrixView& weight, float eps,
                    const MutableMatrixView& sum, const MutableMatrixView& y, Parallel& parallel) {
  OCTAVO_RETURN_IF_ERROR(check_on_cpu(x, "x"));
  OCTAVO_RETURN_IF_ERROR(check_rms_norm(x, weight, eps));
  OCTAVO_RETURN_IF_ERROR(check_add(x, residual, sum));
  OCTAVO_RETURN_IF_ERROR(check_rounded(x, y));
  add_rms_norm_to(rounded(y), x, residual, weight, eps, sum, parallel);
  return {};
}

Status silu_mul_quantize(const MatrixView& gate, const MatrixView& up, const MutableMatrixView& q,
                         const MutableMatrixView& scale, Parallel& parallel) {
  OCTAVO_RETURN_IF_ERROR(check_on_cpu(gate, "gate"));
  OCTAVO_RETURN_IF_ERROR(check_silu_mul(gate, up));
  OCTAVO_RETURN_IF_ERROR(check_per_token(gate, kPerChannel, q, scale));
  silu_mul_to(quantized(q, scale), gate, up, parallel);
  return {};
}

Status silu_mul(const MatrixView& gate, const MatrixView& up, const MutableMatrixView& y, Parallel& parallel) {
  OCTAVO_RETURN_IF_ERROR(check_on_cpu(gate, "gate"));
  OCTAVO_RETURN_IF_ERROR(check_silu_mul(gate, up));
  OCTAVO_RETURN_IF_ERROR(check_rounded(gate, y));
  silu_mul_to(rounded(y), gate, up, parallel);
  return {};
}

}  // namespace octavo
