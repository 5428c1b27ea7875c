// W8A16 and W4A16 from compute capability 8.0 on. A block of threads computes a tile of y. Tiles of x and of w go through a
// ring of shared memory by asynchronous copies, weights as they are stored; a warp reads them into registers, makes float16
// or bfloat16 of them there, and multiplies with m16n8k16: 16 channels by 8 tokens, so that few tokens waste little.
//
// The order of K inside a product is free as long as both operands agree. Of a unit of 32 along K, thread t of the four that
// share a channel has weights 8t to 8t + 7, in one load, and of a token the same 8 values of x, in one too: four of them for
// the first product, four for the second.
//
// Sums are in float32. A channel's scale multiplies its sum at the end; with groups, the sum of each unit, or of two where
// groups are multiples of that, is multiplied by the scale of its group and added to the tile's. Warps that have parts of K
// leave their sums in shared memory, where they are added in the order of the parts.
#pragma once

#include <cstdint>

#include "core/ptx.cuh"
#include "gemm/cuda/copy_rows.cuh"
#include "gemm/cuda/float_w_sm80_shape.cuh"
#include "gemm/cuda/mma.cuh"
#include "gemm/cuda/store_outputs.cuh"
#include "gemm/cuda/widen.cuh"

namespace octavo::sm80 {

// A thread's share of a stage's scales and zero points: of one step, and every so many channels of the tile. They come with
// the stage, and stand behind its weights, by step, then channel, eight bytes each: as they are in memory, a scale, or of 16
// bits the two that share an aligned word, and the aligned four bytes that hold the zero point, until the thread that asked
// for them makes of these what products take.
template <class F>
class GroupLoader {
  static constexpr int kStep = kThreads / F::kStageSteps;  // channels from one to the next
  static constexpr int kCount = F::kPairs / kThreads;
  static constexpr std::uint32_t kSymmetricZero = F::kBits == 4 ? 8 : 128;

  // A stage's group of this thread's step.
  struct Group {
    int index, steps_before;  // in it
    __device__ Group(const Groups& groups, int step) : index(step / groups.steps), steps_before(step % groups.steps) {}
    __device__ void advance(const Groups& groups) {
      index += groups.stage_groups;
      steps_before += groups.stage_steps;
      if (steps_before < groups.steps) return;
      steps_before -= groups.steps;
      ++index;
    }
  };

 public:
  __device__ GroupLoader(const FloatWArguments& a, std::int64_t n0)
      : groups_(a.groups),
        last_row_(groups_.per_tensor ? 0 : a.N - 1),
        copied_(groups_, static_cast<int>(threadIdx.x) / kStep),
        taken_(copied_),
        place_(F::kXBytes + F::kWBytes + (threadIdx.x / kStep * F::kChannels + threadIdx.x % kStep) * 8) {
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      row_[i] = groups_.per_tensor ? 0 : static_cast<int>(min(n0 + threadIdx.x % kStep + i * kStep, a.N - 1));
    }
  }

