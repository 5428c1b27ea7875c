// What decode_kernel multiplies with: 16 channels and 8 tokens over a slab of K, by mma.sync. A slab is 64 bytes of a token,
// of which thread 4g + t has 16, of token g; of w it has as many elements, of two channels, from the same place along K.
// The order of K inside a product is free as long as both operands agree.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

#include "gemm/cuda/decode_kind.cuh"
#include "gemm/cuda/mma.cuh"
#include "gemm/cuda/widen.cuh"

namespace octavo::decode {

using cuda::multiply;
using cuda::ordered;
using cuda::Weights;

// d += a · b, a 16 channels (rows g: a0, a2; g + 8: a1, a3), b 8 tokens.
__device__ __forceinline__ void multiply(std::int8_t /*x*/, std::int32_t (&d)[4], std::uint32_t a0, std::uint32_t a1,
                                         std::uint32_t a2, std::uint32_t a3, std::uint32_t b0, std::uint32_t b1) {
  asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

// The same of unsigned a.
__device__ __forceinline__ void multiply(std::uint8_t /*a*/, std::int32_t (&d)[4], std::uint32_t a0, std::uint32_t a1,
                                         std::uint32_t a2, std::uint32_t a3, std::uint32_t b0, std::uint32_t b1) {
  asm("mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

// The first `bytes` of 16, zeros behind them.
__device__ __forceinline__ uint4 part_of(const std::uint8_t* from, int bytes) {
  std::uint32_t words[4] = {};
#pragma unroll
  for (int i = 0; i < 16; ++i) {
    if (i < bytes) words[i / 4] |= static_cast<std::uint32_t>(from[i]) << (i % 4 * 8);
  }
  return {words[0], words[1], words[2], words[3]};
}

// A slab: kBits / 4 words of each of two channels (four of int8 x), times the tokens' 16 bytes. Two sets of sums take turns,
// so that a product need not wait for the one before.
template <class X, int kBits>
struct Product {
  using Sum = float;
  static constexpr float kUnit = Weights<X, kBits>::kUnit;  // of sums
  Weights<X, kBits> low, high;                              // of channels g and g + 8

  template <int kTokenTiles>
  __device__ void slab(float (&d)[kTokenTiles][2][4], const std::uint32_t* q_low, const std::uint32_t* q_high,
                       const uint4 (&x)[kTokenTiles]) const {
    std::uint32_t a[4], b[4];
    if constexpr (kBits == 8) {
      low.widen(q_low[0], a);
      low.widen(q_low[1], a + 2);
      high.widen(q_high[0], b);
      high.widen(q_high[1], b + 2);
    } else {
      low.widen(q_low[0], a);
      high.widen(q_high[0], b);
    }
#pragma unroll
    for (int j = 0; j < kTokenTiles; ++j) {
      multiply(X(), d[j][0], a[0], b[0], a[1], b[1], x[j].x, x[j].y);
      multiply(X(), d[j][1], a[2], b[2], a[3], b[3], x[j].z, x[j].w);
    }
  }
};

// 1.5 · 2^23: with an integer of up to 2^22 added to its bits, it is so much more.
inline constexpr float kMagic = 12582912;
inline constexpr std::int32_t kMagicBits = 0x4b400000;

// A slab of int4 times digits, 16 times as much: a nibble stays where it is in its byte's upper half, or is moved there.
// Eight nibbles e0 … e7 are two words, (e0, e2, e4, e6) and (e1, e3, e5, e7). Of 128 along K, a sum of int4 is at most 2^21.
template <>
struct Product<Digit, 4> {
  using Sum = float;
  static constexpr float kUnit = 1;  // the 16 is in the digits' units

  // A zero point four times, which is multiplied as weights are: products are a sixteenth of theirs.
  __device__ __forceinline__ static std::uint32_t prepared(std::uint32_t z) { return z * 0x01010101u; }

  // Without zero points nibbles are int4 plus 8, which flipping the upper bit takes away. `flip`: 0x80808080, in a register.
  template <bool kZeros>
  __device__ __forceinline__ static void slab(std::int32_t (&d)[4], std::uint32_t low, std::uint32_t high, std::uint32_t x0,
                                              std::uint32_t x1, std::uint32_t flip) {
    using A = std::conditional_t<kZeros, std::uint8_t, std::int8_t>;
    const auto upper = [flip](std::uint32_t q) {
      if (kZeros) return q & 0xf0f0f0f0u;
      std::uint32_t w;
      asm("lop3.b32 %0, %1, 0xf0f0f0f0, %2, 0x6a;" : "=r"(w) : "r"(q), "r"(flip));  // (q & 0xf0f0f0f0) ^ flip, in one
      return w;
    };
    multiply(A(), d, upper(low << 4), upper(high << 4), upper(low), upper(high), x0, x1);
  }
};

template <>
struct Product<std::int8_t, 8> {
  using Sum = std::int32_t;
  static constexpr float kUnit = 1;

  template <int kTokenTiles>
  __device__ void slab(std::int32_t (&d)[kTokenTiles][2][4], const std::uint32_t* low, const std::uint32_t* high,
                       const uint4 (&x)[kTokenTiles]) const {
#pragma unroll
    for (int j = 0; j < kTokenTiles; ++j) {
      multiply(std::int8_t(), d[j][0], low[0], high[0], low[1], high[1], x[j].x, x[j].y);
      multiply(std::int8_t(), d[j][1], low[2], high[2], low[3], high[3], x[j].z, x[j].w);
    }
  }
};

}  // namespace octavo::decode
