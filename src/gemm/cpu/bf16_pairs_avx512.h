// Packed weights as pairs of bf16, exactly, and rows of x in the same order: what VDPBF16PS and TDPBF16PS multiply. In a
// dword of `unit` elements, pair i holds elements i and i + unit / 2, the former in the lower half.
#pragma once

#include "gemm/cpu/float_rows_avx512.h"

#if defined(__x86_64__)

namespace octavo::float_w {

inline constexpr int kVectors = 4;  // of 16 channels in a block

// Bytes. One is moved to the top of its lane and converted to float32 as an integer there: (q - z) · 2^24, so x is scaled by
// 2^-24, which is exact but for numbers that then are subnormal, which these instructions take for 0. |q - z| < 256 leaves
// the lower half of a float32 empty, so two make a pair.
template <bool kSymmetric>
class Bf16W8 {
 public:
  static constexpr int kPairs = 2;  // in a dword
  using Dwords = __m512i;           // of 16 channels

  OCTAVO_AVX512_INLINE explicit Bf16W8(const Chunk& chunk) {
    if constexpr (!kSymmetric) {
      for (int j = 0; j < kVectors; ++j) {
        const __m512i zero = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(chunk.zero_point) + j));
        offset_[j] =
            _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_sub_epi32(zero, _mm512_set1_epi32(128))), _mm512_set1_ps(0x1p24f));
      }
    }
  }

  // The sign bit of q + 128 is the opposite of q's.
  OCTAVO_AVX512_INLINE Dwords load(const std::uint32_t* q, int /*j*/) const {
    return _mm512_xor_si512(_mm512_loadu_si512(q), _mm512_set1_epi8(-128));
  }

  template <int I>
  OCTAVO_AVX512_INLINE __m512i pair(Dwords v, int j) const {
    const __m512i upper = _mm512_set1_epi32(static_cast<int>(0xff000000u));
    __m512 first, second;
    if constexpr (I == 0) {
      first = _mm512_cvtepi32_ps(_mm512_slli_epi32(v, 24));
      second = _mm512_cvtepi32_ps(_mm512_and_si512(_mm512_slli_epi32(v, 8), upper));
    } else {
      first = _mm512_cvtepi32_ps(_mm512_and_si512(_mm512_slli_epi32(v, 16), upper));
      second = _mm512_cvtepi32_ps(_mm512_and_si512(v, upper));
    }
    if constexpr (!kSymmetric) {
      first = _mm512_sub_ps(first, offset_[j]);
      second = _mm512_sub_ps(second, offset_[j]);
    }
    // Two bytes of each dword from two bytes further up in `first`, the others from `second`.
    return _mm512_mask_alignr_epi8(_mm512_castps_si512(second), 0x3333333333333333, _mm512_castps_si512(first),
                                   _mm512_castps_si512(first), 2);
  }

  // x of four elements k … k+3 as (k, k+2), (k+1, k+3), scaled; numbers below 2^-102 become 0.
  OCTAVO_AVX512_INLINE static __m512i pairs_of_x(__m512i x) {
    const __m512i magnitude = _mm512_and_si512(x, _mm512_set1_epi16(0x7fff));
    const __mmask32 finite = _mm512_cmplt_epu16_mask(magnitude, _mm512_set1_epi16(0x7f80));
    const __mmask32 tiny = _mm512_cmplt_epu16_mask(magnitude, _mm512_set1_epi16(25 << 7));
    x = _mm512_mask_sub_epi16(x, finite, x, _mm512_set1_epi16(24 << 7));
    x = _mm512_mask_mov_epi16(x, tiny, _mm512_setzero_si512());
    return _mm512_shufflehi_epi16(_mm512_shufflelo_epi16(x, 0xd8), 0xd8);
  }

 private:
  __m512 offset_[kVectors];
};

// Two nibbles, 16 bits apart, are looked up at once: VPERMW takes the lowest 5 bits of a word as index.
template <bool kSymmetric>
class Bf16W4 {
 public:
  static constexpr int kPairs = 4;
  // Symmetric: the dwords. Else q + 16 - z of four nibbles, one a byte.
  struct Dwords {
    __m512i even, odd;
  };

  OCTAVO_AVX512_INLINE explicit Bf16W4(const Chunk& chunk) : table_(table()) {
    if constexpr (!kSymmetric) {
      for (int j = 0; j < kVectors; ++j) {
        const __m512i zero = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(chunk.zero_point) + j));
        offset_[j] = _mm512_mullo_epi32(_mm512_sub_epi32(_mm512_set1_epi32(16), zero), _mm512_set1_epi32(0x01010101));
      }
    }
  }

  OCTAVO_AVX512_INLINE Dwords load(const std::uint32_t* q, int j) const {
    const __m512i v = _mm512_loadu_si512(q);
    if constexpr (kSymmetric) {
      return {v, v};
    } else {
      const __m512i nibble = _mm512_set1_epi8(15);
      return {_mm512_add_epi8(_mm512_and_si512(v, nibble), offset_[j]),
              _mm512_add_epi8(_mm512_and_si512(_mm512_srli_epi32(v, 4), nibble), offset_[j])};
    }
  }

  template <int I>
  OCTAVO_AVX512_INLINE __m512i pair(const Dwords& v, int /*j*/) const {
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

// Pairs of one row of x, which is bf16, and chunk.
template <class Weights>
OCTAVO_AVX512 void convert_pairs(const MatrixView& x, std::int64_t m, const Chunk& chunk, std::uint32_t* out) {
  const std::uint16_t* const from = x.row<std::uint16_t>(m) + chunk.k;
  for (std::int64_t i = 0; i < chunk.padded; i += 16) {
    const __mmask32 inside = lanes32(std::max<std::int64_t>(0, chunk.length - 2 * i));
    const __m512i words = _mm512_maskz_loadu_epi16(inside, from + 2 * i);
    _mm512_mask_storeu_epi32(out + i, lanes16(chunk.padded - i), Weights::pairs_of_x(words));
  }
}

template <int I, class Weights>
OCTAVO_AVX512_INLINE void write_pair(const Weights& weights, const typename Weights::Dwords& v, int j,
                                     std::uint32_t* panel) {
  _mm512_store_si512(panel + I * kBlockChannels, weights.template pair<I>(v, j));
}

// The pairs of a chunk, [pair][64], with zeros up to chunk.padded.
template <class Weights>
OCTAVO_AVX512 void fill_panel_with_pairs(const Chunk& chunk, std::uint32_t* panel) {
  const Weights weights(chunk);
  const std::uint32_t* q = chunk.q;
  std::uint32_t* const end = panel + chunk.padded * kBlockChannels;
  for (std::int64_t step = 0; step < chunk.steps; ++step, q += kBlockChannels, panel += Weights::kPairs * kBlockChannels) {
    for (int j = 0; j < kVectors; ++j) {
      const typename Weights::Dwords v = weights.load(q + 16 * j, j);
      write_pair<0>(weights, v, j, panel + 16 * j);
      write_pair<1>(weights, v, j, panel + 16 * j);
      if constexpr (Weights::kPairs == 4) {
        write_pair<2>(weights, v, j, panel + 16 * j);
        write_pair<3>(weights, v, j, panel + 16 * j);
      }
    }
  }
  std::fill(panel, end, 0u);
}

}  // namespace octavo::float_w

#endif  // __x86_64__
