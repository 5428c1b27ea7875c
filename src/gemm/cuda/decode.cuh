// Products of few tokens on GPUs with a tensor copy engine (TMA): y[M, N] = x[M, K] · w[N, K]ᵀ for M up to 16, with int8 or
// int4 weights row-major as they come from a checkpoint. Time is reading the weights once, so all that is here is about
// keeping memory busy, and about the time from one kernel of a chain to the next:
//
//   w, a tile of       | warp 0 | warp 1 | … | warp 0 | …   K in blocks of 256 bytes a channel, dealt to the CTA's warps in
//   16 channels        |  4 KB  |  4 KB  |   |              turn, on through all its tiles
//
//   ring of a warp     | block | block | …    copied by one of its threads (TMA), read by the warp that asked for them: no
//                                             warp waits for another before the end of a tile
//   x                  | token | token | …    all of K, copied once a CTA, or for two (decode_pairs.cuh), or split into
//                                             digits (decode_digits.cuh)
//   sums               | warp 0 | warp 1 | …  of a tile, added in this order by a ninth warp, which scales, rounds and
//                                             stores, while the others go on with the next tile
//
//   a warp's time      ask, ask | wait for the kernel in front | copy x | take 0, ask, multiply | take 1, ask, multiply | …
//                      (where x would wait behind all that a ring holds, it asks for a part of it behind x)
//
// A multiprocessor has one CTA, which takes one tile in so many, so that all of them read neighbouring memory. How much
// is on its way at a time matters: of little, memory idles; behind too much wait x, and the word that the kernel in front
// has ended. And a multiprocessor takes some 40 copies at a time; with more it slows down, so blocks are not smaller.
//
// Where a ring worth having leaves room, the next kernel's CTA stands beside ours, and asks for its weights while ours takes
// its last ones. It should come when ours has almost nothing left to ask for: earlier, its ring is full too soon, and memory
// idles from our last block until the next kernel has its x. And it must come to every multiprocessor. Where one has room
// for two because our CTA has ended, as those with a tile less do, it gets two, and another none: so these stay a while.
#pragma once

#include "core/ptx.cuh"
#include "gemm/cuda/decode_ask.cuh"
#include "gemm/cuda/decode_blocks.cuh"
#include "gemm/cuda/decode_digits.cuh"
#include "gemm/cuda/decode_pairs.cuh"
#include "gemm/cuda/decode_x.cuh"

namespace octavo::decode {

// One value of y, of its scaled sum.
__device__ __forceinline__ void store(const DecodeArguments& a, int m, int n, float v) {
  void* row = static_cast<char*>(a.y) + m * a.y_stride;
  switch (a.y_dtype) {
    case DType::kBFloat16:
      static_cast<__nv_bfloat16*>(row)[n] = __float2bfloat16_rn(v);
      return;
    case DType::kFloat16:
      static_cast<__half*>(row)[n] = __float2half_rn(v);
      return;
    default:
      static_cast<float*>(row)[n] = v;
  }
}

// Where the warps' sums of a tile meet: one of some buffers in turn, with a barrier for all sums being there and one for all
// having been read.
template <class Kind>
struct Meeting {
  std::uint8_t* sums;  // of the first warp
  std::uint32_t full, empty;
  unsigned round;  // how many tiles have had the buffer before

  __device__ __forceinline__ Meeting(const DecodeArguments& a, const Shared<Kind>& shared, std::uint8_t* memory, int tile) {
    const unsigned buffers = a.buffers, buffer = tile & (buffers - 1);
    sums = memory + shared.sums + buffer * Kind::kWarps * shared.sums_bytes;
    full = ptx::shared_address(memory) + shared.sums_barriers + buffer * 8;
    empty = full + buffers * 8;
    round = buffers == 4 ? tile / 4 : tile / 2;
  }
};

// A warp's sums of a tile to where they meet the others'.
template <class Kind, class Sum>
__device__ __forceinline__ void put_sums(const DecodeArguments& a, std::uint8_t* to, int bytes, int lane,
                                         const Sum (&sums)[Kind::kTokenTiles][2][4]) {
  using Two = std::conditional_t<Kind::kInteger, int2, float2>;
  const int t = lane % 4;
  to += lane / 4 * (bytes / kChannels);
  if constexpr (Kind::kTokenColumns > 1) {
    constexpr int kThreads = Kind::kTokenColumns / 2;  // that have a token's columns; of digits, 0 and 1, or 2 and 3
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float sum = sums[0][0][2 * half];
      if constexpr (Kind::kSplits) {
        sum = __fmaf_rn(sums[0][0][2 * half + 1], kDigitUnit, sum) * (t % 2 == 0 ? 1 : kDigitUnit * kDigitUnit);
      }
#pragma unroll
      for (int i = 1; i < kThreads; i *= 2) sum += __shfl_xor_sync(~0u, sum, i);
      if (t % kThreads == 0 && t / kThreads < a.M)
        *reinterpret_cast<float*>(to + t / kThreads * 4 + half * (bytes / 2)) = sum;
    }
  } else {
#pragma unroll
    for (int j = 0; j < Kind::kTokenTiles; ++j) {
      if (j * 8 + t * 2 >= a.M) break;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        *reinterpret_cast<Two*>(to + t * 8 + j * 32 + half * (bytes / 2)) = {
            sums[j][0][2 * half] + sums[j][1][2 * half], sums[j][0][2 * half + 1] + sums[j][1][2 * half + 1]};
      }
    }
  }
}

