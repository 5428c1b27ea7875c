// The product of int8 matrices on Hopper: y[M, N] = x[M, K] · w[N, K]ᵀ with scales, warp-specialized and persistent. One CTA
// an SM takes tile after tile of y:
//
//    warpgroups 0 … kRows - 1  multiply 64 rows of the tile each with all its columns (wgmma), sums in registers; then
//                              they scale and round them into shared memory, and go on to the next tile.
//    one warp                  of which one thread copies boxes of x and w, 128 bytes along K, into a ring of stages (TMA).
//                              It runs ahead of the products by the whole ring, into the next tile too.
//    one warp a warpgroup      copies what that has rounded to y.
//
//    ring    | x box  w box | x box  w box | …      full[s]: the boxes of stage s are in
//                                                   empty[s]: they have been multiplied
//
// A CTA begins by asking for the first stages' weights, before its threads meet, and if the kernel before does not write
// them (constant_w) before the wait for it. The barriers that tell that these are full are its own to initialize.
#pragma once

#include "core/ptx.cuh"
#include "gemm/cuda/epilogue.cuh"
#include "gemm/cuda/sm90.cuh"

namespace octavo::sm90 {

inline constexpr int kBlockK = 128;    // bytes of a stage along K
inline constexpr int kMaxStages = 16;  // two copies each: of more than some 40 at a time an SM makes fewer
inline constexpr int kWarpgroup = 128;

struct S8W8Arguments {
  int M, N, K;
  void* y;
  std::int64_t y_stride;  // bytes
  DType y_dtype;
  bool y_by_copy_engine;  // its map is valid: y, its rows and their lengths are multiples of 16 bytes
  int stages;             // of the ring
  int x_box;              // rows of x that a stage holds
  int group_m;            // rows of tiles that are walked together, so that their boxes stay in the second-level cache
  bool constant_w;
  cuda::Epilogue epilogue;
};

// The tiles of a CTA, one in so many as there are CTAs. They go down group_m rows, then right.
class Tiles {
 public:
  __device__ Tiles(const S8W8Arguments& a, int tile_m, int tile_n)
      : M_(a.M),
        tile_m_(tile_m),
        tile_n_(tile_n),
        group_m_(a.group_m),
        rows_((a.M + tile_m - 1) / tile_m),
        columns_((a.N + tile_n - 1) / tile_n),
        index_(static_cast<int>(blockIdx.x)) {}

  // The next tile's first row and column. Rows end with it at most, if there are enough: the copy engine takes far longer
  // for a box of which much is outside of x. What two tiles have both make, to the same bits.
  __device__ bool next(int& m, int& n) {
    if (index_ >= rows_ * columns_) return false;
    if (rows_ == 1) {  // few rows, which wait for the first weights: without dividing
      m = 0;
      n = index_ * tile_n_;
      index_ += static_cast<int>(gridDim.x);
      return true;
    }
    const int first = index_ / (group_m_ * columns_) * group_m_;
    const int height = min(rows_ - first, group_m_);
    const int rest = index_ - first * columns_;
    m = min((first + rest % height) * tile_m_, max((M_ + 7) / 8 * 8 - tile_m_, 0));
    n = rest / height * tile_n_;
    index_ += static_cast<int>(gridDim.x);
    return true;
  }

 private:
  int M_, tile_m_, tile_n_, group_m_, rows_, columns_, index_;
};

// How a warpgroup's 64 rows of a tile are staged for y: in pieces of 128 bytes of each, or of 64 where a tile is not made of
// wider ones. There is room for two, used in turn.
template <int kColumns, int kElementBytes>
struct Pieces {
  static constexpr int kRowBytes = kColumns * kElementBytes % 128 == 0 ? 128 : 64;
  static constexpr int kColumnsOfOne = kRowBytes / kElementBytes;
  static constexpr int kBytes = 64 * 128;

