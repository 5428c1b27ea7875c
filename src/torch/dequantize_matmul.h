// Weight-only products by way of torch. Where no fast kernel runs and too much would be left to the reference: dequantize a
// block of rows of W, multiply in float32. With many tokens (on Hopper those of weights with groups): round W to 16 bits,
// multiply those.
#pragma once

#include <string_view>

#include "gemm/arguments.h"
#include "torch/tensors.h"

namespace octavo::torch_ops {

// What select_kernel calls these products.
constexpr std::string_view dequantize_matmul_name(const Device& device) {
  return device.type == DeviceType::kCpu ? "cpu_dequantize_matmul" : "cuda_dequantize_matmul";
}

// Whether a weight-only product is too large for a kernel: the reference ones are for small products only, and Hopper's
// with groups and all of cuda_float_*_sm80 are for few tokens (but for products with a bias).
bool too_large_for(std::string_view kernel, const Problem& problem);

// Op::kLinear, whose x and y are views of the tensors (y's of as many rows and columns, in rows of any stride), by the
// table's kernel or, where it is too large for that, so; on CUDA on a.stream, which is torch's current one. Checks the
// arguments.
void linear_or_dequantize(const Tensor& x, const Arguments& a, Tensor& y);

}  // namespace octavo::torch_ops
