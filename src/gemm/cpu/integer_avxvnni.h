// scaled_mm and linear_w4a8 on packed weights by VPDPBUSD in 256-bit registers: AVX-VNNI, and where a processor has
// AVX-512-VNNI only, the same text for AVX-512VL, by which the tests reach it.
#pragma once

#include "gemm/arguments.h"

namespace octavo {

void cpu_s8_w8_avxvnni(const Arguments& a, Parallel& parallel);
void cpu_s8g_w4_avxvnni(const Arguments& a, Parallel& parallel);

void cpu_s8_w8_avx512vnni_ymm(const Arguments& a, Parallel& parallel);
void cpu_s8g_w4_avx512vnni_ymm(const Arguments& a, Parallel& parallel);

}  // namespace octavo
