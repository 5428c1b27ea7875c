#include "core/cuda_launch.cuh"
#include "core/half.cuh"
#include "core/ptx.cuh"
#include "core/rows.cuh"
#include "gemm/cuda/epilogue.cuh"
#include "gemm/cuda/reference.h"
#include "quantize/cuda/weight.cuh"

namespace octavo {
namespace {

using cuda::Rows;
using cuda::rows_of;

constexpr int kThreads = 256;

template <class Out>
__global__ void __launch_bounds__(kThreads) s8_w8(Rows<const std::int8_t> x, Rows<const std::int8_t> w, Rows<Out> y,
                                                  cuda::Epilogue epilogue, std::int64_t M, std::int64_t N, std::int64_t K) {
  ptx::wait_for_predecessor();
  ptx::launch_dependents();
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= M * N) return;
  const std::int64_t m = i / N;
  const std::int64_t n = i % N;
  std::int32_t acc = 0;  // exact: K <= kMaxIntegerK
  for (std::int64_t k = 0; k < K; ++k) acc += x(m)[k] * w(n)[k];
  y(m)[n] = cuda::output_of<Out>(epilogue, m, n, acc);
}

template <class X, class Out>
__global__ void __launch_bounds__(kThreads) float_w(Rows<const X> x, cuda::Weight w, Rows<Out> y, cuda::Epilogue bias,
                                                    std::int64_t M, std::int64_t N, std::int64_t K) {
  ptx::wait_for_predecessor();
  ptx::launch_dependents();
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= M * N) return;
  const std::int64_t m = i / N;
  const std::int64_t n = i % N;
  double sum = 0;
  for (std::int64_t k = 0; k < K; ++k) {
    const double weight = __dmul_rn(w.centered(n, k), w.scale_at(n, k));
    sum = __dadd_rn(sum, __dmul_rn(cuda::to_float(x(m)[k]), weight));
  }
  if (bias.bias != nullptr) sum = __dadd_rn(sum, cuda::bias_at(bias, n));
  y(m)[n] = cuda::round_double_to<Out>(sum);
}

void run_float_w(const Arguments& a) {
  const dim3 grid(cuda::blocks_for(a.y.rows * a.y.cols, kThreads));
  cuda::visit_cuda_float(a.x.dtype, [&](auto x_type) {
    cuda::visit_cuda_float(a.y.dtype, [&](auto y_type) {
      using X = decltype(x_type);
      using Out = decltype(y_type);
      cuda::launch(float_w<X, Out>, grid, kThreads, 0, a.stream, {}, rows_of<const X>(a.x), cuda::weight_of(a.w),
                   rows_of<Out>(a.y), cuda::epilogue_of(a), a.y.rows, a.y.cols, a.x.cols);
    });
  });
}

}  // namespace

void cuda_float_w8_reference(const Arguments& a, Parallel& /*parallel*/) { run_float_w(a); }

void cuda_float_w4_reference(const Arguments& a, Parallel& /*parallel*/) { run_float_w(a); }

void cuda_s8_w8_reference(const Arguments& a, Parallel& /*parallel*/) {
  const std::int64_t M = a.y.rows;
  const std::int64_t N = a.y.cols;
  const dim3 grid(cuda::blocks_for(M * N, kThreads));
  cuda::visit_output(a.y.dtype, [&](auto type) {
    using Out = decltype(type);
    cuda::launch(s8_w8<Out>, grid, kThreads, 0, a.stream, {}, rows_of<const std::int8_t>(a.x),
                 rows_of<const std::int8_t>(a.w.q), rows_of<Out>(a.y), cuda::epilogue_of(a), M, N, a.x.cols);
  });
}

}  // namespace octavo
