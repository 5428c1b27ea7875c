// AVX2 + FMA + F16C.
#if defined(__x86_64__)
#include <algorithm>
#include <bit>
#include <cmath>

#include "core/half.h"
#include "core/simd.h"
#include "quantize/slices.h"

namespace octavo {
namespace {

// ---- extremes: integer maxima, see slices_scalar.cpp

OCTAVO_AVX2 Extremes extremes16(const std::uint16_t* w, std::int64_t n, DType dtype) {
  const __m256i zero = _mm256_setzero_si256();
  const __m256i sign = _mm256_set1_epi16(static_cast<short>(0x8000));
  __m256i hi[2] = {zero, zero};
  __m256i lo[2] = {sign, sign};
  std::int64_t k = 0;
  for (; k + 32 <= n; k += 32) {
    for (int i = 0; i < 2; ++i) {
      const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(w + k + 16 * i));
      hi[i] = _mm256_max_epi16(hi[i], bits);
      lo[i] = _mm256_max_epu16(lo[i], bits);
    }
  }
  alignas(32) std::int16_t hi_lane[16];
  alignas(32) std::uint16_t lo_lane[16];
  _mm256_store_si256(reinterpret_cast<__m256i*>(hi_lane), _mm256_max_epi16(hi[0], hi[1]));
  _mm256_store_si256(reinterpret_cast<__m256i*>(lo_lane), _mm256_max_epu16(lo[0], lo[1]));
  std::int16_t top = 0;
  std::uint16_t bottom = 0x8000;
  for (int i = 0; i < 16; ++i) {
    top = std::max(top, hi_lane[i]);
    bottom = std::max(bottom, lo_lane[i]);
  }
  for (; k < n; ++k) {
    top = std::max(top, static_cast<std::int16_t>(w[k]));
    bottom = std::max(bottom, w[k]);
  }
  const auto high = static_cast<std::uint16_t>(top);
  if (dtype == DType::kFloat16) {
    return {{to_float(Float16{bottom}) + 0.0f, to_float(Float16{high})}, high < 0x7c00 && bottom < 0xfc00};
  }
  return {{to_float(BFloat16{bottom}) + 0.0f, to_float(BFloat16{high})}, high < 0x7f80 && bottom < 0xff80};
}

OCTAVO_AVX2 Extremes extremes32(const float* w, std::int64_t n) {
  __m256i hi = _mm256_setzero_si256();
  __m256i lo = _mm256_set1_epi32(static_cast<int>(0x80000000u));
  std::int64_t k = 0;
  for (; k + 8 <= n; k += 8) {
    const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(w + k));
    hi = _mm256_max_epi32(hi, bits);
    lo = _mm256_max_epu32(lo, bits);
  }
  alignas(32) std::int32_t hi_lane[8];
  alignas(32) std::uint32_t lo_lane[8];
  _mm256_store_si256(reinterpret_cast<__m256i*>(hi_lane), hi);
  _mm256_store_si256(reinterpret_cast<__m256i*>(lo_lane), lo);
  std::int32_t top = 0;
  std::uint32_t bottom = 0x80000000u;
  for (int i = 0; i < 8; ++i) {
    top = std::max(top, hi_lane[i]);
    bottom = std::max(bottom, lo_lane[i]);
  }
  for (; k < n; ++k) {
    top = std::max(top, std::bit_cast<std::int32_t>(w[k]));
    bottom = std::max(bottom, std::bit_cast<std::uint32_t>(w[k]));
  }
  return {{std::bit_cast<float>(bottom) + 0.0f, std::bit_cast<float>(top)}, top < 0x7f800000 && bottom < 0xff800000u};
}

Extremes extremes(const void* w, DType dtype, std::int64_t n) {
  if (dtype == DType::kFloat32) return extremes32(static_cast<const float*>(w), n);
  return extremes16(static_cast<const std::uint16_t*>(w), n, dtype);
}

// ---- sixteen elements as two vectors of floats, in an order of the type's own, and integers back from that order

