// Launching decode_kernel: which stages and grid, and what it takes.
#pragma once

#include <algorithm>

#include "core/cuda_launch.cuh"
#include "gemm/cuda/decode.cuh"
#include "gemm/cuda/tensor_map.h"

namespace octavo::decode {

inline constexpr int kMaxGroup = 1 << 14;  // or one as long as K
// Shared memory that a CTA may have: alone on its multiprocessor, or beside another. And what no three can have.
inline constexpr int kMaxShared = kDecodeSharedBytes;
inline constexpr int kSharedOfTwo = (228 / 2 - 1) * 1024;
inline constexpr int kMoreThanAThird = 228 / 3 * 1024 + 1024;

// A group's sums are flushed after so many slabs of 32 weights: four where that is a whole part of a group.
inline int flush_of(const WeightFormat& format) { return format.group_size > 0 && format.group_size % 128 != 0 ? 1 : 4; }

// With so many warps and stages.
template <class Kind>
DecodeArguments planned(DecodeArguments a, int warps, int stages) {
  a.warps = warps;
  a.stages = stages;
  a.buffers = a.M <= 4 ? 4 : 2;
  a.blocks = Kind::blocks(a.K);
  a.by_blocks = Divisor(static_cast<unsigned>(a.blocks));
  a.by_vectors = Divisor(static_cast<unsigned>(std::max(a.K / 8, 1)));
  return a;
}

// Whether shared memory holds all of x beside a ring of one stage.
template <class X, int kBits>
bool fits(std::int64_t M, std::int64_t K, const WeightFormat& format) {
  if (M < 1 || M > kMaxTokens || K < 1 || K > kMaxShared || format.group_size > kMaxGroup) return false;
  DecodeArguments a = {};
  a.M = static_cast<int>(M);
  a.K = static_cast<int>(K);
  using Smallest = Kind<X, kBits, 0, 1>;
  return Shared<Smallest>(planned<Smallest>(a, kMaxWarps, 1)).bytes <= kMaxShared;
}

// Two CTAs of eight warps fill a multiprocessor, or, where their copies of x would take what the rings need, one of sixteen.
// No more fit than there are, or CTAs would not be spread evenly: what they do not need of shared memory, they ask for too.
// Measured on an H200, as are the stages: two are best, but for few nibbles, which one ring's stage nearly holds.
template <class Kind>
void launch_kind(const Arguments& a, DecodeArguments d) {
  const int sms = (*cuda::gpu(a.x.device))->num_sms;
  const int tiles = (d.N + kChannels - 1) / kChannels;
  const int stages = Kind::kBits == 4 && tiles <= 2 * sms ? 1 : 2;
  const int x_bytes = d.M * d.K * static_cast<int>(sizeof(typename Kind::X));
  const auto bytes_of = [](const DecodeArguments& a) { return Shared<Kind>(a).bytes; };
  const DecodeArguments of_two = planned<Kind>(d, kMaxWarps / 2, stages);
  const bool two = (Kind::kBits == 4 || x_bytes <= 48 * 1024) && bytes_of(of_two) <= kSharedOfTwo;
  d = two ? of_two : planned<Kind>(d, kMaxWarps, stages);
  if (bytes_of(d) > kMaxShared) d = planned<Kind>(d, kMaxWarps, 1);
  const int bytes = std::max(bytes_of(d), two ? kMoreThanAThird : kSharedOfTwo + 1024);
  CUtensorMap w = {};
  if (!cuda::map_tensor(a.w.q.data, 1, d.N, row_bytes(a.w.q.dtype, d.K), a.w.q.stride, {kBlockRow, kChannels, kBlockRow},
                        w)) {
    return;
  }
  cuda::launch(decode_kernel<Kind>, dim3(static_cast<unsigned>(std::min(two ? 2 * sms : sms, tiles))),
               dim3(static_cast<unsigned>(d.warps * 32)), static_cast<std::size_t>(bytes), a.stream, {}, d, w);
}

template <class X, int kBits, int kFlush, class Source = X>
void launch_tokens(const Arguments& a, const DecodeArguments& d) {
  if (d.M > 8) return launch_kind<Kind<X, kBits, kFlush, 2, Source>>(a, d);
  launch_kind<Kind<X, kBits, kFlush, 1, Source>>(a, d);
}

template <class X, int kBits, class Source = X>
void launch(const Arguments& a) {
  DecodeArguments d = {};
  d.M = static_cast<int>(a.y.rows);
  d.N = static_cast<int>(a.y.cols);
  d.K = static_cast<int>(a.x.cols);
  d.x = a.x.data;
  d.x_stride = a.x.stride;
  d.y = a.y.data;
  d.y_stride = a.y.stride;
  d.y_dtype = a.y.dtype;
  d.epilogue = cuda::epilogue_of(a);
  d.constant_w = a.constant_w;
  if constexpr (sizeof(X) == 1) {
    launch_tokens<X, kBits, 0, Source>(a, d);
  } else {
    const WeightFormat& format = a.w.format;
    if constexpr (kBits == 8) {
      const bool contiguous = a.w.scale.rows == 1 || a.w.scale.stride == sizeof(float);
      if (format.group_size <= 0 && format.symmetric && contiguous) return launch_tokens<X, kBits, 0>(a, d);
    }
    const bool grouped = format.group_size > 0;
    d.groups.last = grouped ? static_cast<int>((d.K - 1) / format.group_size) : 0;
    d.groups.size = Divisor(grouped ? static_cast<unsigned>(format.group_size) : kMaxGroup);
    const bool per_tensor = format.group_size == kPerTensor;
    d.groups.scale = static_cast<const float*>(a.w.scale.data);
    d.groups.scale_stride = per_tensor ? 0 : a.w.scale.stride / static_cast<std::int64_t>(sizeof(float));
    if (!format.symmetric) d.groups.zero_point = static_cast<const std::uint8_t*>(a.w.zero_point.data);
    d.groups.zero_point_stride = per_tensor ? 0 : a.w.zero_point.stride;
    if (flush_of(format) == 4) return launch_tokens<X, kBits, 4>(a, d);
    launch_tokens<X, kBits, 1>(a, d);
  }
}

}  // namespace octavo::decode
