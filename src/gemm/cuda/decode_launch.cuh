// Launching decode_kernel: which stages and grid, and what it takes.
#pragma once

#include <algorithm>

#include "core/cuda_launch.cuh"
#include "gemm/alignment.h"
#include "gemm/cuda/decode.cuh"
#include "gemm/cuda/tensor_map.h"

namespace octavo::decode {

inline constexpr int kMaxGroup = 1 << 14;  // or one as long as K
// Shared memory that a CTA may have: alone on its multiprocessor, or beside another. And what no three can have.
inline constexpr int kMaxShared = kDecodeSharedBytes;
inline constexpr int kSharedOfTwo = (228 / 2 - 1) * 1024;
inline constexpr int kMoreThanAThird = 228 / 3 * 1024 + 1024;

// A group's sums are flushed after so many slabs of 32 weights: up to four, a whole part of a group.
inline int flush_of(const WeightFormat& format) {
  if (format.group_size <= 0 || format.group_size % 128 == 0) return 4;
  return format.group_size % 64 == 0 ? 2 : 1;
}

// With so many stages.
template <class Kind>
DecodeArguments planned(DecodeArguments a, int stages) {
  a.stages = stages;
  a.buffers = a.M <= 4 ? 4 : 2;
  a.blocks = Kind::blocks(a.K);
  a.by_blocks = Divisor(static_cast<unsigned>(a.blocks));
  a.by_vectors = Divisor(static_cast<unsigned>(std::max(a.K / 8, 1)));
  return a;
}

// Whether shared memory holds all of x beside a small ring.
template <class X, int kBits>
bool fits(std::int64_t M, std::int64_t K, const WeightFormat& format) {
  if (M < 1 || M > kMaxTokens || K < 1 || K > kMaxShared || format.group_size > kMaxGroup) return false;
  DecodeArguments a = {};
  a.M = static_cast<int>(M);
  a.K = static_cast<int>(K);
  static const std::uint8_t zero_point = 0;
  if (!format.symmetric) a.groups.zero_point = &zero_point;
  const auto fits_as = [&]<class Kind>(Kind /*kind*/) { return Shared<Kind>(planned<Kind>(a, 1)).bytes <= kMaxShared; };
  if constexpr (sizeof(X) == 1) {
    return fits_as(Kind<X, kBits, 0, 1>());
  } else {
    const int flush = flush_of(format);
    if (flush == 4) return fits_as(Kind<X, kBits, 4, 2>());
    return flush == 2 ? fits_as(Kind<X, kBits, 2, 2>()) : fits_as(Kind<X, kBits, 1, 2>());
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

// One CTA a multiprocessor. Where x and two stages (or all that a CTA copies) fit beside as much again, the next kernel's
// stand beside it; but long runs of blocks, which a larger ring serves better, have the multiprocessor alone. What a CTA
// does not need it asks for too, so that no third one comes, and CTAs of one kernel are spread evenly. A next kernel that
// starts when all of ours is on its way would only keep x waiting: then it starts later. It starts late (decode.cuh) where
// that gains: with weights in groups, not in few rounds of blocks, of which it would wait for too many, nor in many. If it
// is a small one, which only lets the product behind it start, also in many rounds, and earlier: in fewer than eight or so
// that is at once. Some ask for a part of the ring only when they have x, which else waits behind it. All measured, on an
// H100 and an H200.
template <class Kind>
void launch_kind(const Arguments& a, DecodeArguments d) {
  constexpr int kStagesBeside = 3, kStagesAlone = 2, kStagesOfLongRun = 3, kStagesOfLongRows = 4, kLongRun = 64,
                kLongRow = 16,  // blocks
      kNextBefore = 9, kNextButOneBefore = 28, kFewRounds = 5, kManyRounds = 10;
  const int sms = (*cuda::gpu(a.x.device))->num_sms;
  const int tiles = (d.N + kChannels - 1) / kChannels, grid = std::min(sms, tiles);
  const int blocks = (tiles + grid - 1) / grid * Kind::blocks(d.K), rounds = (blocks + Kind::kWarps - 1) / Kind::kWarps;
  const auto with_stages = [&](int stages, int most) {
    stages = std::min(stages, rounds);
    while (stages > 1 && Shared<Kind>(planned<Kind>(d, stages)).bytes > most) --stages;
    return planned<Kind>(d, stages);
  };
  if constexpr (Kind::kFlush > 0) d.groups.together = together<Kind>(a.w, d.groups);
  const DecodeArguments beside = with_stages(kStagesBeside, kSharedOfTwo);
  const bool fits = Shared<Kind>(beside).bytes <= kSharedOfTwo && beside.stages >= std::min(2, rounds);
  const bool few = rounds < kFewRounds, long_run = Kind::kFlush == 0 && blocks > kLongRun;
  const bool long_rows = long_run && Kind::blocks(d.K) > kLongRow, alone = !fits || long_run;
  if (alone) {
    d = with_stages(rounds <= 2 ? 1
                    : long_rows ? kStagesOfLongRows
                    : long_run  ? kStagesOfLongRun
                                : kStagesAlone,
                    kMaxShared);
  } else {
    d = beside;
  }
  const bool in_ring = d.stages == rounds;
  const bool late = Kind::kStartsNextLate && !alone && !few && (a.small_kernel_next || rounds <= kManyRounds);
  // In few rounds one token's x takes longest, so nothing is to come before it.
  d.next_before = alone || (!in_ring && (!few || d.M > 1)) ? kNextAtOnce : kNextAfterWait;
  if (late) d.next_before = a.small_kernel_next ? kNextButOneBefore : kNextBefore;
  d.early_stages = d.stages;
  if (long_run && !long_rows) d.early_stages = std::min(d.stages, kStagesOfLongRun - 1);
  if (!alone && (Kind::kFlush == 0 ? few && d.M > 1 : Kind::kFlush == 4 && d.M <= 2 && in_ring && rounds == 2)) {
    d.early_stages = 1;
  }
  const int bytes = std::max(Shared<Kind>(d).bytes, alone ? kSharedOfTwo + 1024 : kMoreThanAThird);
  CUtensorMap w = {};
  const std::int64_t row = row_bytes(a.w.q.dtype, d.K);
  d.whole_boxes = row % kBoxRow == 0;
  const cuda::Box box = {kBoxRow, kChannels, kBoxRow, d.whole_boxes ? kBoxes : 1, 128};
  if (!cuda::map_tensor(a.w.q.data, 1, d.N, row, a.w.q.stride, box, w)) return;
  cuda::launch(decode_kernel<Kind>, dim3(static_cast<unsigned>(grid)), dim3(Kind::kThreads), static_cast<std::size_t>(bytes),
               a.stream, {}, d, w);
}

template <class X, int kBits, int kFlush, class Source = X, class Scale = float>
void launch_tokens(const Arguments& a, const DecodeArguments& d) {
  if (d.M > 8) return launch_kind<Kind<X, kBits, kFlush, 2, Source, 1, Scale>>(a, d);
  launch_kind<Kind<X, kBits, kFlush, 1, Source, 1, Scale>>(a, d);
}

// The same with as many columns a token as there is room for, until threads read 16 bytes of a channel at a time.
template <class X, int kBits, int kFlush, class Scale>
void launch_columns(const Arguments& a, const DecodeArguments& d) {
  constexpr int kMost = 16 / kBits / kFlush;
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
