// Which tile a weight-only product on Hopper takes.
#pragma once

#include <algorithm>
#include <cstdint>
#include <iterator>

namespace octavo::sm90 {

inline constexpr int kChannels = 128;  // of a tile: two warpgroups have 64 each

// Of tiles of so many tokens, of which some columns may be narrow: of so many tokens. 0: none may.
constexpr int narrow_tokens(int tokens) { return tokens == 256 ? 176 : tokens == 192 ? 160 : 0; }
// Those beside which narrow tiles of so many tokens stand, or as many.
constexpr int wide_tokens(int tokens) { return tokens == 176 ? 256 : tokens == 160 ? 192 : tokens; }

// How y is divided: into tiles of so many tokens by kChannels, in columns of them along the channels, of which the last may
// be narrow. CTAs have so many rounds of tiles for themselves. Those left over are taken by clusters of so many CTAs, which
// divide K: by one CTA each, or by more where so few are left that SMs would be idle.
struct FloatWTile {
  int tokens;
  int rounds;
  int cluster;
  int narrow_columns = 0;
};

inline int ceil_div(int a, int b) { return (a + b - 1) / b; }

// How many clusters of so many CTAs, each of which takes an SM, run at a time: 66, 39 and 30 of 2, 3 and 4 on the 132 SMs of
// an H200, whose clusters lie within groups of 16 or 18.
inline int clusters_at_once(int ctas, int num_sms) {
  constexpr int kPercent[] = {100, 100, 89, 91};
  return num_sms * kPercent[ctas - 1] / 100 / ctas;
}

// How the weights of groups are scaled. Short groups' scales change within 64 along K.
enum class Scaling : std::uint8_t {
  kChannels,  // there are no groups
  kSums,      // the sums of each group
  kSumsOfShort,
  kRounded,  // the weights, which are rounded then
  kRoundedShort,
};

// Cycles of an SM, of fp16 and scales of 16 bits: those of small tiles fitted to their times on an H100, those of large ones
// near what ncu counts at a fixed clock, some 3 % less, which makes the two comparable. Of many rounds the clock falls to
// what the power allows, and of large tiles those for which less is copied go ahead.
struct TileCost {
  int tokens;
  double cycles[5];  // of 64 along K, by Scaling; that of a tile that is not made is large

  double products(int K, Scaling scaling) const { return cycles[static_cast<int>(scaling)] * ceil_div(K, 64); }
  double end() const { return 300 + 17 * tokens; }
  double together(int cluster) const { return cluster > 1 ? cluster * (400 + 10 * tokens) : 0; }
};
inline constexpr TileCost kTileCosts[] = {
    {32, {355, 395, 520, 1e9, 1e9}},   {64, {415, 455, 610, 1e9, 1e9}},  {128, {520, 1e9, 1e9, 565, 590}},
    {160, {618, 1e9, 1e9, 668, 685}},  {176, {675, 1e9, 1e9, 706, 722}}, {192, {741, 1e9, 1e9, 745, 765}},
    {256, {983, 1e9, 1e9, 990, 1005}},
};
// What that is for tiles of so many tokens in so many whole rounds.
constexpr double hot(int tokens, int rounds) { return rounds >= 5 && tokens > 128 && tokens < 256 ? 1.06 : 1; }
constexpr const TileCost& cost_of(int tokens) {
  return *std::find_if(std::begin(kTileCosts), std::end(kTileCosts), [&](const TileCost& c) { return c.tokens == tokens; });
}

// The tiles that take the least time.
inline FloatWTile choose(int M, int N, int K, Scaling scaling, int num_sms) {
  const int columns = ceil_div(N, kChannels);
  FloatWTile best = {};
  double least = 1e30;
  const auto consider = [&](const FloatWTile& tile, double cycles) {
    if (cycles < least) least = cycles, best = tile;
  };
  for (const TileCost& cost : kTileCosts) {
    const double products = cost.products(K, scaling), whole = products + cost.end();
    const int in_column = ceil_div(M, cost.tokens), tiles = in_column * columns;
    for (int cluster = 1; cluster <= std::min(4, num_sms); ++cluster) {
      const int ctas = num_sms / cluster * cluster, rounds = tiles / ctas, left = tiles % ctas;
      if (left > clusters_at_once(cluster, num_sms) || (rounds > 0 && cluster > 2)) continue;
      const double last = left > 0 ? products / cluster + cost.end() + cost.together(cluster) : 0;
      consider({cost.tokens, rounds, cluster}, (rounds * whole + last) * hot(cost.tokens, rounds));
    }
    const int narrow_tile = narrow_tokens(cost.tokens);
    if (narrow_tile == 0) continue;
    // Wide columns fill `wide` rounds at most; the rest are narrow, and must fit into `narrow` more.
    const TileCost& narrow_cost = cost_of(narrow_tile);
    const double narrow_whole = narrow_cost.products(K, scaling) + narrow_cost.end();
    const int all_rounds = ceil_div(tiles, num_sms), in_narrow = ceil_div(M, narrow_tile);
    for (int narrow = 1; narrow <= 4; ++narrow) {
      for (int wide = std::max(1, all_rounds - narrow); wide < all_rounds; ++wide) {
        const int narrow_columns = columns - wide * num_sms / in_column;
        const int all = (columns - narrow_columns) * in_column + narrow_columns * in_narrow;
        if (narrow_columns <= 0 || narrow_columns == columns || all > (wide + narrow) * num_sms) continue;
        const double cycles = wide * whole + narrow * narrow_whole;
        consider({cost.tokens, all / num_sms, 1, narrow_columns}, cycles * hot(cost.tokens, wide + narrow - 1));
      }
    }
  }
  return best;
}

}  // namespace octavo::sm90
