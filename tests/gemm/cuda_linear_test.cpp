// Every CUDA row of the kernel table for weight-only products against sums in fp64, with the bounds of docs/numerics.md,
// over awkward shapes, strides, addresses and every format.
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstdlib>
#include <iostream>
#include <map>
#include <optional>

#include "core/cuda.h"
#include "device_memory.h"
#include "exact_linear.h"
#include "gemm/check.h"
#include "gemm/cuda/float_w_sm90.h"
#include "gemm/kernels.h"
#include "gemm/reference.h"
#include "last_rounds.h"
#include "matrix.h"
#include "quantize/reference.h"

namespace octavo {
namespace {

using test::DeviceMatrix;
using test::Exact;
using test::Matrix;
using test::Quantized;
using test::random_float;
using test::tiny;
using test::unit;

constexpr Device kGpu = {DeviceType::kCuda, 0};
constexpr DType kFloats[] = {DType::kFloat32, DType::kFloat16, DType::kBFloat16};

struct Case {
  std::int64_t M = 0, N = 0, K = 0;
  int bits = 8;
  bool symmetric = true;
  bool packed = false;
  std::int64_t group = kPerChannel;
  DType x = DType::kBFloat16, y = DType::kBFloat16;
  std::optional<DType> bias;
  float scale = 0;                                        // that of every group is up to twice this; 0: as quantized
  std::int64_t exact_run = 0;                             // so many weights' scales are of x's type, the next ones' are not
  std::int64_t x_gap = 0, w_gap = 0, y_gap = 0;           // elements from the end of a row to the next
  std::int64_t x_offset = 0, w_offset = 0, y_offset = 0;  // bytes
};

std::ostream& operator<<(std::ostream& out, const Case& c) {
  return out << "M=" << c.M << " N=" << c.N << " K=" << c.K << ' ' << c.bits << " bits" << (c.packed ? " two a byte" : "")
             << (c.symmetric ? "" : " with zero points") << " groups of " << c.group << ", " << to_string(c.x) << " to "
             << to_string(c.y) << " bias " << (c.bias ? to_string(*c.bias) : "none") << " scale " << c.scale << " exact "
             << c.exact_run << " gaps " << c.x_gap << ',' << c.w_gap << ',' << c.y_gap << " offsets " << c.x_offset << ','
             << c.w_offset << ',' << c.y_offset;
}

// Whether a row rounds weights to x's type before it multiplies them.
bool rounds_weights(const Kernel& row) { return row.name.find("_rounded_") != std::string_view::npos; }

class CudaLinear : public testing::Test {
 protected:
  void SetUp() override {
    if (const Status ready = cuda::ready(kGpu); !ready.ok()) GTEST_SKIP() << ready.message();
    for (const Kernel& kernel : kernel_table()) {
      if (kernel.device != DeviceType::kCuda || kernel.op != Op::kLinear) continue;
      if (const Status usable = kernel.usable(); usable.ok()) {
        rows_.push_back(&kernel);
      } else {
        std::cout << kernel.name << ": " << usable.message() << '\n';
      }
    }
    ASSERT_FALSE(rows_.empty());
  }

  void TearDown() override {
    for (const Kernel* row : rows_) {
      std::cout << row->name << " took " << taken_[row] << " of " << cases_ << " products, and " << short_scales_[row]
                << " with scales of 16 bits\n";
    }
  }

