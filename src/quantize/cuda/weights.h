// quantize() and dequantize() of weights on the GPU. Checked arguments, not empty, on the current device; errors are noted
// (core/cuda.h).
#pragma once

#include "octavo/quantize.h"

namespace octavo {

// Clip::kAbsmax, q one a byte; asymmetric weights have more than one scale.
void cuda_quantize(const MatrixView& w, DType scale_dtype, const MutableQuantizedWeight& out, Stream stream);

void cuda_dequantize(const QuantizedWeight& w, const MutableMatrixView& out, Stream stream);

}  // namespace octavo
