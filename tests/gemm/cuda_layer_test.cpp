// Layers on CUDA as a whole: W8A8 that quantizes x in the product's kernel beside the CPU's two steps, and layers right
// behind the kernel that quantizes their weight.
#include <gtest/gtest.h>

#include <cmath>

#include "core/cuda.h"
#include "device_memory.h"
#include "matrix.h"
#include "octavo/gemm.h"

namespace octavo {
namespace {

using test::DeviceMatrix;
using test::DeviceMemory;
using test::Fill;
using test::Matrix;
using test::Quantized;
using test::random_float;

constexpr Device kGpu = {DeviceType::kCuda, 0};

class CudaLayer : public testing::Test {
 protected:
  void SetUp() override {
    if (const Status ready = cuda::ready(kGpu); !ready.ok()) GTEST_SKIP() << ready.message();
  }
};

Quantized quantized(const Matrix& w) {
  Quantized q({8, true, kPerChannel}, w.view().rows, w.view().cols);
  EXPECT_TRUE(quantize(w.view(), {}, q.mut()).ok());
  return q;
}

float at(const Matrix& matrix, std::int64_t m, std::int64_t n) {
  float value = 0;
  visit_float(matrix.view().dtype, [&](auto type) { value = to_float(matrix.view().row<decltype(type)>(m)[n]); });
  return value;
}

// All NaNs are equal.
bool same(const Matrix& a, const Matrix& b) {
  for (std::int64_t m = 0; m < a.view().rows; ++m) {
    for (std::int64_t n = 0; n < a.view().cols; ++n) {
      const float u = at(a, m, n), v = at(b, m, n);
      if (std::isnan(u) != std::isnan(v) || (!std::isnan(u) && (u != v || std::signbit(u) != std::signbit(v)))) return false;
    }
  }
  return true;
}

TEST_F(CudaLayer, W8A8GivesTheCpusBitsHoweverXIsQuantized) {
  struct Shape {
    std::int64_t M, N, K;
  };
  int whole = 0;
  for (const auto& [M, N, K] :
       {Shape{1, 64, 128}, Shape{1, 100, 4096}, Shape{2, 33, 1000}, Shape{4, 300, 4096}, Shape{3, 17, 5000}, Shape{5, 16, 8},
        Shape{16, 40, 1024}, Shape{1, 48, 16384}, Shape{9, 70, 1041}, Shape{17, 64, 512}}) {
    const Quantized w = quantized(random_float(DType::kFloat32, N, K, 1));
    const DeviceMatrix dq(w.q.view()), ds(w.scale.view());
    for (const DType dtype : {DType::kFloat16, DType::kBFloat16}) {
      for (const Fill fill : {Fill::kNormal, Fill::kWide, Fill::kTiny, Fill::kZeroRows}) {
        Matrix x = random_float(dtype, M, K, 2, fill);
        if (M > 1) x.set(1, K / 2, NAN);
        if (M > 3) x.set(3, K - 1, -INFINITY);
        const Matrix bias = random_float(dtype, 1, N, 3);
        Matrix expected(dtype, M, N), found(dtype, M, N);
        ASSERT_TRUE(linear_w8a8(x.view(), w.view(), bias.view(), expected.mut()).ok());
        const DeviceMatrix dx(x.view()), db(bias.view());
        DeviceMatrix y(dtype, M, N);
        const DeviceMemory workspace(static_cast<std::size_t>(w8a8_workspace_bytes(M, K)));
        const Status status = linear_w8a8(dx.view(), {w.format, dq.view(), ds.view(), {}}, db.view(), y.mut(),
                                          {workspace.at(), workspace.size()}, Stream{});
        ASSERT_TRUE(status.ok()) << status.message();
        EXPECT_TRUE(y.download(found.mut()));
        EXPECT_TRUE(same(expected, found))
            << M << ' ' << N << ' ' << K << ' ' << to_string(dtype) << " fill " << static_cast<int>(fill);
        Problem problem = {Op::kLinearW8A8, dtype, DType::kInt8, w.format, M, N, K, kGpu};
        whole += select_kernel(problem).ok() ? 1 : 0;
      }
    }
  }
  EXPECT_EQ(whole > 0, cuda::some_gpu({9, 0}).ok());
}

// quantize() on the device writes the weight that the product behind it reads, and both are taken in turns with others.
TEST_F(CudaLayer, ReadsTheWeightThatTheKernelInFrontHasWritten) {
  const std::int64_t M = 2, N = 512, K = 768;
  constexpr int kWeights = 3, kRounds = 400;
  const Matrix x = random_float(DType::kFloat16, M, K, 7);
  const DeviceMatrix dx(x.view());
  const DeviceMemory workspace(static_cast<std::size_t>(w8a8_workspace_bytes(M, K)));
  std::vector<std::unique_ptr<DeviceMatrix>> sources;
  for (int i = 0; i < kWeights; ++i) {
    sources.push_back(
        std::make_unique<DeviceMatrix>(random_float(DType::kFloat32, N, K, static_cast<std::uint32_t>(i)).view()));
  }
  DeviceMatrix q(DType::kInt8, N, K), scale(DType::kFloat32, N, 1), x_q(DType::kInt8, M, K), x_scale(DType::kFloat32, M, 1);
  const WeightFormat format = {8, true, kPerChannel};
  cudaStream_t stream = nullptr;
  test::require_success(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  ASSERT_TRUE(quantize_per_token(dx.view(), kPerChannel, x_q.mut(), x_scale.mut(), Stream{stream}).ok());
  const auto layer = [&](int i, DeviceMatrix& y) {
    const QuantizedWeight w = {format, q.view(), scale.view(), {}};
    const MutableQuantizedWeight out = {format, q.mut(), scale.mut(), {}};
    ASSERT_TRUE(quantize(sources[static_cast<std::size_t>(i % kWeights)]->view(), {}, out, Stream{stream}).ok());
    Status status;
    if (i / kWeights % 3 == 0) {
      status = linear(dx.view(), w, {}, y.mut(), Stream{stream});
    } else if (i / kWeights % 3 == 1) {
      status = linear_w8a8(dx.view(), w, {}, y.mut(), {workspace.at(), workspace.size()}, Stream{stream});
    } else {
      status = scaled_mm(x_q.view(), x_scale.view(), q.view(), scale.view(), {}, y.mut(), Stream{stream}, true);
    }
    ASSERT_TRUE(status.ok()) << status.message();
  };
  std::vector<Matrix> expected;  // one at a time, and waited for
  for (int i = 0; i < 3 * kWeights; ++i) {
    DeviceMatrix y(DType::kFloat16, M, N);
    layer(i, y);
    test::require_success(cudaStreamSynchronize(stream));
    EXPECT_TRUE(y.download(expected.emplace_back(DType::kFloat16, M, N).mut()));
  }
  std::vector<std::unique_ptr<DeviceMatrix>> ys;
  for (int i = 0; i < kRounds; ++i) ys.push_back(std::make_unique<DeviceMatrix>(DType::kFloat16, M, N));
  for (int i = 0; i < kRounds; ++i) layer(i, *ys[static_cast<std::size_t>(i)]);
  test::require_success(cudaStreamSynchronize(stream));
  for (int i = 0; i < kRounds; ++i) {
    Matrix found(DType::kFloat16, M, N);
    EXPECT_TRUE(ys[static_cast<std::size_t>(i)]->download(found.mut()));
    ASSERT_TRUE(found == expected[static_cast<std::size_t>(i % (3 * kWeights))]) << "round " << i;
  }
  test::require_success(cudaStreamDestroy(stream));
}

}  // namespace
}  // namespace octavo