struct Pair {
  __m256 a, b;
};

OCTAVO_AVX2_INLINE Pair load16(const BFloat16* w) {  // a: even elements, b: odd ones
  const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(w));
  return {_mm256_castsi256_ps(_mm256_slli_epi32(bits, 16)),
          _mm256_castsi256_ps(_mm256_and_si256(bits, _mm256_set1_epi32(static_cast<int>(0xffff0000u))))};
}
OCTAVO_AVX2_INLINE Pair load16(const Float16* w) {
  const auto* p = reinterpret_cast<const __m128i*>(w);
  return {_mm256_cvtph_ps(_mm_loadu_si128(p)), _mm256_cvtph_ps(_mm_loadu_si128(p + 1))};
}
OCTAVO_AVX2_INLINE Pair load16(const float* w) { return {_mm256_loadu_ps(w), _mm256_loadu_ps(w + 8)}; }

OCTAVO_AVX2_INLINE __m256i join16(const BFloat16*, __m256i a, __m256i b) {
  return _mm256_blend_epi16(a, _mm256_slli_epi32(b, 16), 0xaa);
}
OCTAVO_AVX2_INLINE __m256i join_halves(__m256i a, __m256i b) {
  return _mm256_permute4x64_epi64(_mm256_packs_epi32(a, b), 0xd8);
}
OCTAVO_AVX2_INLINE __m256i join16(const Float16*, __m256i a, __m256i b) { return join_halves(a, b); }
OCTAVO_AVX2_INLINE __m256i join16(const float*, __m256i a, __m256i b) { return join_halves(a, b); }

// ---- quantize

// What the quotients of a slice need, spread over lanes.
struct Divisor {
  __m256 scale, reciprocal, zero_point, limit, minus_limit;
  __m256i qmin, qmax;
};

OCTAVO_AVX2_INLINE Divisor divisor_of(ScaleZero s, const WeightFormat& format) {
  // A quotient of ±2^(bits+1) saturates whatever the zero point, so larger ones may be cut to it: no overflow on the way.
  const float limit = s.scale * static_cast<float>(2 << format.num_bits);
  return {_mm256_set1_ps(s.scale),
          _mm256_set1_ps(1.0f / s.scale),
          _mm256_set1_ps(s.zero_point),
          _mm256_set1_ps(limit),
          _mm256_set1_ps(-limit),
          _mm256_set1_epi16(static_cast<short>(format.qmin())),
          _mm256_set1_epi16(static_cast<short>(format.qmax()))};
}

// Which steps a slice needs. kPlain: symmetric, 8 bits and nothing far out of range, so that the saturation of packing is
// all the clamping there is to do.
enum class Path { kPlain, kReciprocal, kDivision };

// rint(w / s + z) as int32. By reciprocal: the quotient without a division, by one correction of w · (1/s) with its exact
// remainder (Markstein, 1990); correctly rounded for 16-bit w and scales far from the ends of float's range.
template <Path kPath>
OCTAVO_AVX2_INLINE __m256i quantize8(__m256 w, const Divisor& d) {
  if constexpr (kPath != Path::kPlain) w = _mm256_max_ps(_mm256_min_ps(w, d.limit), d.minus_limit);
  if constexpr (kPath == Path::kDivision) {
    return _mm256_cvtps_epi32(_mm256_add_ps(_mm256_div_ps(w, d.scale), d.zero_point));
  }
  const __m256 estimate = _mm256_mul_ps(w, d.reciprocal);
  const __m256 remainder = _mm256_fnmadd_ps(estimate, d.scale, w);
  const __m256 quotient = _mm256_fmadd_ps(remainder, d.reciprocal, estimate);
  return _mm256_cvtps_epi32(kPath == Path::kPlain ? quotient : _mm256_add_ps(quotient, d.zero_point));
}

template <Path kPath, class T>
OCTAVO_AVX2_INLINE __m256i quantize16(const T* w, const Divisor& d) {
  const Pair x = load16(w);
  const __m256i q = join16(w, quantize8<kPath>(x.a, d), quantize8<kPath>(x.b, d));
  return kPath == Path::kPlain ? q : _mm256_max_epi16(_mm256_min_epi16(q, d.qmax), d.qmin);
}

