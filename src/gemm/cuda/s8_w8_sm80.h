// W8A8 by mma.sync: Ampere, Ada, Hopper and Blackwell, row-major matrices of any shape, stride and alignment.
#pragma once

#include "gemm/arguments.h"

namespace octavo {

void cuda_s8_w8_sm80(const Arguments& a, Parallel& parallel);

}  // namespace octavo