// What a thread takes of its two channels to make their outputs.
struct Factors {
  float w_scale[2] = {1, 1}, bias[2] = {};
};

template <class Kind>
__device__ __forceinline__ Factors factors_of(const DecodeArguments& a, int n) {
  Factors f;
  if (a.y_dtype == DType::kInt32) return f;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int row = min(n + i * 8, a.N - 1);
    if constexpr (Kind::kFlush == 0) f.w_scale[i] = cuda::w_scale_at(a.epilogue, row);
    if (a.epilogue.bias != nullptr) f.bias[i] = cuda::bias_at(a.epilogue, row);
  }
  return f;
}

// The outputs of a CTA's tiles from their warps' sums, by one warp. A tile's scales are asked for a tile before: behind so
// many weights on their way they take longer than a tile.
template <class Kind>
__device__ __forceinline__ void add_up(const DecodeArguments& a, const Shared<Kind>& shared, std::uint8_t* memory,
                                       unsigned lane, int first, int step, int tiles) {
  using P = Product<typename Kind::X, Kind::kBits>;
  using Two = std::conditional_t<Kind::kInteger, int2, float2>;
  const int g = lane / 4, t = lane % 4, channel = static_cast<int>(Blocks<Kind>::channel_of(lane / 4));
  const int sums_bytes = shared.sums_bytes, pitch = sums_bytes / kChannels;
  const auto* scales = reinterpret_cast<const float*>(memory + shared.scales);
  const bool scaled = a.y_dtype != DType::kInt32;
  float x_scale[Kind::kTokenTiles][2] = {};
  if constexpr (Kind::kInteger) {
#pragma unroll
    for (int j = 0; j < Kind::kTokenTiles; ++j) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const int m = min(j * 8 + t * 2 + i, a.M - 1);
        if (scaled) x_scale[j][i] = Kind::kQuantizes ? scales[m] : cuda::x_scale_at(a.epilogue, m);
      }
    }
  }
  Factors next = factors_of<Kind>(a, first * kChannels + channel);
  for (int tile = 0; tile < tiles; ++tile) {
    const int n = (first + tile * step) * kChannels + channel;
    const Factors f = next;
    if (tile + 1 < tiles) next = factors_of<Kind>(a, n + step * kChannels);
    const Meeting<Kind> meeting(a, shared, memory, tile);
    sm90::barrier_wait(meeting.full, meeting.round % 2);
    typename P::Sum d[Kind::kTokenTiles][4] = {};
#pragma unroll
    for (int j = 0; j < Kind::kTokenTiles; ++j) {
      if (j * 8 + t * 2 >= a.M) break;
#pragma unroll 8
      for (int i = 0; i < Kind::kWarps; ++i) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const Two v =
              *reinterpret_cast<const Two*>(meeting.sums + i * sums_bytes + (half * 8 + g) * pitch + (j * 8 + t * 2) * 4);
          d[j][2 * half] += v.x;
          d[j][2 * half + 1] += v.y;
        }
      }
    }
    __syncwarp();
    if (lane == 0) sm90::barrier_arrive_here(meeting.empty);
#pragma unroll
    for (int j = 0; j < Kind::kTokenTiles; ++j) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int m = j * 8 + t * 2 + i % 2, row = n + i / 2 * 8;
        if (m >= a.M || row >= a.N) continue;
        float v;
        if constexpr (Kind::kInteger) {
          if (!scaled) {
            reinterpret_cast<std::int32_t*>(static_cast<char*>(a.y) + m * a.y_stride)[row] = d[j][i];
            continue;
          }
          v = cuda::scale_sum(d[j][i], f.w_scale[i / 2], x_scale[j][i % 2]);
        } else {
          v = __fmul_rn(d[j][i], f.w_scale[i / 2] / P::kUnit);
        }
        if (a.epilogue.bias != nullptr) v = __fadd_rn(v, f.bias[i / 2]);
        store(a, m, row, v);
      }
    }
  }
}

// Keeps the CTA for most of a tile's time, in clocks; but not for long, where that was measured while the GPU did something
// else in between.
__device__ __forceinline__ void stay_for(std::int64_t tile) {
  constexpr std::int64_t kMost = 20000;
  const std::int64_t begun = clock64(), clocks = min(tile * 7 / 8, kMost);
  while (clock64() - begun < clocks) __nanosleep(100);
}

