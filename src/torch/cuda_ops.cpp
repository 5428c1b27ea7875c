// Operators on CUDA tensors: on their device and torch's current stream, without waiting for anything. An empty file in a
// build without CUDA, where python/octavo/_cuda.py has operators composed of torch's own.
#if OCTAVO_HAVE_CUDA

#include <dlfcn.h>

#include <tuple>

#include "torch/tensors.h"

namespace octavo::torch_ops {
namespace {

// The current stream of a device. Torch's function is looked up in the library that has it, which a torch without CUDA lacks
// and need not be linked with.
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
                    const std::optional<Tensor>& bias, ScalarType out_dtype) {
  const Device device = cuda_device_of(x);
  const Tensor in = as_contiguous(x);
  const Tensor weight = as_contiguous(w);
  const Tensor in_scale = as_contiguous(x_scale);
  const Tensor weight_scale = as_contiguous(w_scale);
  require(weight.dim() == 2, "w has ", weight.dim(), " dimensions; it must be [N, K]");
  const Bias b(bias);
  Tensor y = new_tensor(with_last(in, weight.size(0)), out_dtype, device);
  check(scaled_mm(matrix_of(in, "x"), column_of(in_scale, "x_scale"), matrix_of(weight, "w"),
                  column_of(weight_scale, "w_scale"), b.view(), mutable_matrix_of(y, "y"), stream_on(device)));
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

Tensor linear_w8a8_op(const Tensor& x, const Tensor& q, const Tensor& scale, const std::optional<Tensor>& bias) {
  const Device device = cuda_device_of(x);
  const Tensor in = as_contiguous(x);
  const MatrixView rows = matrix_of(in, "x");
  const Weight weight(q, scale, std::nullopt, 8, group_size_of(scale), false, rows.cols);
  const Bias b(bias);
  // The caching allocator hands memory of a stream out again in the order of that stream.
  const int64_t bytes = w8a8_workspace_bytes(rows.rows, rows.cols);
  Tensor workspace = new_tensor({bytes}, ScalarType::Byte, device);
  Tensor y = new_tensor(with_last(in, weight.rows()), in.scalar_type(), device);
  check(linear_w8a8(rows, weight.view(), b.view(), mutable_matrix_of(y, "y"),
                    {static_cast<std::byte*>(workspace.mutable_data_ptr()), static_cast<std::size_t>(bytes)},
                    stream_on(device)));
  return y;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(octavo, CUDA, m) {
  m.impl("quantize_per_token", TORCH_BOX(&quantize_per_token_op));
  m.impl("scaled_mm", TORCH_BOX(&scaled_mm_op));
  m.impl("matmul", TORCH_BOX(&matmul_op));
  m.impl("linear_w8a8", TORCH_BOX(&linear_w8a8_op));
}

}  // namespace octavo::torch_ops

#endif
