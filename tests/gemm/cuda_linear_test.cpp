// Every CUDA row of the kernel table for weight-only products, over awkward shapes, strides, addresses and every format.
#include "cuda_linear.h"

#include <array>

namespace octavo {
namespace {

using Case = test::LinearCase;
using test::CudaLinear;
using test::DeviceMatrix;
using test::Matrix;
using test::Quantized;

constexpr DType kFloats[] = {DType::kFloat32, DType::kFloat16, DType::kBFloat16};

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

// Few tokens with short groups, whose scales are copied four or eight at a time (their number is a multiple of that) or one
// or two.
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

// The longest rows of few tokens that the decode kernel takes, and some longer ones.
TEST_F(CudaLinear, FewTokensOfTheLongestRows) {
  Case c;
  c.N = 17;
  c.bits = 4;
  c.packed = true;
  int turn = 0;
  for (const auto& [M, longest] : {std::pair{1, 90624}, {2, 42496}, {3, 28160}, {4, 20992}}) {
    for (const std::int64_t group : {32, 64}) {
      for (std::int64_t K = longest - 2048; K <= longest + 512; K += 512) {
        c.M = M;
        c.K = K;
        c.group = group;
        c.symmetric = turn % 3 != 0;
        c.x = c.y = turn % 2 == 0 ? DType::kFloat16 : DType::kBFloat16;
        ++turn;
        check(c);
        if (HasFatalFailure()) return;
      }
    }
  }
}

// Few tokens where some CTAs of the decode kernel have a tile more than others, which stay for them while the next kernel
// starts: on 132 SMs nine or ten tiles, of five rounds.
TEST_F(CudaLinear, FewTokensOfUnevenTiles) {
  Case c;
  c.N = 16 * (132 * 9 + 20);
  c.K = 2048;
  c.bits = 4;
  c.packed = true;
  int turn = 0;
  for (const std::int64_t group : {kPerChannel, std::int64_t{32}, std::int64_t{128}}) {
    for (const std::int64_t M : {1, 3, 8}) {
      c.M = M;
      c.group = group;
      c.x = c.y = turn % 2 == 0 ? DType::kFloat16 : DType::kBFloat16;
      c.symmetric = turn % 3 != 1;
      ++turn;
      check(c);
      if (HasFatalFailure()) return;
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
