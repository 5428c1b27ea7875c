#include "torch/tensors.h"

#include <algorithm>
#include <ostream>
#include <string>

namespace octavo::torch_ops {
namespace {

class TorchThreads final : public Parallel {
 public:
  int num_threads() const override { return static_cast<int>(torch::stable::get_num_threads()); }
  void run(std::int64_t begin, std::int64_t end, std::int64_t grain, Body body) override {
    if (begin < end) torch::stable::parallel_for(begin, end, grain, [&](int64_t b, int64_t e) { body(b, e); });
  }
};

// A tensor's shape as text, written only when it is asked for.
struct ShapeOf {
  const Tensor& tensor;

  friend std::ostream& operator<<(std::ostream& out, const ShapeOf& shape) {
    out << "[";
    for (int64_t i = 0; i < shape.tensor.dim(); ++i) out << (i == 0 ? "" : ", ") << shape.tensor.size(i);
    return out << "]";
  }
};

int64_t last_size(const Tensor& tensor, const char* name) {
  require(tensor.dim() >= 1, name, " has no dimensions; it must be [..., K]");
  return tensor.size(tensor.dim() - 1);
}

int64_t leading_size(const Tensor& tensor) {
  int64_t rows = 1;
  for (int64_t i = 0; i + 1 < tensor.dim(); ++i) rows *= tensor.size(i);
  return rows;
}

void check_contiguous(const Tensor& tensor, const char* name) {
  require(tensor.is_contiguous(), name, " is not contiguous");
}

// A parameter tensor with one element a row and group, or one in all.
MatrixView parameter_view(const Tensor& tensor, const char* name, std::int64_t rows, std::int64_t cols) {
  check_contiguous(tensor, name);
  require(tensor.numel() == rows * cols, name, " has shape ", ShapeOf{tensor}, "; it must have ", rows, " x ", cols,
          " elements");
  const DType dtype = dtype_of(tensor.scalar_type(), name);
  return {tensor.const_data_ptr(), dtype, rows, cols, row_bytes(dtype, cols), device_of(tensor, name)};
}

}  // namespace

DType dtype_of(ScalarType type, const char* name) {
  switch (type) {
    case ScalarType::Double:
      return DType::kFloat64;
    case ScalarType::Float:
      return DType::kFloat32;
    case ScalarType::Half:
      return DType::kFloat16;
    case ScalarType::BFloat16:
      return DType::kBFloat16;
    case ScalarType::Int:
      return DType::kInt32;
    case ScalarType::Char:
      return DType::kInt8;
    case ScalarType::Byte:
      return DType::kUInt8;
    default:
      throw std::runtime_error(std::string("octavo: the dtype of ") + name + " is not one that octavo computes with");
  }
}

Op op_of(int64_t op) {
  require(op >= 0 && op <= static_cast<int64_t>(Op::kLinearW8A8), op, " is no operation");
  return static_cast<Op>(op);
}

OutlierRule rule_of(int64_t rule) {
  require(rule == 0 || rule == 1, "the outlier rule is 0 (token) or 1 (batch), not ", rule);
  return static_cast<OutlierRule>(rule);
}

Parallel& torch_threads() {
  static TorchThreads threads;
  return threads;
}

Device device_of(const Tensor& tensor, const char* name) {
  if (tensor.is_cpu()) return {};
  require(tensor.is_cuda(), name, " is neither on the CPU nor on a CUDA device");
  return {DeviceType::kCuda, tensor.get_device_index()};
}

MatrixView matrix_of(const Tensor& tensor, const char* name) {
  check_contiguous(tensor, name);
  const DType dtype = dtype_of(tensor.scalar_type(), name);
  const int64_t cols = last_size(tensor, name);
  return {tensor.const_data_ptr(), dtype, leading_size(tensor), cols, row_bytes(dtype, cols), device_of(tensor, name)};
}

MutableMatrixView mutable_matrix_of(Tensor& tensor, const char* name) {
  const MatrixView view = matrix_of(tensor, name);
  return {tensor.mutable_data_ptr(), view.dtype, view.rows, view.cols, view.stride, view.device};
}

MatrixView column_of(const Tensor& scale, const char* name) {
  check_contiguous(scale, name);
  const DType dtype = dtype_of(scale.scalar_type(), name);
  return {scale.const_data_ptr(), dtype, scale.numel(), 1, row_bytes(dtype, 1), device_of(scale, name)};
}

int64_t group_size_of(const Tensor& scale) { return scale.numel() == 1 ? kPerTensor : kPerChannel; }

MatrixView vector_of(const std::optional<Tensor>& tensor, const char* name) {
  if (!tensor.has_value()) return {};
  require(tensor->dim() == 1, name, " has shape ", ShapeOf{*tensor}, "; it must have one dimension");
  return matrix_of(*tensor, name);
}

Tensor as_contiguous(const Tensor& tensor) { return tensor.is_contiguous() ? tensor : torch::stable::contiguous(tensor); }

Bias::Bias(const std::optional<Tensor>& bias) {
  if (bias) tensor_ = as_contiguous(*bias);
  view_ = vector_of(tensor_, "bias");
}

// By the shim's own function: torch::stable::empty() looks its operator up by name, which takes longer than a small product.
Tensor new_tensor(const std::vector<int64_t>& shape, ScalarType type, const Device& device) {
  std::vector<int64_t> strides(shape.size());
  int64_t stride = 1;
  for (std::size_t i = shape.size(); i-- > 0; stride *= std::max<int64_t>(shape[i], 1)) strides[i] = stride;
  AtenTensorHandle handle = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(
      static_cast<int64_t>(shape.size()), shape.data(), strides.data(),
      torch::stable::detail::to<int32_t>(torch::stable::detail::from(type)),
      device.type == DeviceType::kCuda ? aoti_torch_device_type_cuda() : aoti_torch_device_type_cpu(), device.index,
      &handle));
  return Tensor(handle);
}

