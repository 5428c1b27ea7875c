// For a build without CUDA, in which cuda::ready() has failed before any of these could be called.
#include "quantize/cuda/activations.h"
#include "quantize/cuda/weights.h"

namespace octavo {

void cuda_quantize_per_token(const MatrixView& /*x*/, std::int64_t /*group_size*/, const MutableMatrixView& /*q*/,
                             const MutableMatrixView& /*scale*/, Stream /*stream*/) {}

void cuda_quantize(const MatrixView& /*w*/, DType /*scale_dtype*/, const MutableQuantizedWeight& /*out*/,
                   Stream /*stream*/) {}

void cuda_dequantize(const QuantizedWeight& /*w*/, const MutableMatrixView& /*out*/, Stream /*stream*/) {}

}  // namespace octavo
