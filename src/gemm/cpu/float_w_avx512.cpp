// Weights become float32 integers q - zero_point, exactly, by two instructions for 16 of them; 4 vectors of 16 channels
// times up to 6 rows of x are summed in 24 registers.
#include "gemm/cpu/float_w_avx512.h"

#include "gemm/cpu/float_sums_avx512.h"

#if defined(__x86_64__)

namespace octavo {
namespace {

using float_w::Chunk;
using float_w::Indices;
using float_w::kVectors;

// How dwords of 16 channels become float32. They are loaded kLoads times, kStride bytes further each time, which costs less
// than moving bytes in a register; what follows the last dwords is their scales. A load gives two elements of each dword.

// With the exponent of 2^(23-s) above it, an integer at bit s of a dword is the lowest bits of a float32's integer part:
// 2^(23-s) + q + offset. What is too much is subtracted, exactly.
template <int s>
inline constexpr float kTooMuch = static_cast<float>(1 << (23 - s));

OCTAVO_AVX512_INLINE __m512 to_floats(const std::uint8_t* bytes) {
  return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes))));
}

// What is too much at the places of kStep bits, for each vector.
template <int kStep, int... I>
OCTAVO_AVX512_INLINE void set_offsets(std::integer_sequence<int, I...>, const std::uint8_t* zero_point, __m512* offset) {
  ((offset[I] = _mm512_add_ps(_mm512_set1_ps(kTooMuch<I / kVectors * kStep>), to_floats(zero_point + 16 * (I % kVectors)))),
   ...);
}

template <bool kSymmetric>
class W8 {
 public:
  static constexpr int kLoads = 2, kStride = 2, kPerLoad = 2;
  static constexpr int kFewRows = 128;  // that cost less without a panel

  OCTAVO_AVX512_INLINE explicit W8(const Chunk& chunk) {
    if constexpr (!kSymmetric) set_offsets<8>(Indices<2 * kVectors>(), chunk.zero_point, offset_);
  }

  template <int I, int j>
  OCTAVO_AVX512_INLINE __m512 value(__m512i v) const {
    constexpr __mmask64 kByte = I == 0 ? 0x1111111111111111 : 0x2222222222222222;
    const __m512i exponent = _mm512_castps_si512(_mm512_set1_ps(kTooMuch<8 * I>));
    const __m512 offset = kSymmetric ? _mm512_set1_ps(kTooMuch<8 * I> + 128) : offset_[I * kVectors + j];
    return _mm512_sub_ps(_mm512_castsi512_ps(_mm512_mask_blend_epi8(kByte, exponent, v)), offset);
  }

 private:
  __m512 offset_[2 * kVectors];
};

template <bool kSymmetric>
class W4;

// Looked up: VPERMPS takes the lowest 4 bits of a lane as index.
template <>
class W4<true> {
 public:
  static constexpr int kLoads = 4, kStride = 1, kPerLoad = 2;
  static constexpr int kFewRows = 128;

  OCTAVO_AVX512_INLINE explicit W4(const Chunk&)
      : table_(_mm512_setr_ps(-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7)) {}

  template <int I, int j>
  OCTAVO_AVX512_INLINE __m512 value(__m512i v) const {
    return _mm512_permutexvar_ps(I == 0 ? v : _mm512_srli_epi32(v, 4), table_);
  }

 private:
  __m512 table_;
};

template <>
class W4<false> {
 public:
  static constexpr int kLoads = 2, kStride = 2, kPerLoad = 4;
  static constexpr int kFewRows = 32;

  OCTAVO_AVX512_INLINE explicit W4(const Chunk& chunk) {
    set_offsets<4>(Indices<kPerLoad * kVectors>(), chunk.zero_point, offset_);
  }

