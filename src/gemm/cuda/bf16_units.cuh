// Exact bf16 of small integers, two in one instruction: u below 256 is u · 2^-133 in bf16 as it is, since subnormal numbers
// and the smallest normal ones lie equally far apart. A fused multiply-add takes away the zero point, and makes of it what
// may be multiplied: numbers in units of 2^-32. u - z has at most eight bits, so nothing is rounded. (Behind the exponent of
// 128 there is room for seven bits only.)
#pragma once

#include <cstdint>

namespace octavo::cuda {

inline constexpr float kBf16Unit = 1.0f / (std::uint64_t{1} << 32);

// What makes units of a register's two integers: 2^101 each; 2^97 of one that stands four bits further up.
inline constexpr std::uint32_t kBf16Factors = 0x72007200;
inline constexpr std::uint32_t kBf16FactorsOfUpperNibbles = 0x70007000;

__device__ __forceinline__ std::uint32_t bf16_units(std::uint32_t integers, std::uint32_t factors, std::uint32_t offset) {
  std::uint32_t units;
  asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(units) : "r"(integers), "r"(factors), "r"(offset));
  return units;
}
// The offset of a zero point below 256, twice.
__device__ __forceinline__ std::uint32_t bf16_offset(std::uint32_t zero_point) {
  return bf16_units(zero_point * 0x10001u, 0xf200f200u, 0x80008000u);  // times -2^101
}

}  // namespace octavo::cuda
