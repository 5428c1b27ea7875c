// linear_llm_int8 on packed weights: the integer product by the fastest scaled_mm of this machine, then the outliers.
#pragma once

#include "gemm/arguments.h"

namespace octavo {

void cpu_llmint8_w8_packed(const Arguments& a, Parallel& parallel);

}  // namespace octavo
