// Products with quantized weights on Hopper, y[M, N] = x[M, K] · ŵ[N, K]ᵀ: operands are swapped, so that weights come to the
// tensor cores from registers, where they are converted, and activations from shared memory. Warp-specialized and
// persistent: one CTA an SM takes tile after tile, so many tokens by 128 channels. Some columns of large tiles may be of
// fewer tokens than others, so that the last round ends earlier.
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
// cluster of CTAs divides the K of each; they send each other their sums, to where the ring was or behind it, and add them
// in the order of the CTAs.
//
// With groups of kPeriod steps (or a multiple), each period's sums are scaled and added to those of the tile in fp32. Or
// (kRounded) weights are scaled where they are converted, and rounded to x's type: then nothing interrupts the products.
// Beside products an instruction of a warp takes five to six cycles, and 64 along K of a tile are hidden by 4 cycles a
// token: what is done for every stage must be little, that of the two warps with factors too.
//
// A CTA begins by asking for the first stages' weights, before its threads meet, and if the kernel before does not write
// them (constant_w) before the wait for it. The barriers that tell that these are full are its own to initialize.
#pragma once

#include "core/ptx.cuh"
#include "gemm/cuda/float_w_sm90_factors.cuh"
#include "gemm/cuda/float_w_sm90_products.cuh"
#include "gemm/cuda/float_w_sm90_shared.cuh"
#include "gemm/cuda/float_w_sm90_store.cuh"
#include "gemm/cuda/float_w_sm90_walk.cuh"
#include "gemm/cuda/sm90.cuh"

namespace octavo::sm90 {

// --- Copying ------------------------------------------------------------------------------------------------------------

// How many stages' weights are asked for before the first x, which waits behind them. Measured: those of 64 tokens are
// large.
template <class F>
__device__ __forceinline__ int early_stages(const FloatWArguments& a) {
  return min(a.stages, F::kTokens == 64 ? 3 : 4);
}

// The barriers that tell of full stages, of those from `begin` to `end`: who copies arrives, and who makes factors.
template <class F>
__device__ __forceinline__ void init_full(const FloatWShared<F>& shared, int begin, int end) {
  for (int stage = begin; stage < end; ++stage)
    barrier_init(shared.full + stage * 8, F::kChanges > 0 ? 1 + kFactorWarps : 1);
}

// All other barriers.
template <class F>
__device__ __forceinline__ void init_barriers(const FloatWArguments& a, const FloatWShared<F>& shared) {
  constexpr int kMultipliers = 8;  // warps
  init_full(shared, early_stages<F>(a), a.stages);
  for (int stage = 0; stage < a.stages; ++stage) barrier_init(shared.empty + stage * 8, kMultipliers);
  if (a.cluster > 1) {
    barrier_init(shared.ready, a.cluster - 1);
    barrier_init(shared.sums, 1);
  }
  barrier_init_fence();
}

// One thread copies. begin() comes first of all, before the CTA's threads meet.
template <class F>
class Copier {
 public:
  __device__ __forceinline__ Copier(const FloatWArguments& a, const FloatWMaps& maps, const FloatWShared<F>& shared)
      : a_(a), maps_(maps), shared_(shared), tiles_(a) {}

  __device__ __forceinline__ void begin() {
    init_full(shared_, 0, early_stages<F>(a_));
    barrier_init_fence();
    any_ = tiles_.next(m_, n_);
    early_ = any_ ? min(tiles_.end() - tiles_.begin(), early_stages<F>(a_)) : 0;
    if (!a_.constant_w) ptx::wait_for_predecessor();
    for (int i = 0; i < early_; ++i) {
      expect(i);
      copy_w(i, tiles_.begin() + i);
    }
  }

  __device__ __forceinline__ void copy() {
    ptx::wait_for_predecessor();
    ptx::launch_dependents();
    Stage stage;
    for (int i = 0; i < early_; ++i, stage.advance(a_.stages)) copy_x(i, tiles_.begin() + i);
    for (int first = tiles_.begin() + early_; any_; any_ = tiles_.next(m_, n_), first = tiles_.begin()) {
      for (int block = first; block < tiles_.end(); ++block, stage.advance(a_.stages)) {
        barrier_wait(shared_.empty + stage.index * 8, stage.phase ^ 1);
        expect(stage.index);
        copy_x(stage.index, block);
        copy_w(stage.index, block);
      }
    }
  }

 private:
  __device__ __forceinline__ void expect(int stage) const {
    barrier_expect(shared_.full + stage * 8, shared_.copied_bytes(tiles_.x_box()));
  }
  __device__ __forceinline__ void copy_x(int stage, int block) const {
    const CUtensorMap& boxes = tiles_.narrow() ? maps_.narrow_x : maps_.x;
#pragma unroll
    for (int box = 0; box < F::kXBoxes; ++box) {
      copy_box(shared_.x(stage) + box * shared_.x_box_bytes, boxes, block * F::kBlockK + box * 64, m_,
               shared_.full + stage * 8);
    }
  }
  __device__ __forceinline__ void copy_w(int stage, int block) const {
    copy_box(shared_.w(stage), maps_.w, block * F::kRowBytes, n_, shared_.full + stage * 8);
  }

