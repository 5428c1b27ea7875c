// One and two tokens times 4-bit weights, which the decode kernel multiplies as digits (gemm/cuda/decode_digits.cuh) where a
// warp has more blocks of weights than of x, or of two tokens two of both.
#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "cuda_linear.h"

namespace octavo {
namespace {

using test::CudaLinear;
using test::DeviceMatrix;
using test::kGpu;
using test::Matrix;
using test::Quantized;

// So many channels that a warp has a round more of blocks of weights (of 512 along K, eight warps) than of x, or two of
// both. Not whole tiles.
std::int64_t channels_for_digits(std::int64_t M, std::int64_t K) {
  const std::int64_t blocks = (K + 511) / 512, rounds = (M * blocks + 7) / 8;
  const std::int64_t tiles = M == 2 && blocks == 8 ? 2 : rounds * 8 / blocks + 1;
  return 16 * (*cuda::gpu(kGpu))->num_sms * tiles - 8;
}

// The product of x with a weight of groups of 128, as float32.
void multiply(const std::vector<const Kernel*>& rows, const Matrix& x, const Quantized& w, Matrix& y) {
  const auto is_decode = [](const Kernel* row) { return row->name == "cuda_float_w4_decode"; };
  const auto row = std::find_if(rows.begin(), rows.end(), is_decode);
  if (row == rows.end()) GTEST_SKIP() << "no decode kernel";
  const DeviceMatrix dx(x.view()), dq(w.q.view()), ds(w.scale.view()), dz(w.zero_point.view());
  DeviceMatrix dy(DType::kFloat32, y.view().rows, y.view().cols);
  const Arguments a = {
      dx.view(), {}, {w.format, dq.view(), ds.view(), w.format.symmetric ? MatrixView() : dz.view()}, {}, dy.mut()};
  ASSERT_TRUE(run_kernel(**row, a, serial()).ok());
  ASSERT_TRUE(dy.download(y.mut()));
}

// K that ends within a block, a group, sixteen values or eight, several blocks of x a warp, rows with gaps, every kind of
// groups, scales and zero points, and both types.
TEST_F(CudaLinear, FewTokensAsDigits) {
  struct Shape {
    std::int64_t M, K, group;
    bool symmetric;
    DType x;
    std::int64_t x_gap = 0, w_gap = 0;
  };
  constexpr DType kHalf = DType::kFloat16, kBf16 = DType::kBFloat16;
  constexpr Shape kShapes[] = {
      {1, 448, kPerChannel, true, kHalf},
      {2, 448, 128, false, kBf16},
      {1, 448, 64, true, kBf16},
      {1, 448, 192, false, kHalf},
      {1, 1056, 128, true, kBf16},
      {2, 1056, kPerTensor, false, kHalf},
      {1, 1056, 64, false, kBf16},
      {1, 1056, 64, true, kHalf},
      {1, 1064, kPerChannel, false, kBf16, 8, 24},
      {2, 1064, 128, true, kHalf, 16, 24},
      {1, 1052, kPerChannel, true, kHalf, 4, 4},  // no multiple of 8: not as digits
      {1, 2048, 64, false, kBf16},
      {1, 2048, 64, false, kHalf},
      {1, 2048, 64, true, kBf16},
      {2, 2048, 128, false, kHalf, 8},
      {2, 2048, kPerTensor, true, kBf16},
      {1, 2048, 256, false, kBf16},
      {1, 8192, 128, true, kHalf},
      {1, 8192, 128, false, kBf16},
      {1, 8192, 64, true, kHalf},
      {2, 4096, 128, true, kHalf},
      {2, 4096, 128, false, kBf16, 8},
      {2, 4088, kPerChannel, true, kBf16},
      {2, 4608, 128, false, kBf16},
  };
  for (const Shape& shape : kShapes) {
    test::LinearCase c;
    c.bits = 4;
    c.packed = true;
    c.M = shape.M;
    c.N = channels_for_digits(shape.M, shape.K);
    c.K = shape.K;
    c.group = shape.group;
    c.symmetric = shape.symmetric;
    c.x = shape.x;
    c.x_gap = shape.x_gap;
    c.w_gap = shape.w_gap;
    check_by_turns(c);
    if (HasFatalFailure()) return;
  }
}

// The largest value of each block meets weights of 0, so that y is what the others' last digits make it, exactly: their
// multiples of 2^-20 are the digits' unit, as the largest is below 2^10.
TEST_F(CudaLinear, DigitsAreExact) {
  constexpr std::int64_t K = 1024;
  const std::int64_t N = channels_for_digits(2, K);
  for (const DType dtype : {DType::kFloat16, DType::kBFloat16}) {
    const int most = dtype == DType::kFloat16 ? 1023 : 255;  // as many bits as it has
    for (const bool symmetric : {true, false}) {
      Quantized w({4, symmetric, 128}, N, K, true);
      const int zero_point = symmetric ? 8 : 5;  // of stored nibbles
      const auto steps = [](std::int64_t n, std::int64_t k) { return k % 512 == 0 ? 0 : 1 + static_cast<int>((n + k) % 7); };
      for (std::int64_t n = 0; n < N; ++n) {
        for (std::int64_t k = 0; k < K; k += 2) {
          const int low = zero_point + steps(n, k), high = zero_point + steps(n, k + 1);
          w.q.mut().row<std::uint8_t>(n)[k / 2] = static_cast<std::uint8_t>(low | high << 4);
        }
        for (std::int64_t g = 0; g < w.scale.view().cols; ++g) {
          w.scale.set(n, g, (n + g) % 2 == 0 ? 0.5f : 0.25f);
          if (!symmetric) w.zero_point.mut().row<std::uint8_t>(n)[g] = static_cast<std::uint8_t>(zero_point);
        }
      }
      Matrix x(dtype, 2, K), y(DType::kFloat32, 2, N);
      const auto small = [most](std::int64_t m, std::int64_t k) { return 1 + static_cast<int>((k * 37 + m * 11) % most); };
      for (std::int64_t m = 0; m < 2; ++m) {
        for (std::int64_t k = 0; k < K; ++k) {
          x.set(m, k, k % 512 == 0 ? -512.0f : std::ldexp(static_cast<float>(small(m, k)), -20));
        }
      }
      multiply(rows_, x, w, y);
      if (IsSkipped() || HasFatalFailure()) return;
      const test::Exact exact({x.view(), {}, w.view(), {}, y.mut()}, *pool_);
      for (std::int64_t i = 0; i < 2 * N; ++i) {
        const double expected = exact.value[static_cast<std::size_t>(i)];
        ASSERT_LT(std::fabs(expected), 4);  // so it is exact in float32 too, of multiples of 2^-22
        ASSERT_EQ(static_cast<double>(y.view().row<float>(i / N)[i % N]), expected) << i / N << ' ' << i % N;
      }
    }
  }
}

// Values far apart: the bound of docs/numerics.md. And NaN where a value is NaN or Inf, of that token alone.
TEST_F(CudaLinear, DigitsOfAnySize) {
  constexpr std::int64_t K = 1024;
  const std::int64_t N = channels_for_digits(2, K);
  std::mt19937 random(7);
  for (const DType dtype : {DType::kFloat16, DType::kBFloat16}) {
    const int lowest = dtype == DType::kFloat16 ? -24 : -60, count = dtype == DType::kFloat16 ? 36 : 100;
    for (const bool symmetric : {true, false}) {
      Quantized w({4, symmetric, 128}, N, K, true);
      ASSERT_TRUE(quantize(test::random_float(DType::kFloat32, N, K, 3).view(), {}, w.mut()).ok());
      for (const bool finite : {true, false}) {
        Matrix x(dtype, 2, K), y(DType::kFloat32, 2, N);
        for (std::int64_t i = 0; i < 2 * K; ++i) {
          const float magnitude = std::ldexp(1 + static_cast<float>(random()) * 0x1p-32f,
                                             lowest + static_cast<int>(random() % static_cast<unsigned>(count)));
          x.set(i / K, i % K, random() % 2 == 0 ? magnitude : -magnitude);
        }
        if (!finite) x.set(1, 700, symmetric ? INFINITY : NAN);
        multiply(rows_, x, w, y);
        if (IsSkipped() || HasFatalFailure()) return;
        const test::Exact exact({x.view(), {}, w.view(), {}, y.mut()}, *pool_);
        for (std::int64_t m = 0; m < 2; ++m) {
          double largest[2] = {};
          for (std::int64_t k = 0; k < K; ++k) {
            largest[k / 512] =
                std::max(largest[k / 512], std::fabs(static_cast<double>(reference::element(x.view(), m, k))));
          }
          for (std::int64_t n = 0; n < N; ++n) {
            const float value = y.view().row<float>(m)[n];
            if (m == 1 && !finite) {
              ASSERT_TRUE(std::isnan(value)) << n;
              continue;
            }
            double of_largest = 0;  // Σ |ŵ| times the block's largest |x|
            for (std::int64_t k = 0; k < K; ++k) {
              of_largest += largest[k / 512] * std::fabs(static_cast<double>(reference::centered(w.view(), n, k)) *
                                                         static_cast<double>(reference::scale_at(w.view(), n, k)));
            }
            const auto at = static_cast<std::size_t>(m * N + n);
            const double bound = 0x1p-24 * std::fabs(exact.value[at]) +
                                 0x1p-23 * (static_cast<double>(K) / 16 + 8) * exact.magnitude[at] + 0x1p-30 * of_largest;
            ASSERT_LE(std::fabs(static_cast<double>(value) - exact.value[at]), bound) << m << ' ' << n;
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace octavo
