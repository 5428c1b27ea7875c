#include "octavo/tensor.h"

#include <gtest/gtest.h>

namespace octavo {
namespace {

TEST(DType, NamesRoundTrip) {
  for (int i = 0; i <= static_cast<int>(DType::kUInt4); ++i) {
    const auto dtype = static_cast<DType>(i);
    EXPECT_EQ(*parse_dtype(to_string(dtype)), dtype);
  }
  EXPECT_NE(parse_dtype("fp8").status().message().find("unknown dtype 'fp8'"), std::string::npos);
}

TEST(DType, RowsOfNibblesArePaddedToBytes) {
  EXPECT_EQ(row_bytes(DType::kInt4, 5), 3);
  EXPECT_EQ(row_bytes(DType::kUInt4, 4), 2);
  EXPECT_EQ(row_bytes(DType::kBFloat16, 5), 10);
}

TEST(MatrixView, RowsFollowTheStride) {
  float data[12] = {};
  const MutableMatrixView m(data, DType::kFloat32, 3, 2, 4 * sizeof(float));
  EXPECT_EQ(m.row<float>(2), data + 8);
  EXPECT_EQ(m.slice_rows(1, 3).row<float>(1), data + 8);
  EXPECT_EQ(m.slice_rows(1, 3).rows, 2);
  EXPECT_TRUE(m.slice_rows(1, 1).empty());
}

TEST(Status, ContextComesBeforeTheMessage) {
  EXPECT_EQ(Status(StatusCode::kDataLoss, "too short").with_context("a.bin").message(), "a.bin: too short");
  EXPECT_TRUE(Status().with_context("a.bin").message().empty());
}

}  // namespace
}  // namespace octavo
