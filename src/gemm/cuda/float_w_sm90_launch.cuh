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
  static_assert(F::kAhead == 0 || Shared::bytes({F::kTokens, 0, F::kTokens}, 3, 4) <= 227 * 1024);
  const cuda::Gpu* gpu = *cuda::gpu(a.x.device);
  s.rounds = tile.rounds;
  s.cluster = tile.cluster;
  s.part = ceil_div(ceil_div(s.K, F::kBlockK), s.cluster);
  s.group_m = std::max(1, 2048 / tile.tokens);
  const auto columns_of = [&](int tokens) {
    return FloatWColumns{tokens, ceil_div(s.M, tokens), std::min(tokens, ceil_div(s.M, 8) * 8)};
  };
  s.wide = columns_of(tile.tokens);
  s.narrow = tile.narrow_columns > 0 ? columns_of(tile.narrow_tokens) : FloatWColumns{};
  s.wide_columns = ceil_div(s.N, kChannels) - tile.narrow_columns;
  s.stages = 1;
  while (s.stages < kMaxFloatWStages && Shared::bytes(s.wide, s.stages + 1, s.cluster) <= gpu->max_shared_memory) ++s.stages;
  const int element_bytes = bits_of(a.y.dtype) / 8;
  const std::int64_t w_bytes = row_bytes(a.w.q.dtype, s.K);
  const int line = tile.tokens < 128 ? 128 : 256;  // few tokens wait for memory
  FloatWMaps maps = {};
  const auto map_x = [&](int tokens, CUtensorMap& map) {
    return cuda::map_tensor(a.x.data, 2, s.M, s.K, a.x.stride, {64, tokens, 128, 1, line}, map);
  };
  if (!map_x(s.wide.x_box, maps.x)) return;
  maps.narrow_x = maps.x;
  if (tile.narrow_columns > 0 && !map_x(s.narrow.x_box, maps.narrow_x)) return;
  const cuda::Box w_box = {F::kRowBytes, kChannels, F::kRowBytes, 1, line};
  if (!cuda::map_tensor(a.w.q.data, 1, s.N, w_bytes, a.w.q.stride, w_box, maps.w)) return;
  const auto map_y = [&](int tokens, CUtensorMap& map) {
    return cuda::map_tensor(a.y.data, element_bytes, s.M, s.N, a.y.stride, {128 / element_bytes, tokens, 128}, map);
  };
  if (s.y_by_copy_engine && !(map_y(piece_tokens(element_bytes), maps.y) && map_y(kBoxTokens, maps.y_boxes))) return;
  const int tiles = s.wide.in_column * s.wide_columns + s.narrow.in_column * tile.narrow_columns;
  const int ctas = tile.rounds == 0 ? tiles * tile.cluster : gpu->num_sms / tile.cluster * tile.cluster;
  cuda::launch(float_w_kernel<F>, dim3(static_cast<unsigned>(ctas)), dim3(384),
               static_cast<std::size_t>(Shared::bytes(s.wide, s.stages, s.cluster)), a.stream,
               {.cluster = dim3(static_cast<unsigned>(tile.cluster))}, s, maps);
}

// Sums of groups are for few tokens; of more, weights are rounded.
template <class X, Storage kStorage, int kPeriod>
void launch_tokens(const Arguments& a, const FloatWArguments& s, const FloatWTile& tile) {
  if constexpr (kPeriod == 0) {
    if (is_large(tile.tokens)) return launch_float_w<FloatW<X, kStorage, kMostTokens, 0>>(a, s, tile);
    if (tile.tokens == 128) return launch_float_w<FloatW<X, kStorage, 128, 0>>(a, s, tile);
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
  if (!is_large(tile.tokens)) return launch_float_w<FloatW<X, kStorage, 128, kPeriod, HowScaled::kAnyWay>>(a, s, tile);
  const auto launch_large = [&](auto how) {
    launch_float_w<FloatW<X, kStorage, kMostTokens, std::min(kPeriod, 4), how>>(a, s, tile);
  };
  const HowScaled how = how_scaled<X>(s);
  if (how == HowScaled::kInTwoParts) return launch_large(std::integral_constant<HowScaled, HowScaled::kInTwoParts>());
  if constexpr (kStorage != Storage::kUInt8) {  // which has zero points, as int8 has not
    constexpr HowScaled kSymmetric = kSymmetricScaled<X>;
    if (how == kSymmetric) return launch_large(std::integral_constant<HowScaled, kSymmetric>());
  }
  if constexpr (kStorage != Storage::kInt8) launch_large(std::integral_constant<HowScaled, HowScaled::kInOne>());
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
