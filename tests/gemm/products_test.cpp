// Every row of the kernel table against the reference, over awkward shapes: integer products with ==, mixed ones with the
// bound of docs/numerics.md.
#include <gtest/gtest.h>

#include <cmath>
#include <optional>

#include "core/cpu_features.h"
#include "core/error.h"
#include "gemm/check.h"
#include "gemm/cpu/integer_avxvnni.h"
#include "gemm/kernels.h"
#include "gemm/packed.h"
#include "gemm/reference.h"
#include "matrix.h"
#include "quantize/reference.h"

namespace octavo {

// What a failing test calls its row.
void PrintTo(const Kernel& kernel, std::ostream* out);
void PrintTo(const Kernel& kernel, std::ostream* out) { *out << kernel.name; }

namespace test {
namespace {

struct Shape {
  std::int64_t M, N, K;
};

const Shape kShapes[] = {{0, 3, 8},    {1, 0, 8},    {2, 3, 0},     {1, 1, 1},    {1, 4, 16},   {2, 7, 15},
                         {7, 2, 31},   {3, 5, 17},   {15, 16, 33},  {16, 17, 63}, {1, 129, 64}, {65, 9, 65},
                         {5, 33, 127}, {3, 64, 128}, {66, 31, 129}, {4, 15, 576}, {1, 3, 4095}, {2, 6, 4112}};

class EveryKernel : public testing::TestWithParam<Kernel> {
 protected:
  void SetUp() override {
    if (const Status usable = GetParam().usable(); !usable.ok()) GTEST_SKIP() << GetParam().name << ": " << usable.message();
  }
  void run(const Arguments& a) { GetParam().run(a, *pool_); }
  bool computes(Op op) const { return GetParam().op == op; }
  // The weight as this row reads it, beside the row-major one that it is checked against.
  std::optional<Packed> packed(const QuantizedWeight& w) const {
    if (GetParam().layout == Layout::kRowMajor) return {};
    return std::optional<Packed>(std::in_place, w);
  }

