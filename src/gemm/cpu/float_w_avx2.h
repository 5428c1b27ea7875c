// Weight-only products on packed weights with AVX2, FMA and F16C: x of any type as float32.
#pragma once

#include "gemm/arguments.h"

namespace octavo {

// Weights of 5 to 8 bits, and of up to 4.
void cpu_float_w8_avx2(const Arguments& a, Parallel& parallel);
void cpu_float_w4_avx2(const Arguments& a, Parallel& parallel);

}  // namespace octavo
