// The vector loops against the plain ones: every 16-bit weight, and every significand of a scale.
#include "quantize/slices.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <numeric>
#include <random>

#include "core/cpu_features.h"
#include "core/half.h"
#include "matrix.h"

#if defined(__x86_64__)
#include <immintrin.h>

namespace octavo::test {
namespace {

struct Table {
  const char* name;
  const SliceKernels* kernels;
  bool usable;
};

class VectorSlices : public testing::TestWithParam<Table> {
 protected:
  void SetUp() override {
    if (!GetParam().usable) GTEST_SKIP() << "this processor has no " << GetParam().name;
  }
  const SliceKernels& vector() const { return *GetParam().kernels; }
};
INSTANTIATE_TEST_SUITE_P(Tables, VectorSlices,
                         testing::Values(Table{"AVX2", &kAvx2Slices, cpu_features().avx2},
                                         Table{"AVX512", &kAvx512Slices, cpu_features().avx512}),
                         [](const auto& table) { return table.param.name; });

TEST_P(VectorSlices, EveryFiniteHalfQuantizesAsThePlainLoopDoes) {
  std::mt19937 random(1);
  for (const DType dtype : {DType::kFloat16, DType::kBFloat16}) {
    std::vector<std::uint16_t> all;
    for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
      const auto half = static_cast<std::uint16_t>(bits);
      if (std::isfinite(dtype == DType::kFloat16 ? to_float(Float16{half}) : to_float(BFloat16{half}))) all.push_back(half);
    }
    const auto n = static_cast<std::int64_t>(all.size());
    std::vector<std::uint8_t> expected(all.size()), actual(all.size());
    for (int trial = 0; trial < 60; ++trial) {
      const float magnitude = std::ldexp(1.0f, static_cast<int>(random() % 250) - 126);
      const float scale = trial == 0 ? 0x1p-126f : magnitude * (1.0f + static_cast<float>(random() & 0x7fffff) * 0x1p-23f);
      for (const int bits : {2, 4, 8}) {
        for (const bool symmetric : {true, false}) {
          const WeightFormat format = {bits, symmetric, kPerChannel};
          const ScaleZero s = {scale, symmetric ? 0.0f : static_cast<float>(random() % (1u << bits))};
          const float absmax = dtype == DType::kFloat16 ? 65504.0f : 0x1.fep127f;
          kScalarSlices.quantize(all.data(), dtype, n, absmax, s, format, expected.data());
          vector().quantize(all.data(), dtype, n, absmax, s, format, actual.data());
          ASSERT_EQ(expected, actual) << to_string(dtype) << " scale " << scale << " bits " << bits;
        }
      }
    }
  }
}

// The path without clamps takes slices whose absmax shows that no quotient is far out of range.
TEST_P(VectorSlices, EveryHalfNearTheRangeQuantizesAsThePlainLoopDoes) {
  std::mt19937 random(3);
  for (const DType dtype : {DType::kFloat16, DType::kBFloat16}) {
    for (int trial = 0; trial < 200; ++trial) {
      const float scale =
          std::ldexp(1.0f + static_cast<float>(random() & 0x7fffff) * 0x1p-23f, static_cast<int>(random() % 40) - 20);
      const float absmax = scale * 0x1p14f;
      std::vector<std::uint16_t> near;
      for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
        const auto half = static_cast<std::uint16_t>(bits);
        if (std::fabs(dtype == DType::kFloat16 ? to_float(Float16{half}) : to_float(BFloat16{half})) <= absmax)
          near.push_back(half);
      }
      const auto n = static_cast<std::int64_t>(near.size());
      std::vector<std::uint8_t> expected(near.size()), actual(near.size());
      kScalarSlices.quantize(near.data(), dtype, n, absmax, {scale, 0}, {}, expected.data());
      vector().quantize(near.data(), dtype, n, absmax, {scale, 0}, {}, actual.data());
      ASSERT_EQ(expected, actual) << to_string(dtype) << " scale " << scale;
    }
  }
}

