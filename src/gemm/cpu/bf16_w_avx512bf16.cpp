// VDPBF16PS adds the two products of a pair to a float32 lane: 4 vectors of 16 channels times up to 6 rows of x are summed
// in 24 registers.
#include "gemm/cpu/bf16_w_avx512bf16.h"

#include "gemm/cpu/bf16_pairs_avx512.h"

#if defined(__x86_64__)

namespace octavo {
namespace {

using float_w::Chunk;
using float_w::kVectors;

OCTAVO_AVX512_BF16_INLINE __m512 multiply_add(__m512 sum, __m512i x, __m512i w) {
  return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(x), reinterpret_cast<__m512bh>(w));
}

// total += sum · scale
template <int M>
OCTAVO_AVX512_BF16_INLINE void add_scaled(const __m512 (&sum)[M][kVectors], const float* scale, float* total) {
  for (int j = 0; j < kVectors; ++j) {
    const __m512 s = _mm512_loadu_ps(scale + 16 * j);
    for (int m = 0; m < M; ++m) {
      float* const t = total + m * kBlockChannels + 16 * j;
      _mm512_storeu_ps(t, _mm512_fmadd_ps(sum[m][j], s, _mm512_loadu_ps(t)));
    }
  }
}

template <int M>
OCTAVO_AVX512_BF16_INLINE void clear(__m512 (&sum)[M][kVectors]) {
  for (int m = 0; m < M; ++m) {
    for (int j = 0; j < kVectors; ++j) sum[m][j] = _mm512_setzero_ps();
  }
}

// The I-th pairs of the dwords of kWidth vectors, multiplied with M rows of x.
template <int I, int M, int kWidth, class Weights>
OCTAVO_AVX512_BF16_INLINE void multiply(const Weights& weights, const typename Weights::Dwords (&v)[kWidth], int j0,
                                        const std::uint32_t* x, __m512 (&sum)[M][kVectors]) {
  __m512i w[kWidth];
  for (int j = 0; j < kWidth; ++j) w[j] = weights.template pair<I>(v[j], j0 + j);
  for (int m = 0; m < M; ++m) {
    const __m512i xm = _mm512_set1_epi32(static_cast<int>(x[I * M + m]));
    for (int j = 0; j < kWidth; ++j) sum[m][j0 + j] = multiply_add(sum[m][j0 + j], xm, w[j]);
  }
}

template <class Weights, int M>
OCTAVO_AVX512_BF16 void few_rows(const Chunk& chunk, const std::uint32_t* x, float* total) {
  constexpr int kWidth = M > 4 ? 2 : 4;  // so that everything has a register
  const Weights weights(chunk);
  __m512 sum[M][kVectors];
  clear(sum);
  const std::uint32_t* q = chunk.q;
  for (std::int64_t step = 0; step < chunk.steps; ++step, q += kBlockChannels, x += Weights::kPairs * M) {
    float_w::prefetch(q + float_w::kAhead, kStepBytes);
#pragma GCC unroll 4
    for (int j0 = 0; j0 < kVectors; j0 += kWidth) {
      typename Weights::Dwords v[kWidth];
      for (int j = 0; j < kWidth; ++j) v[j] = weights.load(q + 16 * (j0 + j), j0 + j);
      multiply<0>(weights, v, j0, x, sum);
      multiply<1>(weights, v, j0, x, sum);
      if constexpr (Weights::kPairs == 4) {
        multiply<2>(weights, v, j0, x, sum);
        multiply<3>(weights, v, j0, x, sum);
      }
    }
  }
  add_scaled(sum, chunk.scale, total);
}

template <int M>
OCTAVO_AVX512_BF16 void multiply_panel(const std::uint32_t* panel, const std::uint32_t* x, std::int64_t count,
                                       const float* scale, float* total) {
  __m512 sum[M][kVectors];
  clear(sum);
  for (std::int64_t k = 0; k < count; ++k, panel += kBlockChannels, x += M) {
    __m512i w[kVectors];
    for (int j = 0; j < kVectors; ++j) w[j] = _mm512_load_si512(panel + 16 * j);
    for (int m = 0; m < M; ++m) {
      const __m512i xm = _mm512_set1_epi32(static_cast<int>(x[m]));
      for (int j = 0; j < kVectors; ++j) sum[m][j] = multiply_add(sum[m][j], xm, w[j]);
    }
  }
  add_scaled(sum, scale, total);
}

template <class Weights>
struct Kernel {
  using X = std::uint32_t;
  struct State {
    State() {}
  };
  static constexpr std::int64_t kPerStep = Weights::kPairs;
  static constexpr std::int64_t kAlign = 1;
  static constexpr std::int64_t kRows = 6;
  static constexpr std::int64_t kFewRows = 6;
  static constexpr std::int64_t kPanel = 128;
  static constexpr bool kRowMajor = false;

  static void convert(const MatrixView& x, std::int64_t m, const Chunk& chunk, X* out) {
    float_w::convert_pairs<Weights>(x, m, chunk, out);
  }
  static auto few(int rows) {
    static constexpr decltype(&few_rows<Weights, 1>) kFew[] = {few_rows<Weights, 1>, few_rows<Weights, 2>,
                                                               few_rows<Weights, 3>, few_rows<Weights, 4>,
                                                               few_rows<Weights, 5>, few_rows<Weights, 6>};
    return kFew[rows - 1];
  }
  static void dequantize(const Chunk& chunk, X* panel) { float_w::fill_panel_with_pairs<Weights>(chunk, panel); }
  static auto product(int rows) {
    static constexpr decltype(&multiply_panel<1>) kProduct[] = {multiply_panel<1>, multiply_panel<2>, multiply_panel<3>,
                                                                multiply_panel<4>, multiply_panel<5>, multiply_panel<6>};
    return kProduct[rows - 1];
  }
  static void store(const Arguments& a, std::int64_t m, std::int64_t b, const float* total) {
    float_w::store_row_avx512(a, m, b, total);
  }
};

}  // namespace

void cpu_bf16_w8_avx512bf16(const Arguments& a, Parallel& parallel) {
  a.packed.format.symmetric ? float_w::run<Kernel<float_w::Bf16W8<true>>>(a, parallel)
                            : float_w::run<Kernel<float_w::Bf16W8<false>>>(a, parallel);
}

void cpu_bf16_w4_avx512bf16(const Arguments& a, Parallel& parallel) {
  a.packed.format.symmetric ? float_w::run<Kernel<float_w::Bf16W4<true>>>(a, parallel)
                            : float_w::run<Kernel<float_w::Bf16W4<false>>>(a, parallel);
}

}  // namespace octavo

#endif  // __x86_64__