  // Asks for the next stage's, with this thread's other copies.
  __device__ void copy(std::uint32_t stage) {
    const int group = min(copied_.index, groups_.last);  // a stage may go beyond K
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const std::uint32_t to = stage + place_ + i * (kStep * 8);
      cuda::copy4_async(to, groups_.scale.place(row_[i], groups_.scale.has_16_bits() ? group / 2 * 2 : group), 4);
      if (groups_.zero_point.data != nullptr) {
        cuda::copy_word_around_async(to + 4, groups_.zero_point(row_[i]) + group,
                                     groups_.zero_point(last_row_) + groups_.last);
      }
    }
    copied_.advance(groups_);
  }

  // Of a stage that is there.
  __device__ void prepare(std::uint32_t stage) {
    using X = typename F::X;
    const int group = min(taken_.index, groups_.last);
    const bool short_scales = groups_.scale.has_16_bits(), symmetric = groups_.zero_point.data == nullptr;
    const auto place = [&](int i) { return stage + place_ + i * (kStep * 8); };
    std::uint32_t scales[kCount][1], zeros[kCount][1];  // all asked for, then all stored
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      if (short_scales) cuda::load_shared(scales[i], place(i));
      if (!symmetric) cuda::load_shared(zeros[i], place(i) + 4);
    }
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const std::uint32_t zero =
          symmetric ? kSymmetricZero : cuda::byte_of_word(zeros[i][0], groups_.zero_point(row_[i]) + group);
      const std::uint32_t prepared = cuda::Weights<X, F::kBits>::prepared(zero);
      if (short_scales) {
        const unsigned bits = __byte_perm(scales[i][0], 0, group % 2 == 0 ? 0x4410 : 0x4432);
        ptx::store_shared(place(i), __float_as_uint(cuda::Element<X>::value(bits)), prepared);
      } else {
        ptx::store_shared(place(i) + 4, prepared);
      }
    }
    taken_.advance(groups_);
  }

 private:
  const Groups& groups_;
  std::int64_t last_row_;
  int row_[kCount];
  Group copied_, taken_;  // of the next stage
  std::uint32_t place_;
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
    pairs_ = F::kXBytes + F::kWBytes + (unit / F::kTogether * F::kChannels + warp_n * F::kWarpChannels + g) * 8;
    if constexpr (F::kGroups && F::kBits == 8) {
      if (a.groups.zero_point.data == nullptr) flip_ = Weights().flip;
    }
  }

  // Weights of kTogether units as they are stored. Units are the same bits of the address for every row, whatever the row's
  // permutation.
  __device__ void load(std::uint32_t stage, int first_unit) {
#pragma unroll
    for (int u = 0; u < F::kTogether; ++u) {
      const std::uint32_t from = stage + (w_ ^ ((first_unit + u) * F::kWUnit));
#pragma unroll
      for (int i = 0; i < F::kN; ++i) {
#pragma unroll
        for (int half = 0; half < 2; ++half) cuda::load_shared(q_[u][i][half], from + (i * 16 + half * 8) * F::kWRow);
      }
    }
  }

  // Of the units loaded last: pairs for the products, and their groups' scales.
  __device__ void widen(std::uint32_t stage, int first_unit) {
#pragma unroll
    for (int i = 0; i < F::kN; ++i) {
      Weights weights[2];
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        if constexpr (F::kGroups) {
          std::uint32_t pair[2];
          cuda::load_shared(pair, stage + pairs_ + (first_unit / F::kTogether * F::kChannels + i * 16 + half * 8) * 8);
          scale_[i][half] = __uint_as_float(pair[0]);
          weights[half].set(pair[1]);
          if constexpr (F::kBits == 8) weights[half].flip = flip_;
        }
      }
#pragma unroll
      for (int u = 0; u < F::kTogether; ++u) {
        std::uint32_t v[2][4];
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          weights[half].widen(q_[u][i][half][0], v[half]);
          if constexpr (F::kBits == 8) weights[half].widen(q_[u][i][half][1], v[half] + 2);
        }
#pragma unroll
        for (int k = 0; k < 4; ++k) {
          a_[u][i][k / 2][k % 2 * 2] = v[0][k];
          a_[u][i][k / 2][k % 2 * 2 + 1] = v[1][k];
        }
      }
    }
  }

  __device__ void multiply(std::uint32_t stage, int first_unit, Sums<F>& sums) const {
#pragma unroll
    for (int j = 0; j < F::kM; ++j) {
      uint4 x[F::kTogether];
#pragma unroll
      for (int u = 0; u < F::kTogether; ++u) {
        const std::uint32_t from = stage + (x_ ^ ((first_unit + u) * F::kXUnit));
        x[u] = cuda::ordered<F::kBits>(cuda::load16_shared(from + j * 8 * F::kXRow));
      }
#pragma unroll
      for (int i = 0; i < F::kN; ++i) {
        if constexpr (F::kGroups) {
          float part[4] = {};
#pragma unroll
          for (int u = 0; u < F::kTogether; ++u) multiply(part, u, i, x[u]);
#pragma unroll
          for (int c = 0; c < 4; ++c) sums.c[i][j][c] = __fmaf_rn(part[c], scale_[i][c / 2], sums.c[i][j][c]);
        } else {
          multiply(sums.c[i][j], 0, i, x[0]);
        }
      }
    }
  }

 private:
  using X = typename F::X;
  using Weights = cuda::Weights<X, F::kBits>;

  __device__ void multiply(float (&d)[4], int u, int i, const uint4& x) const {
    const auto& a = a_[u][i];
    cuda::multiply(X(), d, a[0][0], a[0][1], a[0][2], a[0][3], x.x, x.y);
    cuda::multiply(X(), d, a[1][0], a[1][1], a[1][2], a[1][3], x.z, x.w);
  }

  int x_, w_, pairs_;
  std::uint32_t flip_ = 0;
  std::uint32_t q_[F::kTogether][F::kN][2][F::kBits / 4];  // of channels g and g + 8
  std::uint32_t a_[F::kTogether][F::kN][2][4];
  float scale_[F::kN][2];
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
    scale[i] = !F::kGroups && i < count ? a.groups.scale.at(a.groups.per_tensor ? 0 : n + i, 0) : 1;
    scale[i] /= cuda::Weights<typename F::X, F::kBits>::kUnit;
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

  GroupLoader<F> groups(a, n0);
  const auto copy_weights = [&](std::uint32_t stage) {
    w.copy(stage + F::kXBytes);
    if constexpr (F::kGroups) groups.copy(stage);
  };

  // Where the block may start before x is there, the weights of the whole ring go ahead, if they are.
  constexpr bool kWeightsFirst = __CUDA_ARCH__ >= 900;
  constexpr int kAhead = F::kStages - 1;
  if (!a.constant_w) ptx::wait_for_predecessor();
  if constexpr (kWeightsFirst) {
#pragma unroll 1
    for (int s = 0; s < kAhead; ++s) copy_weights(ring + s * F::kStageBytes);
  }
  ptx::wait_for_predecessor();
  ptx::launch_dependents();
