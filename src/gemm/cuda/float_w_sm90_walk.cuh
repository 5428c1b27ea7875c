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
    if constexpr (F::kLarge) {
      const int wide = a_.wide.in_column * a_.wide_columns;
      narrow_ = index >= wide;
      if (narrow_) return place(a_.narrow, index - wide, a_.wide_columns, (a_.N + kChannels - 1) / kChannels, m, n);
    }
    return place(a_.wide, index, 0, a_.wide_columns, m, n);
  }

  // Whether it is a narrow one; its tokens; and the first one that is no other tile's.
  __device__ bool narrow() const { return narrow_; }
  __device__ int tokens() const { return tokens_of(column()); }
  __device__ int own() const { return own_; }
  __device__ int x_box() const { return column().x_box; }

  // Whether the cluster divides the one that next() gave.
  __device__ bool divided() const { return a_.cluster > 1 && round_ > a_.rounds; }

  __device__ int begin() const { return begin_; }
  __device__ int end() const { return end_; }

 private:
  __device__ const FloatWColumns& column() const { return narrow_ ? a_.narrow : a_.wide; }
  __device__ static int tokens_of(const FloatWColumns& of) { return F::kLarge ? of.tokens : F::kTokens; }

  // Where the tile number `index` of the columns from `begin` to `end` is, if there is one. They go down group_m tiles, then
  // right.
  __device__ bool place(const FloatWColumns& of, int index, int begin, int end, int& m, int& n) {
    const int rows = of.in_column, columns = end - begin, tokens = tokens_of(of);
    if (index >= rows * columns) return false;
    if (rows == 1) {  // few tokens, which wait for the first weights: without dividing
      own_ = m = 0;
      n = (begin + index) * kChannels;
      return true;
    }
    const int first = index / (a_.group_m * columns) * a_.group_m;
    const int height = min(rows - first, a_.group_m);
    const int rest = index - first * columns;
    own_ = (first + rest % height) * tokens;
    const int outside = F::kLarge ? tokens / 32 * 8 : 0;
    m = min(own_, max((a_.M + 7) / 8 * 8 + outside - tokens, 0));
    n = (begin + rest / height) * kChannels;
    return true;
  }

  const FloatWArguments& a_;
  bool narrow_ = false;
  int own_ = 0, round_ = 0, begin_ = 0, end_ = (a_.K + F::kBlockK - 1) / F::kBlockK;
};

}  // namespace octavo::sm90
