#include "torch/dequantize_matmul.h"

#include <algorithm>
#include <array>

#include "core/half.h"

namespace octavo::torch_ops {
namespace {

constexpr int64_t kReferenceLimit = 1 << 16;  // multiplications
constexpr int64_t kBlockElements = 1 << 22;   // of dequantized weights: 16 MiB

// Columns [first, first + sums.cols) of y = sums + bias, rounded to y's type.
void store(const MatrixView& sums, const MatrixView& bias, int64_t first, const MutableMatrixView& y) {
  torch_threads().run(0, y.rows, std::max<int64_t>(1, 16384 / std::max<int64_t>(sums.cols, 1)),
                      [&](int64_t begin, int64_t end) {
                        visit_float(y.dtype, [&](auto type) {
                          using T = decltype(type);
                          for (int64_t m = begin; m < end; ++m) {
                            const float* in = sums.row<float>(m);
                            T* out = y.row<T>(m) + first;
                            if (bias.empty()) {
                              for (int64_t n = 0; n < sums.cols; ++n) out[n] = from_float<T>(in[n]);
                            } else {
                              visit_float(bias.dtype, [&](auto bias_type) {
                                const auto* b = bias.row<decltype(bias_type)>(0) + first;
                                for (int64_t n = 0; n < sums.cols; ++n) out[n] = from_float<T>(in[n] + to_float(b[n]));
                              });
                            }
                          }
                        });
                      });
}

// a [M, K] · bᵀ [N, K], float32. Into a tensor of its own, because autocast would compute any other form in 16 bits.
Tensor float32_product(const Tensor& a, const Tensor& b) {
  const Tensor out = new_tensor({a.size(0), b.size(0)}, ScalarType::Float);
  std::array<StableIValue, 3> stack = {torch::stable::detail::from(a),
                                       torch::stable::detail::from(torch::stable::transpose(b, 0, 1)),
                                       torch::stable::detail::from(out)};
  TORCH_ERROR_CODE_CHECK(torch_call_dispatcher("aten::mm", "out", stack.data(), TORCH_ABI_VERSION));
  return torch::stable::detail::to<Tensor>(stack[0]);
}

}  // namespace

bool too_large_for(std::string_view kernel, const Problem& p) {
  return p.op == Op::kLinear && p.layout == Layout::kRowMajor && kernel.ends_with("_reference") &&
         p.M * p.N * p.K > kReferenceLimit;
}

void dequantize_matmul(const Tensor& x, const QuantizedWeight& w, const MatrixView& bias, const MutableMatrixView& y) {
  const int64_t K = w.q.cols;
  const Tensor rows = torch::stable::to(torch::stable::view(x, std::vector<int64_t>{y.rows, K}), ScalarType::Float);
  const int64_t block = std::max<int64_t>(1, kBlockElements / std::max<int64_t>(K, 1));
  const bool one_range = w.format.group_size == kPerTensor;
  for (int64_t first = 0; first < y.cols; first += block) {
    const int64_t last = std::min(first + block, y.cols);
    QuantizedWeight part = w;
    part.q = w.q.slice_rows(first, last);
    if (!one_range) {
      part.scale = w.scale.slice_rows(first, last);
      if (!w.format.symmetric) part.zero_point = w.zero_point.slice_rows(first, last);
    }
    Tensor weights = new_tensor({last - first, K}, ScalarType::Float);
    check(dequantize(part, mutable_matrix_of(weights, "weights"), torch_threads()));
    store(matrix_of(float32_product(rows, weights), "sums"), bias, first, y);
  }
}

}  // namespace octavo::torch_ops
