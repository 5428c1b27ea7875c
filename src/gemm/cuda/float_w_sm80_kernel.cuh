// W8A16 and W4A16 from compute capability 8.0 on. A block of threads computes a tile of y. Tiles of x and of w go through a
// ring of shared memory by asynchronous copies, weights as they are stored; a warp reads them into registers, makes float16
// or bfloat16 of them there, and multiplies with m16n8k16: 16 channels by 8 tokens, so that few tokens waste little.
//
// The order of K inside a product is free as long as both operands agree. Of a unit of 32 along K, thread t of the four that
// share a channel has weights 8t to 8t + 7, in one load, and of a token the same 8 values of x, in one too: four of them for
// the first product, four for the second.
//
// Sums are in float32. A channel's scale multiplies its sum at the end; with groups, each unit's sum is multiplied by the
// scale of its group and added to the tile's. Warps that have parts of K leave their sums in shared memory, where they are
// added in the order of the parts.
#pragma once

#include <cstdint>

#include "core/ptx.cuh"
#include "gemm/cuda/copy_rows.cuh"
#include "gemm/cuda/float_w_sm80_shape.cuh"
#include "gemm/cuda/mma.cuh"
#include "gemm/cuda/store_outputs.cuh"
#include "gemm/cuda/widen.cuh"

namespace octavo::sm80 {

// A thread's share of the scales and zero points: of one unit of each stage, and every so many channels of the tile.
template <class F>
class GroupLoader {
  static constexpr int kStep = kThreads / F::kStageUnits;  // channels from one to the next
  static constexpr int kCount = F::kPairs / kThreads;
  static constexpr std::uint32_t kSymmetricZero = F::kBits == 4 ? 8 : 128;

 public:
  __device__ GroupLoader(const FloatWArguments& a, std::int64_t n0) : groups_(a.groups) {
    const int unit = threadIdx.x / kStep, channel = threadIdx.x % kStep;
    group_ = unit / groups_.units;
    in_group_ = unit % groups_.units;
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      row_[i] = groups_.per_tensor ? 0 : static_cast<int>(min(n0 + channel + i * kStep, a.N - 1));
    }
  }

  // What the next stage needs, on its way into registers.
  __device__ void load() {
    const int group = min(group_, groups_.last);  // a stage may go beyond K
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      scale_[i] = groups_.scale(row_[i])[group];
      zero_[i] = groups_.zero_point.data == nullptr ? kSymmetricZero : groups_.zero_point(row_[i])[group];
    }
    group_ += groups_.stage_groups;
    in_group_ += groups_.stage_units;
    if (in_group_ >= groups_.units) {
      in_group_ -= groups_.units;
      ++group_;
    }
  }

  // Into shared memory: by unit, then channel. Threads go through both in order.
  __device__ void store(std::uint32_t pairs) const {
    const int unit = threadIdx.x / kStep, channel = threadIdx.x % kStep;
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      store_shared(pairs + (unit * F::kChannels + channel + i * kStep) * 8, {__float_as_uint(scale_[i]), zero_[i]});
    }
  }

 private:
  static __device__ void store_shared(std::uint32_t address, uint2 v) {
    asm volatile("st.shared.v2.b32 [%0], {%1, %2};" ::"r"(address), "r"(v.x), "r"(v.y) : "memory");
  }

  const Groups& groups_;
  int row_[kCount];
  int group_, in_group_;  // of the next stage: the unit's group, and how many units of it are before
  float scale_[kCount] = {};
  std::uint32_t zero_[kCount] = {};
};

template <class F>
struct Sums {
  float c[F::kN][F::kM][4] = {};
};

// A warp's part of a stage.
template <class F>
class Products {
 public:
  __device__ Products(const FloatWArguments& a, int warp_m, int warp_n, int warp_k) {
    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    const int unit = warp_k * F::kUnits;
    const int byte = t * F::kBits;  // of the thread's weights in a unit
    x_ = cuda::chunk_offset<F::kXRow, F::kXSpan>(warp_m * F::kWarpTokens + g, unit * F::kXSpan + t);
    w_ = F::kXBytes + byte % 16 +
         cuda::chunk_offset<F::kWRow, F::kWSpan>(warp_n * F::kWarpChannels + g, unit * F::kWSpan + byte / 16);
    pairs_ = (unit * F::kChannels + warp_n * F::kWarpChannels + g) * 8;
    if constexpr (F::kGroups && F::kBits == 8) {
      if (a.groups.zero_point.data == nullptr) flip_ = Weights().flip;
    }
  }

  // A unit's weights as they are stored. Units are the same bits of the address for every row, whatever the row's
  // permutation.
  __device__ void load(std::uint32_t stage, int unit) {
    const std::uint32_t from = stage + (w_ ^ (unit * F::kWUnit));
#pragma unroll
    for (int i = 0; i < F::kN; ++i) {
#pragma unroll
      for (int half = 0; half < 2; ++half) cuda::load_shared(q_[i][half], from + (i * 16 + half * 8) * F::kWRow);
    }
  }

