#include "octavo/gemm.h"

#include "core/macros.h"
#include "gemm/check.h"
#include "gemm/kernels.h"

namespace octavo {
namespace {

Status run(Op op, const Arguments& a, Parallel& parallel) {
  const Problem problem = {op, a.x.dtype, a.w.q.dtype, a.w.format, a.x.rows, a.w.q.rows, a.x.cols, a.x.device};
  OCTAVO_ASSIGN_OR_RETURN(const Kernel* kernel, find_kernel(problem));
  if (!a.y.empty()) kernel->run(a, parallel);
  return {};
}

}  // namespace

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
  }
  return "unknown";
}

Status linear(const MatrixView& x, const QuantizedWeight& w, const MatrixView& bias, const MutableMatrixView& y,
              Parallel& parallel) {
  const Arguments a = {x, {}, w, bias, y};
  OCTAVO_RETURN_IF_ERROR(check_linear(a));
  return run(Op::kLinear, a, parallel);
}

Status scaled_mm(const MatrixView& x, const MatrixView& x_scale, const MatrixView& w, const MatrixView& w_scale,
                 const MatrixView& bias, const MutableMatrixView& y, Parallel& parallel) {
  const Arguments a = {x, x_scale, {WeightFormat{}, w, w_scale, {}}, bias, y};
  OCTAVO_RETURN_IF_ERROR(check_scaled_mm(a));
  return run(Op::kScaledMm, a, parallel);
}

Status matmul(const MatrixView& x, const MatrixView& w, float alpha, const MutableMatrixView& y, Parallel& parallel) {
  const float one = 1;
  return scaled_mm(x, MatrixView(&one, DType::kFloat32, 1, 1), w, MatrixView(&alpha, DType::kFloat32, 1, 1), {}, y,
                   parallel);
}

Status linear_w4a8(const MatrixView& x, const QuantizedWeight& w, const MatrixView& bias, const MutableMatrixView& y,
                   Parallel& parallel) {
  const Arguments a = {x, {}, w, bias, y};
  OCTAVO_RETURN_IF_ERROR(check_linear_w4a8(a));
  return run(Op::kLinearW4A8, a, parallel);
}

Status linear_llm_int8(const MatrixView& x, const QuantizedWeight& w, float threshold, OutlierRule rule,
                       const MatrixView& bias, const MutableMatrixView& y, Parallel& parallel) {
  const Arguments a = {x, {}, w, bias, y, threshold, rule};
  OCTAVO_RETURN_IF_ERROR(check_linear_llm_int8(a));
  return run(Op::kLinearLlmInt8, a, parallel);
}

}  // namespace octavo