template <class Kind>
__global__ void __launch_bounds__(Kind::kThreads, Kind::kTokenTiles == 1 ? 2 : 1)
    decode_kernel(const __grid_constant__ DecodeArguments a, const __grid_constant__ CUtensorMap w) {
#if __CUDA_ARCH__ >= 900
  if (a.next_before == kNextAtOnce) ptx::launch_dependents();
  using Sum = typename Product<typename Kind::X, Kind::kBits>::Sum;
  extern __shared__ std::uint8_t unaligned[];
  const Shared<Kind> shared(a);
  std::uint8_t* memory = unaligned + (-ptx::shared_address(unaligned) & (shared.kPattern - 1));
  const unsigned lane = threadIdx.x % 32;
  const int warp = __shfl_sync(~0u, static_cast<int>(threadIdx.x / 32), 0);
  const int first = static_cast<int>(blockIdx.x), step = static_cast<int>(gridDim.x);
  const int tiles = a.tiles + (first < a.with_one_more ? 1 : 0);
  const auto wait = [&] {
    ptx::wait_for_predecessor();
    if (a.next_before == kNextAfterWait) ptx::launch_dependents();
  };

  if (warp == Kind::kWarps) {
    const unsigned buffers = a.buffers;
    const std::uint32_t barriers = ptx::shared_address(memory) + shared.sums_barriers;
    if (sm90::elected()) {
#pragma unroll
      for (int i = 0; i < 2 * kMaxBuffers; ++i) {
        if (i < 2 * buffers) sm90::barrier_init(barriers + i * 8, i < buffers ? Kind::kWarps : 1);
      }
    }
    __syncwarp();
    if constexpr (Kind::kPairs) begin_pieces<Kind>(a, shared, memory, static_cast<int>(lane));
    sm90::barrier_init_fence();
    if constexpr (Kind::kPairs) sm90::cluster_begun();
    wait();
    if constexpr (Kind::kPairs) {
      sm90::cluster_wait_begun();
      ask_for_pieces<Kind>(a, shared, memory, static_cast<int>(lane));
    }
    sm90::meet(kXIsThere, Kind::kThreads);
    const std::int64_t begun = Kind::kStartsNextLate ? clock64() : 0;
    add_up<Kind>(a, shared, memory, lane, first, step, tiles);
    if constexpr (Kind::kStartsNextLate) {
      const bool has_most = a.with_one_more == 0 || first < a.with_one_more;
      if (a.next_before > 0 && !has_most && lane == 0) stay_for((clock64() - begun) / tiles);
    }
    return;
  }
  if constexpr (Kind::kPairs) sm90::cluster_begun();
  Asker<Kind> asker(a, w, shared, memory, warp, static_cast<int>(lane), first, step, tiles);
  if (!a.constant_w) ptx::wait_for_predecessor();
  asker.fill(0, a.early_stages);
  if constexpr (Kind::kZeroBytes > 0) {
    if (threadIdx.x < Kind::kZeroBytes / 16)
      *reinterpret_cast<uint4*>(memory + shared.zeros + threadIdx.x * 16) = {0, 0, 0, 0};
  }
  wait();
  const auto fill_rest = [&] { asker.fill(a.early_stages, a.stages); };
  auto* scales = reinterpret_cast<float*>(memory + shared.scales);
  if constexpr (Kind::kSplits) {
    split_x<Kind>(a, memory + shared.x, scales, fill_rest);
  } else if constexpr (Kind::kQuantizes) {
    quantize_x<Kind>(a, memory + shared.x, scales, fill_rest);
  } else if constexpr (Kind::kPairs) {
    // the ninth warp has asked for it
  } else if constexpr (Kind::kFlush == 0) {
    copy_x<Kind>(a, memory + shared.x, fill_rest);
  } else {  // where asking takes long, for parameters too
    copy_x<Kind>(a, memory + shared.x, [] {});
    fill_rest();
  }
  sm90::meet(kXIsThere, Kind::kThreads);
  if constexpr (Kind::kPairs) fill_rest();

  // The tokens past the last are it again; their sums are not stored.
  int x_of[Kind::kTokenTiles];
#pragma unroll
  for (int j = 0; j < Kind::kTokenTiles; ++j) {
    const int column = static_cast<int>(lane) / 4, token = j * 8 + column / Kind::kTokenColumns;
    x_of[j] = shared.x + min(token, a.M - 1) * Kind::x_pitch(a.blocks) + lane % 4 * Kind::kThreadBytesOfX;
    if (Kind::kSplits) x_of[j] += column % kDigits * kDigitBytes;
  }
  Blocks<Kind> blocks(a, shared, memory, asker, warp, lane, first, step);
  for (int tile = 0; tile < tiles; ++tile) {
    Sum sums[Kind::kTokenTiles][2][4] = {};
    while (blocks.next_is_of(tile)) blocks.multiply(tile, x_of, sums);

    // Once those of the tile that had the buffer before have been read.
    const Meeting<Kind> meeting(a, shared, memory, tile);
    if (meeting.round > 0) sm90::barrier_wait(meeting.empty, (meeting.round - 1) % 2);
    put_sums<Kind>(a, meeting.sums + warp * shared.sums_bytes, shared.sums_bytes, static_cast<int>(lane), sums);
    __syncwarp();
    if (lane == 0) sm90::barrier_arrive_here(meeting.full);
  }
#endif
}

}  // namespace octavo::decode
