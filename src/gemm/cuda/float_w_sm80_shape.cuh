// What the parts of the weight-only kernel for compute capability 8.0 and more agree on: tiles, where they stand in shared
// memory, and what the kernel is launched with.
#pragma once

#include <algorithm>
#include <cstdint>

#include "core/rows.cuh"
#include "gemm/cuda/epilogue.cuh"
#include "quantize/cuda/scale_rows.cuh"

namespace octavo::sm80 {

inline constexpr int kUnitK = 32;  // weights of a channel that are multiplied together: two products, never of two groups
inline constexpr int kThreads = 128;

// A weight's scales and zero points; per channel or tensor, one group as long as K.
struct Groups {
  cuda::ScaleRows scale;                      // a row a channel, or one in all
  cuda::Rows<const std::uint8_t> zero_point;  // the same; no data: none
  bool per_tensor;
  int size;                       // weights of a group
  int last;                       // of a channel
  int steps;                      // of a group, each of as many weights as have one scale
  int stage_groups, stage_steps;  // a stage of the ring, as whole groups and the steps left
};

struct FloatWArguments {
  const std::uint8_t* x;
  const std::uint8_t* w;
  char* y;
  std::int64_t x_stride, w_stride, y_stride;  // bytes
  std::int64_t M, N;
  int x_row, w_row;  // bytes that are read of a row
  unsigned tiles_m, tiles_n;
  bool words;      // where copies are not of 16 bytes: whether x and w are aligned to 4
  bool y_vectors;  // whether y is aligned to 16 bytes
  DType y_dtype;
  bool constant_w;
  Groups groups;
  cuda::Epilogue bias;  // of which that is used alone
};

// A tile of y, the K that a stage of the ring holds of it, and how the warps of a block divide these. Up to kRing bytes of
// ring, where three stages fit.
template <int kTokens_, int kChannels_, int kStageK_, int kWarpsM_, int kWarpsN_, int kWarpsK_, int kRing_, int kBlocks_>
struct Tile {
  static constexpr int kTokens = kTokens_, kChannels = kChannels_, kStageK = kStageK_;
  static constexpr int kWarpsM = kWarpsM_, kWarpsN = kWarpsN_, kWarpsK = kWarpsK_;
  static constexpr int kRing = kRing_;
  static constexpr int kBlocks = kBlocks_;  // on a multiprocessor at a time, at least
};

// x of type X times weights of kBits, as they are stored. kGroupUnits: where weights have groups, or zero points, so many
// units are of one group; 0: one scale a channel, and int8 or int4.
template <class X_, int kBits_, int kGroupUnits_, class Tile>
struct FloatW : Tile {
  using X = X_;
  static constexpr int kBits = kBits_;
  static constexpr int kGroupUnits = kGroupUnits_;
  static constexpr bool kGroups = kGroupUnits > 0;
  static constexpr int kTogether = kGroups ? kGroupUnits : 1;  // units whose weights are in registers at a time
  static constexpr int kStageUnits = Tile::kStageK / kUnitK;
  static constexpr int kUnits = kStageUnits / Tile::kWarpsK;  // of a warp, in a stage
  static constexpr int kWarpTokens = Tile::kTokens / Tile::kWarpsM, kWarpChannels = Tile::kChannels / Tile::kWarpsN;
  static constexpr int kM = kWarpTokens / 8, kN = kWarpChannels / 16;  // products of a warp

  // A warp reads 16 bytes of x, or 8 weights, a thread: kSpan chunks of a row's unit.
  static constexpr int kXUnit = 2 * kUnitK, kWUnit = kUnitK * kBits / 8;  // bytes of a row
  static constexpr int kXSpan = kXUnit / 16, kWSpan = kWUnit / 16;
  static constexpr int kXRow = kXUnit * kStageUnits, kWRow = kWUnit * kStageUnits;
  static constexpr int kXBytes = Tile::kTokens * kXRow, kWBytes = Tile::kChannels * kWRow;

  // A scale and a zero point of every channel and step of a stage.
  static constexpr int kStageSteps = kStageUnits / kTogether;
  static constexpr int kPairs = Tile::kChannels * kStageSteps;

  static constexpr int kStageBytes = kXBytes + kWBytes + (kGroups ? kPairs * 8 : 0);
  static constexpr int kStages = std::clamp(Tile::kRing / kStageBytes, 3, 4);
  static constexpr int kRingBytes = kStages * kStageBytes;

  // Sums on their way to y, after the ring: the tile once for every part of K. Rows lie apart by four banks, so that a
  // warp's eight channels of four pairs of tokens are in 32 of them.
  static constexpr int kSumRow = Tile::kChannels + 4;
  static constexpr int kSumBytes = Tile::kTokens * Tile::kWarpsK * kSumRow * 4;
  static constexpr int kShared = std::max(kRingBytes, kSumBytes);

  static_assert(Tile::kWarpsM * Tile::kWarpsN * Tile::kWarpsK * 32 == kThreads);
  static_assert(kUnits == 2, "units are addressed by an exclusive or");
  static_assert(kPairs % kThreads == 0 && kThreads % kStageSteps == 0);
  static_assert(kShared <= 99 * 1024, "what every device of compute capability 8.0 or more has");
};

}  // namespace octavo::sm80
