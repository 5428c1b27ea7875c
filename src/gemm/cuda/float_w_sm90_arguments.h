// What the weight-only kernel of Hopper is launched with.
#pragma once

#include <cuda.h>

#include <cstdint>

#include "core/rows.cuh"
#include "gemm/cuda/epilogue.cuh"
#include "gemm/cuda/float_w_sm90_tile.h"
#include "quantize/cuda/scale_rows.cuh"

namespace octavo::sm90 {

// Columns of tiles of so many tokens.
struct FloatWColumns {
  int tokens;
  int in_column;  // tiles
  int x_box;      // rows of x that are copied for one
};

struct FloatWArguments {
  int M, N, K;
  void* y;
  std::int64_t y_stride;  // bytes
  DType y_dtype;
  bool y_by_copy_engine;  // its maps are valid: y, its rows and their lengths are multiples of 16 bytes
  int stages;             // of the ring
  FloatWColumns wide, narrow;
  int wide_columns;  // of tiles; the others are narrow
  int cluster;       // CTAs that divide the K of a tile,
  int part;          // of so many blocks each, or what is left
  int rounds;        // of tiles that a CTA has for itself, before clusters divide the last ones
  int group_m;       // tiles of tokens that are walked together, so that their boxes stay in the second-level cache
  bool constant_w;
  cuda::ScaleRows scale;                      // a row a channel, or one in all
  cuda::Rows<const std::uint8_t> zero_point;  // the same; no data: `zero` everywhere
  int zero;
  bool per_tensor;
  int group_size;       // neighbours along K with one scale; 0: all
  cuda::Epilogue bias;  // of which that is used alone

  __host__ __device__ int channel_row(int n) const { return per_tensor ? 0 : n < N ? n : N - 1; }
};

// Boxes of what is copied. x: of wide tiles, and of narrow ones; y: of a piece, and of kBoxTokens tokens.
struct FloatWMaps {
  CUtensorMap x, narrow_x, w, y, y_boxes;
};

}  // namespace octavo::sm90
