// Weight-only products by way of torch: dequantize a block of rows of W, multiply in float32. For what only the reference
// kernel would compute, and too much of it.
#pragma once

#include "torch/tensors.h"

namespace octavo::torch_ops {

inline constexpr const char* kDequantizeMatmul = "cpu_dequantize_matmul";

// Whether a product of M x N x K is too large for a kernel: the reference ones are for small products only.
bool too_large_for(std::string_view kernel, int64_t M, int64_t N, int64_t K);

// y [M, N] = x [M, K] · Wᵀ (+ bias).
void dequantize_matmul(const Tensor& x, const QuantizedWeight& w, const MatrixView& bias, const MutableMatrixView& y);

}  // namespace octavo::torch_ops