  template <int I, int j>
  OCTAVO_AVX512_INLINE __m512 value(__m512i v) const {
    const __m512i exponent = _mm512_castps_si512(_mm512_set1_ps(kTooMuch<4 * I>));
    const __m512i bits =
        _mm512_ternarylogic_epi32(_mm512_set1_epi32(15 << 4 * I), v, exponent, 0xea);  // (15 & v) | exponent
    return _mm512_sub_ps(_mm512_castsi512_ps(bits), offset_[I * kVectors + j]);
  }

 private:
  __m512 offset_[kPerLoad * kVectors];
};

template <class W>
inline constexpr int kUnit = W::kLoads* W::kPerLoad;  // elements of a dword

template <class W, int load, int j>
OCTAVO_AVX512_INLINE __m512i load_dwords(const std::uint32_t* q) {
  return float_w::load_once(reinterpret_cast<const char*>(q + 16 * j) + load * W::kStride);
}

// Row m of x times the vectors of a block.
template <int m, int... J>
OCTAVO_AVX512_INLINE void add_row(std::integer_sequence<int, J...>, const float* x, const __m512* w, __m512* sum) {
  const __m512 xm = _mm512_set1_ps(x[m]);
  ((sum[m * kVectors + J] = _mm512_fmadd_ps(xm, w[J], sum[m * kVectors + J])), ...);
}

template <int... M>
OCTAVO_AVX512_INLINE void add_rows(std::integer_sequence<int, M...>, const float* x, const __m512* w, __m512* sum) {
  (add_row<M>(Indices<kVectors>(), x, w, sum), ...);
}

// Loaded as an integer: VBROADCASTSS of 512 bits takes a multiplier's turn on Zen 4.
OCTAVO_AVX512_INLINE __m512 broadcast(const float& x) {
  __m512 v;
  asm("vpbroadcastd %1, %0" : "=v"(v) : "m"(x));
  return v;
}

// Vector j times the rows of x.
template <int j, int... M>
OCTAVO_AVX512_INLINE void add_column(std::integer_sequence<int, M...>, const float* x, __m512 w, __m512* sum) {
  ((sum[M * kVectors + j] = _mm512_fmadd_ps(broadcast(x[M]), w, sum[M * kVectors + j])), ...);
}

template <int i, int M, class W, int... J>
OCTAVO_AVX512_INLINE void add_element(std::integer_sequence<int, J...>, const W& weights, const __m512i* v, const float* x,
                                      __m512* sum) {
  (add_column<J>(Indices<M>(), x + i * M, weights.template value<i, J>(v[J]), sum), ...);
}

// The elements that one load of every vector gives.
template <int load, int M, class W, int... I, int... J>
OCTAVO_AVX512_INLINE void add_load(std::integer_sequence<int, I...>, std::integer_sequence<int, J...> vectors,
                                   const W& weights, const std::uint32_t* q, const float* x, __m512* sum) {
  const __m512i v[] = {load_dwords<W, load, J>(q)...};
  (add_element<I, M>(vectors, weights, v, x + load * W::kPerLoad * M, sum), ...);
}

template <int M, class W, int... L>
OCTAVO_AVX512_INLINE void add_dwords(std::integer_sequence<int, L...>, const W& weights, const std::uint32_t* q,
                                     const float* x, __m512* sum) {
  (add_load<L, M>(Indices<W::kPerLoad>(), Indices<kVectors>(), weights, q, x, sum), ...);
}

template <class W, int M>
OCTAVO_AVX512 void few_rows(const Chunk& chunk, const float* x, float* total) {
  const Indices<W::kLoads> loads;
  const W weights(chunk);
  __m512 sum[M * kVectors];
  float_w::clear(Indices<M * kVectors>(), sum);
  const std::uint32_t* q = chunk.q;
  for (std::int64_t step = 0; step < chunk.steps; ++step, q += kBlockChannels, x += kUnit<W> * M) {
    float_w::prefetch<1>(q + float_w::kAhead, kStepBytes);
    add_dwords<M>(loads, weights, q, x, sum);
  }
  float_w::add_scaled(Indices<M * kVectors>(), sum, chunk.scale, total);
}

