// The tile registers of AMX: permission to use them, and their shapes.
#pragma once

#include <cstdint>

namespace octavo {

// Whether this process may use tile registers. Linux gives them to processes that ask; asked once.
bool amx_permitted();

// What LDTILECFG reads: up to eight tiles of up to 16 rows of up to 64 bytes.
struct alignas(64) TileConfig {
  std::uint8_t palette = 1;
  std::uint8_t start_row = 0;
  std::uint8_t reserved[14] = {};
  std::uint16_t bytes[16] = {};
  std::uint8_t rows[16] = {};

  void set(int tile, std::int64_t tile_rows, std::int64_t row_bytes) {
    rows[tile] = static_cast<std::uint8_t>(tile_rows);
    bytes[tile] = static_cast<std::uint16_t>(row_bytes);
  }
};
static_assert(sizeof(TileConfig) == 64);

// Between the tile instructions and other accesses to the memory they read and write: GCC's intrinsics do not say which
// memory that is.
inline void tile_memory_fence() { asm volatile("" ::: "memory"); }

}  // namespace octavo
