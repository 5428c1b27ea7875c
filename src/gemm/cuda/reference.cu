#include "core/cuda_launch.cuh"
#include "core/ptx.cuh"
#include "gemm/cuda/epilogue.cuh"
#include "gemm/cuda/reference.h"

namespace octavo {
namespace {

constexpr int kThreads = 256;

// A matrix as kernels see it.
template <class T>
struct Rows {
  T* data;
  std::int64_t stride;  // bytes

  __device__ T* operator()(std::int64_t row) const {
    using Byte = std::conditional_t<std::is_const_v<T>, const char, char>;
    return reinterpret_cast<T*>(reinterpret_cast<Byte*>(data) + row * stride);
  }
};

template <class T, class View>
Rows<T> rows_of(const View& view) {
  return {static_cast<T*>(view.data), view.stride};
}

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

}  // namespace

void cuda_s8_w8_reference(const Arguments& a, Parallel& /*parallel*/) {
  const std::int64_t M = a.y.rows;
  const std::int64_t N = a.y.cols;
  const dim3 grid(static_cast<unsigned>((M * N + kThreads - 1) / kThreads));
  cuda::visit_output(a.y.dtype, [&](auto type) {
    using Out = decltype(type);
    cuda::launch(s8_w8<Out>, grid, kThreads, 0, a.stream, {}, rows_of<const std::int8_t>(a.x),
                 rows_of<const std::int8_t>(a.w.q), rows_of<Out>(a.y), cuda::epilogue_of(a), M, N, a.x.cols);
  });
}

}  // namespace octavo
