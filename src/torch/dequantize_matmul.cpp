#include "torch/dequantize_matmul.h"

#include <algorithm>
#include <array>

#include "core/cuda.h"
#include "core/half.h"
#include "gemm/check.h"
#include "gemm/cuda/store.h"
#include "gemm/kernels.h"

namespace octavo::torch_ops {
namespace {

constexpr int64_t kReferenceLimit = 1 << 16;  // multiplications
// Of dequantized weights in a block.
constexpr int64_t kBlockElements = 1 << 22;      // 16 MiB
constexpr int64_t kCudaBlockElements = 1 << 26;  // 256 MiB

// y = sums + bias, rounded to y's type.
void store_on_cpu(const MatrixView& sums, const MatrixView& bias, const MutableMatrixView& y) {
  const int64_t grain = std::max<int64_t>(1, 16384 / std::max<int64_t>(sums.cols, 1));
  torch_threads().run(0, y.rows, grain, [&](int64_t begin, int64_t end) {
    visit_float(y.dtype, [&](auto type) {
      using T = decltype(type);
      for (int64_t m = begin; m < end; ++m) {
        const float* in = sums.row<float>(m);
        T* out = y.row<T>(m);
        if (bias.empty()) {
          for (int64_t n = 0; n < sums.cols; ++n) out[n] = from_float<T>(in[n]);
        } else {
          visit_float(bias.dtype, [&](auto bias_type) {
            const auto* b = bias.row<decltype(bias_type)>(0);
            for (int64_t n = 0; n < sums.cols; ++n) out[n] = from_float<T>(in[n] + to_float(b[n]));
          });
        }
      }
    });
  });
}

void store([[maybe_unused]] Stream stream, const MatrixView& sums, const MatrixView& bias, const MutableMatrixView& y) {
  if (y.device.type == DeviceType::kCpu) return store_on_cpu(sums, bias, y);
#if OCTAVO_HAVE_CUDA
  const cuda::DeviceGuard guard(y.device);
  cuda_store(sums, bias, y, stream);
  check(cuda::take_error());
#endif
}

Status dequantize_on(const MutableMatrixView& out, const QuantizedWeight& w, Stream stream) {
  if (out.device.type == DeviceType::kCuda) return dequantize(w, out, stream);
  return dequantize(w, out, torch_threads());
}

// Columns [begin, end) of a matrix.
template <class View>
View slice_columns(View m, int64_t begin, int64_t end) {
  m.data = m.template row<char>(0) + row_bytes(m.dtype, begin);
  m.cols = end - begin;
  return m;
}

// Rows [begin, end) of a weight.
QuantizedWeight slice_channels(QuantizedWeight w, int64_t begin, int64_t end) {
  w.q = w.q.slice_rows(begin, end);
  if (w.format.group_size == kPerTensor) return w;
  w.scale = w.scale.slice_rows(begin, end);
  if (!w.format.symmetric) w.zero_point = w.zero_point.slice_rows(begin, end);
  return w;
}

// a [M, K] · bᵀ [N, K], float32. Into a tensor of its own, because autocast would compute any other form in 16 bits.
Tensor float32_product(const Tensor& a, const Tensor& b) {
  const Tensor out = new_tensor({a.size(0), b.size(0)}, ScalarType::Float, device_of(a, "x"));
  std::array<StableIValue, 3> stack = {torch::stable::detail::from(a),
                                       torch::stable::detail::from(torch::stable::transpose(b, 0, 1)),
                                       torch::stable::detail::from(out)};
  TORCH_ERROR_CODE_CHECK(torch_call_dispatcher("aten::mm", "out", stack.data(), TORCH_ABI_VERSION));
  return torch::stable::detail::to<Tensor>(stack[0]);
}

void dequantize_matmul(const Tensor& x, const Arguments& a) {
  const int64_t K = a.x.cols;
  const Device& device = a.x.device;
  const Tensor rows = torch::stable::to(torch::stable::view(x, std::vector<int64_t>{a.y.rows, K}), ScalarType::Float);
  const int64_t elements = device.type == DeviceType::kCpu ? kBlockElements : kCudaBlockElements;
  const int64_t block = std::max<int64_t>(1, elements / std::max<int64_t>(K, 1));
  for (int64_t first = 0; first < a.y.cols; first += block) {
    const int64_t last = std::min(first + block, a.y.cols);
    Tensor weights = new_tensor({last - first, K}, ScalarType::Float, device);
    check(dequantize_on(mutable_matrix_of(weights, "weights"), slice_channels(a.w, first, last), a.stream));
    const Tensor sums = float32_product(rows, weights);
    const MatrixView bias = a.bias.empty() ? MatrixView() : slice_columns(a.bias, first, last);
    store(a.stream, matrix_of(sums, "sums"), bias, slice_columns(a.y, first, last));
  }
}

}  // namespace

bool too_large_for(std::string_view kernel, const Problem& p) {
  return p.op == Op::kLinear && p.layout == Layout::kRowMajor && kernel.ends_with("_reference") &&
         p.M * p.N * p.K > kReferenceLimit;
}

void linear_or_dequantize(const Tensor& x, const Arguments& a) {
  check(check_linear(a));
  const Problem problem = problem_of(Op::kLinear, a);
  const Result<const Kernel*> kernel = find_kernel(problem);
  check(kernel.status());
  if (too_large_for((*kernel)->name, problem)) {
    dequantize_matmul(x, a);
  } else {
    check(run_kernel(**kernel, a, torch_threads()));
  }
}

}  // namespace octavo::torch_ops
