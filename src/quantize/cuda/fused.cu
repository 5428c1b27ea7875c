// RMSNorm and SiLU · up, each quantized per token or rounded in the same pass. A thread block takes a row. Rows of up to 8
// pieces a thread (float32: 4) are read once and stay in registers; longer ones, and those that 16-byte accesses cannot
// take, are computed again each time they are needed.
#include <algorithm>

#include "core/cuda_launch.cuh"
#include "core/ptx.cuh"
#include "quantize/cuda/fused.h"
#include "quantize/cuda/fused_results.cuh"
#include "quantize/cuda/fused_rows.cuh"

namespace octavo {
namespace {

using namespace fused;
using cuda::rows_of;

constexpr int kSlowThreads = 256;

// kEarly: the next kernel may start at once, and ask for its weights while this one waits for its rows.
template <bool kEarly>
__device__ void wait_and_launch_dependents() {
  if constexpr (kEarly) ptx::launch_dependents();
  ptx::wait_for_predecessor();
  if constexpr (!kEarly) ptx::launch_dependents();
}

template <int kPieces, class Row, class Result>
__global__ void __launch_bounds__(kMaxThreads, kPieces* Row::kBytes < 16 ? 2 : 1)
    pieces_kernel(const Row row, const Result result, int pieces) {
  wait_and_launch_dependents<Result::kEarly>();
  const int first = static_cast<int>(blockIdx.y * blockDim.x * kPieces + threadIdx.x);
  float y[kPieces][kPiece];
  row.compute(y, blockIdx.x, first, pieces);
  result.write(y, blockIdx.x, first, pieces);
}

template <class Row, class Result>
__global__ void __launch_bounds__(kSlowThreads) elements_kernel(Row row, const Result result, std::int64_t K) {
  wait_and_launch_dependents<Result::kEarly>();
  row.prepare(blockIdx.x, K);
  result.write_elements(row, blockIdx.x, K);
}

template <class View>
bool is_aligned(const View& m, std::int64_t bytes) {
  return m.data == nullptr || (reinterpret_cast<std::uintptr_t>(m.data) % static_cast<std::uintptr_t>(bytes) == 0 &&
                               (m.rows <= 1 || m.stride % bytes == 0));
}

// Few rows are spread over many threads; many rows over few, for each of which reductions and divisions cost the same, but
// with so many as Row's arithmetic still keeps busy. What needs no whole row is spread over blocks.
template <class Row, class Result>
void run(const Row& row, const Result& result, std::int64_t M, std::int64_t K, bool aligned, Stream stream) {
  const auto launch = [&](auto kernel, unsigned blocks, int threads, auto length) {
    cuda::launch(kernel, dim3(static_cast<unsigned>(M), blocks), dim3(static_cast<unsigned>(threads)), 0, stream, {}, row,
                 result, length);
  };
  constexpr std::int64_t kManyRows = 512;
  constexpr int kMost = Row::kBytes == 2 ? 8 : 4;  // pieces a thread, for which registers suffice
  const std::int64_t pieces = K / kPiece;
  const auto by_element = [&] { launch(elements_kernel<Row, Result>, 1, kSlowThreads, K); };
  if (!aligned || K % kPiece != 0) return by_element();
  const int count = static_cast<int>(pieces);
  if constexpr (!Row::kWhole && !Result::kWhole) {
    constexpr int kThreads = 128;
    return launch(pieces_kernel<1, Row, Result>, cuda::blocks_for(pieces, kThreads), kThreads, count);
  } else {
    const auto enough = [&](std::int64_t per_thread) {
      int threads = 32;
      while (threads * per_thread < pieces) threads *= 2;
      return threads;
    };
    const bool many = M >= kManyRows;
    if (pieces > kMost * kMaxThreads) return by_element();
    if (!many && pieces <= kMaxThreads) return launch(pieces_kernel<1, Row, Result>, 1, enough(1), count);
    if (pieces <= (many ? Row::kTwoEachOfMany : 2 * kMaxThreads)) {
      return launch(pieces_kernel<2, Row, Result>, 1, enough(2), count);
    }
    if (kMost == 4 || pieces <= 4 * kMaxThreads) return launch(pieces_kernel<4, Row, Result>, 1, enough(4), count);
    return launch(pieces_kernel<kMost, Row, Result>, 1, enough(kMost), count);
  }
}

// x, and residual if there is one, normalized, to result.
template <class T, class Result>
void rms_norm_to(const Result& result, const MatrixView& x, const MatrixView& residual, const MatrixView& weight, float eps,
                 const MutableMatrixView& sum, bool aligned, Stream stream) {
  aligned = aligned && is_aligned(x, 16) && is_aligned(residual, 16) && is_aligned(sum, 16) && is_aligned(weight, 16);
  const Rows<const T> in = rows_of<const T>(x), other = rows_of<const T>(residual);
  const auto* w = static_cast<const T*>(weight.data);
  const float reciprocal_of_K = 1.0f / static_cast<float>(x.cols);
  const auto to_result = [&](auto row) { run(row, result, x.rows, x.cols, aligned, stream); };
  if (residual.data == nullptr) return to_result(RmsNorm<T, false>{in, other, rows_of<T>(sum), w, reciprocal_of_K, eps, 0});
  to_result(RmsNorm<T, true>{in, other, rows_of<T>(sum), w, reciprocal_of_K, eps, 0});
}

template <class T, class Result>
void silu_mul_to(const Result& result, const MatrixView& gate, const MatrixView& up, bool aligned, Stream stream) {
  aligned = aligned && is_aligned(gate, 16) && is_aligned(up, 16);
  run(SiluMul<T>{rows_of<const T>(gate), rows_of<const T>(up)}, result, gate.rows, gate.cols, aligned, stream);
}

Quantized quantized(const MutableMatrixView& q, const MutableMatrixView& scale) {
  return {rows_of<std::int8_t>(q), rows_of<float>(scale)};
}

}  // namespace

void cuda_rms_norm_quantize(const MatrixView& x, const MatrixView& residual, const MatrixView& weight, float eps,
                            const MutableMatrixView& sum, const MutableMatrixView& q, const MutableMatrixView& scale,
                            Stream stream) {
  cuda::visit_cuda_float(x.dtype, [&](auto type) {
    rms_norm_to<decltype(type)>(quantized(q, scale), x, residual, weight, eps, sum, is_aligned(q, Quantized::kAlignment),
                                stream);
  });
}

void cuda_silu_mul_quantize(const MatrixView& gate, const MatrixView& up, const MutableMatrixView& q,
                            const MutableMatrixView& scale, Stream stream) {
  cuda::visit_cuda_float(gate.dtype, [&](auto type) {
    silu_mul_to<decltype(type)>(quantized(q, scale), gate, up, is_aligned(q, Quantized::kAlignment), stream);
  });
}

void cuda_rms_norm(const MatrixView& x, const MatrixView& residual, const MatrixView& weight, float eps,
                   const MutableMatrixView& sum, const MutableMatrixView& y, Stream stream) {
  cuda::visit_cuda_float(x.dtype, [&](auto type) {
    using T = decltype(type);
    rms_norm_to<T>(Rounded<T>{rows_of<T>(y)}, x, residual, weight, eps, sum, is_aligned(y, Rounded<T>::kAlignment), stream);
  });
}

void cuda_silu_mul(const MatrixView& gate, const MatrixView& up, const MutableMatrixView& y, Stream stream) {
  cuda::visit_cuda_float(gate.dtype, [&](auto type) {
    using T = decltype(type);
    silu_mul_to<T>(Rounded<T>{rows_of<T>(y)}, gate, up, is_aligned(y, Rounded<T>::kAlignment), stream);
  });
}

}  // namespace octavo
