// What the rows of a matrix are aligned to.
#pragma once

#include <bit>
#include <cstdint>

namespace octavo {

// Bytes, a power of two up to 16, which is as wide as accesses get.
template <class View>
int alignment_of(const View& view) {
  std::uintptr_t bits = 16 | reinterpret_cast<std::uintptr_t>(view.data);
  if (view.rows > 1) bits |= static_cast<std::uintptr_t>(view.stride);
  return 1 << std::countr_zero(bits);
}

}  // namespace octavo
