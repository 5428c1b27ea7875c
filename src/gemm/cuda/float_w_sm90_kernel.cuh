// Products with quantized weights on Hopper, y[M, N] = x[M, K] · ŵ[N, K]ᵀ: operands are swapped, so that weights come to the
// tensor cores from registers, where they are converted, and activations from shared memory. Warp-specialized and
// persistent: one CTA an SM takes tile after tile, kTokens tokens by 128 channels. Some of wide tiles' columns may be of
// narrow ones instead, which end the last round earlier.
//
//    warpgroups 0 and 1   64 channels each: read weights as they are stored, convert them into fragments, multiply them with
//                         the tile's tokens (wgmma), sums in registers; at the end they scale, round and transpose.
//    one thread           copies boxes of x and w into a ring of stages (TMA). It runs ahead of the products by the whole
//                         ring, into the next tile too.
//    two warps            make what weights in groups are converted with, of their scales and zero points, once for all
//                         threads that multiply, and put it behind the stage's weights.
//
//    ring    | x boxes  w box  factors | x boxes  w box  factors | …    full[s]: stage s is filled
//                                                                       empty[s]: it has been multiplied
//
// Conversion hides behind products: a warpgroup has steps of 16 along K under way while it converts the next ones' weights,
// or the tensor cores turn to the other warpgroup's. Where few tiles would leave SMs idle, in all or in the last round, a
// cluster of CTAs divides the K of each; they send each other their sums, and add them in the order of the CTAs.
//
// With groups of kPeriod steps (or a multiple), each period's sums are scaled and added to those of the tile in fp32. Or
// (kRounded) weights are scaled where they are converted, and rounded to x's type: then nothing interrupts the products.
// These keep shared memory busy three quarters of the time, with the copies into it, so whatever else is read counts: above
// all loads from memory that touch a line a thread, as those of scales do.
//
// Weights that the kernel before does not write (constant_w) are asked for before the wait for it.
#pragma once

#include "core/ptx.cuh"
#include "gemm/cuda/float_w_sm90_factors.cuh"
#include "gemm/cuda/float_w_sm90_store.cuh"
#include "gemm/cuda/sm90.cuh"

namespace octavo::sm90 {

inline constexpr int kMaxFloatWStages = 16;

// Where everything stands in shared memory, as addresses of it.
template <class F>
struct FloatWShared {
  std::uint32_t x_box_bytes, stage_bytes, ring, staging, full, empty;
  std::uint32_t ready, sums;  // barriers: the other CTAs of the cluster take sums, and theirs are there
  std::uint32_t exacts;

  // Products read kTokens rows of x even where a box holds fewer; what they read instead is not stored. Where a cluster
  // divides K, the ring holds all CTAs' sums of a part of the tile afterwards, parts being rounded up.
  __host__ __device__ static constexpr int bytes(int x_box, int stages) {
    return ring_bytes(x_box, stages) + 2 * F::kPieces * kPieceBytes + 2 * (stages + 1) * 8 + stages * kFactorWarps * 4;
  }
  __host__ __device__ static constexpr int ring_bytes(int x_box, int stages) {
    constexpr int kSumBytes = (F::kTokens + 3 * 8) * kChannels * 4;
    const int bytes = stages * stage_size(x_box) + slack(x_box);
    return bytes < kSumBytes ? kSumBytes : bytes;
  }
  __host__ __device__ static constexpr int stage_size(int x_box) {
    return F::kXBoxes * x_box * 128 + F::kWeightBytes + F::kFactorBytes;
  }
  // The last stage's weights are read too.
  __host__ __device__ static constexpr int slack(int x_box) {
    const int beyond = (F::kTokens - x_box) * 128 - F::kWeightBytes;
    return beyond > 0 ? (beyond + 1023) / 1024 * 1024 : 0;
  }

