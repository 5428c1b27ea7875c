// What decode_kernel multiplies with: 16 channels and 8 tokens over a slab of K, by mma.sync. A slab is 64 bytes of a token,
// of which thread 4g + t has 16, of token g; of w it has as many elements, of two channels, from the same place along K.
// The order of K inside a product is free as long as both operands agree.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

namespace octavo::decode {

// d += a · b, a 16 channels (rows g: a0, a2; g + 8: a1, a3), b 8 tokens.
__device__ __forceinline__ void multiply(std::int8_t /*x*/, std::int32_t (&d)[4], std::uint32_t a0, std::uint32_t a1,
                                         std::uint32_t a2, std::uint32_t a3, std::uint32_t b0, std::uint32_t b1) {
  asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}
__device__ __forceinline__ void multiply(__half /*x*/, float (&d)[4], std::uint32_t a0, std::uint32_t a1, std::uint32_t a2,
                                         std::uint32_t a3, std::uint32_t b0, std::uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}
__device__ __forceinline__ void multiply(__nv_bfloat16 /*x*/, float (&d)[4], std::uint32_t a0, std::uint32_t a1,
                                         std::uint32_t a2, std::uint32_t a3, std::uint32_t b0, std::uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

__device__ __forceinline__ std::uint32_t subtract(__half /*x*/, std::uint32_t a, std::uint32_t b) {
  asm("sub.rn.f16x2 %0, %0, %1;" : "+r"(a) : "r"(b));
  return a;
}
__device__ __forceinline__ std::uint32_t subtract(__nv_bfloat16 /*x*/, std::uint32_t a, std::uint32_t b) {
  asm("sub.rn.bf16x2 %0, %0, %1;" : "+r"(a) : "r"(b));
  return a;
}

// (a & b) | c
__device__ __forceinline__ std::uint32_t and_or(std::uint32_t a, std::uint32_t b, std::uint32_t c) {
  asm("lop3.b32 %0, %0, %1, %2, 0xea;" : "+r"(a) : "r"(b), "r"(c));
  return a;
}

// A channel's weights as pairs of X, and its zero point in the form that subtracts fastest. Every value is exact: integers
// up to 2048 are in float16, up to 256 in bfloat16. (Subnormal float16, which would save the addition of 1024, is not: a
// tensor core aligns products by the exponents of their factors, and loses what is below.)
template <class X, int kBits>
struct Weights;

// int8, or uint8 with its zero point: bytes q and q ^ 0x80 are the same number apart from 128.
template <>
struct Weights<__half, 8> {
  std::uint32_t flip = 0x80808080u;  // of int8; 0 of uint8
  std::uint32_t bias = 0x64806480u;  // 1024 + the zero point of the flipped byte, twice: 128, of int8
  __device__ void set_zero_point(std::uint32_t z) {
    flip = 0;
    bias = (0x6400u | z) * 0x10001u;
  }
  __device__ void widen(std::uint32_t q, std::uint32_t* w) const {
    q ^= flip;
    w[0] = subtract(__half(), __byte_perm(q, 0x64646464u, 0x4140), bias);  // 1024 + q
    w[1] = subtract(__half(), __byte_perm(q, 0x64646464u, 0x4342), bias);
  }
};
template <>
struct Weights<__nv_bfloat16, 8> {
  std::uint32_t flip = 0;  // of int8; 0x80 a byte of uint8
  std::uint32_t bias = 0;  // the zero point less 128 of uint8, twice
  bool zeros = false;
  __device__ void set_zero_point(std::uint32_t z) {
    zeros = true;
    flip = 0x80808080u;
    const __nv_bfloat16 value = __int2bfloat16_rn(static_cast<int>(z) - 128);
    bias = __bfloat16_as_ushort(value) * 0x10001u;
  }
  // The low seven bits of q in those of 128, minus 128 or, where q is negative, 256.
  __device__ std::uint32_t widened(std::uint32_t bytes) const {
    const std::uint32_t value =
        subtract(__nv_bfloat16(), and_or(bytes, 0x007f007fu, 0x43004300u), and_or(bytes, 0x00800080u, 0x43004300u));
    return zeros ? subtract(__nv_bfloat16(), value, bias) : value;
  }
  __device__ void widen(std::uint32_t q, std::uint32_t* w) const {
    q ^= flip;
    w[0] = widened(__byte_perm(q, 0, 0x4140));
    w[1] = widened(__byte_perm(q, 0, 0x4342));
  }
};

// Sixteen bytes of x in the order in which they meet the weights: of 16-bit x, nibbles are paired as below.
template <int kBits>
__device__ __forceinline__ uint4 ordered(const uint4& v) {
  if constexpr (kBits == 8) return v;
  return {__byte_perm(v.x, v.z, 0x5410), __byte_perm(v.x, v.z, 0x7632), __byte_perm(v.y, v.w, 0x5410),
          __byte_perm(v.y, v.w, 0x7632)};
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

// Eight nibbles e0 … e7 as the pairs (e0, e4), (e1, e5), (e2, e6), (e3, e7). The zero point of int4 is 8.
template <>
struct Weights<__half, 4> {
  std::uint32_t bias = 0x64086408u;    // 1024 + z
  std::uint32_t bias16 = 0xd480d480u;  // -(64 + z)
  __device__ void set_zero_point(std::uint32_t z) {
    bias = (0x6400u | z) * 0x10001u;
    bias16 = (0xd400u | z << 4) * 0x10001u;
  }
  __device__ void widen(std::uint32_t q, std::uint32_t* w) const {
    const std::uint32_t high = q >> 8;
    w[0] = subtract(__half(), and_or(q, 0x000f000fu, 0x64006400u), bias);
    w[1] = sixteenth(and_or(q, 0x00f000f0u, 0x64006400u));
    w[2] = subtract(__half(), and_or(high, 0x000f000fu, 0x64006400u), bias);
    w[3] = sixteenth(and_or(high, 0x00f000f0u, 0x64006400u));
  }
  // (1024 + 16 e) / 16 - (64 + z)
  __device__ std::uint32_t sixteenth(std::uint32_t v) const {
    asm("fma.rn.f16x2 %0, %0, %1, %2;" : "+r"(v) : "r"(0x2c002c00u), "r"(bias16));
    return v;
  }
};
template <>
struct Weights<__nv_bfloat16, 4> {
  std::uint32_t bias = 0x43084308u;  // 128 + z
  __device__ void set_zero_point(std::uint32_t z) { bias = (0x4300u | z) * 0x10001u; }
  __device__ void widen(std::uint32_t q, std::uint32_t* w) const {
#pragma unroll
    for (int i = 0; i < 4; ++i) w[i] = subtract(__nv_bfloat16(), and_or(q >> (4 * i), 0x000f000fu, 0x43004300u), bias);
  }
};

// A slab: kBits / 4 words of each of two channels (four of int8 x), times the tokens' 16 bytes. Two sets of sums take turns,
// so that a product need not wait for the one before.
template <class X, int kBits>
struct Product {
  using Sum = float;
  Weights<X, kBits> low, high;  // of channels g and g + 8

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
