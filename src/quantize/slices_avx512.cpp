// AVX-512 (F, BW, DQ, VL) for the loops that bound the quantizer's speed: ranges of 16-bit weights, and quantizing them to
// symmetric 8 bits. Everything else is AVX2's.
#if defined(__x86_64__)
#include <algorithm>

#include "core/half.h"
#include "core/simd.h"
#include "quantize/slices.h"

namespace octavo {
namespace {

constexpr std::int64_t kLongSlice = 256;  // below, joining the lanes of wider registers costs more than they save

// See slices_scalar.cpp: integer maxima.
OCTAVO_AVX512 Extremes extremes16(const std::uint16_t* w, std::int64_t n, DType dtype) {
  const __m512i sign = _mm512_set1_epi16(static_cast<short>(0x8000));
  __m512i hi[2] = {_mm512_setzero_si512(), _mm512_setzero_si512()};
  __m512i lo[2] = {sign, sign};
  for (std::int64_t k = 0; k < n; k += 64) {
    for (int i = 0; i < 2; ++i) {
      const std::int64_t left = std::clamp<std::int64_t>(n - k - 32 * i, 0, 32);
      const __mmask32 inside = static_cast<__mmask32>((std::uint64_t{1} << left) - 1);
      const __m512i bits = _mm512_maskz_loadu_epi16(inside, w + k + 32 * i);
      hi[i] = _mm512_max_epi16(hi[i], bits);
      lo[i] = _mm512_max_epu16(lo[i], bits);
    }
  }
  // Lanes of a pair of 16-bit integers each, by their upper and lower halves.
  const __m512i top = _mm512_max_epi16(hi[0], hi[1]);
  const __m512i bottom = _mm512_max_epu16(lo[0], lo[1]);
  const int top_odd = _mm512_reduce_max_epi32(_mm512_srai_epi32(top, 16));
  const int top_even = _mm512_reduce_max_epi32(_mm512_srai_epi32(_mm512_slli_epi32(top, 16), 16));
  const unsigned bottom_odd = _mm512_reduce_max_epu32(_mm512_srli_epi32(bottom, 16));
  const unsigned bottom_even = _mm512_reduce_max_epu32(_mm512_and_si512(bottom, _mm512_set1_epi32(0xffff)));
  const auto high = static_cast<std::uint16_t>(std::max(top_odd, top_even));
  const auto low = static_cast<std::uint16_t>(std::max(bottom_odd, bottom_even));
  if (dtype == DType::kFloat16) {
    return {{to_float(Float16{low}) + 0.0f, to_float(Float16{high})}, high < 0x7c00 && low < 0xfc00};
  }
  return {{to_float(BFloat16{low}) + 0.0f, to_float(BFloat16{high})}, high < 0x7f80 && low < 0xff80};
}

Extremes extremes(const void* w, DType dtype, std::int64_t n) {
  if (dtype == DType::kFloat32 || n < kLongSlice) return kAvx2Slices.extremes(w, dtype, n);
  return extremes16(static_cast<const std::uint16_t*>(w), n, dtype);
}

// rint(w / scale), without a division: see quantize8 in slices_avx2.cpp.
OCTAVO_AVX512_INLINE __m512i quantize_lanes(__m512 w, __m512 scale, __m512 reciprocal) {
  const __m512 estimate = _mm512_mul_ps(w, reciprocal);
  const __m512 remainder = _mm512_fnmadd_ps(estimate, scale, w);
  return _mm512_cvtps_epi32(_mm512_fmadd_ps(remainder, reciprocal, estimate));
}

// Thirty-two elements as 16-bit integers, in order.
OCTAVO_AVX512_INLINE __m512i quantize32(const BFloat16*, __m512i bits, __m512 scale, __m512 reciprocal) {
  const __m512 even = _mm512_castsi512_ps(_mm512_slli_epi32(bits, 16));
  const __m512 odd = _mm512_castsi512_ps(_mm512_and_si512(bits, _mm512_set1_epi32(static_cast<int>(0xffff0000u))));
  const __m512i upper = _mm512_slli_epi32(quantize_lanes(odd, scale, reciprocal), 16);
  return _mm512_mask_blend_epi16(0xaaaaaaaau, quantize_lanes(even, scale, reciprocal), upper);
}
OCTAVO_AVX512_INLINE __m512i quantize32(const Float16*, __m512i bits, __m512 scale, __m512 reciprocal) {
  const __m512 low = _mm512_cvtph_ps(_mm512_castsi512_si256(bits));
  const __m512 high = _mm512_cvtph_ps(_mm512_extracti64x4_epi64(bits, 1));
  const __m256i first = _mm512_cvtsepi32_epi16(quantize_lanes(low, scale, reciprocal));
  const __m256i second = _mm512_cvtsepi32_epi16(quantize_lanes(high, scale, reciprocal));
  return _mm512_inserti64x4(_mm512_castsi256_si512(first), second, 1);
}

// Symmetric, 8 bits, quotients that fit in 16 bits: saturation is all the clamping there is to do.
template <class T>
OCTAVO_AVX512 void quantize_plain(const T* w, std::int64_t n, float s, std::uint8_t* q) {
  const __m512 scale = _mm512_set1_ps(s);
  const __m512 reciprocal = _mm512_set1_ps(1.0f / s);
  std::int64_t k = 0;
  for (; k + 32 <= n; k += 32) {
    const __m512i integers = quantize32(w, _mm512_loadu_si512(w + k), scale, reciprocal);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(q + k), _mm512_cvtsepi16_epi8(integers));
  }
  if (k < n) {
    const __mmask32 inside = (__mmask32{1} << (n - k)) - 1;
    const __m512i integers = quantize32(w, _mm512_maskz_loadu_epi16(inside, w + k), scale, reciprocal);
    _mm512_mask_cvtsepi16_storeu_epi8(q + k, inside, integers);
  }
}

void quantize(const void* w, DType dtype, std::int64_t n, float absmax, ScaleZero s, const WeightFormat& format, void* q) {
  auto* out = static_cast<std::uint8_t*>(q);
  const bool plain =
      format.symmetric && format.num_bits == 8 && absmax <= s.scale * 0x1p14f && s.scale >= 0x1p-60f && s.scale <= 0x1p60f;
  if (plain && dtype == DType::kBFloat16) return quantize_plain(static_cast<const BFloat16*>(w), n, s.scale, out);
  if (plain && dtype == DType::kFloat16) return quantize_plain(static_cast<const Float16*>(w), n, s.scale, out);
  kAvx2Slices.quantize(w, dtype, n, absmax, s, format, q);
}

}  // namespace

const SliceKernels kAvx512Slices = [] {
  SliceKernels table = kAvx2Slices;
  table.extremes = extremes;
  table.quantize = quantize;
  return table;
}();

}  // namespace octavo

#endif  // __x86_64__