  __device__ FloatWShared(const FloatWArguments& a, const void* memory) {
    x_box_bytes = a.x_box * 128;
    stage_bytes = stage_size(a.x_box);
    ring = shared_address(memory);
    staging = ring + ring_bytes(a.x_box, a.stages);
    full = staging + 2 * F::kPieces * kPieceBytes;
    empty = full + a.stages * 8;
    ready = empty + a.stages * 8;
    sums = ready + 8;
    exacts = sums + 8;
  }

  __device__ std::uint32_t x(int stage) const { return ring + stage * stage_bytes; }
  __device__ std::uint32_t w(int stage) const { return x(stage) + F::kXBoxes * x_box_bytes; }
  __device__ std::uint32_t factors(int stage) const { return w(stage) + F::kWeightBytes; }
  // Whether no scale of a stage's channels of a warpgroup has a low part. One warp makes the factors of each.
  __device__ void set_exact(int stage, int warpgroup, bool value) const {
    asm volatile("st.shared.b32 [%0], %1;" ::"r"(exact_at(stage, warpgroup)), "r"(static_cast<int>(value)) : "memory");
  }
  __device__ int exact(int stage, int warpgroup) const {
    int value;
    asm volatile("ld.shared.b32 %0, [%1];" : "=r"(value) : "r"(exact_at(stage, warpgroup)) : "memory");
    return value;
  }
  __device__ std::uint32_t exact_at(int stage, int warpgroup) const {
    static_assert(kFactorWarps == 2);
    return exacts + (stage * kFactorWarps + warpgroup) * 4;
  }
  __device__ std::uint32_t copied_bytes(int x_box) const { return F::kXBoxes * x_box * 128 + F::kWeightBytes; }
};

// The tiles of a CTA and its part of their K, in blocks: first those it has for itself, then one that its cluster takes.
template <class F>
class FloatWTiles {
 public:
  __device__ explicit FloatWTiles(const FloatWArguments& a) : a_(a) {}

  // The next tile's first token and channel. Its tokens end with x, of which a large tile may reach outside by a quarter of
  // them: the copy engine takes far longer for a box of which more is outside, while a few zeros save power.
  __device__ bool next(int& m, int& n) {
    if (round_ > a_.rounds) return false;
    int index = round_ * static_cast<int>(gridDim.x) + static_cast<int>(blockIdx.x);
    if (round_ == a_.rounds) {
      index = a_.rounds * static_cast<int>(gridDim.x) + static_cast<int>(cluster_number());
      begin_ = min(static_cast<int>(cluster_rank()) * a_.part, end_);
      end_ = min(begin_ + a_.part, end_);
    }
    ++round_;
    if constexpr (F::kHasNarrow) {
      const int wide = (a_.M + F::kTokens - 1) / F::kTokens * a_.wide_columns;
      narrow_ = index >= wide;
      if (narrow_) return place<F::Narrow::kTokens>(index - wide, a_.wide_columns, columns(), m, n);
    }
    return place<F::kTokens>(index, 0, a_.wide_columns, m, n);
  }

  // Whether it is a narrow one; and the first token that is no other tile's.
  __device__ bool narrow() const { return narrow_; }
  __device__ int own() const { return own_; }

  // Whether the cluster divides the one that next() gave.
  __device__ bool divided() const { return a_.cluster > 1 && round_ > a_.rounds; }

  __device__ int begin() const { return begin_; }
  __device__ int end() const { return end_; }

 private:
  __device__ int columns() const { return (a_.N + kChannels - 1) / kChannels; }

  // Where the tile number `index` of the columns from `begin` to `end` is, if there is one. They go down group_m tiles, then
  // right.
  template <int kTokens>
  __device__ bool place(int index, int begin, int end, int& m, int& n) {
    const int rows = (a_.M + kTokens - 1) / kTokens, columns = end - begin;
    if (index >= rows * columns) return false;
    const int first = index / (a_.group_m * columns) * a_.group_m;
    const int height = min(rows - first, a_.group_m);
    const int rest = index - first * columns;
    own_ = (first + rest % height) * kTokens;
    constexpr int kOutside = kTokens > 128 ? kTokens / 32 * 8 : 0;
    m = min(own_, max((a_.M + 7) / 8 * 8 + kOutside - kTokens, 0));
    n = (begin + rest / height) * kChannels;
    return true;
  }

