// Launching decode_kernel: of which kind, and what it takes.
#pragma once

#include "core/cuda_launch.cuh"
#include "gemm/alignment.h"
#include "gemm/cuda/decode.cuh"
#include "gemm/cuda/decode_plan.cuh"
#include "gemm/cuda/tensor_map.h"

namespace octavo::decode {

inline constexpr int kMaxGroup = 1 << 14;  // or one as long as K

// A group's sums are flushed after so many slabs of 32 weights: up to four, a whole part of a group.
inline int flush_of(const WeightFormat& format) {
  if (format.group_size <= 0 || format.group_size % 128 == 0) return 4;
  return format.group_size % 64 == 0 ? 2 : 1;
}

// Whether shared memory holds all of x beside a small ring, whatever kind is launched: with zeros, where that may have
// several columns a token.
template <class X, int kBits>
bool fits(std::int64_t M, std::int64_t K, const WeightFormat& format) {
  if (M < 1 || M > kMaxTokens || K < 1 || K > kMaxShared || format.group_size > kMaxGroup) return false;
  DecodeArguments a = {};
  a.M = static_cast<int>(M);
  a.K = static_cast<int>(K);
  static const std::uint8_t zero_point = 0;
  if (!format.symmetric) a.groups.zero_point = &zero_point;
  const auto fits_as = [&]<class Kind>(Kind /*kind*/, int zero_bytes = 0) {
    return Shared<Kind>(planned<Kind>(a, 1)).bytes + zero_bytes <= kMaxShared;
  };
  if constexpr (sizeof(X) == 1) {
    return fits_as(Kind<X, kBits, 0, 1>());
  } else {
    const int flush = flush_of(format);
    if (flush == 4) return fits_as(Kind<X, kBits, 4, 2>());
    constexpr int kZeroBytes = Kind<X, kBits, 1, 1, X, 2>::kZeroBytes;
    return flush == 2 ? fits_as(Kind<X, kBits, 2, 2>(), kZeroBytes) : fits_as(Kind<X, kBits, 1, 2>(), kZeroBytes);
  }
}

// Whether a weight's groups are units, and scales and zero points aligned such that those of some units can be copied at a
// time, also where a row ends.
template <class Kind, class Weight>
bool together(const Weight& w, const Groups& groups) {
  return Kind::kCopiesTogether && w.format.group_size == Kind::kFlush * Kind::kSlabK &&
         (groups.last + 1) % Kind::kCopied == 0 && alignment_of(w.scale) >= Kind::kCopied * Kind::kScaleBytes &&
         (groups.zero_point == nullptr || alignment_of(w.zero_point) >= 4);
}

inline int sms_of(const Arguments& a) { return (*cuda::gpu(a.x.device))->num_sms; }

template <class Kind>
void launch_plan(const Arguments& a, const Plan& plan) {
  CUtensorMap w = {};
  DecodeArguments d = plan.arguments;
  const std::int64_t row = row_bytes(a.w.q.dtype, d.K);
  d.whole_boxes = row % kBoxRow == 0;
  const cuda::Box box = {kBoxRow, kChannels, kBoxRow, d.whole_boxes ? kBoxes : 1, 128};
  if (!cuda::map_tensor(a.w.q.data, 1, d.N, row, a.w.q.stride, box, w)) return;
  cuda::launch(decode_kernel<Kind>, dim3(static_cast<unsigned>(plan.grid)), dim3(Kind::kThreads),
               static_cast<std::size_t>(plan.shared_bytes), a.stream, {.cluster = dim3(Kind::kPairs ? 2 : 1)}, d, w);
}

template <class Kind>
void launch_kind(const Arguments& a, DecodeArguments d) {
  if constexpr (Kind::kFlush > 0) d.groups.together = together<Kind>(a.w, d.groups);
  launch_plan<Kind>(a, plan_of<Kind>(d, sms_of(a), a.small_kernel_next));
}

template <class X, int kBits, int kFlush, int kTokenTiles, class Source, class Scale>
void launch_tiles(const Arguments& a, const DecodeArguments& d) {
  if constexpr (kBits == 8 && kFlush == 0 && std::is_same_v<X, Source>) {
    using Pairs = Kind<X, kBits, kFlush, kTokenTiles, Source, 1, Scale, true>;
    if (const auto plan = plan_of_pairs<Pairs>(d, sms_of(a), a.small_kernel_next)) return launch_plan<Pairs>(a, *plan);
  }
  launch_kind<Kind<X, kBits, kFlush, kTokenTiles, Source, 1, Scale>>(a, d);
}

template <class X, int kBits, int kFlush, class Source = X, class Scale = float>
void launch_tokens(const Arguments& a, const DecodeArguments& d) {
  if (d.M > 8) return launch_tiles<X, kBits, kFlush, 2, Source, Scale>(a, d);
  launch_tiles<X, kBits, kFlush, 1, Source, Scale>(a, d);
}

// The same with as many columns a token as there is room for, until threads read 16 bytes of a channel at a time.
template <class X, int kBits, int kFlush, class Scale>
void launch_columns(const Arguments& a, const DecodeArguments& d) {
  constexpr int kMost = 16 / kBits / kFlush;
  if constexpr (kBits == 4 && kFlush >= 2) {
    using Splits = Kind<Digit, kBits, kFlush, 1, X, 4 / kFlush, Scale>;
    if (d.M <= 8 / Splits::kTokenColumns && split_gains<Splits>(d, sms_of(a))) {
      return launch_kind<Splits>(a, d);
    }
  }
  if constexpr (kMost == 4) {
    if (d.M <= 2) return launch_kind<Kind<X, kBits, kFlush, 1, X, 4, Scale>>(a, d);
  }
  if constexpr (kMost >= 2) {
    if (d.M <= 4) return launch_kind<Kind<X, kBits, kFlush, 1, X, 2, Scale>>(a, d);
  }
  launch_tokens<X, kBits, kFlush, X, Scale>(a, d);
}

template <class X, int kBits, int kFlush>
void launch_groups(const Arguments& a, const DecodeArguments& d) {
  if (a.w.scale.dtype == DType::kFloat32) return launch_columns<X, kBits, kFlush, float>(a, d);
  launch_columns<X, kBits, kFlush, X>(a, d);
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
    d.groups.scale = static_cast<const std::uint8_t*>(a.w.scale.data);
    d.groups.scale_stride = per_tensor ? 0 : a.w.scale.stride;
    if (!format.symmetric) d.groups.zero_point = static_cast<const std::uint8_t*>(a.w.zero_point.data);
    d.groups.zero_point_stride = per_tensor ? 0 : a.w.zero_point.stride;
    switch (flush_of(format)) {
      case 1:
        return launch_groups<X, kBits, 1>(a, d);
      case 2:
        return launch_groups<X, kBits, 2>(a, d);
      default:
        return launch_groups<X, kBits, 4>(a, d);
    }
  }
}

}  // namespace octavo::decode
