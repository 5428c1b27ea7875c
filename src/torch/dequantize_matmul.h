// Weight-only products by way of torch: dequantize a block of rows of W, multiply in float32. For machines that no fast
// kernel runs on, where too much would be left to the reference.
#pragma once

#include <string_view>

#include "torch/tensors.h"

namespace octavo::torch_ops {

inline constexpr std::string_view kDequantizeMatmul = "cpu_dequantize_matmul";

// Whether a weight-only product is too large for a kernel: the reference ones are for small products only.
bool too_large_for(std::string_view kernel, const Problem& problem);

// y [M, N] = x [M, K] · Wᵀ (+ bias).
void dequantize_matmul(const Tensor& x, const QuantizedWeight& w, const MatrixView& bias, const MutableMatrixView& y);

}  // namespace octavo::torch_ops
