// For few rows of x: the weights are read once, widened to float32 in registers, and multiplied with a handful of rows. A
// tile is kCols rows of W by up to kRows rows of x; each of its dot products has eight lanes, whose sums are scaled and
// added group by group, so a result does not depend on the tile, the batch or the threads.
#include "gemm/cpu/float_w_row_avx2.h"

#include <algorithm>
#include <vector>

#include "core/fp_env.h"
#include "core/half.h"
#include "core/simd.h"
#include "gemm/epilogue.h"

#if defined(__x86_64__)

namespace octavo {
namespace {

constexpr int kRows = 2;  // of x
constexpr int kCols = 4;  // rows of W

// How eight neighbouring weights of a row become float32: integers as they are stored, before any zero point.
struct Signed {
  OCTAVO_AVX2_INLINE static __m256i widen(const std::uint8_t* q, std::int64_t k) {
    return _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(q + k)));
  }
  static float one(const std::uint8_t* q, std::int64_t k) { return static_cast<float>(static_cast<std::int8_t>(q[k])); }
  static constexpr float kOffset = 0;
};
struct Unsigned {
  OCTAVO_AVX2_INLINE static __m256i widen(const std::uint8_t* q, std::int64_t k) {
    return _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(q + k)));
  }
  static float one(const std::uint8_t* q, std::int64_t k) { return static_cast<float>(q[k]); }
  static constexpr float kOffset = 0;
};
struct Nibbles {  // k is even
  OCTAVO_AVX2_INLINE static __m256i widen(const std::uint8_t* q, std::int64_t k) {
    std::int32_t bytes;
    __builtin_memcpy(&bytes, q + k / 2, sizeof bytes);
    const __m128i pairs = _mm_cvtsi32_si128(bytes);
    const __m128i low = _mm_and_si128(pairs, _mm_set1_epi8(15));
    const __m128i high = _mm_and_si128(_mm_srli_epi16(pairs, 4), _mm_set1_epi8(15));
    return _mm256_cvtepu8_epi32(_mm_unpacklo_epi8(low, high));
  }
  static float one(const std::uint8_t* q, std::int64_t k) {
    return static_cast<float>((q[k / 2] >> (k % 2 == 0 ? 0 : 4)) & 15);
  }
  static constexpr float kOffset = 8;  // of symmetric weights
};

// Rows of x as float32.
struct Rows {
  const float* row[kRows];
};
// Rows of W, with where their scales and zero points are.
struct Cols {
  const std::uint8_t* q[kCols];
  std::int64_t n[kCols];
};

OCTAVO_AVX2_INLINE float sum_lanes(__m256 v) {
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_shuffle_ps(s, s, 1)));
}

// What is subtracted from the stored integers of row n in group g.
template <class Stored>
float offset_of(const QuantizedWeight& w, std::int64_t n, std::int64_t g) {
  if (w.format.symmetric) return Stored::kOffset;
  const bool per_tensor = w.format.group_size == kPerTensor;
  return static_cast<float>(w.zero_point.row<std::uint8_t>(per_tensor ? 0 : n)[g]);
}