  // Of the unit loaded last: pairs for the products, and its groups' scales.
  __device__ void widen(std::uint32_t pairs, int unit) {
#pragma unroll
    for (int i = 0; i < F::kN; ++i) {
      std::uint32_t v[2][4];
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        Weights weights;
        if constexpr (F::kGroups) {
          std::uint32_t pair[2];
          cuda::load_shared(pair, pairs + pairs_ + (unit * F::kChannels + i * 16 + half * 8) * 8);
          scale_[i][half] = __uint_as_float(pair[0]);
          weights.set_zero_point(pair[1]);
          if constexpr (F::kBits == 8) weights.flip = flip_;
        }
        weights.widen(q_[i][half][0], v[half]);
        if constexpr (F::kBits == 8) weights.widen(q_[i][half][1], v[half] + 2);
      }
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        a_[i][k / 2][k % 2 * 2] = v[0][k];
        a_[i][k / 2][k % 2 * 2 + 1] = v[1][k];
      }
    }
  }

  __device__ void multiply(std::uint32_t stage, int unit, Sums<F>& sums) const {
    const std::uint32_t from = stage + (x_ ^ (unit * F::kXUnit));
#pragma unroll
    for (int j = 0; j < F::kM; ++j) {
      const uint4 x = cuda::ordered<F::kBits>(cuda::load16_shared(from + j * 8 * F::kXRow));
#pragma unroll
      for (int i = 0; i < F::kN; ++i) {
        if constexpr (F::kGroups) {
          float part[4] = {};
          multiply(part, i, x);
#pragma unroll
          for (int c = 0; c < 4; ++c) sums.c[i][j][c] = __fmaf_rn(part[c], scale_[i][c / 2], sums.c[i][j][c]);
        } else {
          multiply(sums.c[i][j], i, x);
        }
      }
    }
  }

 private:
  using X = typename F::X;
  using Weights = cuda::Weights<X, F::kBits>;

  __device__ void multiply(float (&d)[4], int i, const uint4& x) const {
    cuda::multiply(X(), d, a_[i][0][0], a_[i][0][1], a_[i][0][2], a_[i][0][3], x.x, x.y);
    cuda::multiply(X(), d, a_[i][1][0], a_[i][1][1], a_[i][1][2], a_[i][1][3], x.z, x.w);
  }

  int x_, w_, pairs_;
  std::uint32_t flip_ = F::kBits == 8 && F::kGroups ? unsigned_flip() : 0;
  std::uint32_t q_[F::kN][2][F::kBits / 4];  // of channels g and g + 8
  std::uint32_t a_[F::kN][2][4];
  float scale_[F::kN][2];

  static __device__ std::uint32_t unsigned_flip() {
    if constexpr (F::kBits == 8) {
      Weights weights;
      weights.set_zero_point(0);
      return weights.flip;
    }
    return 0;
  }
};

// Adds kOutputs sums that lie side by side.
__device__ inline void add_sums(float (&sums)[cuda::kOutputs], const float* from) {
#pragma unroll
  for (int i = 0; i < cuda::kOutputs; i += 4) {
    const float4 v = *reinterpret_cast<const float4*>(from + i);
    sums[i] += v.x, sums[i + 1] += v.y, sums[i + 2] += v.z, sums[i + 3] += v.w;
  }
}

// From the warps' sums to y, by way of shared memory: a warp has tokens side by side, y channels.
template <class F>
__device__ void write(const FloatWArguments& a, float* shared, const Sums<F>& sums, std::int64_t m0, std::int64_t n0,
                      int warp_m, int warp_n, int warp_k) {
  using cuda::kOutputs;
  const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
  float* const own =
      shared + (warp_k * F::kTokens + warp_m * F::kWarpTokens + 2 * t) * F::kSumRow + warp_n * F::kWarpChannels + g;
#pragma unroll
  for (int j = 0; j < F::kM; ++j) {
#pragma unroll
    for (int i = 0; i < F::kN; ++i) {
#pragma unroll
      for (int c = 0; c < 4; ++c) own[(j * 8 + c % 2) * F::kSumRow + i * 16 + c / 2 * 8] = sums.c[i][j][c];
    }
  }
  __syncthreads();

  constexpr int kPieces = F::kChannels / kOutputs;  // of a token
  static_assert(kThreads % kPieces == 0);
  const int channel = threadIdx.x % kPieces * kOutputs;
  const std::int64_t n = n0 + channel;
  const int count = static_cast<int>(min(a.N - n, std::int64_t{kOutputs}));  // none at all: not positive
  float scale[kOutputs], bias[kOutputs];
#pragma unroll
  for (int i = 0; i < kOutputs; ++i) {
    scale[i] = !F::kGroups && i < count ? *a.groups.scale(a.groups.per_tensor ? 0 : n + i) : 1;
    bias[i] = a.bias.bias != nullptr && i < count ? bias_at(a.bias, n + i) : 0;
  }
#pragma unroll 1  // code that runs once a block costs most where it is long
  for (int row = threadIdx.x / kPieces; row < F::kTokens && m0 + row < a.M; row += kThreads / kPieces) {
    float y[kOutputs] = {};
#pragma unroll
    for (int k = 0; k < F::kWarpsK; ++k) add_sums(y, shared + (k * F::kTokens + row) * F::kSumRow + channel);
#pragma unroll
    for (int i = 0; i < kOutputs; ++i) y[i] = y[i] * scale[i] + bias[i];
    cuda::round_and_store(a.y + (m0 + row) * a.y_stride, n, a.y_dtype, y, count, a.y_vectors);
  }
}

