// Programmatic dependent launch: kernels of ours start before their predecessors have ended, so what they read early must
// not change under them. Up to ten thousand layers in a row, whose weights change all the time, give the CPU's bits.
#include <gtest/gtest.h>

#include "core/cuda.h"
#include "device_memory.h"
#include "matrix.h"
#include "octavo/gemm.h"

namespace octavo {
namespace {

using test::DeviceMatrix;
using test::Matrix;
using test::Quantized;

constexpr Device kGpu = {DeviceType::kCuda, 0};
constexpr int kWeights = 7;

// What happens around a layer, by turns.
enum class Change {
  kNone,            // another weight than before is used
  kBeforeQuantize,  // a weight is written, x is quantized, then multiplied with it
  kBeforeProduct,   // x is quantized, a weight is written, then multiplied with
};
constexpr Change kChanges[] = {Change::kNone,          Change::kBeforeQuantize, Change::kNone, Change::kNone,
                               Change::kBeforeProduct, Change::kBeforeProduct,  Change::kNone};

// Square layers, each of which takes the one before's y: M rows of `size` columns.
class Chain {
 public:
  Chain(std::int64_t M, std::int64_t size)
      : M_(M),
        size_(size),
        bias_(test::random_float(DType::kBFloat16, 1, size, 99)),
        device_bias_(bias_.view()),
        changing_(DType::kInt8, size, size),
        changing_scale_(DType::kFloat32, size, 1),
        x_q_(DType::kInt8, M, size),
        x_scale_(DType::kFloat32, M, 1),
        workspace_(static_cast<std::size_t>(w8a8_workspace_bytes(M, size))) {
    for (int i = 0; i < kWeights; ++i) {
      const Matrix w = test::random_float(DType::kFloat32, size, size, static_cast<std::uint32_t>(i));
      Quantized& q = weights_.emplace_back(WeightFormat{8, true, kPerChannel}, size, size);
      EXPECT_TRUE(quantize(w.view(), {}, q.mut()).ok());
      // So that outputs stay in range, however many layers there are, and forget nothing soon.
      const float shrink = 0.7f / std::sqrt(static_cast<float>(size));
      for (std::int64_t n = 0; n < size; ++n) q.scale.set(n, 0, q.scale.view().row<float>(n)[0] * shrink);
      device_q_.push_back(std::make_unique<DeviceMatrix>(q.q.view()));
      device_scale_.push_back(std::make_unique<DeviceMatrix>(q.scale.view()));
    }
  }

  // x and the y of every layer, below each other.
  Matrix on_cpu(int layers) {
    const std::unique_ptr<Parallel> pool = make_thread_pool();
    Matrix all(DType::kBFloat16, M_ * (layers + 1), size_);
    const Matrix x = test::random_float(DType::kBFloat16, M_, size_, 98);
    std::memcpy(all.mut().data, x.view().data, static_cast<std::size_t>(M_ * all.view().stride));
    for (int i = 0; i < layers; ++i) {
      const Status status =
          linear_w8a8(input(all.view(), i), weights_[at(i)].view(), bias_.view(), output(all.mut(), i), *pool);
      EXPECT_TRUE(status.ok()) << status.message();
    }
    return all;
  }

  // The same layers on the device: the rows of `all` behind the first M are written.
  void launch(DeviceMatrix& all, int layers, cudaStream_t stream) {
    const Stream s = {stream};
    for (int i = 0; i < layers; ++i) {
      const Change change = kChanges[static_cast<std::size_t>(i) % std::size(kChanges)];
      const MatrixView w = device_q_[at(i)]->view();
      const MatrixView scale = device_scale_[at(i)]->view();
      if (change == Change::kBeforeQuantize) write(w, scale, stream);
      if (change != Change::kBeforeProduct) {
        // A layer's weights are read before the quantization in front of the product has ended.
        const bool copied = change == Change::kBeforeQuantize;
        const QuantizedWeight layer = {
            {8, true, kPerChannel}, copied ? changing_.view() : w, copied ? changing_scale_.view() : scale, {}};
        const Status status = linear_w8a8(input(all.view(), i), layer, device_bias_.view(), output(all.mut(), i),
                                          {workspace_.at(), workspace_.size()}, s);
        ASSERT_TRUE(status.ok()) << status.message();
        continue;
      }
      const Status quantized = quantize_per_token(input(all.view(), i), kPerChannel, x_q_.mut(), x_scale_.mut(), s);
      ASSERT_TRUE(quantized.ok()) << quantized.message();
      write(w, scale, stream);
      const Status product = scaled_mm(x_q_.view(), x_scale_.view(), changing_.view(), changing_scale_.view(),
                                       device_bias_.view(), output(all.mut(), i), s);
      ASSERT_TRUE(product.ok()) << product.message();
    }
  }

