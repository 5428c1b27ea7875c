#include "bench/cuda/operands.h"

#include <bit>

#include "core/half.h"
#include "core/macros.h"
#include "octavo/gemm.h"

namespace octavo::bench {
namespace {

constexpr Device kGpu = {DeviceType::kCuda, 0};
constexpr float kThreshold = 6;  // of LLM.int8(), as published

// Fills x with uniform random numbers from -2 to 2, by way of integers.
Status fill(const MutableMatrixView& x, Stream stream) {
  const WeightFormat format = {8, true, kPerTensor};
  const std::int64_t scale_offset = round_up(x.rows * x.cols, 64);
  OCTAVO_ASSIGN_OR_RETURN(const DeviceBuffer buffer, DeviceBuffer::make(scale_offset + 4));
  fill_random(buffer.data(), scale_offset, RandomIntegers(format, DType::kInt8), stream);
  fill_words(buffer.data() + scale_offset, 1, std::bit_cast<std::uint32_t>(0x1p-6f), stream);
  const QuantizedWeight integers = {format,
                                    MatrixView(buffer.data(), DType::kInt8, x.rows, x.cols, x.cols, kGpu),
                                    MatrixView(buffer.data() + scale_offset, DType::kFloat32, 1, 1, 4, kGpu),
                                    {}};
  OCTAVO_RETURN_IF_ERROR(dequantize(integers, x, stream));
  cuda::note_error(cudaStreamSynchronize(static_cast<cudaStream_t>(stream.handle)));
  return cuda::take_error();
}

// kScale, or two of them.
std::uint32_t scale_bits(DType dtype) {
  if (dtype == DType::kFloat32) return std::bit_cast<std::uint32_t>(RowMajor::kScale);
  return 0x10001u * (dtype == DType::kFloat16 ? to_float16(RowMajor::kScale).bits : to_bfloat16(RowMajor::kScale).bits);
}

}  // namespace

Result<CudaWeights> CudaWeights::make(const WeightFormat& format, DType x, std::int64_t N, std::int64_t K, Meter& meter) {
  const std::int64_t groups = format.groups(K);
  const MatrixView short_scales(nullptr, x, N, groups, row_bytes(x, groups), kGpu);
  const RowMajor parts(format, N, K, takes_scales({format, {}, short_scales, {}}, x).ok() ? x : DType::kFloat32);
  CudaWeights weights(parts, meter.copies(parts.bytes()));
  OCTAVO_ASSIGN_OR_RETURN(weights.buffer_, DeviceBuffer::make(weights.copies_ * weights.stride_));
  for (int copy = 0; copy < weights.copies_; ++copy) {
    std::byte* const data = weights.data(copy);
    fill_random(data, parts.scale_offset(), RandomIntegers(format, parts.storage), meter.stream());
    fill_words(data + parts.scale_offset(), row_bytes(parts.scale_dtype, parts.scales()) / 4, scale_bits(parts.scale_dtype),
               meter.stream());
    if (format.symmetric) continue;
    cuda::note_error(cudaMemsetAsync(data + parts.zero_point_offset(), RowMajor::zero_point(format),
                                     static_cast<std::size_t>(parts.scales()),
                                     static_cast<cudaStream_t>(meter.stream().handle)));
  }
  meter.timed().wait();
  OCTAVO_RETURN_IF_ERROR(cuda::take_error());
  return weights;
}

QuantizedWeight CudaWeights::operator[](int copy) const { return as_const(parts_.in(data(copy), kGpu)); }

Result<CudaOperands> CudaOperands::make(const Case& c, const Shape& shape, Meter& meter) {
  CudaOperands operands(c, shape, meter.stream());
  const std::int64_t M = shape.M, N = shape.N, K = shape.K;
  const std::int64_t x_row = row_bytes(c.activation, K), y_row = row_bytes(c.activation, N);
  OCTAVO_ASSIGN_OR_RETURN(operands.x_data_, DeviceBuffer::make(M * x_row));
  OCTAVO_ASSIGN_OR_RETURN(operands.y_data_, DeviceBuffer::make(M * y_row));
  operands.x_ = {operands.x_data_.data(), c.activation, M, K, x_row, kGpu};
  operands.y_ = {operands.y_data_.data(), c.activation, M, N, y_row, kGpu};
  OCTAVO_RETURN_IF_ERROR(fill(operands.x_, meter.stream()));
  if (op_of(c.scheme) != Op::kScaledMm) return operands;
  OCTAVO_ASSIGN_OR_RETURN(operands.workspace_, DeviceBuffer::make(w8a8_workspace_bytes(M, K)));
  const std::int64_t q_row = round_up(K, 16);  // as linear_w8a8 has it
  operands.q_ = {operands.workspace_.data(), DType::kInt8, M, K, q_row, kGpu};
  operands.scale_ = {operands.workspace_.data() + M * q_row, DType::kFloat32, M, 1, 4, kGpu};
  OCTAVO_RETURN_IF_ERROR(
      quantize_per_token(as_const(operands.x_), kPerChannel, operands.q_, operands.scale_, meter.stream()));
  return operands;
}

Arguments CudaOperands::product(const QuantizedWeight& w) const {
  Arguments a = {as_const(x_), {}, w, {}, y_, kThreshold};
  if (q_.data != nullptr) {
    a.x = as_const(q_);
    a.x_scale = as_const(scale_);
  }
  a.stream = stream_;
  a.constant_w = true;
  return a;
}

Status CudaOperands::linear_w8a8(const QuantizedWeight& w) const {
  const auto bytes = static_cast<std::size_t>(w8a8_workspace_bytes(shape_.M, shape_.K));
  return octavo::linear_w8a8(as_const(x_), w, {}, y_, {workspace_.data(), bytes}, stream_);
}

CudaActivations::CudaActivations(DType dtype, std::int64_t M, std::int64_t K, Meter& meter)
    : dtype_(dtype),
      M_(M),
      K_(K),
      meter_(meter),
      x_bytes_(M * row_bytes(dtype, K)),
      q_bytes_(M * K),
      scale_offset_(round_up(x_bytes_, 64) + round_up(q_bytes_, 64)),
      stride_(round_up(scale_offset_ + 4 * M, 4096)),
      copies_(meter.copies(bytes())) {}

Result<CudaActivations> CudaActivations::make(DType dtype, std::int64_t M, std::int64_t K, Meter& meter) {
  CudaActivations made(dtype, M, K, meter);
  OCTAVO_ASSIGN_OR_RETURN(made.buffer_, DeviceBuffer::make(made.copies_ * made.stride_));
  OCTAVO_RETURN_IF_ERROR(fill({made.buffer_.data(), dtype, M, K, row_bytes(dtype, K), kGpu}, meter.stream()));
  for (int copy = 1; copy < made.copies_; ++copy) {
    cuda::note_error(cudaMemcpyAsync(made.buffer_.data() + copy * made.stride_, made.buffer_.data(),
                                     static_cast<std::size_t>(made.x_bytes_), cudaMemcpyDeviceToDevice,
                                     static_cast<cudaStream_t>(meter.stream().handle)));
  }
  meter.timed().wait();
  OCTAVO_RETURN_IF_ERROR(cuda::take_error());
  return made;
}

Status CudaActivations::quantize(int copy) const {
  std::byte* const data = buffer_.data() + copy * stride_;
  const MatrixView x(data, dtype_, M_, K_, row_bytes(dtype_, K_), kGpu);
  const MutableMatrixView q(data + round_up(x_bytes_, 64), DType::kInt8, M_, K_, K_, kGpu);
  const MutableMatrixView scale(data + scale_offset_, DType::kFloat32, M_, 1, 4, kGpu);
  return quantize_per_token(x, kPerChannel, q, scale, meter_.stream());
}

void CudaActivations::move(int copy) const {
  std::byte* const data = buffer_.data() + copy * stride_;
  read_and_write(data, x_bytes_, bits_of(dtype_) / 8, data + round_up(x_bytes_, 64), meter_.stream());
}

}  // namespace octavo::bench
