// Which tile of y a kernel of compute capability 8.0 and more takes: large ones read less of x and w, small ones keep more
// multiprocessors busy.
#pragma once

#include <cstdint>
#include <span>

#include "core/ceil_div.h"
#include "octavo/tensor.h"

namespace octavo::cuda {

// A size of tile, in rows of x and of w, and the kernel that has it.
template <class Arguments>
struct TileChoice {
  int rows, columns;
  void (*launch)(Arguments arguments, Stream stream);
};

// The first of them that x fills more than half of (of the lowest, any rows) and that gives nearly every multiprocessor a
// tile; else the last.
template <class Arguments>
const TileChoice<Arguments>& choose_tile(std::span<const TileChoice<Arguments>> choices, std::int64_t M, std::int64_t N,
                                         int num_sms) {
  for (const TileChoice<Arguments>& c : choices) {
    const bool filled = c.rows <= 16 || M > c.rows / 2;
    if (filled && ceil_div(M, c.rows) * ceil_div(N, c.columns) * 10 >= num_sms * 9) return c;
  }
  return choices.back();
}

}  // namespace octavo::cuda