  void expect_equal(const DeviceMatrix& all, const Matrix& expected, const std::string& how) const {
    Matrix found(DType::kBFloat16, expected.view().rows, size_);
    EXPECT_TRUE(all.download(found.mut())) << how << ": wrote outside y";
    const auto width = static_cast<std::size_t>(expected.view().stride);
    for (std::int64_t row = 0; row < found.view().rows; ++row) {
      ASSERT_EQ(std::memcmp(found.view().row<char>(row), expected.view().row<char>(row), width), 0)
          << how << ": first wrong in layer " << row / M_ - 1 << ", row " << row % M_;
    }
  }

 private:
  static std::size_t at(int i) { return static_cast<std::size_t>(i % kWeights * 3 % kWeights); }
  template <class View>
  View input(const View& all, int i) const {
    return all.slice_rows(i * M_, (i + 1) * M_);
  }
  template <class View>
  View output(const View& all, int i) const {
    return all.slice_rows((i + 1) * M_, (i + 2) * M_);
  }

  void write(const MatrixView& w, const MatrixView& scale, cudaStream_t stream) {
    test::require_success(cudaMemcpyAsync(changing_.mut().data, w.data, static_cast<std::size_t>(size_ * size_),
                                          cudaMemcpyDeviceToDevice, stream));
    test::require_success(cudaMemcpyAsync(changing_scale_.mut().data, scale.data,
                                          static_cast<std::size_t>(size_) * sizeof(float), cudaMemcpyDeviceToDevice,
                                          stream));
  }

  std::int64_t M_, size_;
  std::vector<Quantized> weights_;
  std::vector<std::unique_ptr<DeviceMatrix>> device_q_, device_scale_;
  Matrix bias_;
  DeviceMatrix device_bias_;
  DeviceMatrix changing_, changing_scale_;  // a weight that is written while the chain runs
  DeviceMatrix x_q_, x_scale_;              // the same for every layer
  test::DeviceMemory workspace_;
};

struct Size {
  std::int64_t M, size;
  int layers;
};

class CudaChain : public testing::TestWithParam<Size> {
 protected:
  void SetUp() override {
    if (const Status ready = cuda::ready(kGpu); !ready.ok()) GTEST_SKIP() << ready.message();
  }
};

TEST_P(CudaChain, GivesTheCpusBits) {
  const auto [M, size, layers] = GetParam();
  Chain chain(M, size);
  const Matrix expected = chain.on_cpu(layers);
  cudaStream_t stream = nullptr;
  test::require_success(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  DeviceMatrix all(DType::kBFloat16, M * (layers + 1), size);
  const auto upload_x = [&] {
    test::require_success(
        cudaMemset(all.mut().data, 0xff, static_cast<std::size_t>(expected.view().rows * all.view().stride)));
    test::require_success(cudaMemcpy(all.mut().data, expected.view().data, static_cast<std::size_t>(M * all.view().stride),
                                     cudaMemcpyHostToDevice));
    test::require_success(cudaDeviceSynchronize());
  };
  upload_x();
  chain.launch(all, layers, stream);
  test::require_success(cudaStreamSynchronize(stream));
  chain.expect_equal(all, expected, "on a stream");
  if (HasFatalFailure()) return;

  // In a graph the gaps between kernels are shortest.
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t executable = nullptr;
  test::require_success(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  chain.launch(all, layers, stream);
  test::require_success(cudaStreamEndCapture(stream, &graph));
  test::require_success(cudaGraphInstantiate(&executable, graph, 0));
  for (int turn = 0; turn < 3; ++turn) {
    upload_x();
    test::require_success(cudaGraphLaunch(executable, stream));
    test::require_success(cudaStreamSynchronize(stream));
    chain.expect_equal(all, expected, "in a graph, turn " + std::to_string(turn));
  }
  test::require_success(cudaGraphExecDestroy(executable));
  test::require_success(cudaGraphDestroy(graph));
  test::require_success(cudaStreamDestroy(stream));
}

INSTANTIATE_TEST_SUITE_P(Sizes, CudaChain,
                         testing::Values(Size{1, 512, 10000}, Size{8, 512, 10000}, Size{17, 272, 5000}, Size{64, 1024, 1000},
                                         Size{300, 768, 500}, Size{16, 4096, 40}),
                         [](const auto& size) {
                           return "M" + std::to_string(size.param.M) + "N" + std::to_string(size.param.size);
                         });

}  // namespace
}  // namespace octavo