  const FloatWArguments& a_;
  const FloatWMaps& maps_;
  const FloatWShared<F>& shared_;
  FloatWTiles<F> tiles_;
  int m_ = 0, n_ = 0, early_ = 0;
  bool any_ = false;
};

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
      factors.make(shared.factors(stage.index));
      __syncwarp();
      if (lane == 0) barrier_arrive_here(shared.full + stage.index * 8);
    }
  }
}

// --- Multiplying --------------------------------------------------------------------------------------------------------

// Scales, rounds and stores the sums that this CTA alone has.
template <class F, class Out>
__device__ __forceinline__ void store_sums(const float (&sums)[F::kTokens / 2], int tokens, const Out& out,
                                           const ChannelScaling& scaling, int m) {
  constexpr int kTokens = F::kTokens < Out::kTokens ? F::kTokens : Out::kTokens;  // at a time
  constexpr int kPiece = kTokens < Out::kPiece ? kTokens : Out::kPiece;
#pragma unroll
  for (int first = 0; first < F::kTokens; first += kTokens) {
    if (first >= tokens) break;
    out.begin();
#pragma unroll
    for (int piece = first; piece < min(first + kTokens, F::kTokens); piece += kPiece) {
      if (piece >= tokens) break;  // no more often: eight tokens' instructions overlap with the next ones'
#pragma unroll
      for (int token = piece; token < min(piece + kPiece, F::kTokens); token += 8) {
        const float* s = &sums[token / 2];
        out.put(token - first, scaling.scaled({s[0], s[1], s[2], s[3]}));
      }
    }
    out.end(m + first, min(tokens - first, kTokens));
  }
}

