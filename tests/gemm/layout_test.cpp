// Packed weights: what a dword holds, that unpacking is the inverse, and that buffers are checked.
#include "gemm/layout.h"

#include <gtest/gtest.h>

#include <vector>

#include "core/aligned_buffer.h"
#include "matrix.h"

namespace octavo::test {
namespace {

// Integers of a format, from their whole range.
Quantized random_weight(const WeightFormat& format, std::int64_t N, std::int64_t K, bool two_a_byte) {
  Quantized w(format, N, K, two_a_byte);
  Quantized plain(format, N, K);
  std::mt19937 random(1);
  const auto values = static_cast<unsigned>(format.qmax() - format.qmin() + 1);
  for (std::int64_t n = 0; n < N; ++n) {
    for (std::int64_t k = 0; k < K; ++k) {
      plain.q.mut().row<std::int8_t>(n)[k] = static_cast<std::int8_t>(format.qmin() + static_cast<int>(random() % values));
    }
  }
  if (two_a_byte) {
    EXPECT_TRUE(pack_int4(plain.q.view(), w.q.mut()).ok());
  } else {
    w.q = std::move(plain.q);
  }
  for (std::int64_t n = 0; n < w.scale.view().rows; ++n) {
    for (std::int64_t g = 0; g < w.scale.view().cols; ++g) {
      w.scale.mut().row<float>(n)[g] = static_cast<float>(random() % 1000 + 1);
      if (!format.symmetric) w.zero_point.mut().row<std::uint8_t>(n)[g] = static_cast<std::uint8_t>(random() % values);
    }
  }
  return w;
}

AlignedBuffer<std::byte> buffer_for(const WeightFormat& format, std::int64_t N, std::int64_t K) {
  return AlignedBuffer<std::byte>(*packed_bytes(Layout::kBlock64, format, N, K));
}

TEST(Layout, UnpackingIsTheInverseOfPacking) {
  const auto pool = make_thread_pool(3);
  for (const auto& [N, K] : {std::pair{1, 1}, {3, 7}, {64, 64}, {65, 130}, {130, 257}, {200, 96}}) {
    for (const int bits : {2, 4, 5, 8}) {
      for (const std::int64_t group : {kPerTensor, kPerChannel, std::int64_t{1}, std::int64_t{13}, std::int64_t{32}}) {
        for (const bool symmetric : {true, false}) {
          for (const bool two_a_byte : {false, true}) {
            if (two_a_byte && bits > 4) continue;
            const WeightFormat format = {bits, symmetric, group};
            const Quantized w = random_weight(format, N, K, two_a_byte);
            const auto buffer = buffer_for(format, N, K);
            const MutablePackedWeight packed = {Layout::kBlock64, format, N, K, buffer.span()};
            ASSERT_TRUE(pack(w.view(), packed, *pool).ok());
            Quantized back(format, N, K, two_a_byte);
            ASSERT_TRUE(unpack(as_const(packed), back.mut(), *pool).ok());
            ASSERT_TRUE(back == w) << N << 'x' << K << ' ' << bits << " bits, groups of " << group;
          }
        }
      }
    }
  }
}

TEST(Layout, PackingIsTheSameFromEitherStorage) {
  const WeightFormat format = {4, false, 7};
  const auto one = buffer_for(format, 70, 31);
  const auto two = buffer_for(format, 70, 31);
  ASSERT_TRUE(pack(random_weight(format, 70, 31, false).view(), {Layout::kBlock64, format, 70, 31, one.span()}).ok());
  ASSERT_TRUE(pack(random_weight(format, 70, 31, true).view(), {Layout::kBlock64, format, 70, 31, two.span()}).ok());
  EXPECT_TRUE(std::equal(one.span().begin(), one.span().end(), two.span().begin()));
}

TEST(Layout, DwordsHoldNeighboursAlongK) {
  const WeightFormat format = {8, true, kPerChannel};
  Quantized w(format, 66, 5);
  for (std::int64_t n = 0; n < 66; ++n) {
    for (std::int64_t k = 0; k < 5; ++k) w.q.mut().row<std::int8_t>(n)[k] = static_cast<std::int8_t>(n - 10 * k);
    w.scale.mut().row<float>(n)[0] = static_cast<float>(n);
  }
  const auto buffer = buffer_for(format, 66, 5);
  ASSERT_TRUE(pack(w.view(), {Layout::kBlock64, format, 66, 5, buffer.span()}).ok());
  const Block64 shape(format, 66, 5);
  EXPECT_EQ(shape.steps(), 2);
  const auto* bytes = reinterpret_cast<const std::uint8_t*>(buffer.data());
  // Channel 65 is the second of block 1; its k = 4 is the first byte of step 1.
  EXPECT_EQ(bytes[shape.integers(1, 0) + 1 * 4 + 2], 65 - 20 + 128);
  EXPECT_EQ(bytes[shape.integers(1, 0) + kStepBytes + 1 * 4], 65 - 40 + 128);
  EXPECT_EQ(reinterpret_cast<const float*>(bytes + shape.scales(1, 0))[1], 65.0f);
  EXPECT_EQ(reinterpret_cast<const float*>(bytes + shape.scales(1, 0))[2], 0.0f);
}

TEST(Layout, RefusesWhatDoesNotFit) {
  const WeightFormat format = {8, true, kPerChannel};
  EXPECT_FALSE(packed_bytes(Layout::kRowMajor, format, 4, 4).ok());
  EXPECT_FALSE(packed_bytes(Layout::kBlock64, format, 0, 4).ok());
  EXPECT_FALSE(packed_bytes(Layout::kBlock64, {9, true, kPerChannel}, 4, 4).ok());
  const Quantized w = random_weight(format, 4, 4, false);
  const auto buffer = AlignedBuffer<std::byte>(4096);
  const auto bytes = static_cast<std::size_t>(*packed_bytes(Layout::kBlock64, format, 4, 4));
  const auto message = [&](const MutablePackedWeight& out) { return pack(w.view(), out).message(); };
  EXPECT_EQ(message({Layout::kBlock64, format, 4, 4, buffer.span().subspan(0, bytes)}), "");
  EXPECT_NE(message({Layout::kBlock64, format, 4, 4, buffer.span().subspan(4, bytes)}).find("64"), std::string::npos);
  EXPECT_NE(message({Layout::kBlock64, format, 4, 4, buffer.span().subspan(0, 64)}).find("bytes"), std::string::npos);
  EXPECT_NE(message({Layout::kBlock64, format, 4, 5, buffer.span()}), "");
}

std::string packing_error(const Quantized& w) {
  const std::int64_t N = w.q.view().rows, K = w.q.view().cols;
  const auto pool = make_thread_pool(3);
  const auto buffer = buffer_for(w.format, N, K);
  return pack(w.view(), {Layout::kBlock64, w.format, N, K, buffer.span()}, *pool).message();
}

TEST(Layout, RefusesZeroPointsThatAreNoIntegersOfTheFormat) {
  for (const bool two_a_byte : {false, true}) {
    Quantized w = random_weight({4, false, 32}, 200, 96, two_a_byte);
    w.zero_point.mut().row<std::uint8_t>(70)[2] = 15;
    EXPECT_EQ(packing_error(w), "");
    w.zero_point.mut().row<std::uint8_t>(199)[0] = 255;
    w.zero_point.mut().row<std::uint8_t>(70)[2] = 16;  // the first is named
    EXPECT_EQ(packing_error(w), "zero_point[70, 2] is 16; with 4-bit weights it must be in [0, 15]");
  }
  Quantized tensor = random_weight({3, false, kPerTensor}, 70, 9, false);
  tensor.zero_point.mut().row<std::uint8_t>(0)[0] = 8;
  EXPECT_EQ(packing_error(tensor), "zero_point[0, 0] is 8; with 3-bit weights it must be in [0, 7]");
  Quantized seven = random_weight({7, false, kPerChannel}, 70, 9, false);
  seven.zero_point.mut().row<std::uint8_t>(69)[0] = 128;
  EXPECT_EQ(packing_error(seven), "zero_point[69, 0] is 128; with 7-bit weights it must be in [0, 127]");
  Quantized eight = random_weight({8, false, kPerChannel}, 70, 9, false);
  eight.zero_point.mut().row<std::uint8_t>(69)[0] = 255;
  EXPECT_EQ(packing_error(eight), "");
}

TEST(Layout, RefusesIntegersThatDoNotFitInANibble) {
  for (const std::int64_t k : {0, 63, 70, 90}) {
    Quantized w = random_weight({4, true, 32}, 130, 91, false);
    w.q.mut().row<std::int8_t>(129)[k] = -9;
    EXPECT_EQ(packing_error(w), "q[129, " + std::to_string(k) + "] = -9 does not fit in int4");
    w.q.mut().row<std::int8_t>(64)[k] = 127;
    EXPECT_EQ(packing_error(w), "q[64, " + std::to_string(k) + "] = 127 does not fit in int4");
    Quantized u = random_weight({4, false, kPerChannel}, 130, 91, false);
    u.q.mut().row<std::uint8_t>(129)[k] = 16;
    EXPECT_EQ(packing_error(u), "q[129, " + std::to_string(k) + "] = 16 does not fit in uint4");
  }
}

}  // namespace
}  // namespace octavo::test