// Sixteen or thirty-two bytes from 16-bit integers, in order. Symmetric ones saturate to int8; the others are in range.
OCTAVO_AVX2_INLINE __m256i pack32(__m256i a, __m256i b, bool symmetric) {
  return _mm256_permute4x64_epi64(symmetric ? _mm256_packs_epi16(a, b) : _mm256_packus_epi16(a, b), 0xd8);
}
OCTAVO_AVX2_INLINE __m128i pack16(__m256i a, bool symmetric) { return _mm256_castsi256_si128(pack32(a, a, symmetric)); }

template <Path kPath, class T>
OCTAVO_AVX2 void quantize_slice(const T* w, std::int64_t n, ScaleZero s, const WeightFormat& format, std::uint8_t* q) {
  const Divisor d = divisor_of(s, format);
  const bool symmetric = kPath == Path::kPlain || format.symmetric;
  std::int64_t k = 0;
  for (; k + 32 <= n; k += 32) {
    const __m256i packed = pack32(quantize16<kPath>(w + k, d), quantize16<kPath>(w + k + 16, d), symmetric);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(q + k), packed);
  }
  for (; k + 16 <= n; k += 16) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(q + k), pack16(quantize16<kPath>(w + k, d), symmetric));
  }
  if (k < n) {
    T rest_w[16] = {};
    alignas(16) std::uint8_t rest_q[16];
    std::copy_n(w + k, n - k, rest_w);
    _mm_store_si128(reinterpret_cast<__m128i*>(rest_q), pack16(quantize16<kPath>(rest_w, d), symmetric));
    std::copy_n(rest_q, n - k, q + k);
  }
}

void quantize(const void* w, DType dtype, std::int64_t n, float absmax, ScaleZero s, const WeightFormat& format, void* q) {
  auto* out = static_cast<std::uint8_t*>(q);
  const bool moderate = s.scale >= 0x1p-60f && s.scale <= 0x1p60f;  // reciprocal and remainder stay normal numbers
  const bool near = format.symmetric && format.num_bits == 8 && absmax <= s.scale * 0x1p14f;  // fits in 16 bits
  visit_float(dtype, [&](auto type) {
    using T = decltype(type);
    const auto* in = static_cast<const T*>(w);
    if constexpr (!std::is_same_v<T, float>) {
      if (moderate && near) return quantize_slice<Path::kPlain>(in, n, s, format, out);
      if (moderate) return quantize_slice<Path::kReciprocal>(in, n, s, format, out);
    }
    if (s.scale <= 0x1p60f) return quantize_slice<Path::kDivision>(in, n, s, format, out);
    kScalarSlices.quantize(w, dtype, n, absmax, s, format, q);
  });
}

// ---- dequantize and its errors

template <bool kSigned>
OCTAVO_AVX2_INLINE __m256 dequantize8(const std::uint8_t* q, __m256 scale, __m256 zero_point) {
  const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(q));
  const __m256i wide = kSigned ? _mm256_cvtepi8_epi32(bytes) : _mm256_cvtepu8_epi32(bytes);
  return _mm256_mul_ps(_mm256_sub_ps(_mm256_cvtepi32_ps(wide), zero_point), scale);
}

OCTAVO_AVX2_INLINE __m256 load8(const float* w) { return _mm256_loadu_ps(w); }
OCTAVO_AVX2_INLINE __m256 load8(const Float16* w) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(w)));
}
OCTAVO_AVX2_INLINE __m256 load8(const BFloat16* w) {
  const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(w));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
}

OCTAVO_AVX2_INLINE void store8(float* out, __m256 v) { _mm256_storeu_ps(out, v); }
OCTAVO_AVX2_INLINE void store8(Float16* out, __m256 v) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(out), _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
OCTAVO_AVX2_INLINE void store8(BFloat16* out, __m256 v) {  // no NaN can come out of integers and finite scales
  const __m256i bits = _mm256_castps_si256(v);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i rounded = _mm256_srli_epi32(_mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff))), 16);
  const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(rounded, rounded), 0x88);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(out), _mm256_castsi256_si128(packed));
}

