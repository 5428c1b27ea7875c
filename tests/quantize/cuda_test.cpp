// Quantizing activations on the GPU gives the CPU's bits.
#include "core/cuda.h"

#include <gtest/gtest.h>

#include <bit>

#include "device_memory.h"
#include "matrix.h"

namespace octavo {
namespace {

using test::DeviceMatrix;
using test::Fill;
using test::Matrix;

constexpr Device kGpu = {DeviceType::kCuda, 0};
constexpr DType kFloats[] = {DType::kFloat32, DType::kFloat16, DType::kBFloat16};

class CudaQuantizePerToken : public testing::Test {
 protected:
  void SetUp() override {
    if (const Status ready = cuda::ready(kGpu); !ready.ok()) GTEST_SKIP() << ready.message();
  }

  // x on the device `gap` elements and `offset` elements from where it would be aligned; q and its scales too.
  void check(const Matrix& x, std::int64_t group_size, std::int64_t gap, std::int64_t offset) {
    const std::int64_t M = x.view().rows, K = x.view().cols;
    const std::int64_t groups = WeightFormat{8, true, group_size}.groups(K);
    Matrix q(DType::kInt8, M, K), scale(DType::kFloat32, M, groups);
    Matrix found_q(DType::kInt8, M, K), found_scale(DType::kFloat32, M, groups);
    ASSERT_TRUE(quantize_per_token(x.view(), group_size, q.mut(), scale.mut(), *pool_).ok());
    const DeviceMatrix dx(x.view(), gap, row_bytes(x.view().dtype, offset));
    DeviceMatrix dq(DType::kInt8, M, K, gap, offset), ds(DType::kFloat32, M, groups, gap, 4 * offset);
    const Status status = quantize_per_token(dx.view(), group_size, dq.mut(), ds.mut(), Stream{});
    const auto what = [&] {
      return std::string(to_string(x.view().dtype)) + " M=" + std::to_string(M) + " K=" + std::to_string(K) +
             " group_size=" + std::to_string(group_size) + " gap " + std::to_string(gap) + " offset " +
             std::to_string(offset);
    };
    ASSERT_TRUE(status.ok()) << status.message() << what();
    EXPECT_TRUE(ds.download(found_scale.mut())) << "wrote outside scale: " << what();
    EXPECT_TRUE(dq.download(found_q.mut())) << "wrote outside q: " << what();
    for (std::int64_t m = 0; m < M; ++m) {
      for (std::int64_t g = 0; g < groups; ++g) {
        const float a = scale.view().row<float>(m)[g], b = found_scale.view().row<float>(m)[g];
        ASSERT_TRUE(std::bit_cast<std::uint32_t>(a) == std::bit_cast<std::uint32_t>(b) || (std::isnan(a) && std::isnan(b)))
            << what() << " scale[" << m << "][" << g << "] is " << b << ", not " << a;
      }
      for (std::int64_t k = 0; k < K; ++k) {
        ASSERT_EQ(q.view().row<std::int8_t>(m)[k], found_q.view().row<std::int8_t>(m)[k])
            << what() << " q[" << m << "][" << k << "]";
      }
    }
  }

  std::unique_ptr<Parallel> pool_ = make_thread_pool();
};

TEST_F(CudaQuantizePerToken, AnyShapeTypeStrideAndAddress) {
  std::uint32_t seed = 0;
  for (const DType dtype : kFloats) {
    for (const std::int64_t K : {0,   1,   2,   7,    8,    15,   16,   17,   31,    33,    64,    65,    127,    128,   129,
                                 255, 256, 576, 1536, 4095, 4096, 4104, 8192, 14336, 28672, 28673, 65536, 131071, 200000}) {
      for (const std::int64_t M : {0, 1, 2, 5, 16, 133}) {
        if (M * K > 3000000) continue;
        ++seed;
        constexpr Fill kFills[] = {Fill::kNormal, Fill::kWide, Fill::kTiny, Fill::kZeroRows, Fill::kTies};
        const Matrix x = test::random_float(dtype, M, K, seed, kFills[seed % std::size(kFills)]);
        check(x, kPerChannel, 0, 0);
        check(x, kPerChannel, seed % 3, seed % 9);
        check(x, seed % 2 == 0 ? 64 : 50, 8 * (seed % 2), 0);
        if (HasFatalFailure()) return;
      }
    }
  }
}

TEST_F(CudaQuantizePerToken, RowsWithNaNOrInf) {
  for (const DType dtype : kFloats) {
    for (const std::int64_t K : {1, 33, 4096, 20000}) {
      Matrix x = test::random_float(dtype, 24, K, 1);
      x.set(1, 0, NAN);
      x.set(3, K - 1, -NAN);
      x.set(5, K / 2, INFINITY);
      x.set(7, K / 3, -INFINITY);
      x.set(7, K - 1, NAN);
      for (const std::int64_t group : {kPerChannel, std::int64_t{32}}) {
        check(x, group, 0, 0);
        if (HasFatalFailure()) return;
      }
    }
  }
}

// Every finite 16-bit value, with every absmax that a row's bits can make interesting: quotients are rounded correctly.
TEST_F(CudaQuantizePerToken, EveryValueOf16Bits) {
  for (const DType dtype : {DType::kFloat16, DType::kBFloat16}) {
    const int infinity = dtype == DType::kFloat16 ? 0x7c00 : 0x7f80;
    std::mt19937 random(1);
    const std::int64_t rows = 250;
    Matrix x(dtype, rows, 0x8000);
    for (std::int64_t m = 0; m < rows; ++m) {
      auto* row = x.mut().row<std::uint16_t>(m);
      const int largest =
          m < 40 ? static_cast<int>(m) * 7 + 1 : 1 + static_cast<int>(random() % static_cast<unsigned>(infinity - 1));
      for (int k = 0; k < 0x8000; ++k) {
        const int magnitude = k % (largest + 1);
        row[k] = static_cast<std::uint16_t>(magnitude | (k & 1 ? 0x8000 : 0));
      }
      row[0] = static_cast<std::uint16_t>(largest);
    }
    check(x, kPerChannel, 0, 0);
  }
}

TEST_F(CudaQuantizePerToken, Floats) {
  std::mt19937 random(1);
  Matrix x(DType::kFloat32, 400, 5000);
  for (std::int64_t m = 0; m < 400; ++m) {
    for (std::int64_t k = 0; k < 5000; ++k) {
      const auto largest = static_cast<std::uint32_t>(0x7f7fffffu - static_cast<std::uint32_t>(m) * 5000000u);
      x.mut().row<std::uint32_t>(m)[k] = (static_cast<std::uint32_t>(random()) % largest) | (k & 1 ? 0x80000000u : 0);
      if (k % 3 == 0)
        x.mut().row<std::uint32_t>(m)[k] =
            largest - static_cast<std::uint32_t>(random()) % 50000000u % largest;  // where q is not 0
    }
  }
  check(x, kPerChannel, 0, 0);
  check(x, 128, 0, 0);
}

}  // namespace
}  // namespace octavo