  const FloatWArguments& a_;
  bool narrow_ = false;
  int own_ = 0, round_ = 0, begin_ = 0, end_ = (a_.K + F::kBlockK - 1) / F::kBlockK;
};

// --- Copying ------------------------------------------------------------------------------------------------------------

// narrow_x: boxes of narrow tiles.
template <class F>
__device__ __forceinline__ void copy_blocks(const FloatWArguments& a, const CUtensorMap& x, const CUtensorMap& narrow_x,
                                            const CUtensorMap& w, const FloatWShared<F>& shared) {
  FloatWTiles<F> tiles(a);
  const auto expect = [&](int stage) {
    barrier_expect(shared.full + stage * 8, shared.copied_bytes(tiles.narrow() ? a.narrow_box : a.x_box));
  };
  const auto copy_x = [&](int stage, int m, int block) {
    const CUtensorMap& boxes = tiles.narrow() ? narrow_x : x;
#pragma unroll
    for (int box = 0; box < F::kXBoxes; ++box) {
      copy_box(shared.x(stage) + box * shared.x_box_bytes, boxes, block * F::kBlockK + box * 64, m, shared.full + stage * 8);
    }
  };
  const auto copy_w = [&](int stage, int n, int block) {
    copy_box(shared.w(stage), w, block * F::kRowBytes, n, shared.full + stage * 8);
  };
  int m = 0, n = 0;
  bool any = tiles.next(m, n);
  const int ahead = any ? min(tiles.end() - tiles.begin(), a.stages) : 0;
  if (!a.constant_w) ptx::wait_for_predecessor();
  for (int i = 0; i < ahead; ++i) {
    expect(i);
    copy_w(i, n, tiles.begin() + i);
  }
  ptx::wait_for_predecessor();
  ptx::launch_dependents();
  Stage stage;
  for (int i = 0; i < ahead; ++i, stage.advance(a.stages)) copy_x(i, m, tiles.begin() + i);
  for (int first = tiles.begin() + ahead; any; any = tiles.next(m, n), first = tiles.begin()) {
    for (int block = first; block < tiles.end(); ++block, stage.advance(a.stages)) {
      barrier_wait(shared.empty + stage.index * 8, stage.phase ^ 1);
      expect(stage.index);
      copy_x(stage.index, m, block);
      copy_w(stage.index, n, block);
    }
  }
}

// Fills the stages with the factors of groups.
template <class F, class Maker>
__device__ __forceinline__ void make_factors(const FloatWArguments& a, const FloatWShared<F>& shared, int warp, int lane) {
  Maker factors(a, warp, lane);
  FloatWTiles<F> tiles(a);
  Stage stage;
  if (!a.constant_w) ptx::wait_for_predecessor();
  for (int m, n; tiles.next(m, n);) {
    factors.begin(n, tiles.begin() * F::kChanges);
    for (int block = tiles.begin(); block < tiles.end(); ++block, stage.advance(a.stages)) {
      barrier_wait(shared.empty + stage.index * 8, stage.phase ^ 1);
      const bool low = factors.make(shared.factors(stage.index));
      if constexpr (F::kRounded) {
        const bool exact = !__any_sync(~0u, low);
        if (lane == 0) shared.set_exact(stage.index, warp, exact);
      }
      __syncwarp();
      if (lane == 0) barrier_arrive_here(shared.full + stage.index * 8);
    }
  }
}

// --- Multiplying --------------------------------------------------------------------------------------------------------

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

// Scales, rounds and stores the sums that this CTA alone has.
template <class F, class Out>
__device__ __forceinline__ void store_sums(const float (&sums)[F::kTokens / 2], Out& out, const ChannelScaling& scaling,
                                           int m) {
#pragma unroll
  for (int first = 0; first < F::kTokens; first += Out::kTokens) {
    const int count = F::kTokens - first < Out::kTokens ? F::kTokens - first : Out::kTokens;
    out.begin();
#pragma unroll
    for (int token = 0; token < count; token += 8) {
      const float* s = &sums[(first + token) / 2];
      out.put(token, scaling.scaled({s[0], s[1], s[2], s[3]}));
    }
    out.end(m + first, count);
  }
}

// The same where a cluster has divided K: each CTA makes y of a part of the tokens, of which the others send it their sums,
// to where its ring was.
template <class F, class Out>
__device__ __forceinline__ void store_shared_sums(const FloatWArguments& a, const FloatWShared<typename F::Layout>& shared,
                                                  const float (&sums)[F::kTokens / 2], Out& out,
                                                  const ChannelScaling& scaling, int m) {
  constexpr int kEights = F::kTokens / 8, kEight = 256 * 16;  // and bytes of eight tokens' sums
  const int part = (kEights + a.cluster - 1) / a.cluster, rank = static_cast<int>(cluster_rank()), thread = threadIdx.x;
  const int begin = min(rank * part, kEights), end = min(begin + part, kEights);
  meet(kBoth, 256);  // both warpgroups have read the ring
  cluster_wait_begun();
  if (thread < a.cluster) {
    if (thread == rank) {
      barrier_expect(shared.sums, (a.cluster - 1) * (end - begin) * kEight);
    } else {
      barrier_arrive_in_cluster(in_cta(shared.ready, thread));
    }
  }
  barrier_wait(shared.ready, 0);
  // A part has as many places as the cluster CTAs, in their order.
  const std::uint32_t mine = shared.ring + thread * 16, of_rank = mine + rank * part * kEight;
  int cta = 0, left = part;
  std::uint32_t to = in_cta(of_rank, 0), barrier = in_cta(shared.sums, 0);
#pragma unroll
  for (int i = 0; i < kEights; ++i) {
    const float4 v = {sums[4 * i], sums[4 * i + 1], sums[4 * i + 2], sums[4 * i + 3]};
    if (cta == rank) {
      store_four(of_rank + (i - begin) * kEight, v);
    } else {
      send_four(to, v, barrier);
    }
    to += kEight;
    if (--left == 0 && i + 1 < kEights) {
      left = part;
      to = in_cta(of_rank, ++cta);
      barrier = in_cta(shared.sums, cta);
    }
  }
  barrier_wait(shared.sums, 0);
  constexpr int kAtOnce = Out::kTokens / 8;
  for (int first = begin; first < end; first += kAtOnce) {
    const int count = min(end - first, kAtOnce);
    out.begin();
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      if (i >= count) break;
      const std::uint32_t from = mine + (first - begin + i) * kEight;
      float4 total = load_four(from);
      for (int other = 1; other < a.cluster; ++other) {
        const float4 v = load_four(from + other * part * kEight);
        total = {total.x + v.x, total.y + v.y, total.z + v.z, total.w + v.w};
      }
      out.put(i * 8, scaling.scaled(total));
    }
    out.end(m + first * 8, count * 8);
  }
}

