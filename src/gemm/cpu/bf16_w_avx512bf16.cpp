// VDPBF16PS adds the two products of a pair to a float32 lane. Vectors of 16 channels times rows of x are summed in up to 24
// registers: 4 vectors by 6 rows from a panel. Without one, a tile has so many rows that taking the weights apart for them
// hides behind their multiplications.
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

// A pair of x times weights. It is read from memory for every vector where there are too many rows to keep theirs in
// registers: left to itself, GCC keeps them there and sums in memory.
template <bool kFromMemory>
OCTAVO_AVX512_BF16_INLINE __m512 multiply_add(const std::uint32_t& x, __m512i w, __m512 sum) {
  if constexpr (kFromMemory) {
    asm("vdpbf16ps %2%{1to16%}, %1, %0" : "+v"(sum) : "v"(w), "m"(x));
    return sum;
  } else {
    return multiply_add(_mm512_set1_epi32(static_cast<int>(x)), w, sum);
  }
}

// A pair of the j-th of kWidth vectors, multiplied with the rows of x.
template <int j, int kWidth, bool kFromMemory, int... M>
OCTAVO_AVX512_BF16_INLINE void add_pair(std::integer_sequence<int, M...>, const std::uint32_t* x, __m512i w, __m512* sum) {
  ((sum[M * kWidth + j] = multiply_add<kFromMemory>(x[M], w, sum[M * kWidth + j])), ...);
}

// The j-th of kWidth vectors from the j0-th on: its dwords one pair after the other.
template <int j0, int j, int kWidth, int M, class W, int... I>
OCTAVO_AVX512_BF16_INLINE void add_vector(std::integer_sequence<int, I...>, const W& weights, const std::uint32_t* q,
                                          const std::uint32_t* x, __m512* sum) {
  const typename W::Dwords v = weights.template load<j0 + j>(q + 16 * (j0 + j));
  (add_pair<j, kWidth, (M > W::kRowsOfXInRegisters)>(Indices<M>(), x + I * M, weights.template pair<I, j0 + j>(v), sum),
   ...);
}

// Vectors j0 … j0 + kWidth - 1.
template <int j0, class W, int M, int... J>
OCTAVO_AVX512_BF16_INLINE void add_pass(std::integer_sequence<int, J...>, const W& weights, const Chunk& chunk,
                                        const std::uint32_t* x, float* total) {
  constexpr int kWidth = sizeof...(J);
  __m512 sum[M * kWidth];
  float_w::clear(Indices<M * kWidth>(), sum);
  const std::uint32_t* q = chunk.q;
  for (std::int64_t step = 0; step < chunk.steps; ++step, q += kBlockChannels, x += W::kPairs * M) {
    float_w::prefetch<1>(q + float_w::kAhead + 16 * j0, 64 * kWidth);
    (add_vector<j0, J, kWidth, M>(Indices<W::kPairs>(), weights, q, x, sum), ...);
  }
  float_w::add_scaled<kWidth>(Indices<M * kWidth>(), sum, chunk.scale + 16 * j0, total + 16 * j0);
}

// Vectors at once, as many as have registers for their sums with M rows.
constexpr int width(int M) {
  if (M <= 6) return 4;
  return M <= 10 ? 2 : 1;
}

template <class W, int M, int... Pass>
OCTAVO_AVX512_BF16_INLINE void add_passes(std::integer_sequence<int, Pass...>, const Chunk& chunk, const std::uint32_t* x,
                                          float* total) {
  const W weights(chunk);
  (add_pass<Pass * width(M), W, M>(Indices<width(M)>(), weights, chunk, x, total), ...);
}

template <class W, int M>
OCTAVO_AVX512_BF16 void few_rows(const Chunk& chunk, const std::uint32_t* x, float* total) {
  add_passes<W, M>(Indices<kVectors / width(M)>(), chunk, x, total);
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
struct Kernel : float_w::KernelInVectors, float_w::KernelOnPairs<W> {
  static constexpr std::int64_t kFewRows = W::kFewRows;
  static constexpr std::int64_t kFewTile = 16;
  static constexpr std::int64_t kPanel = 64;

  static auto few(int rows) {
    return float_w::function_for<kFewTile>(rows, []<int M> { return few_rows<W, M>; });
  }
  static auto product(int rows) {
    return float_w::function_for<kRows>(rows, []<int M> { return multiply_panel<M>; });
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
