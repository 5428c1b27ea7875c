// x of 16 bits as digits in shared memory: 4-bit weights times these are exact int8 products, which take a third of the
// instructions that converting weights takes. See decode.cuh.
//
// Of a block's x of a token the largest magnitude is below 2^E. Times 2^(30 - E) it is rounded to integers
// n = d0 · 256^3 + d1 · 256^2 + d2 · 256 + d3, digits d from -128 to 127: fp16 of at least 2^-20 of 2^E, and bf16 of 2^-23,
// are exact. (So split matrices Ozaki, Ogita, Oishi and Rump, "Error-free transformations of matrix multiplication by using
// fast routines of matrix multiplication and its applications", 2012, and for integer units Ootomo, Ozaki and Yokota, "DGEMM
// on integer matrix multiplication unit", 2024.)
//
// A product has columns for digits 0 … 3 of a token.
#pragma once

#include "core/half.cuh"
#include "gemm/cuda/decode_kind.cuh"
#include "gemm/cuda/decode_products.cuh"
#include "quantize/cuda/rounding.cuh"

namespace octavo::decode {

// Digits of two slabs stand together: 64 bytes of each digit, 16 of each of the four threads of a row. In every second pair
// of slabs digits 0 and 1, and 2 and 3, have changed places, so that threads that write a digit of two pairs touch different
// banks.
inline constexpr int kDigitBytes = 64;
__device__ __forceinline__ constexpr int digits_moved(int pair) { return pair % 2 * kDigitBytes; }

// Digits of four values, a word each, from the most significant on.
__device__ __forceinline__ void split(const float (&v)[4], float factor, std::uint32_t (&digits)[kDigits]) {
  constexpr std::uint32_t kHalves = 0x80808080;  // from digits between 0 and 255 to those between -128 and 127
  std::uint32_t n[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) n[i] = (static_cast<std::uint32_t>(__float2int_rn(v[i] * factor)) + kHalves) ^ kHalves;
  const std::uint32_t low01 = __byte_perm(n[0], n[1], 0x5140), low23 = __byte_perm(n[2], n[3], 0x5140);
  const std::uint32_t high01 = __byte_perm(n[0], n[1], 0x7362), high23 = __byte_perm(n[2], n[3], 0x7362);
  digits[0] = __byte_perm(high01, high23, 0x7632);
  digits[1] = __byte_perm(high01, high23, 0x5410);
  digits[2] = __byte_perm(low01, low23, 0x7632);
  digits[3] = __byte_perm(low01, low23, 0x5410);
}

// Sixteen of a token's values, from k on.
template <class X>
struct Sixteen {
  static constexpr int kCount = 16;
  std::uint32_t words[8];

  __device__ __forceinline__ Sixteen(const DecodeArguments& a, int token, int k) {
    const std::uint8_t* from = static_cast<const std::uint8_t*>(a.x) + token * a.x_stride + k * 2;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      uint4 v = {0, 0, 0, 0};
      if (token < a.M && k + i * 8 < a.K) v = *reinterpret_cast<const uint4*>(from + i * 16);
      words[4 * i] = v.x, words[4 * i + 1] = v.y, words[4 * i + 2] = v.z, words[4 * i + 3] = v.w;
    }
  }

  // The bits of the warp's largest magnitude: more than those of any number, where there is a NaN or Inf.
  __device__ __forceinline__ unsigned largest() const {
    using Two = std::conditional_t<std::is_same_v<X, __half>, __half2, __nv_bfloat162>;
    Two v[8];
#pragma unroll
    for (int i = 0; i < 8; ++i) v[i] = __habs2(*reinterpret_cast<const Two*>(&words[i]));
#pragma unroll
    for (int n = 4; n > 0; n /= 2) {
#pragma unroll
      for (int i = 0; i < n; ++i) v[i] = __hmax2_nan(v[i], v[i + n]);
    }
    const auto bits = *reinterpret_cast<const std::uint32_t*>(&v[0]);
    return __reduce_max_sync(~0u, max(bits & 0xffff, bits >> 16));
  }

  // Sixteen bytes of each digit, of eight values those of even and of odd places apart, as they meet the weights.
  __device__ __forceinline__ void split(float factor, std::uint32_t (&digits)[4][kDigits]) const {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      float v[4];
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const std::uint32_t word = words[i / 2 * 4 + j];
        v[j] = cuda::Element<X>::value(i % 2 == 0 ? word & 0xffff : word >> 16);
      }
      decode::split(v, factor, digits[i]);
    }
  }
};

// x to shared memory as digits, and of each block what 1 of its first digit is, its scale, by all warps that multiply, a
// block of a token at a time. Where a value is not finite, that is NaN. Calls `meanwhile` when the first of x have been
// asked for.
template <class Kind, class Meanwhile>
__device__ __forceinline__ void split_x(const DecodeArguments& a, std::uint8_t* to, float* scales,
                                        const Meanwhile& meanwhile) {
  using Source = typename Kind::Source;
  using Values = Sixteen<Source>;
  static_assert(Kind::kBlockK == 32 * Values::kCount && Kind::kTogether == 4);
  const int warp = static_cast<int>(threadIdx.x / 32), lane = static_cast<int>(threadIdx.x % 32), all = a.M * a.blocks;
  const int pair = lane / 8 * 2 + lane % 2, thread = lane % 8 / 2;  // of a row, which multiplies them
  const auto token_of = [&](int at) { return a.M == 1 ? 0 : a.by_blocks.divide(at); };
  const auto values_of = [&](int at) {
    const int token = token_of(at);
    return Values(a, token, (at - token * a.blocks) * Kind::kBlockK + lane * Values::kCount);
  };
  Values next = values_of(warp);
  meanwhile();
  for (int at = warp; at < all; at += Kind::kWarps) {
    const Values values = next;
    next = values_of(at + Kind::kWarps);
    // 2^(exponent - 127) <= the largest < 2^(exponent - 126), or all are smaller than what still has a factor that is
    // finite.
    constexpr unsigned kSmallest = 40;
    const unsigned largest = values.largest();
    const unsigned exponent = max(__float_as_uint(cuda::Element<Source>::value(largest)) >> 23, kSmallest);
    const float factor = __uint_as_float((127 + 126 + 30 - exponent) << 23);
    // 1 of digit 0 is 2^24 times as much as 1 of n, and products are 16 times as large.
    const float scale = __uint_as_float((exponent + 24 - 4 - 30 + 1) << 23);
    if (lane == 0) scales[at] = largest < cuda::Element<Source>::kInfinity ? scale : __uint_as_float(cuda::kNaN);
    std::uint32_t digits[4][kDigits];
    values.split(factor, digits);
    const int token = token_of(at), block = at - token * a.blocks;
    std::uint8_t* place = to + token * Kind::x_pitch(a.blocks) + block * (Kind::kSlabs * Kind::kSlabBytes) +
                          pair * (2 * Kind::kSlabBytes) + thread * 16;
#pragma unroll
    for (int i = 0; i < kDigits; ++i) {
      *reinterpret_cast<uint4*>(place + (i * kDigitBytes ^ digits_moved(pair))) = {digits[0][i], digits[1][i], digits[2][i],
                                                                                   digits[3][i]};
    }
  }
}

}  // namespace octavo::decode
