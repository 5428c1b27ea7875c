// What decode_kernel multiplies with: 16 channels and 8 tokens over a slab of K, by mma.sync. A slab is 64 bytes of a token,
// of which thread 4g + t has 16, of token g; of w it has as many elements, of two channels, from the same place along K.
// The order of K inside a product is free as long as both operands agree.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

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