  // Where byte `b` of a row stands in a piece: the swizzle of 128 or 64 bytes of the copy engine, in which neither the rows
  // nor the columns of a warp's sums meet in a bank.
  __device__ static std::uint32_t at(int row, int b) {
    return row * kRowBytes + (kRowBytes == 128 ? b ^ (row & 7) << 4 : b ^ (row >> 1 & 3) << 4);
  }
};

// Where everything stands in shared memory, as addresses of it.
template <int kRows, int kColumns>
struct S8W8Shared {
  static constexpr int kStagingBytes = 2 * Pieces<kColumns, 2>::kBytes;  // of a warpgroup
  std::uint32_t x_bytes, stage_bytes, ring, staging, columns, full, empty;

  // Products read 64 kRows rows of x even where a stage holds fewer; what they read instead is not stored.
  __host__ __device__ static int bytes(int x_rows, int stages, bool biased) {
    return stages * (x_rows + kColumns) * kBlockK + (64 * kRows - x_rows) * kBlockK + kRows * kStagingBytes +
           kRows * column_bytes(biased) + 2 * stages * 8;
  }

  // Scales, and biases, of a tile's columns for one warpgroup.
  __host__ __device__ static int column_bytes(bool biased) { return kColumns * (biased ? 8 : 4); }

  __device__ S8W8Shared(const S8W8Arguments& a, const void* memory) {
    x_bytes = a.x_box * kBlockK;
    stage_bytes = x_bytes + kColumns * kBlockK;
    ring = shared_address(memory);
    staging = ring + a.stages * stage_bytes + (64 * kRows - a.x_box) * kBlockK;
    columns = staging + kRows * kStagingBytes;
    full = columns + kRows * column_bytes(a.epilogue.bias != nullptr);
    empty = full + a.stages * 8;
  }

  __device__ std::uint32_t x(int stage) const { return ring + stage * stage_bytes; }
  __device__ std::uint32_t w(int stage) const { return x(stage) + x_bytes; }
  __device__ std::uint32_t staging_of(int warpgroup) const { return staging + warpgroup * kStagingBytes; }
  __device__ std::uint32_t columns_of(int warpgroup, bool biased) const {
    return columns + warpgroup * column_bytes(biased);
  }
};

__device__ __forceinline__ int blocks_of(const S8W8Arguments& a) { return (a.K + kBlockK - 1) / kBlockK; }

// --- Copying ------------------------------------------------------------------------------------------------------------

// How many stages' weights are asked for before the first x, which waits behind them. Measured.
__device__ __forceinline__ int early_stages(const S8W8Arguments& a) { return min(a.stages, 8); }

// All barriers but those that tell of these stages, by one thread of each of so many warps.
template <int kRows, int kColumns>
__device__ __forceinline__ void init_barriers(const S8W8Arguments& a, const S8W8Shared<kRows, kColumns>& shared, int warp,
                                              int warps) {
  for (int stage = warp; stage < a.stages; stage += warps) {
    if (stage >= early_stages(a)) barrier_init(shared.full + stage * 8, 1);
    barrier_init(shared.empty + stage * 8, kRows);
  }
  barrier_init_fence();
}

// One thread copies. begin() comes first of all, before the CTA's threads meet.
template <int kRows, int kColumns>
class S8W8Copier {
 public:
  using Shared = S8W8Shared<kRows, kColumns>;
  __device__ __forceinline__ S8W8Copier(const S8W8Arguments& a, const CUtensorMap& x, const CUtensorMap& w,
                                        const Shared& shared)
      : a_(a), x_(x), w_(w), shared_(shared), tiles_(a, 64 * kRows, kColumns) {}

  __device__ __forceinline__ void begin() {
    for (int stage = 0; stage < early_stages(a_); ++stage) barrier_init(shared_.full + stage * 8, 1);
    barrier_init_fence();
    any_ = tiles_.next(m_, n_);
    early_ = any_ ? min(blocks_of(a_), early_stages(a_)) : 0;
    if (!a_.constant_w) ptx::wait_for_predecessor();
    for (int block = 0; block < early_; ++block) {
      barrier_expect(shared_.full + block * 8, shared_.stage_bytes);
      copy_w(block, block);
    }
  }

