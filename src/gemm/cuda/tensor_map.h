// Maps of matrices for Hopper's tensor copy engine.
#pragma once

#include <cuda.h>

#include <cstdint>

namespace octavo::cuda {

// What the engine copies at a time: `rows` of `columns` elements, which stand in shared memory in rows of `swizzle` bytes
// (32, 64 or 128), swizzled by that many; and so many such boxes side by side, one behind the other in shared memory. Where
// these are several, a row is made of whole ones. The second-level cache reads memory `line` bytes at a time, 128 or 256:
// with 128 the engine copies faster (an H200's 4.62 TB/s, with 256 4.25), which counts where there are few products for what
// is copied; with 256 a box finds there what the one before it along a row has brought.
struct Box {
  int columns;
  int rows;
  int swizzle;
  int side_by_side = 1;
  int line = 256;
};

// Makes the map of a matrix [rows, columns] of elements of 1, 2 or 4 bytes, whose address and, where there are several rows,
// stride (bytes) are multiples of 16. Returns whether it could; if not, why is noted (core/cuda.h).
bool map_tensor(const void* data, int element_bytes, std::int64_t rows, std::int64_t columns, std::int64_t stride,
                const Box& box, CUtensorMap& map);

}  // namespace octavo::cuda
