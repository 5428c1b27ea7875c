// What stands in front of a product, each the same code on the CPU and on CUDA: octavo/fused.h, and static scales.
#include <tuple>

#include "torch/cuda_stream.h"
#include "torch/tensors.h"

namespace octavo::torch_ops {
namespace {

// Calls function(where) with what puts its work on a device: torch's threads, or its current stream there.
template <class Function>
void run_on([[maybe_unused]] const Device& device, const Function& function) {
#if OCTAVO_HAVE_CUDA
  if (device.type == DeviceType::kCuda) return check(function(stream_on(device)));
#endif
  check(function(torch_threads()));
}

// What quantizing x [..., K] gives.
struct QuantizedRows {
  QuantizedRows(const Tensor& x, int64_t K, const Device& device)
      : q(new_tensor(with_last(x, K), ScalarType::Char, device)),
        scale(new_tensor(with_last(x, 1), ScalarType::Float, device)),
        q_view(mutable_matrix_of(q, "q")),
        scale_view(mutable_matrix_of(scale, "scale")) {}

  Tensor q, scale;
  MutableMatrixView q_view, scale_view;
};

Tensor quantize_static_op(const Tensor& x, const Tensor& scale) {
  const Device device = device_of(x, "x");
  const Tensor in = as_contiguous(x);
  const Tensor one = as_contiguous(scale);
  const MatrixView rows = matrix_of(in, "x");
  Tensor q = new_tensor(with_last(in, rows.cols), ScalarType::Char, device);
  run_on(device,
         [&](auto&& where) { return quantize_static(rows, column_of(one, "scale"), mutable_matrix_of(q, "q"), where); });
  return q;
}

std::tuple<Tensor, Tensor> rms_norm_quantize_op(const Tensor& x, const Tensor& weight, double eps) {
  const Device device = device_of(x, "x");
  const Tensor in = as_contiguous(x);
  const Tensor w = as_contiguous(weight);
  const MatrixView rows = matrix_of(in, "x"), factors = vector_of(w, "weight");
  QuantizedRows out(in, rows.cols, device);
  run_on(device, [&](auto&& where) {
    return rms_norm_quantize(rows, factors, static_cast<float>(eps), out.q_view, out.scale_view, where);
  });
  return {out.q, out.scale};
}

Tensor rms_norm_op(const Tensor& x, const Tensor& weight, double eps) {
  const Device device = device_of(x, "x");
  const Tensor in = as_contiguous(x);
  const Tensor w = as_contiguous(weight);
  const MatrixView rows = matrix_of(in, "x"), factors = vector_of(w, "weight");
  Tensor y = new_tensor(with_last(in, rows.cols), in.scalar_type(), device);
  run_on(device,
         [&](auto&& where) { return rms_norm(rows, factors, static_cast<float>(eps), mutable_matrix_of(y, "y"), where); });
  return y;
}

std::tuple<Tensor, Tensor, Tensor> add_rms_norm_quantize_op(const Tensor& x, const Tensor& residual, const Tensor& weight,
                                                            double eps) {
  const Device device = device_of(x, "x");
  const Tensor in = as_contiguous(x);
  const Tensor other = as_contiguous(residual);
  const Tensor w = as_contiguous(weight);
  const MatrixView rows = matrix_of(in, "x"), factors = vector_of(w, "weight");
  QuantizedRows out(in, rows.cols, device);
  Tensor sum = new_tensor(with_last(in, rows.cols), in.scalar_type(), device);
  run_on(device, [&](auto&& where) {
    return add_rms_norm_quantize(rows, matrix_of(other, "residual"), factors, static_cast<float>(eps),
                                 mutable_matrix_of(sum, "sum"), out.q_view, out.scale_view, where);
  });
  return {out.q, out.scale, sum};
}

std::tuple<Tensor, Tensor> add_rms_norm_op(const Tensor& x, const Tensor& residual, const Tensor& weight, double eps) {
  const Device device = device_of(x, "x");
  const Tensor in = as_contiguous(x);
  const Tensor other = as_contiguous(residual);
  const Tensor w = as_contiguous(weight);
  const MatrixView rows = matrix_of(in, "x"), factors = vector_of(w, "weight");
  Tensor y = new_tensor(with_last(in, rows.cols), in.scalar_type(), device);
  Tensor sum = new_tensor(with_last(in, rows.cols), in.scalar_type(), device);
  run_on(device, [&](auto&& where) {
    return add_rms_norm(rows, matrix_of(other, "residual"), factors, static_cast<float>(eps), mutable_matrix_of(sum, "sum"),
                        mutable_matrix_of(y, "y"), where);
  });
  return {y, sum};
}

// Gate and up: two tensors, or the halves of one's rows.
struct GateAndUp {
  GateAndUp(const Tensor& gate_up, const std::optional<Tensor>& up_or_none) : first(as_contiguous(gate_up)) {
    gate = up = matrix_of(first, "gate");
    if (up_or_none) {
      second = as_contiguous(*up_or_none);
      up = matrix_of(*second, "up");
      return;
    }
    require(gate.cols % 2 == 0, "gate has ", gate.cols, " columns; without up they are gate's and up's, an even number");
    gate.cols = up.cols = gate.cols / 2;
    up.data = static_cast<const char*>(gate.data) + row_bytes(gate.dtype, gate.cols);
  }

  Tensor first;
  std::optional<Tensor> second;
  MatrixView gate, up;
};

std::tuple<Tensor, Tensor> silu_mul_quantize_op(const Tensor& gate, const std::optional<Tensor>& up) {
  const Device device = device_of(gate, "gate");
  const GateAndUp in(gate, up);
  QuantizedRows out(in.first, in.gate.cols, device);
  run_on(device, [&](auto&& where) { return silu_mul_quantize(in.gate, in.up, out.q_view, out.scale_view, where); });
  return {out.q, out.scale};
}

Tensor silu_mul_op(const Tensor& gate, const std::optional<Tensor>& up) {
  const Device device = device_of(gate, "gate");
  const GateAndUp in(gate, up);
  Tensor y = new_tensor(with_last(in.first, in.gate.cols), in.first.scalar_type(), device);
  run_on(device, [&](auto&& where) { return silu_mul(in.gate, in.up, mutable_matrix_of(y, "y"), where); });
  return y;
}

void add_kernels(torch::stable::detail::StableLibrary& m) {
  m.impl("quantize_static", TORCH_BOX(&quantize_static_op));
  m.impl("rms_norm_quantize", TORCH_BOX(&rms_norm_quantize_op));
  m.impl("add_rms_norm_quantize", TORCH_BOX(&add_rms_norm_quantize_op));
  m.impl("silu_mul_quantize", TORCH_BOX(&silu_mul_quantize_op));
  m.impl("rms_norm", TORCH_BOX(&rms_norm_op));
  m.impl("add_rms_norm", TORCH_BOX(&add_rms_norm_op));
  m.impl("silu_mul", TORCH_BOX(&silu_mul_op));
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(octavo, CPU, m) { add_kernels(m); }

#if OCTAVO_HAVE_CUDA
STABLE_TORCH_LIBRARY_IMPL(octavo, CUDA, m) { add_kernels(m); }
#endif

}  // namespace octavo::torch_ops
