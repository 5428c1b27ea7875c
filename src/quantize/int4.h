// Two integers a byte, the low nibble first; docs/numerics.md has the picture.
#pragma once

#include <cstdint>

namespace octavo {

// n integers one a byte -> (n + 1) / 2 bytes; `offset` is 8 for int4 (nibble = q + 8), 0 for uint4. A last odd nibble is 0.
void pack_row_int4(const std::uint8_t* q, std::int64_t n, int offset, std::uint8_t* packed);
// Elements [first, first + n) of a packed row, one a byte; `first` is even or n reaches no further than needed.
void unpack_row_int4(const std::uint8_t* packed, std::int64_t first, std::int64_t n, int offset, std::uint8_t* q);

}  // namespace octavo
