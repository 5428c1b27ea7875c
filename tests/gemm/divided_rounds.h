// Products whose last round clusters divide on the 132 SMs of an H100, one for every tile of the weight-only kernel of
// Hopper.
#pragma once

namespace octavo::test {

struct DividedRound {
  int M, N, tokens;  // of the tile
};
inline constexpr int kDividedK = 416;  // a last stage, and a last group of 64 or 128, that are not whole
inline constexpr DividedRound kDividedRounds[] = {{30, 17005, 32},   {60, 17024, 64},   {120, 17005, 128},
                                                  {180, 17024, 192}, {386, 19060, 256}, {386, 19072, 256}};

}  // namespace octavo::test
