// What a weight-only kernel of Hopper is made for, and how its weights meet their scales: see float_w_sm90_kernel.cuh.
#pragma once

#include <type_traits>

#include "gemm/cuda/float_w_fragment.cuh"
#include "gemm/cuda/float_w_rounded.cuh"
#include "gemm/cuda/float_w_sm90_arguments.h"

namespace octavo::sm90 {

// What the sums of a row's group take: the zero point as Convert takes it, and their scale.
struct SumFactors {
  std::uint32_t offset;
  float scale;
};

// What a kernel is made for: tiles of kTokens, or of more than 128 any number up to that. kPeriod: steps of 16 along K whose
// sums are scaled together; 0: one scale a channel. Where weights are rounded, steps after which a scale may change.
template <class X_, Storage kStorage_, int kTokens_, int kPeriod_, HowScaled kHow_ = HowScaled::kNot>
struct FloatW {
  using X = X_;
  static constexpr Storage kStorage = kStorage_;
  static constexpr int kTokens = kTokens_;
  static constexpr int kPeriod = kPeriod_;
  static constexpr HowScaled kHow = kHow_;
  static constexpr bool kRounded = kHow != HowScaled::kNot;
  static constexpr bool kSumsInGroups = kPeriod > 0 && !kRounded;
  static constexpr bool kLarge = is_large(kTokens);
  static_assert(!kLarge || kTokens == kMostTokens);
  static constexpr int kBlockK = kLarge ? 64 : 128;  // of a stage
  static constexpr int kSteps = kBlockK / 16;
  static constexpr int kRowBytes = kSteps * kStepBytes<kStorage>;  // of weights
  static constexpr int kWeightBytes = kChannels * kRowBytes;
  static constexpr int kXBoxes = kBlockK / 64;  // of 64 along K, 128 bytes a row
  // Steps that are converted, then multiplied, at a time: a batch. Of kBatches products may be under way, and weights are
  // asked for kAhead batches before their conversion. A product from registers holds its warps until it begins, so more
  // than two batches under way are no use. Of few tokens all steps' conversions overlap with each other, and are left to the
  // other warpgroup's products to hide.
  static constexpr int kBatch = kTokens <= 64 ? kSteps : kTokens == 128 ? 2 : 1;
  static constexpr int kBatches = kTokens <= 64 ? 1 : 2;
  static constexpr int kAhead = kTokens <= 64 ? 0 : 2 / kBatch;
  static_assert(kPeriod <= kSteps && (!kRounded || (kAhead > 0 && kPeriod >= kAhead * kBatch)));  // all are powers of two
  static constexpr int kChanges = kPeriod > 0 ? kSteps / kPeriod : 0;  // of a stage: how often scales may change
  using Factors = std::conditional_t<kRounded, GroupFactors, SumFactors>;
  static constexpr int kChangeBytes = kChannels * static_cast<int>(sizeof(Factors));
  static constexpr int kFactorBytes = kChanges * kChangeBytes;
  // Of a thread that multiplies. Others have what is left of three times 168, of which those that make factors need 88, or
  // 120 where a stage has four groups. (The compiler orders instructions by it.)
  static constexpr int kRegisters = kPeriod == 0 ? 232 : kLarge ? 208 : 192;
  static constexpr bool kNibbles = kStorage == Storage::kNibbles;
  // Whether the threads of a row load its weights together. With few tokens in groups of 32 it was slower.
  static constexpr bool kTogether = kNibbles && (kTokens > 32 || kPeriod != 2);
  using Convert = sm90::Convert<X, kStorage, kTogether>;
  using Rounded = sm90::Rounded<X, Convert>;
  static constexpr bool kLargeStages = !kNibbles && kRounded;
  static constexpr int kPieces = (kLarge ? 4 : 2) - (kLargeStages ? 1 : 0);  // such that four stages fit beside them
};

template <class X>
__host__ __device__ inline HowScaled how_scaled(const FloatWArguments& a) {
  if (!a.scale.has_16_bits()) return HowScaled::kInTwoParts;
  return a.zero_point.data != nullptr ? HowScaled::kInOne : kSymmetricScaled<X>;
}

// Scales and zero points of a thread's upper and lower channel, where each has one.
struct ChannelFactors {
  float scale[2];
  int zero_point[2];

  __device__ __forceinline__ ChannelFactors(const FloatWArguments& a, int upper, int lower) {
    const int rows[] = {a.channel_row(upper), a.channel_row(lower)};
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      scale[i] = a.scale.at(rows[i], 0);
      zero_point[i] = a.zero_point.data == nullptr ? a.zero : *a.zero_point(rows[i]);
    }
  }
};

// A thread's two of a change, upper and lower channel.
template <class F>
__device__ __forceinline__ std::uint32_t first_factors(int thread, int warpgroup) {
  return (warpgroup * 64 + thread / 32 * 16 + thread % 32 / 4 * 2) * static_cast<std::uint32_t>(sizeof(typename F::Factors));
}
__device__ __forceinline__ void load_factors(GroupFactors (&f)[2], std::uint32_t from) {
  asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];"
               : "=r"(f[0].offset), "=r"(f[0].scale), "=r"(f[1].offset), "=r"(f[1].scale)
               : "r"(from)
               : "memory");
}
__device__ __forceinline__ void load_factors(SumFactors (&f)[2], std::uint32_t from) {
  asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];"
               : "=r"(f[0].offset), "=f"(f[0].scale), "=r"(f[1].offset), "=f"(f[1].scale)
               : "r"(from)
               : "memory");
}

// How a thread's weights become fragments whose products are all added up: exactly, with one scale a channel,
template <class F>
class ChannelConversion {
 public:
  __device__ __forceinline__ ChannelConversion(const ChannelFactors& f, int thread)
      : convert_(thread), offset_{F::Convert::offset(f.zero_point[0]), F::Convert::offset(f.zero_point[1])} {}

  __device__ __forceinline__ Fragment operator()(const Raw& raw) const {
    return converted(convert_, raw, offset_[0], offset_[1]);
  }

 private:
  typename F::Convert convert_;
  std::uint32_t offset_[2];
};

// or times the scale of their group.
template <class F, HowScaled kHow>
class RoundedConversion {
 public:
  __device__ __forceinline__ RoundedConversion(const ChannelFactors& /*unused: factors come with every stage*/, int thread)
      : convert_(thread) {}

  // For the factors of a stage's step, if they change with it; and takes those asked for, before its conversion.
  __device__ __forceinline__ void ask(std::uint32_t factors, int step) {
    if (step % F::kPeriod == 0) load_factors(asked_, factors + step / F::kPeriod * F::kChangeBytes);
  }
  __device__ __forceinline__ void take(int step) {
    if (step % F::kPeriod == 0) upper_ = widened<kHow>(asked_[0]), lower_ = widened<kHow>(asked_[1]);
  }

  __device__ __forceinline__ Fragment operator()(const Raw& raw) const {
    const auto pair = [&](int i) {
      return F::Rounded::template pair<kHow>(convert_, raw.pairs[i], i % 2 == 0 ? upper_ : lower_);
    };
    return {{pair(0), pair(1), pair(2), pair(3)}};
  }

 private:
  typename F::Convert convert_;
  GroupFactors asked_[2];
  WideFactors upper_, lower_;
};

}  // namespace octavo::sm90
