#include "gemm/cpu/pack_avx2.h"

#include "core/simd.h"
#include "gemm/layout.h"

#if defined(__x86_64__)

namespace octavo {
namespace {

// Eight dwords of eight rows, transposed.
OCTAVO_AVX2_INLINE void transpose(const std::uint8_t* rows, std::int64_t row_stride, __m256i (&out)[8]) {
  __m256i row[8];
  OCTAVO_UNROLL
  for (int i = 0; i < 8; ++i) row[i] = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(rows + i * row_stride));
  __m256i pair[8];
  OCTAVO_UNROLL
  for (int i = 0; i < 8; i += 2) {
    pair[i] = _mm256_unpacklo_epi32(row[i], row[i + 1]);
    pair[i + 1] = _mm256_unpackhi_epi32(row[i], row[i + 1]);
  }
  __m256i four[8];  // of rows 0 … 3, then 4 … 7: dwords j and j + 4
  OCTAVO_UNROLL
  for (int half = 0; half < 8; half += 4) {
    four[half] = _mm256_unpacklo_epi64(pair[half], pair[half + 2]);
    four[half + 1] = _mm256_unpackhi_epi64(pair[half], pair[half + 2]);
    four[half + 2] = _mm256_unpacklo_epi64(pair[half + 1], pair[half + 3]);
    four[half + 3] = _mm256_unpackhi_epi64(pair[half + 1], pair[half + 3]);
  }
  OCTAVO_UNROLL
  for (int j = 0; j < 4; ++j) {
    out[j] = _mm256_permute2x128_si256(four[j], four[4 + j], 0x20);
    out[4 + j] = _mm256_permute2x128_si256(four[j], four[4 + j], 0x31);
  }
}

}  // namespace

OCTAVO_AVX2 void pack_dwords_avx2(const std::uint8_t* rows, std::int64_t row_stride, std::int64_t steps, std::uint32_t flip,
                                  std::uint8_t* out) {
  const __m256i flips = _mm256_set1_epi32(static_cast<int>(flip));
  for (std::int64_t s = 0; s < steps; s += kPackSteps) {
    __m256i low[8], high[8];
    transpose(rows + 4 * s, row_stride, low);
    transpose(rows + 4 * s + 8 * row_stride, row_stride, high);
    OCTAVO_UNROLL
    for (int i = 0; i < 8; ++i) {
      auto* line = reinterpret_cast<__m256i*>(out + (s + i) * kStepBytes);
      _mm256_stream_si256(line, _mm256_xor_si256(low[i], flips));
      _mm256_stream_si256(line + 1, _mm256_xor_si256(high[i], flips));
    }
  }
}

void finish_packing_avx2() { _mm_sfence(); }

}  // namespace octavo

#endif  // __x86_64__
