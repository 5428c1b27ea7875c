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

// From so many tokens on it costs less to round all weights to 16 bits once and to multiply those, up to 512 MiB of them,
// than what a kernel loses: on Hopper to scales that change every 32 weights (measured on an H100), the one of mma.sync to
// cuBLAS, with groups or without (an estimate: an A100 writes and reads such weights in the time in which it multiplies 400
// tokens).
constexpr int64_t kManyTokens = 4096;
constexpr int64_t kManyTokensSm80 = 1024;
constexpr int64_t kMaxRounded = 1 << 28;  // weights

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

// Rows [begin, end) of a weight.
QuantizedWeight slice_channels(QuantizedWeight w, int64_t begin, int64_t end) {
  w.q = w.q.slice_rows(begin, end);
  if (w.format.group_size == kPerTensor) return w;
  w.scale = w.scale.slice_rows(begin, end);
  if (!w.format.symmetric) w.zero_point = w.zero_point.slice_rows(begin, end);
  return w;
}

// out = a [M, K] · bᵀ [N, K], all of one type: the form of it that autocast leaves alone.
Tensor product_into(const Tensor& a, const Tensor& b, const Tensor& out) {
  std::array<StableIValue, 3> stack = {torch::stable::detail::from(a),
                                       torch::stable::detail::from(torch::stable::transpose(b, 0, 1)),
                                       torch::stable::detail::from(out)};
  TORCH_ERROR_CODE_CHECK(torch_call_dispatcher("aten::mm", "out", stack.data(), TORCH_ABI_VERSION));
  return torch::stable::detail::to<Tensor>(stack[0]);
}

Tensor float32_product(const Tensor& a, const Tensor& b) {
  return product_into(a, b, new_tensor({a.size(0), b.size(0)}, ScalarType::Float, device_of(a, "x")));
}

bool rounds_first(std::string_view kernel, const Problem& p) {
  if (p.N * p.K > kMaxRounded) return false;
  if (kernel == "cuda_float_w8_sm80" || kernel == "cuda_float_w4_sm80") return p.M >= kManyTokensSm80;
  return kernel.starts_with("cuda_float_w") && kernel.ends_with("_sm90") && has_short_groups(p) && p.M >= kManyTokens;
}

// y = x · ŵᵀ, all in x's type, with the sums that torch allows cuBLAS (allow_*_reduced_precision_reduction). Without a bias,
// which would be a second rounding.
void product_of_rounded(const Tensor& x, const Arguments& a, Tensor& y) {
  const Tensor rows = torch::stable::view(x, std::vector<int64_t>{a.y.rows, a.x.cols});
  Tensor weights = new_tensor({a.y.cols, a.x.cols}, x.scalar_type(), a.x.device);
  check(dequantize(a.w, mutable_matrix_of(weights, "weights"), a.stream));
  product_into(rows, weights, torch::stable::view(y, std::vector<int64_t>{a.y.rows, a.y.cols}));
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
    const MatrixView bias = a.bias.empty() ? MatrixView() : a.bias.slice_columns(first, last);
    store(a.stream, matrix_of(sums, "sums"), bias, a.y.slice_columns(first, last));
  }
}

}  // namespace

bool too_large_for(std::string_view kernel, const Problem& p) {
  if (p.op != Op::kLinear || p.layout != Layout::kRowMajor) return false;
  if (p.device.type == DeviceType::kCuda && is_kernel_forced(p.op, p.device.type)) return false;
  if (kernel.ends_with("_reference")) return p.M * p.N * p.K > kReferenceLimit;
  return rounds_first(kernel, p);
}

void linear_or_dequantize(const Tensor& x, const Arguments& a, Tensor& y) {
  check(check_linear(a));
  const Problem problem = problem_of(Op::kLinear, a);
  const Result<const Kernel*> kernel = find_kernel(problem);
  check(kernel.status());
  if (!too_large_for((*kernel)->name, problem) || (rounds_first((*kernel)->name, problem) && !a.bias.empty())) {
    check(run_kernel(**kernel, a, torch_threads()));
  } else if (rounds_first((*kernel)->name, problem)) {
    product_of_rounded(x, a, y);
  } else {
    dequantize_matmul(x, a);
  }
}

}  // namespace octavo::torch_ops
