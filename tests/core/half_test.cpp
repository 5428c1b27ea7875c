#include "core/half.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace octavo {
namespace {

TEST(Half, EveryFloat16SurvivesTheWayThroughFloat) {
  for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
    const Float16 half{static_cast<std::uint16_t>(bits)};
    const float value = to_float(half);
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(to_float(to_float16(value))));
    } else {
      ASSERT_EQ(to_float16(value).bits, half.bits);
    }
  }
}

TEST(Half, Float16ValuesAreWhatTheFormatSays) {
  EXPECT_EQ(to_float(Float16{0x0001}), 0x1p-24f);
  EXPECT_EQ(to_float(Float16{0x03ff}), 1023 * 0x1p-24f);
  EXPECT_EQ(to_float(Float16{0x0400}), 0x1p-14f);
  EXPECT_EQ(to_float(Float16{0x3c00}), 1.0f);
  EXPECT_EQ(to_float(Float16{0xc000}), -2.0f);
  EXPECT_EQ(to_float(Float16{0x7bff}), 65504.0f);
  EXPECT_EQ(to_float(Float16{0x7c00}), std::numeric_limits<float>::infinity());
  EXPECT_TRUE(std::signbit(to_float(Float16{0x8000})));
}

// Between two neighbours a < b: everything below the middle goes to a, above it to b, the middle to the even one.
template <class T, class Round>
void check_midpoints(std::uint32_t end, Round round) {
  for (std::uint32_t bits = 0; bits + 1 < end; ++bits) {
    const float a = to_float(T{static_cast<std::uint16_t>(bits)});
    const float b = to_float(T{static_cast<std::uint16_t>(bits + 1)});
    const float middle = a + (b - a) / 2;
    const std::uint32_t even = bits % 2 == 0 ? bits : bits + 1;
    ASSERT_EQ(round(middle).bits, even) << bits;
    ASSERT_EQ(round(std::nextafter(middle, 0.0f)).bits, bits);
    ASSERT_EQ(round(std::nextafter(middle, INFINITY)).bits, bits + 1);
  }
}

TEST(Half, Float16RoundsToNearestEven) {
  check_midpoints<Float16>(0x7c00, to_float16);
  EXPECT_EQ(to_float16(65519.996f).bits, 0x7bff);
  EXPECT_EQ(to_float16(65520.0f).bits, 0x7c00);
  EXPECT_EQ(to_float16(-1e30f).bits, 0xfc00);
  EXPECT_EQ(to_float16(0x1p-25f).bits, 0);
  EXPECT_EQ(to_float16(std::nextafter(0x1p-25f, 1.0f)).bits, 1);
}

TEST(Half, BFloat16RoundsToNearestEven) {
  check_midpoints<BFloat16>(0x7f00, to_bfloat16);
  EXPECT_TRUE(std::isnan(to_float(to_bfloat16(std::numeric_limits<float>::quiet_NaN()))));
  EXPECT_EQ(to_bfloat16(std::numeric_limits<float>::max()).bits, 0x7f80);
}

TEST(Half, DoublesAreRoundedOnce) {
  // Just above the middle between 1 and the next fp16: by way of float it would become the middle, and then 1.
  const double above = 1.0 + 0x1p-11 + 0x1p-40;
  EXPECT_EQ(from_double<Float16>(above).bits, 0x3c01);
  EXPECT_EQ(from_double<Float16>(1.0 + 0x1p-11).bits, 0x3c00);
  EXPECT_EQ(from_double<BFloat16>(1.0 + 0x1p-8 + 0x1p-40).bits, 0x3f81);
  EXPECT_EQ(from_double<BFloat16>(-(1.0 + 0x1p-8 - 0x1p-40)).bits, 0xbf80);
  EXPECT_EQ(from_double<Float16>(1e300).bits, 0x7c00);
  EXPECT_EQ(from_double<float>(0.1), 0.1f);
}

}  // namespace
}  // namespace octavo
