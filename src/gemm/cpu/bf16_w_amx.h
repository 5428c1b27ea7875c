// Weight-only products of many rows of bf16 x on packed weights with AMX-BF16.
#pragma once

#include "gemm/arguments.h"

namespace octavo {

// Weights of 5 to 8 bits, and of up to 4.
void cpu_bf16_w8_amx(const Arguments& a, Parallel& parallel);
void cpu_bf16_w4_amx(const Arguments& a, Parallel& parallel);

}  // namespace octavo
