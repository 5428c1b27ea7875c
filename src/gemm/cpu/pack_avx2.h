// The bulk of packing: dwords of sixteen channels from rows to steps.
#pragma once

#include <cstdint>

namespace octavo {

// Channels and steps that are packed at a time.
inline constexpr std::int64_t kPackChannels = 16;
inline constexpr std::int64_t kPackSteps = 8;

// out[s][c] = dword s of row c, xor flip, for 16 rows `row_stride` bytes apart and a multiple of kPackSteps steps, 256 bytes
// apart in `out`, past the caches. Other threads see it after finish_packing_avx2().
void pack_dwords_avx2(const std::uint8_t* rows, std::int64_t row_stride, std::int64_t steps, std::uint32_t flip,
                      std::uint8_t* out);
void finish_packing_avx2();

}  // namespace octavo
