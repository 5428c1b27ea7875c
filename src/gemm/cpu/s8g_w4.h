// W4A8 on packed weights: what the instruction sets share. x is quantized per token and group, and the formula of
// docs/numerics.md is followed to the bit. An instruction set gives
//   kRows                                rows of x that its largest tile has
//   kOrder                               how its tiles of x are laid out
//   kTilesWorthExpanding                 from so many tiles of x on, taking the nibbles apart once, into memory, costs less
//                                        than for every tile; kNever where loading the bytes costs more
//   add_groups(run, totals)              for each group of a run in turn, totals[i][c] += float(Σ x · (w - z)) · (s_w[c] ·
//                                        s_x[i]) for rows i of a tile and 64 channels c, each step rounded to float32;
//                                        meanwhile a line a step is prefetched from `ahead` on
//   store_totals(totals, a, m, n, cols)  bias and rounding of row m, channels [n, n + cols)
// and unless it never expands
//   expand(w, steps, out)                nibbles to bytes: [step][even k, odd k][64][4]
//   add_expanded_groups(run, totals)     add_groups with the weights that expand() made
#pragma once

#include <algorithm>

#include "gemm/arguments.h"
#include "gemm/cpu/integer_rows.h"
#include "gemm/cpu/work.h"
#include "gemm/quantized_rows.h"

#if defined(__x86_64__)

namespace octavo {

inline constexpr std::int64_t kNever = INT64_MAX;

// One group of 64 channels and a tile of x.
struct GroupOperands {
  const std::uint8_t* w;
  std::int64_t steps;
  IntegerTile x;
  const std::int32_t* x_sums;      // [rows]
  const float* x_scale;            // [rows]
  const float* w_scale;            // [64]
  const std::uint8_t* zero_point;  // [64]; null when symmetric: 8
  const std::uint8_t* ahead;
};

// Groups of equal length that follow one another: the first, and how far apart they are.
struct GroupRun {
  std::int64_t count;
  GroupOperands first;
  std::int64_t w_stride;          // bytes
  std::int64_t parameter_stride;  // bytes, of w_scale and zero_point

  GroupOperands group(std::int64_t i) const {
    const int rows = first.x.rows;
    return {first.w + i * w_stride,
            first.steps,
            {first.x.dwords + i * first.steps * 2 * rows, rows},
            first.x_sums + i * rows,
            first.x_scale + i * rows,
            first.w_scale + i * parameter_stride / 4,
            first.zero_point == nullptr ? nullptr : first.zero_point + i * parameter_stride,
            first.ahead + i * first.steps * 64};
  }
};

template <class Isa>
class S8gW4 {
 public:
  // x: that of `a`, quantized in w's groups.
  S8gW4(const Arguments& a, const QuantizedRows& x, Parallel& parallel)
      : a_(a),
        shape_(a.packed.format, a.packed.N, a.packed.K),
        x_(x.q(), x.scale(), shape_, Isa::kRows, Isa::kOrder, parallel),
        passes_(a.x.rows, a.x.cols, x_.tiles(), shape_.blocks()) {}

  void run(Parallel& parallel) const {
    passes_.run(
        parallel, [&] { return Scratch(passes_.tiles_at_once()); },
        [&](std::int64_t b, std::int64_t first_tile, std::int64_t last_tile, const Scratch& scratch) {
          multiply(b, first_tile, last_tile, scratch);
        });
  }

 private:
  static constexpr bool kMayExpand = Isa::kTilesWorthExpanding != kNever;
  // As many weights of 64 channels as stay in the second-level cache, one a byte.
  static constexpr std::int64_t kStepsInCache = 1024;

  struct Scratch {
    explicit Scratch(std::int64_t tiles)
        : totals(tiles * Isa::kRows * kBlockChannels),
          bytes(tiles < Isa::kTilesWorthExpanding ? 0 : kStepsInCache * 2 * kStepBytes) {}
    AlignedBuffer<float> totals;
    AlignedBuffer<std::uint8_t> bytes;
  };

