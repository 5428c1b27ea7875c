#include "octavo/quantize.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "matrix.h"
#include "quantize/reference.h"

namespace octavo::test {
namespace {

struct Case {
  DType dtype;
  WeightFormat format;
  Clip clip;
  Fill fill;
  std::int64_t N, K;
  bool packed;
};

std::vector<Case> cases() {
  std::vector<Case> all;
  const std::pair<std::int64_t, std::int64_t> shapes[] = {{1, 1},   {2, 7},   {3, 16}, {5, 33}, {4, 64},
                                                          {3, 129}, {2, 576}, {0, 8},  {3, 0}};
  for (const DType dtype : {DType::kFloat32, DType::kFloat16, DType::kBFloat16}) {
    for (const int bits : {2, 3, 4, 5, 8}) {
      for (const std::int64_t group : {kPerTensor, kPerChannel, std::int64_t{32}, std::int64_t{50}}) {
        for (const bool symmetric : {true, false}) {
          int turn = 0;
          for (const auto& [N, K] : shapes) {
            const auto fill = static_cast<Fill>((turn + bits) % 6);
            const auto clip = static_cast<Clip>((turn + bits / 2) % 3);
            all.push_back({dtype, {bits, symmetric, group}, clip, fill, N, K, bits <= 4 && turn % 2 == 0});
            ++turn;
          }
        }
      }
    }
  }
  return all;
}

TEST(Quantize, EqualsTheReferenceToTheBitForAnyNumberOfThreads) {
  const auto pool = make_thread_pool(3);
  for (const Case& c : cases()) {
    const Matrix w = random_float(c.dtype, c.N, c.K, 1, c.fill, 6);
    QuantizeOptions options;
    options.clip = c.clip;
    options.percentile = 97;
    options.scale_dtype = c.dtype;
    Quantized expected(c.format, c.N, c.K, c.packed);
    Quantized one(c.format, c.N, c.K, c.packed);
    Quantized many(c.format, c.N, c.K, c.packed);
    const Status status = reference::quantize(w.view(), options, expected.mut());
    ASSERT_EQ(quantize(w.view(), options, one.mut()).message(), status.message());
    ASSERT_EQ(quantize(w.view(), options, many.mut(), *pool).message(), status.message());
    if (!status.ok()) continue;
    ASSERT_TRUE(one == expected) << to_string(c.dtype) << " bits " << c.format.num_bits << " K " << c.K;
    ASSERT_TRUE(many == expected);

    for (const DType out_dtype : {DType::kFloat32, DType::kFloat16, DType::kBFloat16}) {
      Matrix restored(out_dtype, c.N, c.K);
      Matrix restored_reference(out_dtype, c.N, c.K);
      ASSERT_TRUE(dequantize(one.view(), restored.mut(), *pool).ok());
      ASSERT_TRUE(reference::dequantize(one.view(), restored_reference.mut()).ok());
      ASSERT_TRUE(restored == restored_reference);
    }
  }
}

TEST(Quantize, WorkedExample) {
  Matrix w(DType::kFloat32, 2, 4);
  const float values[2][4] = {{-1.27f, 0.005f, 0.015f, 1.0f}, {0, 0, 0, 0}};
  for (int n = 0; n < 2; ++n) {
    for (int k = 0; k < 4; ++k) w.set(n, k, values[n][k]);
  }
  Quantized q({8, true, kPerChannel}, 2, 4);
  ASSERT_TRUE(quantize(w.view(), {}, q.mut()).ok());
  EXPECT_FLOAT_EQ(q.scale.view().row<float>(0)[0], 0.01f);
  EXPECT_EQ(q.q.view().row<std::int8_t>(0)[0], -127);
  EXPECT_EQ(q.q.view().row<std::int8_t>(0)[3], 100);
  EXPECT_EQ(q.scale.view().row<float>(1)[0], 1.0f);  // a slice of zeros

  Quantized a({4, false, kPerChannel}, 2, 4);
  ASSERT_TRUE(quantize(w.view(), {}, a.mut()).ok());
  EXPECT_FLOAT_EQ(a.scale.view().row<float>(0)[0], 2.27f / 15);
  EXPECT_EQ(a.zero_point.view().row<std::uint8_t>(0)[0], 8);
  EXPECT_EQ(a.q.view().row<std::uint8_t>(0)[0], 0);
  EXPECT_EQ(a.q.view().row<std::uint8_t>(0)[3], 15);
  EXPECT_EQ(a.scale.view().row<float>(1)[0], 1.0f);
  EXPECT_EQ(a.zero_point.view().row<std::uint8_t>(1)[0], 0);
}

TEST(Quantize, ErrorIsAtMostHalfAStep) {
  for (const bool symmetric : {true, false}) {
    for (const std::int64_t group : {kPerTensor, kPerChannel, std::int64_t{48}}) {
      const Matrix w = random_float(DType::kFloat32, 9, 200, 3, Fill::kWide);
      Quantized q({4, symmetric, group}, 9, 200);
      ASSERT_TRUE(quantize(w.view(), {}, q.mut()).ok());
      Matrix restored(DType::kFloat32, 9, 200);
      ASSERT_TRUE(dequantize(q.view(), restored.mut()).ok());
      for (std::int64_t n = 0; n < 9; ++n) {
        for (std::int64_t k = 0; k < 200; ++k) {
          const double value = w.view().row<float>(n)[k];
          const double step = reference::scale_at(q.view(), n, k);
          const double bound = step / 2 + std::fabs(value) * 0x1p-22 + (symmetric ? 0 : step / 2);
          ASSERT_LE(std::fabs(value - static_cast<double>(restored.view().row<float>(n)[k])), bound);
        }
      }
    }
  }
}

TEST(Quantize, QuantizingTheDequantizedGivesTheSameIntegers) {
  const Matrix w = random_float(DType::kFloat32, 6, 96, 5);
  Quantized first({8, true, kPerChannel}, 6, 96);
  Quantized second({8, true, kPerChannel}, 6, 96);
  ASSERT_TRUE(quantize(w.view(), {}, first.mut()).ok());
  Matrix restored(DType::kFloat32, 6, 96);
  ASSERT_TRUE(dequantize(first.view(), restored.mut()).ok());
  ASSERT_TRUE(quantize(restored.view(), {}, second.mut()).ok());
  EXPECT_TRUE(first.q == second.q);
}

TEST(Quantize, PerChannelInt8OfNormalWeightsIsAbove40Decibels) {
  const Matrix w = random_float(DType::kFloat32, 64, 1024, 7);
  Quantized q({8, true, kPerChannel}, 64, 1024);
  ASSERT_TRUE(quantize(w.view(), {}, q.mut()).ok());
  const auto metrics = error_metrics(w.view(), q.view());
  ASSERT_TRUE(metrics.ok());
  EXPECT_GT(metrics->snr_db, 40);
}

TEST(Quantize, MseClippingNeverLosesAgainstAbsmax) {
  const Matrix w = random_float(DType::kFloat32, 8, 256, 9);
  double error[2];
  for (const Clip clip : {Clip::kAbsmax, Clip::kMse}) {
    Quantized q({3, true, kPerChannel}, 8, 256);
    QuantizeOptions options;
    options.clip = clip;
    ASSERT_TRUE(quantize(w.view(), options, q.mut()).ok());
    error[clip == Clip::kMse] = error_sums(w.view(), q.view())->squared_error;
  }
  EXPECT_LT(error[1], 0.9 * error[0]);
}

TEST(Quantize, PercentileCutsAtTheNearestRank) {
  Matrix w(DType::kFloat32, 1, 100);
  for (int k = 0; k < 100; ++k) w.set(0, k, static_cast<float>(k % 2 == 0 ? k + 1 : -(k + 1)));
  Quantized q({8, true, kPerChannel}, 1, 100);
  QuantizeOptions options;
  options.clip = Clip::kPercentile;
  options.percentile = 90;
  ASSERT_TRUE(quantize(w.view(), options, q.mut()).ok());
  EXPECT_EQ(q.scale.view().row<float>(0)[0], 90.0f / 127.0f);
  EXPECT_EQ(q.q.view().row<std::int8_t>(0)[99], -128);  // saturated
}

TEST(Quantize, NamesTheElementThatIsNotFinite) {
  const auto pool = make_thread_pool(2);
  for (const DType dtype : {DType::kFloat32, DType::kFloat16, DType::kBFloat16}) {
    for (const std::int64_t group : {kPerTensor, kPerChannel, std::int64_t{16}}) {
      Matrix w = random_float(dtype, 40, 70, 1);
      w.set(31, 69, -std::numeric_limits<float>::infinity());
      w.set(13, 42, std::numeric_limits<float>::quiet_NaN());
      Quantized q({8, true, group}, 40, 70);
      EXPECT_EQ(quantize(w.view(), {}, q.mut(), *pool).message(), "element [13, 42] is NaN; weights must be finite");
      w.set(13, 42, 0);
      EXPECT_EQ(quantize(w.view(), {}, q.mut(), *pool).message(), "element [31, 69] is -Inf; weights must be finite");
    }
  }
}

TEST(Quantize, ScaleThatOverflowsFloat16SaysWhatToDo) {
  Matrix w = random_float(DType::kFloat32, 3, 20, 1);
  w.set(2, 5, 1e8f);
  Quantized q({8, true, kPerChannel}, 3, 20);
  QuantizeOptions options;
  options.scale_dtype = DType::kFloat16;
  const Status status = quantize(w.view(), options, q.mut());
  EXPECT_NE(status.message().find("row 2"), std::string::npos) << status.message();
  EXPECT_NE(status.message().find("overflows float16"), std::string::npos);
  EXPECT_NE(status.message().find("--scale-dtype float32|bfloat16"), std::string::npos);
}

TEST(Quantize, StoredScaleIsNeverZero) {
  Matrix w(DType::kFloat32, 1, 2);
  w.set(0, 0, 1e-9f);
  w.set(0, 1, -1e-40f);
  Quantized q({8, true, kPerChannel}, 1, 2);
  QuantizeOptions options;
  options.scale_dtype = DType::kFloat16;
  ASSERT_TRUE(quantize(w.view(), options, q.mut()).ok());
  EXPECT_EQ(q.scale.view().row<float>(0)[0], 0x1p-24f);
  options.scale_dtype = DType::kFloat32;
  w.set(0, 0, 1e-40f);
  ASSERT_TRUE(quantize(w.view(), options, q.mut()).ok());
  EXPECT_EQ(q.scale.view().row<float>(0)[0], 0x1p-126f);
}

TEST(Quantize, RowsOfATensorQuantizeAsTheWholeDoes) {
  const Matrix w = random_float(DType::kBFloat16, 10, 40, 2);
  const WeightFormat format = {8, true, kPerTensor};
  Quantized whole(format, 10, 40);
  Quantized parts(format, 10, 40);
  ASSERT_TRUE(quantize(w.view(), {}, whole.mut()).ok());
  QuantizeOptions options;
  options.tensor_range = *range_of(w.view());
  for (const auto& [begin, end] : {std::pair<std::int64_t, std::int64_t>{0, 3}, {3, 10}}) {
    MutableQuantizedWeight part = parts.mut();
    part.q = part.q.slice_rows(begin, end);
    ASSERT_TRUE(quantize(w.view().slice_rows(begin, end), options, part).ok());
  }
  EXPECT_TRUE(whole == parts);
}

TEST(Quantize, RefusesWhatDoesNotFit) {
  const Matrix w = random_float(DType::kFloat32, 4, 8, 1);
  const auto message = [&](const MatrixView& in, QuantizeOptions options, MutableQuantizedWeight out) {
    return quantize(in, options, out).message();
  };
  Quantized good({8, true, kPerChannel}, 4, 8);
  EXPECT_EQ(message(w.view(), {}, good.mut()), "");
  Quantized short_rows({8, true, kPerChannel}, 3, 8);
  EXPECT_EQ(message(w.view(), {}, short_rows.mut()), "q has shape [3, 8]; it must be [4, 8]");
  Quantized bits({9, true, kPerChannel}, 4, 8);
  EXPECT_EQ(message(w.view(), {}, bits.mut()), "weights have 2 to 8 bits, not 9");
  auto wrong = good.mut();
  wrong.q.dtype = DType::kUInt8;
  EXPECT_EQ(message(w.view(), {}, wrong), "q is uint8; it must be int8");
  wrong = good.mut();
  wrong.q.device.type = DeviceType::kCuda;
  EXPECT_EQ(message(w.view(), {}, wrong), "q is on cuda:0 and other operands on the CPU; all must be on one device");
  wrong = good.mut();
  wrong.scale.data = nullptr;
  EXPECT_EQ(message(w.view(), {}, wrong), "scale has no data");
  const Matrix wide = random_float(DType::kFloat32, 5, 9, 1);
  const MatrixView crooked(wide.view().row<char>(0) + 1, DType::kFloat32, 4, 8);
  EXPECT_EQ(message(crooked, {}, good.mut()), "weight is not aligned to its elements of 4 bytes");
  const Matrix integers = random_int8(4, 8, 1);
  EXPECT_EQ(message(integers.view(), {}, good.mut()), "weight is int8; it must be float32, float16 or bfloat16");
  QuantizeOptions options;
  options.percentile = 0;
  EXPECT_EQ(message(w.view(), options, good.mut()), "percentile is 0; it must be above 0 and at most 100");
  Quantized eight({8, true, kPerChannel}, 4, 8);
  auto packed = eight.mut();
  packed.q.dtype = DType::kInt4;
  EXPECT_EQ(message(w.view(), {}, packed), "q is packed two a byte, which holds up to 4 bits, not 8");
}

}  // namespace
}  // namespace octavo::test
