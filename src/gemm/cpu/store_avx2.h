// The end of a product for a row of 64 channels with AVX2: scales, bias, one rounding, a store that stays within the row.
#pragma once

#include "core/half.h"
#include "core/simd.h"
#include "gemm/epilogue.h"

#if defined(__x86_64__)

namespace octavo {

// Eight elements of a row of a floating-point matrix as float32.
OCTAVO_AVX2_INLINE __m256 load_floats8(const MatrixView& matrix, std::int64_t row, std::int64_t n) {
  if (matrix.dtype == DType::kFloat32) return _mm256_loadu_ps(matrix.row<float>(row) + n);
  const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(matrix.row<std::uint16_t>(row) + n));
  if (matrix.dtype == DType::kFloat16) return _mm256_cvtph_ps(bits);
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
}

// Rounded to nearest, ties to even, by integer arithmetic; NaNs stay NaNs.
OCTAVO_AVX2_INLINE __m128i to_bfloat16x8(__m256 v) {
  const __m256i bits = _mm256_castps_si256(v);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
  const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q));
  const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
  const __m256i upper = _mm256_srli_epi32(_mm256_blendv_epi8(rounded, quiet, nan), 16);
  return _mm256_castsi256_si128(_mm256_permute4x64_epi64(_mm256_packus_epi32(upper, upper), 0x88));
}

// Row m, channels [n, n + cols), from totals that are scaled already.
OCTAVO_AVX2_INLINE void store_totals_avx2(const float* totals, const Arguments& a, std::int64_t m, std::int64_t n,
                                          std::int64_t cols) {
  std::int64_t c = 0;
  for (; c + 8 <= cols; c += 8) {
    __m256 t = _mm256_loadu_ps(totals + c);
    if (!a.bias.empty()) t = _mm256_add_ps(t, load_floats8(a.bias, 0, n + c));
    if (a.y.dtype == DType::kFloat32) {
      _mm256_storeu_ps(a.y.row<float>(m) + n + c, t);
    } else {
      const __m128i bits = a.y.dtype == DType::kFloat16 ? _mm256_cvtps_ph(t, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)
                                                        : to_bfloat16x8(t);
      _mm_storeu_si128(reinterpret_cast<__m128i*>(a.y.row<std::uint16_t>(m) + n + c), bits);
    }
  }
  for (; c < cols; ++c) store_with_bias(a, m, n + c, totals[c]);
}

// The epilogue of integer products: float(sum) · w_scale, · x_scale, + bias, each step rounded to float32.
OCTAVO_AVX2_INLINE void store_sums_avx2(const std::int32_t* sums, const Arguments& a, const float* w_scale, std::int64_t m,
                                        std::int64_t n, std::int64_t cols) {
  if (a.y.dtype == DType::kInt32) {
    for (std::int64_t c = 0; c < cols; ++c) a.y.row<std::int32_t>(m)[n + c] = sums[c];
    return;
  }
  alignas(32) float totals[64];
  const __m256 x_scale = _mm256_set1_ps(scale_of_row(a.x_scale, m));
  for (int c = 0; c < 64; c += 8) {
    const __m256 sum = _mm256_cvtepi32_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(sums + c)));
    _mm256_store_ps(totals + c, _mm256_mul_ps(_mm256_mul_ps(sum, _mm256_loadu_ps(w_scale + c)), x_scale));
  }
  store_totals_avx2(totals, a, m, n, cols);
}

}  // namespace octavo

#endif  // __x86_64__
