// quantize_per_token() and quantize_static() on the GPU.
#pragma once

#include "octavo/quantize.h"

namespace octavo {

// Checked arguments, not empty, on the current device; errors are noted (core/cuda.h).
void cuda_quantize_per_token(const MatrixView& x, std::int64_t group_size, const MutableMatrixView& q,
                             const MutableMatrixView& scale, Stream stream);
void cuda_quantize_static(const MatrixView& x, const MatrixView& scale, const MutableMatrixView& q, Stream stream);

}  // namespace octavo
