// What CUDA products are timed on: random weights, in copies, and activations.
#pragma once

#include "bench/cases.h"
#include "bench/cuda/meter.h"
#include "gemm/arguments.h"

namespace octavo::bench {

// Copies of a weight [N, K], row-major, enough of them to be cold.
class CudaWeights {
 public:
  // For products with x of a type, of which scales are where it can be, as in modules.
  static Result<CudaWeights> make(const WeightFormat& format, DType x, std::int64_t N, std::int64_t K, Meter& meter);

  int copies() const { return copies_; }
  std::int64_t bytes() const { return parts_.bytes(); }  // of one
  std::byte* data(int copy) const { return buffer_.data() + copy * stride_; }
  QuantizedWeight operator[](int copy) const;

 private:
  CudaWeights(const RowMajor& parts, int copies) : parts_(parts), copies_(copies), stride_(round_up(parts.bytes(), 4096)) {}

  RowMajor parts_;
  int copies_;
  std::int64_t stride_;
  DeviceBuffer buffer_;
};

// Of one case and shape.
class CudaOperands {
 public:
  static Result<CudaOperands> make(const Case& c, const Shape& shape, Meter& meter);

  // The product with a weight, as a row of the kernel table gets it. x is quantized already where the operation takes it so.
  Arguments product(const QuantizedWeight& w) const;
  // linear_w8a8, by the row that OCTAVO_KERNEL names or the table's.
  Status linear_w8a8(const QuantizedWeight& w) const;

 private:
  CudaOperands(const Case& c, const Shape& shape, Stream stream) : case_(c), shape_(shape), stream_(stream) {}

  Case case_;
  Shape shape_;
  Stream stream_;
  DeviceBuffer x_data_, y_data_, workspace_;  // workspace_: q of x, its scales
  MutableMatrixView x_, q_, scale_, y_;
};

// Copies of x [M, K] and of what quantize_per_token writes.
class CudaActivations {
 public:
  static Result<CudaActivations> make(DType dtype, std::int64_t M, std::int64_t K, Meter& meter);

  int copies() const { return copies_; }
  std::int64_t bytes() const { return x_bytes_ + q_bytes_ + 4 * M_; }  // read and written
  Status quantize(int copy) const;
  void move(int copy) const;  // as many bytes

 private:
  CudaActivations(DType dtype, std::int64_t M, std::int64_t K, Meter& meter);

  DType dtype_;
  std::int64_t M_, K_;
  Meter& meter_;
  std::int64_t x_bytes_, q_bytes_, scale_offset_, stride_;
  int copies_;
  DeviceBuffer buffer_;
};

}  // namespace octavo::bench