std::vector<int64_t> with_last(const Tensor& x, int64_t last) {
  std::vector<int64_t> shape;
  for (int64_t i = 0; i + 1 < x.dim(); ++i) shape.push_back(x.size(i));
  shape.push_back(last);
  return shape;
}

Weight::Weight(const Tensor& q, const Tensor& scale, const std::optional<Tensor>& zero_point, int64_t num_bits,
               int64_t group_size, bool packed, int64_t K) {
  const auto own = [this](const Tensor& tensor) -> const Tensor& {
    copied_ = copied_ || !tensor.is_contiguous();
    return owned_.emplace_back(as_contiguous(tensor));
  };
  owned_.reserve(3);
  require(q.dim() == 2, "the quantized weight has shape ", ShapeOf{q}, "; it must have two dimensions");
  require(num_bits >= 2 && num_bits <= 8, "octavo: weights have 2 to 8 bits, not ", num_bits);
  require(group_size >= kPerChannel, group_size, " is not a group size");
  view_.format = {static_cast<int>(num_bits), !zero_point.has_value(), group_size};
  const Tensor& integers = own(q);
  check_contiguous(integers, "the quantized weight");
  const ScalarType expected = packed || zero_point.has_value() ? ScalarType::Byte : ScalarType::Char;
  require(integers.scalar_type() == expected, "octavo: a ",
          packed       ? "packed"
          : zero_point ? "asymmetric"
                       : "symmetric",
          " quantized weight must be ", expected == ScalarType::Byte ? "uint8" : "int8");
  const DType storage = storage_dtype(view_.format, packed);
  require(integers.size(1) == row_bytes(storage, K), "the quantized weight has shape ", ShapeOf{q}, "; for K = ", K,
          " it must be [N, ", row_bytes(storage, K), "]");
  view_.q = {integers.const_data_ptr(), storage,
             integers.size(0),          K,
             row_bytes(storage, K),     device_of(integers, "the quantized weight")};
  const int64_t rows = group_size == kPerTensor ? 1 : integers.size(0);
  const int64_t cols = view_.format.groups(K);
  const ScalarType type = scale.scalar_type();
  require(type == ScalarType::Float || type == ScalarType::Half || type == ScalarType::BFloat16,
          "scale must be float32, float16 or bfloat16");
  scale_ = owned_.size();
  view_.scale = parameter_view(own(scale), "scale", rows, cols);
  if (scale.is_cpu()) widen_scales();
  if (!zero_point) return;
  require(zero_point->scalar_type() == ScalarType::Byte, "zero_point must be uint8");
  view_.zero_point = parameter_view(own(*zero_point), "zero_point", rows, cols);
}

void Weight::widen_scales() {
  if (view_.scale.dtype == DType::kFloat32) return;
  owned_[scale_] = torch::stable::to(owned_[scale_], ScalarType::Float);
  view_.scale = parameter_view(owned_[scale_], "scale", view_.scale.rows, view_.scale.cols);
  copied_ = true;
}

void Weight::take_scales(DType x) {
  if (!takes_scales(view_, x).ok()) widen_scales();
}

}  // namespace octavo::torch_ops