  // The operands of a case on the host; a product of all rows that take it, twice each, and what they may differ by.
  void check(const Case& c) {
    ++cases_;
    const auto seed = static_cast<std::uint32_t>(cases_);
    const WeightFormat format = {c.bits, c.symmetric, c.group};
    Quantized w(format, c.N, c.K, c.packed);
    ASSERT_TRUE(quantize(random_float(DType::kFloat32, c.N, c.K, seed).view(), {}, w.mut()).ok()) << c;
    if (c.scale != 0) set_scales(c, seed, w);
    const Matrix x = random_float(c.x, c.M, c.K, seed + 1);
    const Matrix bias = c.bias ? random_float(*c.bias, 1, c.N, seed + 2) : Matrix();
    Matrix found(c.y, c.M, c.N), again(c.y, c.M, c.N);
    Arguments a = {x.view(), {}, w.view(), c.bias ? bias.view() : MatrixView(), found.mut()};
    const Exact exact(a, *pool_);

    const DeviceMatrix dx(x.view(), c.x_gap, c.x_offset), dq(w.q.view(), c.w_gap, c.w_offset), ds(w.scale.view()),
        dz(w.zero_point.view());
    std::optional<DeviceMatrix> db;
    if (c.bias) db.emplace(bias.view());
    a.x = dx.view();
    a.w = {format, dq.view(), ds.view(), c.symmetric ? MatrixView() : dz.view()};
    if (c.bias) a.bias = db->view();
    for (const Kernel* row : rows_) {
      DeviceMatrix y(c.y, c.M, c.N, c.y_gap, c.y_offset);
      a.y = y.mut();
      ASSERT_TRUE(check_linear(a).ok()) << check_linear(a).message() << ' ' << c;
      if (!row->refuses(problem_of(Op::kLinear, a)).empty()) continue;
      if (row->name.ends_with("_reference") && c.M * c.N * c.K > std::int64_t{1} << 26) continue;
      ++taken_[row];
      for (Matrix* out : {&found, &again}) {
        a.constant_w = out == &again;
        const Status status = run_kernel(*row, a, serial());
        ASSERT_TRUE(status.ok()) << row->name << ' ' << c << ": " << status.message();
        ASSERT_TRUE(y.download(out->mut())) << row->name << " wrote outside y: " << c;
      }
      ASSERT_TRUE(found == again) << row->name << " gives other bits the second time: " << c;
      compare(*row, c, exact, found.view());
      if (HasFatalFailure()) return;
    }
    check_short_scales(c, a, w);
  }

  // Scales of x's type, held as such, give the same bits as in float32.
  void check_short_scales(const Case& c, Arguments a, const Quantized& w) {
    Matrix widened(DType::kFloat32, w.scale.view().rows, w.scale.view().cols);
    Matrix shortened(c.x, widened.view().rows, widened.view().cols);
    for (std::int64_t n = 0; n < widened.view().rows; ++n) {
      for (std::int64_t g = 0; g < widened.view().cols; ++g) {
        shortened.set(n, g, reference::element(w.scale.view(), n, g));
        widened.set(n, g, reference::element(shortened.view(), n, g));
      }
    }
    const DeviceMatrix in_float32(widened.view()), in_16_bits(shortened.view());
    a.w.scale = in_16_bits.view();
    if (c.x == DType::kFloat32 || !takes_scales(a.w, c.x).ok()) return;
    Matrix expected(c.y, c.M, c.N), found(c.y, c.M, c.N);
    for (const Kernel* row : rows_) {
      DeviceMatrix y(c.y, c.M, c.N, c.y_gap, c.y_offset);
      a.y = y.mut();
      if (!row->refuses(problem_of(Op::kLinear, a)).empty()) continue;
      if (row->name.ends_with("_reference") && c.M * c.N * c.K > std::int64_t{1} << 26) continue;
      ++short_scales_[row];
      a.w.scale = in_float32.view();
      ASSERT_TRUE(run_kernel(*row, a, serial()).ok() && y.download(expected.mut())) << row->name << ' ' << c;
      a.w.scale = in_16_bits.view();
      const Status status = run_kernel(*row, a, serial());
      ASSERT_TRUE(status.ok()) << row->name << ' ' << c << ": " << status.message();
      ASSERT_TRUE(y.download(found.mut()) && found == expected) << row->name << " with scales of 16 bits: " << c;
    }
  }

  // Scales with all bits of fp32, or those of x's type, and every zero point.
  static void set_scales(const Case& c, std::uint32_t seed, Quantized& w) {
    std::mt19937 random(seed);
    const std::int64_t zero_points = std::int64_t{1} << w.format.num_bits;
    for (std::int64_t n = 0; n < w.scale.view().rows; ++n) {
      for (std::int64_t g = 0; g < w.scale.view().cols; ++g) {
        const float scale = c.scale * (1 + static_cast<float>(random()) * 0x1p-32f);
        const bool exact = c.exact_run > 0 && g * c.group / c.exact_run % 2 == 0;
        w.scale.set(n, g, exact ? static_cast<float>(test::rounded(scale, c.x)) : scale);
        if (!w.format.symmetric) {
          w.zero_point.mut().row<std::uint8_t>(n)[g] = static_cast<std::uint8_t>((n + g * 5) % zero_points);
        }
      }
    }
  }

