// Static scales, RMSNorm and SiLU · up, with their quantization and without, give the CPU's bits on the GPU.
#include <gtest/gtest.h>

#include <bit>
#include <functional>

#include "core/cuda.h"
#include "device_memory.h"
#include "matrix.h"
#include "octavo/fused.h"
#include "octavo/quantize.h"

namespace octavo {
namespace {

using test::DeviceMatrix;
using test::Fill;
using test::Matrix;

constexpr Device kGpu = {DeviceType::kCuda, 0};
constexpr DType kFloats[] = {DType::kFloat32, DType::kFloat16, DType::kBFloat16};
constexpr Fill kFills[] = {Fill::kNormal, Fill::kWide, Fill::kTiny, Fill::kZeroRows, Fill::kPositive};
// Lengths at which the number of threads and of pieces each changes, and others that no 16-byte access takes.
constexpr std::int64_t kLengths[] = {0,    1,     2,     7,     8,     9,     16,    31,    40,    64,     129,
                                     255,  256,   264,   576,   2048,  2056,  4088,  4095,  4096,  4104,   8192,
                                     8200, 14336, 16384, 16392, 28672, 32768, 32776, 53248, 65536, 131071, 200000};

// Where operands lie: `gap` elements from row to row beyond the row, `offset` elements behind an aligned address.
struct Place {
  std::int64_t gap, offset;
};

// The value, or one word for every NaN.
std::uint32_t comparable(float value) { return std::isnan(value) ? 0x7fc00000u : std::bit_cast<std::uint32_t>(value); }

class CudaFused : public testing::Test {
 protected:
  void SetUp() override {
    if (const Status ready = cuda::ready(kGpu); !ready.ok()) GTEST_SKIP() << ready.message();
  }

  // Calls function(shape, dtype, seed, place): few rows and many, aligned and not.
  void for_all(const std::function<void(DType, std::int64_t M, std::int64_t K, std::uint32_t seed, Place)>& function) {
    std::uint32_t seed = 0;
    for (const DType dtype : kFloats) {
      for (const std::int64_t K : kLengths) {
        for (const std::int64_t M : {0, 1, 3, 520}) {
          if (M * K > 4300000 || (M > 3 && K != 8 && K != 129 && K != 576 && K != 4104 && K != 8200)) continue;
          ++seed;
          what_ = std::string(to_string(dtype)) + " M=" + std::to_string(M) + " K=" + std::to_string(K);
          function(dtype, M, K, seed, {0, 0});
          if (M * K < 300000) function(dtype, M, K, seed, {seed % 3, seed % 9});
          if (HasFatalFailure()) return;
        }
      }
    }
  }

  void expect_equal(const Matrix& expected, const DeviceMatrix& device, const char* name) {
    const MatrixView& e = expected.view();
    Matrix found(e.dtype, e.rows, e.cols);
    EXPECT_TRUE(device.download(found.mut())) << "wrote outside " << name << ": " << what_;
    if (found == expected) return;
    visit_float(e.dtype, [&](auto type) {
      using T = std::conditional_t<std::is_same_v<decltype(type), float>, float, decltype(type)>;
      for (std::int64_t m = 0; m < e.rows; ++m) {
        for (std::int64_t k = 0; k < e.cols; ++k) {
          if (e.dtype == DType::kInt8) {
            ASSERT_EQ(int{found.view().row<std::int8_t>(m)[k]}, int{e.row<std::int8_t>(m)[k]})
                << name << '[' << m << "][" << k << "] " << what_;
          } else {
            const float a = to_float(found.view().row<T>(m)[k]), b = to_float(e.row<T>(m)[k]);
            ASSERT_EQ(comparable(a), comparable(b))
                << name << '[' << m << "][" << k << "] " << a << ' ' << b << ' ' << what_;
          }
        }
      }
    });
  }

