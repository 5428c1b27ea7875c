// Op::kLinear from compute capability 8.0 on for fp16 and bf16 x: see float_w_sm80_kernel.cuh.
#pragma once

#include <cstdint>

#include "gemm/arguments.h"

namespace octavo {

// Weights one a byte, and two a byte; any stride and alignment, any M, and N and K up to kFloatWSm80MaxSide, of which K is
// above 0. Groups, where there are any, have multiples of kFloatWSm80GroupMultiple weights.
inline constexpr std::int64_t kFloatWSm80GroupMultiple = 32;
inline constexpr std::int64_t kFloatWSm80MaxSide = std::int64_t{1} << 28;
void cuda_float_w8_sm80(const Arguments& a, Parallel& parallel);
void cuda_float_w4_sm80(const Arguments& a, Parallel& parallel);

}  // namespace octavo
