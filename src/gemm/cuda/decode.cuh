// Products of few tokens on GPUs with a tensor copy engine (TMA): y[M, N] = x[M, K] · w[N, K]ᵀ for M up to 16, with int8
// weights row-major as they come from a checkpoint. Time is reading the weights once, so all that is here is about keeping
// memory busy:
//
//   w, a tile of       | warp 0 | warp 1 | … | warp 7 | warp 0 | …    K in blocks of 256, dealt to eight warps in turn
//   16 channels        |  4 KB  |  4 KB  |   |
//
//   ring of a warp     | block | block | …    copied by one of its threads (TMA), read by the warp that asked for them: no
//                                             warp waits for another before the end of a tile
//   x                  | blocks of K, all tokens |    copied once a CTA, each warp its own; read again for every tile
//   sums               | warp 0 | … | warp 7 |    added in this order by one of the warps, which scales, rounds and stores
//
//   a warp's time      ask, ask | take 0, ask | wait for the kernel in front | copy x | multiply 0 | take 1, ask | …
//
// A CTA takes a run of tiles. Before the wait it has asked for as many blocks as the ring holds and one more, which it keeps
// in registers. The kernel behind may start when a CTA's last block has been asked for and not before: its own requests
// would stand in front of ours.
//
// Channels are the M side of mma.sync, tokens its N side, 8 at a time. The order of K inside a product is free as long as
// both operands agree, so a thread reads 16 bytes in a row of w, which are its part of two products (four with 16-bit x),
// and the same 16 elements of x.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "core/ptx.cuh"
#include "gemm/cuda/epilogue.cuh"
#include "gemm/cuda/mma.cuh"
#include "gemm/cuda/sm90.cuh"

namespace octavo::decode {

inline constexpr int kWarps = 8;
inline constexpr int kThreads = kWarps * 32;
inline constexpr int kBlockK = 256;
inline constexpr int kChannels = 16;  // of a tile
inline constexpr int kBoxK = 128;     // bytes along K that the copy engine swizzles together
inline constexpr int kBlockBytes = kChannels * kBlockK;
inline constexpr int kSlabK = 64;  // what a warp multiplies at a time: 16 bytes a thread of four along K
inline constexpr int kSlabs = kBlockK / kSlabK;

struct DecodeArguments {
  int M, N, K;
  const void* x;
  std::int64_t x_stride;  // bytes
  void* y;
  std::int64_t y_stride;  // bytes
  DType y_dtype;
  cuda::Epilogue epilogue;
};

// --- Products of 16 channels and 8 tokens over 64 elements of K ----------------------------------------------------------
// Thread 4g + t has 16 bytes of w's rows g (low) and g + 8 (high), from element 16t on, and the same elements of x's row g.

template <class X>
struct Product;

template <>
struct Product<std::int8_t> {
  using Sum = std::int32_t;
  static constexpr int kXWords = 4;
  // What depends on w alone, done once for all tokens: nothing.
  struct Weights {
    uint4 low, high;
  };
  __device__ static Weights prepare(const uint4& low, const uint4& high) { return {low, high}; }
  __device__ static void step(Sum (&d)[4], std::uint32_t a0, std::uint32_t a1, std::uint32_t a2, std::uint32_t a3,
                              std::uint32_t b0, std::uint32_t b1) {
    asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
  }
  __device__ static void multiply(Sum (&d)[2][4], const Weights& w, const std::uint32_t (&x)[kXWords]) {
    step(d[0], w.low.x, w.high.x, w.low.y, w.high.y, x[0], x[1]);
    step(d[1], w.low.z, w.high.z, w.low.w, w.high.w, x[2], x[3]);
  }
};

// 16-bit floating point: int8 is exact in both types.
template <class X>
struct FloatProduct {
  using Sum = float;
  static constexpr int kXWords = 8;
  struct Weights {
    std::uint32_t low[8], high[8];  // pairs of elements in order
  };
  __device__ static Weights prepare(const uint4& low, const uint4& high) {
    Weights w;
    const std::uint32_t l[4] = {low.x, low.y, low.z, low.w}, h[4] = {high.x, high.y, high.z, high.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      Product<X>::widen(l[i], w.low[2 * i], w.low[2 * i + 1]);
      Product<X>::widen(h[i], w.high[2 * i], w.high[2 * i + 1]);
    }
    return w;
  }
  __device__ static void multiply(Sum (&d)[2][4], const Weights& w, const std::uint32_t (&x)[kXWords]) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      Product<X>::step(d[i % 2], w.low[2 * i], w.high[2 * i], w.low[2 * i + 1], w.high[2 * i + 1], x[2 * i], x[2 * i + 1]);
    }
  }
};

