// Products for every tile of the weight-only kernel of Hopper, on the 132 SMs of an H100.
#pragma once

#include <cstdint>

namespace octavo::test {

// K is such that a last stage, and a last group of 64 or 128, are not whole.
struct TileProduct {
  int M, N, K, tokens;  // of the tile
};
// Clusters divide the last round.
inline constexpr TileProduct kDividedRounds[] = {
    {30, 17021, 928, 32},    {60, 17024, 928, 64},    {120, 17021, 928, 128},  {150, 17024, 928, 160},
    {170, 17021, 1440, 176}, {180, 17024, 2976, 192}, {200, 21245, 1440, 208}, {256, 21245, 5920, 256},
};
// Some columns have narrow tiles.
inline constexpr TileProduct kNarrowRounds[] = {
    {481, 12797, 416, 256}, {490, 12800, 416, 256}, {385, 12797, 416, 208}, {530, 17021, 416, 192}};
// Tiles of weights with one scale a channel that rounded ones have not.
inline constexpr TileProduct kChannelTiles[] = {{140, 12800, 416, 144}, {220, 12800, 416, 224}, {235, 12800, 416, 240}};
// Tiles of rounded weights, of more blocks along K than the ring holds.
inline constexpr TileProduct kRoundedTiles[] = {{100, 392, 800, 128},   {250, 6144, 800, 128},  {300, 6144, 800, 160},
                                                {330, 6144, 800, 176},  {180, 12800, 800, 192}, {390, 6144, 800, 208},
                                                {250, 12800, 800, 256}, {385, 12797, 800, 208}};
// Their K for which groups are an even number, as those with scales of 16 bits are; a last stage, and a last group of 64 or
// 128, are not whole here either.
constexpr int k_of_even_groups(std::int64_t group) { return group == 32 ? 832 : 736; }
// And those where stages are whole too, but rows of scales do not begin at multiples of 16 bytes.
constexpr int k_of_whole_stages(std::int64_t group) { return group == 128 ? 768 : 896; }

}  // namespace octavo::test
