// linear_w4a8 on packed weights by VPDPBUSD on raw nibbles, 64 channels a step.
#pragma once

#include "gemm/arguments.h"

namespace octavo {

void cpu_s8g_w4_avx512vnni(const Arguments& a, Parallel& parallel);

}  // namespace octavo