  std::unique_ptr<Parallel> pool_ = make_thread_pool(3);
};

#if defined(__x86_64__)
// AVX-VNNI's kernels where a processor has their instruction in AVX-512VL only.
Status needs_avx512_vnni() {
  return cpu_features().avx512_vnni ? Status() : unsupported("this processor has no AVX-512 VNNI");
}
std::string any_problem(const Problem&) { return {}; }
const Kernel kTwins[] = {
    {"cpu_s8_w8_avx512vnni_ymm", Op::kScaledMm, DeviceType::kCpu, Layout::kBlock64, "", needs_avx512_vnni, any_problem,
     cpu_s8_w8_avx512vnni_ymm},
    {"cpu_s8g_w4_avx512vnni_ymm", Op::kLinearW4A8, DeviceType::kCpu, Layout::kBlock64, "", needs_avx512_vnni, any_problem,
     cpu_s8g_w4_avx512vnni_ymm},
};
#else
const std::span<const Kernel> kTwins;
#endif

// The CPU's rows that compute an operation; all for nothing. cuda_test.cpp has the GPU's.
std::vector<Kernel> rows_for(std::optional<Op> op) {
  std::vector<Kernel> rows;
  for (const std::span<const Kernel> kernels : {kernel_table(), std::span<const Kernel>(kTwins)}) {
    for (const Kernel& kernel : kernels) {
      if (kernel.device == DeviceType::kCpu && (!op || kernel.op == *op)) rows.push_back(kernel);
    }
  }
  return rows;
}

std::string name_of(const testing::TestParamInfo<Kernel>& row) { return std::string(row.param.name); }

class ScaledMmKernel : public EveryKernel {};
class LinearKernel : public EveryKernel {};
class LinearW4A8Kernel : public EveryKernel {};
class LlmInt8Kernel : public EveryKernel {};
INSTANTIATE_TEST_SUITE_P(Table, EveryKernel, testing::ValuesIn(rows_for({})), name_of);
INSTANTIATE_TEST_SUITE_P(Table, ScaledMmKernel, testing::ValuesIn(rows_for(Op::kScaledMm)), name_of);
INSTANTIATE_TEST_SUITE_P(Table, LinearKernel, testing::ValuesIn(rows_for(Op::kLinear)), name_of);
INSTANTIATE_TEST_SUITE_P(Table, LinearW4A8Kernel, testing::ValuesIn(rows_for(Op::kLinearW4A8)), name_of);
INSTANTIATE_TEST_SUITE_P(Table, LlmInt8Kernel, testing::ValuesIn(rows_for(Op::kLinearLlmInt8)), name_of);

TEST_P(ScaledMmKernel, EqualsTheReference) {
  std::vector<Shape> shapes(std::begin(kShapes), std::end(kShapes));
  shapes.insert(shapes.end(), {{13, 70, 600}, {500, 5, 40}, {19, 66, 16400}});  // several blocks, passes and spans of K
  for (const Shape& s : shapes) {
    if (GetParam().layout != Layout::kRowMajor && (s.N == 0 || s.K == 0)) continue;  // nothing to pack
    for (const DType y_dtype : {DType::kInt32, DType::kFloat32, DType::kFloat16, DType::kBFloat16}) {
      const bool raw = y_dtype == DType::kInt32;
      const bool one_scale = s.M % 2 == 0;
      const Matrix x = random_int8(s.M, s.K, 1, 3);
      const Matrix w = random_int8(s.N, s.K, 2, 1);
      const Matrix x_scale = random_float(DType::kFloat32, one_scale ? 1 : s.M, 1, 3, Fill::kWide);
      const Matrix w_scale = random_float(DType::kFloat32, one_scale ? s.N : 1, 1, 4, Fill::kWide);
      const Matrix bias = random_float(DType::kBFloat16, 1, s.N, 5);
      Matrix y(y_dtype, s.M, s.N, 5);
      Matrix expected(y_dtype, s.M, s.N);
      Arguments a = {x.view(),
                     x_scale.view(),
                     {{8, true, one_scale ? kPerChannel : kPerTensor}, w.view(), w_scale.view(), {}},
                     raw ? MatrixView() : bias.view(),
                     y.mut()};
      ASSERT_TRUE(check_scaled_mm(a).ok()) << check_scaled_mm(a).message();
      const auto packed = this->packed(a.w);
      if (packed) a.packed = packed->view();
      if (s.M > 0) run(a);
      a.y = expected.mut();
      reference::scaled_mm(a, serial());
      ASSERT_TRUE(y == expected) << s.M << 'x' << s.N << 'x' << s.K << ' ' << to_string(y_dtype);
    }
  }
}

TEST_P(ScaledMmKernel, IsExactAtTheEndOfTheRange) {
  Matrix x(DType::kInt8, 2, kMaxIntegerK);
  Matrix w(DType::kInt8, 1, kMaxIntegerK);
  for (std::int64_t k = 0; k < kMaxIntegerK; ++k) {
    x.mut().row<std::int8_t>(0)[k] = -128;
    x.mut().row<std::int8_t>(1)[k] = 127;
    w.mut().row<std::int8_t>(0)[k] = -128;
  }
  Matrix y(DType::kInt32, 2, 1);
  const Matrix scale = random_float(DType::kFloat32, 1, 1, 1);
  Arguments a = {x.view(), {}, {{}, w.view(), scale.view(), {}}, {}, y.mut()};
  const auto packed = this->packed(a.w);
  if (packed) a.packed = packed->view();
  run(a);
  EXPECT_EQ(y.view().row<std::int32_t>(0)[0], 16384 * kMaxIntegerK);
  EXPECT_EQ(y.view().row<std::int32_t>(1)[0], -16256 * kMaxIntegerK);
}

// |y - y*| <= u |y*| + 2^-23 (K/16 + 8) Σ |x||ŵ| + tiny
void expect_within_bound(const Arguments& a, const MatrixView& y) {
  const double u = y.dtype == DType::kFloat16 ? 0x1p-11 : y.dtype == DType::kBFloat16 ? 0x1p-8 : 0x1p-24;
  for (std::int64_t m = 0; m < y.rows; ++m) {
    for (std::int64_t n = 0; n < y.cols; ++n) {
      double exact = a.bias.empty() ? 0 : static_cast<double>(reference::element(a.bias, 0, n));
      double magnitude = std::fabs(exact);
      for (std::int64_t k = 0; k < a.x.cols; ++k) {
        const double product = static_cast<double>(reference::element(a.x, m, k)) *
                               static_cast<double>(reference::centered(a.w, n, k)) *
                               static_cast<double>(reference::scale_at(a.w, n, k));
        exact += product;
        magnitude += std::fabs(product);
      }
      const double bound = u * std::fabs(exact) + 0x1p-23 * (static_cast<double>(a.x.cols) / 16 + 8) * magnitude + 1e-30;
      ASSERT_LE(std::fabs(static_cast<double>(reference::element(y, m, n)) - exact), bound) << m << ' ' << n;
    }
  }
}

TEST_P(LinearKernel, IsWithinItsBound) {
  std::vector<Shape> shapes(std::begin(kShapes), std::end(kShapes));
  shapes.insert(shapes.end(), {{13, 70, 600}, {500, 5, 40}});  // several blocks and chunks; more rows than share a panel
  for (const Shape& s : shapes) {
    if (GetParam().layout != Layout::kRowMajor && (s.N == 0 || s.K == 0)) continue;  // nothing to pack
    int turn = 0;
    for (const int bits : {8, 4, 3}) {
      for (const std::int64_t group : {kPerTensor, kPerChannel, std::int64_t{32}, std::int64_t{50}}) {
        for (const bool symmetric : {true, false}) {
          const bool two_a_byte = bits <= 4;
          const WeightFormat format = {bits, symmetric, group};
          Quantized w(format, s.N, s.K, two_a_byte);
          const Matrix original = random_float(DType::kFloat32, s.N, s.K, 1);
          ASSERT_TRUE(quantize(original.view(), {}, w.mut()).ok());
          for (const DType dtype : {DType::kFloat32, DType::kFloat16, DType::kBFloat16}) {
            const Problem problem = {Op::kLinear, dtype, storage_dtype(format, two_a_byte), format, s.M, s.N, s.K, {}};
            if (!GetParam().refuses(problem).empty()) continue;
            const Matrix x = random_float(dtype, s.M, s.K, 2, Fill::kNormal, 2);
            const Matrix bias = random_float(dtype, 1, s.N, 3);
            Matrix y(dtype, s.M, s.N, 4);
            Arguments a = {x.view(), {}, w.view(), ++turn % 2 == 0 ? bias.view() : MatrixView(), y.mut()};
            const auto packed = this->packed(w.view());
            if (packed) a.packed = packed->view();
            ASSERT_TRUE(check_linear(a).ok()) << check_linear(a).message();
            run(a);
            expect_within_bound(a, y.view());
            if (HasFatalFailure()) FAIL() << s.M << 'x' << s.N << 'x' << s.K << ' ' << bits << " bits, groups of " << group;
          }
        }
      }
    }
  }
}

// Products that the sum of many others would hide, at the ends of the ranges.
TEST_P(LinearKernel, IsExactWhereOneProductIs) {
  for (const bool symmetric : {true, false}) {
    for (const int bits : {8, 4}) {
      const WeightFormat format = {bits, symmetric, 24};
      const std::int64_t M = 21, N = 70, K = 61;
      for (const DType dtype : {DType::kFloat32, DType::kFloat16, DType::kBFloat16}) {
        const Problem problem = {Op::kLinear, dtype, storage_dtype(format, bits == 4), format, M, N, K, {}};
        if (!GetParam().refuses(problem).empty()) continue;
        Quantized plain(format, N, K), w(format, N, K, bits == 4);
        Matrix x(dtype, M, K), y(dtype, M, N);
        for (std::int64_t n = 0; n < N; ++n) {
          const std::int64_t values = format.qmax() - format.qmin() + 1;
          for (std::int64_t k = 0; k < K; ++k) {
            plain.q.mut().row<std::int8_t>(n)[k] = static_cast<std::int8_t>(format.qmin() + (n * 37 + k * 11) % values);
          }
          for (std::int64_t g = 0; g < format.groups(K); ++g) {
            w.scale.mut().row<float>(n)[g] = 1;
            if (!symmetric) w.zero_point.mut().row<std::uint8_t>(n)[g] = static_cast<std::uint8_t>((n * 5 + g) % values);
          }
        }
        if (bits == 4) {
          ASSERT_TRUE(pack_int4(plain.q.view(), w.q.mut()).ok());
        } else {
          w.q = std::move(plain.q);
        }
        for (std::int64_t m = 0; m < M; ++m) x.set(m, m * 3 % K, m % 2 == 0 ? 1.0f : -0.5f);
        Arguments a = {x.view(), {}, w.view(), {}, y.mut()};
        const auto packed = this->packed(w.view());
        if (packed) a.packed = packed->view();
        run(a);
        for (std::int64_t m = 0; m < M; ++m) {
          for (std::int64_t n = 0; n < N; ++n) {
            const float expected = reference::centered(w.view(), n, m * 3 % K) * (m % 2 == 0 ? 1.0f : -0.5f);
            ASSERT_EQ(reference::element(y.view(), m, n), expected) << m << ' ' << n << ' ' << bits << " bits";
          }
        }
      }
    }
  }
}

TEST_P(LinearW4A8Kernel, EqualsItsFormula) {
  std::vector<Shape> shapes(std::begin(kShapes), std::end(kShapes));
  shapes.insert(shapes.end(), {{13, 70, 600}, {500, 5, 40}, {25, 66, 9000}});
  for (const Shape& s : shapes) {
    if (GetParam().layout != Layout::kRowMajor && (s.N == 0 || s.K == 0)) continue;  // nothing to pack
    for (const std::int64_t group : {std::int64_t{16}, std::int64_t{50}, std::int64_t{64}}) {
      for (const bool symmetric : {true, false}) {
        const bool two_a_byte = s.N % 2 == 0;
        const WeightFormat format = {4, symmetric, group};
        const Problem problem = {
            Op::kLinearW4A8, DType::kBFloat16, storage_dtype(format, two_a_byte), format, 64, s.N, s.K, {}};
        if (!GetParam().refuses(problem).empty()) continue;
        const Matrix original = random_float(DType::kFloat32, s.N, s.K, 1);
        Matrix x = random_float(DType::kBFloat16, s.M, s.K, 2, Fill::kWide);
        if (s.M > 2 && s.K > 0) x.set(1, s.K - 1, NAN);
        Quantized w({4, symmetric, group}, s.N, s.K, two_a_byte);
        ASSERT_TRUE(quantize(original.view(), {}, w.mut()).ok());
        Matrix y(DType::kFloat32, s.M, s.N);
        Arguments a = {x.view(), {}, w.view(), {}, y.mut()};
        const auto packed = this->packed(w.view());
        if (packed) a.packed = packed->view();
        if (s.M > 0) run(a);

        const std::int64_t groups = w.format.groups(s.K);
        Matrix q(DType::kInt8, s.M, s.K), scale(DType::kFloat32, s.M, groups);
        ASSERT_TRUE(quantize_per_token(x.view(), group, q.mut(), scale.mut()).ok());
        for (std::int64_t m = 0; m < s.M; ++m) {
          for (std::int64_t n = 0; n < s.N; ++n) {
            float expected = 0;
            for (std::int64_t g = 0; g < groups; ++g) {
              std::int64_t acc = 0;
              for (std::int64_t k = g * group; k < std::min(s.K, (g + 1) * group); ++k) {
                acc += q.view().row<std::int8_t>(m)[k] * static_cast<std::int64_t>(reference::centered(w.view(), n, k));
              }
              expected += static_cast<float>(acc) * (w.scale.view().row<float>(n)[g] * scale.view().row<float>(m)[g]);
            }
            const float actual = y.view().row<float>(m)[n];
            ASSERT_TRUE(actual == expected || (std::isnan(actual) && std::isnan(expected)));
          }
        }
      }
    }
  }
}

Matrix with_outliers(std::int64_t M, std::int64_t K) {
  Matrix x = random_float(DType::kFloat16, M, K, 7);
  for (std::int64_t m = 0; m < M; m += 2) {
    if (K > 3) x.set(m, 3, -9.5f);
    if (K > 20) x.set(m, 20, 6.0f);  // at the threshold: an outlier
  }
  return x;
}

Matrix llm_int8(const Kernel& kernel, const Matrix& x, const Quantized& w, float threshold, OutlierRule rule) {
  Matrix y(DType::kFloat32, x.view().rows, w.q.view().rows);
  Arguments a = {x.view(), {}, w.view(), {}, y.mut(), threshold, rule};
  std::optional<Packed> packed;
  if (kernel.layout != Layout::kRowMajor) a.packed = packed.emplace(w.view()).view();
  if (!a.y.empty()) kernel.run(a, serial());
  return y;
}

TEST_P(LlmInt8Kernel, WithoutThresholdIsW8A8) {
  for (const Shape& s : kShapes) {
    if (GetParam().layout != Layout::kRowMajor && (s.N == 0 || s.K == 0)) continue;  // nothing to pack
    const Matrix original = random_float(DType::kFloat32, s.N, s.K, 1);
    const Matrix x = with_outliers(s.M, s.K);
    Quantized w({8, true, kPerChannel}, s.N, s.K);
    ASSERT_TRUE(quantize(original.view(), {}, w.mut()).ok());
    Matrix q(DType::kInt8, s.M, s.K), scale(DType::kFloat32, s.M, 1), plain(DType::kFloat32, s.M, s.N);
    ASSERT_TRUE(quantize_per_token(x.view(), kPerChannel, q.mut(), scale.mut()).ok());
    ASSERT_TRUE(scaled_mm(q.view(), scale.view(), w.q.view(), w.scale.view(), {}, plain.mut()).ok());
    ASSERT_TRUE(llm_int8(GetParam(), x, w, 0, OutlierRule::kToken) == plain);
    ASSERT_TRUE(llm_int8(GetParam(), x, w, 1e9f, OutlierRule::kToken) == plain);
  }
}

TEST_P(LlmInt8Kernel, EqualsTheReference) {
  for (const Shape& s : {Shape{7, 70, 130}, Shape{40, 129, 64}}) {
    const Matrix original = random_float(DType::kFloat32, s.N, s.K, 1);
    const Matrix x = with_outliers(s.M, s.K);
    const Matrix bias = random_float(DType::kFloat16, 1, s.N, 2);
    Quantized w({8, true, kPerChannel}, s.N, s.K);
    ASSERT_TRUE(quantize(original.view(), {}, w.mut()).ok());
    for (const OutlierRule rule : {OutlierRule::kToken, OutlierRule::kBatch}) {
      Matrix y(DType::kBFloat16, s.M, s.N, 1), expected(DType::kBFloat16, s.M, s.N);
      Arguments a = {x.view(), {}, w.view(), bias.view(), y.mut(), 2.5f, rule};
      const auto packed = this->packed(w.view());
      if (packed) a.packed = packed->view();
      run(a);
      a.y = expected.mut();
      reference::linear_llm_int8(a, serial());
      ASSERT_TRUE(y == expected);
    }
  }
}

TEST_P(LlmInt8Kernel, TakesOutliersOutOfTheIntegers) {
  const Matrix original = random_float(DType::kFloat32, 24, 200, 1);
  const Matrix x = with_outliers(6, 200);
  Quantized w({8, true, kPerChannel}, 24, 200);
  ASSERT_TRUE(quantize(original.view(), {}, w.mut()).ok());
  const Matrix all = llm_int8(GetParam(), x, w, 6, OutlierRule::kToken);
  const Matrix batch = llm_int8(GetParam(), x, w, 6, OutlierRule::kBatch);
  double error[2] = {0, 0};
  const Matrix plain = llm_int8(GetParam(), x, w, 0, OutlierRule::kToken);
  for (std::int64_t m = 0; m < 6; ++m) {
    for (std::int64_t n = 0; n < 24; ++n) {
      double exact = 0;
      for (std::int64_t k = 0; k < 200; ++k) {
        exact += static_cast<double>(reference::element(x.view(), m, k)) *
                 static_cast<double>(reference::centered(w.view(), n, k) * reference::scale_at(w.view(), n, k));
      }
      error[0] += std::fabs(static_cast<double>(plain.view().row<float>(m)[n]) - exact);
      error[1] += std::fabs(static_cast<double>(all.view().row<float>(m)[n]) - exact);
    }
  }
  EXPECT_LT(error[1], 0.8 * error[0]);
  // By token a row is independent of its neighbours; by batch the same columns leave every row.
  for (std::int64_t m = 0; m < 6; ++m) {
    Matrix row(DType::kFloat16, 1, 200);
    std::memcpy(row.mut().data, x.view().row<char>(m), 400);
    const Matrix alone = llm_int8(GetParam(), row, w, 6, OutlierRule::kToken);
    EXPECT_EQ(std::memcmp(alone.view().data, all.view().row<char>(m), 24 * sizeof(float)), 0) << m;
    const bool has_outliers = m % 2 == 0;
    EXPECT_EQ(std::memcmp(all.view().row<char>(m), batch.view().row<char>(m), 24 * sizeof(float)) == 0, has_outliers);
  }
}

TEST_P(EveryKernel, RowsDoNotDependOnBatchOrThreads) {
  const std::int64_t M = 23, N = 37, K = 600;
  const bool two_a_byte = GetParam().name.find("_w4_") != std::string_view::npos;
  const bool integer = computes(Op::kScaledMm);
  const DType x_dtype = GetParam().name.find("_bf16_") != std::string_view::npos ? DType::kBFloat16 : DType::kFloat32;
  const Matrix x = integer ? random_int8(M, K, 2) : random_float(x_dtype, M, K, 2);
  const Matrix x_scale = random_float(DType::kFloat32, M, 1, 3);
  const Matrix original = random_float(DType::kFloat32, N, K, 1);
  for (const bool symmetric : {true, false}) {
    if (!symmetric && !computes(Op::kLinear)) continue;
    const WeightFormat format = {two_a_byte ? 4 : 8, symmetric, two_a_byte ? 64 : kPerChannel};
    Quantized w(format, N, K, two_a_byte);
    ASSERT_TRUE(quantize(original.view(), {}, w.mut()).ok());
    const auto packed = this->packed(w.view());
    const auto product = [&](const MatrixView& rows, const MatrixView& scales, const MutableMatrixView& y,
                             Parallel& threads) {
      Arguments a = {rows, scales, w.view(), {}, y, 1.5f};
      if (packed) a.packed = packed->view();
      GetParam().run(a, threads);
    };
    Matrix whole(DType::kFloat32, M, N);
    product(x.view(), x_scale.view(), whole.mut(), *pool_);
    for (const std::int64_t rows : {1, 2, 5, 8}) {
      for (std::int64_t m = 0; m + rows <= M; m += rows) {
        Matrix some(DType::kFloat32, rows, N);
        product(x.view().slice_rows(m, m + rows), x_scale.view().slice_rows(m, m + rows), some.mut(), serial());
        ASSERT_EQ(
            std::memcmp(some.view().data, whole.view().row<char>(m), static_cast<std::size_t>(rows * N) * sizeof(float)), 0)
            << rows << " rows from " << m;
      }
    }
  }
}

}  // namespace
}  // namespace test
}  // namespace octavo
