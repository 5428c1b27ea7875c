// octavo::quantize on the CPU, for what no GPU kernel quantizes.
#pragma once

#include <tuple>

#include "torch/tensors.h"

namespace octavo::torch_ops {

// Shapes and dtypes of quantize()'s results, on a device.
struct QuantizedTensors {
  QuantizedTensors(int64_t N, int64_t K, const WeightFormat& format, const Device& device = {});

  Tensor q, scale, zero_point;
  MutableQuantizedWeight view;
};

std::tuple<Tensor, Tensor, Tensor> quantize_on_cpu(const Tensor& weight, int64_t num_bits, bool symmetric,
                                                   int64_t group_size, int64_t clip, double percentile,
                                                   ScalarType scale_dtype);

// Throws unless the arguments of octavo::quantize are a matrix, a clip and a group size.
void check_quantize_arguments(const Tensor& weight, int64_t group_size, int64_t clip);

}  // namespace octavo::torch_ops
