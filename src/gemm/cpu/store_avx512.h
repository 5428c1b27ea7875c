// The end of a product for a row of 64 channels with AVX-512: scales, bias, one rounding, a store that stays within the row.
#pragma once

#include "core/half.h"
#include "core/simd.h"
#include "gemm/epilogue.h"

#if defined(__x86_64__)

namespace octavo {

// Elements [n, n + 16) of a row of a floating-point matrix as float32, where the mask allows.
OCTAVO_AVX512_INLINE __m512 load_floats(const MatrixView& matrix, std::int64_t row, std::int64_t n, __mmask16 mask) {
  if (matrix.dtype == DType::kFloat32) return _mm512_maskz_loadu_ps(mask, matrix.row<float>(row) + n);
  const __m256i bits = _mm256_maskz_loadu_epi16(mask, matrix.row<std::uint16_t>(row) + n);
  if (matrix.dtype == DType::kFloat16) return _mm512_cvtph_ps(bits);
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
}

// Rounded to nearest, ties to even, by integer arithmetic: VCVTNEPS2BF16 would flush subnormals. NaNs stay NaNs.
OCTAVO_AVX512_INLINE __m256i to_bfloat16(__m512 v) {
  const __m512i bits = _mm512_castps_si512(v);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
  const __mmask16 nan = _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
  const __m512i quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x400000));
  return _mm512_cvtepi32_epi16(_mm512_srli_epi32(_mm512_mask_mov_epi32(rounded, nan, quiet), 16));
}

OCTAVO_AVX512_INLINE void store_floats(const MutableMatrixView& y, std::int64_t m, std::int64_t n, __mmask16 mask,
                                       __m512 v) {
  if (y.dtype == DType::kFloat32) {
    _mm512_mask_storeu_ps(y.row<float>(m) + n, mask, v);
  } else if (y.dtype == DType::kFloat16) {
    const __m256i bits = _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    _mm256_mask_storeu_epi16(y.row<std::uint16_t>(m) + n, mask, bits);
  } else {
    _mm256_mask_storeu_epi16(y.row<std::uint16_t>(m) + n, mask, to_bfloat16(v));
  }
}

// The first `count` of sixteen lanes.
inline __mmask16 first_lanes(std::int64_t count) {
  return static_cast<__mmask16>(count >= 16 ? 0xffff : count <= 0 ? 0 : (1 << count) - 1);
}

// The epilogue of integer products, of row m and channels [n, n + cols): float(sum) · w_scale, · x_scale, + bias, each step
// rounded to float32.
OCTAVO_AVX512_INLINE void store_sums(const std::int32_t* sums, const Arguments& a, const float* w_scale, std::int64_t m,
                                     std::int64_t n, std::int64_t cols) {
  if (a.y.dtype == DType::kInt32) {
    for (int j = 0; j < 4; ++j) {
      const __m512i sum = _mm512_loadu_si512(sums + 16 * j);
      _mm512_mask_storeu_epi32(a.y.row<std::int32_t>(m) + n + 16 * j, first_lanes(cols - 16 * j), sum);
    }
    return;
  }
  const __m512 x_scale = _mm512_set1_ps(scale_of_row(a.x_scale, m));
  for (int j = 0; j < 4; ++j) {
    const __mmask16 mask = first_lanes(cols - 16 * j);
    const __m512 sum = _mm512_cvtepi32_ps(_mm512_loadu_si512(sums + 16 * j));
    __m512 t = _mm512_mul_ps(_mm512_mul_ps(sum, _mm512_loadu_ps(w_scale + 16 * j)), x_scale);
    if (!a.bias.empty()) t = _mm512_add_ps(t, load_floats(a.bias, 0, n + 16 * j, mask));
    store_floats(a.y, m, n + 16 * j, mask, t);
  }
}

// The same from totals that are scaled already.
OCTAVO_AVX512_INLINE void store_totals(const float* totals, const Arguments& a, std::int64_t m, std::int64_t n,
                                       std::int64_t cols) {
  for (int j = 0; j < 4; ++j) {
    const __mmask16 mask = first_lanes(cols - 16 * j);
    __m512 t = _mm512_loadu_ps(totals + 16 * j);
    if (!a.bias.empty()) t = _mm512_add_ps(t, load_floats(a.bias, 0, n + 16 * j, mask));
    store_floats(a.y, m, n + 16 * j, mask, t);
  }
}

}  // namespace octavo

#endif  // __x86_64__
