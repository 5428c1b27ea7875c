#include "octavo/gemm.h"

#include <algorithm>

#include "core/aligned_buffer.h"
#include "core/cuda.h"
#include "core/error.h"
#include "core/macros.h"
#include "gemm/alignment.h"
#include "gemm/check.h"
#include "gemm/kernels.h"
#include "gemm/quantized_rows.h"
#include "quantize/check.h"
#include "quantize/cuda/activations.h"

namespace octavo {
namespace {

// What checks and the table ask of a packed weight: format and shape, as if it were row-major.
QuantizedWeight described(const PackedWeight& w) {
  return {w.format, MatrixView(nullptr, storage_dtype(w.format, w.format.num_bits <= 4), w.N, w.K), {}, {}};
}

Arguments with_packed(const MatrixView& x, const PackedWeight& w, const MatrixView& bias, const MutableMatrixView& y) {
  Arguments a = {x, {}, described(w), bias, y};
  a.packed = w;
  return a;
}

// For the raw sums of scaled_mm, which take no scales.
constexpr float kOne = 1;

Status run_packed(const Kernel& kernel, Arguments a, Parallel& parallel) {
  if (a.w.scale.data == nullptr) {
    a.w.format.group_size = kPerTensor;
    a.w.scale = MatrixView(&kOne, DType::kFloat32, 1, 1);
  }
  OCTAVO_ASSIGN_OR_RETURN(const std::int64_t bytes, packed_bytes(kernel.layout, a.w.format, a.w.q.rows, a.w.q.cols));
  AlignedBuffer<std::byte> buffer(bytes);
  const MutablePackedWeight packed = {kernel.layout, a.w.format, a.w.q.rows, a.w.q.cols, buffer.span()};
  OCTAVO_RETURN_IF_ERROR(pack(a.w, packed, parallel));
  a.packed = as_const(packed);
  kernel.run(a, parallel);
  return {};
}

Layout layout_of(const Arguments& a) { return a.packed.data.empty() ? Layout::kRowMajor : a.packed.layout; }

Status run(Op op, const Arguments& a, Parallel& parallel) {
  OCTAVO_ASSIGN_OR_RETURN(const Kernel* kernel, find_kernel(problem_of(op, a)));
  return run_kernel(*kernel, a, parallel);
}

// Bytes from one row of quantized activations to the next in a workspace: kernels that read 16 bytes at a time take them.
std::int64_t padded_row(std::int64_t K) { return (K + 15) / 16 * 16; }

Status run_on_cuda(Op op, const Arguments& a) { return run(op, a, serial()); }

Status run_linear(const Arguments& a, Parallel& parallel) {
  OCTAVO_RETURN_IF_ERROR(check_on_cpu(a.x, "x"));
  OCTAVO_RETURN_IF_ERROR(check_linear(a));
  return run(Op::kLinear, a, parallel);
}

Status run_scaled_mm(const Arguments& a, Parallel& parallel) {
  OCTAVO_RETURN_IF_ERROR(check_on_cpu(a.x, "x"));
  OCTAVO_RETURN_IF_ERROR(check_scaled_mm(a));
  return run(Op::kScaledMm, a, parallel);
}

Status run_w8a8(Arguments a, Parallel& parallel) {
  OCTAVO_RETURN_IF_ERROR(check_on_cpu(a.x, "x"));
  OCTAVO_RETURN_IF_ERROR(check_linear_w8a8(a));
  const QuantizedRows x(a.x, kPerChannel, parallel);
  a.x = x.q();
  a.x_scale = x.scale();
  return run_scaled_mm(a, parallel);
}

Status run_w8a8_static(Arguments a, Parallel& parallel) {
  OCTAVO_RETURN_IF_ERROR(check_on_cpu(a.x, "x"));
  OCTAVO_RETURN_IF_ERROR(check_linear_w8a8(a));
  AlignedBuffer<std::int8_t> buffer(a.x.rows * a.x.cols);
  const MutableMatrixView q(buffer.data(), DType::kInt8, a.x.rows, a.x.cols);
  OCTAVO_RETURN_IF_ERROR(quantize_static(a.x, a.x_scale, q, parallel));
  a.x = as_const(q);
  return run_scaled_mm(a, parallel);
}

// The row that quantizes x itself, where there is one for it and none is forced that does not.
Result<const Kernel*> kernel_for_all_of_it(const Arguments& a) {
  if (is_kernel_forced(Op::kScaledMm, a.x.device.type)) return static_cast<const Kernel*>(nullptr);
  return kernel_if_any(problem_of(Op::kLinearW8A8, a));
}

// W8A8 on CUDA: quantize(q, scale) puts x into the workspace, and its scale where it is not given.
template <class Quantize>
Status run_w8a8_on_cuda(Arguments a, std::span<std::byte> workspace, const Quantize& quantize) {
  OCTAVO_RETURN_IF_ERROR(check_on_cuda(a.x, "x"));
  OCTAVO_RETURN_IF_ERROR(check_linear_w8a8(a));
  const std::int64_t bytes = w8a8_workspace_bytes(a.x.rows, a.x.cols);
  if (static_cast<std::int64_t>(workspace.size()) < bytes) {
    return invalid("the workspace has {} bytes; [{}, {}] needs {}", workspace.size(), a.x.rows, a.x.cols, bytes);
  }
  if (a.y.empty()) return {};
  if (a.x_scale.data == nullptr) {
    OCTAVO_ASSIGN_OR_RETURN(const Kernel* whole, kernel_for_all_of_it(a));
    if (whole != nullptr) return run_kernel(*whole, a, serial());
  }
  const std::int64_t stride = padded_row(a.x.cols);
  const MutableMatrixView q(workspace.data(), DType::kInt8, a.x.rows, a.x.cols, stride, a.x.device);
  const MutableMatrixView scale(workspace.data() + a.x.rows * stride, DType::kFloat32, a.x.rows, 1, sizeof(float),
                                a.x.device);
  OCTAVO_RETURN_IF_ERROR(quantize(q, scale));
  a.x = as_const(q);
  if (a.x_scale.data == nullptr) a.x_scale = as_const(scale);
  OCTAVO_RETURN_IF_ERROR(check_scaled_mm(a));
  return run_on_cuda(Op::kScaledMm, a);
}

Status run_w4a8(const Arguments& a, Parallel& parallel) {
  OCTAVO_RETURN_IF_ERROR(check_on_cpu(a.x, "x"));
  OCTAVO_RETURN_IF_ERROR(check_linear_w4a8(a));
  return run(Op::kLinearW4A8, a, parallel);
}

Status run_llm_int8(const Arguments& a, Parallel& parallel) {
  OCTAVO_RETURN_IF_ERROR(check_on_cpu(a.x, "x"));
  OCTAVO_RETURN_IF_ERROR(check_linear_llm_int8(a));
  return run(Op::kLinearLlmInt8, a, parallel);
}

}  // namespace

Problem problem_of(Op op, const Arguments& a) {
  return {op,         a.x.dtype, a.w.q.dtype, a.w.format,   a.x.rows,
          a.w.q.rows, a.x.cols,  a.x.device,  layout_of(a), std::min(alignment_of(a.x), alignment_of(a.w.q))};
}

Status run_kernel(const Kernel& kernel, const Arguments& a, Parallel& parallel) {
  if (a.y.empty()) return {};
  if (kernel.device == DeviceType::kCuda) {
    const cuda::DeviceGuard guard(a.x.device);
    kernel.run(a, parallel);
    return cuda::take_error();
  }
  if (kernel.layout != layout_of(a)) return run_packed(kernel, a, parallel);
  kernel.run(a, parallel);
  return {};
}

std::string_view to_string(Op op) {
  switch (op) {
    case Op::kLinear:
      return "linear";
    case Op::kScaledMm:
      return "scaled_mm";
    case Op::kLinearW4A8:
      return "linear_w4a8";
    case Op::kLinearLlmInt8:
      return "linear_llm_int8";
    case Op::kLinearW8A8:
      return "linear_w8a8";
  }
  return "unknown";
}

Status linear(const MatrixView& x, const QuantizedWeight& w, const MatrixView& bias, const MutableMatrixView& y,
              Parallel& parallel) {
  return run_linear({x, {}, w, bias, y}, parallel);
}

Status linear(const MatrixView& x, const PackedWeight& w, const MatrixView& bias, const MutableMatrixView& y,
              Parallel& parallel) {
  return run_linear(with_packed(x, w, bias, y), parallel);
}

Status linear(const MatrixView& x, const QuantizedWeight& w, const MatrixView& bias, const MutableMatrixView& y,
              Stream stream) {
  Arguments a = {x, {}, w, bias, y};
  a.stream = stream;
  a.constant_w = true;  // a layer's: complete, says the header
  OCTAVO_RETURN_IF_ERROR(check_on_cuda(x, "x"));
  OCTAVO_RETURN_IF_ERROR(check_linear(a));
  return run_on_cuda(Op::kLinear, a);
}

Status scaled_mm(const MatrixView& x, const MatrixView& x_scale, const MatrixView& w, const MatrixView& w_scale,
                 const MatrixView& bias, const MutableMatrixView& y, Parallel& parallel) {
  const WeightFormat format = {8, true, w_scale.rows == 1 ? kPerTensor : kPerChannel};
  return run_scaled_mm({x, x_scale, {format, w, w_scale, {}}, bias, y}, parallel);
}

Status scaled_mm(const MatrixView& x, const MatrixView& x_scale, const MatrixView& w, const MatrixView& w_scale,
                 const MatrixView& bias, const MutableMatrixView& y, Stream stream, bool constant_w) {
  const WeightFormat format = {8, true, w_scale.rows == 1 ? kPerTensor : kPerChannel};
  Arguments a = {x, x_scale, {format, w, w_scale, {}}, bias, y};
  a.stream = stream;
  a.constant_w = constant_w;
  OCTAVO_RETURN_IF_ERROR(check_on_cuda(x, "x"));
  OCTAVO_RETURN_IF_ERROR(check_scaled_mm(a));
  return run_on_cuda(Op::kScaledMm, a);
}

Status scaled_mm(const MatrixView& x, const MatrixView& x_scale, const PackedWeight& w, const MatrixView& bias,
                 const MutableMatrixView& y, Parallel& parallel) {
  Arguments a = with_packed(x, w, bias, y);
  a.x_scale = x_scale;
  return run_scaled_mm(a, parallel);
}

Status linear_w8a8(const MatrixView& x, const QuantizedWeight& w, const MatrixView& bias, const MutableMatrixView& y,
                   Parallel& parallel) {
  return run_w8a8({x, {}, w, bias, y}, parallel);
}

Status linear_w8a8(const MatrixView& x, const PackedWeight& w, const MatrixView& bias, const MutableMatrixView& y,
                   Parallel& parallel) {
  return run_w8a8(with_packed(x, w, bias, y), parallel);
}

std::int64_t w8a8_workspace_bytes(std::int64_t M, std::int64_t K) {
  return M * padded_row(K) + M * static_cast<std::int64_t>(sizeof(float));
}

Status linear_w8a8(const MatrixView& x, const QuantizedWeight& w, const MatrixView& bias, const MutableMatrixView& y,
                   std::span<std::byte> workspace, Stream stream, bool constant_w) {
  Arguments a = {x, {}, w, bias, y};
  a.stream = stream;
  a.constant_w = constant_w;
  return run_w8a8_on_cuda(a, workspace, [&](const MutableMatrixView& q, const MutableMatrixView& scale) {
    return cuda::on_device(x.device,
                           [&] { cuda_quantize_per_token(x, kPerChannel, q, scale, stream, ReadBy::kNextKernel); });
  });
}

Status linear_w8a8_static(const MatrixView& x, const MatrixView& x_scale, const QuantizedWeight& w, const MatrixView& bias,
                          const MutableMatrixView& y, Parallel& parallel) {
  return run_w8a8_static({x, x_scale, w, bias, y}, parallel);
}

Status linear_w8a8_static(const MatrixView& x, const MatrixView& x_scale, const PackedWeight& w, const MatrixView& bias,
                          const MutableMatrixView& y, Parallel& parallel) {
  Arguments a = with_packed(x, w, bias, y);
  a.x_scale = x_scale;
  return run_w8a8_static(a, parallel);
}

Status linear_w8a8_static(const MatrixView& x, const MatrixView& x_scale, const QuantizedWeight& w, const MatrixView& bias,
                          const MutableMatrixView& y, std::span<std::byte> workspace, Stream stream, bool constant_w) {
  Arguments a = {x, x_scale, w, bias, y};
  a.stream = stream;
  a.constant_w = constant_w;
  return run_w8a8_on_cuda(a, workspace, [&](const MutableMatrixView& q, const MutableMatrixView&) {
    OCTAVO_RETURN_IF_ERROR(check_static(x, x_scale, q));
    return cuda::on_device(x.device, [&] { cuda_quantize_static(x, x_scale, q, stream, ReadBy::kNextKernel); });
  });
}

Status matmul(const MatrixView& x, const MatrixView& w, float alpha, const MutableMatrixView& y, Parallel& parallel) {
  return scaled_mm(x, MatrixView(&kOne, DType::kFloat32, 1, 1), w, MatrixView(&alpha, DType::kFloat32, 1, 1), {}, y,
                   parallel);
}

Status matmul(const MatrixView& x, const MatrixView& w, float alpha, const MutableMatrixView& y, Stream stream) {
  Arguments a = {x, {}, {{8, true, kPerTensor}, w, {}, {}}, {}, y};
  a.stream = stream;
  a.alpha = alpha;
  OCTAVO_RETURN_IF_ERROR(check_on_cuda(x, "x"));
  OCTAVO_RETURN_IF_ERROR(check_matmul(a));
  return run_on_cuda(Op::kScaledMm, a);
}

Status linear_w4a8(const MatrixView& x, const QuantizedWeight& w, const MatrixView& bias, const MutableMatrixView& y,
                   Parallel& parallel) {
  return run_w4a8({x, {}, w, bias, y}, parallel);
}

Status linear_w4a8(const MatrixView& x, const PackedWeight& w, const MatrixView& bias, const MutableMatrixView& y,
                   Parallel& parallel) {
  return run_w4a8(with_packed(x, w, bias, y), parallel);
}

Status linear_llm_int8(const MatrixView& x, const QuantizedWeight& w, float threshold, OutlierRule rule,
                       const MatrixView& bias, const MutableMatrixView& y, Parallel& parallel) {
  return run_llm_int8({x, {}, w, bias, y, threshold, rule}, parallel);
}

Status linear_llm_int8(const MatrixView& x, const PackedWeight& w, float threshold, OutlierRule rule, const MatrixView& bias,
                       const MutableMatrixView& y, Parallel& parallel) {
  Arguments a = with_packed(x, w, bias, y);
  a.threshold = threshold;
  a.rule = rule;
  return run_llm_int8(a, parallel);
}

}  // namespace octavo
