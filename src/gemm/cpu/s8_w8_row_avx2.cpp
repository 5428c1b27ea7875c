// int8 · int8 -> int32 by sign extension to 16 bits and VPMADDWD, which is exact (VPMADDUBSW would saturate). A tile of
// kRows x kCols dot products shares its loads; no packed layout, so it serves as it is for small and occasional products.
#include "gemm/cpu/s8_w8_row_avx2.h"

#include <algorithm>

#include "core/fp_env.h"
#include "core/simd.h"
#include "gemm/epilogue.h"

#if defined(__x86_64__)

namespace octavo {
namespace {

constexpr int kRows = 2;             // of x
constexpr int kCols = 4;             // rows of W
constexpr std::int64_t kBlock = 64;  // rows of x that stay in cache while W streams by

OCTAVO_AVX2_INLINE __m256i load16(const std::int8_t* p) {
  return _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}

OCTAVO_AVX2_INLINE std::int32_t sum_lanes(__m256i v) {
  __m128i s = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
  s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
  s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1));
  return _mm_cvtsi128_si32(s);
}

// acc[i][j] = Σ_k x[i][k] · w[j][k]
OCTAVO_AVX2 void dot_tile(const std::int8_t* const (&x)[kRows], const std::int8_t* const (&w)[kCols], std::int64_t K,
                          std::int32_t (&acc)[kRows][kCols]) {
  __m256i sum[kRows][kCols];
  for (auto& row : sum) {
    for (__m256i& s : row) s = _mm256_setzero_si256();
  }
  std::int64_t k = 0;
  for (; k + 16 <= K; k += 16) {
    __m256i xv[kRows];
    for (int i = 0; i < kRows; ++i) xv[i] = load16(x[i] + k);
    for (int j = 0; j < kCols; ++j) {
      const __m256i wv = load16(w[j] + k);
      for (int i = 0; i < kRows; ++i) sum[i][j] = _mm256_add_epi32(sum[i][j], _mm256_madd_epi16(xv[i], wv));
    }
  }
  for (int i = 0; i < kRows; ++i) {
    for (int j = 0; j < kCols; ++j) {
      acc[i][j] = sum_lanes(sum[i][j]);
      for (std::int64_t tail = k; tail < K; ++tail) acc[i][j] += std::int32_t{x[i][tail]} * std::int32_t{w[j][tail]};
    }
  }
}

void store_tile(const Arguments& a, std::int64_t m, std::int64_t n) {
  const std::int64_t rows = std::min<std::int64_t>(kRows, a.y.rows - m);
  const std::int64_t cols = std::min<std::int64_t>(kCols, a.y.cols - n);
  const std::int8_t* x[kRows];
  const std::int8_t* w[kCols];
  for (int i = 0; i < kRows; ++i) x[i] = a.x.row<std::int8_t>(m + std::min<std::int64_t>(i, rows - 1));
  for (int j = 0; j < kCols; ++j) w[j] = a.w.q.row<std::int8_t>(n + std::min<std::int64_t>(j, cols - 1));
  std::int32_t acc[kRows][kCols];
  dot_tile(x, w, a.x.cols, acc);
  for (std::int64_t i = 0; i < rows; ++i) {
    for (std::int64_t j = 0; j < cols; ++j) store_sum(a, m + i, n + j, acc[i][j]);
  }
}

}  // namespace

void cpu_s8_w8_row_avx2(const Arguments& a, Parallel& parallel) {
  const std::int64_t strips = (a.y.cols + kCols - 1) / kCols;
  parallel.run(0, strips, 1, [&](std::int64_t begin, std::int64_t end) {
    const ExactFloatScope exact;
    for (std::int64_t block = 0; block < a.y.rows; block += kBlock) {
      const std::int64_t block_end = std::min(block + kBlock, a.y.rows);
      for (std::int64_t strip = begin; strip < end; ++strip) {
        for (std::int64_t m = block; m < block_end; m += kRows) store_tile(a, m, strip * kCols);
      }
    }
  });
}

}  // namespace octavo

#endif  // __x86_64__
