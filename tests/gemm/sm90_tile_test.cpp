// Which tile the weight-only kernel of Hopper takes.
#include <gtest/gtest.h>

#include "core/ceil_div.h"
#include "gemm/cuda/float_w_sm90_tile.h"
#include "last_rounds.h"

namespace octavo {
namespace {

using sm90::choose;
using sm90::FloatWTile;
using sm90::Scaling;

int tiles(int M, int N, const FloatWTile& tile) {
  const int wide = ceil_div(N, sm90::kChannels) - tile.narrow_columns;
  const int narrow = tile.narrow_columns > 0 ? ceil_div(M, tile.narrow_tokens) : 0;
  return ceil_div(M, tile.tokens) * wide + narrow * tile.narrow_columns;
}

// All tiles are taken, by clusters that run at a time.
TEST(Sm90Tile, RoundsAndClustersTakeAllTiles) {
  for (const int sms : {1, 2, 3, 7, 16, 78, 114, 131, 132}) {
    for (const Scaling scaling :
         {Scaling::kChannels, Scaling::kSums, Scaling::kSumsOfShort, Scaling::kRounded, Scaling::kRoundedShort}) {
      for (const int M : {1, 33, 100, 512, 1024, 3000, 100000}) {
        for (const int N : {1, 4096, 11008, 14336, 17005, 128256}) {
          for (const int K : {32, 416, 4096}) {
            const FloatWTile t = choose(M, N, K, scaling, sms);
            ASSERT_GT(t.tokens, 0) << sms << ' ' << M << ' ' << N << ' ' << K;
            const bool rounded = scaling == Scaling::kRounded || scaling == Scaling::kRoundedShort;
            EXPECT_TRUE(sm90::is_made(t.tokens, rounded));
            EXPECT_TRUE(t.narrow_columns == 0 || (t.narrow_tokens < t.tokens && t.cluster == 1));
            EXPECT_TRUE(t.narrow_columns == 0 ||
                        (sm90::is_large(t.narrow_tokens) && sm90::is_made(t.narrow_tokens, rounded)));
            EXPECT_LT(t.narrow_columns, ceil_div(N, sm90::kChannels));
            const int left = tiles(M, N, t) - t.rounds * (sms / t.cluster * t.cluster);
            EXPECT_GE(left, t.cluster > 1 ? 1 : 0);
            EXPECT_LE(left, sm90::clusters_at_once(t.cluster, sms));
            EXPECT_TRUE(t.rounds == 0 || t.cluster <= 2);
          }
        }
      }
    }
  }
}

TEST(Sm90Tile, LastRoundsAreShort) {
  const auto expect = [](const FloatWTile& found, const FloatWTile& expected) {
    EXPECT_EQ(found.tokens, expected.tokens);
    EXPECT_EQ(found.rounds, expected.rounds);
    EXPECT_EQ(found.cluster, expected.cluster);
    EXPECT_EQ(found.narrow_columns, expected.narrow_columns);
    EXPECT_EQ(found.narrow_tokens, expected.narrow_tokens);
  };
  expect(choose(64, 4096, 4096, Scaling::kChannels, 132), {64, 0, 3});     // 32 tiles
  expect(choose(200, 17024, 4096, Scaling::kRounded, 132), {208, 1, 2});   // 133: one is left
  expect(choose(1024, 4096, 4096, Scaling::kChannels, 132), {256, 0, 1});  // 128
  expect(choose(512, 11008, 4096, Scaling::kChannels, 132), {176, 1, 1});  // 258, two a CTA
  // 344 wide ones would be 2.6 rounds. 264 and 120 narrow ones are two rounds and a shorter one.
  expect(choose(1024, 11008, 4096, Scaling::kChannels, 132), {256, 2, 1, 20, 176});
  // And 3.4 rounds of wide ones one, and three of narrow ones.
  expect(choose(1024, 14336, 4096, Scaling::kRounded, 132), {256, 3, 1, 79, 208});
}

// What the GPU's tests count on.
TEST(Sm90Tile, LastRoundsOfTests) {
  for (const auto& [M, N, K, tokens] : test::kDividedRounds) {
    for (const Scaling scaling : {Scaling::kChannels, M < 65 ? Scaling::kSums : Scaling::kRounded}) {
      const FloatWTile t = choose(M, N, K, scaling, 132);
      EXPECT_EQ(t.tokens, tokens) << M;
      EXPECT_GT(t.rounds, 0) << M;
      EXPECT_EQ(t.cluster, 2) << M;
    }
  }
  for (const auto& [M, N, K, tokens] : test::kRoundedTiles) {
    for (const Scaling scaling : {Scaling::kRounded, Scaling::kRoundedShort}) {
      EXPECT_EQ(choose(M, N, K, scaling, 132).tokens, tokens) << M;
      for (const std::int64_t group : {32, 64, 128}) {
        EXPECT_EQ(choose(M, N, test::k_of_even_groups(group), scaling, 132).tokens, tokens) << M;
        EXPECT_EQ(choose(M, N, test::k_of_whole_stages(group), scaling, 132).tokens, tokens) << M;
      }
    }
  }
  for (const auto& [M, N, K, tokens] : test::kChannelTiles) {
    EXPECT_EQ(choose(M, N, K, Scaling::kChannels, 132).tokens, tokens) << M;
  }
  for (const Scaling scaling : {Scaling::kRounded, Scaling::kRoundedShort}) {
    const FloatWTile t = choose(193, 4460, 4032, scaling, 132);  // a part of K begins within a group of 128
    EXPECT_GT(t.tokens, 128);
    EXPECT_EQ(ceil_div(4032 / 64, t.cluster) % 2, 1);
    EXPECT_GT(t.cluster, 1);
  }
  for (const auto& [M, N, K, tokens] : test::kNarrowRounds) {
    for (const Scaling scaling : {Scaling::kChannels, Scaling::kRounded, Scaling::kRoundedShort}) {
      const FloatWTile t = choose(M, N, K, scaling, 132);
      EXPECT_EQ(t.tokens, tokens) << M;
      EXPECT_GT(t.narrow_columns, 0) << M;
    }
  }
}

}  // namespace
}  // namespace octavo
