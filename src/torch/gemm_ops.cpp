#include <string>

#include "gemm/check.h"
#include "torch/dequantize_matmul.h"
#include "torch/tensors.h"

namespace octavo::torch_ops {
namespace {

// Holds a contiguous bias, or none.
struct Bias {
  explicit Bias(const std::optional<Tensor>& bias) {
    if (bias) tensor = torch::stable::contiguous(*bias);
    view = vector_of(tensor, "bias");
  }
  std::optional<Tensor> tensor;
  MatrixView view;
};

std::string kernel_for(const Problem& problem) {
  Result<Selection> selection = select_kernel(problem);
  check(selection.status());
  return std::string(selection->kernel);
}

Tensor linear_op(const Tensor& x, const Tensor& q, const Tensor& scale, const std::optional<Tensor>& zero_point,
                 const std::optional<Tensor>& bias, int64_t num_bits, int64_t group_size, bool packed) {
  const Tensor in = torch::stable::contiguous(x);
  const MatrixView a = matrix_of(in, "x");
  const Weight weight(q, scale, zero_point, num_bits, group_size, packed, a.cols);
  const QuantizedWeight& w = weight.view();
  const Bias b(bias);
  Tensor y = new_tensor(with_last(in, weight.rows()), in.scalar_type());
  const MutableMatrixView out = mutable_matrix_of(y, "y");
  const Problem problem = {Op::kLinear, a.dtype, w.q.dtype, w.format, a.rows, weight.rows(), a.cols, {}};
  if (too_large_for(kernel_for(problem), a.rows, weight.rows(), a.cols)) {
    check(check_linear({a, {}, w, b.view, out}));
    dequantize_matmul(in, w, b.view, out);
  } else {
    check(linear(a, w, b.view, out, torch_threads()));
  }
  return y;
}

Tensor linear_w4a8_op(const Tensor& x, const Tensor& q, const Tensor& scale, const std::optional<Tensor>& zero_point,
                      const std::optional<Tensor>& bias, int64_t num_bits, int64_t group_size, bool packed) {
  const Tensor in = torch::stable::contiguous(x);
  const MatrixView a = matrix_of(in, "x");
  const Weight weight(q, scale, zero_point, num_bits, group_size, packed, a.cols);
  const Bias b(bias);
  Tensor y = new_tensor(with_last(in, weight.rows()), in.scalar_type());
  check(linear_w4a8(a, weight.view(), b.view, mutable_matrix_of(y, "y"), torch_threads()));
  return y;
}

// Symmetric 8-bit weights with one scale a channel or one in all.
int64_t group_size_of(const Tensor& scale) { return scale.numel() == 1 ? kPerTensor : kPerChannel; }

Tensor linear_llm_int8_op(const Tensor& x, const Tensor& q, const Tensor& scale, const std::optional<Tensor>& bias,
                          double threshold, int64_t rule) {
  require(rule == 0 || rule == 1, "the outlier rule is 0 (token) or 1 (batch), not ", rule);
  const Tensor in = torch::stable::contiguous(x);
  const MatrixView a = matrix_of(in, "x");
  const Weight weight(q, scale, std::nullopt, 8, group_size_of(scale), false, a.cols);
  const Bias b(bias);
  Tensor y = new_tensor(with_last(in, weight.rows()), in.scalar_type());
  check(linear_llm_int8(a, weight.view(), static_cast<float>(threshold), static_cast<OutlierRule>(rule), b.view,
                        mutable_matrix_of(y, "y"), torch_threads()));
  return y;
}

// A flat scale tensor, of one element or one a row, as a column.
MatrixView column_of(const Tensor& scale, const char* name) {
  const MatrixView view = matrix_of(scale, name);
  return {view.data, view.dtype, scale.numel(), 1};
}

Tensor scaled_mm_op(const Tensor& x, const Tensor& w, const Tensor& x_scale, const Tensor& w_scale,
                    const std::optional<Tensor>& bias, ScalarType out_dtype) {
  const Tensor in = torch::stable::contiguous(x);
  const Tensor weight = torch::stable::contiguous(w);
  const Tensor in_scale = torch::stable::reshape(torch::stable::contiguous(x_scale), std::vector<int64_t>{-1});
  const Tensor weight_scale = torch::stable::reshape(torch::stable::contiguous(w_scale), std::vector<int64_t>{-1});
  require(weight.dim() == 2, "octavo: w has ", weight.dim(), " dimensions; it must be [N, K]");
  const Bias b(bias);
  Tensor y = new_tensor(with_last(in, weight.size(0)), out_dtype);
  check(scaled_mm(matrix_of(in, "x"), column_of(in_scale, "x_scale"), matrix_of(weight, "w"),
                  column_of(weight_scale, "w_scale"), b.view, mutable_matrix_of(y, "y"), torch_threads()));
  return y;
}

Tensor matmul_op(const Tensor& x, const Tensor& y, double alpha) {
  const Tensor a = torch::stable::contiguous(x);
  const Tensor b = torch::stable::contiguous(y);
  require(a.dim() == 2 && b.dim() == 2, "octavo: matmul takes x [M, K] and y [N, K], not ", a.dim(), " and ", b.dim(),
          " dimensions");
  Tensor out = new_tensor({a.size(0), b.size(0)}, ScalarType::BFloat16);
  check(matmul(matrix_of(a, "x"), matrix_of(b, "y"), static_cast<float>(alpha), mutable_matrix_of(out, "output"),
               torch_threads()));
  return out;
}

std::string select_kernel_op(int64_t op, ScalarType activation, int64_t num_bits, bool symmetric, int64_t group_size,
                             bool packed, int64_t M, int64_t N, int64_t K, bool cuda) {
  require(op >= 0 && op <= static_cast<int64_t>(Op::kLinearLlmInt8), op, " is no operation");
  if (cuda) return "cuda_torch";  // composed of torch's own operators, see python/octavo/_cuda.py
  const WeightFormat format = {static_cast<int>(num_bits), symmetric, group_size};
  const Problem problem = {
      static_cast<Op>(op), dtype_of(activation, "the activation"), storage_dtype(format, packed), format, M, N, K, {}};
  std::string kernel = kernel_for(problem);
  const bool falls_back = problem.op == Op::kLinear && too_large_for(kernel, M, N, K);
  return falls_back ? kDequantizeMatmul : kernel;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(octavo, CPU, m) {
  m.impl("linear", TORCH_BOX(&linear_op));
  m.impl("linear_w4a8", TORCH_BOX(&linear_w4a8_op));
  m.impl("linear_llm_int8", TORCH_BOX(&linear_llm_int8_op));
  m.impl("scaled_mm", TORCH_BOX(&scaled_mm_op));
  m.impl("matmul", TORCH_BOX(&matmul_op));
}

STABLE_TORCH_LIBRARY_IMPL(octavo, CompositeExplicitAutograd, m) { m.impl("select_kernel", TORCH_BOX(&select_kernel_op)); }

}  // namespace octavo::torch_ops
