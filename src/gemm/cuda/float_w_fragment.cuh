// From quantized weights, row-major in shared memory as the copy engine has put them there, to the register operand of
// Hopper's products: loads and exact conversions of two values at a time.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>
#include <type_traits>

#include "gemm/cuda/bf16_units.cuh"
#include "gemm/cuda/sm90_float.cuh"

namespace octavo::sm90 {

enum class Storage : std::uint8_t {
  kInt8,
  kUInt8,
  kNibbles,  // two a byte, the low nibble first
};

// kBytes of a row hold the 16 weights of a product's K.
template <Storage kStorage>
inline constexpr int kStepBytes = kStorage == Storage::kNibbles ? 8 : 16;

// Where a thread's weights of a box of kRowBytes a row start, from the box: row r = thread / 32 · 16 + thread % 32 / 4 at
// K = thread % 4 · 2, or the row, where its four threads load it together. The engine swizzles by rows of 128, 64 or 32
// bytes, whichever is the row's length: 16-byte chunk c of row r stands at chunk c ^ swizzle(r), the same for r and r + 8.
// So the 8 rows that a warp reads at once are in 8 different places of the 128 bytes that the banks make.
template <Storage kStorage, int kRowBytes, bool kTogether>
__device__ __forceinline__ std::uint32_t first_weight(int thread) {
  const int row = thread / 32 * 16 + thread % 32 / 4;
  const int chunk = kRowBytes == 128 ? row & 7 : kRowBytes == 64 ? row >> 1 & 3 : row >> 2 & 1;
  return row * kRowBytes + (chunk << 4) + (kTogether ? 0 : thread % 4 * (kStorage == Storage::kNibbles ? 1 : 2));
}

// A thread's weights of a step as they are stored, two in each: the lowest bits, or byte thread % 4 where they are loaded
// together.
struct Raw {
  std::uint32_t pairs[4];
};

template <Storage kStorage>
__device__ __forceinline__ std::uint32_t load_pair(std::uint32_t from) {
  std::uint32_t value;
  if constexpr (kStorage == Storage::kNibbles) {
    asm volatile("ld.shared.u8 %0, [%1];" : "=r"(value) : "r"(from) : "memory");
  } else {
    std::uint16_t half;
    asm volatile("ld.shared.u16 %0, [%1];" : "=h"(half) : "r"(from) : "memory");
    value = half;
  }
  return value;
}

// A load takes one cycle of shared memory if the warp's bytes are at most 128, in different banks, whether threads want the
// same ones or not. So the four threads of a row may load its nibbles together, 8 bytes (kTogether), in half as many loads
// as a byte each would take.
template <Storage kStorage, int kRowBytes, bool kTogether>
__device__ __forceinline__ Raw load_weights(std::uint32_t first, int step) {
  constexpr int kBytes = kStepBytes<kStorage>;
  const std::uint32_t from = (first ^ (step * kBytes / 16 << 4)) + step * kBytes % 16;
  constexpr int kLower = 8 * kRowBytes;  // eight rows on
  if constexpr (kTogether) {
    static_assert(kStorage == Storage::kNibbles);
    Raw raw;
    const auto load_row = [](std::uint32_t& first_half, std::uint32_t& second_half, std::uint32_t row) {
      asm volatile("ld.shared.v2.b32 {%0, %1}, [%2];" : "=r"(first_half), "=r"(second_half) : "r"(row) : "memory");
    };
    load_row(raw.pairs[0], raw.pairs[2], from);
    load_row(raw.pairs[1], raw.pairs[3], from + kLower);
    return raw;
  } else {
    return {{load_pair<kStorage>(from), load_pair<kStorage>(from + kLower), load_pair<kStorage>(from + kBytes / 2),
             load_pair<kStorage>(from + kLower + kBytes / 2)}};
  }
}

__device__ __forceinline__ std::uint32_t bits(__half2 v) { return reinterpret_cast<const std::uint32_t&>(v); }
__device__ __forceinline__ std::uint32_t bits(__nv_bfloat162 v) { return reinterpret_cast<const std::uint32_t&>(v); }
template <class Pair>
__device__ __forceinline__ Pair as_pair(std::uint32_t v) {
  return reinterpret_cast<const Pair&>(v);
}

// Conversion of pairs, as a thread does it: stored bits are numbers as they are or behind the right exponent, and `offset`
// takes the row's zero point away. What comes out counts in units of kUnit.
template <class X, Storage kStorage, bool kTogether>
class Convert;

// 1024 + u for u below 1024 is 0x6400 | u in fp16, and 64 + u for u below 16 is 0x5400 | u << 4: biased by a power of two,
// which is subtracted together with the zero point.
template <Storage kStorage, bool kTogether>
class Convert<__half, kStorage, kTogether> {
  static constexpr bool kNibbles = kStorage == Storage::kNibbles;

