// Operators on CUDA tensors: on their device and torch's current stream, without waiting for anything. An empty file in a
// build without CUDA, where python/octavo/_cuda.py has operators composed of torch's own.
#if OCTAVO_HAVE_CUDA

#include <dlfcn.h>

#include <algorithm>
#include <cmath>
#include <tuple>

#include "torch/cuda_stream.h"
#include "torch/dequantize_matmul.h"
#include "torch/quantize_ops.h"
#include "torch/tensors.h"

namespace octavo::torch_ops {

// Torch's function is looked up in the library that has it, which a torch without CUDA lacks and need not be linked with.
Stream stream_on(const Device& device) {
  using CurrentStream = AOTITorchError (*)(int32_t device_index, void** stream);
  static const auto current_stream = [] {
    void* library = dlopen("libtorch_cuda.so", RTLD_NOLOAD | RTLD_LAZY);
    return reinterpret_cast<CurrentStream>(library == nullptr ? nullptr
                                                              : dlsym(library, "aoti_torch_get_current_cuda_stream"));
  }();
  require(current_stream != nullptr, "this torch has no CUDA streams; install one that is built for CUDA");
  Stream stream;
  TORCH_ERROR_CODE_CHECK(current_stream(device.index, &stream.handle));
  return stream;
}

namespace {

// Where the operators run: where their first argument is. Dispatch to CUDA takes one CUDA tensor, which may be another.
Device cuda_device_of(const Tensor& x) {
  const Device device = device_of(x, "x");
  require(device.type == DeviceType::kCuda,
          "x is on the CPU and other arguments on a CUDA device; all must be on one device");
  return device;
}

std::tuple<Tensor, Tensor> quantize_per_token_op(const Tensor& x, int64_t group_size) {
  const Device device = cuda_device_of(x);
  require(group_size == kPerChannel || group_size > 0, group_size, " is not a group size");
  const Tensor in = as_contiguous(x);
  const MatrixView view = matrix_of(in, "x");
  Tensor q = new_tensor(with_last(in, view.cols), ScalarType::Char, device);
  Tensor scale = new_tensor(with_last(in, WeightFormat{8, true, group_size}.groups(view.cols)), ScalarType::Float, device);
  check(
      quantize_per_token(view, group_size, mutable_matrix_of(q, "q"), mutable_matrix_of(scale, "scale"), stream_on(device)));
  return {q, scale};
}

Tensor scaled_mm_op(const Tensor& x, const Tensor& w, const Tensor& x_scale, const Tensor& w_scale,
                    const std::optional<Tensor>& bias, ScalarType out_dtype, bool constant_w) {
  const Device device = cuda_device_of(x);
  const Tensor in = as_contiguous(x);
  const Tensor weight = as_contiguous(w);
  const Tensor in_scale = as_contiguous(x_scale);
  const Tensor weight_scale = as_contiguous(w_scale);
  require(weight.dim() == 2, "w has ", weight.dim(), " dimensions; it must be [N, K]");
  const Bias b(bias);
  Tensor y = new_tensor(with_last(in, weight.size(0)), out_dtype, device);
  check(scaled_mm(matrix_of(in, "x"), column_of(in_scale, "x_scale"), matrix_of(weight, "w"),
                  column_of(weight_scale, "w_scale"), b.view(), mutable_matrix_of(y, "y"), stream_on(device),
                  constant_w && w.is_contiguous()));
  return y;
}

Tensor matmul_op(const Tensor& x, const Tensor& y, double alpha) {
  const Device device = cuda_device_of(x);
  const Tensor a = as_contiguous(x);
  const Tensor b = as_contiguous(y);
  require(a.dim() == 2 && b.dim() == 2, "matmul takes x [M, K] and y [N, K], not ", a.dim(), " and ", b.dim(),
          " dimensions");
  Tensor out = new_tensor({a.size(0), b.size(0)}, ScalarType::BFloat16, device);
  check(matmul(matrix_of(a, "x"), matrix_of(b, "y"), static_cast<float>(alpha), mutable_matrix_of(out, "output"),
               stream_on(device)));
  return out;
}

// W8A8: product(x, w, bias, y, workspace, stream) with w [N, K] = q · scale.
template <class Product>
Tensor w8a8_product(const Tensor& x, const Tensor& q, const Tensor& scale, const std::optional<Tensor>& bias,
                    const Product& product) {
  const Device device = cuda_device_of(x);
  const Tensor in = as_contiguous(x);
  const MatrixView rows = matrix_of(in, "x");
  const Weight weight(q, scale, std::nullopt, 8, group_size_of(scale), false, rows.cols);
  const Bias b(bias);
  Workspace workspace(w8a8_workspace_bytes(rows.rows, rows.cols), device);
  Tensor y = new_tensor(with_last(in, weight.rows()), in.scalar_type(), device);
  check(product(rows, weight.view(), b.view(), mutable_matrix_of(y, "y"), workspace.memory(), stream_on(device)));
  return y;
}

Tensor linear_w8a8_op(const Tensor& x, const Tensor& q, const Tensor& scale, const std::optional<Tensor>& bias) {
  return w8a8_product(x, q, scale, bias, [](const auto&... arguments) { return linear_w8a8(arguments...); });
}

Tensor linear_w8a8_static_op(const Tensor& x, const Tensor& q, const Tensor& scale, const std::optional<Tensor>& bias,
                             const Tensor& x_scale) {
  const Tensor in_scale = as_contiguous(x_scale);
  return w8a8_product(x, q, scale, bias, [&](const MatrixView& rows, const auto&... arguments) {
    return linear_w8a8_static(rows, column_of(in_scale, "x_scale"), arguments...);
  });
}

// Waits for the device.
bool all_finite(const Tensor& values) {
  const Tensor here = torch::stable::to(values, torch::stable::Device(torch::headeronly::DeviceType::CPU));
  const auto* first = static_cast<const float*>(here.const_data_ptr());
  return std::all_of(first, first + here.numel(), [](float value) { return std::isfinite(value); });
}

// What the GPU does not quantize, and weights that have a NaN, an Inf or too large a scale (whose place the error then
// names), go through the CPU. The only operator here that waits: weights are quantized once.
std::tuple<Tensor, Tensor, Tensor> quantize_op(const Tensor& weight, int64_t num_bits, bool symmetric, int64_t group_size,
                                               int64_t clip, double percentile, ScalarType scale_dtype) {
  check_quantize_arguments(weight, group_size, clip);
  const Device device = cuda_device_of(weight);
  const WeightFormat format = {static_cast<int>(num_bits), symmetric, group_size};
  if (static_cast<Clip>(clip) == Clip::kAbsmax && (symmetric || group_size != kPerTensor)) {
    const Tensor w = as_contiguous(weight);
    QuantizedTensors out(w.size(0), w.size(1), format, device);
    QuantizeOptions options;
    options.scale_dtype = dtype_of(scale_dtype, "scale");
    check(quantize(matrix_of(w, "weight"), options, out.view, stream_on(device)));
    if (all_finite(out.scale)) return {out.q, out.scale, out.zero_point};
  }
  const Tensor here = torch::stable::to(weight, torch::stable::Device(torch::headeronly::DeviceType::CPU));
  const auto [q, scale, zero_point] = quantize_on_cpu(here, num_bits, symmetric, group_size, clip, percentile, scale_dtype);
  const auto back = [&](const Tensor& tensor) { return torch::stable::to(tensor, weight.device()); };
  return {back(q), back(scale), back(zero_point)};
}

Tensor dequantize_op(const Tensor& q, const Tensor& scale, const std::optional<Tensor>& zero_point, int64_t num_bits,
                     int64_t group_size, bool packed, int64_t K, ScalarType dtype) {
  const Device device = device_of(q, "q");
  const Weight weight(q, scale, zero_point, num_bits, group_size, packed, K);
  Tensor out = new_tensor({weight.rows(), K}, dtype, device);
  check(dequantize(weight.view(), mutable_matrix_of(out, "output"), stream_on(device)));
  return out;
}

Tensor linear_op(const Tensor& x, const Tensor& q, const Tensor& scale, const std::optional<Tensor>& zero_point,
                 const std::optional<Tensor>& bias, int64_t num_bits, int64_t group_size, bool packed) {
  const Device device = cuda_device_of(x);
  const Tensor in = as_contiguous(x);
  const MatrixView rows = matrix_of(in, "x");
  Weight weight(q, scale, zero_point, num_bits, group_size, packed, rows.cols);
  weight.take_scales(rows.dtype);
  const Bias b(bias);
  Tensor y = new_tensor(with_last(in, weight.rows()), in.scalar_type(), device);
  Arguments a = {rows, {}, weight.view(), b.view(), mutable_matrix_of(y, "y")};
  a.stream = stream_on(device);
  a.constant_w = !weight.is_copied();  // else a layer's, complete
  linear_or_dequantize(in, a, y);
  return y;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(octavo, CUDA, m) {
  m.impl("quantize", TORCH_BOX(&quantize_op));
  m.impl("dequantize", TORCH_BOX(&dequantize_op));
  m.impl("quantize_per_token", TORCH_BOX(&quantize_per_token_op));
  m.impl("linear", TORCH_BOX(&linear_op));
  m.impl("scaled_mm", TORCH_BOX(&scaled_mm_op));
  m.impl("matmul", TORCH_BOX(&matmul_op));
  m.impl("linear_w8a8", TORCH_BOX(&linear_w8a8_op));
  m.impl("linear_w8a8_static", TORCH_BOX(&linear_w8a8_static_op));
}

}  // namespace octavo::torch_ops

#endif
