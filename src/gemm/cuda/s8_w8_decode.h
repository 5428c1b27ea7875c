// W8A8 for few tokens on compute capability 9.0 and more: see decode.cuh.
#pragma once

#include <cstdint>

#include "gemm/arguments.h"

namespace octavo {

// Of all decode kernels: rows of x, and the shared memory that a thread block of the GPU must be able to have.
inline constexpr std::int64_t kDecodeMaxTokens = 16;
inline constexpr std::int64_t kDecodeSharedBytes = 227 * 1024;

// Takes a row-major int8 weight, per channel or per tensor, x and w (and their rows) aligned to 16 bytes, N up to 2^24, and
// those M and K for which this holds: M from 1 to 16, and all of x in shared memory (K up to 45440 / 22656 / 10240 for
// M = 4 / 8 / 16).
bool s8_w8_decode_fits(std::int64_t M, std::int64_t K);
void cuda_s8_w8_decode(const Arguments& a, Parallel& parallel);

// The same from float16 or bfloat16 x, which each CTA quantizes per token for itself, with the bits of quantize_per_token():
// where this costs less than a kernel of its own, K a multiple of 8 and M · K up to 16384.
bool w8a8_decode_fits(std::int64_t M, std::int64_t K);
void cuda_w8a8_decode(const Arguments& a, Parallel& parallel);

}  // namespace octavo
