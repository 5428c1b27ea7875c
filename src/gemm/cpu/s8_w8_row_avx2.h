// W8A8 on AVX2, straight from row-major matrices.
#pragma once

#include "gemm/arguments.h"

namespace octavo {

void cpu_s8_w8_row_avx2(const Arguments& a, Parallel& parallel);

}  // namespace octavo