template <bool kSigned, class T>
OCTAVO_AVX2 void dequantize_slice(const std::uint8_t* q, std::int64_t n, ScaleZero s, T* out) {
  const __m256 scale = _mm256_set1_ps(s.scale);
  const __m256 zero_point = _mm256_set1_ps(s.zero_point);
  std::int64_t k = 0;
  for (; k + 8 <= n; k += 8) store8(out + k, dequantize8<kSigned>(q + k, scale, zero_point));
  kScalarSlices.dequantize(q + k, kSigned, n - k, s, out + k,
                           std::is_same_v<T, float>     ? DType::kFloat32
                           : std::is_same_v<T, Float16> ? DType::kFloat16
                                                        : DType::kBFloat16);
}

void dequantize(const void* q, bool is_signed, std::int64_t n, ScaleZero s, void* out, DType dtype) {
  const auto* in = static_cast<const std::uint8_t*>(q);
  visit_float(dtype, [&](auto type) {
    auto* typed = static_cast<decltype(type)*>(out);
    is_signed ? dequantize_slice<true>(in, n, s, typed) : dequantize_slice<false>(in, n, s, typed);
  });
}

// Eight lanes of doubles.
struct Lanes {
  __m256d low, high;
};

OCTAVO_AVX2_INLINE Lanes widen(__m256 v) {
  return {_mm256_cvtps_pd(_mm256_castps256_ps128(v)), _mm256_cvtps_pd(_mm256_extractf128_ps(v, 1))};
}

OCTAVO_AVX2_INLINE void store_lanes(const Lanes& lanes, double* out) {
  _mm256_storeu_pd(out, lanes.low);
  _mm256_storeu_pd(out + 4, lanes.high);
}

struct ErrorLanes {
  Lanes signal, squared, absolute, largest;
};

OCTAVO_AVX2_INLINE void accumulate(__m256d w, __m256d restored, __m256d& signal, __m256d& squared, __m256d& absolute,
                                   __m256d& largest) {
  const __m256d error = _mm256_andnot_pd(_mm256_set1_pd(-0.0), _mm256_sub_pd(w, restored));
  signal = _mm256_add_pd(signal, _mm256_mul_pd(w, w));
  squared = _mm256_add_pd(squared, _mm256_mul_pd(error, error));
  absolute = _mm256_add_pd(absolute, error);
  largest = _mm256_max_pd(largest, error);
}

template <bool kSigned, class T>
OCTAVO_AVX2 ErrorSums errors_of(const T* w, const std::uint8_t* q, std::int64_t n, ScaleZero s) {
  const __m256 scale = _mm256_set1_ps(s.scale);
  const __m256 zero_point = _mm256_set1_ps(s.zero_point);
  const __m256d zero = _mm256_setzero_pd();
  ErrorLanes sums = {{zero, zero}, {zero, zero}, {zero, zero}, {zero, zero}};
  std::int64_t k = 0;
  for (; k + 8 <= n; k += 8) {
    const Lanes value = widen(load8(w + k));
    const Lanes restored = widen(dequantize8<kSigned>(q + k, scale, zero_point));
    accumulate(value.low, restored.low, sums.signal.low, sums.squared.low, sums.absolute.low, sums.largest.low);
    accumulate(value.high, restored.high, sums.signal.high, sums.squared.high, sums.absolute.high, sums.largest.high);
  }
  double signal[kErrorLanes], squared[kErrorLanes], absolute[kErrorLanes], largest[kErrorLanes];
  store_lanes(sums.signal, signal);
  store_lanes(sums.squared, squared);
  store_lanes(sums.absolute, absolute);
  store_lanes(sums.largest, largest);
  for (; k < n; ++k) {
    const float integer = kSigned ? static_cast<float>(static_cast<std::int8_t>(q[k])) : static_cast<float>(q[k]);
    const double value = to_float(w[k]);
    const double error = std::fabs(value - static_cast<double>((integer - s.zero_point) * s.scale));
    signal[k % kErrorLanes] += value * value;
    squared[k % kErrorLanes] += error * error;
    absolute[k % kErrorLanes] += error;
    largest[0] = std::max(largest[0], error);
  }
  return {add_lanes(signal), add_lanes(squared), add_lanes(absolute), *std::max_element(largest, largest + kErrorLanes), n};
}

