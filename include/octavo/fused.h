// What stands in front of a quantized product in a transformer. y, which is computed in float32, goes
// - to a product with quantized activations (…_quantize): quantized per token in the same pass, scale = max |y| / 127,
//   q = rint(y / scale), and never rounded to 16 bits;
// - to a weight-only product: rounded to x's type. On CUDA such a kernel lets the product behind it start early and ask for
//   its weights (programmatic dependent launch), which another's in its place would not.
// The results are the same bits on the CPU and on every GPU; docs/numerics.md says in which order everything is computed.
//
// Everywhere: x [M, K] and what is like it, y and sum too, are float32, float16 or bfloat16, all of one type; q [M, K] int8,
// scale [M, 1] float32. A row whose y has a NaN or Inf gets scale NaN and q = 0. The functions that take a Stream run on the
// CUDA device that all their operands are on; see gemm.h for what that means.
#pragma once

#include "octavo/parallel.h"
#include "octavo/status.h"
#include "octavo/tensor.h"

namespace octavo {

// y = x / sqrt(mean(x²) + eps) · weight, the mean over each row: RMSNorm (Zhang and Sennrich, 2019). weight [1, K] of x's
// type; eps finite and at least 0.
Status rms_norm_quantize(const MatrixView& x, const MatrixView& weight, float eps, const MutableMatrixView& q,
                         const MutableMatrixView& scale, Parallel& parallel = serial());
Status rms_norm_quantize(const MatrixView& x, const MatrixView& weight, float eps, const MutableMatrixView& q,
                         const MutableMatrixView& scale, Stream stream);
Status rms_norm(const MatrixView& x, const MatrixView& weight, float eps, const MutableMatrixView& y,
                Parallel& parallel = serial());
Status rms_norm(const MatrixView& x, const MatrixView& weight, float eps, const MutableMatrixView& y, Stream stream);

// The same of sum [M, K] = x + residual, rounded to x's type. sum may be the very memory of residual or of x.
Status add_rms_norm_quantize(const MatrixView& x, const MatrixView& residual, const MatrixView& weight, float eps,
                             const MutableMatrixView& sum, const MutableMatrixView& q, const MutableMatrixView& scale,
                             Parallel& parallel = serial());
Status add_rms_norm_quantize(const MatrixView& x, const MatrixView& residual, const MatrixView& weight, float eps,
                             const MutableMatrixView& sum, const MutableMatrixView& q, const MutableMatrixView& scale,
                             Stream stream);
Status add_rms_norm(const MatrixView& x, const MatrixView& residual, const MatrixView& weight, float eps,
                    const MutableMatrixView& sum, const MutableMatrixView& y, Parallel& parallel = serial());
Status add_rms_norm(const MatrixView& x, const MatrixView& residual, const MatrixView& weight, float eps,
                    const MutableMatrixView& sum, const MutableMatrixView& y, Stream stream);

// y = silu(gate) · up, silu(g) = g / (1 + exp(-g)). gate and up [M, K] may be the halves of the
// rows of one matrix [M, 2K].
Status silu_mul_quantize(const MatrixView& gate, const MatrixView& up, const MutableMatrixView& q,
                         const MutableMatrixView& scale, Parallel& parallel = serial());
Status silu_mul_quantize(const MatrixView& gate, const MatrixView& up, const MutableMatrixView& q,
                         const MutableMatrixView& scale, Stream stream);
Status silu_mul(const MatrixView& gate, const MatrixView& up, const MutableMatrixView& y, Parallel& parallel = serial());
Status silu_mul(const MatrixView& gate, const MatrixView& up, const MutableMatrixView& y, Stream stream);

}  // namespace octavo
