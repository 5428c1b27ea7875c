// How a product is cut for threads and caches.
#pragma once

#include <algorithm>
#include <cstdint>

namespace octavo {

// Rows of x that pass by a block of weights at once: their sums stay in the second-level cache.
inline constexpr std::int64_t kRowsInCache = 384;

// Pieces of work, of so many multiplications each, that are worth waking a thread for.
inline std::int64_t grain_of(std::int64_t multiplications) {
  constexpr std::int64_t kWorthAThread = std::int64_t{1} << 20;
  return std::max<std::int64_t>(1, kWorthAThread / std::max<std::int64_t>(1, multiplications));
}

}  // namespace octavo
