#include <algorithm>
#include <string>

#include "core/cuda.h"
#include "gemm/kernels.h"
#include "torch/dequantize_matmul.h"
#include "torch/tensors.h"

namespace octavo::torch_ops {
namespace {

Tensor linear_op(const Tensor& x, const Tensor& q, const Tensor& scale, const std::optional<Tensor>& zero_point,
                 const std::optional<Tensor>& bias, int64_t num_bits, int64_t group_size, bool packed) {
  const Tensor in = as_contiguous(x);
  const MatrixView rows = matrix_of(in, "x");
  const Weight weight(q, scale, zero_point, num_bits, group_size, packed, rows.cols);
  const Bias b(bias);
  Tensor y = new_tensor(with_last(in, weight.rows()), in.scalar_type());
  const Arguments a = {rows, {}, weight.view(), b.view(), mutable_matrix_of(y, "y")};
  linear_or_dequantize(in, a, y);
  return y;
}

Tensor linear_w4a8_op(const Tensor& x, const Tensor& q, const Tensor& scale, const std::optional<Tensor>& zero_point,
                      const std::optional<Tensor>& bias, int64_t num_bits, int64_t group_size, bool packed) {
  const Tensor in = as_contiguous(x);
  const MatrixView a = matrix_of(in, "x");
  const Weight weight(q, scale, zero_point, num_bits, group_size, packed, a.cols);
  const Bias b(bias);
  Tensor y = new_tensor(with_last(in, weight.rows()), in.scalar_type());
  check(linear_w4a8(a, weight.view(), b.view(), mutable_matrix_of(y, "y"), torch_threads()));
  return y;
}

Tensor linear_llm_int8_op(const Tensor& x, const Tensor& q, const Tensor& scale, const std::optional<Tensor>& bias,
                          double threshold, int64_t rule) {
  const Tensor in = as_contiguous(x);
  const MatrixView a = matrix_of(in, "x");
  const Weight weight(q, scale, std::nullopt, 8, group_size_of(scale), false, a.cols);
  const Bias b(bias);
  Tensor y = new_tensor(with_last(in, weight.rows()), in.scalar_type());
  check(linear_llm_int8(a, weight.view(), static_cast<float>(threshold), rule_of(rule), b.view(), mutable_matrix_of(y, "y"),
                        torch_threads()));
  return y;
}

Tensor linear_w8a8_op(const Tensor& x, const Tensor& q, const Tensor& scale, const std::optional<Tensor>& bias) {
  const Tensor in = as_contiguous(x);
  const MatrixView rows = matrix_of(in, "x");
  const Weight weight(q, scale, std::nullopt, 8, group_size_of(scale), false, rows.cols);
  const Bias b(bias);
  Tensor y = new_tensor(with_last(in, weight.rows()), in.scalar_type());
  check(linear_w8a8(rows, weight.view(), b.view(), mutable_matrix_of(y, "y"), torch_threads()));
  return y;
}

Tensor linear_w8a8_static_op(const Tensor& x, const Tensor& q, const Tensor& scale, const std::optional<Tensor>& bias,
                             const Tensor& x_scale) {
  const Tensor in = as_contiguous(x);
  const Tensor in_scale = as_contiguous(x_scale);
  const MatrixView rows = matrix_of(in, "x");
  const Weight weight(q, scale, std::nullopt, 8, group_size_of(scale), false, rows.cols);
  const Bias b(bias);
  Tensor y = new_tensor(with_last(in, weight.rows()), in.scalar_type());
  check(linear_w8a8_static(rows, column_of(in_scale, "x_scale"), weight.view(), b.view(), mutable_matrix_of(y, "y"),
                           torch_threads()));
  return y;
}

Tensor scaled_mm_op(const Tensor& x, const Tensor& w, const Tensor& x_scale, const Tensor& w_scale,
                    const std::optional<Tensor>& bias, ScalarType out_dtype, bool /*constant_w*/) {
  const Tensor in = as_contiguous(x);
  const Tensor weight = as_contiguous(w);
  const Tensor in_scale = as_contiguous(x_scale);
  const Tensor weight_scale = as_contiguous(w_scale);
  require(weight.dim() == 2, "octavo: w has ", weight.dim(), " dimensions; it must be [N, K]");
  const Bias b(bias);
  Tensor y = new_tensor(with_last(in, weight.size(0)), out_dtype);
  check(scaled_mm(matrix_of(in, "x"), column_of(in_scale, "x_scale"), matrix_of(weight, "w"),
                  column_of(weight_scale, "w_scale"), b.view(), mutable_matrix_of(y, "y"), torch_threads()));
  return y;
}

Tensor matmul_op(const Tensor& x, const Tensor& y, double alpha) {
  const Tensor a = as_contiguous(x);
  const Tensor b = as_contiguous(y);
  require(a.dim() == 2 && b.dim() == 2, "octavo: matmul takes x [M, K] and y [N, K], not ", a.dim(), " and ", b.dim(),
          " dimensions");
  Tensor out = new_tensor({a.size(0), b.size(0)}, ScalarType::BFloat16);
  check(matmul(matrix_of(a, "x"), matrix_of(b, "y"), static_cast<float>(alpha), mutable_matrix_of(out, "output"),
               torch_threads()));
  return out;
}

// scaled_mm is asked for with the type that its activations have before they are quantized.
Problem problem_from(int64_t op, ScalarType activation, int64_t num_bits, bool symmetric, int64_t group_size, bool packed,
                     int64_t M, int64_t N, int64_t K) {
  const WeightFormat format = {static_cast<int>(num_bits), symmetric, group_size};
  const Op code = op_of(op);
  const DType x = code == Op::kScaledMm ? DType::kInt8 : dtype_of(activation, "the activation");
  return {code, x, storage_dtype(format, packed), format, M, N, K, {}};
}

// Whether some row of this build computes an operation on CUDA.
bool has_cuda_row(Op op) {
  return std::ranges::any_of(kernel_table(),
                             [&](const Kernel& row) { return row.op == op && row.device == DeviceType::kCuda; });
}

std::string select_kernel_op(int64_t op, ScalarType activation, int64_t num_bits, bool symmetric, int64_t group_size,
                             bool packed, int64_t layout, int64_t M, int64_t N, int64_t K, bool cuda) {
  Problem problem = problem_from(op, activation, num_bits, symmetric, group_size, packed, M, N, K);
  if (cuda) {
    if (!has_cuda_row(problem.op)) return "cuda_torch";  // composed of torch's own operators, see python/octavo/_cuda.py
    problem.device = {DeviceType::kCuda, cuda::current_device()};
  }
  require(layout == 0 || layout == 1, "the layout is 0 (row-major) or 1 (packed), not ", layout);
  problem.layout = static_cast<Layout>(layout);
  if (cuda && problem.op == Op::kScaledMm && !is_kernel_forced(problem.op, DeviceType::kCuda)) {  // the layer as a whole
    Problem whole = problem;
    whole.op = Op::kLinearW8A8;
    whole.activation = dtype_of(activation, "the activation");
    const Result<const Kernel*> kernel = kernel_if_any(whole);
    check(kernel.status());
    if (*kernel != nullptr) return std::string((*kernel)->name);
  }
  const Result<Selection> selection = select_kernel(problem);
  check(selection.status());
  return std::string(too_large_for(selection->kernel, problem) ? dequantize_matmul_name(problem.device) : selection->kernel);
}

bool has_cuda_op() { return OCTAVO_HAVE_CUDA; }

int64_t best_layout_op(int64_t op, ScalarType activation, int64_t num_bits, bool symmetric, int64_t group_size, int64_t N,
                       int64_t K) {
  return static_cast<int64_t>(
      best_layout(problem_from(op, activation, num_bits, symmetric, group_size, num_bits <= 4, 1, N, K)));
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(octavo, CPU, m) {
  m.impl("linear", TORCH_BOX(&linear_op));
  m.impl("linear_w4a8", TORCH_BOX(&linear_w4a8_op));
  m.impl("linear_llm_int8", TORCH_BOX(&linear_llm_int8_op));
  m.impl("linear_w8a8", TORCH_BOX(&linear_w8a8_op));
  m.impl("linear_w8a8_static", TORCH_BOX(&linear_w8a8_static_op));
  m.impl("scaled_mm", TORCH_BOX(&scaled_mm_op));
  m.impl("matmul", TORCH_BOX(&matmul_op));
}

STABLE_TORCH_LIBRARY_IMPL(octavo, CompositeExplicitAutograd, m) {
  m.impl("has_cuda", TORCH_BOX(&has_cuda_op));
  m.impl("select_kernel", TORCH_BOX(&select_kernel_op));
  m.impl("best_layout", TORCH_BOX(&best_layout_op));
}

}  // namespace octavo::torch_ops
