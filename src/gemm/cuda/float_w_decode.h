// W8A16 and W4A16 for few tokens on compute capability 9.0 and more: see decode.cuh.
#pragma once

#include <cstdint>

#include "gemm/arguments.h"

namespace octavo {

// Take float16 or bfloat16 x and row-major weights, int8 or uint8 / int4 or uint4, per tensor, per channel or in groups of a
// multiple of 32, x and w (and their rows) aligned to 16 bytes, N up to 2^24, and those M and K for which this holds: M from
// 1 to 16, and all of x in shared memory (K up to about 22500 / 11200 / 5100 for M = 4 / 8 / 16; in
// groups of 32 with 4 bits 20900 / 10200 / 4600, with zero points 18900 / 9200 / 4000).
bool float_w8_decode_fits(std::int64_t M, std::int64_t K, const WeightFormat& format);
bool float_w4_decode_fits(std::int64_t M, std::int64_t K, const WeightFormat& format);
void cuda_float_w8_decode(const Arguments& a, Parallel& parallel);
void cuda_float_w4_decode(const Arguments& a, Parallel& parallel);

}  // namespace octavo
