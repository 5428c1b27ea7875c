// What a warpgroup of a weight-only kernel of Hopper multiplies: the sums of a tile, with one scale a channel, with rounded
// weights, or with those of groups apart. See float_w_sm90_kernel.cuh.
#pragma once

#include "gemm/cuda/float_w_sm90_groups.cuh"
#include "gemm/cuda/float_w_sm90_shared.cuh"
#include "gemm/cuda/sm90.cuh"

namespace octavo::sm90 {

// A thread's way through the ring, where all of a channel's products with kTokens of x are added up. Steps of 16 along K are
// taken in batches: a batch's weights are on their way to registers kAhead batches before they are converted, from the next
// stage too, and the products of kBatches may be under way.
template <class F, class Conversion, int kTokens>
class Products {
 public:
  using Shared = FloatWShared<F>;
  using Sums = float[kTokens / 2];
  static constexpr int kBatch = F::kBatch, kBatches = F::kBatches, kAhead = F::kAhead;

  __device__ __forceinline__ Products(const FloatWArguments& a, const Shared& shared, const ChannelFactors& channels,
                                      Stage& stage, Sums& sums)
      : a_(a), shared_(shared), stage_(stage), sums_(sums), conversion_(channels, static_cast<int>(threadIdx.x) % 128) {
    const int thread = static_cast<int>(threadIdx.x) % 128, warpgroup = static_cast<int>(threadIdx.x) / 128;
    // In registers: the compiler would compute them again for every stage.
    weights_ = ptx::in_register(shared.w(0) + first_weight<F::kStorage, F::kRowBytes, F::kTogether>(thread) +
                                warpgroup * 64 * F::kRowBytes);
    if constexpr (F::kRounded) factors_ = ptx::in_register(shared.factors(0) + first_factors<F>(thread, warpgroup));
  }

  // Of so many stages.
  __device__ __forceinline__ void multiply(int blocks) {
    const std::uint32_t first_lane = ptx::in_register(threadIdx.x % 32 == 0 ? 1 : 0);
    if (blocks == 0) {
#pragma unroll
      for (float& sum : sums_) sum = 0;
      return;
    }
    wait_full(false);
#pragma unroll
    for (int first = 0; first < kAhead * kBatch; first += kBatch) ask(stage_.index, first);
    std::uint32_t before = 0;  // the barrier of the stage in front
    std::uint32_t tells = 0;
    for (int left = blocks; left > 1; --left) {
      const int stage = stage_.index;
      multiply_stage(std::true_type(), before, tells);
      before = shared_.empty + stage * 8;
      tells = first_lane;
    }
    const int last = stage_.index;
    multiply_stage(std::false_type(), before, tells);
    wgmma_wait<0>();
    fence_registers(sums_);
    if (first_lane != 0) barrier_arrive_here(shared_.empty + last * 8);
  }

 private:
  // Waits until the stage stage_ is full, unless that is known.
  __device__ __forceinline__ void wait_full(bool known) {
    if (!known) barrier_wait(shared_.full + stage_.index * 8, stage_.phase);
  }

  __device__ __forceinline__ Raw* raw(int first) { return raw_[first / kBatch % kPlaces]; }

  // Asks for the batch of a stage that begins with the step `first`.
  __device__ __forceinline__ void ask(int stage, int first) {
    const std::uint32_t offset = stage * shared_.stage_bytes;
    if constexpr (F::kRounded) conversion_.ask(factors_ + offset, first);
    Raw* to = raw(first);
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      to[i] = load_weights<F::kStorage, F::kRowBytes, F::kTogether>(weights_ + offset, first + i);
    }
  }

  // The stage stage_, and the first loads of the next one, if there are more. Whether that is full is asked a batch before
  // it must be: the answer takes a while.
  template <class More>
  __device__ __forceinline__ void multiply_stage(More /*more*/, std::uint32_t before, std::uint32_t tells) {
    constexpr int kOpen = F::kSteps - kAhead * kBatch;  // where the next stage's first batch is asked for
    constexpr int kTest = kOpen - kBatch;
    // The stage before is given back before this waits for the next one: two stages are held at a time. And a stage's
    // batches have fixed places.
    static_assert(kAhead == 0 || (kTest >= 0 && kOpen > (kBatches - 1) * kBatch));
    static_assert(F::kSteps / kBatch % kPlaces == 0 && F::kSteps / kBatch % kBatches == 0);
    const int stage = stage_.index;
    bool full = false;
#pragma unroll
    for (int first = 0; first < F::kSteps; first += kBatch) {
      if constexpr (F::kRounded) conversion_.take(first);
      if (first == kOpen && More::value) wait_full(full);
      if (const int ahead = first + kAhead * kBatch; ahead < F::kSteps) {
        ask(stage, ahead);
      } else if (More::value) {
        ask(stage_.index, ahead - F::kSteps);
      }
      if (first == kTest && kAhead > 0) {
        stage_.advance(a_.stages);
        if (More::value) full = barrier_test(shared_.full + stage_.index * 8, stage_.phase);
      }
      multiply_batch(stage, first, before, tells);
    }
    if (kAhead == 0) {
      stage_.advance(a_.stages);
      if (More::value) wait_full(false);
    }
  }

