// Products of one x with the weights of several layers, side by side in y: one for every run of weights that follow each
// other in memory, as octavo.join_weights leaves them.
#include <cstddef>
#include <optional>
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

// The first of layers that follow each other, with the `rows` of all.
Arguments joined(const Layer& first, int64_t rows) {
  Arguments a = {};
  a.w = first.weight.view();
  a.bias = first.bias.view();
  if (rows == first.weight.rows()) return a;
  a.w.q.rows = a.w.scale.rows = rows;
  if (!a.w.format.symmetric) a.w.zero_point.rows = rows;
  if (!a.bias.empty()) a.bias.cols = rows;
  return a;
}

// The layers' products of x, by calls of product(arguments, y) with y, or its columns as a matrix, that arguments.y views.
template <class Product>
Tensor products(const Tensor& x, const MatrixView& rows, const std::vector<Layer>& layers, const Product& product) {
  int64_t N = 0;
  bool constant = true;
  for (const Layer& layer : layers) {
    const int64_t own = layer.weight.rows(), bias = layer.bias.view().cols;
    require(bias == 0 || bias == own, "a bias has ", bias, " elements, for a weight of ", own, " rows");
    N += own;
    constant = constant && !layer.weight.is_copied();
  }
  Tensor y = new_tensor(with_last(x, N), x.scalar_type(), rows.device);
  const MutableMatrixView out = mutable_matrix_of(y, "y");
  int64_t first = 0;
  for (auto layer = layers.begin(); layer != layers.end();) {
    const Layer& front = *layer;
    int64_t last = first;
    do {
      last += layer->weight.rows();
      ++layer;
    } while (layer != layers.end() && follows(*(layer - 1), *layer));
    Arguments a = joined(front, last - first);
    a.x = rows;
    a.y = out.slice_columns(first, last);
    a.constant_w = constant;
    a.small_kernel_next = layer == layers.end();  // in a model, which is where products are joined
#if OCTAVO_HAVE_CUDA
    if (rows.device.type == DeviceType::kCuda) a.stream = stream_on(rows.device);
#endif
    if (last - first == N) {
      product(a, y);
    } else {
      Tensor all = torch::stable::view(y, std::vector<int64_t>{out.rows, N});
      Tensor columns = torch::stable::narrow(all, 1, first, last - first);
      product(a, columns);
    }
    first = last;
  }
  return y;
}

// Calls make(q, scale, zero_point or none) for each layer's weight.
template <class Make>
std::vector<Layer> layers_of(const std::vector<Tensor>& q, const std::vector<Tensor>& scale,
                             const std::vector<Tensor>& zero_point, const std::vector<Tensor>& bias, const Make& make) {
  const auto one_each = [&](const std::vector<Tensor>& tensors) { return tensors.empty() || tensors.size() == q.size(); };
  require(!q.empty() && scale.size() == q.size() && one_each(zero_point) && one_each(bias), "there are ", q.size(),
          " weights, ", scale.size(), " scales, ", zero_point.size(), " zero points and ", bias.size(),
          " biases; there must be one of each for every weight, or no zero points, or no biases");
  const auto if_any = [](const std::vector<Tensor>& tensors, std::size_t i) {
    return tensors.empty() ? std::nullopt : std::optional<Tensor>(tensors[i]);
  };
  std::vector<Layer> layers;
  for (std::size_t i = 0; i < q.size(); ++i) {
    layers.push_back({make(q[i], scale[i], if_any(zero_point, i)), Bias(if_any(bias, i))});
  }
  return layers;
}

Tensor linear_joined_op(const Tensor& x, const std::vector<Tensor>& q, const std::vector<Tensor>& scale,
                        const std::vector<Tensor>& zero_point, const std::vector<Tensor>& bias, int64_t num_bits,
                        int64_t group_size, bool packed) {
  const Tensor in = as_contiguous(x);
  const MatrixView rows = matrix_of(in, "x");
  const auto layers = layers_of(q, scale, zero_point, bias, [&](const auto&... parts) {
    Weight weight(parts..., num_bits, group_size, packed, rows.cols);
    if (rows.device.type == DeviceType::kCuda) weight.take_scales(rows.dtype);
    return weight;
  });
  return products(in, rows, layers, [&](const Arguments& a, Tensor& y) { linear_or_dequantize(in, a, y); });
}

Tensor linear_w8a8_joined_op(const Tensor& x, const std::vector<Tensor>& q, const std::vector<Tensor>& scale,
                             const std::vector<Tensor>& bias) {
  const Tensor in = as_contiguous(x);
  const MatrixView rows = matrix_of(in, "x");
  const auto layers = layers_of(q, scale, {}, bias, [&](const Tensor& w, const Tensor& s, const auto& none) {
    return Weight(w, s, none, 8, group_size_of(s), false, rows.cols);
  });
  return products(in, rows, layers, [&](const Arguments& a, const Tensor&) {
    if (rows.device.type == DeviceType::kCpu) return check(linear_w8a8(rows, a.w, a.bias, a.y, torch_threads()));
    Workspace workspace(w8a8_workspace_bytes(rows.rows, rows.cols), rows.device);
    check(linear_w8a8(rows, a.w, a.bias, a.y, workspace.memory(), a.stream, a.constant_w));
  });
}

void add_kernels(torch::stable::detail::StableLibrary& m) {
  m.impl("linear_joined", TORCH_BOX(&linear_joined_op));
  m.impl("linear_w8a8_joined", TORCH_BOX(&linear_w8a8_joined_op));
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(octavo, CPU, m) { add_kernels(m); }

#if OCTAVO_HAVE_CUDA
STABLE_TORCH_LIBRARY_IMPL(octavo, CUDA, m) { add_kernels(m); }
#endif

}  // namespace octavo::torch_ops
