// Which tile a weight-only product on Hopper takes.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "core/ceil_div.h"

namespace octavo::sm90 {

inline constexpr int kChannels = 128;  // of a tile: two warpgroups have 64 each
inline constexpr int kMostTokens = 256;

// Tiles of more than 128 tokens are of one kernel, whose loops for several numbers of them share everything else. Each takes
// registers from all others: for all multiples of 16 they suffice with one scale a channel, and where weights are rounded
// for five of them. (144 would take no less time than 160 there.)
constexpr bool is_large(int tokens) { return tokens > 128; }
constexpr bool is_made(int tokens, bool rounded) {
  if (!is_large(tokens)) return tokens == 32 || tokens == 64 || tokens == 128;
  return tokens <= kMostTokens && tokens % 16 == 0 && !(rounded && (tokens == 144 || tokens == 224 || tokens == 240));
}
// The next smaller large tile; 0: there is none.
constexpr int less_tokens(int tokens, bool rounded) {
  do tokens -= 16;
  while (is_large(tokens) && !is_made(tokens, rounded));
  return is_large(tokens) ? tokens : 0;
}
// The smallest tile of at least so many.
constexpr int made_tokens(int tokens, bool rounded) {
  while (!is_made(tokens, rounded)) ++tokens;
  return tokens;
}

// How y is divided: into tiles of so many tokens by kChannels, in columns of them along the channels, of which the last may
// be narrow: of fewer tokens each. CTAs have so many rounds of tiles for themselves. Those left over are taken by clusters
// of so many CTAs, which divide K: by one CTA each, or by more where so few are left that SMs would be idle.
struct FloatWTile {
  int tokens;
  int rounds;
  int cluster;
  int narrow_columns = 0, narrow_tokens = 0;
};

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
// near what ncu counts at a fixed clock. That of a tile that is not made is large.
class TileCost {
 public:
  TileCost(int tokens, int K, Scaling scaling) : tokens_(tokens), products_(of_64(tokens, scaling) * ceil_div(K, 64)) {}

  double whole() const { return products_ + end(); }
  // Of a tile that a cluster divides.
  double divided(int cluster) const {
    return products_ / cluster + end() + (cluster > 1 ? cluster * (400 + 10 * tokens_) : 0);
  }

 private:
  // Of 64 along K.
  static double of_64(int tokens, Scaling scaling) {
    constexpr double kSmall[][5] = {{355, 395, 520, 1e9, 1e9}, {415, 455, 610, 1e9, 1e9}, {565, 1e9, 1e9, 575, 610}};
    // Large tiles' products, or what a warp has to do for them.
    constexpr double kLeast[] = {0, 1e9, 1e9, 670, 690};
    const auto i = static_cast<std::size_t>(scaling);
    if (!is_large(tokens)) return kSmall[tokens <= 32 ? 0 : tokens <= 64 ? 1 : 2][i];
    return std::max(2 + 4.08 * tokens, kLeast[i]);
  }
  double end() const { return is_large(tokens_) ? 4700 : 300 + 17 * tokens_; }

  int tokens_;
  double products_;
};

// What that is for tiles of so many tokens in so many whole rounds: of many, the clock falls to what the power allows, and
// those for which less is copied go ahead.
constexpr double hot(int tokens, int rounds) {
  return rounds >= 5 && is_large(tokens) ? 1 + (kMostTokens - tokens) * 0.001 : 1;
}

// The tiles that take the least time.
inline FloatWTile choose(int M, int N, int K, Scaling scaling, int num_sms) {
  const int columns = ceil_div(N, kChannels);
  FloatWTile best = {};
  double least = 1e30;
  const auto consider = [&](const FloatWTile& tile, double cycles) {
    if (cycles < least) least = cycles, best = tile;
  };
  const bool rounded = scaling == Scaling::kRounded || scaling == Scaling::kRoundedShort;
  for (int tokens = 32; tokens <= kMostTokens; tokens += 16) {
    if (!is_made(tokens, rounded)) continue;
    const TileCost cost(tokens, K, scaling);
    const int in_column = ceil_div(M, tokens), tiles = in_column * columns;
    for (int cluster = 1; cluster <= std::min(4, num_sms); ++cluster) {
      const int ctas = num_sms / cluster * cluster, rounds = tiles / ctas, left = tiles % ctas;
      if (left > clusters_at_once(cluster, num_sms) || (rounds > 0 && cluster > 2)) continue;
      const double last = left > 0 ? cost.divided(cluster) : 0;
      consider({tokens, rounds, cluster}, (rounds * cost.whole() + last) * hot(tokens, rounds));
    }
    if (!is_large(tokens)) continue;
    // Wide columns fill `wide` rounds at most; the rest are narrow, of as few tokens as fit into `narrow` more.
    const int all_rounds = ceil_div(tiles, num_sms);
    for (int wide = std::max(1, all_rounds - 4); wide < all_rounds; ++wide) {
      const int wide_columns = wide * num_sms / in_column, narrow_columns = columns - wide_columns;
      if (wide_columns == 0 || narrow_columns <= 0) continue;
      const int idle = wide * num_sms - wide_columns * in_column;  // SMs of wide rounds
      for (int narrow = all_rounds - wide; narrow <= 4; ++narrow) {
        const int in_narrow = std::min((narrow * num_sms + idle) / narrow_columns, M);
        if (in_narrow <= in_column) continue;
        const int narrow_tokens = made_tokens(ceil_div(M, in_narrow), rounded);
        if (!is_large(narrow_tokens) || narrow_tokens >= tokens) continue;
        const int all = wide_columns * in_column + narrow_columns * ceil_div(M, narrow_tokens);
        const double cycles = wide * cost.whole() + narrow * TileCost(narrow_tokens, K, scaling).whole();
        consider({tokens, all / num_sms, 1, narrow_columns, narrow_tokens}, cycles * hot(tokens, wide + narrow - 1));
      }
    }
  }
  return best;
}

}  // namespace octavo::sm90
