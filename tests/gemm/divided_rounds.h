// Products whose last rounds the weight-only kernel of Hopper makes shorter, on the 132 SMs of an H100.
#pragma once

namespace octavo::test {

// K is such that a last stage, and a last group of 64 or 128, are not whole.
struct LastRound {
  int M, N, K, tokens;  // of the tile
};
// Clusters divide it: one for every tile.
inline constexpr LastRound kDividedRounds[] = {
    {30, 17021, 928, 32},   {60, 17024, 928, 64},    {120, 17021, 928, 128},  {150, 17024, 928, 160},
    {170, 17021, 928, 176}, {180, 17024, 1440, 192}, {200, 21245, 2976, 256},
};
// Some columns have narrow tiles.
inline constexpr LastRound kNarrowRounds[] = {
    {321, 11389, 416, 192}, {336, 11392, 416, 192}, {385, 12797, 416, 256}, {390, 12800, 416, 256}};

}  // namespace octavo::test
