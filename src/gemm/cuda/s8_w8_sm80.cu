// A block of threads computes a tile of y, kRows x kCols. Tiles of x and of w, kBytes of K at a time, go through a ring of
// shared memory by asynchronous copies; warps take their part of the tile, or of kBytes, and multiply with m16n8k32. Integer
// sums do not depend on their order, so that where tiles are small and few, the warps of a block share K out among them.
#include <algorithm>
#include <span>

#include "core/cuda_launch.cuh"
#include "core/ptx.cuh"
#include "gemm/alignment.h"
#include "gemm/cuda/copy_rows.cuh"
#include "gemm/cuda/epilogue.cuh"
#include "gemm/cuda/mma.cuh"
#include "gemm/cuda/s8_w8_sm80.h"
#include "gemm/cuda/store_outputs.cuh"
#include "gemm/cuda/tile_choice.h"

namespace octavo {
namespace {

using namespace cuda;

constexpr int kStepK = 32;  // of one mma

template <int kRows_, int kCols_, int kBytes_, int kWarpsM_, int kWarpsN_, int kWarpsK_, int kStages_, int kBlocks_ = 2>
struct Tile {
  static constexpr int kRows = kRows_, kCols = kCols_, kBytes = kBytes_;
  static constexpr int kWarpsM = kWarpsM_, kWarpsN = kWarpsN_, kWarpsK = kWarpsK_;
  static constexpr int kStages = kStages_;
  static constexpr int kBlocks = kBlocks_;  // on a multiprocessor at a time, at least
  static constexpr int kThreads = 32 * kWarpsM * kWarpsN * kWarpsK;
  static constexpr int kWarpRows = kRows / kWarpsM, kWarpCols = kCols / kWarpsN;
  static constexpr int kSteps = kBytes / kStepK / kWarpsK;  // of a warp, in a stage
  static constexpr int kXBytes = kRows * kBytes;
  static constexpr int kStageBytes = (kRows + kCols) * kBytes;

  // Sums on their way to y, after the ring: with K shared out, the tile once for every part; else sixteen rows a warp.
  static constexpr bool kAdds = kWarpsK > 1;
  static constexpr int kSumCols = (kAdds ? kCols : kWarpCols) + kOutputs;
  static constexpr int kSumRows = kAdds ? kRows * kWarpsK : kThreads / 32 * 16;
  static constexpr int kSumBytes = kSumRows * kSumCols * 4;
  static constexpr int kShared = std::max(kStages * kStageBytes, kSumBytes);

  static_assert(kWarpRows % 16 == 0 && kWarpCols % 16 == 0);
  static_assert(kSteps % 2 == 0, "fragments alternate between two sets of registers");
  static_assert((kSteps & (kSteps - 1)) == 0, "steps are addressed by an exclusive or");
  static_assert(kShared <= 99 * 1024, "what every device of compute capability 8.0 or more has");
};

struct Params {
  const std::uint8_t* x;
  const std::uint8_t* w;
  char* y;
  std::int64_t x_stride, w_stride, y_stride;
  std::int64_t M, N;
  int K;
  unsigned tiles_m, tiles_n;
  bool words;      // where copies are not of 16 bytes: whether x and w are aligned to 4
  bool y_vectors;  // whether y is aligned to 16 bytes
  DType y_dtype;
  bool constant_w;
  Epilogue epilogue;
};

// Writes outputs of the kOutputs columns from n on, row by row.
class Writer {
 public:
  __device__ Writer(const Params& p, std::int64_t n)
      : p_(p), n_(n), count_(static_cast<int>(p.N - n < kOutputs ? p.N - n : kOutputs)) {
    if (p.y_dtype == DType::kInt32) return;
#pragma unroll
    for (int i = 0; i < kOutputs; ++i) {
      scale_[i] = i < count_ ? w_scale_at(p.epilogue, n + i) : 0;
      bias_[i] = i < count_ && p.epilogue.bias != nullptr ? bias_at(p.epilogue, n + i) : 0;
    }
  }

