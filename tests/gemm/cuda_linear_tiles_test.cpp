// Weight-only products in every tile of Hopper's kernels, with the channels that fill 132 multiprocessors.
#include <array>
#include <cstdlib>
#include <initializer_list>

#include "cuda_linear.h"
#include "gemm/cuda/float_w_sm90.h"
#include "last_rounds.h"

namespace octavo {
namespace {

using Case = test::LinearCase;
using test::CudaLinear;

// Weights in groups, with so many channels that tiles of 128 to 256 tokens are chosen on 132 SMs.
TEST_F(CudaLinear, GroupsInLargeTiles) {
  Case c;
  c.N = 6144;
  c.K = 416;
  int turn = 0;
  for (const std::int64_t M : {200, 300, 500}) {
    for (const DType x : {DType::kFloat16, DType::kBFloat16}) {
      for (const bool packed : {true, false}) {
        for (const std::int64_t group : {32, 64}) {
          c.M = M;
          c.x = x;
          c.y = turn % 3 == 0 ? DType::kFloat32 : x;
          c.bits = packed ? 4 : 8;
          c.packed = packed;
          c.symmetric = turn % 4 < 2;
          c.group = group;
          if (turn % 5 == 0) c.bias = x;
          ++turn;
          check(c);
          if (HasFatalFailure()) return;
        }
      }
    }
  }
}

// The same where clusters divide K, in the middle of groups and of four groups, and where CTAs have several tiles.
TEST_F(CudaLinear, GroupsInDividedAndManyLargeTiles) {
  Case c;
  int turn = 0;
  for (const auto& [M, N, K] : {std::array<std::int64_t, 3>{129, 4360, 1280}, {193, 4460, 4032}, {130, 17005, 320}}) {
    for (const std::int64_t group : {32, 64, 96, 128}) {
      c.M = M;
      c.N = N;
      c.K = K;
      c.packed = turn % 2 == 0;
      c.bits = c.packed ? 4 : 8;
      c.symmetric = turn / 2 % 2 == 0;
      c.x = c.y = turn % 3 == 0 ? DType::kFloat16 : DType::kBFloat16;
      c.group = group;
      ++turn;
      check(c);
      if (HasFatalFailure()) return;
    }
  }
}

// Whole rounds of tiles, and a last one that clusters divide, on 132 SMs, of every size of tile; or one of narrow tiles.
TEST_F(CudaLinear, LastRoundsAreShort) {
  Case c;
  int turn = 0;
  const auto check_groups = [&](const test::TileProduct& round, std::initializer_list<std::int64_t> groups) {
    for (const std::int64_t group : groups) {
      c.M = round.M;
      c.N = round.N;
      c.K = round.K;
      c.group = group;
      c.x = turn / 3 % 2 == 0 ? DType::kFloat16 : DType::kBFloat16;
      c.y = turn % 4 == 0 ? DType::kFloat32 : c.x;
      c.packed = turn % 2 == 0;
      c.bits = c.packed ? 4 : 8;
      c.symmetric = turn % 5 < 3;
      c.bias.reset();
      if (turn % 2 == 0) c.bias = c.x;
      ++turn;
      check(c);
      if (HasFatalFailure()) return;
    }
  };
  for (const test::TileProduct& round : test::kDividedRounds) check_groups(round, {kPerChannel, 64});
  for (const test::TileProduct& round : test::kNarrowRounds) check_groups(round, {kPerChannel, 32, 64, 128});
  for (const test::TileProduct& tile : test::kChannelTiles) check_groups(tile, {kPerChannel, kPerTensor});
}

// Scales that x's type can hold, in every tile; and those held in 16 bits, which take fewer instructions where weights are
// rounded.
TEST_F(CudaLinear, ScalesOfXsType) {
  Case c;
  c.exact_scales = true;
  int turn = 0;
  for (const test::TileProduct& product : test::kRoundedTiles) {
    for (const std::int64_t group : {32, 64, 128}) {
      c.M = product.M;
      c.N = product.N;
      c.group = group;
      c.x = c.y = turn % 2 == 0 ? DType::kFloat16 : DType::kBFloat16;
      c.packed = turn / 2 % 2 == 0;
      c.bits = c.packed ? 4 : 8;
      c.symmetric = turn % 5 < 3;
      c.scale = c.packed && turn % 4 == 0 ? 9.0f : 0.004f;  // in fp16, those in float32 below 8 are taken 4096 times
      ++turn;
      for (const int K : {product.K, test::k_of_even_groups(group), test::k_of_whole_stages(group)}) {
        c.K = K;
        check(c);
        if (HasFatalFailure()) return;
      }
    }
  }
  for (const Kernel* row : rows_) EXPECT_TRUE(taken_[row] == 0 || short_scales_[row] > 0) << row->name;
}

// From some number of tokens on weights in groups are rounded, unless another row is forced; a forced one takes any number.
TEST_F(CudaLinear, RoundsWeightsInGroupsForManyTokens) {
  const std::string exact = "cuda_float_w4_sm90", rounded = "cuda_float_w4_rounded_sm90";
  Problem problem = {Op::kLinear, DType::kFloat16, DType::kInt4, {4, true, 128}, kFloatWSm90RoundedTokens, 512,
                     1024,        test::kGpu};
  if (!cuda::some_gpu({9, 0, true}).ok()) GTEST_SKIP() << "no Hopper GPU";
  EXPECT_EQ(select_kernel(problem)->kernel, rounded);
  setenv("OCTAVO_KERNEL", exact.c_str(), 1);
  EXPECT_EQ(select_kernel(problem)->kernel, exact);
  unsetenv("OCTAVO_KERNEL");
  problem.M -= 1;
  EXPECT_EQ(select_kernel(problem)->kernel, exact);
  problem.M = 1;
  setenv("OCTAVO_KERNEL", rounded.c_str(), 1);
  EXPECT_EQ(select_kernel(problem)->kernel, rounded);
  problem.format.group_size = kPerChannel;
  EXPECT_EQ(select_kernel(problem).status().code(), StatusCode::kUnsupported);
  unsetenv("OCTAVO_KERNEL");
  problem.M = 4096;
  EXPECT_EQ(select_kernel(problem)->kernel, exact);  // one scale a channel
}

}  // namespace
}  // namespace octavo
