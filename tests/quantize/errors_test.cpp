#include <gtest/gtest.h>

#include <cmath>

#include "matrix.h"
#include "quantize/reference.h"

namespace octavo::test {
namespace {

TEST(Errors, EqualTheReferenceToTheBit) {
  const auto pool = make_thread_pool(3);
  for (const DType dtype : {DType::kFloat32, DType::kFloat16, DType::kBFloat16}) {
    for (const std::int64_t group : {kPerTensor, kPerChannel, std::int64_t{32}}) {
      const Matrix w = random_float(dtype, 33, 77, 5);
      Quantized q({4, group != 32, group}, 33, 77, true);
      ASSERT_TRUE(quantize(w.view(), {}, q.mut()).ok());
      const auto expected = reference::error_metrics(w.view(), q.view());
      const auto actual = error_metrics(w.view(), q.view(), *pool);
      ASSERT_TRUE(expected.ok() && actual.ok());
      EXPECT_EQ(actual->max_abs_error, expected->max_abs_error);
      EXPECT_EQ(actual->mean_abs_error, expected->mean_abs_error);
      EXPECT_EQ(actual->relative_error_pct, expected->relative_error_pct);
      EXPECT_EQ(actual->snr_db, expected->snr_db);
    }
  }
}

TEST(Errors, WorkedExample) {
  Matrix w(DType::kFloat32, 1, 3);
  w.set(0, 0, 10);
  w.set(0, 1, 2.5f);
  w.set(0, 2, 0.5f);  // at most 10 % of absmax: not in the relative error
  Quantized q({8, true, kPerChannel}, 1, 3);
  q.scale.mut().row<float>(0)[0] = 1;
  q.q.mut().row<std::int8_t>(0)[0] = 10;
  q.q.mut().row<std::int8_t>(0)[1] = 2;
  q.q.mut().row<std::int8_t>(0)[2] = 1;
  const auto metrics = error_metrics(w.view(), q.view());
  ASSERT_TRUE(metrics.ok());
  EXPECT_EQ(metrics->max_abs_error, 0.5);
  EXPECT_DOUBLE_EQ(metrics->mean_abs_error, 1.0 / 3);
  EXPECT_DOUBLE_EQ(metrics->relative_error_pct, 20);
  EXPECT_DOUBLE_EQ(metrics->snr_db, 10 * std::log10((100 + 6.25 + 0.25) / 0.5));
}

TEST(Errors, ExactIsInfinitelyGood) {
  Matrix w(DType::kFloat32, 1, 2);
  w.set(0, 0, 127);
  w.set(0, 1, -5);
  Quantized q({8, true, kPerChannel}, 1, 2);
  ASSERT_TRUE(quantize(w.view(), {}, q.mut()).ok());
  EXPECT_EQ(error_metrics(w.view(), q.view())->snr_db, INFINITY);
}

}  // namespace
}  // namespace octavo::test
