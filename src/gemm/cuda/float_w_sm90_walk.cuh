// The way of a CTA of a weight-only kernel of Hopper through its tiles: see float_w_sm90_kernel.cuh.
#pragma once

#include "gemm/cuda/float_w_sm90_arguments.h"
#include "gemm/cuda/sm90.cuh"

namespace octavo::sm90 {

// The tiles of a CTA and its part of their K, in blocks: first those it has for itself, then one that its cluster takes.
template <class F>
class FloatWTiles {
 public:
  __device__ explicit FloatWTiles(const FloatWArguments& a) : a_(a) {}

  // The next tile's first token and channel. Its tokens end with x, of which a large tile may reach outside by a quarter of
  // them: the copy engine takes far longer for a box of which more is outside, while a few zeros save power.
  __device__ bool next(int& m, int& n) {
    if (round_ > a_.rounds) return false;
    int index = round_ * static_cast<int>(gridDim.x) + static_cast<int>(blockIdx.x);
    if (round_ == a_.rounds) {
      index = a_.rounds * static_cast<int>(gridDim.x) + static_cast<int>(cluster_number());
      begin_ = min(static_cast<int>(cluster_rank()) * a_.part, end_);
      end_ = min(begin_ + a_.part, end_);
    }
    ++round_;
    if constexpr (F::kHasNarrow) {
      const int wide = (a_.M + F::kTokens - 1) / F::kTokens * a_.wide_columns;
      narrow_ = index >= wide;
      if (narrow_) return place<F::Narrow::kTokens>(index - wide, a_.wide_columns, columns(), m, n);
    }
    return place<F::kTokens>(index, 0, a_.wide_columns, m, n);
  }

  // Whether it is a narrow one; and the first token that is no other tile's.
  __device__ bool narrow() const { return narrow_; }
  __device__ int own() const { return own_; }

  // Whether the cluster divides the one that next() gave.
  __device__ bool divided() const { return a_.cluster > 1 && round_ > a_.rounds; }

  __device__ int begin() const { return begin_; }
  __device__ int end() const { return end_; }

 private:
  __device__ int columns() const { return (a_.N + kChannels - 1) / kChannels; }

  // Where the tile number `index` of the columns from `begin` to `end` is, if there is one. They go down group_m tiles, then
  // right.
  template <int kTokens>
  __device__ bool place(int index, int begin, int end, int& m, int& n) {
    const int rows = (a_.M + kTokens - 1) / kTokens, columns = end - begin;
    if (index >= rows * columns) return false;
    const int first = index / (a_.group_m * columns) * a_.group_m;
    const int height = min(rows - first, a_.group_m);
    const int rest = index - first * columns;
    own_ = (first + rest % height) * kTokens;
    constexpr int kOutside = kTokens > 128 ? kTokens / 32 * 8 : 0;
    m = min(own_, max((a_.M + 7) / 8 * 8 + kOutside - kTokens, 0));
    n = (begin + rest / height) * kChannels;
    return true;
  }

  const FloatWArguments& a_;
  bool narrow_ = false;
  int own_ = 0, round_ = 0, begin_ = 0, end_ = (a_.K + F::kBlockK - 1) / F::kBlockK;
};

}  // namespace octavo::sm90
