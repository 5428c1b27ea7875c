// Weights in groups that are multiplied by their scale where they are converted: ŵ = (q - z) · s, rounded once to x's type,
// two neighbours along K at a time, for at most two instructions more than an exact conversion.
//
// The scale stands in two numbers of x's type, s = high + low, and ŵ = d · high + (d · low) with one fused multiply-add,
// where d = q - z is exact. What high + low miss of s, and the rounding of d · low, are u² |ŵ| at most together with what a
// rounding to nearest leaves unused of u |ŵ|, u being half a unit of x's type: |error| <= u (1 + u) |ŵ|. A scale that x's
// type can hold has low = 0. Scales that are stored in x's type, as checkpoints do, have no low part at all: then ŵ = d · s,
// rounded correctly, and one multiplication is all.
//
// In fp16 the low part of a scale in float32 below 8 would be subnormal, if not lost: it would be right to 2^-25, and ŵ to
// 2^-25 |d|. So such scales are taken 2^12 times, and d 2^-12 times, which costs nothing: other exponents are put in front
// of the stored bits. Both are exact, d being an integer below 256 and the scale below 2^15 then, and 2^-25 |d| becomes
// 2^-37 |d|, so that ŵ has the error of a rounding to fp16, with its subnormal numbers and its overflow. Larger scales are
// taken as they are.
//
// In bf16, with a scale of 16 bits and no zero points, conversion and scale are one fused multiply-add, stored · s - z · s,
// of which z · s is exact, z being a power of two: ŵ is the same number. What multiplies a stored number is 2^101 s, so that
// s must be below 2^27; and ŵ counts in units of 2^-32 (bf16_units.cuh), so that below 2^-94 it is subnormal.
#pragma once

#include "gemm/cuda/float_w_fragment.cuh"

namespace octavo::sm90 {

// What the weights of a row's group are converted with: the zero point as Convert takes it, and the scale, by HowScaled.
struct GroupFactors {
  std::uint32_t offset, scale;
};

enum class HowScaled : std::uint8_t {
  kNot,         // weights are not: their sums
  kInTwoParts,  // high and low of a scale in float32
  kInOne,       // a scale of 16 bits, twice
  kFused,       // both parts of conversion's multiply-add times the scale
  kAnyWay,      // any of these, which a kernel finds out
};

// Of scales of 16 bits without zero points.
template <class X>
inline constexpr HowScaled kSymmetricScaled = std::is_same_v<X, __nv_bfloat16> ? HowScaled::kFused : HowScaled::kInOne;

// The scale's numbers each twice in a register.
struct WideFactors {
  std::uint32_t offset, high, low;
};

template <HowScaled kHow>
__device__ __forceinline__ WideFactors widened(const GroupFactors& f) {
  if constexpr (kHow != HowScaled::kInTwoParts) return {f.offset, f.scale, 0};
  return {f.offset, __byte_perm(f.scale, 0, 0x1010), __byte_perm(f.scale, 0, 0x3232)};
}

// Above 65504 high + low reach 131008, so that products overflow by their own size.
__device__ __forceinline__ std::uint32_t split_scale(__half /*x*/, float scale) {
  const __half high = __float2half_rn(fminf(scale, 65504));
  return bits(__halves2half2(high, __float2half_rn(scale - __half2float(high))));
}
__device__ __forceinline__ std::uint32_t split_scale(__nv_bfloat16 /*x*/, float scale) {
  const __nv_bfloat16 high = __float2bfloat16_rn(scale);
  return bits(__halves2bfloat162(high, __float2bfloat16_rn(scale - __bfloat162float(high))));
}

// (q - z) · s of a pair.
template <HowScaled kHow, class Pair>
__device__ __forceinline__ std::uint32_t scaled(Pair d, const WideFactors& f) {
  if constexpr (kHow == HowScaled::kInOne) return bits(__hmul2(d, as_pair<Pair>(f.high)));
  return bits(__hfma2(d, as_pair<Pair>(f.high), __hmul2(d, as_pair<Pair>(f.low))));
}

template <class X, class Convert>
struct Rounded;

template <class Convert>
struct Rounded<__half, Convert> {
  __device__ __forceinline__ static GroupFactors factors(float scale, int zero_point) {
    const bool small = fabsf(scale) < 8;  // twelve less in the exponents of both halves
    return {Convert::offset(zero_point) - (small ? 0x30003000 : 0), split_scale(__half(), small ? scale * 4096 : scale)};
  }
  // Of a scale of 16 bits, which stands twice.
  template <HowScaled kHow>
  __device__ __forceinline__ static GroupFactors factors(std::uint32_t scale, std::uint32_t offset) {
    return {offset, scale};
  }
  template <HowScaled kHow>
  __device__ __forceinline__ static std::uint32_t pair(const Convert& convert, std::uint32_t raw, const WideFactors& f) {
    return scaled<kHow>(__hsub2(as_pair<__half2>(convert.biased(raw, f.offset)), as_pair<__half2>(f.offset)), f);
  }
};

template <class Convert>
struct Rounded<__nv_bfloat16, Convert> {
  using Pair = __nv_bfloat162;

  __device__ __forceinline__ static GroupFactors factors(float scale, int zero_point) {
    return {Convert::offset(zero_point), split_scale(__nv_bfloat16(), scale)};
  }
  template <HowScaled kHow>
  __device__ __forceinline__ static GroupFactors factors(std::uint32_t scale, std::uint32_t offset) {
    if constexpr (kHow == HowScaled::kInOne) return {offset, scale};
    const auto times_scale = [&](std::uint32_t v) { return bits(__hmul2(as_pair<Pair>(v), as_pair<Pair>(scale))); };
    return {times_scale(offset), times_scale(Convert::kFactors)};
  }
  template <HowScaled kHow>
  __device__ __forceinline__ static std::uint32_t pair(const Convert& convert, std::uint32_t raw, const WideFactors& f) {
    if constexpr (kHow == HowScaled::kFused) {
      return cuda::bf16_units(convert.integers(raw), f.high, f.offset);
    } else {
      return scaled<kHow>(as_pair<Pair>(convert.pair(raw, f.offset)), f);
    }
  }
};

}  // namespace octavo::sm90
