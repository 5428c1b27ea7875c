// How a product is cut for threads and caches.
#pragma once

#include <algorithm>
#include <cstdint>

namespace octavo {

// Rows of x, of so many bytes each, that stay in the second-level cache while all blocks of weights pass by.
inline std::int64_t rows_in_cache(std::int64_t row_bytes) {
  constexpr std::int64_t kCacheBytes = std::int64_t{768} << 10;
  return std::clamp<std::int64_t>(kCacheBytes / std::max<std::int64_t>(1, row_bytes), 64, 384);
}

// Pieces of work, of so many multiplications each, that are worth waking a thread for.
inline std::int64_t grain_of(std::int64_t multiplications) {
  constexpr std::int64_t kWorthAThread = std::int64_t{1} << 20;
  return std::max<std::int64_t>(1, kWorthAThread / std::max<std::int64_t>(1, multiplications));
}

}  // namespace octavo
