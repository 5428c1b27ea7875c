// Tiles of row-major matrices on their way into shared memory by asynchronous copies, from any address and any stride.
//
// Shared memory holds the 16-byte chunks of a row permuted, by an exclusive or with the row, so that neither the copies nor
// those who read meet a bank twice.
#pragma once

#include <cstdint>

#include "gemm/cuda/mma.cuh"

namespace octavo::cuda {

inline constexpr int kChunk = 16;  // bytes of the widest copy

// Byte offset of a chunk in a tile whose rows have kBytes. Who reads takes kSpan chunks, aligned, of each of 8 / kSpan
// consecutive rows at a time, 128 bytes in all: one of ldmatrix's matrices is a chunk of 8 rows.
template <int kBytes, int kSpan = 1>
__device__ __forceinline__ int chunk_offset(int row, int chunk) {
  constexpr int kChunks = kBytes / kChunk < 8 ? kBytes / kChunk : 8;  // of a row among the banks
  static_assert(kBytes % kChunk == 0 && 8 % kChunks == 0 && kChunks >= kSpan);
  const int key = static_cast<int>(static_cast<unsigned>(row) / (8 / kChunks) % (kChunks / kSpan) * kSpan);
  return row * kBytes + (chunk ^ key) * kChunk;
}

// Sixteen bytes from anywhere, zeros after the first `bytes`. `before` and `after`: whether the row goes on for three bytes
// on that side, so that aligned words may be read.
__device__ inline void copy16_bytewise(std::uint32_t target, const std::uint8_t* source, int bytes, bool before,
                                       bool after) {
  std::uint32_t v[4] = {};
  if (before && after) {
    const auto address = reinterpret_cast<std::uintptr_t>(source);
    const auto* words = reinterpret_cast<const std::uint32_t*>(address & ~std::uintptr_t{3});
    const unsigned shift = 8 * (address & 3);
    std::uint32_t low = words[0];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const std::uint32_t high = i < 3 || shift != 0 ? words[i + 1] : 0;
      v[i] = __funnelshift_r(low, high, shift);
      low = high;
    }
  } else {
#pragma unroll
    for (int i = 0; i < kChunk; ++i) {
      if (i < bytes) v[i / 4] |= static_cast<std::uint32_t>(source[i]) << 8 * (i % 4);
    }
  }
  store16_shared(target, v);
}

// One thread's share of copying a matrix's rows into the stages, one tile of K after the other. Aligned: rows begin at
// multiples of sixteen bytes, and have a multiple of sixteen.
template <int kRows, int kBytes, int kThreads, bool kAligned, int kSpan = 1>
class Copier {
  static constexpr int kChunks = kBytes / kChunk;
  static constexpr int kRowStep = kThreads / kChunks;
  static_assert(kThreads % kChunks == 0 && kRows % kRowStep == 0 && kRowStep % (8 / kSpan) == 0);

 public:
  __device__ Copier(const std::uint8_t* matrix, std::int64_t stride, std::int64_t rows, int row_bytes, bool words)
      : step_(kRowStep * stride), k_(threadIdx.x % kChunks * kChunk), left_(row_bytes - k_), words_(words) {
    const int row = threadIdx.x / kChunks;
    source_ = matrix + row * stride + k_;
    rows_ = static_cast<int>(rows < kRows ? rows : kRows) - row;
    target_ = chunk_offset<kBytes, kSpan>(row, threadIdx.x % kChunks);
  }

  // Rows and bytes that the matrix does not have become zeros.
  __device__ void copy(std::uint32_t tile) {
    const int bytes = left_ < 0 ? 0 : left_ < kChunk ? left_ : kChunk;
#pragma unroll
    for (int i = 0; i < kRows / kRowStep; ++i) {
      const std::uint32_t target = tile + target_ + i * kRowStep * kBytes;
      const std::uint8_t* source = source_ + i * step_;
      const int n = i * kRowStep < rows_ ? bytes : 0;
      if constexpr (kAligned) {
        copy16_async(target, source, n > 0);
      } else if (words_) {
#pragma unroll
        for (int j = 0; j < kChunk; j += 4) copy4_async(target + j, source + j, n <= j ? 0 : n - j < 4 ? n - j : 4);
      } else {
        copy16_bytewise(target, source, n, k_ >= 3 && n == kChunk, left_ >= kChunk + 3);
      }
    }
    source_ += kBytes;
    k_ += kBytes;
    left_ -= kBytes;
  }

 private:
  const std::uint8_t* source_;
  std::int64_t step_;
  int k_;
  int left_;  // bytes of the row from source_ on
  int rows_;  // of the tile from this thread's first on
  std::uint32_t target_;
  bool words_;
};

// Which tile of y a block computes: kRasterRows rows of tiles together, so that the blocks that run at a time share what
// they read in the second-level cache.
__device__ inline uint2 tile_of_block(unsigned tiles_m, unsigned tiles_n) {
  constexpr unsigned kRasterRows = 8;
  const unsigned band = blockIdx.x / (kRasterRows * tiles_n);
  const unsigned rest = blockIdx.x - band * kRasterRows * tiles_n;
  const unsigned rows = min(tiles_m - band * kRasterRows, kRasterRows);
  return {band * kRasterRows + rest % rows, rest / rows};
}

}  // namespace octavo::cuda