 public:
  static constexpr float kUnit = 1;

  // The exponents are bytes 1 and 3 of the offset, between which a byte of nibbles goes twice.
  __device__ __forceinline__ explicit Convert(int thread) : select_(0x7050 + (kTogether ? thread % 4 * 0x0101 : 0)) {}

  // zero_point is 8 for int4 and 128 for int8.
  __device__ static std::uint32_t offset(int zero_point) {
    const auto zero = static_cast<std::uint32_t>(zero_point);
    return kNibbles ? 0x54006400 + zero * 0x00100001 : 0x64006400 + zero * 0x00010001;
  }
  // Zero points (of nibbles up to 63) reach the two lowest bits of the offset's exponents.
  __device__ std::uint32_t biased(std::uint32_t raw, std::uint32_t offset) const {
    if constexpr (kNibbles) return __byte_perm(raw, offset, select_) & 0xfcf0fc0f;
    return __byte_perm(kStorage == Storage::kInt8 ? raw ^ 0x8080 : raw, offset, 0x7150);
  }
  __device__ std::uint32_t pair(std::uint32_t raw, std::uint32_t offset) const {
    return bits(__hsub2(as_pair<__half2>(biased(raw, offset)), as_pair<__half2>(offset)));
  }

 private:
  std::uint32_t select_;
};

// A fused multiply-add makes units of what is stored (bf16_units.cuh).
template <Storage kStorage, bool kTogether>
class Convert<__nv_bfloat16, kStorage, kTogether> {
  static constexpr bool kNibbles = kStorage == Storage::kNibbles;

 public:
  static constexpr float kUnit = cuda::kBf16Unit;
  // Of integers(), whose second nibble stands where it is in its byte.
  static constexpr std::uint32_t kFactors =
      kNibbles ? (cuda::kBf16Factors & 0xffff) | (cuda::kBf16FactorsOfUpperNibbles & 0xffff0000) : cuda::kBf16Factors;

  __device__ __forceinline__ explicit Convert(int thread) : select_(0x4040 + (kTogether ? thread % 4 * 0x0101 : 0)) {}

  __device__ static std::uint32_t offset(int zero_point) {
    return cuda::bf16_offset(static_cast<std::uint32_t>(zero_point));
  }
  __device__ std::uint32_t integers(std::uint32_t raw) const {
    if constexpr (kNibbles) return __byte_perm(raw, 0, select_) & 0x00f0000f;
    return __byte_perm(kStorage == Storage::kInt8 ? raw ^ 0x8080 : raw, 0, 0x4140);
  }
  __device__ std::uint32_t pair(std::uint32_t raw, std::uint32_t offset) const {
    return cuda::bf16_units(integers(raw), kFactors, offset);
  }

 private:
  std::uint32_t select_;
};

// A thread's fragment of a step; upper and lower are the offsets of its two rows.
template <class Convert>
__device__ __forceinline__ Fragment converted(const Convert& convert, const Raw& raw, std::uint32_t upper,
                                              std::uint32_t lower) {
  return {{convert.pair(raw.pairs[0], upper), convert.pair(raw.pairs[1], lower), convert.pair(raw.pairs[2], upper),
           convert.pair(raw.pairs[3], lower)}};
}

}  // namespace octavo::sm90
