#include <gtest/gtest.h>

#include <cmath>

#include "matrix.h"
#include "quantize/reference.h"

namespace octavo::test {
namespace {

TEST(QuantizePerToken, EqualsTheReferenceToTheBit) {
  const auto pool = make_thread_pool(3);
  for (const DType dtype : {DType::kFloat32, DType::kFloat16, DType::kBFloat16}) {
    for (const std::int64_t group : {kPerChannel, std::int64_t{32}, std::int64_t{50}}) {
      for (const std::int64_t K : {0, 1, 17, 64, 129, 576}) {
        for (const Fill fill : {Fill::kNormal, Fill::kTiny, Fill::kZeroRows, Fill::kTies}) {
          Matrix x = random_float(dtype, 5, K, 11, fill, 2);
          if (K > 16) x.set(1, 16, NAN);
          if (K > 60) x.set(3, 60, -INFINITY);
          const std::int64_t groups = WeightFormat{8, true, group}.groups(K);
          Matrix q(DType::kInt8, 5, K), q_reference(DType::kInt8, 5, K);
          Matrix scale(DType::kFloat32, 5, groups), scale_reference(DType::kFloat32, 5, groups);
          ASSERT_TRUE(quantize_per_token(x.view(), group, q.mut(), scale.mut(), *pool).ok());
          ASSERT_TRUE(reference::quantize_per_token(x.view(), group, q_reference.mut(), scale_reference.mut()).ok());
          ASSERT_TRUE(q == q_reference) << to_string(dtype) << ' ' << K;
          for (std::int64_t m = 0; m < 5; ++m) {
            for (std::int64_t g = 0; g < groups; ++g) {
              const float a = scale.view().row<float>(m)[g];
              const float b = scale_reference.view().row<float>(m)[g];
              ASSERT_TRUE(a == b || (std::isnan(a) && std::isnan(b)));
            }
          }
        }
      }
    }
  }
}

TEST(QuantizePerToken, ARowWithNaNHasScaleNaNAndOthersAreUntouched) {
  Matrix x = random_float(DType::kBFloat16, 2, 40, 1);
  x.set(0, 39, NAN);
  Matrix q(DType::kInt8, 2, 40);
  Matrix scale(DType::kFloat32, 2, 1);
  ASSERT_TRUE(quantize_per_token(x.view(), kPerChannel, q.mut(), scale.mut()).ok());
  EXPECT_TRUE(std::isnan(scale.view().row<float>(0)[0]));
  EXPECT_EQ(q.view().row<std::int8_t>(0)[0], 0);
  EXPECT_FALSE(std::isnan(scale.view().row<float>(1)[0]));
}

}  // namespace
}  // namespace octavo::test