  static void compare(const Kernel& row, const Case& c, const Exact& exact, const MatrixView& y) {
    const bool rounds = rounds_weights(row);
    const double u = unit(c.y), u_x = unit(c.x);
    const double terms = 0x1p-23 * (static_cast<double>(c.K) / 16 + 8) + (rounds ? u_x * (1 + u + u_x) : 0);
    const double subnormal = rounds && c.x == DType::kFloat16 ? 0x1p-24 : 0;
    double squared = 0, rounded_squared = 0;
    Matrix once(c.y, 1, 1);
    for (std::int64_t m = 0; m < c.M; ++m) {
      for (std::int64_t n = 0; n < c.N; ++n) {
        const auto at = static_cast<std::size_t>(m * c.N + n);
        const double value = exact.value[at];
        const double error = std::fabs(static_cast<double>(reference::element(y, m, n)) - value);
        const double bound = u * std::fabs(value) + terms * exact.magnitude[at] +
                             subnormal * exact.x_magnitude[static_cast<std::size_t>(m)] + tiny(c.y);
        ASSERT_LE(error, bound) << row.name << " at [" << m << ", " << n << "] of " << c;
        once.set(0, 0, static_cast<float>(rounds ? exact.of_rounded[at] : value));
        squared += error * error;
        rounded_squared += std::pow(static_cast<double>(reference::element(once.view(), 0, 0)) - value, 2);
      }
    }
    if (c.y == DType::kFloat32 || c.M * c.N < 1000) return;  // too few for a mean
    ASSERT_LE(std::sqrt(squared), 1.05 * std::sqrt(rounded_squared)) << row.name << ' ' << c;
  }

  std::vector<const Kernel*> rows_;
  std::map<const Kernel*, int> taken_, short_scales_;
  int cases_ = 0;
  std::unique_ptr<Parallel> pool_ = make_thread_pool();
};

std::int64_t gap_to_sixteen_bytes(DType dtype, std::int64_t cols) {
  std::int64_t gap = 0;
  while (row_bytes(dtype, cols) + row_bytes(dtype, gap) < (row_bytes(dtype, cols) + 15) / 16 * 16) ++gap;
  return gap;
}

// Turns of everything that a case can vary in; shapes come from the caller.
class Turns {
 public:
  Case next(std::int64_t M, std::int64_t N, std::int64_t K, bool aligned) {
    constexpr std::int64_t kGroups[] = {kPerChannel, 128, 32, kPerTensor, 64, 96, 7, 160, 256};
    constexpr int kBits[] = {8, 4, 8, 4, 3, 6, 4};
    constexpr std::int64_t kOffsets[] = {0, 16, 0, 4, 0, 8}, kGaps[] = {0, 8, 1, 16, 3};
    Case c;
    c.M = M;
    c.N = N;
    c.K = K;
    const auto pick = [&](const auto& values) { return values[random_() % std::size(values)]; };
    c.bits = pick(kBits);
    c.packed = c.bits <= 4 && random_() % 4 != 0;
    c.symmetric = random_() % 2 == 0;
    c.group = pick(kGroups);
    if (c.packed && c.group == 7) c.group = 32;  // would begin in the middle of a byte
    c.x = aligned ? kFloats[1 + random_() % 2] : pick(kFloats);
    c.y = pick(kFloats);
    if (random_() % 2 == 0) c.bias = pick(kFloats);
    c.y_gap = random_() % 2 == 0 ? gap_to_sixteen_bytes(c.y, N) : pick(kGaps);
    c.y_offset = random_() % 2 == 0 ? 0 : pick(kOffsets);
    c.x_gap = aligned ? gap_to_sixteen_bytes(c.x, K) : pick(kGaps);
    c.w_gap = aligned ? gap_to_sixteen_bytes(storage_dtype({c.bits, c.symmetric, c.group}, c.packed), K) : pick(kGaps) * 2;
    if (!aligned) c.x_offset = pick(kOffsets);
    if (!aligned) c.w_offset = pick(kOffsets);
    return c;
  }

