// How a product is cut for threads and caches.
#pragma once

#include <algorithm>
#include <cstdint>

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

}  // namespace octavo
