// Weight-only products on AVX2, FMA and F16C, straight from the canonical row-major weights.
#pragma once

#include <string>

#include "gemm/arguments.h"

namespace octavo {

// Weights one a byte, and two a byte.
void cpu_float_w8_row_avx2(const Arguments& a, Parallel& parallel);
void cpu_float_w4_row_avx2(const Arguments& a, Parallel& parallel);

// Above this many rows of x, dequantizing once for a large matrix product costs less than dequantizing in each tile.
inline constexpr std::int64_t kFloatRowAvx2MaxRows = 32;

}  // namespace octavo
