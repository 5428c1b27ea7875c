// The end of a product that another library computed in float32.
#pragma once

#include "octavo/tensor.h"

namespace octavo {

// y [M, N] = sums [M, N] float32 + bias [1, N] (or empty), rounded to y's type; on the current device, errors are noted.
void cuda_store(const MatrixView& sums, const MatrixView& bias, const MutableMatrixView& y, Stream stream);

}  // namespace octavo