 private:
  std::mt19937 random_{11};
};

TEST_F(CudaLinear, AwkwardShapes) {
  Turns turns;
  for (const std::int64_t M : {0, 1, 2, 7, 8, 9, 16, 17, 31, 33, 64, 65, 127, 129, 257}) {
    for (const std::int64_t N : {1, 3, 8, 16, 63, 65, 128, 129, 200, 321}) {
      for (const std::int64_t K : {1, 15, 16, 33, 64, 96, 130, 272, 515}) {
        check(turns.next(M, N, K, true));
        if (!HasFatalFailure() && (M + N + K) % 3 == 0) check(turns.next(M, N, K, false));
        if (HasFatalFailure()) return;
      }
    }
  }
}

// Every format with both types of x, from few tokens to many.
TEST_F(CudaLinear, EveryFormat) {
  Case c;
  for (const std::int64_t M : {1, 5, 16, 24, 48, 100, 200}) {
    for (const DType x : {DType::kFloat16, DType::kBFloat16}) {
      for (const int bits : {8, 4}) {
        for (const bool packed : {false, true}) {
          if (packed && bits > 4) continue;
          for (const bool symmetric : {true, false}) {
            for (const std::int64_t group : {kPerTensor, kPerChannel, std::int64_t{32}, std::int64_t{64}, std::int64_t{96},
                                             std::int64_t{128}, std::int64_t{384}}) {
              c.M = M;
              c.N = 264;
              c.K = 1184;
              c.x = c.y = x;
              c.bits = bits;
              c.packed = packed;
              c.symmetric = symmetric;
              c.group = group;
              check(c);
              if (HasFatalFailure()) return;
            }
          }
        }
      }
    }
  }
}

// Few tokens with short groups, whose scales are copied four at a time (their number is a multiple of four) or one by one.
TEST_F(CudaLinear, FewTokensWithShortGroups) {
  Case c;
  c.N = 264;
  int turn = 0;
  for (const std::int64_t K : {1024, 640, 480, 1184, 16640}) {
    for (const std::int64_t M : {1, 2, 3, 4, 5, 8, 16}) {
      for (const bool packed : {true, false}) {
        for (const std::int64_t group : {32, 64}) {
          for (const bool symmetric : {true, false}) {
            c.M = M;
            c.K = K;
            c.x = c.y = turn / 8 % 2 == 0 ? DType::kFloat16 : DType::kBFloat16;
            c.bits = packed ? 4 : 8;
            c.packed = packed;
            c.symmetric = symmetric;
            c.group = group;
            ++turn;
            check(c);
            if (HasFatalFailure()) return;
          }
        }
      }
    }
  }
}

// Shapes of models, at which some numbers of rows choose small tiles and every division of K.
TEST_F(CudaLinear, ShapesOfModels) {
  Case c;
  int turn = 0;
  for (const auto& [N, K] : {std::pair{4096, 1024}, {1536, 576}, {576, 1536}, {512, 14336}, {6144, 512}}) {
    for (const std::int64_t M : {1, 4, 16, 17, 32, 64, 96, 128, 256, 512, 1000}) {
      if (M * N * K > std::int64_t{1} << 30) continue;
      c.M = M;
      c.N = N;
      c.K = K;
      c.bits = turn % 2 == 0 ? 8 : 4;
      c.packed = c.bits == 4;
      c.group = turn % 3 == 0 ? kPerChannel : turn % 3 == 1 ? 128 : 32;
      c.symmetric = turn % 4 < 2;
      c.x = c.y = turn % 5 < 3 ? DType::kBFloat16 : DType::kFloat16;
      ++turn;
      check(c);
      if (HasFatalFailure()) return;
    }
  }
}

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
  for (const auto& [M, N, K] : {std::array<std::int64_t, 3>{129, 4360, 1280}, {193, 5100, 2816}, {130, 17005, 320}}) {
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
}

// Scales that x's type can hold, which take fewer instructions where weights are rounded: all, and some stages', in every
// tile.
TEST_F(CudaLinear, ScalesOfXsType) {
  Case c;
  int turn = 0;
  for (const test::TileProduct& product : test::kRoundedTiles) {
    for (const std::int64_t group : {32, 64, 128}) {
      c.M = product.M;
      c.N = product.N;
      c.K = product.K;
      c.group = group;
      c.x = c.y = turn % 2 == 0 ? DType::kFloat16 : DType::kBFloat16;
      c.packed = turn / 2 % 2 == 0;
      c.bits = c.packed ? 4 : 8;
      c.symmetric = turn % 5 < 3;
      c.scale = c.packed && turn % 4 == 0 ? 9.0f : 0.004f;  // in fp16, those below 8 are taken 4096 times
      c.exact_run = turn % 3 == turn / 3 % 3 ? c.K : 256;
      ++turn;
      check(c);
      if (HasFatalFailure()) return;
    }
  }
}

// Scales that x's type cannot hold, small ones whose weights are subnormal in fp16, and large ones.
TEST_F(CudaLinear, ScalesOfAnySize) {
  Case c;
  c.N = 136;
  c.K = 416;  // ends within a stage, and within a group of 64 or 128
  for (const float scale : {1e-7f, 1e-6f, 2e-5f, 4e-4f, 3e-3f, 0.3f, 5.0f, 50.0f, 100.0f}) {
    for (const DType x : {DType::kFloat16, DType::kBFloat16}) {
      for (const bool packed : {false, true}) {
        for (const bool symmetric : {true, false}) {
          for (const std::int64_t group : {32, 64, 96, 128}) {
            for (const std::int64_t M : {3, 150, 257}) {
              c.M = M;
              c.x = x;
              c.y = scale > 1e-3f && scale < 1 ? x : DType::kFloat32;
              c.bits = packed ? 4 : 8;
              c.packed = packed;
              c.symmetric = symmetric;
              c.group = group;
              c.scale = scale;
              check(c);
              if (HasFatalFailure()) return;
            }
          }
        }
      }
    }
  }
}

// From some number of tokens on weights in groups are rounded, unless another row is forced; a forced one takes any number.
TEST_F(CudaLinear, RoundsWeightsInGroupsForManyTokens) {
  const std::string exact = "cuda_float_w4_sm90", rounded = "cuda_float_w4_rounded_sm90";
  Problem problem = {Op::kLinear, DType::kFloat16, DType::kInt4, {4, true, 128}, kFloatWSm90RoundedTokens, 512, 1024, kGpu};
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

// Enough channels that every multiprocessor has a tile of any size, and not a whole number of tiles: formats, strides and
// addresses in turns, at each tile's number of tokens.
TEST_F(CudaLinear, ManyChannels) {
  Turns turns;
  for (const std::int64_t M : {20, 40, 70, 130}) {
    for (const std::int64_t K : {96, 224}) {
      for (const bool aligned : {true, true, true, false}) {
        check(turns.next(M, 17005, aligned ? K : K + 3, aligned));
        if (HasFatalFailure()) return;
      }
    }
  }
}

// One product alone an element, at the ends of the ranges: conversions are exact, and nothing is added.
TEST_F(CudaLinear, IsExactWhereOneProductIs) {
  constexpr std::int64_t K = 256, N = 256, M = 40;
  for (const DType x_dtype : {DType::kFloat16, DType::kBFloat16}) {
    for (const bool packed : {false, true}) {
      for (const auto& [symmetric, group] :
           {std::pair{true, kPerChannel}, {false, kPerChannel}, {true, std::int64_t{64}}, {false, std::int64_t{32}}}) {
        Quantized w({packed ? 4 : 8, symmetric, group}, N, K, packed);
        for (std::int64_t n = 0; n < N; ++n) {
          for (std::int64_t k = 0; k < w.q.view().stride; ++k) {
            w.q.mut().row<std::uint8_t>(n)[k] = static_cast<std::uint8_t>(packed ? (n + k) * 17 : n + k);
          }
          for (std::int64_t g = 0; g < w.scale.view().cols; ++g) {
            w.scale.set(n, g, g % 2 == 0 ? 0.5f : 0.25f);
            if (symmetric) continue;
            // Of nibbles also those above their range, as far as every conversion holds them.
            w.zero_point.mut().row<std::uint8_t>(n)[g] = static_cast<std::uint8_t>(packed ? (n + g) % 64 : n + g);
          }
        }
        Matrix x(x_dtype, M, K);
        for (std::int64_t m = 0; m < M; ++m) {
          for (std::int64_t k = 0; k < K; ++k) x.set(m, k, k == (m * 37) % K ? 2.0f : 0.0f);
        }
        const DeviceMatrix dx(x.view()), dq(w.q.view()), ds(w.scale.view()), dz(w.zero_point.view());
        for (const Kernel* row : rows_) {
          Matrix found(DType::kFloat32, M, N);
          DeviceMatrix y(DType::kFloat32, M, N);
          const Arguments a = {
              dx.view(), {}, {w.format, dq.view(), ds.view(), symmetric ? MatrixView() : dz.view()}, {}, y.mut()};
          if (!row->refuses(problem_of(Op::kLinear, a)).empty()) continue;
          ASSERT_TRUE(run_kernel(*row, a, serial()).ok());
          ASSERT_TRUE(y.download(found.mut())) << row->name;
          for (std::int64_t m = 0; m < M; ++m) {
            for (std::int64_t n = 0; n < N; ++n) {
              const std::int64_t k = (m * 37) % K;
              ASSERT_EQ(found.view().row<float>(m)[n],
                        2 * reference::centered(w.view(), n, k) * reference::scale_at(w.view(), n, k))
                  << row->name << ' ' << m << ' ' << n << (packed ? " two a byte" : "") << (symmetric ? "" : " zero points");
            }
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace octavo
