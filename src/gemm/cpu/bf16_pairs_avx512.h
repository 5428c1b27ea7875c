// Packed weights as pairs of bf16, exactly, and rows of x in the same order: what VDPBF16PS and TDPBF16PS multiply. In a
// dword of `unit` elements, pair i holds elements i and i + unit / 2, the former in the lower half.
#pragma once

#include "gemm/cpu/float_sums_avx512.h"

#if defined(__x86_64__)

namespace octavo::float_w {

// Bytes. With the exponent of 2^23 or 2^15 above it, a byte at bit 0 or 8 is the lowest bits of a float32's integer part:
// 2^23 + q + 128, say. What is too much is subtracted, exactly; |q - zero_point| < 256 leaves the lower half of a float32
// empty, so two make a pair.
template <bool kSymmetric>
class Bf16W8 {
 public:
  static constexpr int kPairs = 2;               // in a dword
  static constexpr int kFewRows = 128;           // that cost less without a panel
  static constexpr int kRowsOfXInRegisters = 4;  // while a step is multiplied with all of them; more are read again
  // Of 16 channels, and the same two bytes further: a load costs less than moving bytes in a register, and what follows the
  // last dwords is their scales.
  struct Dwords {
    __m512i lower, upper;
  };

  OCTAVO_AVX512_INLINE explicit Bf16W8(const Chunk& chunk) {
    if constexpr (!kSymmetric) {
      const auto* zero_point = reinterpret_cast<const __m128i*>(chunk.zero_point);
      set_offset<0>(_mm_loadu_si128(zero_point));
      set_offset<1>(_mm_loadu_si128(zero_point + 1));
      set_offset<2>(_mm_loadu_si128(zero_point + 2));
      set_offset<3>(_mm_loadu_si128(zero_point + 3));
    }
  }

  template <int j>
  OCTAVO_AVX512_INLINE Dwords load(const std::uint32_t* q) const {
    return {load_once(q), load_once(reinterpret_cast<const char*>(q) + 2)};
  }

  // Pair I of each dword of the j-th vector of a block.
  template <int I, int j>
  OCTAVO_AVX512_INLINE __m512i pair(const Dwords& v) const {
    constexpr __mmask64 kByte = I == 0 ? 0x1111111111111111 : 0x2222222222222222;
    const __m512i exponent = _mm512_castps_si512(_mm512_set1_ps(kTooMuch<I>));
    const __m512 offset = kSymmetric ? _mm512_set1_ps(kTooMuch<I> + 128) : offset_[I * kVectors + j];
    const __m512i first =
        _mm512_castps_si512(_mm512_sub_ps(_mm512_castsi512_ps(_mm512_mask_blend_epi8(kByte, exponent, v.lower)), offset));
    const __m512i second =
        _mm512_castps_si512(_mm512_sub_ps(_mm512_castsi512_ps(_mm512_mask_blend_epi8(kByte, exponent, v.upper)), offset));
    // Two bytes of each dword from two bytes further up in `first`, the others from `second`.
    return _mm512_mask_alignr_epi8(second, 0x3333333333333333, first, first, 2);
  }

  // x of four elements k … k+3 as (k, k+2), (k+1, k+3).
  OCTAVO_AVX512_INLINE static __m512i pairs_of_x(__m512i x) {
    return _mm512_shufflehi_epi16(_mm512_shufflelo_epi16(x, 0xd8), 0xd8);
  }

 private:
  template <int I>
  static constexpr float kTooMuch = I == 0 ? 0x1p23f : 0x1p15f;

  template <int j>
  OCTAVO_AVX512_INLINE void set_offset(__m128i zero_point) {
    const __m512 zero = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(zero_point));
    offset_[j] = _mm512_add_ps(zero, _mm512_set1_ps(kTooMuch<0>));
    offset_[kVectors + j] = _mm512_add_ps(zero, _mm512_set1_ps(kTooMuch<1>));
  }

  __m512 offset_[2 * kVectors];
};

// Two nibbles, 16 bits apart, are looked up at once: VPERMW takes the lowest 5 bits of a word as index.
template <bool kSymmetric>
class Bf16W4 {
 public:
  static constexpr int kPairs = 4;
  static constexpr int kFewRows = 128;
  static constexpr int kRowsOfXInRegisters = 1;
  // Symmetric: the dwords. Else q + 16 - z of four nibbles, one a byte.
  struct Dwords {
    __m512i even, odd;
  };

  OCTAVO_AVX512_INLINE explicit Bf16W4(const Chunk& chunk) : table_(table()) {
    if constexpr (!kSymmetric) {
      const auto* zero_point = reinterpret_cast<const __m128i*>(chunk.zero_point);
      offset_[0] = offset(_mm_loadu_si128(zero_point));
      offset_[1] = offset(_mm_loadu_si128(zero_point + 1));
      offset_[2] = offset(_mm_loadu_si128(zero_point + 2));
      offset_[3] = offset(_mm_loadu_si128(zero_point + 3));
    }
  }

