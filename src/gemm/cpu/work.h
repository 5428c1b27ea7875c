// How a product is cut for threads and caches.
#pragma once

#include <algorithm>
#include <cstdint>

#include "core/fp_env.h"
#include "gemm/layout.h"
#include "octavo/parallel.h"

namespace octavo {

// How many passes over the weights rows of x take: in each, the same number of rows, of so many bytes, stays in the
// second-level cache while all blocks of weights pass by. Equal passes, so that threads which get equal pieces get equal
// work.
inline std::int64_t passes_of(std::int64_t rows, std::int64_t row_bytes) {
  constexpr std::int64_t kCacheBytes = std::int64_t{768} << 10;
  const std::int64_t most = std::clamp<std::int64_t>(kCacheBytes / std::max<std::int64_t>(1, row_bytes), 64, 384);
  return (rows + most - 1) / most;
}

// Pieces of work, of so many multiplications each, that are worth waking a thread for.
inline std::int64_t grain_of(std::int64_t multiplications) {
  constexpr std::int64_t kWorthAThread = std::int64_t{1} << 20;
  return std::max<std::int64_t>(1, kWorthAThread / std::max<std::int64_t>(1, multiplications));
}

// Integer products: all blocks of weights for the tiles of x of one pass, then for those of the next. So rows of x are read
// from memory once, weights once a pass.
class Passes {
 public:
  // x int8 [rows, K] in `tiles` tiles.
  Passes(std::int64_t rows, std::int64_t K, std::int64_t tiles, std::int64_t blocks)
      : count_(passes_of(rows, K)),
        blocks_(blocks),
        tiles_(tiles),
        tiles_at_once_((tiles + count_ - 1) / count_),
        grain_(grain_of(kBlockChannels * K * rows / count_)) {}

  std::int64_t tiles_at_once() const { return tiles_at_once_; }

  // work(block, first_tile, last_tile, scratch) for every block and pass; make_scratch() gives what calls may write to, and
  // one thread keeps.
  template <class MakeScratch, class Work>
  void run(Parallel& parallel, const MakeScratch& make_scratch, const Work& work) const {
    parallel.run(0, blocks_ * count_, grain_, [&](std::int64_t begin, std::int64_t end) {
      const ExactFloatScope exact;
      const auto scratch = make_scratch();
      std::int64_t block = begin % blocks_;
      std::int64_t first_tile = begin / blocks_ * tiles_at_once_;
      for (std::int64_t i = begin; i < end; ++i) {
        work(block, first_tile, std::min(first_tile + tiles_at_once_, tiles_), scratch);
        if (++block < blocks_) continue;
        block = 0;
        first_tile += tiles_at_once_;
      }
    });
  }

 private:
  std::int64_t count_, blocks_, tiles_, tiles_at_once_, grain_;
};

}  // namespace octavo
