#include <gtest/gtest.h>

#include "matrix.h"

namespace octavo::test {
namespace {

TEST(Int4, LowNibbleFirstAndOffsetByEight) {
  Matrix q(DType::kInt8, 1, 3);
  q.mut().row<std::int8_t>(0)[0] = -8;
  q.mut().row<std::int8_t>(0)[1] = 7;
  q.mut().row<std::int8_t>(0)[2] = 1;
  Matrix packed(DType::kInt4, 1, 3);
  ASSERT_TRUE(pack_int4(q.view(), packed.mut()).ok());
  EXPECT_EQ(packed.view().row<std::uint8_t>(0)[0], 0xf0);
  EXPECT_EQ(packed.view().row<std::uint8_t>(0)[1], 0x09);
}

TEST(Int4, UnpackingGivesBackWhatWasPacked) {
  const auto pool = make_thread_pool(2);
  for (const bool is_signed : {true, false}) {
    for (const std::int64_t K : {0, 1, 2, 15, 64, 129}) {
      Matrix q = random_int8(7, K, 3);
      for (std::int64_t n = 0; n < 7; ++n) {
        for (std::int64_t k = 0; k < K; ++k) {
          auto& value = q.mut().row<std::int8_t>(n)[k];
          value = static_cast<std::int8_t>((value & 15) - (is_signed ? 8 : 0));
        }
      }
      MatrixView view = q.view();
      view.dtype = is_signed ? DType::kInt8 : DType::kUInt8;
      Matrix packed(is_signed ? DType::kInt4 : DType::kUInt4, 7, K);
      Matrix back(view.dtype, 7, K);
      ASSERT_TRUE(pack_int4(view, packed.mut(), *pool).ok());
      ASSERT_TRUE(unpack_int4(packed.view(), back.mut(), *pool).ok());
      for (std::int64_t n = 0; n < 7 && K > 0; ++n) {
        ASSERT_EQ(std::memcmp(back.view().row<char>(n), view.row<char>(n), static_cast<std::size_t>(K)), 0);
      }
    }
  }
}

TEST(Int4, RefusesWhatDoesNotFit) {
  Matrix q(DType::kInt8, 1, 2);
  Matrix packed(DType::kInt4, 1, 2);
  q.mut().row<std::int8_t>(0)[1] = 8;
  EXPECT_EQ(pack_int4(q.view(), packed.mut()).message(), "q[0, 1] = 8 does not fit in int4");
  Matrix wrong(DType::kUInt4, 1, 2);
  EXPECT_EQ(pack_int4(q.view(), wrong.mut()).message(), "int8 packs into int4 and uint8 into uint4, not int8 into uint4");
}

}  // namespace
}  // namespace octavo::test