template <>
struct Product<__half> : FloatProduct<__half> {
  // q + 128 in the low bits of 1024 is 1152 + q.
  __device__ static void widen(std::uint32_t q, std::uint32_t& first, std::uint32_t& second) {
    q ^= 0x80808080u;
    const std::uint32_t bias = 0x64806480u;  // 1152, twice
    first = __byte_perm(q, 0x64646464u, 0x4140);
    second = __byte_perm(q, 0x64646464u, 0x4342);
    asm("sub.rn.f16x2 %0, %0, %1;" : "+r"(first) : "r"(bias));
    asm("sub.rn.f16x2 %0, %0, %1;" : "+r"(second) : "r"(bias));
  }
  __device__ static void step(Sum (&d)[4], std::uint32_t a0, std::uint32_t a1, std::uint32_t a2, std::uint32_t a3,
                              std::uint32_t b0, std::uint32_t b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
  }
};

template <>
struct Product<__nv_bfloat16> : FloatProduct<__nv_bfloat16> {
  // The low seven bits of q in those of 128, minus 128 or, where q is negative, 256.
  __device__ static std::uint32_t widened(std::uint32_t bytes) {
    const std::uint32_t magnitude = (bytes & 0x007f007fu) | 0x43004300u;
    const std::uint32_t bias = (bytes & 0x00800080u) | 0x43004300u;
    std::uint32_t value;
    asm("sub.rn.bf16x2 %0, %1, %2;" : "=r"(value) : "r"(magnitude), "r"(bias));
    return value;
  }
  __device__ static void widen(std::uint32_t q, std::uint32_t& first, std::uint32_t& second) {
    first = widened(__byte_perm(q, 0, 0x4140));
    second = widened(__byte_perm(q, 0, 0x4342));
  }
  __device__ static void step(Sum (&d)[4], std::uint32_t a0, std::uint32_t a1, std::uint32_t a2, std::uint32_t a3,
                              std::uint32_t b0, std::uint32_t b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
  }
};

// --- Shared memory --------------------------------------------------------------------------------------------------------

inline int blocks_of(int K) { return (K + kBlockK - 1) / kBlockK; }

// Offsets from a multiple of the swizzle's pattern, 1024 bytes.
template <class X, int kTokenTiles, int kStages>
struct Shared {
  static constexpr int kPattern = 1024;
  static constexpr int kSums = kWarps * kStages * kBlockBytes;
  static constexpr int kBarriers = kSums + kWarps * kTokenTiles * 32 * 16;
  static constexpr int kX = (kBarriers + (kWarps * kStages + 2) * 8 + 127) / 128 * 128;
  static constexpr int kXSlab = kSlabK * sizeof(X);  // bytes of a token in a slab
  static int bytes(int M, int K) { return kPattern + kX + M * blocks_of(K) * kBlockK * static_cast<int>(sizeof(X)); }
};

// Where 16 bytes of a token stand in its slab. Of 16-bit x a thread reads every other 16 bytes, so odd tokens have them
// swapped: the eight threads that read together, of two tokens, then touch different banks.
template <class X>
__device__ __forceinline__ int x_chunk(int token, int chunk) {
  return sizeof(X) == 2 ? chunk ^ (token & 1) : chunk;
}

// Tells a barrier of the CTA that this thread, and what the warp did before, is there.
__device__ __forceinline__ void arrive(std::uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}

// --- The kernel ---------------------------------------------------------------------------------------------------

