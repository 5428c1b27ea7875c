// What every CUDA kernel must compute, on any GPU: each thread one dot product, no tricks. Slow; for what no other row
// takes, and to compare large products with.
#pragma once

#include "gemm/arguments.h"

namespace octavo {

void cuda_s8_w8_reference(const Arguments& a, Parallel& parallel);

// Weight-only products, in fp64 in ascending order of k: the bits of reference::linear().
void cuda_float_w8_reference(const Arguments& a, Parallel& parallel);
void cuda_float_w4_reference(const Arguments& a, Parallel& parallel);

}  // namespace octavo