  template <int j>
  OCTAVO_AVX512_INLINE Dwords load(const std::uint32_t* q) const {
    const __m512i v = load_once(q);
    if constexpr (kSymmetric) {
      return {v, v};
    } else {
      const __m512i nibble = _mm512_set1_epi8(15);
      return {_mm512_add_epi8(_mm512_and_si512(v, nibble), offset_[j]),
              _mm512_add_epi8(_mm512_and_si512(_mm512_srli_epi32(v, 4), nibble), offset_[j])};
    }
  }

  template <int I, int j>
  OCTAVO_AVX512_INLINE __m512i pair(const Dwords& v) const {
    __m512i index;
    if constexpr (kSymmetric) {
      index = I == 0 ? v.even : _mm512_srli_epi32(v.even, 4 * I);
    } else {
      index = I % 2 == 0 ? v.even : v.odd;
      if constexpr (I >= 2) index = _mm512_srli_epi32(index, 8);
    }
    return _mm512_permutexvar_epi16(index, table_);
  }

  // x of eight elements k … k+7 as (k, k+4) … (k+3, k+7).
  OCTAVO_AVX512_INLINE static __m512i pairs_of_x(__m512i x) {
    return _mm512_shuffle_epi8(x, _mm512_set4_epi32(0x0f0e0706, 0x0d0c0504, 0x0b0a0302, 0x09080100));
  }

 private:
  // 16 - zero_point in every byte of the channel's dword.
  OCTAVO_AVX512_INLINE static __m512i offset(__m128i zero_point) {
    const __m512i offset = _mm512_sub_epi32(_mm512_set1_epi32(16), _mm512_cvtepu8_epi32(zero_point));
    return _mm512_mullo_epi32(offset, _mm512_set1_epi32(0x01010101));
  }

  // As bf16: index - 8 for 4 bits of index, whatever the fifth is, or index - 16 for 5.
  OCTAVO_AVX512_INLINE static __m512i table() {
    const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512i first = _mm512_sub_epi32(lane, _mm512_set1_epi32(kSymmetric ? 8 : 16));
    const __m512i second = kSymmetric ? first : lane;
    return _mm512_inserti64x4(_mm512_castsi256_si512(upper_halves(first)), upper_halves(second), 1);
  }
  OCTAVO_AVX512_INLINE static __m256i upper_halves(__m512i integers) {
    return _mm512_cvtepi32_epi16(_mm512_srli_epi32(_mm512_castps_si512(_mm512_cvtepi32_ps(integers)), 16));
  }

  __m512i table_;
  __m512i offset_[kVectors];
};

// The first `count` of 32 lanes.
inline __mmask32 first_words(std::int64_t count) {
  return count >= 32 ? 0xffffffffu : count <= 0 ? 0 : (std::uint32_t{1} << count) - 1;
}

// Pairs of one row of x, which is bf16, and chunk.
template <class Weights>
OCTAVO_AVX512 void convert_pairs(const MatrixView& x, std::int64_t m, const Chunk& chunk, std::uint32_t* out) {
  const std::uint16_t* const from = x.row<std::uint16_t>(m) + chunk.k;
  for (std::int64_t i = 0; i < chunk.padded; i += 16) {
    const __mmask32 inside = first_words(chunk.length - 2 * i);
    const __m512i words = _mm512_maskz_loadu_epi16(inside, from + 2 * i);
    _mm512_mask_storeu_epi32(out + i, first_lanes(chunk.padded - i), Weights::pairs_of_x(words));
  }
}

template <int j, class Weights, int... I>
OCTAVO_AVX512_INLINE void write_pairs(std::integer_sequence<int, I...>, const Weights& weights, const std::uint32_t* q,
                                      std::uint32_t* panel) {
  const typename Weights::Dwords v = weights.template load<j>(q + 16 * j);
  (_mm512_store_si512(panel + I * kBlockChannels + 16 * j, weights.template pair<I, j>(v)), ...);
}

// The pairs of a chunk, [pair][64], with zeros up to chunk.padded.
template <class Weights>
OCTAVO_AVX512 void fill_panel_with_pairs(const Chunk& chunk, std::uint32_t* panel) {
  const Indices<Weights::kPairs> pairs;
  const Weights weights(chunk);
  const std::uint32_t* q = chunk.q;
  std::uint32_t* const end = panel + chunk.padded * kBlockChannels;
  for (std::int64_t step = 0; step < chunk.steps; ++step, q += kBlockChannels, panel += Weights::kPairs * kBlockChannels) {
    write_pairs<0>(pairs, weights, q, panel);
    write_pairs<1>(pairs, weights, q, panel);
    write_pairs<2>(pairs, weights, q, panel);
    write_pairs<3>(pairs, weights, q, panel);
  }
  std::fill(panel, end, 0u);
}

// What a Kernel on these weights does with a chunk and a row of totals.
template <class Weights>
struct KernelOnPairs {
  using X = std::uint32_t;
  static constexpr std::int64_t kPerStep = Weights::kPairs;

  static void convert(const MatrixView& x, std::int64_t m, const Chunk& chunk, X* out) {
    convert_pairs<Weights>(x, m, chunk, out);
  }
  static void dequantize(const Chunk& chunk, X* panel) { fill_panel_with_pairs<Weights>(chunk, panel); }
  static void store(const Arguments& a, std::int64_t m, std::int64_t b, const float* total) { store_row(a, m, b, total); }
};

}  // namespace octavo::float_w

#endif  // __x86_64__