// One correction of w · (1/s) is the correctly rounded w / s: for every significand of s and of w. The exponents of
// both do not matter, as long as nothing under- or overflows.
__attribute__((target("avx2,fma"))) std::int64_t wrong_quotients(int significand_bits) {
  std::int64_t wrong = 0;
  const __m256 one = _mm256_set1_ps(1.0f);
  const std::uint32_t first = 1u << (significand_bits - 1);
  for (std::uint32_t bits = 0; bits < (1u << 23); bits += 8) {
    const __m256i lanes =
        _mm256_add_epi32(_mm256_set1_epi32(static_cast<int>(0x3f800000u + bits)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
    const __m256 s = _mm256_castsi256_ps(lanes);
    const __m256 r = _mm256_div_ps(one, s);
    for (std::uint32_t significand = first; significand < 2 * first; ++significand) {
      const __m256 w = _mm256_set1_ps(static_cast<float>(significand));
      const __m256 p = _mm256_mul_ps(w, r);
      const __m256 quotient = _mm256_fmadd_ps(_mm256_fnmadd_ps(p, s, w), r, p);
      const __m256 same = _mm256_cmp_ps(quotient, _mm256_div_ps(w, s), _CMP_EQ_OQ);
      if (const int mask = _mm256_movemask_ps(same); mask != 0xff) wrong += 8 - std::popcount(static_cast<unsigned>(mask));
    }
  }
  return wrong;
}

TEST_P(VectorSlices, ReciprocalWithCorrectionIsTheQuotientOfEvery16BitWeight) {
  EXPECT_EQ(wrong_quotients(8), 0);   // bfloat16
  EXPECT_EQ(wrong_quotients(11), 0);  // float16
}

TEST_P(VectorSlices, EverythingElseEqualsThePlainLoops) {
  std::mt19937 random(2);
  for (const DType dtype : {DType::kFloat32, DType::kFloat16, DType::kBFloat16}) {
    for (const std::int64_t n : {0, 1, 7, 8, 15, 16, 17, 31, 32, 33, 63, 64, 100, 577}) {
      for (const bool symmetric : {true, false}) {
        const Matrix w = random_float(dtype, 1, n, static_cast<std::uint32_t>(n), Fill::kWide);
        const void* data = w.view().data;
        const WeightFormat format = {8, symmetric, kPerChannel};
        const Extremes a = kScalarSlices.extremes(data, dtype, n);
        const Extremes b = vector().extremes(data, dtype, n);
        ASSERT_EQ(a.range.lo, b.range.lo);
        ASSERT_EQ(a.range.hi, b.range.hi);
        ASSERT_EQ(a.finite, b.finite);
        const ScaleZero s = scale_of(a.range, format, DType::kFloat32);
        Matrix q(DType::kUInt8, 1, n);
        Matrix p(DType::kUInt8, 1, n);
        kScalarSlices.quantize(data, dtype, n, absmax_of(a.range), s, format, q.mut().data);
        vector().quantize(data, dtype, n, absmax_of(a.range), s, format, p.mut().data);
        ASSERT_TRUE(q == p) << to_string(dtype) << ' ' << n;
        const ErrorSums e = kScalarSlices.errors(data, dtype, q.view().data, symmetric, n, s);
        const ErrorSums f = vector().errors(data, dtype, q.view().data, symmetric, n, s);
        ASSERT_EQ(e.squared_signal, f.squared_signal);
        ASSERT_EQ(e.squared_error, f.squared_error);
        ASSERT_EQ(e.absolute_error, f.absolute_error);
        ASSERT_EQ(e.max_absolute_error, f.max_absolute_error);
        if (dtype == DType::kFloat32) {
          const WeightFormat three = {3, symmetric, kPerChannel};
          const ScaleZero t = scale_of({a.range.lo * 0.6f, a.range.hi * 0.6f}, three, DType::kFloat16);
          const auto* floats = static_cast<const float*>(data);
          ASSERT_EQ(kScalarSlices.trial_error(floats, n, t, three), vector().trial_error(floats, n, t, three));
        }
      }
    }
  }
}

TEST_P(VectorSlices, EveryPositionOfANaNOrInfIsSeen) {
  for (const DType dtype : {DType::kFloat32, DType::kFloat16, DType::kBFloat16}) {
    for (const float bad : {NAN, -NAN, INFINITY, -INFINITY}) {
      for (std::int64_t k = 0; k < 75; ++k) {
        Matrix w = random_float(dtype, 1, 75, 4);
        ASSERT_TRUE(vector().extremes(w.view().data, dtype, 75).finite);
        w.set(0, k, bad);
        ASSERT_FALSE(vector().extremes(w.view().data, dtype, 75).finite);
        ASSERT_FALSE(kScalarSlices.extremes(w.view().data, dtype, 75).finite);
      }
    }
  }
}

}  // namespace
}  // namespace octavo::test

#endif  // __x86_64__
