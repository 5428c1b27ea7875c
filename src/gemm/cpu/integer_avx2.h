// scaled_mm and linear_w4a8 on packed weights with AVX2: bytes widened to 16 bits and multiplied by VPMADDWD, which is exact
// (VPMADDUBSW would saturate).
#pragma once

#include "gemm/arguments.h"

namespace octavo {

void cpu_s8_w8_avx2(const Arguments& a, Parallel& parallel);
void cpu_s8g_w4_avx2(const Arguments& a, Parallel& parallel);

}  // namespace octavo