  __device__ void write(std::int64_t m, const std::int32_t (&sums)[kOutputs]) const {
    char* y = p_.y + m * p_.y_stride;
    if (p_.y_dtype == DType::kInt32) {
      return store_outputs(reinterpret_cast<std::int32_t*>(y) + n_, sums, count_, p_.y_vectors);
    }
    float t[kOutputs];
    const float x_scale = x_scale_at(p_.epilogue, m);
#pragma unroll
    for (int i = 0; i < kOutputs; ++i) {
      t[i] = scale_sum(sums[i], scale_[i], x_scale);
      if (p_.epilogue.bias != nullptr) t[i] = __fadd_rn(t[i], bias_[i]);  // adding 0 would lose the sign of -0
    }
    round_and_store(y, n_, p_.y_dtype, t, count_, p_.y_vectors);
  }

 private:
  const Params& p_;
  std::int64_t n_;
  int count_;  // of the columns, those that y has; none at all: not positive
  float scale_[kOutputs] = {}, bias_[kOutputs] = {};
};

template <class T>
struct Sums {
  static constexpr int kM = T::kWarpRows / 16, kN = T::kWarpCols / 8;
  std::int32_t c[kM][kN][4] = {};
};

// One warp's fragments of a step, and where they come from.
template <class T>
class Fragments {
 public:
  __device__ Fragments(int lane, int warp_m, int warp_n, int warp_k) {
    const int x_row = warp_m * T::kWarpRows + lane % 16;
    const int w_row = warp_n * T::kWarpCols + lane % 8 + lane / 16 * 8;
    const int first = warp_k * T::kSteps * (kStepK / kChunk);
    x_ = chunk_offset<T::kBytes>(x_row, first + lane / 16);
    w_ = T::kXBytes + chunk_offset<T::kBytes>(w_row, first + lane / 8 % 2);
  }

  // A step is two chunks: the same bits of the address for every row, whatever the row's permutation.
  __device__ void load(std::uint32_t stage, int step, int set) {
    const int chunks = step * kStepK;
#pragma unroll
    for (int i = 0; i < kM; ++i) load_matrices(x[set][i], stage + ((x_ + i * 16 * T::kBytes) ^ chunks));
#pragma unroll
    for (int i = 0; i < kN; ++i) load_matrices(w[set][i], stage + ((w_ + i * 16 * T::kBytes) ^ chunks));
  }

  __device__ void multiply(Sums<T>& sums, int set) const {
#pragma unroll
    for (int i = 0; i < kM; ++i) {
#pragma unroll
      for (int j = 0; j < kN; ++j) {
        multiply_s8(sums.c[i][2 * j], x[set][i], w[set][j][0], w[set][j][1]);
        multiply_s8(sums.c[i][2 * j + 1], x[set][i], w[set][j][2], w[set][j][3]);
      }
    }
  }

 private:
  static constexpr int kM = T::kWarpRows / 16, kN = T::kWarpCols / 16;
  std::uint32_t x[2][kM][4], w[2][kN][4];
  int x_, w_;
};

// Puts sixteen rows of a warp's sums into shared memory, `stride` apart.
template <class T>
__device__ void put_rows(std::int32_t* rows, int stride, const Sums<T>& sums, int i, int lane) {
#pragma unroll
  for (int j = 0; j < Sums<T>::kN; ++j) {
    const std::int32_t* c = sums.c[i][j];
    std::int32_t* at = rows + lane / 4 * stride + j * 8 + lane % 4 * 2;
    *reinterpret_cast<int2*>(at) = make_int2(c[0], c[1]);
    *reinterpret_cast<int2*>(at + 8 * stride) = make_int2(c[2], c[3]);
  }
}

// Adds kOutputs sums that lie side by side.
__device__ inline void add_sums(std::int32_t (&sums)[kOutputs], const std::int32_t* from) {
#pragma unroll
  for (int i = 0; i < kOutputs; i += 4) {
    const int4 v = *reinterpret_cast<const int4*>(from + i);
    sums[i] += v.x, sums[i + 1] += v.y, sums[i + 2] += v.z, sums[i + 3] += v.w;
  }
}

// The warps have parts of K: the block adds them up.
template <class T>
__device__ void write_added(const Params& p, std::int32_t* shared, const Sums<T>& sums, std::int64_t m0, std::int64_t n0,
                            int warp_m, int warp_n, int warp_k) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int i = 0; i < Sums<T>::kM; ++i) {
    const int row = warp_k * T::kRows + warp_m * T::kWarpRows + i * 16;
    put_rows<T>(shared + row * T::kSumCols + warp_n * T::kWarpCols, T::kSumCols, sums, i, lane);
  }
  __syncthreads();
  constexpr int kPieces = T::kCols / kOutputs;  // of a row
  static_assert(T::kThreads % kPieces == 0);
  const int col = threadIdx.x % kPieces * kOutputs;
  const Writer writer(p, n0 + col);
#pragma unroll 1
  for (int row = threadIdx.x / kPieces; row < T::kRows && m0 + row < p.M; row += T::kThreads / kPieces) {
    std::int32_t total[kOutputs] = {};
#pragma unroll
    for (int k = 0; k < T::kWarpsK; ++k) add_sums(total, shared + (k * T::kRows + row) * T::kSumCols + col);
    writer.write(m0 + row, total);
  }
}

