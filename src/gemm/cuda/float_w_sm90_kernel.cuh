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
// cluster of CTAs divides the K of each; they send each other their sums, and add them in the order of the CTAs.
//
// With groups of kPeriod steps (or a multiple), each period's sums are scaled and added to those of the tile in fp32. Or
// (kRounded) weights are scaled where they are converted, and rounded to x's type: then nothing interrupts the products.
// Beside products an instruction of a warp takes five to six cycles, and 64 along K of a tile are hidden by 4 cycles a
// token: what is done for every stage must be little, that of the two warps with factors too.
//
// Weights that the kernel before does not write (constant_w) are asked for before the wait for it.
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

template <class F>
__device__ __forceinline__ void copy_blocks(const FloatWArguments& a, const FloatWMaps& maps,
                                            const FloatWShared<F>& shared) {
  FloatWTiles<F> tiles(a);
  const auto expect = [&](int stage) { barrier_expect(shared.full + stage * 8, shared.copied_bytes(tiles.x_box())); };
  const auto copy_x = [&](int stage, int m, int block) {
    const CUtensorMap& boxes = tiles.narrow() ? maps.narrow_x : maps.x;
#pragma unroll
    for (int box = 0; box < F::kXBoxes; ++box) {
      copy_box(shared.x(stage) + box * shared.x_box_bytes, boxes, block * F::kBlockK + box * 64, m, shared.full + stage * 8);
    }
  };
  const auto copy_w = [&](int stage, int n, int block) {
    copy_box(shared.w(stage), maps.w, block * F::kRowBytes, n, shared.full + stage * 8);
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

// The same where a cluster has divided K: each CTA makes y of a part of the tokens, of which the others send it their sums,
// to where its ring was.
template <class F, class Out>
__device__ __forceinline__ void store_shared_sums(const FloatWArguments& a, const FloatWShared<F>& shared,
                                                  const float (&sums)[F::kTokens / 2], int tokens, const Out& out,
                                                  const ChannelScaling& scaling, int m) {
  constexpr int kEight = 256 * 16;  // bytes of eight tokens' sums
  const int eights = tokens / 8, part = (eights + a.cluster - 1) / a.cluster;
  const int rank = static_cast<int>(cluster_rank()), thread = threadIdx.x;
  const int begin = min(rank * part, eights), end = min(begin + part, eights);
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
  if (threadIdx.x == 0) {
    prefetch_tensor_map(maps.x);
    if (F::kLarge) prefetch_tensor_map(maps.narrow_x);
    prefetch_tensor_map(maps.w);
    prefetch_tensor_map(maps.y);
    prefetch_tensor_map(maps.y_boxes);
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
    multiply_tiles<F>(a, maps, shared);
  } else {
    give_registers<3 * 168 - 2 * F::kRegisters>();
    if (threadIdx.x == 256) copy_blocks<F>(a, maps, shared);
    if constexpr (F::kChanges > 0) {
      const int warp = static_cast<int>(threadIdx.x) / 32 - 9, lane = static_cast<int>(threadIdx.x) % 32;
      if (warp >= 0 && warp < kFactorWarps) {
        constexpr bool kAny = !F::kRounded || F::kHow == HowScaled::kAnyWay;
        if ((kAny && !a.scale.has_16_bits()) || F::kHow == HowScaled::kInTwoParts) {
          make_factors<F, FactorMaker<F>>(a, shared, warp, lane);
        } else {
          const bool in_blocks = fill_blocks<F>(a);
          const auto make = [&](auto zeros) {
            if (in_blocks) return make_factors<F, ShortFactorMaker<F, zeros.value, true>>(a, shared, warp, lane);
            make_factors<F, ShortFactorMaker<F, zeros.value, false>>(a, shared, warp, lane);
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
