// octavo/fused.h's functions on the GPU.
#pragma once

#include "octavo/fused.h"

namespace octavo {

// Checked arguments, not empty, on the current device; errors are noted (core/cuda.h). residual and sum are both empty, or
// neither.
void cuda_rms_norm_quantize(const MatrixView& x, const MatrixView& residual, const MatrixView& weight, float eps,
                            const MutableMatrixView& sum, const MutableMatrixView& q, const MutableMatrixView& scale,
                            Stream stream);
void cuda_rms_norm(const MatrixView& x, const MatrixView& residual, const MatrixView& weight, float eps,
                   const MutableMatrixView& sum, const MutableMatrixView& y, Stream stream);
void cuda_silu_mul_quantize(const MatrixView& gate, const MatrixView& up, const MutableMatrixView& q,
                            const MutableMatrixView& scale, Stream stream);
void cuda_silu_mul(const MatrixView& gate, const MatrixView& up, const MutableMatrixView& y, Stream stream);

}  // namespace octavo
