// Launching the weight-only kernel of Hopper.
#pragma once

#include <algorithm>
#include <cstdint>

#include "core/cuda_launch.cuh"
#include "gemm/alignment.h"
#include "gemm/cuda/float_w_sm90.h"
#include "gemm/cuda/float_w_sm90_kernel.cuh"
#include "gemm/cuda/float_w_sm90_tile.h"
#include "gemm/cuda/tensor_map.h"

namespace octavo::sm90 {

template <class F>
void launch_float_w(const Arguments& a, FloatWArguments s, const FloatWTile& tile) {
  using Shared = FloatWShared<F>;
  // Three stages: two that products hold at a time, and one that is filled. Hopper gives a CTA 227 KB.
  static_assert(F::kAhead == 0 || Shared::bytes(F::kTokens, 3) <= 227 * 1024);
  const cuda::Gpu* gpu = *cuda::gpu(a.x.device);
  s.rounds = tile.rounds;
  s.cluster = tile.cluster;
  s.part = ceil_div(ceil_div(s.K, F::kBlockK), s.cluster);
  s.group_m = std::max(1, 2048 / F::kTokens);
  const int columns = ceil_div(s.N, kChannels), rows = ceil_div(s.M, 8) * 8;
  const int narrow_columns = tile.tokens < F::kTokens ? columns : tile.narrow_columns;
  s.wide_columns = columns - narrow_columns;
  s.narrow_box = std::min(narrow_tokens(F::kTokens), rows);
  s.x_box = s.wide_columns > 0 ? std::min(F::kTokens, rows) : s.narrow_box;
  s.stages = 1;
  while (s.stages < kMaxFloatWStages && Shared::bytes(s.x_box, s.stages + 1) <= gpu->max_shared_memory) ++s.stages;
  const int element_bytes = bits_of(a.y.dtype) / 8;
  const std::int64_t w_bytes = row_bytes(a.w.q.dtype, s.K);
  FloatWMaps maps = {};
  const auto map_x = [&](int tokens, CUtensorMap& map) {
    return cuda::map_tensor(a.x.data, 2, s.M, s.K, a.x.stride, {64, tokens, 128}, map);
  };
  if (!map_x(s.x_box, maps.x)) return;
  maps.narrow_x = maps.x;  // also where all columns are narrow, or none
  if (narrow_columns > 0 && s.narrow_box < s.x_box && !map_x(s.narrow_box, maps.narrow_x)) return;
  const cuda::Box w_box = {F::kRowBytes, kChannels, F::kRowBytes};
  if (!cuda::map_tensor(a.w.q.data, 1, s.N, w_bytes, a.w.q.stride, w_box, maps.w)) return;
  const auto map_y = [&](int tokens, CUtensorMap& map) {
    return cuda::map_tensor(a.y.data, element_bytes, s.M, s.N, a.y.stride, {128 / element_bytes, tokens, 128}, map);
  };
  if (s.y_by_copy_engine && !(map_y(piece_tokens(element_bytes), maps.y) && map_y(kBoxTokens, maps.y_boxes))) return;
  int tiles = ceil_div(s.M, F::kTokens) * s.wide_columns;
  if constexpr (F::kHasNarrow) tiles += ceil_div(s.M, F::Narrow::kTokens) * narrow_columns;
  const int ctas = tile.rounds == 0 ? tiles * tile.cluster : gpu->num_sms / tile.cluster * tile.cluster;
  cuda::launch(float_w_kernel<F>, dim3(static_cast<unsigned>(ctas)), dim3(384),
               static_cast<std::size_t>(Shared::bytes(s.x_box, s.stages)), a.stream,
               {.cluster = dim3(static_cast<unsigned>(tile.cluster))}, s, maps);
}

// Sums of groups are for few tokens; of more, weights are rounded.
template <class X, Storage kStorage, int kPeriod>
void launch_tokens(const Arguments& a, const FloatWArguments& s, const FloatWTile& tile) {
  if constexpr (kPeriod == 0) {
    switch (wide_tokens(tile.tokens)) {
      case 128:
        return launch_float_w<FloatW<X, kStorage, 128, 0>>(a, s, tile);
      case 192:
        return launch_float_w<FloatW<X, kStorage, 192, 0>>(a, s, tile);
      case 256:
        return launch_float_w<FloatW<X, kStorage, 256, 0>>(a, s, tile);
    }
  }
  if (tile.tokens == 32) return launch_float_w<FloatW<X, kStorage, 32, kPeriod>>(a, s, tile);
  launch_float_w<FloatW<X, kStorage, 64, kPeriod>>(a, s, tile);
}

// Groups of a multiple of 128 weights are scaled by every 128, others by every 64 or 32.
template <class X, Storage kStorage>
void launch_groups(const Arguments& a, const FloatWArguments& s, const FloatWTile& tile) {
  if (s.group_size == 0) return launch_tokens<X, kStorage, 0>(a, s, tile);
  if (s.group_size % 128 == 0) return launch_tokens<X, kStorage, 8>(a, s, tile);
  if (s.group_size % 64 == 0) return launch_tokens<X, kStorage, 4>(a, s, tile);
  launch_tokens<X, kStorage, 2>(a, s, tile);
}

// The same with rounded weights. A stage is 64 along K of large tiles, and 128 of small ones.
template <class X, Storage kStorage, int kPeriod>
void launch_rounded_tokens(const Arguments& a, const FloatWArguments& s, const FloatWTile& tile) {
  constexpr int kInStage = std::min(kPeriod, 4);
  switch (wide_tokens(tile.tokens)) {
    case 128:
      return launch_float_w<FloatW<X, kStorage, 128, kPeriod, true>>(a, s, tile);
    case 192:
      return launch_float_w<FloatW<X, kStorage, 192, kInStage, true>>(a, s, tile);
    default:
      return launch_float_w<FloatW<X, kStorage, 256, kInStage, true>>(a, s, tile);
  }
}

template <class X, Storage kStorage>
void launch_rounded_groups(const Arguments& a, const FloatWArguments& s, const FloatWTile& tile) {
  if (s.group_size % 128 == 0) return launch_rounded_tokens<X, kStorage, 8>(a, s, tile);
  if (s.group_size % 64 == 0) return launch_rounded_tokens<X, kStorage, 4>(a, s, tile);
  launch_rounded_tokens<X, kStorage, 2>(a, s, tile);
}

template <Storage kStorage>
void launch_rounded(const Arguments& a, const FloatWArguments& s, const FloatWTile& tile) {
  if (a.x.dtype == DType::kFloat16) return launch_rounded_groups<__half, kStorage>(a, s, tile);
  launch_rounded_groups<__nv_bfloat16, kStorage>(a, s, tile);
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
  s.scale = cuda::scales_of(a.w.scale);
  if (!a.w.format.symmetric) s.zero_point = cuda::rows_of<const std::uint8_t>(a.w.zero_point);
  s.zero = a.w.q.dtype == DType::kInt4 ? 8 : 128;
  s.per_tensor = a.w.format.group_size == kPerTensor;
  s.group_size = a.w.format.group_size > 0 && a.w.format.group_size < s.K ? static_cast<int>(a.w.format.group_size) : 0;
  s.bias = cuda::epilogue_of(a);
  return s;
}

inline FloatWTile choose(const Arguments& a, const FloatWArguments& s, Scaling scaling) {
  return choose(s.M, s.N, s.K, scaling, (*cuda::gpu(a.x.device))->num_sms);
}

// Of the kernel that scales sums, and of the one that rounds weights.
inline FloatWTile choose(const Arguments& a, const FloatWArguments& s) {
  if (s.group_size == 0) return choose(a, s, Scaling::kChannels);
  return choose(a, s, s.group_size % 64 == 0 ? Scaling::kSums : Scaling::kSumsOfShort);
}
inline FloatWTile choose_rounded(const Arguments& a, const FloatWArguments& s) {
  return choose(a, s, s.group_size % 64 == 0 ? Scaling::kRounded : Scaling::kRoundedShort);
}

}  // namespace octavo::sm90