  // Converts a batch and multiplies it, when that whose fragments it overwrites is done. In a stage's batch kBatches - 1
  // that was the last one of the stage before, which is given back then, by a lane of every warp (tells), if there was one.
  __device__ __forceinline__ void multiply_batch(int stage, int first, std::uint32_t before, std::uint32_t tells) {
    Fragment(&f)[kBatch] = fragments_[first / kBatch % kBatches];
    wgmma_wait<kBatches - 1>();
    if (first == (kBatches - 1) * kBatch && tells != 0) barrier_arrive_here(before);
#pragma unroll
    for (int i = 0; i < kBatch; ++i) f[i] = conversion_(raw(first)[i]);
    fence_registers(sums_);
    wgmma_fence();
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      const int step = first + i;
      const std::uint32_t at = shared_.x(stage) + step / 4 * shared_.x_box_bytes;
      constexpr std::uint64_t kDescriptor = tile_descriptor(0);
      const std::uint32_t low = at / 16 + (static_cast<std::uint32_t>(kDescriptor) + step % 4 * 2);
      FloatWgmma<typename F::X, kTokens>::multiply(sums_, f[i], kDescriptor >> 32 << 32 | low, step > 0 || adds_);
    }
    adds_ = true;
    wgmma_commit();
  }

  static constexpr int kPlaces = kAhead > 0 ? kAhead * 2 : 1;

  const FloatWArguments& a_;
  const Shared& shared_;
  Stage& stage_;
  Sums& sums_;
  Conversion conversion_;
  std::uint32_t weights_, factors_;  // of stage 0
  bool adds_ = false;                // the first product does not: what sums were before is not known
  Raw raw_[kPlaces][kBatch];
  Fragment fragments_[kBatches][kBatch];
};

template <int kTokens, bool kRounded>
inline constexpr int kLessTokens = less_tokens(kTokens, kRounded);

// The sums of a tile of so many tokens, which are kTokens or less.
template <class F, class Conversion, int kTokens = F::kTokens>
__device__ __forceinline__ void multiply_all(const FloatWArguments& a, const FloatWShared<F>& shared,
                                             const ChannelFactors& channels, int blocks, int tokens, Stage& stage,
                                             float (&sums)[F::kTokens / 2]) {
  constexpr int kLess = F::kLarge ? kLessTokens<kTokens, F::kRounded> : 0;
  if (kLess == 0 || tokens > kLess) {
    auto& of_tokens = reinterpret_cast<float(&)[kTokens / 2]>(sums);
    Products<F, Conversion, kTokens>(a, shared, channels, stage, of_tokens).multiply(blocks);
  } else if constexpr (kLess > 0) {
    multiply_all<F, Conversion, kLess>(a, shared, channels, blocks, tokens, stage, sums);
  }
}

// The sums of a tile with groups whose sums are scaled: each period's are, and added to those of the tile. Meanwhile the
// other warpgroup multiplies.
template <class F>
__device__ __forceinline__ void multiply_groups(const FloatWArguments& a, const FloatWShared<F>& shared, int blocks,
                                                Stage& stage, float (&sums)[F::kTokens / 2]) {
  constexpr int kPeriod = F::kPeriod;
  const int thread = static_cast<int>(threadIdx.x) % 128, warpgroup = static_cast<int>(threadIdx.x) / 128;
#pragma unroll
  for (float& sum : sums) sum = 0;
  const bool tells = thread % 32 == 0;
  const typename F::Convert convert(thread);
  const std::uint32_t mine = first_weight<F::kStorage, F::kRowBytes, F::kTogether>(thread) + warpgroup * 64 * F::kRowBytes;
  const std::uint32_t my_factors = first_factors<F>(thread, warpgroup);
  for (int block = 0; block < blocks; ++block, stage.advance(a.stages)) {
    barrier_wait(shared.full + stage.index * 8, stage.phase);
    const std::uint64_t x = tile_descriptor(shared.x(stage.index));
    const std::uint32_t w = shared.w(stage.index) + mine;
#pragma unroll
    for (int first = 0; first < F::kSteps; first += kPeriod) {
      SumFactors factors[2];
      load_factors(factors, shared.factors(stage.index) + my_factors + first / kPeriod * F::kChangeBytes);
      Fragment fragments[kPeriod];
#pragma unroll
      for (int i = 0; i < kPeriod; ++i) {
        const Raw raw = load_weights<F::kStorage, F::kRowBytes, F::kTogether>(w, first + i);
        fragments[i] = converted(convert, raw, factors[0].offset, factors[1].offset);
      }
      float partial[F::kTokens / 2];
      wgmma_fence();
#pragma unroll
      for (int i = 0; i < kPeriod; ++i) {
        const int step = first + i;
        const std::uint64_t at = x + (step / 4 * shared.x_box_bytes >> 4) + step % 4 * 2;
        FloatWgmma<typename F::X, F::kTokens>::multiply(partial, fragments[i], at, i > 0);
      }
      wgmma_commit();
      wgmma_wait<0>();
      fence_registers(partial);
#pragma unroll
      for (int i = 0; i < F::kTokens / 2; ++i) sums[i] += partial[i] * factors[i / 2 % 2].scale;
    }
    if (tells) barrier_arrive_here(shared.empty + stage.index * 8);
  }
}

}  // namespace octavo::sm90
