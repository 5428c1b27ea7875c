// What the weight-only kernels with AVX-512 registers share: sums in registers, and weights that are loaded once.
#pragma once

#include <utility>

#include "gemm/cpu/float_w.h"
#include "gemm/cpu/store_avx512.h"

#if defined(__x86_64__)

namespace octavo::float_w {

inline constexpr int kVectors = 4;  // of 16 channels in a block

// 0 … kCount - 1, for folds over registers: an array stays in registers where every index is a constant.
template <int kCount>
using Indices = std::make_integer_sequence<int, kCount>;

// Dwords that are taken apart in several ways. Without the barrier GCC would load them anew for each.
OCTAVO_AVX512_INLINE __m512i load_once(const void* q) {
  __m512i v = _mm512_loadu_si512(q);
  asm("" : "+v"(v));
  return v;
}

// Sums of rows of x by vectors of a block, the rows outermost.
template <int... I>
OCTAVO_AVX512_INLINE void clear(std::integer_sequence<int, I...>, __m512* sum) {
  ((sum[I] = _mm512_setzero_ps()), ...);
}

// total += sum · scale, of kWidth vectors for each row
template <int kWidth = kVectors, int... I>
OCTAVO_AVX512_INLINE void add_scaled(std::integer_sequence<int, I...>, const __m512* sum, const float* scale, float* total) {
  (_mm512_storeu_ps(total + I / kWidth * kBlockChannels + 16 * (I % kWidth),
                    _mm512_fmadd_ps(sum[I], _mm512_loadu_ps(scale + 16 * (I % kWidth)),
                                    _mm512_loadu_ps(total + I / kWidth * kBlockChannels + 16 * (I % kWidth)))),
   ...);
}

OCTAVO_AVX512 inline void store_row(const Arguments& a, std::int64_t m, std::int64_t b, const float* total) {
  store_totals(total, a, m, b * kBlockChannels, a.y.cols - b * kBlockChannels);
}

}  // namespace octavo::float_w

#endif  // __x86_64__
