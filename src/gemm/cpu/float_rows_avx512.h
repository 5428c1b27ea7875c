// Rows of x to float32 and rows of totals to y with AVX-512, whatever their types, and nothing read or written beyond them.
#pragma once

#include "core/simd.h"
#include "gemm/cpu/float_w.h"

#if defined(__x86_64__)

namespace octavo::float_w {

// The lowest `count` lanes of 16, or of 32.
inline __mmask16 lanes16(std::int64_t count) { return static_cast<__mmask16>(count >= 16 ? 0xffff : (1u << count) - 1); }
inline __mmask32 lanes32(std::int64_t count) { return count >= 32 ? 0xffffffffu : (std::uint32_t{1} << count) - 1; }

// 16 elements from the k-th of a row on, as float32; zeros where `mask` has none.
OCTAVO_AVX512_INLINE __m512 load_floats(const MatrixView& matrix, std::int64_t row, std::int64_t k, __mmask16 mask) {
  if (matrix.dtype == DType::kFloat32) return _mm512_maskz_loadu_ps(mask, matrix.row<float>(row) + k);
  const __m256i bits = _mm256_maskz_loadu_epi16(mask, matrix.row<std::uint16_t>(row) + k);
  if (matrix.dtype == DType::kFloat16) return _mm512_cvtph_ps(bits);
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
}

// As to_bfloat16() in core/half.h; VCVTNEPS2BF16 would flush subnormals.
OCTAVO_AVX512_INLINE __m256i round_to_bf16(__m512 value) {
  const __m512i bits = _mm512_castps_si512(value);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
  const __mmask16 nan = _mm512_cmp_ps_mask(value, value, _CMP_UNORD_Q);
  const __m512i result = _mm512_mask_or_epi32(rounded, nan, bits, _mm512_set1_epi32(0x400000));
  return _mm512_cvtepi32_epi16(_mm512_srli_epi32(result, 16));
}

// y[m, channels of block b] = total + bias, rounded once.
OCTAVO_AVX512 inline void store_row_avx512(const Arguments& a, std::int64_t m, std::int64_t b, const float* total) {
  const std::int64_t end = std::min((b + 1) * kBlockChannels, a.y.cols);
  for (std::int64_t n = b * kBlockChannels; n < end; n += 16, total += 16) {
    const __mmask16 mask = lanes16(end - n);
    __m512 value = _mm512_loadu_ps(total);
    if (!a.bias.empty()) value = _mm512_add_ps(value, load_floats(a.bias, 0, n, mask));
    switch (a.y.dtype) {
      case DType::kFloat16:
        _mm256_mask_storeu_epi16(a.y.row<std::uint16_t>(m) + n, mask, _mm512_cvtps_ph(value, _MM_FROUND_TO_NEAREST_INT));
        break;
      case DType::kBFloat16:
        _mm256_mask_storeu_epi16(a.y.row<std::uint16_t>(m) + n, mask, round_to_bf16(value));
        break;
      default:
        _mm512_mask_storeu_ps(a.y.row<float>(m) + n, mask, value);
    }
  }
}

}  // namespace octavo::float_w

#endif  // __x86_64__
