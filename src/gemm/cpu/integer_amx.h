// scaled_mm and linear_w4a8 on packed weights with the tiles of AMX-INT8, for many rows of x.
#pragma once

#include "gemm/arguments.h"

namespace octavo {

// Below so many rows the tiles are mostly empty, and VPDPBUSD is as fast.
inline constexpr std::int64_t kAmxMinRows = 16;
inline constexpr std::int64_t kAmxMinGroupedRows = 64;  // W4A8: scaling each group's sums costs more from memory
// W4A8 takes groups that are whole tiles along K.
inline constexpr std::int64_t kAmxGroupMultiple = 64;

void cpu_s8_w8_amx(const Arguments& a, Parallel& parallel);
void cpu_s8g_w4_amx(const Arguments& a, Parallel& parallel);

}  // namespace octavo
