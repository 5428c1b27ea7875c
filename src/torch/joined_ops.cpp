// Weight-only products of one x with the weights of several layers, side by side in y. Weights that follow each other in memory,
// as octavo.join_weights leaves them, are one product; others take one each.
#include <algorithm>
#include <vector>

#include "torch/cuda_stream.h"
#include "torch/dequantize_matmul.h"
#include "torch/tensors.h"

namespace octavo::torch_ops {
namespace {

// Whether b begins where the rows of a end.
bool follows(const MatrixView& a, const MatrixView& b) {
  return a.dtype == b.dtype && a.stride == b.stride && static_cast<const char*>(a.data) + a.rows * a.stride == b.data;
}

// The same for vectors, both empty or neither.
bool follows_as_vector(const MatrixView& a, const MatrixView& b) {
  if (a.empty() || b.empty()) return a.empty() && b.empty();
  return a.dtype == b.dtype && static_cast<const char*>(a.data) + row_bytes(a.dtype, a.cols) == b.data;
}

struct Layer {
  Weight weight;
  Bias bias;
};

bool follows(const Layer& a, const Layer& b) {
  const QuantizedWeight &v = a.weight.view(), &w = b.weight.view();
  return v.format.group_size != kPerTensor && follows(v.q, w.q) && follows(v.scale, w.scale) &&
         (v.format.symmetric || follows(v.zero_point, w.zero_point)) && follows_as_vector(a.bias.view(), b.bias.view());
}

bool are_side_by_side(const std::vector<Layer>& layers) {
  return std::ranges::adjacent_find(layers, [](const Layer& a, const Layer& b) { return !follows(a, b); }) == layers.end();
}

// The first of layers that are side by side, with the rows of all.
Arguments joined(const std::vector<Layer>& layers, int64_t rows) {
  Arguments a = {};
  a.w = layers.front().weight.view();
  a.w.q.rows = a.w.scale.rows = rows;
  if (!a.w.format.symmetric) a.w.zero_point.rows = rows;
  a.bias = layers.front().bias.view();
  if (!a.bias.empty()) a.bias.cols = rows;
  return a;
}

Tensor linear_joined_op(const Tensor& x, const std::vector<Tensor>& q, const std::vector<Tensor>& scale,
                        const std::vector<Tensor>& zero_point, const std::vector<Tensor>& bias, int64_t num_bits,
                        int64_t group_size, bool packed) {
  const auto one_each = [&](const std::vector<Tensor>& tensors) { return tensors.empty() || tensors.size() == q.size(); };
  require(!q.empty() && scale.size() == q.size() && one_each(zero_point) && one_each(bias), "there are ", q.size(),
          " weights, ", scale.size(), " scales, ", zero_point.size(), " zero points and ", bias.size(),
          " biases; there must be one of each for every weight, or no zero points, or no biases");
  const Device device = device_of(x, "x");
  const Tensor in = as_contiguous(x);
  const MatrixView rows = matrix_of(in, "x");
  const auto if_any = [](const std::vector<Tensor>& tensors, std::size_t i) {
    return tensors.empty() ? std::nullopt : std::optional<Tensor>(tensors[i]);
  };
  std::vector<Layer> layers;
  layers.reserve(q.size());
  int64_t N = 0;
  bool constant = true;
  for (std::size_t i = 0; i < q.size(); ++i) {
    layers.push_back({Weight(q[i], scale[i], if_any(zero_point, i), num_bits, group_size, packed, rows.cols),
                      Bias(if_any(bias, i))});
    N += layers.back().weight.rows();
    constant = constant && !layers.back().weight.is_copied();
  }

  Tensor y = new_tensor(with_last(in, N), in.scalar_type(), device);
  const MutableMatrixView out = mutable_matrix_of(y, "y");
  const auto run = [&](Arguments a, const MutableMatrixView& columns, Tensor& tensor) {
    a.x = rows;
    a.y = columns;
    a.constant_w = constant;
#if OCTAVO_HAVE_CUDA
    if (device.type == DeviceType::kCuda) a.stream = stream_on(device);
#endif
    linear_or_dequantize(in, a, tensor);
  };
  if (are_side_by_side(layers)) {
    run(joined(layers, N), out, y);
    return y;
  }
  Tensor all = torch::stable::view(y, std::vector<int64_t>{out.rows, N});
  int64_t first = 0;
  for (const Layer& layer : layers) {
    const int64_t last = first + layer.weight.rows();
    Tensor columns = torch::stable::narrow(all, 1, first, last - first);
    Arguments a = {};
    a.w = layer.weight.view();
    a.bias = layer.bias.view();
    run(a, out.slice_columns(first, last), columns);
    first = last;
  }
  return y;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(octavo, CPU, m) { m.impl("linear_joined", TORCH_BOX(&linear_joined_op)); }

#if OCTAVO_HAVE_CUDA
STABLE_TORCH_LIBRARY_IMPL(octavo, CUDA, m) { m.impl("linear_joined", TORCH_BOX(&linear_joined_op)); }
#endif

}  // namespace octavo::torch_ops