// Every warp has its own part of the tile: through its own piece of shared memory, for whole lines of y.
template <class T>
__device__ void write_own(const Params& p, std::int32_t* shared, const Sums<T>& sums, std::int64_t m0, std::int64_t n0) {
  const int lane = threadIdx.x % 32;
  std::int32_t* rows = shared + threadIdx.x / 32 * 16 * T::kSumCols;
  constexpr int kPieces = T::kWarpCols / kOutputs;
  static_assert(32 % kPieces == 0);
  const int col = lane % kPieces * kOutputs;
  const Writer writer(p, n0 + col);
#pragma unroll
  for (int i = 0; i < Sums<T>::kM; ++i) {
    put_rows<T>(rows, T::kSumCols, sums, i, lane);
    __syncwarp();
#pragma unroll 1  // code that runs once a block costs most where it is long
    for (int r = 0; r < 16; r += 32 / kPieces) {
      const int row = r + lane / kPieces;
      std::int32_t total[kOutputs] = {};
      add_sums(total, rows + row * T::kSumCols + col);
      if (m0 + i * 16 + row < p.M) writer.write(m0 + i * 16 + row, total);
    }
    __syncwarp();
  }
}

template <class T, bool kAligned>
__global__ void __launch_bounds__(T::kThreads, T::kBlocks) s8_w8(const __grid_constant__ Params p) {
#if __CUDA_ARCH__ >= 800
  extern __shared__ __align__(128) unsigned char shared[];
  const std::uint32_t ring = shared_address(shared);
  const uint2 tile = tile_of_block(p.tiles_m, p.tiles_n);
  const std::int64_t m0 = static_cast<std::int64_t>(tile.x) * T::kRows;
  const std::int64_t n0 = static_cast<std::int64_t>(tile.y) * T::kCols;
  Copier<T::kRows, T::kBytes, T::kThreads, kAligned> x(p.x + m0 * p.x_stride, p.x_stride, p.M - m0, p.K, p.words);
  Copier<T::kCols, T::kBytes, T::kThreads, kAligned> w(p.w + n0 * p.w_stride, p.w_stride, p.N - n0, p.K, p.words);

  // Where the block may start before x is there, the weights of the whole ring go ahead, if they are.
  constexpr bool kWeightsFirst = __CUDA_ARCH__ >= 900;
  if (!p.constant_w) ptx::wait_for_predecessor();
  if constexpr (kWeightsFirst) {
#pragma unroll
    for (int s = 0; s < T::kStages - 1; ++s) w.copy(ring + s * T::kStageBytes + T::kXBytes);
  }
  ptx::wait_for_predecessor();
  ptx::launch_dependents();
#pragma unroll
  for (int s = 0; s < T::kStages - 1; ++s) {
    if constexpr (!kWeightsFirst) w.copy(ring + s * T::kStageBytes + T::kXBytes);
    x.copy(ring + s * T::kStageBytes);
    commit_copies();
  }

  const int warp = threadIdx.x / 32;
  const int warp_n = warp % T::kWarpsN;
  const int warp_m = warp / T::kWarpsN % T::kWarpsM;
  const int warp_k = warp / (T::kWarpsN * T::kWarpsM);
  Fragments<T> fragments(threadIdx.x % 32, warp_m, warp_n, warp_k);
  Sums<T> sums;
  std::uint32_t from = ring;                                    // stage that is multiplied
  std::uint32_t to = ring + (T::kStages - 1) * T::kStageBytes;  // stage that is copied to
  const std::uint32_t end = ring + T::kStages * T::kStageBytes;
  wait_for_copies<T::kStages - 2>();
  __syncthreads();
  fragments.load(from, 0, 0);
  const int tiles = (p.K + T::kBytes - 1) / T::kBytes;
  for (int t = 0; t < tiles; ++t) {
#pragma unroll
    for (int step = 0; step < T::kSteps; ++step) {
      if (step == 0) {  // everybody has read that stage: its last fragments were loaded before the last barrier
        if (t + T::kStages - 1 < tiles) {
          x.copy(to);
          w.copy(to + T::kXBytes);
        }
        commit_copies();
        to += T::kStageBytes;
        if (to == end) to = ring;
      }
      if (step == T::kSteps - 1) {
        wait_for_copies<T::kStages - 2>();
        __syncthreads();
        from += T::kStageBytes;
        if (from == end) from = ring;
      }
      fragments.load(from, (step + 1) % T::kSteps, (step + 1) % 2);
      fragments.multiply(sums, step % 2);
    }
  }
  wait_for_copies<0>();
  __syncthreads();

  auto* staging = reinterpret_cast<std::int32_t*>(shared);
  if constexpr (T::kAdds) {
    write_added<T>(p, staging, sums, m0, n0, warp_m, warp_n, warp_k);
  } else {
    write_own<T>(p, staging, sums, m0 + warp_m * T::kWarpRows, n0 + warp_n * T::kWarpCols);
  }
#endif
}

