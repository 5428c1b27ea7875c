// What a weight-only kernel of Hopper is made for, and how its weights meet their scales: see float_w_sm90_kernel.cuh.
#pragma once

#include "gemm/cuda/float_w_fragment.cuh"
#include "gemm/cuda/float_w_rounded.cuh"
#include "gemm/cuda/float_w_sm90_arguments.h"

namespace octavo::sm90 {

// What a kernel is made for. kPeriod: steps of 16 along K whose sums are scaled together; 0: one scale a channel. Where
// weights are rounded, steps after which a scale may change.
template <class X_, Storage kStorage_, int kTokens_, int kPeriod_, bool kRounded_ = false>
struct FloatW {
  using X = X_;
  static constexpr Storage kStorage = kStorage_;
  static constexpr int kTokens = kTokens_;
  static constexpr int kPeriod = kPeriod_;
  static constexpr bool kRounded = kRounded_;
  static constexpr bool kSumsInGroups = kPeriod > 0 && !kRounded;
  static constexpr int kBlockK = kTokens > 128 ? 64 : 128;  // of a stage
  static constexpr int kSteps = kBlockK / 16;
  static constexpr int kUnit = kPeriod > kSteps ? kPeriod / kSteps : 1;  // stages that are multiplied together
  static constexpr int kRowBytes = kSteps * kStepBytes<kStorage>;        // of weights
  static constexpr int kWeightBytes = kChannels * kRowBytes;
  static constexpr int kXBoxes = kBlockK / 64;  // of 64 along K, 128 bytes a row
  // Steps that are converted, then multiplied, at a time, and how many such batches may be under way. Long products hide
  // the conversion of a single step, those of 128 tokens that of two; short ones need all steps' conversions to overlap with
  // each other, and leave hiding them to the other warpgroup.
  static constexpr int kBatches = kTokens > 64 ? 4 : 1;
  static constexpr int kBatch = kTokens > 128 ? 1 : kSteps / kBatches;
  static_assert(kSteps / kBatch % kBatches == 0);                  // a batch has its own registers all along
  static_assert(!kRounded || (kPeriod > 0 && kPeriod <= kSteps));  // both are powers of two
  // Tokens whose sums of a period are held beside those of the tile.
  static constexpr int kPart = kTokens < 64 ? kTokens : 64;
  static constexpr int kPieces = kTokens > 128 ? 4 : 2;
};

// Scales and zero points of a thread's two channels, group after group: the next one's are on their way meanwhile. No
// branches: they would cost the products around them their overlap.
class Groups {
 public:
  // Upper and lower channel, and where along K the CTA begins.
  __device__ __forceinline__ Groups(const FloatWArguments& a, int upper, int lower, int k)
      : group_size_(a.group_size > 0 ? a.group_size : a.K), group_(k / group_size_), last_((a.K - 1) / group_size_) {
    const int rows[] = {a.channel_row(upper), a.channel_row(lower)};
    has_zero_points_ = a.zero_point.data != nullptr;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      scales_[i] = a.scale(rows[i]) + group_;
      zero_points_[i] = a.zero_point(rows[i]) + group_;
      zero_point[i] = a.zero;
    }
    load(true);
  }

  // Where along K the group behind the loaded one begins.
  __device__ __forceinline__ int end() const { return (group_ + 1) * group_size_; }

  // Asks for the next group's, if there is one. Pointers move along: from rows and strides they would be computed anew.
  __device__ __forceinline__ void next(bool condition) {
    const int step = condition && group_ < last_ ? 1 : 0;
    group_ += step;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      scales_[i] += step;
      zero_points_[i] += step;
    }
    load(step != 0);
  }

  float scale[2];
  int zero_point[2];

 private:
  __device__ __forceinline__ void load(bool condition) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      asm volatile("{\n.reg .pred load;\nsetp.ne.b32 load, %2, 0;\n@load ld.global.nc.L2::128B.f32 %0, [%1];\n}"
                   : "+f"(scale[i])
                   : "l"(scales_[i]), "r"(static_cast<int>(condition)));
      asm volatile("{\n.reg .pred load;\nsetp.ne.b32 load, %2, 0;\n@load ld.global.nc.u8 %0, [%1];\n}"
                   : "+r"(zero_point[i])
                   : "l"(zero_points_[i]), "r"(static_cast<int>(condition && has_zero_points_)));
    }
  }

  const float* scales_[2];
  const std::uint8_t* zero_points_[2];
  int group_size_, group_, last_;
  bool has_zero_points_;
};

// How a thread's weights become fragments whose products are all added up: exactly, with one scale a channel,
template <class F, bool kRounded = F::kRounded>
class Conversion {
  using C = Convert<typename F::X, F::kStorage>;

 public:
  __device__ __forceinline__ explicit Conversion(const Groups& groups)
      : exponents_(in_register(C::kExponents)), offset_{C::offset(groups.zero_point[0]), C::offset(groups.zero_point[1])} {}

  // Before the first conversion of a block's step.
  __device__ __forceinline__ void reach(int /*block*/, int /*step*/) {}

  __device__ __forceinline__ Fragment operator()(const Raw& raw) const {
    return convert<typename F::X, F::kStorage>(raw, exponents_, offset_[0], offset_[1]);
  }

 private:
  std::uint32_t exponents_, offset_[2];
};

// or times the scale of their group. What that takes is made anew every kPeriod steps, where it is the same for most:
// cheaper than to choose between two.
template <class F>
class Conversion<F, true> {
  using R = Rounded<typename F::X, F::kStorage>;

 public:
  __device__ __forceinline__ explicit Conversion(Groups& groups)
      : groups_(groups), exponents_(in_register(R::C::kExponents)) {}

  __device__ __forceinline__ void reach(int block, int step) {
    if (step % F::kPeriod != 0) return;
#pragma unroll
    for (int i = 0; i < 2; ++i) factors_[i] = R::factors(groups_.scale[i], groups_.zero_point[i], exponents_);
    groups_.next(block * F::kBlockK + (step + F::kPeriod) * 16 >= groups_.end());
  }

  __device__ __forceinline__ Fragment operator()(const Raw& raw) const {
    return {{R::pair(raw.pairs[0], factors_[0]), R::pair(raw.pairs[1], factors_[1]), R::pair(raw.pairs[2], factors_[0]),
             R::pair(raw.pairs[3], factors_[1])}};
  }

 private:
  Groups& groups_;
  std::uint32_t exponents_;
  GroupFactors factors_[2];
};

}  // namespace octavo::sm90