  static void spoil(Matrix& x) {
    const std::int64_t M = x.view().rows, K = x.view().cols;
    if (M < 3 || K < 31) return;
    x.set(0, K - 1, NAN);
    x.set(1, K / 2, INFINITY);
    x.set(2, K / 3, -INFINITY);
    if (M < 20) return;
    x.set(11, 0, -NAN);
    x.set(12, K - 2, INFINITY);
    x.set(12, K - 1, -INFINITY);
    x.set(13, 1, 60000);  // squares of which float16's limit makes
  }

  std::unique_ptr<Parallel> pool_ = make_thread_pool();
  std::string what_;
};

TEST_F(CudaFused, RmsNorm) {
  for_all([&](DType dtype, std::int64_t M, std::int64_t K, std::uint32_t seed, Place place) {
    const auto [gap, offset] = place;
    Matrix x = test::random_float(dtype, M, K, seed, kFills[seed % std::size(kFills)]);
    spoil(x);
    const Matrix weight = test::random_float(dtype, 1, K, seed + 1);
    const float eps = seed % 2 == 0 ? 1e-5f : 0.0f;
    Matrix q(DType::kInt8, M, K), scale(DType::kFloat32, M, 1);
    ASSERT_TRUE(rms_norm_quantize(x.view(), weight.view(), eps, q.mut(), scale.mut(), *pool_).ok());
    const std::int64_t bytes = row_bytes(dtype, offset);
    const DeviceMatrix dx(x.view(), gap, bytes), dw(weight.view(), 0, bytes);
    DeviceMatrix dq(DType::kInt8, M, K, gap, offset), ds(DType::kFloat32, M, 1, gap, 4 * offset);
    const Status status = rms_norm_quantize(dx.view(), dw.view(), eps, dq.mut(), ds.mut(), Stream{});
    ASSERT_TRUE(status.ok()) << status.message() << what_;
    expect_equal(scale, ds, "scale");
    expect_equal(q, dq, "q");
    Matrix y(dtype, M, K);
    ASSERT_TRUE(rms_norm(x.view(), weight.view(), eps, y.mut(), *pool_).ok());
    DeviceMatrix dy(dtype, M, K, gap, bytes);
    ASSERT_TRUE(rms_norm(dx.view(), dw.view(), eps, dy.mut(), Stream{}).ok());
    expect_equal(y, dy, "y");

    // With a residual, of other strides; the sum is a matrix of its own, or the residual.
    const Matrix residual = test::random_float(dtype, M, K, seed + 2);
    Matrix sum(dtype, M, K);
    ASSERT_TRUE(
        add_rms_norm_quantize(x.view(), residual.view(), weight.view(), eps, sum.mut(), q.mut(), scale.mut(), *pool_).ok());
    DeviceMatrix dr(residual.view(), 8 * (seed % 2), bytes), own(dtype, M, K, gap, bytes);
    DeviceMatrix& dsum = seed % 3 == 0 ? own : dr;
    const Status added =
        add_rms_norm_quantize(dx.view(), dr.view(), dw.view(), eps, dsum.mut(), dq.mut(), ds.mut(), Stream{});
    ASSERT_TRUE(added.ok()) << added.message() << what_;
    expect_equal(sum, dsum, "sum");
    expect_equal(scale, ds, "scale with a residual");
    expect_equal(q, dq, "q with a residual");
    ASSERT_TRUE(add_rms_norm(x.view(), residual.view(), weight.view(), eps, sum.mut(), y.mut(), *pool_).ok());
    const DeviceMatrix again(residual.view(), 8 * (seed % 2), bytes);
    ASSERT_TRUE(add_rms_norm(dx.view(), again.view(), dw.view(), eps, own.mut(), dy.mut(), Stream{}).ok());
    expect_equal(sum, own, "sum of the rounded");
    expect_equal(y, dy, "y with a residual");
  });
}

TEST_F(CudaFused, SiluMul) {
  for_all([&](DType dtype, std::int64_t M, std::int64_t K, std::uint32_t seed, Place place) {
    const auto [gap, offset] = place;
    // Halves of one matrix.
    Matrix both = test::random_float(dtype, M, 2 * K, seed, kFills[seed % std::size(kFills)]);
    spoil(both);
    const auto half = [&](MatrixView m, std::int64_t which) {
      m.data = m.row<char>(0) + which * row_bytes(dtype, K);
      m.cols = K;
      return m;
    };
    Matrix q(DType::kInt8, M, K), scale(DType::kFloat32, M, 1);
    ASSERT_TRUE(silu_mul_quantize(half(both.view(), 0), half(both.view(), 1), q.mut(), scale.mut(), *pool_).ok());
    const DeviceMatrix dboth(both.view(), gap, row_bytes(dtype, offset));
    DeviceMatrix dq(DType::kInt8, M, K, gap, offset), ds(DType::kFloat32, M, 1, gap, 4 * offset);
    const Status status = silu_mul_quantize(half(dboth.view(), 0), half(dboth.view(), 1), dq.mut(), ds.mut(), Stream{});
    ASSERT_TRUE(status.ok()) << status.message() << what_;
    expect_equal(scale, ds, "scale");
    expect_equal(q, dq, "q");
    Matrix y(dtype, M, K);
    ASSERT_TRUE(silu_mul(half(both.view(), 0), half(both.view(), 1), y.mut(), *pool_).ok());
    DeviceMatrix dy(dtype, M, K, gap, row_bytes(dtype, offset));
    ASSERT_TRUE(silu_mul(half(dboth.view(), 0), half(dboth.view(), 1), dy.mut(), Stream{}).ok());
    expect_equal(y, dy, "y");
  });
}

// Every 16-bit value as gate, and as many float32, by ones: their quantized products are 127, so the scale is SiLU's bits.
TEST_F(CudaFused, SiluOfEveryValue) {
  for (const DType dtype : kFloats) {
    constexpr std::int64_t kValues = 0x10000;
    Matrix gate(dtype, kValues, 8), up(dtype, kValues, 8), q(DType::kInt8, kValues, 8), scale(DType::kFloat32, kValues, 1);
    std::mt19937 random(1);
    for (std::int64_t m = 0; m < kValues; ++m) {
      for (int k = 0; k < 8; ++k) up.set(m, k, k == 0 ? 127.0f : 0.0f), gate.set(m, k, 0);
      if (dtype == DType::kFloat32) {
        gate.mut().row<std::uint32_t>(m)[0] = static_cast<std::uint32_t>(random());
        if (m % 2 == 0) gate.set(m, 0, std::ldexp(static_cast<float>(random()), -25) - 64);
      } else {
        gate.mut().row<std::uint16_t>(m)[0] = static_cast<std::uint16_t>(m);
      }
    }
    what_ = to_string(dtype);
    ASSERT_TRUE(silu_mul_quantize(gate.view(), up.view(), q.mut(), scale.mut(), *pool_).ok());
    const DeviceMatrix dg(gate.view()), du(up.view());
    DeviceMatrix dq(DType::kInt8, kValues, 8), ds(DType::kFloat32, kValues, 1);
    ASSERT_TRUE(silu_mul_quantize(dg.view(), du.view(), dq.mut(), ds.mut(), Stream{}).ok());
    expect_equal(scale, ds, "scale");
    expect_equal(q, dq, "q");
  }
}

TEST_F(CudaFused, StaticScale) {
  constexpr float kScales[] = {0.02f, 1.0f, 0.7071f, 3e-5f, 1e-30f, 1e30f, 0x1p-140f, 3e38f, 0x1.fffffep-7f};
  for_all([&](DType dtype, std::int64_t M, std::int64_t K, std::uint32_t seed, Place place) {
    const auto [gap, offset] = place;
    const float s = kScales[seed % std::size(kScales)];
    Matrix x = test::random_float(dtype, M, K, seed, kFills[seed % std::size(kFills)]);
    std::mt19937 random(seed);
    for (std::int64_t m = 0; m < M; m += 2) {  // around ties and ends
      for (std::int64_t k = 0; k < K; ++k) {
        const auto half_steps = static_cast<float>(static_cast<int>(random() % 600) - 300) / 2;
        x.set(m, k, half_steps * s * (1 + static_cast<float>(static_cast<int>(random() % 5) - 2) * 0x1p-23f));
      }
    }
    spoil(x);
    Matrix scale(DType::kFloat32, 1, 1), q(DType::kInt8, M, K);
    scale.set(0, 0, s);
    ASSERT_TRUE(quantize_static(x.view(), scale.view(), q.mut(), *pool_).ok());
    const DeviceMatrix dx(x.view(), gap, row_bytes(dtype, offset)), ds(scale.view(), 0, 4 * offset);
    DeviceMatrix dq(DType::kInt8, M, K, gap, offset);
    const Status status = quantize_static(dx.view(), ds.view(), dq.mut(), Stream{});
    ASSERT_TRUE(status.ok()) << status.message() << what_;
    expect_equal(q, dq, "q");
  });
}

// Every 16-bit value with scales of which the quotients are as close to ties as they come.
TEST_F(CudaFused, StaticScaleOfEvery16BitValue) {
  for (const DType dtype : {DType::kFloat16, DType::kBFloat16}) {
    Matrix x(dtype, 1, 0x10000);
    for (int i = 0; i < 0x10000; ++i) x.mut().row<std::uint16_t>(0)[i] = static_cast<std::uint16_t>(i);
    const DeviceMatrix dx(x.view());
    std::mt19937 random(1);
    for (int turn = 0; turn < 60; ++turn) {
      const auto bits = static_cast<std::uint32_t>(random());
      float s = std::ldexp(1 + static_cast<float>(bits % (1 << 23)) * 0x1p-23f, static_cast<int>(bits >> 24) % 40 - 20);
      if (turn % 2 == 0) {  // a value over a half, give or take a bit
        const float value = to_float(BFloat16{static_cast<std::uint16_t>(0x3c00 + bits % 0x600)});
        s = value / (static_cast<float>(bits >> 8 & 127) + 0.5f);
        if (turn % 4 == 0) s = std::nextafter(s, bits & 1 ? INFINITY : 0.0f);
      }
      what_ = std::string(to_string(dtype)) + " scale " + std::to_string(s);
      Matrix scale(DType::kFloat32, 1, 1), q(DType::kInt8, 1, 0x10000);
      scale.set(0, 0, s);
      ASSERT_TRUE(quantize_static(x.view(), scale.view(), q.mut(), *pool_).ok());
      const DeviceMatrix ds(scale.view());
      DeviceMatrix dq(DType::kInt8, 1, 0x10000);
      ASSERT_TRUE(quantize_static(dx.view(), ds.view(), dq.mut(), Stream{}).ok());
      expect_equal(q, dq, "q");
      if (HasFatalFailure()) return;
    }
  }
}

TEST_F(CudaFused, SayWhatDoesNotFit) {
  const Matrix x = test::random_float(DType::kFloat16, 2, 16, 1), weight = test::random_float(DType::kFloat16, 1, 16, 2);
  const DeviceMatrix dx(x.view()), dw(weight.view());
  DeviceMatrix q(DType::kInt8, 2, 16), scale(DType::kFloat32, 2, 1);
  const Status mixed = rms_norm_quantize(dx.view(), weight.view(), 0, q.mut(), scale.mut(), Stream{});
  EXPECT_EQ(mixed.message(), "weight is on the CPU and other operands on cuda:0; all must be on one device");
  const Status on_cpu = silu_mul_quantize(x.view(), x.view(), q.mut(), scale.mut(), Stream{});
  EXPECT_EQ(on_cpu.message(), "gate is on the CPU; with a Stream, this function takes memory of a CUDA device");
  EXPECT_FALSE(quantize_static(dx.view(), scale.view(), q.mut(), Stream{}).ok());
}

}  // namespace
}  // namespace octavo
