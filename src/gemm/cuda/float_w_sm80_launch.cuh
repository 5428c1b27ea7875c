// Which tile a weight-only product takes from compute capability 8.0 on, and its launch.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <type_traits>

#include "core/cuda_launch.cuh"
#include "gemm/alignment.h"
#include "gemm/cuda/float_w_sm80.h"
#include "gemm/cuda/float_w_sm80_kernel.cuh"
#include "gemm/cuda/tile_choice.h"

namespace octavo::sm80 {

// (Rings of 48 KiB: two blocks a multiprocessor also where it has 100.)
//                tokens channels K    warps    ring       blocks
using T128 = Tile<128, 128, 64, 2, 2, 1, 72 * 1024, 2>;
using T64 = Tile<64, 128, 64, 1, 4, 1, 48 * 1024, 2>;
using T32 = Tile<32, 64, 128, 1, 2, 2, 48 * 1024, 3>;
using T16 = Tile<16, 32, 256, 1, 1, 4, 48 * 1024, 3>;

using Choice = cuda::TileChoice<FloatWArguments>;

// Blocks of which each can have a multiprocessor ask for more than half of its shared memory. Launched early (programmatic
// dependent launch), they would else meet on the first ones that the kernel in front leaves.
template <class F>
int shared_bytes(std::int64_t blocks) {
  const cuda::Gpu& gpu = **cuda::gpu({DeviceType::kCuda, cuda::current_device()});
  const bool spread = gpu.major >= 9 && blocks <= gpu.num_sms;
  return spread ? std::max(F::kShared, static_cast<int>(gpu.max_shared_memory) / 2 + 1024) : F::kShared;
}

template <class F, bool kAligned>
void launch_tile(FloatWArguments s, Stream stream) {
  s.tiles_m = static_cast<unsigned>(ceil_div(s.M, F::kTokens));
  s.tiles_n = static_cast<unsigned>(ceil_div(s.N, F::kChannels));
  if constexpr (F::kGroups) {
    s.groups.steps = static_cast<int>(ceil_div(s.groups.size, kUnitK * F::kGroupUnits));
    s.groups.stage_groups = F::kStageSteps / s.groups.steps;
    s.groups.stage_steps = F::kStageSteps % s.groups.steps;
  }
  const unsigned blocks = s.tiles_m * s.tiles_n;
  const int bytes = shared_bytes<F>(blocks);
  cuda::launch(float_w_kernel<F, kAligned>, blocks, kThreads, static_cast<std::size_t>(bytes), stream, {}, s);
}

template <class F, bool kAligned = true>
constexpr Choice choice() {
  return {F::kTokens, F::kChannels, launch_tile<F, kAligned>};
}

// Sums of groups apart from the tile's leave no registers for the largest tile.
template <class X, int kBits, int kGroupUnits>
void launch_groups(const Arguments& a, const FloatWArguments& s, bool aligned) {
  using F128 = FloatW<X, kBits, kGroupUnits, std::conditional_t<(kGroupUnits > 0), T64, T128>>;
  using F64 = FloatW<X, kBits, kGroupUnits, T64>;
  using F32 = FloatW<X, kBits, kGroupUnits, T32>;
  using F16 = FloatW<X, kBits, kGroupUnits, T16>;
  static constexpr Choice kAligned[] = {choice<F128>(), choice<F64>(), choice<F32>(), choice<F16>()};
  static constexpr Choice kUnaligned[] = {choice<F64, false>(), choice<F16, false>()};
  const std::span<const Choice> choices = aligned ? std::span<const Choice>(kAligned) : kUnaligned;
  cuda::choose_tile(choices, s.M, s.N, (*cuda::gpu(a.y.device))->num_sms).launch(s, a.stream);
}

template <class X, int kBits>
void launch_x(const Arguments& a, const FloatWArguments& s, bool aligned) {
  if (s.groups.last == 0 && a.w.format.symmetric) return launch_groups<X, kBits, 0>(a, s, aligned);
  if (s.groups.last == 0 || s.groups.size % (2 * kUnitK) == 0) return launch_groups<X, kBits, 2>(a, s, aligned);
  launch_groups<X, kBits, 1>(a, s, aligned);
}

template <int kBits>
void launch_float_w(const Arguments& a) {
  const std::int64_t K = a.x.cols, group_size = a.w.format.group_size;
  const int alignment = std::min(alignment_of(a.x), alignment_of(a.w.q));
  FloatWArguments s = {};
  s.x = static_cast<const std::uint8_t*>(a.x.data);
  s.w = static_cast<const std::uint8_t*>(a.w.q.data);
  s.y = static_cast<char*>(a.y.data);
  s.x_stride = a.x.stride;
  s.w_stride = a.w.q.stride;
  s.y_stride = a.y.stride;
  s.M = a.y.rows;
  s.N = a.y.cols;
  s.x_row = static_cast<int>(row_bytes(a.x.dtype, K));
  s.w_row = static_cast<int>(row_bytes(a.w.q.dtype, K));
  s.words = alignment >= 4;
  s.y_vectors = alignment_of(a.y) == 16;
  s.y_dtype = a.y.dtype;
  s.constant_w = a.constant_w;
  s.bias = cuda::epilogue_of(a);
  s.groups.scale = cuda::scales_of(a.w.scale);
  if (!a.w.format.symmetric) s.groups.zero_point = cuda::rows_of<const std::uint8_t>(a.w.zero_point);
  s.groups.per_tensor = group_size == kPerTensor;
  s.groups.size = static_cast<int>(group_size > 0 && group_size < K ? group_size : K);
  s.groups.last = static_cast<int>((K - 1) / s.groups.size);
  s.groups.steps = 1;
  const bool aligned = alignment == 16 && s.x_row % 16 == 0 && s.w_row % 16 == 0;
  if (a.x.dtype == DType::kFloat16) return launch_x<__half, kBits>(a, s, aligned);
  launch_x<__nv_bfloat16, kBits>(a, s, aligned);
}

}  // namespace octavo::sm80
