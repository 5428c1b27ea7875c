// Where everything of a weight-only kernel of Hopper stands in shared memory: see float_w_sm90_kernel.cuh.
#pragma once

#include "gemm/cuda/float_w_sm90_store.cuh"

namespace octavo::sm90 {

inline constexpr int kMaxFloatWStages = 16;

// Where everything stands in shared memory, as addresses of it.
template <class F>
struct FloatWShared {
  std::uint32_t x_box_bytes, stage_bytes, ring, staging, full, empty;
  std::uint32_t received;     // the cluster's sums
  std::uint32_t ready, sums;  // barriers: the other CTAs' rings are free for sums, if they come there; and theirs are here

  // Where a cluster divides K, its CTAs' sums of a part of the tile, parts being rounded up, are received where the ring
  // was; or behind it, so that no CTA waits until another's is free. That takes stages, of which 64 tokens with bytes would
  // have too few.
  static constexpr bool kReceivesApart = F::kTokens == 32 || (F::kTokens == 64 && F::kNibbles);

  __host__ __device__ static constexpr int bytes(const FloatWColumns& wide, int stages, int cluster) {
    return staging_place(wide, stages, cluster) + 2 * F::kPieces * kPieceBytes + 2 * (stages + 1) * 8;
  }
  __host__ __device__ static constexpr int staging_place(const FloatWColumns& wide, int stages, int cluster) {
    const int ring = ring_bytes(wide, stages), sums = cluster > 1 ? (wide.tokens + 3 * 8) * kChannels * 4 : 0;
    return kReceivesApart ? ring + sums : ring < sums ? sums : ring;
  }
  // Products read as many rows of x as a tile has tokens, even where a box holds fewer; what they read instead is not
  // stored.
  __host__ __device__ static constexpr int ring_bytes(const FloatWColumns& wide, int stages) {
    return stages * stage_size(wide.x_box) + slack(wide);
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
    received = kReceivesApart ? ring + ring_bytes(a.wide, a.stages) : ring;
    staging = ring + staging_place(a.wide, a.stages, a.cluster);
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
