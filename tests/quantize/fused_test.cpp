// What stands in front of a product, with its quantization and without, against formulas that share no code with it.
#include "octavo/fused.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "matrix.h"
#include "quantize/formulas.h"
#include "quantize/reference.h"

namespace octavo::test {
namespace {

constexpr DType kFloats[] = {DType::kFloat32, DType::kFloat16, DType::kBFloat16};
constexpr std::int64_t kLengths[] = {0, 1, 2, 7, 8, 9, 15, 16, 17, 31, 63, 64, 65, 129, 576, 1000, 4096};

Matrix like(const Matrix& m, DType dtype) { return {dtype, m.view().rows, m.view().cols}; }

// Whether q and scale are what quantizing y, float32, gives.
void expect_quantized(const Matrix& y, const Matrix& q, const Matrix& scale, const std::string& what) {
  for (std::int64_t m = 0; m < y.view().rows; ++m) {
    const float* row = y.view().row<float>(m);
    float absmax = 0;
    bool finite = true;
    for (std::int64_t k = 0; k < y.view().cols; ++k) {
      absmax = std::max(absmax, std::fabs(row[k]));
      finite = finite && std::isfinite(row[k]);
    }
    const float s = absmax == 0 ? 1 : std::max(absmax / 127, 0x1p-126f), found = *scale.view().row<float>(m);
    EXPECT_TRUE(finite ? found == s : std::isnan(found)) << what << " row " << m;
    const double reciprocal = 1.0f / s;
    for (std::int64_t k = 0; k < y.view().cols; ++k) {
      const double expected = finite ? std::rint(row[k] * reciprocal) : 0;  // exact, until it is rounded
      ASSERT_EQ(q.view().row<std::int8_t>(m)[k], expected) << what << " row " << m << " k " << k;
    }
  }
}

// Σ x² as docs/numerics.md orders it, by recursion: [begin, begin + count), count a power of two, beyond the end zeros.
float squares(const std::vector<float>& x, std::size_t begin, std::size_t step, std::size_t count) {
  if (count == 1) return begin < x.size() ? x[begin] : 0.0f;
  // Halves to halves last: even and odd numbers first.
  return squares(x, begin, 2 * step, count / 2) + squares(x, begin + step, 2 * step, count / 2);
}
float sum_of_squares(const Matrix& x, std::int64_t m) {
  const std::int64_t K = x.view().cols;
  std::vector<float> pieces;
  for (std::int64_t first = 0; first < K; first += 8) {
    std::vector<float> piece;
    for (std::int64_t k = first; k < std::min(first + 8, K); ++k) {
      const float value = reference::element(x.view(), m, k);
      piece.push_back(value * value);
    }
    pieces.push_back(squares(piece, 0, 1, 8));
  }
  std::size_t count = 1;
  while (count < pieces.size()) count *= 2;
  return squares(pieces, 0, 1, count);
}

// y rounded to x's type.
Matrix rounded(const Matrix& y, DType dtype) {
  Matrix out = like(y, dtype);
  for (std::int64_t m = 0; m < y.view().rows; ++m) {
    for (std::int64_t k = 0; k < y.view().cols; ++k) out.set(m, k, y.view().row<float>(m)[k]);
  }
  return out;
}

// Whether two matrices of one type have the same values, NaN for NaN.
void expect_same(const Matrix& found, const Matrix& expected, const std::string& what) {
  for (std::int64_t m = 0; m < expected.view().rows; ++m) {
    for (std::int64_t k = 0; k < expected.view().cols; ++k) {
      const float a = reference::element(found.view(), m, k), b = reference::element(expected.view(), m, k);
      ASSERT_TRUE(a == b || (std::isnan(a) && std::isnan(b))) << what << ' ' << m << ' ' << k << ' ' << a << ' ' << b;
    }
  }
}

Matrix normalized(const Matrix& x, const Matrix& weight, float eps) {
  Matrix y = like(x, DType::kFloat32);
  for (std::int64_t m = 0; m < x.view().rows; ++m) {
    const float mean = sum_of_squares(x, m) * (1.0f / static_cast<float>(x.view().cols));
    const float factor = 1.0f / std::sqrt(mean + eps);
    for (std::int64_t k = 0; k < x.view().cols; ++k) {
      y.set(m, k, reference::element(x.view(), m, k) * factor * reference::element(weight.view(), 0, k));
    }
  }
  return y;
}

TEST(RmsNormQuantize, IsTheFormulaThenTheQuantization) {
  const auto pool = make_thread_pool(3);
  std::uint32_t seed = 0;
  for (const DType dtype : kFloats) {
    for (const std::int64_t K : kLengths) {
      for (const Fill fill : {Fill::kNormal, Fill::kWide, Fill::kTiny, Fill::kZeroRows}) {
        Matrix x = random_float(dtype, 6, K, ++seed, fill, 3);
        const Matrix weight = random_float(dtype, 1, K, seed + 1000);
        if (K > 30) {
          x.set(1, 16, NAN);
          x.set(2, K - 1, -INFINITY);
        }
        const float eps = fill == Fill::kNormal ? 0.0f : 1e-5f;
        Matrix q(DType::kInt8, 6, K, 1), scale(DType::kFloat32, 6, 1, 2);
        const std::string what = std::string(to_string(dtype)) + " K=" + std::to_string(K);
        ASSERT_TRUE(rms_norm_quantize(x.view(), weight.view(), eps, q.mut(), scale.mut(), *pool).ok());
        expect_quantized(normalized(x, weight, eps), q, scale, what);
        Matrix y(dtype, 6, K, 1);
        ASSERT_TRUE(rms_norm(x.view(), weight.view(), eps, y.mut(), *pool).ok());
        expect_same(y, rounded(normalized(x, weight, eps), dtype), what + " rounded");

        // With a residual, which the sum replaces.
        Matrix residual = random_float(dtype, 6, K, seed + 2000, Fill::kNormal, 2);
        Matrix sum = like(x, dtype);
        for (std::int64_t m = 0; m < 6; ++m) {
          for (std::int64_t k = 0; k < K; ++k) {
            sum.set(m, k, reference::element(x.view(), m, k) + reference::element(residual.view(), m, k));
          }
        }
        ASSERT_TRUE(
            add_rms_norm_quantize(x.view(), residual.view(), weight.view(), eps, residual.mut(), q.mut(), scale.mut(), *pool)
                .ok());
        EXPECT_TRUE(residual == sum) << what;
        expect_quantized(normalized(sum, weight, eps), q, scale, what + " with a residual");
        residual = random_float(dtype, 6, K, seed + 2000, Fill::kNormal, 2);
        ASSERT_TRUE(add_rms_norm(x.view(), residual.view(), weight.view(), eps, residual.mut(), y.mut(), *pool).ok());
        EXPECT_TRUE(residual == sum) << what;
        expect_same(y, rounded(normalized(sum, weight, eps), dtype), what + " with a residual, rounded");
      }
    }
  }
}

// Against RMSNorm in float64: half a step of the quantization, and less than 2^-20 of the value.
TEST(RmsNormQuantize, IsCloseToTheRealNumbers) {
  for (const std::int64_t K : {8, 1000, 4096, 30000}) {
    const Matrix x = random_float(DType::kFloat32, 4, K, 5, Fill::kWide);
    const Matrix weight = random_float(DType::kFloat32, 1, K, 6);
    Matrix q(DType::kInt8, 4, K), scale(DType::kFloat32, 4, 1);
    ASSERT_TRUE(rms_norm_quantize(x.view(), weight.view(), 1e-6f, q.mut(), scale.mut()).ok());
    for (std::int64_t m = 0; m < 4; ++m) {
      double squares_of_row = 0;
      for (std::int64_t k = 0; k < K; ++k) squares_of_row += std::pow(double{x.view().row<float>(m)[k]}, 2);
      const double factor = 1 / std::sqrt(squares_of_row / static_cast<double>(K) + double{1e-6f});
      const double s = *scale.view().row<float>(m);
      for (std::int64_t k = 0; k < K; ++k) {
        const double y = x.view().row<float>(m)[k] * factor * weight.view().row<float>(0)[k];
        const double error = std::fabs(q.view().row<std::int8_t>(m)[k] * s - y);
        ASSERT_LE(error, s / 2 + std::fabs(y) * 0x1p-20) << K << ' ' << m << ' ' << k;
      }
    }
  }
}

// A float32's distance from a number, in units of the last place that the nearest float32 to that has.
double units_off(float found, double exact) {
  const auto nearest = static_cast<float>(std::fabs(exact));
  return std::fabs(double{found} - exact) / double{std::nextafter(nearest, INFINITY) - nearest};
}

template <class T>
void check_every_value() {
  double exp_off = 0, silu_off = 0;
  for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
    const float g = to_float(T{static_cast<std::uint16_t>(bits)});
    const float y = formulas::silu(g);
    if (!std::isfinite(g)) {
      EXPECT_FALSE(std::isfinite(y)) << g;
      continue;
    }
    if (std::fabs(g) <= formulas::kExpLimit) {
      exp_off = std::max(exp_off, units_off(formulas::exp_of_negative(g), std::exp(-double{g})));
    }
    const double exact = g / (1 + std::exp(-double{g}));
    if (std::fabs(exact) > 0x1p-118) silu_off = std::max(silu_off, units_off(y, exact));
    EXPECT_LE(std::fabs(y - exact), std::max(std::fabs(exact) * 0x1p-21, 1.5e-36)) << g;
  }
  EXPECT_LE(exp_off, 1.2);
  EXPECT_LE(silu_off, 3);
}

TEST(SiluMulQuantize, ExpAndSiluOfEvery16BitValueAreClose) {
  check_every_value<Float16>();
  check_every_value<BFloat16>();
}

// The formula of formulas.h, written once more. Multiply-adds are fused, as the bits depend on it.
float silu(float g) {
  if (std::isnan(g)) return g;
  if (g < -87) return g * 0.0f;
  const float a = std::min(g, 87.0f);
  const float n = std::rint(a * -0x1.715476p+0f);
  float f = std::fma(a, -0x1.715476p+0f, -n);
  f = std::fma(a, -0x1.4ae0cp-26f, f);
  float power = 0x1.41fb2cp-13f;
  for (const float c : {0x1.5f3f3p-10f, 0x1.3b2d5p-7f, 0x1.c6aee6p-5f, 0x1.ebfbdcp-3f, 0x1.62e43p-1f, 1.0f}) {
    power = std::fma(power, f, c);
  }
  return g * (1.0f / (1.0f + std::ldexp(power, static_cast<int>(n))));
}

TEST(SiluMulQuantize, IsTheFormulaThenTheQuantization) {
  const auto pool = make_thread_pool(3);
  std::uint32_t seed = 0;
  for (const DType dtype : kFloats) {
    for (const std::int64_t K : kLengths) {
      for (const Fill fill : {Fill::kNormal, Fill::kWide, Fill::kTiny, Fill::kZeroRows}) {
        // Halves of one matrix, and some values that are large.
        Matrix both = random_float(dtype, 6, 2 * K, ++seed, fill, 3);
        if (K > 30) {
          both.set(0, 3, -200);
          both.set(0, 4, 200);
          both.set(0, 5, -87.25f);
          both.set(0, 6, -60000);
          both.set(1, 16, NAN);
          both.set(2, 2 * K - 1, -INFINITY);
          both.set(3, 9, -INFINITY);
          both.set(4, 9, INFINITY);
        }
        MatrixView gate = both.view(), up = both.view();
        gate.cols = up.cols = K;
        up.data = both.view().row<char>(0) + row_bytes(dtype, K);
        Matrix y(DType::kFloat32, 6, K);
        for (std::int64_t m = 0; m < 6; ++m) {
          for (std::int64_t k = 0; k < K; ++k) {
            y.set(m, k, silu(reference::element(gate, m, k)) * reference::element(up, m, k));
          }
        }
        Matrix q(DType::kInt8, 6, K, 1), scale(DType::kFloat32, 6, 1);
        ASSERT_TRUE(silu_mul_quantize(gate, up, q.mut(), scale.mut(), *pool).ok());
        const std::string what = std::string(to_string(dtype)) + " K=" + std::to_string(K);
        expect_quantized(y, q, scale, what);
        Matrix product(dtype, 6, K, 1);
        ASSERT_TRUE(silu_mul(gate, up, product.mut(), *pool).ok());
        expect_same(product, rounded(y, dtype), what);
      }
    }
  }
}

TEST(QuantizeStatic, IsTheQuotientRoundedAndClamped) {
  std::uint32_t seed = 0;
  for (const DType dtype : kFloats) {
    for (const float s : {0.02f, 1.0f, 3e-5f, 1e-30f, 1e30f, 0x1p-140f}) {
      for (const std::int64_t K : {0, 1, 7, 64, 577}) {
        Matrix x = random_float(dtype, 4, K, ++seed, Fill::kWide, 1);
        if (K > 60) {
          x.set(0, 1, NAN);
          x.set(0, 2, INFINITY);
          x.set(0, 3, -INFINITY);
          x.set(0, 4, 60000);
          for (int i = 0; i < 30; ++i) x.set(1, i, (static_cast<float>(i) - 0.5f) * s);
        }
        Matrix scale(DType::kFloat32, 1, 1), q(DType::kInt8, 4, K, 2);
        scale.set(0, 0, s);
        ASSERT_TRUE(quantize_static(x.view(), scale.view(), q.mut()).ok());
        for (std::int64_t m = 0; m < 4; ++m) {
          for (std::int64_t k = 0; k < K; ++k) {
            const float quotient = reference::element(x.view(), m, k) / s;
            const float expected = std::isnan(quotient) ? 0 : std::clamp(std::rint(quotient), -128.0f, 127.0f);
            ASSERT_EQ(static_cast<float>(q.view().row<std::int8_t>(m)[k]), expected) << s << ' ' << m << ' ' << k;
          }
        }
      }
    }
  }
}

TEST(FusedQuantizations, SayWhatDoesNotFit) {
  const Matrix x = random_float(DType::kBFloat16, 2, 16, 1), weight = random_float(DType::kBFloat16, 1, 16, 2);
  Matrix q(DType::kInt8, 2, 16), scale(DType::kFloat32, 2, 1), sum(DType::kBFloat16, 2, 15), one(DType::kFloat32, 1, 1);
  const auto expect = [](const Status& status, std::string_view part) {
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
    EXPECT_NE(status.message().find(part), std::string::npos) << status.message();
  };
  const Matrix short_weight = random_float(DType::kBFloat16, 1, 15, 2),
               float_weight = random_float(DType::kFloat32, 1, 16, 2);
  expect(rms_norm_quantize(x.view(), short_weight.view(), 0, q.mut(), scale.mut()),
         "weight has shape [1, 15]; it must be [1, 16]");
  expect(rms_norm_quantize(x.view(), float_weight.view(), 0, q.mut(), scale.mut()),
         "weight is float32; it must be bfloat16");
  expect(rms_norm_quantize(x.view(), weight.view(), -1, q.mut(), scale.mut()), "eps is -1");
  expect(rms_norm_quantize(x.view(), weight.view(), NAN, q.mut(), scale.mut()), "eps is nan");
  expect(add_rms_norm_quantize(x.view(), x.view(), weight.view(), 0, sum.mut(), q.mut(), scale.mut()),
         "sum has shape [2, 15]; it must be [2, 16]");
  Matrix y(DType::kFloat16, 2, 16);
  expect(rms_norm(x.view(), weight.view(), 0, y.mut()), "y is float16; it must be bfloat16");
  expect(rms_norm(x.view(), short_weight.view(), 0, q.mut()), "weight has shape [1, 15]; it must be [1, 16]");
  expect(add_rms_norm(x.view(), x.view(), weight.view(), 0, sum.mut(), y.mut()),
         "sum has shape [2, 15]; it must be [2, 16]");
  expect(silu_mul(x.view(), x.view(), sum.mut()), "y has shape [2, 15]; it must be [2, 16]");
  expect(silu_mul_quantize(x.view(), weight.view(), q.mut(), scale.mut()), "up has shape [1, 16]; it must be [2, 16]");
  for (const float s : {0.0f, -1.0f, NAN, INFINITY}) {
    one.set(0, 0, s);
    expect(quantize_static(x.view(), one.view(), q.mut()), "it must be finite and greater than 0");
  }
  expect(quantize_static(x.view(), scale.view(), q.mut()), "scale has shape [2, 1]; it must be [1, 1]");
}

}  // namespace
}  // namespace octavo::test
