// scaled_mm on packed weights by VPDPBUSD, 64 channels a step.
#pragma once

#include "gemm/arguments.h"

namespace octavo {

void cpu_s8_w8_avx512vnni(const Arguments& a, Parallel& parallel);

}  // namespace octavo