// A tile from (m, n) on, of the kind F. waited: for the kernel in front.
template <class F, class Tiles, class Out>
__device__ __forceinline__ void multiply_tile(const FloatWArguments& a, const FloatWShared<typename F::Layout>& shared,
                                              const Tiles& tiles, int m, int n, Stage& stage, bool& waited, Out& out) {
  const int thread = static_cast<int>(threadIdx.x) % 128, warpgroup = static_cast<int>(threadIdx.x) / 128;
  const int channels = n + warpgroup * 64, channel = channels + thread / 32 * 16 + thread % 32 / 4;
  const ChannelFactors factors(a, channel, channel + 8);
  ChannelScaling scaling = {{1, 1}, {0, 0}};
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    if constexpr (F::kPeriod == 0) scaling.scale[i] = factors.scale[i];
  }
  const auto load_bias = [&] {
    if (a.bias.bias == nullptr) return;
#pragma unroll
    for (int i = 0; i < 2; ++i) scaling.bias[i] = cuda::bias_at(a.bias, min(channel + i * 8, a.N - 1));
  };
  if (waited) load_bias();  // so that it is there at the tile's end
  float sums[F::kTokens / 2];
#pragma unroll
  for (int i = 0; i < F::kTokens / 2; ++i) sums[i] = 0;
  if constexpr (F::kSumsInGroups) {
    multiply_groups<F>(a, shared, tiles.end() - tiles.begin(), stage, sums);
  } else if constexpr (F::kRounded) {
    multiply_rounded<F>(a, shared, tiles.end() - tiles.begin(), stage, sums);
  } else {
    multiply_channels<F>(a, shared, tiles.end() - tiles.begin(), factors, stage, sums);
  }
  ptx::wait_for_predecessor();
  if (!waited) load_bias();
  waited = true;
  out.at(channels, tiles.own());
  if (!tiles.divided()) {
    store_sums<F>(sums, out, scaling, m);
  } else {
    store_shared_sums<F>(a, shared, sums, out, scaling, m);
  }
}

