// Where everything of a weight-only kernel of Hopper stands in shared memory: see float_w_sm90_kernel.cuh.
#pragma once

#include "gemm/cuda/float_w_sm90_store.cuh"

namespace octavo::sm90 {

inline constexpr int kMaxFloatWStages = 16;

// Where everything stands in shared memory, as addresses of it.
template <class F>
struct FloatWShared {
  std::uint32_t x_box_bytes, stage_bytes, ring, staging, full, empty;
  std::uint32_t ready, sums;  // barriers: the other CTAs of the cluster take sums, and theirs are there

  // Products read as many rows of x as a tile has tokens, even where a box holds fewer; what they read instead is not
  // stored. Where a cluster divides K, the ring holds all CTAs' sums of a part of the tile afterwards, parts being rounded
  // up.
  __host__ __device__ static constexpr int bytes(const FloatWColumns& wide, int stages) {
    return ring_bytes(wide, stages) + 2 * F::kPieces * kPieceBytes + 2 * (stages + 1) * 8;
  }
  __host__ __device__ static constexpr int ring_bytes(const FloatWColumns& wide, int stages) {
    const int sum_bytes = (wide.tokens + 3 * 8) * kChannels * 4;
    const int bytes = stages * stage_size(wide.x_box) + slack(wide);
    return bytes < sum_bytes ? sum_bytes : bytes;
  }
  __host__ __device__ static constexpr int stage_size(int x_box) {
    return F::kXBoxes * x_box * 128 + F::kWeightBytes + F::kFactorBytes;
  }
  // The last stage's weights are read too.
  __host__ __device__ static constexpr int slack(const FloatWColumns& wide) {
    const int beyond = (wide.tokens - wide.x_box) * 128 - F::kWeightBytes;
    return beyond > 0 ? (beyond + 1023) / 1024 * 1024 : 0;
  }

  __device__ FloatWShared(const FloatWArguments& a, const void* memory) {
    x_box_bytes = a.wide.x_box * 128;
    stage_bytes = stage_size(a.wide.x_box);
    ring = shared_address(memory);
    staging = ring + ring_bytes(a.wide, a.stages);
    full = staging + 2 * F::kPieces * kPieceBytes;
    empty = full + a.stages * 8;
    ready = empty + a.stages * 8;
    sums = ready + 8;
  }

  __device__ std::uint32_t x(int stage) const { return ring + stage * stage_bytes; }
  __device__ std::uint32_t w(int stage) const { return x(stage) + F::kXBoxes * x_box_bytes; }
  __device__ std::uint32_t factors(int stage) const { return w(stage) + F::kWeightBytes; }
  __device__ std::uint32_t copied_bytes(int x_box) const { return F::kXBoxes * x_box * 128 + F::kWeightBytes; }
};

}  // namespace octavo::sm90
