// For a build without CUDA, in which cuda::ready() has failed before any of these could be called.
#include "quantize/cuda/activations.h"
#include "quantize/cuda/fused.h"
#include "quantize/cuda/weights.h"

namespace octavo {

void cuda_quantize_per_token(const MatrixView& /*x*/, std::int64_t /*group_size*/, const MutableMatrixView& /*q*/,
                             const MutableMatrixView& /*scale*/, Stream /*stream*/, ReadBy /*read_by*/) {}

void cuda_quantize_static(const MatrixView& /*x*/, const MatrixView& /*scale*/, const MutableMatrixView& /*q*/,
                          Stream /*stream*/, ReadBy /*read_by*/) {}

void cuda_rms_norm_quantize(const MatrixView& /*x*/, const MatrixView& /*residual*/, const MatrixView& /*weight*/,
                            float /*eps*/, const MutableMatrixView& /*sum*/, const MutableMatrixView& /*q*/,
                            const MutableMatrixView& /*scale*/, Stream /*stream*/) {}

void cuda_silu_mul_quantize(const MatrixView& /*gate*/, const MatrixView& /*up*/, const MutableMatrixView& /*q*/,
                            const MutableMatrixView& /*scale*/, Stream /*stream*/) {}

void cuda_rms_norm(const MatrixView& /*x*/, const MatrixView& /*residual*/, const MatrixView& /*weight*/, float /*eps*/,
                   const MutableMatrixView& /*sum*/, const MutableMatrixView& /*y*/, Stream /*stream*/) {}

void cuda_silu_mul(const MatrixView& /*gate*/, const MatrixView& /*up*/, const MutableMatrixView& /*y*/, Stream /*stream*/) {
}

void cuda_quantize(const MatrixView& /*w*/, DType /*scale_dtype*/, const MutableQuantizedWeight& /*out*/,
                   Stream /*stream*/) {}

void cuda_dequantize(const QuantizedWeight& /*w*/, const MutableMatrixView& /*out*/, Stream /*stream*/) {}

}  // namespace octavo
