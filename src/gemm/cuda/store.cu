#include "core/cuda_launch.cuh"
#include "core/rows.cuh"
#include "gemm/cuda/epilogue.cuh"
#include "gemm/cuda/store.h"

namespace octavo {
namespace {

constexpr int kThreads = 256;

template <class Out>
__global__ void __launch_bounds__(kThreads)
    store(cuda::Rows<const float> sums, cuda::Epilogue bias, cuda::Rows<Out> y, std::int64_t M, std::int64_t N) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= M * N) return;
  const std::int64_t m = i / N;
  const std::int64_t n = i % N;
  float t = sums(m)[n];
  if (bias.bias != nullptr) t = __fadd_rn(t, cuda::bias_at(bias, n));
  y(m)[n] = cuda::round_to<Out>(t);
}

}  // namespace

void cuda_store(const MatrixView& sums, const MatrixView& bias, const MutableMatrixView& y, Stream stream) {
  Arguments a;
  a.bias = bias;
  cuda::visit_cuda_float(y.dtype, [&](auto type) {
    using Out = decltype(type);
    cuda::launch(store<Out>, cuda::blocks_for(y.rows * y.cols, kThreads), kThreads, 0, stream, {.dependent = false},
                 cuda::rows_of<const float>(sums), cuda::epilogue_of(a), cuda::rows_of<Out>(y), y.rows, y.cols);
  });
}

}  // namespace octavo