#pragma unroll 1
  for (int s = 0; s < kAhead; ++s) {
    if constexpr (!kWeightsFirst) copy_weights(ring + s * F::kStageBytes);
    x.copy(ring + s * F::kStageBytes);
    cuda::commit_copies();
  }

  const int warp = threadIdx.x / 32;
  const int warp_n = warp % F::kWarpsN;
  const int warp_m = warp / F::kWarpsN % F::kWarpsM;
  const int warp_k = warp / (F::kWarpsN * F::kWarpsM);
  Products<F> products(a, warp_m, warp_n, warp_k);
  Sums<F> sums;
  std::uint32_t from = ring;                          // stage that is multiplied
  std::uint32_t to = ring + kAhead * F::kStageBytes;  // stage that is copied to
  const std::uint32_t end = ring + F::kRingBytes;
  const int stages = (a.x_row + F::kXRow - 1) / F::kXRow;
  for (int s = 0; s < stages; ++s) {
    cuda::wait_for_copies<F::kStages - 2>();
    if constexpr (F::kGroups) groups.prepare(from);
    __syncthreads();
    products.load(from, 0);
    if (s + kAhead < stages) {  // everybody has multiplied the last stage, in whose place this one comes
      copy_weights(to);
      x.copy(to);
    }
    cuda::commit_copies();
#pragma unroll(F::kGroups ? 1 : F::kUnits)  // sums of two units at a time take more registers than there are
    for (int unit = 0; unit < F::kUnits; unit += F::kTogether) {
      products.widen(from, unit);
      if (unit + F::kTogether < F::kUnits) products.load(from, unit + F::kTogether);
      products.multiply(from, unit, sums);
    }
    from = from + F::kStageBytes == end ? ring : from + F::kStageBytes;
    to = to + F::kStageBytes == end ? ring : to + F::kStageBytes;
  }
  cuda::wait_for_copies<0>();
  __syncthreads();
  write<F>(a, reinterpret_cast<float*>(shared), sums, m0, n0, warp_m, warp_n, warp_k);
#endif
}

}  // namespace octavo::sm80