  __device__ __forceinline__ void copy() {
    const int blocks = blocks_of(a_);
    ptx::wait_for_predecessor();
    ptx::launch_dependents();
    Stage stage;
    for (int block = 0; block < early_; ++block, stage.advance(a_.stages)) copy_x(block, block);
    for (int first = early_; any_; any_ = tiles_.next(m_, n_), first = 0) {
      for (int block = first; block < blocks; ++block, stage.advance(a_.stages)) {
        barrier_wait(shared_.empty + stage.index * 8, stage.phase ^ 1);
        barrier_expect(shared_.full + stage.index * 8, shared_.stage_bytes);
        copy_x(stage.index, block);
        copy_w(stage.index, block);
      }
    }
  }

 private:
  __device__ __forceinline__ void copy_x(int stage, int block) const {
    copy_box(shared_.x(stage), x_, block * kBlockK, m_, shared_.full + stage * 8);
  }
  __device__ __forceinline__ void copy_w(int stage, int block) const {
    copy_box(shared_.w(stage), w_, block * kBlockK, n_, shared_.full + stage * 8);
  }

  const S8W8Arguments& a_;
  const CUtensorMap &x_, &w_;
  const Shared& shared_;
  Tiles tiles_;
  int m_ = 0, n_ = 0, early_ = 0;
  bool any_ = false;
};

// --- Rounding and storing -----------------------------------------------------------------------------------------------

// Barriers of some of the CTA's warps, of each kind one a warpgroup that multiplies: its own; and between it and its storing
// warp, for each of two pieces, that it is staged, and that its place is free.
enum Meeting { kOwn, kStaged, kFree = kStaged + 2 };
__device__ __forceinline__ int barrier_of(int meeting, int warpgroup) { return 1 + meeting * 2 + warpgroup; }
inline constexpr int kStoringThreads = kWarpgroup + 32;

// Elements of y by twos: how two columns of a row are put into shared memory.
struct BFloat16Pair {
  using Element = std::uint16_t;
  __device__ static void store(std::uint32_t to, float2 v) {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(v.x, v.y);
    ptx::store_shared(to, reinterpret_cast<const std::uint32_t&>(pair));
  }
};
struct Float16Pair {
  using Element = std::uint16_t;
  __device__ static void store(std::uint32_t to, float2 v) {
    const __half2 pair = __floats2half2_rn(v.x, v.y);
    ptx::store_shared(to, reinterpret_cast<const std::uint32_t&>(pair));
  }
};
struct Float32Pair {
  using Element = std::uint32_t;
  __device__ static void store(std::uint32_t to, float2 v) {
    ptx::store_shared(to, __float_as_uint(v.x), __float_as_uint(v.y));
  }
};
struct Int32Pair {  // the sums themselves
  using Element = std::uint32_t;
};

// What turns sums into y: scales of a thread's two rows, scales and biases of the tile's columns, which a warpgroup's
// threads load while products run and share afterwards.
template <int kColumns>
class Scaling {
 public:
  // m is the first row of the warp, n that of the tile's columns.
  __device__ __forceinline__ void load(const cuda::Epilogue& e, int M, int N, int m, int n) {
    const int row = m + static_cast<int>(threadIdx.x) % 32 / 4;
    row_[0] = cuda::x_scale_at(e, min(row, M - 1));  // what is beyond the matrix is not stored
    row_[1] = cuda::x_scale_at(e, min(row + 8, M - 1));
#pragma unroll
    for (int i = 0; i < kPerThread; ++i) {
      const int column = min(n + static_cast<int>(threadIdx.x) % kWarpgroup + i * kWarpgroup, N - 1);
      scale_[i] = cuda::w_scale_at(e, column);
      if (e.bias != nullptr) bias_[i] = cuda::bias_at(e, column);
    }
  }

  // Puts the columns' into shared memory, for the whole warpgroup.
  __device__ __forceinline__ void share(std::uint32_t columns, int warpgroup, bool biased) {
    meet(barrier_of(kOwn, warpgroup), kWarpgroup);  // nobody reads those of the tile before any more
#pragma unroll
    for (int i = 0; i < kPerThread; ++i) {
      const int column = static_cast<int>(threadIdx.x) % kWarpgroup + i * kWarpgroup;
      if (column >= kColumns) break;
      ptx::store_shared(columns + column * 4, __float_as_uint(scale_[i]));
      if (biased) ptx::store_shared(columns + (kColumns + column) * 4, __float_as_uint(bias_[i]));
    }
    meet(barrier_of(kOwn, warpgroup), kWarpgroup);
    columns_ = columns;
  }

