// What a warpgroup of a weight-only kernel of Hopper multiplies: the sums of a tile, with one scale a channel, with rounded
// weights, or with those of groups apart. See float_w_sm90_kernel.cuh.
#pragma once

#include "gemm/cuda/float_w_sm90_groups.cuh"
#include "gemm/cuda/float_w_sm90_shared.cuh"
#include "gemm/cuda/sm90.cuh"

namespace octavo::sm90 {

// A thread's way through the ring, where all of a channel's products are added up.
template <class F>
class Products {
 public:
  using Sums = float[F::kTokens / 2];
  static constexpr int kBatch = F::kBatch, kBatches = F::kBatches;

  __device__ __forceinline__ Products(const FloatWShared<typename F::Layout>& shared, int thread, int warpgroup)
      : shared_(shared),
        mine_(first_weight<F::kStorage, F::kRowBytes, F::kTogether>(thread) + warpgroup * 64 * F::kRowBytes),
        tells_(thread % 32 == 0) {}

  // Asks for the batch of a stage that begins with the step `first`.
  __device__ __forceinline__ void ask(Raw (&to)[kBatch], int stage, int first) const {
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      to[i] = load_weights<F::kStorage, F::kRowBytes, F::kTogether>(shared_.w(stage) + mine_, first + i);
    }
  }

  // Converts a batch and multiplies it. When the batch before whose place it takes is done, so is the stage `done`, if there
  // is one.
  template <class Conversion>
  __device__ __forceinline__ void multiply(const Raw (&raw)[kBatch], const Conversion& conversion, int stage, int first,
                                           int done, Sums& sums) {
    Fragment(&f)[kBatch] = fragments_[first / kBatch % kBatches];
    wgmma_wait<kBatches - 1>();
    if (first == (kBatches - 1) * kBatch) release(done);
#pragma unroll
    for (int i = 0; i < kBatch; ++i) f[i] = conversion(raw[i]);
    fence_registers(sums);
    wgmma_fence();
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      const int step = first + i;
      const std::uint64_t x = tile_descriptor(shared_.x(stage));
      const std::uint64_t at = x + (step / 4 * shared_.x_box_bytes >> 4) + step % 4 * 2;
      FloatWgmma<typename F::X, F::kTokens>::multiply(sums, f[i], at, true);
    }
    wgmma_commit();
  }

  // All batches are done, and so is the last stage.
  __device__ __forceinline__ void finish(int last, Sums& sums) const {
    wgmma_wait<0>();
    fence_registers(sums);
    release(last);
  }

  __device__ __forceinline__ static void copy(Raw (&to)[kBatch], const Raw (&from)[kBatch]) {
#pragma unroll
    for (int i = 0; i < kBatch; ++i) to[i] = from[i];
  }

 private:
  __device__ __forceinline__ void release(int stage) const {
    if (stage >= 0 && tells_) barrier_arrive_here(shared_.empty + stage * 8);
  }

  const FloatWShared<typename F::Layout>& shared_;
  std::uint32_t mine_;
  bool tells_;
  Fragment fragments_[kBatches][kBatch];
};

// The sums of a tile with one scale a channel.
template <class F>
__device__ __forceinline__ void multiply_channels(const FloatWArguments& a, const FloatWShared<typename F::Layout>& shared,
                                                  int blocks, const ChannelFactors& channels, Stage& stage,
                                                  float (&sums)[F::kTokens / 2]) {
  constexpr int kBatch = F::kBatch;
  const int thread = static_cast<int>(threadIdx.x) % 128, warpgroup = static_cast<int>(threadIdx.x) / 128;
  const ChannelConversion<F> conversion(channels, thread);
  Products<F> products(shared, thread, warpgroup);
  int before = -1;  // the stage in front
  for (int block = 0; block < blocks; ++block, stage.advance(a.stages)) {
    barrier_wait(shared.full + stage.index * 8, stage.phase);
    Raw raw[kBatch], next[kBatch];
    products.ask(raw, stage.index, 0);
#pragma unroll
    for (int first = 0; first < F::kSteps; first += kBatch) {
      if (first + kBatch < F::kSteps) products.ask(next, stage.index, first + kBatch);
      products.multiply(raw, conversion, stage.index, first, before, sums);
      Products<F>::copy(raw, next);
    }
    before = stage.index;
  }
  products.finish(before, sums);
}

// The same with rounded weights. Products take less time here than what is in front of them, so a stage's first batch is on
// its way to registers before the last one of the stage in front is multiplied.
template <class F>
__device__ __forceinline__ void multiply_rounded(const FloatWArguments& a, const FloatWShared<typename F::Layout>& shared,
                                                 int blocks, Stage& stage, float (&sums)[F::kTokens / 2]) {
  constexpr int kBatch = F::kBatch, kLast = F::kSteps - kBatch;
  const int thread = static_cast<int>(threadIdx.x) % 128, warpgroup = static_cast<int>(threadIdx.x) / 128;
  const std::uint32_t my_factors = first_factors<F>(thread, warpgroup);
  RoundedConversion<F> conversion(thread);
  Products<F> products(shared, thread, warpgroup);
  Raw raw[kBatch], next[kBatch];
  int before = -1;  // the stage in front of the last opened one
  const auto ask = [&](Raw(&to)[kBatch], int index, int first) {
    conversion.ask(shared.factors(index) + my_factors, first);
    products.ask(to, index, first);
  };
  // Multiplies `raw`, whose factors are taken.
  const auto multiply = [&](auto exact, int index, int first, int done) {
    const auto made = [&](const Raw& r) { return conversion.template made<decltype(exact)::value>(r); };
    products.multiply(raw, made, index, first, done, sums);
    Products<F>::copy(raw, next);
  };
  // All batches of the open stage but the last,
  const auto begin = [&](auto exact) {
#pragma unroll
    for (int first = 0; first < kLast; first += kBatch) {
      conversion.take(first);
      ask(next, stage.index, first + kBatch);
      multiply(exact, stage.index, first, -1);
    }
    conversion.take(kLast);
  };
  int opened_exact;
  const auto open = [&](Raw(&to)[kBatch]) {
    barrier_wait(shared.full + stage.index * 8, stage.phase);
    ask(to, stage.index, 0);
    opened_exact = shared.exact(stage.index, warpgroup);
  };
  // which waits for the next stage's first one to be asked for.
  const auto end = [&](auto exact) {
    const int index = stage.index;
    stage.advance(a.stages);
    open(next);
    multiply(exact, index, kLast, before);
    before = index;
  };
  if (blocks == 0) return;
  open(raw);
  for (int block = 1; block < blocks; ++block) {
    if (__any_sync(~0u, opened_exact != 0)) {  // the same in the whole warp, which the compiler knows then
      begin(std::true_type());
      end(std::true_type());
    } else {
      begin(std::false_type());
      end(std::false_type());
    }
  }
  begin(std::false_type());  // right for any scale: once a tile, it is not worth more code
  multiply(std::false_type(), stage.index, kLast, before);
  products.finish(stage.index, sums);
  stage.advance(a.stages);
}

// The same with groups: each period's sums are scaled and added to those of the tile. Meanwhile the other warpgroup
// multiplies.
template <class F>
__device__ __forceinline__ void multiply_groups(const FloatWArguments& a, const FloatWShared<typename F::Layout>& shared,
                                                int blocks, Stage& stage, float (&sums)[F::kTokens / 2]) {
  constexpr int kPeriod = F::kPeriod;
  const int thread = static_cast<int>(threadIdx.x) % 128, warpgroup = static_cast<int>(threadIdx.x) / 128;
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
