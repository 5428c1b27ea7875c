#include "gemm/kernels.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <set>

#include "matrix.h"

namespace octavo::test {
namespace {

class KernelTable : public testing::Test {
 protected:
  void TearDown() override { unsetenv("OCTAVO_KERNEL"); }
  const Problem integer_ = {Op::kScaledMm, DType::kInt8, DType::kInt8, {}, 4, 16, 64, {}};
  const Problem mixed_ = {Op::kLinear, DType::kFloat32, DType::kInt8, {}, 4, 16, 64, {}};
};

TEST_F(KernelTable, NamesAreUniqueAndSayTheDevice) {
  std::set<std::string_view> names;
  for (const KernelInfo& kernel : list_kernels()) {
    EXPECT_TRUE(names.insert(kernel.name).second) << kernel.name;
    EXPECT_TRUE(kernel.name.starts_with(kernel.device == DeviceType::kCpu ? "cpu_" : "cuda_")) << kernel.name;
  }
}

TEST_F(KernelTable, EveryOperationHasAKernelEverywhere) {
  for (const Op op : {Op::kLinear, Op::kScaledMm, Op::kLinearW4A8, Op::kLinearLlmInt8}) {
    Problem problem = mixed_;
    problem.op = op;
    EXPECT_TRUE(select_kernel(problem).ok()) << to_string(op);
  }
}

TEST_F(KernelTable, SelectionSaysWhyOthersRefused) {
  Problem packed = mixed_;
  packed.weight = DType::kInt4;
  packed.format = {4, true, 5};  // groups begin in the middle of a byte, and four rows are not worth packing for
  const auto selection = select_kernel(packed);
  ASSERT_TRUE(selection.ok());
  EXPECT_EQ(selection->kernel, "cpu_float_w4_reference");
  ASSERT_FALSE(selection->refusals.empty());
  EXPECT_EQ(selection->refusals.back().kernel, "cpu_float_w8_reference");
  EXPECT_EQ(selection->refusals.back().reason, "weights are int4, it reads one a byte");
}

TEST_F(KernelTable, TheVariableForcesAKernel) {
  setenv("OCTAVO_KERNEL", "cpu_s8_w8_reference", 1);
  EXPECT_EQ(select_kernel(integer_)->kernel, "cpu_s8_w8_reference");
  EXPECT_TRUE(select_kernel(mixed_)->kernel.starts_with("cpu_float_w8_"));  // not what the name can be meant for
}

TEST_F(KernelTable, AForcedKernelThatCannotRunIsAnError) {
  setenv("OCTAVO_KERNEL", "cpu_float_w4_reference", 1);
  const auto refused = select_kernel(mixed_);
  EXPECT_EQ(refused.status().code(), StatusCode::kUnsupported);
  EXPECT_EQ(refused.status().message(),
            "OCTAVO_KERNEL=cpu_float_w4_reference cannot run this: weights are int8, it reads two a byte");
  setenv("OCTAVO_KERNEL", "cpu_s8_w8_avx9", 1);
  EXPECT_EQ(select_kernel(mixed_).status().message(),
            "OCTAVO_KERNEL=cpu_s8_w8_avx9 names no kernel; `octavo kernels` lists them");
}

TEST_F(KernelTable, NoKernelIsAnErrorWithThePlaceAndTheReasons) {
  Problem cuda = integer_;
  cuda.device = {DeviceType::kCuda, 1000};
  const Status status = select_kernel(cuda).status();
  EXPECT_EQ(status.code(), StatusCode::kUnsupported);
  EXPECT_NE(status.message().find("no kernel computes scaled_mm for M=4, N=16, K=64"), std::string::npos)
      << status.message();
}

// Which row is left to one below, whatever GPU there is: by tokens, and by how much of x there is.
TEST(KernelTableOnCuda, RowsLeaveFewTokensToThoseThatAreFasterThere) {
  constexpr Device kNone = {DeviceType::kCuda, 1000};
  const auto yields = [](std::string_view name, std::int64_t M, std::int64_t N, std::int64_t K, WeightFormat format) {
    for (const Kernel& kernel : kernel_table()) {
      const DType weight = storage_dtype(format, format.num_bits == 4);
      if (kernel.name == name) return !kernel.yields({kernel.op, DType::kFloat16, weight, format, M, N, K, kNone}).empty();
    }
    ADD_FAILURE() << name;
    return false;
  };
  if (kernel_table().back().device != DeviceType::kCuda) GTEST_SKIP() << "this build has no CUDA kernels";
  const WeightFormat channels = {8, true, kPerChannel}, bytes = {8, true, 128}, nibbles = {4, true, 128};
  const WeightFormat nibble_channels = {4, true, kPerChannel}, nibble_zeros = {4, false, kPerChannel};
  EXPECT_FALSE(yields("cuda_float_w8_decode", 16, 4096, 4096, channels));
  EXPECT_FALSE(yields("cuda_float_w8_decode", 8, 4096, 11008, channels));
  EXPECT_TRUE(yields("cuda_float_w8_decode", 8, 4096, 11520, channels));
  EXPECT_TRUE(yields("cuda_float_w8_decode", 16, 5120, 5888, channels));
  EXPECT_FALSE(yields("cuda_float_w8_decode", 8, 1536, 576, channels));
  EXPECT_TRUE(yields("cuda_float_w8_decode", 9, 1536, 576, channels));
  EXPECT_FALSE(yields("cuda_float_w8_decode", 8, 4096, 4096, bytes));
  EXPECT_FALSE(yields("cuda_float_w8_decode", 16, 4096, 4096, bytes));
  EXPECT_FALSE(yields("cuda_float_w4_decode", 16, 4096, 4096, nibbles));
  EXPECT_FALSE(yields("cuda_float_w4_decode", 8, 4096, 4096, nibble_channels));
  EXPECT_TRUE(yields("cuda_float_w4_decode", 9, 4096, 4096, nibble_channels));
  EXPECT_FALSE(yields("cuda_float_w4_decode", 9, 4096, 4096, nibble_zeros));
  EXPECT_FALSE(yields("cuda_float_w4_decode", 8, 1536, 576, nibbles));
  EXPECT_TRUE(yields("cuda_float_w4_decode", 9, 1536, 576, nibbles));
  EXPECT_TRUE(yields("cuda_float_w8_sm90", 16, 14336, 4096, channels));
  EXPECT_FALSE(yields("cuda_float_w8_sm90", 16, 4096, 8192, channels));
  EXPECT_TRUE(yields("cuda_float_w4_sm90", 16, 4096, 5120, nibbles));
  EXPECT_FALSE(yields("cuda_float_w4_sm90", 16, 4096, 8192, nibbles));
  EXPECT_TRUE(yields("cuda_float_w4_sm90", 16, 4096, 8192, nibble_channels));
  EXPECT_TRUE(yields("cuda_float_w4_sm90", 8, 4096, 14336, nibble_channels));
  EXPECT_FALSE(yields("cuda_float_w4_sm90", 17, 4096, 4096, nibble_channels));
  EXPECT_FALSE(yields("cuda_float_w4_sm90", 16, 4096, 8192, nibble_zeros));
  EXPECT_FALSE(yields("cuda_float_w8_sm90", 17, 4096, 4096, channels));
  EXPECT_FALSE(yields("cuda_float_w4_sm90", 17, 4096, 4096, nibbles));
}

// Scales of 16 bits: which linear() on CUDA takes, and what it says of others.
TEST(ProductsOnCuda, TakeScalesOf16Bits) {
  const auto refusal = [](std::int64_t group_size, std::int64_t K, DType scale, DType x, std::uintptr_t address = 0x1000) {
    const WeightFormat format = {4, true, group_size};
    const std::int64_t groups = format.groups(K);
    const MatrixView scales(reinterpret_cast<void*>(address), scale, 3, groups, row_bytes(scale, groups),
                            {DeviceType::kCuda, 0});
    return takes_scales({format, {}, scales, {}}, x).message();
  };
  for (const std::int64_t group_size : {32, 64, 128}) {
    EXPECT_EQ(refusal(group_size, 4096, DType::kFloat16, DType::kFloat16), "");
    EXPECT_EQ(refusal(group_size, 11008, DType::kBFloat16, DType::kBFloat16), "");
  }
  EXPECT_EQ(refusal(48, 4096, DType::kFloat32, DType::kFloat16), "");
  EXPECT_EQ(refusal(32, 4096, DType::kBFloat16, DType::kFloat16),
            "scale is bfloat16 and x float16: scales of 16 bits must be of x's type; convert them to float32");
  const std::string others =
      "; of 16 bits are those of groups of 32, 64 or 128, an even number along K, in rows aligned to 4 "
      "bytes; convert others to float32";
  EXPECT_EQ(refusal(256, 4096, DType::kFloat16, DType::kFloat16), "scale is float16, [3, 16] of groups of 256" + others);
  EXPECT_EQ(refusal(128, 384, DType::kFloat16, DType::kFloat16), "scale is float16, [3, 3] of groups of 128" + others);
  EXPECT_EQ(refusal(128, 512, DType::kFloat16, DType::kFloat16, 0x1002),
            "scale is float16, [3, 4] of groups of 128" + others);
}

TEST(Products, RefuseWhatDoesNotFit) {
  Matrix x(DType::kInt8, 2, 8), w(DType::kInt8, 3, 8), narrow(DType::kInt8, 3, 7), y(DType::kFloat32, 2, 3);
  Matrix s1(DType::kFloat32, 2, 1), s2(DType::kFloat32, 3, 1), bias(DType::kFloat32, 1, 2), raw(DType::kInt32, 2, 3);
  const auto message = [](const Status& status) { return status.message(); };
  EXPECT_EQ(message(scaled_mm(x.view(), s1.view(), narrow.view(), s2.view(), {}, y.mut())),
            "x is [2, 8] and the weight [3, 7]: their K differ");
  EXPECT_EQ(message(scaled_mm(x.view(), s2.view(), w.view(), s2.view(), {}, y.mut())),
            "x_scale is [3, 1]; it must be [2, 1] or [1, 1]");
  EXPECT_EQ(message(scaled_mm(x.view(), s1.view(), w.view(), s2.view(), bias.view(), y.mut())),
            "bias is [1, 2]; it must be [1, 3]");
  EXPECT_EQ(message(scaled_mm(y.view(), s1.view(), w.view(), s2.view(), {}, y.mut())), "x is float32; it must be int8");
  Matrix three(DType::kFloat32, 1, 3);
  EXPECT_EQ(message(scaled_mm(x.view(), s1.view(), w.view(), s2.view(), three.view(), raw.mut())),
            "int32 output is the raw sums; it takes no bias");
  const std::int64_t K = kMaxIntegerK + 1;
  Matrix long_x(DType::kInt8, 1, K), long_w(DType::kInt8, 1, K), one(DType::kFloat32, 1, 1);
  const Status status = scaled_mm(long_x.view(), one.view(), long_w.view(), one.view(), {}, one.mut());
  EXPECT_NE(message(status).find("K = 131072 is above 131071"), std::string::npos) << message(status);
  Quantized eight({8, true, kPerChannel}, 3, 8);
  Matrix xf(DType::kFloat32, 2, 8);
  EXPECT_EQ(message(linear_w4a8(xf.view(), eight.view(), {}, y.mut())),
            "W4A8 takes weights of 2 to 4 bits in groups, not 8 bits with group_size -1");
  EXPECT_EQ(message(linear_llm_int8(xf.view(), eight.view(), -1, OutlierRule::kToken, {}, y.mut())),
            "the threshold is -1; it must be 0 (no outliers) or positive");
}

// What is checked before any device is asked, with addresses that nobody reads.
TEST(ProductsOnCuda, RefuseWhatDoesNotFit) {
  const auto on = [](int index, DType dtype, std::int64_t rows, std::int64_t cols, std::int64_t gap = 0) {
    return MutableMatrixView(reinterpret_cast<void*>(0x1000), dtype, rows, cols, row_bytes(dtype, cols + gap),
                             {DeviceType::kCuda, index});
  };
  const auto x = as_const(on(0, DType::kInt8, 2, 8)), w = as_const(on(0, DType::kInt8, 3, 8));
  const auto s1 = as_const(on(0, DType::kFloat32, 2, 1)), s2 = as_const(on(0, DType::kFloat32, 3, 1));
  const auto y = on(0, DType::kFloat32, 2, 3);
  const Stream stream;
  Matrix host(DType::kInt8, 2, 8), host_y(DType::kFloat32, 2, 3);
  EXPECT_EQ(scaled_mm(x, s1, w, s2, {}, y).message(), "x is on cuda:0; without a Stream, this function takes CPU memory");
  EXPECT_EQ(scaled_mm(host.view(), s1, w, s2, {}, y, stream).message(),
            "x is on the CPU; with a Stream, this function takes memory of a CUDA device");
  EXPECT_EQ(scaled_mm(x, s1, w, s2, {}, host_y.mut(), stream).message(),
            "y is on the CPU and other operands on cuda:0; all must be on one device");
  EXPECT_EQ(scaled_mm(x, s1, as_const(on(1, DType::kInt8, 3, 8)), s2, {}, y, stream).message(),
            "w is on cuda:1 and other operands on cuda:0; all must be on one device");
  EXPECT_EQ(scaled_mm(x, s1, w, as_const(on(0, DType::kFloat32, 3, 1, 1)), {}, y, stream).message(),
            "w_scale is not contiguous, which CUDA kernels need: its rows are 8 bytes apart");
  EXPECT_EQ(matmul(host.view(), w, 1, y, stream).message(),
            "x is on the CPU; with a Stream, this function takes memory of a CUDA device");
  const auto xf = as_const(on(0, DType::kFloat32, 2, 8));
  EXPECT_EQ(quantize_per_token(xf, kPerChannel, on(0, DType::kInt8, 2, 8), on(0, DType::kFloat32, 3, 1), stream).message(),
            "scale has shape [3, 1]; it must be [2, 1]");
  const QuantizedWeight weight = {{8, true, kPerChannel}, w, s2, {}};
  std::byte workspace[16];
  EXPECT_EQ(linear_w8a8(xf, weight, {}, y, workspace, stream).message(), "the workspace has 16 bytes; [2, 8] needs 40");
  // A device that is not there: the error says what the machine lacks.
  const auto far = [&](DType dtype, std::int64_t rows, std::int64_t cols) { return on(1000, dtype, rows, cols); };
  const Status status =
      matmul(as_const(far(DType::kInt8, 2, 8)), as_const(far(DType::kInt8, 3, 8)), 1, far(DType::kFloat32, 2, 3), stream);
  EXPECT_EQ(status.code(), StatusCode::kUnsupported) << status.message();
}

TEST(Products, MatmulScalesByAlpha) {
  const Matrix x = random_int8(3, 40, 1), w = random_int8(5, 40, 2);
  Matrix sums(DType::kInt32, 3, 5), y(DType::kBFloat16, 3, 5);
  ASSERT_TRUE(scaled_mm(x.view(), {}, w.view(), {}, {}, sums.mut()).ok());
  ASSERT_TRUE(matmul(x.view(), w.view(), 0.3f, y.mut()).ok());
  for (std::int64_t m = 0; m < 3; ++m) {
    for (std::int64_t n = 0; n < 5; ++n) {
      const float expected = static_cast<float>(sums.view().row<std::int32_t>(m)[n]) * 0.3f;
      EXPECT_EQ(y.view().row<std::uint16_t>(m)[n], to_bfloat16(expected).bits);
    }
  }
}

}  // namespace
}  // namespace octavo::test