template <class F, bool kAligned>
__global__ void __launch_bounds__(kThreads, F::kBlocks) float_w_kernel(const __grid_constant__ FloatWArguments a) {
#if __CUDA_ARCH__ >= 800
  extern __shared__ __align__(128) unsigned char shared[];
  const std::uint32_t ring = ptx::shared_address(shared);
  const uint2 tile = cuda::tile_of_block(a.tiles_m, a.tiles_n);
  const std::int64_t m0 = static_cast<std::int64_t>(tile.x) * F::kTokens;
  const std::int64_t n0 = static_cast<std::int64_t>(tile.y) * F::kChannels;
  cuda::Copier<F::kTokens, F::kXRow, kThreads, kAligned, F::kXSpan> x(a.x + m0 * a.x_stride, a.x_stride, a.M - m0, a.x_row,
                                                                      a.words);
  cuda::Copier<F::kChannels, F::kWRow, kThreads, kAligned, F::kWSpan> w(a.w + n0 * a.w_stride, a.w_stride, a.N - n0, a.w_row,
                                                                        a.words);

  // Where the block may start before x is there, the weights of the whole ring go ahead, if they are.
  constexpr bool kWeightsFirst = __CUDA_ARCH__ >= 900;
  constexpr int kAhead = F::kStages - 1;
  if (!a.constant_w) ptx::wait_for_predecessor();
  if constexpr (kWeightsFirst) {
#pragma unroll 1
    for (int s = 0; s < kAhead; ++s) w.copy(ring + s * F::kStageBytes + F::kXBytes);
  }
  ptx::wait_for_predecessor();
  ptx::launch_dependents();
#pragma unroll 1
  for (int s = 0; s < kAhead; ++s) {
    if constexpr (!kWeightsFirst) w.copy(ring + s * F::kStageBytes + F::kXBytes);
    x.copy(ring + s * F::kStageBytes);
    cuda::commit_copies();
  }
  GroupLoader<F> groups(a, n0);
  if constexpr (F::kGroups) groups.load();

  const int warp = threadIdx.x / 32;
  const int warp_n = warp % F::kWarpsN;
  const int warp_m = warp / F::kWarpsN % F::kWarpsM;
  const int warp_k = warp / (F::kWarpsN * F::kWarpsM);
  Products<F> products(a, warp_m, warp_n, warp_k);
  Sums<F> sums;
  std::uint32_t from = ring;                          // stage that is multiplied
  std::uint32_t to = ring + kAhead * F::kStageBytes;  // stage that is copied to
  std::uint32_t pairs = ring + F::kRingBytes;         // scales and zero points of the stage
  const std::uint32_t end = ring + F::kRingBytes;
  const int stages = (a.x_row + F::kXRow - 1) / F::kXRow;
  for (int s = 0; s < stages; ++s) {
    cuda::wait_for_copies<F::kStages - 2>();
    if constexpr (F::kGroups) groups.store(pairs);  // everybody is past the stage before the last, which these were for
    __syncthreads();
    products.load(from, 0);
    if (s + kAhead < stages) {  // everybody has multiplied the last stage, in whose place this one comes
      w.copy(to + F::kXBytes);
      x.copy(to);
    }
    cuda::commit_copies();
    if constexpr (F::kGroups) groups.load();  // for the next stage; beyond the last one, what is there
#pragma unroll(F::kGroups ? 1 : F::kUnits)    // sums of two units at a time take more registers than there are
    for (int unit = 0; unit < F::kUnits; ++unit) {
      products.widen(pairs, unit);
      if (unit + 1 < F::kUnits) products.load(from, unit + 1);
      products.multiply(from, unit, sums);
    }
    from = from + F::kStageBytes == end ? ring : from + F::kStageBytes;
    to = to + F::kStageBytes == end ? ring : to + F::kStageBytes;
    pairs = pairs == end ? end + F::kPairsBytes : end;
  }
  cuda::wait_for_copies<0>();
  __syncthreads();
  write<F>(a, reinterpret_cast<float*>(shared), sums, m0, n0, warp_m, warp_n, warp_k);
#endif
}

}  // namespace octavo::sm80