// The same where a cluster has divided K: each CTA makes y of a part of the tokens, of which the others send it their sums.
template <class F, class Out>
__device__ __forceinline__ void store_shared_sums(const FloatWArguments& a, const FloatWShared<F>& shared,
                                                  const float (&sums)[F::kTokens / 2], int tokens, const Out& out,
                                                  const ChannelScaling& scaling, int m) {
  constexpr int kEight = 256 * 16;  // bytes of eight tokens' sums
  const int eights = tokens / 8, part = (eights + a.cluster - 1) / a.cluster;
  const int rank = static_cast<int>(cluster_rank()), thread = threadIdx.x;
  const int begin = min(rank * part, eights), end = min(begin + part, eights);
  constexpr bool kInRing = !FloatWShared<F>::kReceivesApart;
  if (kInRing) meet(kBoth, 256);  // both warpgroups have read it
  cluster_wait_begun();
  if (thread < a.cluster) {
    if (thread == rank) {
      barrier_expect(shared.sums, (a.cluster - 1) * (end - begin) * kEight);
    } else if (kInRing) {
      barrier_arrive_in_cluster(in_cta(shared.ready, thread));
    }
  }
  if (kInRing) barrier_wait(shared.ready, 0);
  // A part has as many places as the cluster CTAs, in their order.
  const std::uint32_t mine = shared.received + thread * 16, of_rank = mine + rank * part * kEight;
  int cta = 0, left = part;
  std::uint32_t to = in_cta(of_rank, 0), barrier = in_cta(shared.sums, 0);
#pragma unroll
  for (int i = 0; i < F::kTokens / 8; ++i) {
    if (i >= eights) break;
    const float4 v = {sums[4 * i], sums[4 * i + 1], sums[4 * i + 2], sums[4 * i + 3]};
    if (cta == rank) {
      store_four(of_rank + (i - begin) * kEight, v);
    } else {
      send_four(to, v, barrier);
    }
    to += kEight;
    if (--left == 0 && i + 1 < eights) {
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
    for (int i = 0; i < count; ++i) {
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

// A tile from (m, n) on. waited: for the kernel in front.
template <class F>
__device__ __forceinline__ void multiply_tile(const FloatWArguments& a, const FloatWMaps& maps,
                                              const FloatWShared<F>& shared, const FloatWTiles<F>& tiles, int m, int n,
                                              Stage& stage, bool& waited) {
  const int thread = static_cast<int>(threadIdx.x) % 128, warpgroup = static_cast<int>(threadIdx.x) / 128;
  const int channels = n + warpgroup * 64, channel = channels + thread / 32 * 16 + thread % 32 / 4;
  const ChannelFactors factors(a, channel, channel + 8);
  ChannelScaling scaling = {{1, 1}, {0, 0}};
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    scaling.scale[i] = (F::kPeriod == 0 ? factors.scale[i] : 1) / F::Convert::kUnit;
  }
  const auto load_bias = [&] {
    if (a.bias.bias == nullptr) return;
#pragma unroll
    for (int i = 0; i < 2; ++i) scaling.bias[i] = cuda::bias_at(a.bias, min(channel + i * 8, a.N - 1));
  };
  if (waited) load_bias();  // so that it is there at the tile's end
  float sums[F::kTokens / 2];
  if constexpr (F::kSumsInGroups) {
    multiply_groups<F>(a, shared, tiles.end() - tiles.begin(), stage, sums);
  } else {
    const auto multiply = [&](auto conversion) {
      const int blocks = tiles.end() - tiles.begin();
      multiply_all<F, typename decltype(conversion)::type>(a, shared, factors, blocks, tiles.tokens(), stage, sums);
    };
    if constexpr (!F::kRounded) {
      multiply(std::type_identity<ChannelConversion<F>>());
    } else if constexpr (F::kHow != HowScaled::kAnyWay) {
      multiply(std::type_identity<RoundedConversion<F, F::kHow>>());
    } else {
      constexpr HowScaled kSymmetric = kSymmetricScaled<typename F::X>;
      const HowScaled how = how_scaled<typename F::X>(a);
      if (how == HowScaled::kInTwoParts) {
        multiply(std::type_identity<RoundedConversion<F, HowScaled::kInTwoParts>>());
      } else if (how == kSymmetric) {
        multiply(std::type_identity<RoundedConversion<F, kSymmetric>>());
      } else if (how == HowScaled::kInOne) {
        multiply(std::type_identity<RoundedConversion<F, HowScaled::kInOne>>());
      }
    }
  }
  ptx::wait_for_predecessor();
  if (!waited) load_bias();
  waited = true;
  const auto store = [&](auto y) {
    const std::uint32_t staging = shared.staging + warpgroup * F::kPieces * kPieceBytes;
    const Output<decltype(y), F::kPieces> out(a, maps, staging, tiles.own(), channels);
    if (!tiles.divided()) {
      store_sums<F>(sums, tiles.tokens(), out, scaling, m);
    } else {
      store_shared_sums<F>(a, shared, sums, tiles.tokens(), out, scaling, m);
    }
  };
  switch (a.y_dtype) {
    case DType::kFloat16:
      return store(__half());
    case DType::kBFloat16:
      return store(__nv_bfloat16());
    default:
      return store(float());
  }
}

template <class F>
__device__ __forceinline__ void multiply_tiles(const FloatWArguments& a, const FloatWMaps& maps,
                                               const FloatWShared<F>& shared) {
  FloatWTiles<F> tiles(a);
  Stage stage;
  if (!a.constant_w) ptx::wait_for_predecessor();
  bool waited = !a.constant_w;
  for (int m, n; tiles.next(m, n);) multiply_tile(a, maps, shared, tiles, m, n, stage, waited);
  ptx::wait_for_predecessor();
  if (threadIdx.x % 128 == 0) copies_read<0>();  // before the staging ends with the CTA
}

template <class F>
__global__ void __launch_bounds__(384, 1)
    float_w_kernel(const __grid_constant__ FloatWArguments a, const __grid_constant__ FloatWMaps maps) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  extern __shared__ __align__(1024) std::uint8_t memory[];
  const FloatWShared<F> shared(a, memory);
  const int warp = static_cast<int>(threadIdx.x) / 32;
  constexpr int kCopier = 8;  // the warp of which one thread copies
  Copier<F> copier(a, maps, shared);
  const bool copies = warp == kCopier && elected();
  if (copies) {
    copier.begin();
  } else if (warp == 0 && elected()) {
    prefetch_tensor_map(maps.x);
    if (F::kLarge) prefetch_tensor_map(maps.narrow_x);
    prefetch_tensor_map(maps.y);
    prefetch_tensor_map(maps.y_boxes);
    init_barriers(a, shared);
  }
  __syncthreads();
  if (a.cluster > 1) cluster_begun();
  if (threadIdx.x < 256) {
    take_registers<F::kRegisters>();
    multiply_tiles<F>(a, maps, shared);
  } else {
    give_registers<3 * 168 - 2 * F::kRegisters>();
    if (copies) copier.copy();
    if constexpr (F::kChanges > 0) {
      const int maker = warp - kCopier - 1, lane = static_cast<int>(threadIdx.x) % 32;
      if (maker >= 0 && maker < kFactorWarps) {
        constexpr bool kAny = !F::kRounded || F::kHow == HowScaled::kAnyWay;
        if ((kAny && !a.scale.has_16_bits()) || F::kHow == HowScaled::kInTwoParts) {
          make_factors<F, FactorMaker<F>>(a, shared, maker, lane);
        } else {
          const bool in_blocks = fill_blocks<F>(a);
          const auto make = [&](auto zeros) {
            if (in_blocks) return make_factors<F, ShortFactorMaker<F, zeros.value, true>>(a, shared, maker, lane);
            make_factors<F, ShortFactorMaker<F, zeros.value, false>>(a, shared, maker, lane);
          };
          if (F::kHow != HowScaled::kFused && a.zero_point.data != nullptr) {
            make(std::true_type());
          } else {
            make(std::false_type());
          }
        }
      }
    }
  }
#endif
}

}  // namespace octavo::sm90