template <int load, int j, class W, int... I>
OCTAVO_AVX512_INLINE void write_load(std::integer_sequence<int, I...>, const W& weights, const std::uint32_t* q,
                                     float* panel) {
  const __m512i v = load_dwords<W, load, j>(q);
  (_mm512_store_ps(panel + (load * W::kPerLoad + I) * kBlockChannels + 16 * j, weights.template value<I, j>(v)), ...);
}

template <int j, class W, int... L>
OCTAVO_AVX512_INLINE void write(std::integer_sequence<int, L...>, const W& weights, const std::uint32_t* q, float* panel) {
  (write_load<L, j>(Indices<W::kPerLoad>(), weights, q, panel), ...);
}

template <class W>
OCTAVO_AVX512 void fill_panel(const Chunk& chunk, float* panel) {
  const Indices<W::kLoads> loads;
  const W weights(chunk);
  const std::uint32_t* q = chunk.q;
  for (std::int64_t step = 0; step < chunk.steps; ++step, q += kBlockChannels, panel += kUnit<W> * kBlockChannels) {
    write<0>(loads, weights, q, panel);
    write<1>(loads, weights, q, panel);
    write<2>(loads, weights, q, panel);
    write<3>(loads, weights, q, panel);
  }
}

template <int M>
OCTAVO_AVX512 void multiply_panel(const float* panel, const float* x, std::int64_t count, const float* scale, float* total) {
  __m512 sum[M * kVectors];
  float_w::clear(Indices<M * kVectors>(), sum);
  for (std::int64_t k = 0; k < count; ++k, panel += kBlockChannels, x += M) {
    const __m512 w[kVectors] = {_mm512_load_ps(panel), _mm512_load_ps(panel + 16), _mm512_load_ps(panel + 32),
                                _mm512_load_ps(panel + 48)};
    add_rows(Indices<M>(), x, w, sum);
  }
  float_w::add_scaled(Indices<M * kVectors>(), sum, scale, total);
}

OCTAVO_AVX512 void convert_row(const MatrixView& x, std::int64_t m, const Chunk& chunk, float* out) {
  for (std::int64_t i = 0; i < chunk.padded; i += 16) {
    const __mmask16 inside = first_lanes(chunk.length - i);
    _mm512_mask_storeu_ps(out + i, first_lanes(chunk.padded - i), load_floats(x, m, chunk.k + i, inside));
  }
}

template <class W>
struct Kernel : float_w::KernelInVectors {
  using X = float;
  static constexpr std::int64_t kPerStep = kUnit<W>;
  static constexpr std::int64_t kFewRows = W::kFewRows;
  static constexpr std::int64_t kFewTile = 4;
  static constexpr std::int64_t kPanel = 128;

  static void convert(const MatrixView& x, std::int64_t m, const Chunk& chunk, float* out) { convert_row(x, m, chunk, out); }
  static auto few(int rows) {
    return float_w::function_for<kFewTile>(rows, []<int M> { return few_rows<W, M>; });
  }
  static void dequantize(const Chunk& chunk, float* panel) { fill_panel<W>(chunk, panel); }
  static auto product(int rows) {
    return float_w::function_for<kRows>(rows, []<int M> { return multiply_panel<M>; });
  }
  static void store(const Arguments& a, std::int64_t m, std::int64_t b, const float* total) {
    float_w::store_row(a, m, b, total);
  }
};

}  // namespace

void cpu_float_w8_avx512(const Arguments& a, Parallel& parallel) {
  a.packed.format.symmetric ? float_w::run<Kernel<W8<true>>>(a, parallel) : float_w::run<Kernel<W8<false>>>(a, parallel);
}

void cpu_float_w4_avx512(const Arguments& a, Parallel& parallel) {
  a.packed.format.symmetric ? float_w::run<Kernel<W4<true>>>(a, parallel) : float_w::run<Kernel<W4<false>>>(a, parallel);
}

}  // namespace octavo

#endif  // __x86_64__
