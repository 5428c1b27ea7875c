// Products with packed weights through the public API: the same as with row-major ones, and errors for what does not fit.
#include <gtest/gtest.h>

#include <cstdlib>

#include "core/aligned_buffer.h"
#include "gemm/packed.h"
#include "matrix.h"
#include "octavo/gemm.h"

namespace octavo::test {
namespace {

class PackedProducts : public testing::Test {
 protected:
  void SetUp() override {
    Problem problem;
    problem.N = N;
    problem.K = K;
    if (best_layout(problem) != Layout::kBlock64) GTEST_SKIP() << "no kernel of this processor reads packed weights";
  }
  void TearDown() override { unsetenv("OCTAVO_KERNEL"); }

  static Quantized quantized(const WeightFormat& format) {
    Quantized w(format, N, K, format.num_bits <= 4);
    EXPECT_TRUE(quantize(random_float(DType::kFloat32, N, K, 1).view(), {}, w.mut()).ok());
    return w;
  }

  static constexpr std::int64_t N = 70, K = 200;
};

TEST_F(PackedProducts, IntegerOnesEqualThoseWithRowMajorWeights) {
  const Quantized w8 = quantized({8, true, kPerChannel}), w4 = quantized({4, false, 32});
  const Packed packed8(w8.view()), packed4(w4.view());
  const auto pool = make_thread_pool(3);
  for (const std::int64_t M : {1, 7, 40}) {  // from 32 rows on, row-major weights are packed for the call
    const Matrix x = random_float(DType::kBFloat16, M, K, 2), bias = random_float(DType::kFloat32, 1, N, 3);
    Matrix y(DType::kFloat16, M, N), expected(DType::kFloat16, M, N);
    ASSERT_TRUE(linear_w8a8(x.view(), packed8.view(), bias.view(), y.mut(), *pool).ok());
    ASSERT_TRUE(linear_w8a8(x.view(), w8.view(), bias.view(), expected.mut()).ok());
    EXPECT_TRUE(y == expected);
    ASSERT_TRUE(linear_w4a8(x.view(), packed4.view(), bias.view(), y.mut(), *pool).ok());
    ASSERT_TRUE(linear_w4a8(x.view(), w4.view(), bias.view(), expected.mut()).ok());
    EXPECT_TRUE(y == expected);
    ASSERT_TRUE(linear_llm_int8(x.view(), packed8.view(), 2, OutlierRule::kToken, {}, y.mut(), *pool).ok());
    ASSERT_TRUE(linear_llm_int8(x.view(), w8.view(), 2, OutlierRule::kToken, {}, expected.mut()).ok());
    EXPECT_TRUE(y == expected);
    Matrix q(DType::kInt8, M, K), scale(DType::kFloat32, M, 1);
    ASSERT_TRUE(quantize_per_token(x.view(), kPerChannel, q.mut(), scale.mut()).ok());
    ASSERT_TRUE(scaled_mm(q.view(), scale.view(), packed8.view(), bias.view(), y.mut()).ok());
    ASSERT_TRUE(scaled_mm(q.view(), scale.view(), w8.q.view(), w8.scale.view(), bias.view(), expected.mut()).ok());
    EXPECT_TRUE(y == expected);
    Matrix one(DType::kFloat32, 1, 1);
    one.set(0, 0, 0.03f);
    ASSERT_TRUE(quantize_static(x.view(), one.view(), q.mut()).ok());
    ASSERT_TRUE(scaled_mm(q.view(), one.view(), w8.q.view(), w8.scale.view(), bias.view(), expected.mut()).ok());
    ASSERT_TRUE(linear_w8a8_static(x.view(), one.view(), packed8.view(), bias.view(), y.mut(), *pool).ok());
    EXPECT_TRUE(y == expected);
    ASSERT_TRUE(linear_w8a8_static(x.view(), one.view(), w8.view(), bias.view(), y.mut()).ok());
    EXPECT_TRUE(y == expected);
  }
}

TEST_F(PackedProducts, RefuseWhatDoesNotFit) {
  const Quantized w8 = quantized({8, true, kPerChannel}), grouped = quantized({8, true, 32});
  const Packed packed(w8.view()), packed_groups(grouped.view());
  Matrix x(DType::kFloat32, 2, K), narrow(DType::kFloat32, 2, K - 1), y(DType::kFloat32, 2, N);
  const auto message = [](const Status& status) { return status.message(); };
  EXPECT_EQ(message(linear(narrow.view(), packed.view(), {}, y.mut())),
            "x is [2, 199] and the weight [70, 200]: their K differ");
  EXPECT_EQ(message(linear_w8a8(x.view(), packed_groups.view(), {}, y.mut())),
            "w8a8 takes symmetric 8-bit weights, one scale a channel or tensor");

  PackedWeight short_one = packed.view();
  short_one.data = short_one.data.first(64);
  EXPECT_NE(message(linear(x.view(), short_one, {}, y.mut())).find("the packed weight has 64 bytes"), std::string::npos);
  const auto bytes = packed.view().data.size();
  const AlignedBuffer<std::byte> buffer(static_cast<std::int64_t>(bytes) + 64);
  PackedWeight misaligned = packed.view();
  misaligned.data = buffer.span().subspan(1, bytes);
  EXPECT_NE(message(linear(x.view(), misaligned, {}, y.mut())).find("64 does not divide"), std::string::npos);
  PackedWeight other = packed.view();
  other.layout = Layout::kRowMajor;
  EXPECT_NE(message(linear(x.view(), other, {}, y.mut())).find("no packed layout"), std::string::npos);
}

TEST_F(PackedProducts, AForcedKernelOfAnotherLayoutIsAnError) {
  const Quantized w8 = quantized({8, true, kPerChannel});
  const Packed packed(w8.view());
  Matrix x(DType::kFloat32, 2, K), y(DType::kFloat32, 2, N);
  setenv("OCTAVO_KERNEL", "cpu_float_w8_reference", 1);
  EXPECT_EQ(linear(x.view(), packed.view(), {}, y.mut()).message(),
            "OCTAVO_KERNEL=cpu_float_w8_reference cannot run this: weights are block64, it reads row-major");
  Problem problem;
  problem.N = N;
  problem.K = K;
  EXPECT_EQ(best_layout(problem), Layout::kRowMajor);  // so weights that are packed now can be multiplied
}

}  // namespace
}  // namespace octavo::test