  // Block b with tiles [first_tile, last_tile) of x.
  void multiply(std::int64_t b, std::int64_t first_tile, std::int64_t last_tile, const Scratch& scratch) const {
    const auto totals_of = [&](std::int64_t t) {
      return scratch.totals.data() + (t - first_tile) * Isa::kRows * kBlockChannels;
    };
    std::fill_n(totals_of(first_tile), (last_tile - first_tile) * Isa::kRows * kBlockChannels, 0.0f);
    const std::int64_t groups_at_once = std::max<std::int64_t>(1, kStepsInCache / shape_.steps(0));
    const bool expands = last_tile - first_tile >= Isa::kTilesWorthExpanding && shape_.steps(0) <= kStepsInCache;
    for (std::int64_t g = 0; g < shape_.groups(); g += groups_at_once) {
      const std::int64_t end = std::min(g + groups_at_once, shape_.groups());
      if (expands) expand(b, g, end, scratch.bytes.data());
      for (std::int64_t tile = first_tile; tile < last_tile; ++tile) {
        const std::uint8_t* ahead = next_of(b, tile - first_tile);
        const std::int64_t full = shape_.steps(end - 1) == shape_.steps(0) ? end : end - 1;  // the last may be short
        for (const auto& [from, to] : {std::pair{g, full}, std::pair{full, end}}) {
          if (from == to) continue;
          const GroupRun run = {to - from, operands(b, from, tile, ahead), shape_.group_bytes(), shape_.group_bytes()};
          if (expands) {
            add_expanded_groups(run, scratch.bytes.data() + shape_.first_step(from - g) * 2 * kStepBytes, totals_of(tile));
          } else {
            Isa::add_groups(run, totals_of(tile));
          }
        }
      }
    }
    for (std::int64_t tile = first_tile; tile < last_tile; ++tile) {
      for (int i = 0; i < x_.rows(tile); ++i) {
        Isa::store_totals(totals_of(tile) + i * kBlockChannels, a_, x_.first_row(tile) + i, b * kBlockChannels,
                          shape_.channels(b));
      }
    }
  }

  void expand(std::int64_t b, std::int64_t begin, std::int64_t end, std::uint8_t* out) const {
    if constexpr (kMayExpand) {
      for (std::int64_t g = begin; g < end; ++g) {
        Isa::expand(data() + shape_.integers(b, g), shape_.steps(g), out + shape_.first_step(g - begin) * 2 * kStepBytes);
      }
    }
  }

  // The groups of a run from their bytes.
  void add_expanded_groups(GroupRun run, const std::uint8_t* bytes, float* totals) const {
    if constexpr (kMayExpand) {
      run.first.w = bytes;
      run.w_stride = shape_.steps(0) * 2 * kStepBytes;
      Isa::add_expanded_groups(run, totals);
    }
  }

  GroupOperands operands(std::int64_t b, std::int64_t g, std::int64_t tile, const std::uint8_t* ahead) const {
    return {data() + shape_.integers(b, g),
            shape_.steps(g),
            x_.at(tile, shape_.first_step(g)),
            x_.sums(tile, g),
            x_.scales(tile, g),
            reinterpret_cast<const float*>(data() + shape_.scales(b, g)),
            a_.packed.format.symmetric ? nullptr : data() + shape_.zero_points(b, g),
            ahead + shape_.first_step(g) * 64};
  }

  // Tiles share the prefetching of the next block, a quarter each, so that memory works while they compute.
  const std::uint8_t* next_of(std::int64_t b, std::int64_t tile) const {
    return data() + shape_.integers(b + 1, 0) + tile % 4 * shape_.block_bytes() / 4;
  }

  const std::uint8_t* data() const { return reinterpret_cast<const std::uint8_t*>(a_.packed.data.data()); }

  const Arguments& a_;
  Block64 shape_;
  IntegerRows x_;
  Passes passes_;
};

template <class Isa>
void linear_w4a8(const Arguments& a, Parallel& parallel) {
  const QuantizedRows x(a.x, a.packed.format.group_size, parallel);
  S8gW4<Isa>(a, x, parallel).run(parallel);
}

}  // namespace octavo

#endif  // __x86_64__
