// Launching decode_kernel: which stages and grid, and what it takes.
#pragma once

#include <algorithm>

#include "core/cuda_launch.cuh"
#include "gemm/cuda/decode.cuh"
#include "gemm/cuda/tensor_map.h"

namespace octavo::decode {

inline constexpr int kMaxTokens = 16;
// Of a CTA, and of two on one multiprocessor.
inline constexpr int kMaxShared = 227 * 1024;
inline constexpr int kSharedOfTwo = (228 / 2 - 1) * 1024;

// Whether shared memory holds all of x beside a ring of two stages.
template <class X>
bool fits(std::int64_t M, std::int64_t K) {
  if (M < 1 || M > kMaxTokens) return false;
  if (K > kMaxShared) return false;
  const int m = static_cast<int>(M), k = static_cast<int>(K);
  return (m <= 8 ? Shared<X, 1, 2>::bytes(m, k) : Shared<X, 2, 2>::bytes(m, k)) <= kMaxShared;
}

template <class X, int kTokenTiles, int kStages>
void launch(const Arguments& a, int ctas) {
  const int M = static_cast<int>(a.y.rows), N = static_cast<int>(a.y.cols), K = static_cast<int>(a.x.cols);
  ctas = std::min(ctas, (N + kChannels - 1) / kChannels);
  CUtensorMap w = {};
  if (!cuda::map_tensor(a.w.q.data, 1, N, K, a.w.q.stride, {kBoxK, kChannels, kBoxK}, w)) return;
  const DecodeArguments arguments = {M, N, K, a.x.data, a.x.stride, a.y.data, a.y.stride, a.y.dtype, cuda::epilogue_of(a)};
  cuda::launch(decode_kernel<X, kTokenTiles, kStages>, dim3(ctas), dim3(kThreads),
               Shared<X, kTokenTiles, kStages>::bytes(M, K), a.stream, {}, arguments, w);
}

// A weight that all multiprocessors together hold is best read by one CTA on each, which leaves room for the next kernel's
// CTA beside it and so for its weights. A larger one wants two CTAs' rings, if their copies of x fit.
template <class X>
void launch(const Arguments& a) {
  const int M = static_cast<int>(a.y.rows), K = static_cast<int>(a.x.cols);
  const int sms = cuda::gpus()[static_cast<std::size_t>(cuda::current_device())].num_sms;
  const bool large = a.y.cols > std::int64_t{2} * kChannels * sms || K > 4096;
  if (M > 8) return launch<X, 2, 2>(a, large && Shared<X, 2, 2>::bytes(M, K) <= kSharedOfTwo ? 2 * sms : sms);
  if (Shared<X, 1, 3>::bytes(M, K) <= kSharedOfTwo) return launch<X, 1, 3>(a, large ? 2 * sms : sms);
  return launch<X, 1, 2>(a, large && Shared<X, 1, 2>::bytes(M, K) <= kSharedOfTwo ? 2 * sms : sms);
}

}  // namespace octavo::decode
