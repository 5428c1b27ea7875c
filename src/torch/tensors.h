// Torch tensors as the library's views, its errors as exceptions, and torch's threads as its Parallel.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <cstddef>
#include <optional>
#include <span>
#include <sstream>
#include <stdexcept>
#include <vector>

#include "octavo/octavo.h"

namespace octavo::torch_ops {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// Throws std::runtime_error, which torch turns into a RuntimeError, with the parts as its text. (STD_TORCH_CHECK would put
// the build machine's file name into it.)
template <class... Parts>
void require(bool condition, const Parts&... parts) {
  if (condition) return;
  std::ostringstream text;
  (text << "octavo: " << ... << parts);
  throw std::runtime_error(text.str());
}

// The same for a status.
inline void check(const Status& status) { require(status.ok(), status.message()); }

// The library's name of a torch dtype; throws for one that it has no name for.
DType dtype_of(ScalarType type, const char* name);

// The operation, and the outlier rule, of a number; they throw when there is none.
Op op_of(int64_t op);
OutlierRule rule_of(int64_t rule);

// Work on torch's own threads, so torch.set_num_threads counts.
Parallel& torch_threads();

// A contiguous tensor [..., K], seen as a matrix of K columns. The tensor must outlive the view.
MatrixView matrix_of(const Tensor& tensor, const char* name);
MutableMatrixView mutable_matrix_of(Tensor& tensor, const char* name);

// A vector [n], as a matrix of one row; an empty view for no tensor.
MatrixView vector_of(const std::optional<Tensor>& tensor, const char* name);

// A tensor's value, contiguous: the tensor itself where it is.
Tensor as_contiguous(const Tensor& tensor);

// A contiguous scale tensor of any shape, of one element or one a row, as a column.
MatrixView column_of(const Tensor& scale, const char* name);

// The group size of symmetric 8-bit weights with one scale a channel or one in all.
int64_t group_size_of(const Tensor& scale);

// Where a tensor is; throws when it is neither on the CPU nor on a CUDA device.
Device device_of(const Tensor& tensor, const char* name);

// A contiguous bias, or none.
class Bias {
 public:
  explicit Bias(const std::optional<Tensor>& bias);
  const MatrixView& view() const { return view_; }

 private:
  std::optional<Tensor> tensor_;
  MatrixView view_;
};

// An uninitialized, contiguous tensor, whose memory is aligned to 64 bytes.
Tensor new_tensor(const std::vector<int64_t>& shape, ScalarType type, const Device& device = {});

// Memory for the time of a call: the caching allocator hands what a stream used out again in the order of that stream.
class Workspace {
 public:
  Workspace(int64_t bytes, const Device& device) : tensor_(new_tensor({bytes}, ScalarType::Byte, device)), bytes_(bytes) {}
  std::span<std::byte> memory() {
    return {static_cast<std::byte*>(tensor_.mutable_data_ptr()), static_cast<std::size_t>(bytes_)};
  }

 private:
  Tensor tensor_;
  int64_t bytes_;
};

// The shape of x with another last dimension.
std::vector<int64_t> with_last(const Tensor& x, int64_t last);

// The operators' description of a quantized weight [N, K]: q one a byte or packed, scale and zero_point with as many
// elements as the group size asks for, in any shape. Keeps contiguous copies of what is not contiguous. Scales are float32,
// float16 or bfloat16; on the CPU, whose functions take float32 alone, of others it keeps copies in float32.
class Weight {
 public:
  Weight(const Tensor& q, const Tensor& scale, const std::optional<Tensor>& zero_point, int64_t num_bits, int64_t group_size,
         bool packed, int64_t K);

  const QuantizedWeight& view() const { return view_; }
  int64_t rows() const { return view_.q.rows; }
  // Whether parts of it are copies, made just now on the current stream.
  bool is_copied() const { return copied_; }

  // For linear() on CUDA with x of a type: a copy of the scales in float32, unless it takes them.
  void take_scales(DType x);

 private:
  void widen_scales();

  std::vector<Tensor> owned_;
  std::size_t scale_ = 0;  // of owned_
  QuantizedWeight view_;
  bool copied_ = false;
};

}  // namespace octavo::torch_ops