  __device__ __forceinline__ float2 scales_of(int column) const { return pair_at(column); }
  __device__ __forceinline__ float2 biases_of(int column) const { return pair_at(kColumns + column); }

  // Two columns' values in one of the thread's rows.
  template <bool kBiased>
  __device__ __forceinline__ float2 scaled(const std::int32_t* sums, float2 scale, float2 bias, int row) const {
    const float2 t = {cuda::scale_sum(sums[0], scale.x, row_[row]), cuda::scale_sum(sums[1], scale.y, row_[row])};
    if constexpr (!kBiased) return t;
    return {__fadd_rn(t.x, bias.x), __fadd_rn(t.y, bias.y)};
  }

 private:
  __device__ __forceinline__ float2 pair_at(int index) const {
    float2 v;
    asm volatile("ld.shared.v2.f32 {%0, %1}, [%2];" : "=f"(v.x), "=f"(v.y) : "r"(columns_ + index * 4) : "memory");
    return v;
  }

  static constexpr int kPerThread = (kColumns + kWarpgroup - 1) / kWarpgroup;
  float row_[2];
  float scale_[kPerThread], bias_[kPerThread];
  std::uint32_t columns_;
};

// Rounds a warp's sums of 16 rows into pieces, for each of which the storing warp waits. `turn` says whose place is next.
template <class Pair, bool kBiased, int kColumns>
__device__ __forceinline__ void stage_as(const std::int32_t (&sums)[kColumns / 2], std::uint32_t staging, int warpgroup,
                                         const Scaling<kColumns>& scaling, int& turn) {
  using Element = typename Pair::Element;
  using P = Pieces<kColumns, sizeof(Element)>;
  constexpr int kBatch = 16;  // columns whose scales are loaded together: the compiler moves no load over a store
  const int row = static_cast<int>(threadIdx.x) % kWarpgroup / 32 * 16 + static_cast<int>(threadIdx.x) % 32 / 4;
  const int pair = static_cast<int>(threadIdx.x) % 4 * 2;
#pragma unroll
  for (int first = 0; first < kColumns; first += P::kColumnsOfOne, turn ^= 1) {
    const std::uint32_t piece = staging + turn * P::kBytes;
    meet(barrier_of(kFree + turn, warpgroup), kStoringThreads);
#pragma unroll
    for (int batch = 0; batch < P::kColumnsOfOne; batch += kBatch) {
      float2 scales[kBatch / 8], biases[kBatch / 8];
#pragma unroll
      for (int i = 0; i < kBatch / 8; ++i) {
        if constexpr (!std::is_same_v<Pair, Int32Pair>) scales[i] = scaling.scales_of(first + batch + i * 8 + pair);
        if constexpr (kBiased) biases[i] = scaling.biases_of(first + batch + i * 8 + pair);
      }
#pragma unroll
      for (int i = 0; i < kBatch / 8; ++i) {
        const int byte = (batch + i * 8 + pair) * static_cast<int>(sizeof(Element));
        const std::uint32_t upper = piece + P::at(row, byte), lower = piece + P::at(row + 8, byte);
        const std::int32_t* s = &sums[(first + batch + i * 8) / 2];
        if constexpr (std::is_same_v<Pair, Int32Pair>) {
          ptx::store_shared(upper, static_cast<std::uint32_t>(s[0]), static_cast<std::uint32_t>(s[1]));
          ptx::store_shared(lower, static_cast<std::uint32_t>(s[2]), static_cast<std::uint32_t>(s[3]));
        } else {
          Pair::store(upper, scaling.template scaled<kBiased>(s, scales[i], biases[i], 0));
          Pair::store(lower, scaling.template scaled<kBiased>(s + 2, scales[i], biases[i], 1));
        }
      }
    }
    fence_for_copy_engine();
    announce(barrier_of(kStaged + turn, warpgroup), kStoringThreads);
  }
}

template <int kColumns>
__device__ __forceinline__ void stage_sums(DType y, bool biased, const std::int32_t (&sums)[kColumns / 2],
                                           std::uint32_t staging, int warpgroup, const Scaling<kColumns>& scaling,
                                           int& turn) {
  switch (y) {
    case DType::kBFloat16:
      return biased ? stage_as<BFloat16Pair, true>(sums, staging, warpgroup, scaling, turn)
                    : stage_as<BFloat16Pair, false>(sums, staging, warpgroup, scaling, turn);
    case DType::kFloat16:
      return biased ? stage_as<Float16Pair, true>(sums, staging, warpgroup, scaling, turn)
                    : stage_as<Float16Pair, false>(sums, staging, warpgroup, scaling, turn);
    case DType::kFloat32:
      return biased ? stage_as<Float32Pair, true>(sums, staging, warpgroup, scaling, turn)
                    : stage_as<Float32Pair, false>(sums, staging, warpgroup, scaling, turn);
    default:
      return stage_as<Int32Pair, false>(sums, staging, warpgroup, scaling, turn);
  }
}

// A piece to y, element by element: for rows that the copy engine cannot write.
template <class P, class Element>
__device__ __forceinline__ void store_piece(const S8W8Arguments& a, std::uint32_t piece, int m, int n) {
  for (int i = static_cast<int>(threadIdx.x) % 32; i < 64 * P::kColumnsOfOne; i += 32) {
    const int row = i / P::kColumnsOfOne, column = i % P::kColumnsOfOne;
    if (m + row >= a.M || n + column >= a.N) continue;
    Element element;
    const std::uint32_t from = piece + P::at(row, column * static_cast<int>(sizeof(Element)));
    if constexpr (sizeof(Element) == 2) {
      asm volatile("ld.shared.b16 %0, [%1];" : "=h"(element) : "r"(from) : "memory");
    } else {
      asm volatile("ld.shared.b32 %0, [%1];" : "=r"(element) : "r"(from) : "memory");
    }
    reinterpret_cast<Element*>(static_cast<char*>(a.y) + (m + row) * a.y_stride)[n + column] = element;
  }
}

// A warp that takes what a warpgroup stages to y.
template <class Element, int kRows, int kColumns>
__device__ __forceinline__ void store_tiles_as(const S8W8Arguments& a, const CUtensorMap& y, std::uint32_t staging,
                                               int warpgroup) {
  using P = Pieces<kColumns, sizeof(Element)>;
  const bool first_lane = threadIdx.x % 32 == 0;
  ptx::wait_for_predecessor();
  announce(barrier_of(kFree, warpgroup), kStoringThreads);
  announce(barrier_of(kFree + 1, warpgroup), kStoringThreads);
  Tiles tiles(a, 64 * kRows, kColumns);
  int m_tile, n_tile, turn = 0;
  bool any = false;
  while (tiles.next(m_tile, n_tile)) {
    const int m = m_tile + warpgroup * 64;
    for (int first = 0; first < kColumns; first += P::kColumnsOfOne, turn ^= 1, any = true) {
      const int n = n_tile + first;
      const std::uint32_t piece = staging + turn * P::kBytes;
      meet(barrier_of(kStaged + turn, warpgroup), kStoringThreads);
      if (!a.y_by_copy_engine) {
        store_piece<P, Element>(a, piece, m, n);
      } else if (first_lane) {
        if (m < a.M && n < a.N) write_box(y, n, m, piece);
        copies_commit();
        copies_read<1>();  // the piece before
      }
      __syncwarp();
      if (any) announce(barrier_of(kFree + (turn ^ 1), warpgroup), kStoringThreads);
    }
  }
  if (first_lane) copies_read<0>();  // before the staging ends with the CTA
}

template <int kRows, int kColumns>
__device__ __forceinline__ void store_tiles(const S8W8Arguments& a, const CUtensorMap& y, std::uint32_t staging,
                                            int warpgroup) {
  if (a.y_dtype == DType::kBFloat16 || a.y_dtype == DType::kFloat16) {
    store_tiles_as<std::uint16_t, kRows, kColumns>(a, y, staging, warpgroup);
  } else {
    store_tiles_as<std::uint32_t, kRows, kColumns>(a, y, staging, warpgroup);
  }
}

// --- Multiplying --------------------------------------------------------------------------------------------------------

template <int kRows, int kColumns>
__device__ __forceinline__ void multiply_tiles(const S8W8Arguments& a, const S8W8Shared<kRows, kColumns>& shared) {
  const int warpgroup = static_cast<int>(threadIdx.x) / kWarpgroup;
  const int thread = static_cast<int>(threadIdx.x) % kWarpgroup;
  const bool biased = a.epilogue.bias != nullptr;
  const bool tells = thread == 0;
  const int blocks = blocks_of(a);
  Tiles tiles(a, 64 * kRows, kColumns);
  Stage stage;
  Scaling<kColumns> scaling;
  int m_tile, n_tile, turn = 0;
  ptx::wait_for_predecessor();
  for (bool more = tiles.next(m_tile, n_tile); more;) {
    std::int32_t sums[kColumns / 2];
    int previous = 0;
    for (int block = 0; block < blocks; ++block) {
      barrier_wait(shared.full + stage.index * 8, stage.phase);
      const std::uint64_t x = tile_descriptor(shared.x(stage.index) + warpgroup * 64 * kBlockK);
      const std::uint64_t w = tile_descriptor(shared.w(stage.index));
      fence_registers(sums);
      wgmma_fence();
#pragma unroll
      for (int k = 0; k < kBlockK / 32; ++k) Wgmma<kColumns>::multiply(sums, x + 2 * k, w + 2 * k, block > 0 || k > 0);
      wgmma_commit();
      if (block == 0) {  // what the end of the tile needs, while products run
        scaling.load(a.epilogue, a.M, a.N, m_tile + warpgroup * 64 + thread / 32 * 16, n_tile);
        more = tiles.next(m_tile, n_tile);
      }
      fence_registers(sums);
      wgmma_wait<1>();
      if (tells && block > 0) barrier_arrive_here(shared.empty + previous * 8);
      previous = stage.index;
      stage.advance(a.stages);
    }
    wgmma_wait<0>();
    fence_registers(sums);
    if (tells) barrier_arrive_here(shared.empty + previous * 8);
    scaling.share(shared.columns_of(warpgroup, biased), warpgroup, biased);
    stage_sums<kColumns>(a.y_dtype, biased, sums, shared.staging_of(warpgroup), warpgroup, scaling, turn);
  }
  // The answer to the storing warp's last word: barriers are left as they were found.
  announce(barrier_of(kFree + turn, warpgroup), kStoringThreads);
}

template <int kRows, int kColumns>
__global__ void __launch_bounds__(kWarpgroup*(kRows + 1), 1)
    s8_w8_kernel(const __grid_constant__ S8W8Arguments a, const __grid_constant__ CUtensorMap x,
                 const __grid_constant__ CUtensorMap w, const __grid_constant__ CUtensorMap y) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  extern __shared__ __align__(1024) std::uint8_t memory[];
  const S8W8Shared<kRows, kColumns> shared(a, memory);
  const int warp = static_cast<int>(threadIdx.x) / 32;
  constexpr int kCopier = 4 * (kRows + 1) - 1;  // the warp of which one thread copies
  S8W8Copier<kRows, kColumns> copier(a, x, w, shared);
  const bool first = elected();
  if (warp == kCopier) {
    if (first) copier.begin();
  } else if (first) {
    if (warp == 0) {
      prefetch_tensor_map(x);
      prefetch_tensor_map(y);
    }
    init_barriers(a, shared, warp, kCopier);
  }
  __syncthreads();
  // Two warpgroups that multiply need more registers than there are for three.
  if (threadIdx.x < kWarpgroup * kRows) {
    if constexpr (kRows > 1) take_registers<232>();
    multiply_tiles(a, shared);
  } else {
    if constexpr (kRows > 1) give_registers<40>();
    const int warpgroup = warp - 4 * kRows;  // of which this warp may store
    if (warpgroup < kRows) {
      store_tiles<kRows, kColumns>(a, y, shared.staging_of(warpgroup), warpgroup);
    } else if (warp == kCopier && first) {
      copier.copy();
    }
  }
#endif
}

}  // namespace octavo::sm90
