// VDPBF16PS adds the two products of a pair to a float32 lane: 4 vectors of 16 channels times up to 6 rows of x are summed
// in 24 registers.
#include "gemm/cpu/bf16_w_avx512bf16.h"

#include "gemm/cpu/bf16_pairs_avx512.h"

#if defined(__x86_64__)

namespace octavo {
namespace {

using float_w::Chunk;
using float_w::Indices;
using float_w::kVectors;

OCTAVO_AVX512_BF16_INLINE __m512 multiply_add(__m512i x, __m512i w, __m512 sum) {
  return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(x), reinterpret_cast<__m512bh>(w));
}

// Pair i of vector j, multiplied with the rows of x.
template <int j, int... M>
OCTAVO_AVX512_BF16_INLINE void add_pair(std::integer_sequence<int, M...>, const std::uint32_t* x, __m512i w, __m512* sum) {
  ((sum[M * kVectors + j] = multiply_add(_mm512_set1_epi32(static_cast<int>(x[M])), w, sum[M * kVectors + j])), ...);
}

// Vector j: its dwords one pair after the other.
template <int j, int M, class W, int... I>
OCTAVO_AVX512_BF16_INLINE void add_vector(std::integer_sequence<int, I...>, const W& weights, const std::uint32_t* q,
                                          const std::uint32_t* x, __m512* sum) {
  const typename W::Dwords v = weights.template load<j>(q + 16 * j);
  (add_pair<j>(Indices<M>(), x + I * M, weights.template pair<I, j>(v), sum), ...);
}

template <class W, int M>
OCTAVO_AVX512_BF16 void few_rows(const Chunk& chunk, const std::uint32_t* x, float* total) {
  const Indices<W::kPairs> pairs;
  const W weights(chunk);
  __m512 sum[M * kVectors];
  float_w::clear(Indices<M * kVectors>(), sum);
  const std::uint32_t* q = chunk.q;
  for (std::int64_t step = 0; step < chunk.steps; ++step, q += kBlockChannels, x += W::kPairs * M) {
    float_w::prefetch<1>(q + float_w::kAhead, kStepBytes);
    add_vector<0, M>(pairs, weights, q, x, sum);
    add_vector<1, M>(pairs, weights, q, x, sum);
    add_vector<2, M>(pairs, weights, q, x, sum);
    add_vector<3, M>(pairs, weights, q, x, sum);
  }
  float_w::add_scaled(Indices<M * kVectors>(), sum, chunk.scale, total);
}

// Row m of x times the vectors of a panel's row.
template <int m, int... J>
OCTAVO_AVX512_BF16_INLINE void add_row(std::integer_sequence<int, J...>, const std::uint32_t* x, const __m512i* w,
                                       __m512* sum) {
  const __m512i xm = _mm512_set1_epi32(static_cast<int>(x[m]));
  ((sum[m * kVectors + J] = multiply_add(xm, w[J], sum[m * kVectors + J])), ...);
}

template <int... M>
OCTAVO_AVX512_BF16_INLINE void add_rows(std::integer_sequence<int, M...>, const std::uint32_t* x, const __m512i* w,
                                        __m512* sum) {
  (add_row<M>(Indices<kVectors>(), x, w, sum), ...);
}

template <int M>
OCTAVO_AVX512_BF16 void multiply_panel(const std::uint32_t* panel, const std::uint32_t* x, std::int64_t count,
                                       const float* scale, float* total) {
  __m512 sum[M * kVectors];
  float_w::clear(Indices<M * kVectors>(), sum);
  for (std::int64_t k = 0; k < count; ++k, panel += kBlockChannels, x += M) {
    const __m512i w[kVectors] = {_mm512_load_si512(panel), _mm512_load_si512(panel + 16), _mm512_load_si512(panel + 32),
                                 _mm512_load_si512(panel + 48)};
    add_rows(Indices<M>(), x, w, sum);
  }
  float_w::add_scaled(Indices<M * kVectors>(), sum, scale, total);
}

template <class W>
struct Kernel {
  using X = std::uint32_t;
  struct State {
    State() {}
  };
  static constexpr std::int64_t kPerStep = W::kPairs;
  static constexpr std::int64_t kAlign = 1;
  static constexpr std::int64_t kRows = 6;
  static constexpr std::int64_t kFewRows = W::kFewRows;
  static constexpr std::int64_t kFewTile = 6;
  static constexpr std::int64_t kChunk = 128;
  static constexpr std::int64_t kPanel = 64;
  static constexpr bool kRowMajor = false;

  static void convert(const MatrixView& x, std::int64_t m, const Chunk& chunk, X* out) {
    float_w::convert_pairs<W>(x, m, chunk, out);
  }
  static auto few(int rows) {
    static constexpr decltype(&few_rows<W, 1>) kFew[] = {few_rows<W, 1>, few_rows<W, 2>, few_rows<W, 3>,
                                                         few_rows<W, 4>, few_rows<W, 5>, few_rows<W, 6>};
    return kFew[rows - 1];
  }
  static void dequantize(const Chunk& chunk, X* panel) { float_w::fill_panel_with_pairs<W>(chunk, panel); }
  static auto product(int rows) {
    static constexpr decltype(&multiply_panel<1>) kProduct[] = {multiply_panel<1>, multiply_panel<2>, multiply_panel<3>,
                                                                multiply_panel<4>, multiply_panel<5>, multiply_panel<6>};
    return kProduct[rows - 1];
  }
  static void store(const Arguments& a, std::int64_t m, std::int64_t b, const float* total) {
    float_w::store_row(a, m, b, total);
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
