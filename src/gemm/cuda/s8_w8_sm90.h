// scaled_mm on Hopper: see s8_w8_sm90_kernel.cuh.
#pragma once

#include "gemm/arguments.h"

namespace octavo {

void cuda_s8_w8_sm90(const Arguments& a, Parallel& parallel);

}  // namespace octavo
