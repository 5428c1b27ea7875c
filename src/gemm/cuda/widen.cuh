// From quantized weights as they are stored to pairs of float16 or bfloat16 in registers, exactly.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

#include "gemm/cuda/bf16_units.cuh"

namespace octavo::cuda {

__device__ __forceinline__ std::uint32_t subtract(std::uint32_t a, std::uint32_t b) {
  asm("sub.rn.f16x2 %0, %0, %1;" : "+r"(a) : "r"(b));
  return a;
}

// (a & b) | c
__device__ __forceinline__ std::uint32_t and_or(std::uint32_t a, std::uint32_t b, std::uint32_t c) {
  std::uint32_t d;  // not a, which is wanted again: it would be copied
  asm("lop3.b32 %0, %1, %2, %3, 0xea;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
  return d;
}

// A channel's weights as pairs of X, in units of kUnit, and its zero point in the form that subtracts fastest, of which
// prepared() makes the part that takes longest. Every value is exact: integers up to 2048 are in float16, and for bfloat16
// see bf16_units.cuh. (Subnormal float16 itself, which would save the addition of 1024, is no operand: a tensor core aligns
// products by the exponents of their factors, and loses what is below.)
template <class X, int kBits>
struct Weights;

// int8, or uint8 with its zero point: bytes q and q ^ 0x80 are the same number apart from 128.
template <>
struct Weights<__half, 8> {
  static constexpr float kUnit = 1;
  std::uint32_t flip = 0x80808080u;  // of int8; 0 of uint8
  std::uint32_t bias = 0x64806480u;  // 1024 + the zero point of the flipped byte, twice: 128, of int8
  __device__ static std::uint32_t prepared(std::uint32_t z) { return (0x6400u | z) * 0x10001u; }
  __device__ void set(std::uint32_t prepared) {
    flip = 0;
    bias = prepared;
  }
  __device__ void widen(std::uint32_t q, std::uint32_t* w) const {
    q ^= flip;
    w[0] = subtract(__byte_perm(q, 0x64646464u, 0x4140), bias);  // 1024 + q
    w[1] = subtract(__byte_perm(q, 0x64646464u, 0x4342), bias);
  }
};
template <>
struct Weights<__nv_bfloat16, 8> {
  static constexpr float kUnit = kBf16Unit;
  std::uint32_t flip = 0x80808080u;    // as above
  std::uint32_t offset = 0xb300b300u;  // of 128
  __device__ static std::uint32_t prepared(std::uint32_t z) { return bf16_offset(z); }
  __device__ void set(std::uint32_t prepared) {
    flip = 0;
    offset = prepared;
  }
  __device__ void widen(std::uint32_t q, std::uint32_t* w) const {
    q ^= flip;
    w[0] = bf16_units(__byte_perm(q, 0, 0x4140), kBf16Factors, offset);
    w[1] = bf16_units(__byte_perm(q, 0, 0x4342), kBf16Factors, offset);
  }
};

// Eight nibbles e0 … e7 as the pairs (e0, e4), (e1, e5), (e2, e6), (e3, e7). The zero point of int4 is 8.
template <>
struct Weights<__half, 4> {
  static constexpr float kUnit = 1;
  std::uint32_t bias = 0x64086408u;    // 1024 + z
  std::uint32_t bias16 = 0xd480d480u;  // -(64 + z)
  __device__ static std::uint32_t prepared(std::uint32_t z) { return (0x6400u | z) * 0x10001u; }
  __device__ void set(std::uint32_t prepared) {
    bias = prepared;
    bias16 = and_or(prepared << 4, 0x03f003f0u, 0xd400d400u);
  }
  __device__ void widen(std::uint32_t q, std::uint32_t* w) const {
    const std::uint32_t high = q >> 8;
    w[0] = subtract(and_or(q, 0x000f000fu, 0x64006400u), bias);
    w[1] = sixteenth(and_or(q, 0x00f000f0u, 0x64006400u));
    w[2] = subtract(and_or(high, 0x000f000fu, 0x64006400u), bias);
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
  static constexpr float kUnit = kBf16Unit;
  std::uint32_t offset = 0xb100b100u;  // of 8
  __device__ static std::uint32_t prepared(std::uint32_t z) { return bf16_offset(z); }
  __device__ void set(std::uint32_t prepared) { offset = prepared; }
  __device__ void widen(std::uint32_t q, std::uint32_t* w) const {
    const std::uint32_t high = q >> 8;
    w[0] = bf16_units(q & 0x000f000fu, kBf16Factors, offset);
    w[1] = bf16_units(q & 0x00f000f0u, kBf16FactorsOfUpperNibbles, offset);
    w[2] = bf16_units(high & 0x000f000fu, kBf16Factors, offset);
    w[3] = bf16_units(high & 0x00f000f0u, kBf16FactorsOfUpperNibbles, offset);
  }
};

// Sixteen bytes of x in the order in which they meet the weights: of 16-bit x, nibbles are paired as below.
template <int kBits>
__device__ __forceinline__ uint4 ordered(const uint4& v) {
  if constexpr (kBits == 8) return v;
  return {__byte_perm(v.x, v.z, 0x5410), __byte_perm(v.x, v.z, 0x7632), __byte_perm(v.y, v.w, 0x5410),
          __byte_perm(v.y, v.w, 0x7632)};
}

}  // namespace octavo::cuda