template <class X, int kTokenTiles, int kStages>
__global__ void __launch_bounds__(kThreads, 2)
    decode_kernel(const __grid_constant__ DecodeArguments a, const __grid_constant__ CUtensorMap w) {
#if __CUDA_ARCH__ >= 900
  using S = Shared<X, kTokenTiles, kStages>;
  using P = Product<X>;
  using Sum = typename P::Sum;
  extern __shared__ std::uint8_t unaligned[];
  std::uint8_t* memory = unaligned + (-sm90::shared_address(unaligned) & (S::kPattern - 1));
  const std::uint32_t base = sm90::shared_address(memory);
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  const int g = lane / 4, t = lane % 4;
  // Channels are dealt to a product's rows so that the eight threads that read together touch different banks.
  const int channel = g / 2 + g % 2 * 4;

  const unsigned all_tiles = (a.N + kChannels - 1) / kChannels;
  const int first = static_cast<int>(blockIdx.x * all_tiles / gridDim.x);
  const int tiles = static_cast<int>((blockIdx.x + 1) * all_tiles / gridDim.x) - first;
  const int blocks = (a.K + kBlockK - 1) / kBlockK;
  const int mine = warp < blocks ? (blocks - warp + kWarps - 1) / kWarps : 0;  // this warp's of a tile
  const int total = tiles * mine;

  const std::uint32_t ring = base + warp * kStages * kBlockBytes;
  const std::uint32_t full = base + S::kBarriers + warp * kStages * 8;
  const std::uint32_t sums_full = base + S::kBarriers + kWarps * kStages * 8, sums_empty = sums_full + 8;
  int next_tile = first, next_block = 0, asked = 0;
  const auto ask = [&](int stage) {
    if (lane == 0) {
      sm90::barrier_expect(full + stage * 8, kBlockBytes);
#pragma unroll
      for (int i = 0; i < kBlockK / kBoxK; ++i) {
        sm90::copy_box(ring + stage * kBlockBytes + i * kChannels * kBoxK, w,
                       (warp + next_block * kWarps) * kBlockK + i * kBoxK, next_tile * kChannels, full + stage * 8, 0,
                       false);
      }
    }
    if (++next_block == mine) {
      next_block = 0;
      ++next_tile;
    }
    ++asked;
  };
  if (lane == 0) {
    for (int stage = 0; stage < kStages; ++stage) sm90::barrier_init(full + stage * 8, 1);
    if (warp == 0) {
      sm90::barrier_init(sums_full, kWarps);
      sm90::barrier_init(sums_empty, 1);
    }
    sm90::barrier_init_fence();
  }
  __syncwarp();
#pragma unroll
  for (int stage = 0; stage < kStages; ++stage) {
    if (stage < total) ask(stage);
  }

  // A block's weights go into registers while the products of the one before still run, and its place in the ring is asked
  // for again: the first one before the wait for the kernel in front, so that one block more is on its way by then.
  const int swizzled = (t ^ channel) * 16;  // of the first 64 bytes of a row of a box; the others are 64 further, modulo 128
  const std::uint8_t* w_of = memory + warp * kStages * kBlockBytes + channel * kBoxK;
  int stage = 0, taken = 0;
  std::uint32_t phase = 0;
  uint4 low[kSlabs], high[kSlabs];
  const auto take = [&] {
    if (taken == total) return;
    ++taken;
    sm90::barrier_wait(full + stage * 8, phase);
    const std::uint8_t* rows = w_of + stage * kBlockBytes;
#pragma unroll
    for (int s = 0; s < kSlabs; ++s) {
      const std::uint8_t* p = rows + s / 2 * kChannels * kBoxK + (swizzled ^ (s % 2 * 64));
      low[s] = *reinterpret_cast<const uint4*>(p);
      high[s] = *reinterpret_cast<const uint4*>(p + 8 * kBoxK);
    }
    __syncwarp();  // all have read the block
    if (asked < total) ask(stage);
    if (++stage == kStages) {
      stage = 0;
      phase ^= 1;
    }
  };
  take();
  __syncthreads();  // the barriers of the sums are there
  ptx::wait_for_predecessor();
  // Any thread's call counts for the CTA; its warps ask at about the same pace.
  bool told = false;
  const auto tell = [&] {
    if (told || asked < total) return;
    told = true;
    if (threadIdx.x == 0) ptx::launch_dependents();
    __syncwarp();
  };
  tell();

  // x: this warp's blocks of all tokens.
  if (tiles > 0) {
    constexpr int kChunks = kBlockK * sizeof(X) / 16;  // of a token in a block
    for (int block = 0; block < mine; ++block) {
      const int k = (warp + block * kWarps) * kBlockK;
      for (int i = lane; i < a.M * kChunks; i += 32) {
        const int token = i / kChunks, chunk = i % kChunks, slab = chunk / (kChunks / kSlabs);
        const int element = k + chunk * (16 / static_cast<int>(sizeof(X)));
        const bool real = element < a.K;
        cuda::copy16_async(
            base + S::kX + ((k / kSlabK + slab) * a.M + token) * S::kXSlab +
                x_chunk<X>(token, chunk % (kChunks / kSlabs)) * 16,
            static_cast<const char*>(a.x) + token * a.x_stride + (real ? element * static_cast<int>(sizeof(X)) : 0), real);
      }
    }
    cuda::commit_copies();
    cuda::wait_for_copies<0>();
  }
  __syncwarp();

  // The tokens past the last are it again; their sums are not stored.
  const std::uint8_t* x_of[kTokenTiles];
  int x_first[kTokenTiles];
#pragma unroll
  for (int j = 0; j < kTokenTiles; ++j) {
    const int token = min(j * 8 + g, a.M - 1);
    x_of[j] = memory + S::kX + token * S::kXSlab;
    x_first[j] = sizeof(X) == 2 ? x_chunk<X>(token, 2 * t) * 16 : t * 16;
  }
  std::uint8_t* sums_of = memory + S::kSums + lane * 16;
  const bool scaled = a.y_dtype != DType::kInt32;

  for (int it = 0; it < tiles; ++it) {
    const int n = (first + it) * kChannels + channel;
    const bool reduces = warp == it % kWarps;
    float w_scale[2] = {}, bias[2] = {}, x_scale[kTokenTiles][2] = {};
    if (reduces && scaled) {  // asked for now, used when the sums are there
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const int row = min(n + i * 8, a.N - 1);
        w_scale[i] = cuda::w_scale_at(a.epilogue, row);
        if (a.epilogue.bias != nullptr) bias[i] = cuda::bias_at(a.epilogue, row);
#pragma unroll
        for (int j = 0; j < kTokenTiles; ++j) x_scale[j][i] = cuda::x_scale_at(a.epilogue, min(j * 8 + t * 2 + i, a.M - 1));
      }
    }
    Sum sums[kTokenTiles][2][4] = {};
    for (int block = 0; block < mine; ++block) {
      const int slab = (warp + block * kWarps) * kSlabs;
#pragma unroll
      for (int s = 0; s < kSlabs; ++s) {
        const typename P::Weights weights = P::prepare(low[s], high[s]);
#pragma unroll
        for (int j = 0; j < kTokenTiles; ++j) {
          std::uint32_t x[P::kXWords];
          const std::uint8_t* p = x_of[j] + (slab + s) * a.M * S::kXSlab;
#pragma unroll
          for (int i = 0; i < P::kXWords / 4; ++i) {
            const uint4 v = *reinterpret_cast<const uint4*>(p + (x_first[j] ^ (i * 16)));
            x[4 * i] = v.x;
            x[4 * i + 1] = v.y;
            x[4 * i + 2] = v.z;
            x[4 * i + 3] = v.w;
          }
          P::multiply(sums[j], weights, x);
        }
      }
      take();
      tell();
    }

    // The warps' sums meet in shared memory, once the last tile's have been read.
    if (it > 0) sm90::barrier_wait(sums_empty, (it - 1) % 2);
#pragma unroll
    for (int j = 0; j < kTokenTiles; ++j) {
      Sum* to = reinterpret_cast<Sum*>(sums_of + (warp * kTokenTiles + j) * 512);
#pragma unroll
      for (int i = 0; i < 4; ++i) sums[j][0][i] += sums[j][1][i];
      if constexpr (sizeof(X) == 1) {
        *reinterpret_cast<int4*>(to) = {sums[j][0][0], sums[j][0][1], sums[j][0][2], sums[j][0][3]};
      } else {
        *reinterpret_cast<float4*>(to) = {sums[j][0][0], sums[j][0][1], sums[j][0][2], sums[j][0][3]};
      }
    }
    __syncwarp();
    if (lane == 0) arrive(sums_full);
    __syncwarp();
    if (!reduces) continue;
    sm90::barrier_wait(sums_full, it % 2);
    Sum d[kTokenTiles][4] = {};
#pragma unroll
    for (int j = 0; j < kTokenTiles; ++j) {
#pragma unroll
      for (int i = 0; i < kWarps; ++i) {
        const uint4 v = *reinterpret_cast<const uint4*>(sums_of + (i * kTokenTiles + j) * 512);
        if constexpr (sizeof(X) == 1) {
          d[j][0] += static_cast<std::int32_t>(v.x);
          d[j][1] += static_cast<std::int32_t>(v.y);
          d[j][2] += static_cast<std::int32_t>(v.z);
          d[j][3] += static_cast<std::int32_t>(v.w);
        } else {
          d[j][0] += __uint_as_float(v.x);
          d[j][1] += __uint_as_float(v.y);
          d[j][2] += __uint_as_float(v.z);
          d[j][3] += __uint_as_float(v.w);
        }
      }
    }
    __syncwarp();
    if (lane == 0) arrive(sums_empty);
#pragma unroll
    for (int j = 0; j < kTokenTiles; ++j) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int m = j * 8 + t * 2 + i % 2, row = n + i / 2 * 8;
        if (m >= a.M || row >= a.N) continue;
        void* out = static_cast<char*>(a.y) + m * a.y_stride;
        float v;
        if constexpr (sizeof(X) == 1) {
          if (!scaled) {
            static_cast<std::int32_t*>(out)[row] = d[j][i];
            continue;
          }
          v = cuda::scale_sum(d[j][i], w_scale[i / 2], x_scale[j][i % 2]);
        } else {
          v = __fmul_rn(d[j][i], w_scale[i / 2]);
        }
        if (a.epilogue.bias != nullptr) v = __fadd_rn(v, bias[i / 2]);
        switch (a.y_dtype) {
          case DType::kBFloat16:
            static_cast<__nv_bfloat16*>(out)[row] = __float2bfloat16_rn(v);
            break;
          case DType::kFloat16:
            static_cast<__half*>(out)[row] = __float2half_rn(v);
            break;
          default:
            static_cast<float*>(out)[row] = v;
        }
      }
    }
  }
#endif
}

}  // namespace octavo::decode
