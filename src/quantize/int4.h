// Two integers a byte, the low nibble first; docs/numerics.md has the picture.
#pragma once

#include <cstdint>

#include "octavo/status.h"
#include "octavo/tensor.h"

namespace octavo {

// n integers one a byte -> (n + 1) / 2 bytes; `offset` is 8 for int4 (nibble = q + 8), 0 for uint4. A last odd nibble is 0.
// Returns whether they all fit in a nibble; of those that do not, the lower four bits are taken.
bool pack_row_int4(const std::uint8_t* q, std::int64_t n, int offset, std::uint8_t* packed);
// The error for the first of row n of q (int8 or uint8) that does not.
Status check_row_int4(const MatrixView& q, std::int64_t n);

// Elements [first, first + n) of a packed row, one a byte; `first` is even or n reaches no further than needed.
void unpack_row_int4(const std::uint8_t* packed, std::int64_t first, std::int64_t n, int offset, std::uint8_t* q);

}  // namespace octavo
