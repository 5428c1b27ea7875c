// Quantizing activations on the GPU gives the CPU's bits.
#include "core/cuda.h"

#include <gtest/gtest.h>

#include <bit>

#include "device_memory.h"
#include "matrix.h"
#include "quantize/reference.h"

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

class CudaQuantize : public CudaQuantizePerToken {};

// Weights, to and from integers.
TEST_F(CudaQuantize, WeightsOfAnyFormat) {
  std::uint32_t seed = 0;
  for (const int bits : {8, 5, 4, 2}) {
    for (const std::int64_t group : {kPerTensor, kPerChannel, std::int64_t{32}, std::int64_t{100}}) {
      for (const bool symmetric : {true, false}) {
        for (const DType scale_dtype : kFloats) {
          for (const std::int64_t K : {1, 31, 128, 577, 4100}) {
            const std::int64_t N = 37;
            ++seed;
            constexpr Fill kFills[] = {Fill::kNormal,   Fill::kWide, Fill::kTiny,
                                       Fill::kZeroRows, Fill::kTies, Fill::kPositive};
            const DType dtype = kFloats[seed % 3];
            const Matrix w = test::random_float(dtype, N, K, seed, kFills[seed % std::size(kFills)]);
            const WeightFormat format = {bits, symmetric, group};
            QuantizeOptions options;
            options.scale_dtype = scale_dtype;
            test::Quantized expected(format, N, K), found(format, N, K);
            ASSERT_TRUE(quantize(w.view(), options, expected.mut(), *pool_).ok());

            const DeviceMatrix dw(w.view(), seed % 3);
            DeviceMatrix q(expected.q.view().dtype, N, K, seed % 2), scale(expected.scale.view()),
                zero(expected.zero_point.view());
            const MutableQuantizedWeight out = {format, q.mut(), scale.mut(), symmetric ? MutableMatrixView() : zero.mut()};
            const Status status = quantize(dw.view(), options, out, Stream{});
            if (!symmetric && group == kPerTensor) {
              ASSERT_EQ(status.code(), StatusCode::kUnsupported);
            } else {
              ASSERT_TRUE(status.ok()) << status.message();
              EXPECT_TRUE(q.download(found.q.mut()) && scale.download(found.scale.mut()));
              if (!symmetric) {
                EXPECT_TRUE(zero.download(found.zero_point.mut()));
              }
              ASSERT_TRUE(found == expected)
                  << bits << " bits, groups of " << group << ", K=" << K << ' ' << to_string(dtype) << ", scales "
                  << to_string(scale_dtype) << (symmetric ? "" : ", asymmetric");
            }

            const bool two_a_byte = bits <= 4 && seed % 2 == 0;
            test::Quantized stored(format, N, K, two_a_byte);
            ASSERT_TRUE(quantize(w.view(), options, stored.mut(), *pool_).ok());
            const DType restored = kFloats[seed / 3 % 3];
            Matrix values(restored, N, K), found_values(restored, N, K);
            ASSERT_TRUE(dequantize(stored.view(), values.mut(), *pool_).ok());
            const DeviceMatrix dq(stored.q.view()), ds(stored.scale.view()), dz(stored.zero_point.view());
            DeviceMatrix dv(restored, N, K, seed % 4);
            const QuantizedWeight weight = {format, dq.view(), ds.view(), symmetric ? MatrixView() : dz.view()};
            ASSERT_TRUE(dequantize(weight, dv.mut(), Stream{}).ok());
            EXPECT_TRUE(dv.download(found_values.mut()));
            ASSERT_TRUE(found_values == values) << bits << " bits, groups of " << group << ", K=" << K;
          }
        }
      }
    }
  }
}

// Rows that are read and written 16 bytes at a time.
TEST_F(CudaQuantize, DequantizesAlignedRows) {
  for (const std::int64_t K : {8, 64, 2056, 4096}) {
    for (const std::int64_t group : {kPerTensor, kPerChannel, std::int64_t{32}, std::int64_t{128}}) {
      for (const int bits : {8, 4}) {
        for (const bool symmetric : {true, false}) {
          for (const DType dtype : {DType::kFloat16, DType::kBFloat16}) {
            const WeightFormat format = {bits, symmetric, group};
            test::Quantized w(format, 5, K, bits == 4);
            ASSERT_TRUE(quantize(test::random_float(DType::kFloat32, 5, K, 3).view(), {}, w.mut()).ok());
            Matrix expected(dtype, 5, K), found(dtype, 5, K);
            ASSERT_TRUE(dequantize(w.view(), expected.mut(), *pool_).ok());
            const DeviceMatrix dq(w.q.view()), ds(w.scale.view()), dz(w.zero_point.view());
            DeviceMatrix out(dtype, 5, K);
            const QuantizedWeight weight = {format, dq.view(), ds.view(), symmetric ? MatrixView() : dz.view()};
            ASSERT_TRUE(dequantize(weight, out.mut(), Stream{}).ok());
            EXPECT_TRUE(out.download(found.mut()));
            ASSERT_TRUE(found == expected) << bits << " bits, groups of " << group << ", K=" << K;

            // Scales of 16 bits give what they do in float32.
            Matrix short_scales(dtype, w.scale.view().rows, w.scale.view().cols);
            for (std::int64_t i = 0; i < short_scales.view().rows * short_scales.view().cols; ++i) {
              const std::int64_t n = i / short_scales.view().cols, g = i % short_scales.view().cols;
              short_scales.set(n, g, reference::element(w.scale.view(), n, g));
              w.scale.set(n, g, reference::element(short_scales.view(), n, g));
            }
            ASSERT_TRUE(dequantize(w.view(), expected.mut(), *pool_).ok());
            const DeviceMatrix in_16_bits(short_scales.view());
            ASSERT_TRUE(dequantize({format, dq.view(), in_16_bits.view(), weight.zero_point}, out.mut(), Stream{}).ok());
            EXPECT_TRUE(out.download(found.mut()));
            ASSERT_TRUE(found == expected) << bits << " bits, groups of " << group << ", K=" << K << ", 16-bit scales";
          }
        }
      }
    }
  }
}

TEST_F(CudaQuantize, SlicesThatAreNotFiniteSaySoInTheirScale) {
  Matrix w = test::random_float(DType::kFloat32, 4, 64, 1);
  w.set(1, 40, NAN);
  w.set(2, 3, 1e30f);  // whose scale overflows float16
  const DeviceMatrix dw(w.view());
  DeviceMatrix q(DType::kInt8, 4, 64), scale(DType::kFloat32, 4, 2);
  QuantizeOptions options;
  options.scale_dtype = DType::kFloat16;
  ASSERT_TRUE(quantize(dw.view(), options, {{8, true, 32}, q.mut(), scale.mut(), {}}, Stream{}).ok());
  Matrix found(DType::kFloat32, 4, 2), integers(DType::kInt8, 4, 64);
  EXPECT_TRUE(scale.download(found.mut()) && q.download(integers.mut()));
  for (std::int64_t n = 0; n < 4; ++n) {
    for (std::int64_t g = 0; g < 2; ++g) {
      const bool bad = (n == 1 && g == 1) || (n == 2 && g == 0);
      EXPECT_EQ(std::isfinite(found.view().row<float>(n)[g]), !bad) << n << ' ' << g;
      if (!bad) continue;
      for (std::int64_t k = 0; k < 32; ++k) EXPECT_EQ(integers.view().row<std::int8_t>(n)[g * 32 + k], 0);
    }
  }
}

}  // namespace
}  // namespace octavo