using Choice = TileChoice<Params>;

template <class T, bool kAligned>
void launch_tile(Params p, Stream stream) {
  p.tiles_m = static_cast<unsigned>(ceil_div(p.M, T::kRows));
  p.tiles_n = static_cast<unsigned>(ceil_div(p.N, T::kCols));
  launch(s8_w8<T, kAligned>, p.tiles_m * p.tiles_n, T::kThreads, T::kShared, stream, {}, p);
}

template <class T, bool kAligned = true>
constexpr Choice choice() {
  return {T::kRows, T::kCols, launch_tile<T, kAligned>};
}

//                  rows cols bytes  warps  stages
using T128x128 = Tile<128, 128, 64, 2, 2, 1, 3>;
using T64x128 = Tile<64, 128, 64, 2, 2, 1, 4>;
using T64x64 = Tile<64, 64, 128, 2, 2, 1, 3>;
using T64x32 = Tile<64, 32, 256, 1, 1, 4, 3, 1>;
using T32x64 = Tile<32, 64, 128, 1, 2, 2, 4>;
using T32x32 = Tile<32, 32, 256, 1, 1, 4, 3>;
using T16x64 = Tile<16, 64, 128, 1, 2, 2, 4>;
using T16x32 = Tile<16, 32, 256, 1, 1, 4, 4>;

constexpr Choice kChoices[] = {choice<T128x128>(), choice<T64x128>(), choice<T64x64>(), choice<T64x32>(),
                               choice<T32x64>(),   choice<T32x32>(),  choice<T16x64>(), choice<T16x32>()};
constexpr Choice kUnaligned[] = {choice<T64x64, false>(), choice<T16x32, false>()};

}  // namespace

void cuda_s8_w8_sm80(const Arguments& a, Parallel& /*parallel*/) {
  const std::int64_t M = a.y.rows;
  const std::int64_t N = a.y.cols;
  const int alignment = std::min(alignment_of(a.x), alignment_of(a.w.q));
  Params p = {};
  p.x = static_cast<const std::uint8_t*>(a.x.data);
  p.w = static_cast<const std::uint8_t*>(a.w.q.data);
  p.y = static_cast<char*>(a.y.data);
  p.x_stride = a.x.stride;
  p.w_stride = a.w.q.stride;
  p.y_stride = a.y.stride;
  p.M = M;
  p.N = N;
  p.K = static_cast<int>(a.x.cols);
  p.words = alignment >= 4;
  p.y_vectors = alignment_of(a.y) == kChunk;
  p.y_dtype = a.y.dtype;
  p.constant_w = a.constant_w;
  p.epilogue = epilogue_of(a);
  const std::span<const Choice> choices =
      alignment == kChunk && p.K % kChunk == 0 ? std::span<const Choice>(kChoices) : kUnaligned;
  choose_tile(choices, M, N, gpu(a.y.device).value()->num_sms).launch(p, a.stream);
}

}  // namespace octavo