// y[i][j] = Σ_g scale[j, g] Σ_{k in g} x[i][k] (q[j][k] - zero_point[j, g]) for kM rows.
template <class Stored, int kM>
OCTAVO_AVX2 void dot_tile(const Arguments& a, const Rows& x, const Cols& w, float (&y)[kRows][kCols]) {
  const std::int64_t K = a.x.cols;
  const std::int64_t group = a.w.format.group_size > 0 ? a.w.format.group_size : std::max<std::int64_t>(K, 1);
  const bool per_tensor = a.w.format.group_size == kPerTensor;
  __m256 total[kM][kCols];
  for (auto& row : total) {
    for (__m256& t : row) t = _mm256_setzero_ps();
  }
  for (std::int64_t g = 0, k = 0; k < K; ++g) {
    const std::int64_t end = std::min(k + group, K);
    __m256 offset[kCols];
    for (int j = 0; j < kCols; ++j) offset[j] = _mm256_set1_ps(offset_of<Stored>(a.w, w.n[j], g));
    __m256 sum[kM][kCols];
    for (auto& row : sum) {
      for (__m256& s : row) s = _mm256_setzero_ps();
    }
    for (; k + 8 <= end; k += 8) {
      __m256 xv[kM];
      for (int i = 0; i < kM; ++i) xv[i] = _mm256_loadu_ps(x.row[i] + k);
      for (int j = 0; j < kCols; ++j) {
        const __m256 wv = _mm256_sub_ps(_mm256_cvtepi32_ps(Stored::widen(w.q[j], k)), offset[j]);
        for (int i = 0; i < kM; ++i) sum[i][j] = _mm256_fmadd_ps(xv[i], wv, sum[i][j]);
      }
    }
    if (k < end) {  // the last lanes of a short group are zeros
      float xt[kM][8] = {};
      float wt[kCols][8] = {};
      for (std::int64_t t = k; t < end; ++t) {
        for (int i = 0; i < kM; ++i) xt[i][t - k] = x.row[i][t];
        for (int j = 0; j < kCols; ++j) wt[j][t - k] = Stored::one(w.q[j], t) - offset_of<Stored>(a.w, w.n[j], g);
      }
      for (int j = 0; j < kCols; ++j) {
        for (int i = 0; i < kM; ++i) sum[i][j] = _mm256_fmadd_ps(_mm256_loadu_ps(xt[i]), _mm256_loadu_ps(wt[j]), sum[i][j]);
      }
      k = end;
    }
    for (int j = 0; j < kCols; ++j) {
      const __m256 scale = _mm256_set1_ps(a.w.scale.row<float>(per_tensor ? 0 : w.n[j])[g]);
      for (int i = 0; i < kM; ++i) total[i][j] = _mm256_fmadd_ps(sum[i][j], scale, total[i][j]);
    }
  }
  for (int i = 0; i < kM; ++i) {
    for (int j = 0; j < kCols; ++j) y[i][j] = sum_lanes(total[i][j]);
  }
}

template <class Stored>
void store_tile(const Arguments& a, const float* x, std::int64_t m, std::int64_t n) {
  const std::int64_t rows = std::min<std::int64_t>(kRows, a.y.rows - m);
  const std::int64_t cols = std::min<std::int64_t>(kCols, a.y.cols - n);
  Rows block;
  Cols strip;
  for (int i = 0; i < kRows; ++i) block.row[i] = x + (m + std::min<std::int64_t>(i, rows - 1)) * a.x.cols;
  for (int j = 0; j < kCols; ++j) {
    strip.n[j] = n + std::min<std::int64_t>(j, cols - 1);
    strip.q[j] = a.w.q.row<std::uint8_t>(strip.n[j]);
  }
  float y[kRows][kCols];
  rows == 1 ? dot_tile<Stored, 1>(a, block, strip, y) : dot_tile<Stored, 2>(a, block, strip, y);
  for (std::int64_t i = 0; i < rows; ++i) {
    for (std::int64_t j = 0; j < cols; ++j) store_with_bias(a, m + i, n + j, y[i][j]);
  }
}

template <class Stored>
void run(const Arguments& a, Parallel& parallel) {
  constexpr std::int64_t kWorkPerThread = 1 << 17;  // multiplications: below, waking a thread costs more than it saves
  const std::int64_t M = a.x.rows, K = a.x.cols;
  std::vector<float> x(static_cast<std::size_t>(M * K));
  visit_float(a.x.dtype, [&](auto type) {
    for (std::int64_t m = 0; m < M; ++m) {
      std::transform(a.x.row<decltype(type)>(m), a.x.row<decltype(type)>(m) + K, x.begin() + m * K,
                     [](auto value) { return to_float(value); });
    }
  });
  const std::int64_t strips = (a.y.cols + kCols - 1) / kCols;
  const std::int64_t grain = std::max<std::int64_t>(1, kWorkPerThread / std::max<std::int64_t>(1, M * K * kCols));
  parallel.run(0, strips, grain, [&](std::int64_t begin, std::int64_t end) {
    const ExactFloatScope exact;
    for (std::int64_t strip = begin; strip < end; ++strip) {
      for (std::int64_t m = 0; m < M; m += kRows) store_tile<Stored>(a, x.data(), m, strip * kCols);
    }
  });
}

}  // namespace

void cpu_float_w8_row_avx2(const Arguments& a, Parallel& parallel) {
  a.w.format.symmetric ? run<Signed>(a, parallel) : run<Unsigned>(a, parallel);
}

void cpu_float_w4_row_avx2(const Arguments& a, Parallel& parallel) { run<Nibbles>(a, parallel); }

}  // namespace octavo

#endif  // __x86_64__