ErrorSums errors(const void* w, DType dtype, const void* q, bool is_signed, std::int64_t n, ScaleZero s) {
  const auto* in = static_cast<const std::uint8_t*>(q);
  return visit_float(dtype, [&](auto type) {
    const auto* typed = static_cast<const decltype(type)*>(w);
    return is_signed ? errors_of<true>(typed, in, n, s) : errors_of<false>(typed, in, n, s);
  });
}

OCTAVO_AVX2 double trial_error(const float* w, std::int64_t n, ScaleZero s, const WeightFormat& format) {
  const __m256 scale = _mm256_set1_ps(s.scale);
  const __m256 zero_point = _mm256_set1_ps(s.zero_point);
  const __m256 qmin = _mm256_set1_ps(static_cast<float>(format.qmin()));
  const __m256 qmax = _mm256_set1_ps(static_cast<float>(format.qmax()));
  Lanes sum = {_mm256_setzero_pd(), _mm256_setzero_pd()};
  std::int64_t k = 0;
  for (; k + 8 <= n; k += 8) {
    const __m256 value = _mm256_loadu_ps(w + k);
    const __m256 rounded = _mm256_round_ps(_mm256_add_ps(_mm256_div_ps(value, scale), zero_point),
                                           _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const __m256 q = _mm256_max_ps(_mm256_min_ps(rounded, qmax), qmin);
    const Lanes restored = widen(_mm256_mul_ps(_mm256_sub_ps(q, zero_point), scale));
    const Lanes wide = widen(value);
    const __m256d low = _mm256_sub_pd(wide.low, restored.low);
    const __m256d high = _mm256_sub_pd(wide.high, restored.high);
    sum.low = _mm256_add_pd(sum.low, _mm256_mul_pd(low, low));
    sum.high = _mm256_add_pd(sum.high, _mm256_mul_pd(high, high));
  }
  double squared[kErrorLanes];
  store_lanes(sum, squared);
  for (; k < n; ++k) {
    const float rounded = std::rint(w[k] / s.scale + s.zero_point);
    const float q = std::clamp(rounded, static_cast<float>(format.qmin()), static_cast<float>(format.qmax()));
    const double error = static_cast<double>(w[k]) - static_cast<double>((q - s.zero_point) * s.scale);
    squared[k % kErrorLanes] += error * error;
  }
  return add_lanes(squared);
}

// ---- stores past the caches, in whole lines

OCTAVO_AVX2 void stream_bytes(const std::uint8_t* from, std::int64_t n, std::uint8_t* to) {
  const auto misaligned = static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(to) % 64);
  std::int64_t i = std::min(n, (64 - misaligned) % 64);
  std::copy_n(from, i, to);
  for (; i + 64 <= n; i += 64) {
    const auto* source = reinterpret_cast<const __m256i*>(from + i);
    auto* target = reinterpret_cast<__m256i*>(to + i);
    const __m256i low = _mm256_loadu_si256(source);
    const __m256i high = _mm256_loadu_si256(source + 1);
    _mm256_stream_si256(target, low);
    _mm256_stream_si256(target + 1, high);
  }
  std::copy_n(from + i, n - i, to + i);
}

void finish_streaming() { _mm_sfence(); }

}  // namespace

const SliceKernels kAvx2Slices = {extremes, quantize, dequantize, errors, trial_error, stream_bytes, finish_streaming};

}  // namespace octavo

#endif  // __x86_64__
