// int8 · int8 on packed weights: what the instruction sets share. An instruction set gives
//   kRows                                     rows of x that its largest tile has
//   kStepsInCache                             steps whose weights, of 64 channels, stay in the second-level cache (or the
//                                             first) while the rows of x of a pass go by; a multiple of 16
//   kOrder                                    how its tiles of x are laid out
//   add_products(w, steps, x, sums, ahead)    sums[i][c] += Σ w · x over steps, for rows i of an IntegerTile and 64
//                                             channels c; w unsigned (q + 128), sums int32 [rows][64]; meanwhile a line a
//                                             step is prefetched from `ahead` on
//   store_sums(sums, a, w_scale, m, n, cols)  the epilogue of row m, channels [n, n + cols)
// Integer sums are exact, so neither tiles nor threads nor the cutting of K change a result.
#pragma once

#include <algorithm>

#include "gemm/arguments.h"
#include "gemm/cpu/integer_rows.h"
#include "gemm/cpu/work.h"

#if defined(__x86_64__)

namespace octavo {

template <class Isa>
class S8W8 {
 public:
  S8W8(const Arguments& a, Parallel& parallel)
      : a_(a),
        shape_(a.packed.format, a.packed.N, a.packed.K),
        x_(a.x, {}, shape_, Isa::kRows, Isa::kOrder, parallel),
        passes_(a.x.rows, a.x.cols, x_.tiles(), shape_.blocks()) {}

  void run(Parallel& parallel) const {
    passes_.run(
        parallel, [&] { return AlignedBuffer<std::int32_t>(passes_.tiles_at_once() * Isa::kRows * kBlockChannels); },
        [&](std::int64_t b, std::int64_t first_tile, std::int64_t last_tile, const AlignedBuffer<std::int32_t>& sums) {
          multiply(b, first_tile, last_tile, sums.data());
        });
  }

 private:
  // Block b with tiles [first_tile, last_tile) of x.
  void multiply(std::int64_t b, std::int64_t first_tile, std::int64_t last_tile, std::int32_t* sums) const {
    const auto* data = reinterpret_cast<const std::uint8_t*>(a_.packed.data.data());
    const std::uint8_t* w = data + shape_.integers(b, 0);
    const auto* w_scale = reinterpret_cast<const float*>(data + shape_.scales(b, 0));
    const std::int64_t steps = shape_.steps();
    for (std::int64_t step = 0; step < steps; step += Isa::kStepsInCache) {
      const std::int64_t count = std::min(Isa::kStepsInCache, steps - step);
      const bool is_last = step + count == steps;
      for (std::int64_t tile = first_tile; tile < last_tile; ++tile) {
        const int rows = x_.rows(tile);
        std::int32_t* tile_sums = sums + (tile - first_tile) * Isa::kRows * kBlockChannels;
        if (step == 0) start(x_.sums(tile, 0), rows, tile_sums);
        // Tiles share the prefetching of the weights that come next, a quarter each, so that memory works while they
        // compute.
        const std::uint8_t* next = w + (step + count) * kStepBytes + (tile - first_tile) % 4 * count * 64;
        Isa::add_products(w + step * kStepBytes, count, x_.at(tile, step), tile_sums, next);
        if (!is_last) continue;
        for (int i = 0; i < rows; ++i) {
          Isa::store_sums(tile_sums + i * kBlockChannels, a_, w_scale, x_.first_row(tile) + i, b * kBlockChannels,
                          shape_.channels(b));
        }
      }
    }
  }

  // What adding 128 to the weights adds is taken off first.
  static void start(const std::int32_t* x_sums, int rows, std::int32_t* sums) {
    for (int i = 0; i < rows; ++i) std::fill_n(sums + i * kBlockChannels, kBlockChannels, -128 * x_sums[i]);
  }

  const Arguments& a_;
  Block64 shape_;
  IntegerRows x_;
  Passes passes_;
};

}  // namespace octavo

#endif  // __x86_64__
