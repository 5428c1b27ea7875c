// Op::kLinear on Hopper for fp16 and bf16 x: see float_w_sm90_kernel.cuh.
#pragma once

#include <cstdint>

#include "gemm/arguments.h"

namespace octavo {

// Weights one a byte, and two a byte. Rows of x and w begin at multiples of 16 bytes, K is above 0, and groups, where there
// are any, have multiples of kFloatWSm90GroupMultiple weights.
inline constexpr std::int64_t kFloatWSm90GroupMultiple = 32;
void cuda_float_w8_sm90(const Arguments& a, Parallel& parallel);
void cuda_float_w4_sm90(const Arguments& a, Parallel& parallel);

// The same for weights in groups alone: each is multiplied by its scale and rounded to x's type first. For any number of
// tokens, but made for so many.
inline constexpr std::int64_t kFloatWSm90RoundedTokens = 65;
void cuda_float_w8_rounded_sm90(const Arguments& a, Parallel& parallel);
void cuda_float_w4_rounded_sm90(const Arguments& a, Parallel& parallel);

}  // namespace octavo
