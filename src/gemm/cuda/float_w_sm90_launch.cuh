// Which tile a weight-only product on Hopper takes, and its launch.
#pragma once

#include <algorithm>
#include <cstdint>
#include <iterator>

#include "core/cuda_launch.cuh"
#include "gemm/alignment.h"
#include "gemm/cuda/float_w_sm90.h"
#include "gemm/cuda/float_w_sm90_kernel.cuh"
#include "gemm/cuda/tensor_map.h"

namespace octavo::sm90 {

// A tile of y, so many tokens by kChannels, and how many CTAs divide its K.
struct FloatWTile {
  int tokens;
  int split;
};

inline int ceil_div(int a, int b) { return (a + b - 1) / b; }

template <class F>
void launch_float_w(const Arguments& a, FloatWArguments s, int split) {
  using Shared = FloatWShared<F>;
  const cuda::Gpu* gpu = *cuda::gpu(a.x.device);
  s.split = split;
  s.group_m = std::max(1, 2048 / F::kTokens);
  s.x_box = std::min(F::kTokens, ceil_div(s.M, 8) * 8);
  s.stages = 1;
  while (s.stages < kMaxFloatWStages && Shared::bytes(s.x_box, s.stages + 1) <= gpu->max_shared_memory) ++s.stages;
  const int element_bytes = bits_of(a.y.dtype) / 8;
  const std::int64_t w_bytes = row_bytes(a.w.q.dtype, s.K);
  const int piece = std::min(F::kTokens / split, piece_tokens(element_bytes));
  CUtensorMap x = {}, w = {}, y = {};
  if (!cuda::map_tensor(a.x.data, 2, s.M, s.K, a.x.stride, {64, s.x_box, 128}, x)) return;
  if (!cuda::map_tensor(a.w.q.data, 1, s.N, w_bytes, a.w.q.stride, {F::kRowBytes, kChannels, F::kRowBytes}, w)) return;
  if (s.y_by_copy_engine &&
      !cuda::map_tensor(a.y.data, element_bytes, s.M, s.N, a.y.stride, {128 / element_bytes, piece, 128}, y)) {
    return;
  }
  const int tiles = ceil_div(s.M, F::kTokens) * ceil_div(s.N, kChannels);
  const int grid = split > 1 ? tiles * split : std::min(tiles, gpu->num_sms);
  cuda::launch(float_w_kernel<F>, dim3(static_cast<unsigned>(grid)), dim3(384),
               static_cast<std::size_t>(Shared::bytes(s.x_box, s.stages)), a.stream,
               {.cluster = dim3(static_cast<unsigned>(split))}, s, x, w, y);
}

template <class X, Storage kStorage, int kPeriod>
void launch_tokens(const Arguments& a, const FloatWArguments& s, const FloatWTile& tile) {
  switch (tile.tokens) {
    case 32:
      return launch_float_w<FloatW<X, kStorage, 32, kPeriod>>(a, s, tile.split);
    case 64:
      return launch_float_w<FloatW<X, kStorage, 64, kPeriod>>(a, s, tile.split);
    case 128:
      return launch_float_w<FloatW<X, kStorage, 128, kPeriod>>(a, s, tile.split);
    default:
      if constexpr (kPeriod == 0) launch_float_w<FloatW<X, kStorage, 256, 0>>(a, s, tile.split);
  }
}

// Groups of a multiple of 128 weights are scaled by every 128, others by every 64 or 32.
template <class X, Storage kStorage>
void launch_groups(const Arguments& a, const FloatWArguments& s, const FloatWTile& tile) {
  if (s.group_size == 0) return launch_tokens<X, kStorage, 0>(a, s, tile);
  if (s.group_size % 128 == 0) return launch_tokens<X, kStorage, 8>(a, s, tile);
  if (s.group_size % 64 == 0) return launch_tokens<X, kStorage, 4>(a, s, tile);
  launch_tokens<X, kStorage, 2>(a, s, tile);
}

template <Storage kStorage>
void launch_storage(const Arguments& a, const FloatWArguments& s, const FloatWTile& tile) {
  if (a.x.dtype == DType::kFloat16) return launch_groups<__half, kStorage>(a, s, tile);
  launch_groups<__nv_bfloat16, kStorage>(a, s, tile);
}

inline FloatWArguments float_w_arguments(const Arguments& a) {
  FloatWArguments s = {};
  s.M = static_cast<int>(a.x.rows);
  s.N = static_cast<int>(a.w.q.rows);
  s.K = static_cast<int>(a.x.cols);
  s.y = a.y.data;
  s.y_stride = a.y.stride;
  s.y_dtype = a.y.dtype;
  // The engine writes 16 bytes at a time, also where a row ends within them.
  s.y_by_copy_engine = alignment_of(a.y) == 16 && row_bytes(a.y.dtype, s.N) % 16 == 0;
  s.constant_w = a.constant_w;
  s.scale = cuda::rows_of<const float>(a.w.scale);
  if (!a.w.format.symmetric) s.zero_point = cuda::rows_of<const std::uint8_t>(a.w.zero_point);
  s.zero = a.w.q.dtype == DType::kInt4 ? 8 : 0;
  s.per_tensor = a.w.format.group_size == kPerTensor;
  s.group_size = a.w.format.group_size > 0 && a.w.format.group_size < s.K ? static_cast<int>(a.w.format.group_size) : 0;
  s.bias = cuda::epilogue_of(a);
  return s;
}

// The tile that takes the least time, in cycles of an SM.
inline FloatWTile choose(int M, int N, int K, int weight_bits, bool grouped, int num_sms) {
  constexpr FloatWTile kTiles[] = {{32, 1},  {32, 2},  {32, 4},  {64, 1},  {64, 2},  {64, 4},
                                   {128, 1}, {128, 2}, {128, 4}, {256, 1}, {256, 2}, {256, 4}};
  const auto cycles = [&](const FloatWTile& tile) {
    if (grouped && tile.tokens > 128) return 1e30;
    const int tiles = ceil_div(M, tile.tokens) * ceil_div(N, kChannels);
    const int rounds = ceil_div(tiles * tile.split, num_sms);
    const double blocks = ceil_div(ceil_div(K, 64), tile.split);
    const double products = std::max(4.0 * tile.tokens, 260.0);
    const double copies = (std::min(tile.tokens, M) * 128 + kChannels * 8 * weight_bits) / 45.0;
    return rounds * (blocks * std::max(products, copies) + 6 * tile.tokens + (tile.split > 1 ? 2000 : 0)) + 3000;
  };
  return *std::min_element(std::begin(kTiles), std::end(kTiles),
                           [&](const FloatWTile& a, const FloatWTile& b) { return cycles(a) < cycles(b); });
}

inline FloatWTile choose(const Arguments& a, const FloatWArguments& s) {
  return choose(s.M, s.N, s.K, bits_of(a.w.q.dtype), s.group_size > 0, (*cuda::gpu(a.x.device))->num_sms);
}

}  // namespace octavo::sm90