template <class F, bool kFloat32>
__device__ __forceinline__ void multiply_tiles(const FloatWArguments& a, const FloatWShared<F>& shared,
                                               const CUtensorMap& y) {
  FloatWTiles<F> tiles(a);
  Stage stage;
  if (!a.constant_w) ptx::wait_for_predecessor();
  bool waited = !a.constant_w;
  Output<F, kFloat32> out(a, y, shared.staging + static_cast<int>(threadIdx.x) / 128 * F::kPieces * kPieceBytes);
  for (int m, n; tiles.next(m, n);) {
    if constexpr (F::kHasNarrow) {
      if (tiles.narrow()) {
        multiply_tile<typename F::Narrow>(a, shared, tiles, m, n, stage, waited, out);
        continue;
      }
    }
    multiply_tile<F>(a, shared, tiles, m, n, stage, waited, out);
  }
  ptx::wait_for_predecessor();
  out.finish();
}

template <class F>
__global__ void __launch_bounds__(384, 1)
    float_w_kernel(const __grid_constant__ FloatWArguments a, const __grid_constant__ CUtensorMap x,
                   const __grid_constant__ CUtensorMap narrow_x, const __grid_constant__ CUtensorMap w,
                   const __grid_constant__ CUtensorMap y) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  extern __shared__ __align__(1024) std::uint8_t memory[];
  const FloatWShared<F> shared(a, memory);
  if (threadIdx.x == 0) {
    prefetch_tensor_map(x);
    if (F::kHasNarrow) prefetch_tensor_map(narrow_x);
    prefetch_tensor_map(w);
    prefetch_tensor_map(y);
    for (int stage = 0; stage < a.stages; ++stage) {
      barrier_init(shared.full + stage * 8, F::kChanges > 0 ? 1 + kFactorWarps : 1);  // who copies, and makes factors
      barrier_init(shared.empty + stage * 8, 8);                                      // warps that multiply
    }
    if (a.cluster > 1) {
      barrier_init(shared.ready, a.cluster - 1);
      barrier_init(shared.sums, 1);
    }
    barrier_init_fence();
  }
  __syncthreads();
  if (a.cluster > 1) cluster_begun();
  if (threadIdx.x < 256) {
    take_registers<F::kRegisters>();
    if (a.y_dtype == DType::kFloat32) {
      multiply_tiles<F, true>(a, shared, y);
    } else {
      multiply_tiles<F, false>(a, shared, y);
    }
  } else {
    give_registers<3 * 168 - 2 * F::kRegisters>();
    if (threadIdx.x == 256) copy_blocks<F>(a, x, narrow_x, w, shared);
    if constexpr (F::kChanges > 0) {
      const int warp = static_cast<int>(threadIdx.x) / 32 - 9, lane = static_cast<int>(threadIdx.x) % 32;
      if (warp >= 0 && warp < kFactorWarps) {
        if (a.scale.has_16_bits()) {
          make_factors<F, ShortFactorMaker<F>>(a, shared, warp, lane);
        } else {
          make_factors<F, FactorMaker<F>>(a, shared, warp, lane);
        }
      }
    }
  }
#endif
}

}  // namespace octavo::sm90
