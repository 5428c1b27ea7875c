// Which tile a weight-only product on Hopper takes.
#pragma once

#include <algorithm>
#include <cstdint>

namespace octavo::sm90 {

inline constexpr int kChannels = 128;  // of a tile: two warpgroups have 64 each

// How y is divided: into tiles of so many tokens by kChannels. CTAs have so many rounds of them for themselves. Those left
// over are taken by clusters of so many CTAs, which divide K: by one CTA each, or by more where so few are left that SMs
// would be idle.
struct FloatWTile {
  int tokens;
  int rounds;
  int cluster;
};

inline int ceil_div(int a, int b) { return (a + b - 1) / b; }

// How many clusters of so many CTAs, each of which takes an SM, run at a time: 66, 39 and 30 of 2, 3 and 4 on the 132 SMs of
// an H200, whose clusters lie within groups of 16 or 18.
inline int clusters_at_once(int ctas, int num_sms) {
  constexpr int kPercent[] = {100, 100, 89, 91};
  return num_sms * kPercent[ctas - 1] / 100 / ctas;
}

// How the weights of groups are scaled.
enum class Scaling : std::uint8_t {
  kChannels,  // there are no groups
  kSums,      // the sums of each group
  kRounded,   // the weights, which are rounded then
};

// The tile that takes the least time, in cycles of an SM. Fitted to every tile's and division's times on an H200,
// those with rounded weights on an H100.
inline FloatWTile choose(int M, int N, int K, Scaling scaling, int num_sms) {
  struct Cost {
    int tokens;
    double cycles[3];  // of 64 along K, by Scaling; that of a tile that is not made is large
  };
  constexpr Cost kCosts[] = {{32, {320, 390, 1e9}},
                             {64, {400, 450, 1e9}},
                             {128, {600, 1e9, 750}},
                             {192, {810, 1e9, 925}},
                             {256, {1060, 1e9, 1060}}};
  FloatWTile best = {};
  double least = 1e30;
  for (const Cost& cost : kCosts) {
    const double products = cost.cycles[static_cast<int>(scaling)] * ceil_div(K, 64), end = 1500 + 18 * cost.tokens;
    const int tiles = ceil_div(M, cost.tokens) * ceil_div(N, kChannels);
    for (int cluster = 1; cluster <= std::min(4, num_sms); ++cluster) {
      const int ctas = num_sms / cluster * cluster, rounds = tiles / ctas, left = tiles % ctas;
      if (left > clusters_at_once(cluster, num_sms) || (rounds > 0 && cluster > 2)) continue;
      const double together = cluster > 1 ? cluster * (100 + 5 * cost.tokens) : 0;
      const double last = left > 0 ? products / cluster + end + together : 0;
      const double cycles = rounds * (products + end) + last;
      if (cycles < least) least = cycles, best = {cost.tokens, rounds, cluster};
    }
  }
  return best;
}

}  // namespace octavo::sm90
