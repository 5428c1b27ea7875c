// Every CUDA row of the kernel table against the CPU, with ==, over awkward shapes, strides, addresses and types.
#include "core/cuda.h"

#include <gtest/gtest.h>

#include <iostream>
#include <map>
#include <optional>
#include <thread>

#include "cuda_rows.h"
#include "device_memory.h"
#include "gemm/check.h"
#include "gemm/kernels.h"
#include "gemm/reference.h"
#include "matrix.h"

namespace octavo {
namespace {

using test::DeviceMatrix;
using test::DeviceMemory;
using test::Matrix;
using test::random_float;
using test::random_int8;

constexpr Device kGpu = {DeviceType::kCuda, 0};

class Cuda : public testing::Test {
 protected:
  void SetUp() override {
    if (const Status ready = cuda::ready(kGpu); !ready.ok()) GTEST_SKIP() << ready.message();
  }
  std::unique_ptr<Parallel> pool_ = make_thread_pool();
};

// Numbers that look random and are the same everywhere.
class Dice {
 public:
  explicit Dice(std::uint64_t seed) : random_(static_cast<std::uint32_t>(seed * 2654435761u + 1)) {}
  template <class T, std::size_t n>
  T pick(const T (&values)[n]) {
    return values[random_() % n];
  }
  std::int64_t below(std::int64_t n) { return static_cast<std::int64_t>(random_() % static_cast<std::uint32_t>(n)); }

 private:
  std::mt19937 random_;
};

// The same bytes on the host and on the device, into which operands are views at any offset and stride.
class Pool {
 public:
  Pool(std::vector<std::byte> bytes, DType dtype) : host_(std::move(bytes)), device_(host_), dtype_(dtype) {}

  MatrixView host(std::int64_t rows, std::int64_t cols, std::int64_t stride, std::int64_t offset) const {
    return view(host_.data(), rows, cols, stride, offset, {});
  }
  MatrixView on_device(std::int64_t rows, std::int64_t cols, std::int64_t stride, std::int64_t offset) const {
    return view(device_.at(), rows, cols, stride, offset, kGpu);
  }

 private:
  MatrixView view(const std::byte* base, std::int64_t rows, std::int64_t cols, std::int64_t stride, std::int64_t offset,
                  Device device) const {
    if (offset + rows * stride > static_cast<std::int64_t>(host_.size())) std::abort();
    return {base + offset, dtype_, rows, cols, stride, device};
  }

  std::vector<std::byte> host_;
  DeviceMemory device_;
  DType dtype_;
};

std::vector<std::byte> random_integers(std::size_t size) {
  std::vector<std::byte> bytes(size);
  std::mt19937 random(7);
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());
  return bytes;
}

std::vector<std::byte> bytes_of(const Matrix& m) {
  const auto* data = static_cast<const std::byte*>(m.view().data);
  return {data, data + m.view().rows * m.view().stride};
}

struct Case {
  std::int64_t M = 0, N = 0, K = 0;
  DType y = DType::kBFloat16;
  std::optional<DType> bias;
  bool per_token = true;
  bool per_channel = true;
  std::int64_t x_offset = 0, w_offset = 0, y_offset = 0;  // y's in elements, others in bytes
  std::int64_t x_gap = 0, w_gap = 0, y_gap = 0;           // elements from the end of a row to the next
};

std::ostream& operator<<(std::ostream& out, const Case& c) {
  return out << "M=" << c.M << " N=" << c.N << " K=" << c.K << " y " << to_string(c.y) << " bias "
             << (c.bias ? to_string(*c.bias) : "none") << (c.per_token ? " per token" : "")
             << (c.per_channel ? " per channel" : "") << " offsets " << c.x_offset << ',' << c.w_offset << ',' << c.y_offset
             << " gaps " << c.x_gap << ',' << c.w_gap << ',' << c.y_gap;
}

constexpr DType kOutputs[] = {DType::kBFloat16, DType::kFloat16, DType::kFloat32, DType::kInt32};
constexpr DType kFloats[] = {DType::kFloat32, DType::kFloat16, DType::kBFloat16};

// Rows 16 bytes apart or a multiple, whatever K is.
std::int64_t to_sixteen(std::int64_t K) { return (16 - K % 16) % 16; }

Case aligned(std::int64_t M, std::int64_t N, std::int64_t K, Dice& dice) {
  Case c;
  c.M = M;
  c.N = N;
  c.K = K;
  c.y = dice.pick(kOutputs);
  if (c.y != DType::kInt32 && dice.below(2) == 0) c.bias = dice.pick(kFloats);
  c.per_token = dice.below(3) != 0;
  c.per_channel = dice.below(3) != 0;
  c.x_gap = c.w_gap = to_sixteen(K);
  return c;
}

Case awkward(std::int64_t M, std::int64_t N, std::int64_t K, Dice& dice) {
  constexpr std::int64_t kOffsets[] = {0, 0, 16, 8, 4, 1, 3};
  constexpr std::int64_t kGaps[] = {0, 0, 1, 5, 16, 32};
  Case c = aligned(M, N, K, dice);
  c.x_offset = dice.pick(kOffsets);
  c.w_offset = dice.pick(kOffsets);
  c.x_gap = dice.pick(kGaps);
  c.w_gap = dice.pick(kGaps);
  c.y_offset = dice.below(9);
  c.y_gap = dice.pick(kGaps);
  return c;
}

// Where two outputs differ; -1 for nowhere. All NaNs are equal.
std::int64_t first_difference(const std::byte* a, const std::byte* b, DType dtype, std::int64_t n) {
  const auto bits = [&](const std::byte* p, std::int64_t i) {
    std::uint32_t value = 0;
    std::memcpy(&value, p + row_bytes(dtype, i), static_cast<std::size_t>(row_bytes(dtype, 1)));
    return value;
  };
  const auto is_nan = [&](std::uint32_t v) {
    return dtype == DType::kFloat32   ? (v & 0x7fffffff) > 0x7f800000
           : dtype == DType::kFloat16 ? (v & 0x7fff) > 0x7c00
                                      : dtype == DType::kBFloat16 && (v & 0x7fff) > 0x7f80;
  };
  if (n == 0 || std::memcmp(a, b, static_cast<std::size_t>(row_bytes(dtype, n))) == 0) return -1;
  for (std::int64_t i = 0; i < n; ++i) {
    const std::uint32_t u = bits(a, i);
    const std::uint32_t v = bits(b, i);
    if (u != v && !(is_nan(u) && is_nan(v))) return i;
  }
  return -1;
}

// Products by every CUDA row that takes them, beside the CPU's.
class CudaScaledMm : public Cuda {
 protected:
  static constexpr std::int64_t kScales = 1 << 16;
  static constexpr std::int64_t kYBytes = std::int64_t{160} << 20;
  static constexpr int kGuard = 0xa5;
  static constexpr std::int64_t kMaxReferenceProducts = std::int64_t{1} << 31;

  void SetUp() override {
    Cuda::SetUp();
    if (IsSkipped()) return;
    rows_ = test::usable_cuda_rows(Op::kScaledMm);
    ASSERT_FALSE(rows_.empty());
    integers_.emplace(random_integers(std::size_t{160} << 20), DType::kInt8);
    scales_.emplace(bytes_of(random_float(DType::kFloat32, 1, kScales, 3, test::Fill::kWide)), DType::kFloat32);
    for (const DType dtype : kFloats) biases_.try_emplace(dtype, bytes_of(random_float(dtype, 1, kScales, 4)), dtype);
    y_.emplace(static_cast<std::size_t>(kYBytes));
  }

  void TearDown() override {
    for (const Kernel* row : rows_) std::cout << row->name << " took " << taken_[row] << " of " << cases_ << " products\n";
  }

  static Arguments operands(const Pool& integers, const Pool& scales, const std::map<DType, Pool>& biases, const Case& c,
                            bool device) {
    const auto part = [&](const Pool& pool, std::int64_t rows, std::int64_t cols, std::int64_t stride, std::int64_t offset) {
      return device ? pool.on_device(rows, cols, stride, offset) : pool.host(rows, cols, stride, offset);
    };
    Arguments a;
    a.x = part(integers, c.M, c.K, c.K + c.x_gap, 4096 + c.x_offset);
    // Elsewhere in the pool, so that x and w differ.
    a.w.q = part(integers, c.N, c.K, c.K + c.w_gap, (std::int64_t{16} << 20) + c.w_offset);
    a.w.format = {8, true, c.per_channel ? kPerChannel : kPerTensor};
    if (c.y == DType::kInt32) return a;
    a.x_scale = part(scales, c.per_token ? c.M : 1, 1, 4, 0);
    a.w.scale = part(scales, c.per_channel ? c.N : 1, 1, 4, 4 * (kScales / 2));
    if (c.bias) a.bias = part(biases.at(*c.bias), 1, c.N, row_bytes(*c.bias, c.N), 0);
    return a;
  }

  void check(const Case& c) {
    ++cases_;
    Matrix expected(c.y, c.M, c.N);
    Arguments a = operands(*integers_, *scales_, biases_, c, false);
    const Status on_cpu = scaled_mm(a.x, a.x_scale, a.w.q, a.w.scale, a.bias, expected.mut(), *pool_);
    ASSERT_TRUE(on_cpu.ok()) << on_cpu.message() << ' ' << c;
    a = operands(*integers_, *scales_, biases_, c, true);
    const std::int64_t stride = row_bytes(c.y, c.N + c.y_gap);
    const std::int64_t offset = 256 + row_bytes(c.y, c.y_offset);
    const auto bytes = static_cast<std::size_t>(offset + c.M * stride + 256);
    ASSERT_LE(bytes, y_->size());
    a.y = {y_->at(static_cast<std::size_t>(offset)), c.y, c.M, c.N, stride, kGpu};
    ASSERT_TRUE(check_scaled_mm(a).ok()) << check_scaled_mm(a).message() << ' ' << c;
    for (const Kernel* row : rows_) {
      if (!row->refuses(problem_of(Op::kScaledMm, a)).empty()) continue;
      if (row->name.ends_with("_reference") && c.M * c.N * c.K > kMaxReferenceProducts) continue;
      ++taken_[row];
      y_->fill(kGuard, bytes);
      const Status status = run_kernel(*row, a, serial());
      ASSERT_TRUE(status.ok()) << row->name << ' ' << c << ": " << status.message();
      std::vector<std::byte> found = y_->download(bytes);
      const auto width = static_cast<std::size_t>(row_bytes(c.y, c.N));
      for (std::int64_t m = 0; m < c.M; ++m) {
        std::byte* out = found.data() + offset + m * stride;
        const std::int64_t n = first_difference(expected.view().row<std::byte>(m), out, c.y, c.N);
        ASSERT_EQ(n, -1) << row->name << ' ' << c << ": differs at [" << m << ", " << n << "]";
        if (width > 0) std::memset(out, kGuard, width);
      }
      for (std::size_t i = 0; i < found.size(); ++i) {
        ASSERT_EQ(found[i], std::byte{kGuard})
            << row->name << ' ' << c << ": wrote outside y, byte " << static_cast<std::int64_t>(i) - offset;
      }
    }
  }

  void check_both(std::int64_t M, std::int64_t N, std::int64_t K) {
    Dice dice(static_cast<std::uint64_t>((M * 8191 + N) * 8191 + K));
    check(aligned(M, N, K, dice));
    if (!HasFatalFailure()) check(awkward(M, N, K, dice));
  }

  std::vector<const Kernel*> rows_;
  std::map<const Kernel*, int> taken_;
  int cases_ = 0;
  std::optional<Pool> integers_, scales_;
  std::map<DType, Pool> biases_;
  std::optional<DeviceMemory> y_;
};

TEST_F(CudaScaledMm, SmallShapes) {
  constexpr std::int64_t kSizes[] = {0, 1, 2, 7, 15, 16, 17, 31, 33, 63, 64, 65, 127, 128, 129};
  for (const std::int64_t M : kSizes) {
    for (const std::int64_t N : kSizes) {
      for (const std::int64_t K : kSizes) {
        check_both(M, N, K);
        if (HasFatalFailure()) return;
      }
    }
  }
}

TEST_F(CudaScaledMm, LongSides) {
  for (const std::int64_t side : {191, 255, 257, 576, 1536, 4095, 4096, 4112, 14336}) {
    for (const std::int64_t a : {1, 8, 17, 64, 129, 300}) {
      for (const std::int64_t b : {1, 16, 65, 128, 300}) {
        check_both(side, a, b);
        check_both(a, side, b);
        check_both(a, b, side);
        if (HasFatalFailure()) return;
      }
    }
  }
}

TEST_F(CudaScaledMm, ShapesOfModels) {
  struct Shape {
    std::int64_t N, K;
  };
  for (const auto& [N, K] :
       {Shape{4096, 4096}, Shape{6144, 4096}, Shape{1536, 576}, Shape{4096, 14336}, Shape{14336, 4096}}) {
    for (const std::int64_t M : {1, 5, 16, 33, 64, 200, 256, 512, 777, 1024, 2048}) {
      if (M * N * K > std::int64_t{1} << 35) continue;
      Dice dice(static_cast<std::uint64_t>(M * N + K));
      check(aligned(M, N, K, dice));
      if (HasFatalFailure()) return;
    }
  }
  Dice dice(1);
  check(awkward(300, 4100, 4101, dice));
}

// Few tokens of much x, which the decode kernel copies for two CTAs at once. Not for three, the last.
TEST_F(CudaScaledMm, FewTokensInPairs) {
  struct Shape {
    std::int64_t M, N, K;
  };
  for (const auto& [M, N, K] : {Shape{16, 32, 8192}, Shape{16, 24, 8200}, Shape{9, 32, 13009}, Shape{8, 64, 16384},
                                Shape{5, 30, 24007}, Shape{2, 32, 65000}, Shape{1, 32, 130000}, Shape{8, 48, 16384}}) {
    check_both(M, N, K);
    if (HasFatalFailure()) return;
  }
}

// The largest sums there are, and scales and biases that make NaN, Inf and subnormals of them.
TEST_F(CudaScaledMm, ExtremeValues) {
  const std::int64_t M = 20, N = 70, K = kMaxIntegerK;
  Matrix x(DType::kInt8, M, K, to_sixteen(K)), w(DType::kInt8, N, K, to_sixteen(K));
  for (std::int64_t m = 0; m < M; ++m) std::memset(x.mut().row<char>(m), m == 1 ? 127 : -128, static_cast<std::size_t>(K));
  for (std::int64_t n = 0; n < N; ++n) std::memset(w.mut().row<char>(n), n == 1 ? 127 : -128, static_cast<std::size_t>(K));
  Matrix x_scale(DType::kFloat32, M, 1), w_scale(DType::kFloat32, N, 1), bias(DType::kFloat32, 1, N);
  constexpr float kFactors[] = {1, 0x1p-140f, 1e30f, NAN, 0x1p-126f, 3e-9f, 0x1p-149f, -1};
  constexpr float kBiases[] = {0, -0.0f, INFINITY, 1e-40f, 65520, -65519, NAN, 1};
  for (std::int64_t m = 0; m < M; ++m) x_scale.set(m, 0, kFactors[m % 8]);
  for (std::int64_t n = 0; n < N; ++n) w_scale.set(n, 0, kFactors[n / 8 % 8]);
  for (std::int64_t n = 0; n < N; ++n) bias.set(0, n, kBiases[n % 8]);
  const DeviceMatrix dx(x.view(), to_sixteen(K)), dw(w.view(), to_sixteen(K)), dxs(x_scale.view()), dws(w_scale.view()),
      db(bias.view());
  for (const DType dtype : kOutputs) {
    const bool raw = dtype == DType::kInt32;
    Matrix expected(dtype, M, N), found(dtype, M, N);
    ASSERT_TRUE(scaled_mm(x.view(), x_scale.view(), w.view(), w_scale.view(), raw ? MatrixView() : bias.view(),
                          expected.mut(), *pool_)
                    .ok());
    for (const Kernel* row : rows_) {
      DeviceMatrix y(dtype, M, N);
      const Arguments a = {dx.view(),
                           dxs.view(),
                           {{8, true, kPerChannel}, dw.view(), dws.view(), {}},
                           raw ? MatrixView() : db.view(),
                           y.mut()};
      if (!row->refuses(problem_of(Op::kScaledMm, a)).empty()) continue;
      ASSERT_TRUE(run_kernel(*row, a, serial()).ok());
      ASSERT_TRUE(y.download(found.mut())) << row->name;
      for (std::int64_t m = 0; m < M; ++m) {
        ASSERT_EQ(first_difference(expected.view().row<std::byte>(m), found.view().row<std::byte>(m), dtype, N), -1)
            << row->name << ' ' << to_string(dtype) << " row " << m;
      }
    }
  }
}

TEST_F(CudaScaledMm, MatmulScalesByAlpha) {
  const std::int64_t M = 13, N = 70, K = 208;
  const Matrix x = random_int8(M, K, 1), w = random_int8(N, K, 2);
  const DeviceMatrix dx(x.view()), dw(w.view());
  Matrix expected(DType::kBFloat16, M, N), found(DType::kBFloat16, M, N);
  ASSERT_TRUE(matmul(x.view(), w.view(), 0.3f, expected.mut()).ok());
  for (const Kernel* row : rows_) {
    setenv("OCTAVO_KERNEL", std::string(row->name).c_str(), 1);
    DeviceMatrix y(DType::kBFloat16, M, N);
    const Status status = matmul(dx.view(), dw.view(), 0.3f, y.mut(), Stream{});
    unsetenv("OCTAVO_KERNEL");
    ASSERT_TRUE(status.ok()) << status.message();
    EXPECT_TRUE(y.download(found.mut())) << row->name;
    EXPECT_TRUE(found == expected) << row->name;
  }
}

// The plain rows for weight-only products sum in fp64 in the order of reference::linear(), so they give its bits.
TEST_F(Cuda, LinearReferenceGivesTheCpuReferencesBits) {
  struct Shape {
    std::int64_t M, N, K;
  };
  Dice dice(5);
  int taken = 0;
  for (const auto& [M, N, K] : {Shape{1, 1, 1}, Shape{2, 3, 0}, Shape{3, 17, 33}, Shape{7, 64, 130}, Shape{20, 33, 515}}) {
    for (const int bits : {8, 6, 4, 3}) {
      for (const std::int64_t group : {kPerTensor, kPerChannel, std::int64_t{32}, std::int64_t{7}}) {
        for (const bool symmetric : {true, false}) {
          for (const bool two_a_byte : {false, true}) {
            if (two_a_byte && bits > 4) continue;
            test::Quantized w({bits, symmetric, group}, N, K, two_a_byte);
            ASSERT_TRUE(quantize(random_float(DType::kFloat32, N, K, 1).view(), {}, w.mut()).ok());
            const DType x_dtype = dice.pick(kFloats);
            const DType y_dtype = dice.pick(kFloats);
            const Matrix x = random_float(x_dtype, M, K, 2, test::Fill::kWide);
            const Matrix bias = random_float(dice.pick(kFloats), 1, N, 3);
            Matrix expected(y_dtype, M, N), found(y_dtype, M, N);
            Arguments a = {x.view(), {}, w.view(), dice.below(2) == 0 ? bias.view() : MatrixView(), expected.mut()};
            reference::linear(a, serial());

            const DeviceMatrix dx(x.view(), 3), dq(w.q.view()), ds(w.scale.view()), dz(w.zero_point.view()), db(bias.view());
            DeviceMatrix y(y_dtype, M, N, 5);
            a = {dx.view(),
                 {},
                 {w.format, dq.view(), ds.view(), symmetric ? MatrixView() : dz.view()},
                 a.bias.data == nullptr ? MatrixView() : db.view(),
                 y.mut()};
            ASSERT_TRUE(check_linear(a).ok()) << check_linear(a).message();
            for (const Kernel& row : kernel_table()) {
              if (row.op != Op::kLinear || row.device != DeviceType::kCuda || !row.name.ends_with("_reference")) continue;
              if (!row.refuses(problem_of(Op::kLinear, a)).empty()) continue;
              const Status status = run_kernel(row, a, serial());
              ASSERT_TRUE(status.ok()) << status.message();
              ASSERT_TRUE(y.download(found.mut())) << row.name;
              ASSERT_TRUE(found == expected)
                  << row.name << ' ' << M << 'x' << N << 'x' << K << ' ' << bits << " bits, groups of " << group << ' '
                  << to_string(x_dtype) << " to " << to_string(y_dtype);
              ++taken;
            }
          }
        }
      }
    }
  }
  EXPECT_GT(taken, 100);
}

// On streams of their own, captured into a graph, and from several host threads at once.
TEST_F(Cuda, LinearW8A8OnAnyStreamAndInGraphs) {
  const std::int64_t M = 37, N = 300, K = 1040;
  const Matrix weights = random_float(DType::kFloat32, N, K, 1);
  const Matrix x = random_float(DType::kBFloat16, M, K, 2), bias = random_float(DType::kBFloat16, 1, N, 3);
  test::Quantized w({8, true, kPerChannel}, N, K);
  ASSERT_TRUE(quantize(weights.view(), {}, w.mut()).ok());
  Matrix expected(DType::kBFloat16, M, N);
  ASSERT_TRUE(linear_w8a8(x.view(), w.view(), bias.view(), expected.mut()).ok());

  const DeviceMatrix dx(x.view()), dq(w.q.view()), ds(w.scale.view()), db(bias.view());
  const QuantizedWeight dw = {w.format, dq.view(), ds.view(), {}};
  const auto workspace_bytes = static_cast<std::size_t>(w8a8_workspace_bytes(M, K));
  const auto expect_equal = [&](const DeviceMatrix& y, const char* how) {
    Matrix found(DType::kBFloat16, M, N);
    EXPECT_TRUE(y.download(found.mut())) << how;
    EXPECT_TRUE(found == expected) << how;
  };
  const auto run = [&](DeviceMatrix& y, const DeviceMemory& workspace, cudaStream_t stream) {
    const Status status = linear_w8a8(dx.view(), dw, db.view(), y.mut(), {workspace.at(), workspace_bytes}, Stream{stream});
    EXPECT_TRUE(status.ok()) << status.message();
  };

  const auto on_own_stream = [&] {
    const cuda::DeviceGuard guard(kGpu);
    DeviceMatrix y(DType::kBFloat16, M, N);
    const DeviceMemory workspace(workspace_bytes);
    cudaStream_t stream = nullptr;
    test::require_success(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    for (int i = 0; i < 50; ++i) run(y, workspace, stream);
    test::require_success(cudaStreamSynchronize(stream));
    expect_equal(y, "a stream");
    test::require_success(cudaStreamDestroy(stream));
  };
  on_own_stream();
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) threads.emplace_back(on_own_stream);
  for (std::thread& thread : threads) thread.join();

  DeviceMatrix y(DType::kBFloat16, M, N);
  const DeviceMemory workspace(workspace_bytes);
  cudaStream_t stream = nullptr;
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t executable = nullptr;
  test::require_success(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  test::require_success(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
  run(y, workspace, stream);
  test::require_success(cudaStreamEndCapture(stream, &graph));
  test::require_success(cudaGraphInstantiate(&executable, graph, 0));
  test::require_success(cudaGraphLaunch(executable, stream));
  test::require_success(cudaStreamSynchronize(stream));
  expect_equal(y, "a graph");
  test::require_success(cudaGraphExecDestroy(executable));
  test::require_success(cudaGraphDestroy(graph));
  test::require_success(cudaStreamDestroy(stream));
}

TEST_F(Cuda, WorksOnADeviceThatIsNotCurrent) {
  if (cuda::gpus().size() < 2) GTEST_SKIP() << "this machine has one CUDA device";
  constexpr Device kOther = {DeviceType::kCuda, 1};
  const Matrix x = random_int8(5, 64, 1), w = random_int8(9, 64, 2);
  Matrix expected(DType::kBFloat16, 5, 9), found(DType::kBFloat16, 5, 9);
  ASSERT_TRUE(matmul(x.view(), w.view(), 0.3f, expected.mut()).ok());
  const DeviceMatrix dx(x.view(), 0, 0, kOther), dw(w.view(), 0, 0, kOther), here(w.view());
  DeviceMatrix y(DType::kBFloat16, 5, 9, 0, 0, kOther);
  test::require_success(cudaSetDevice(0));
  const Status status = matmul(dx.view(), dw.view(), 0.3f, y.mut(), Stream{});
  ASSERT_TRUE(status.ok()) << status.message();
  int current = -1;
  test::require_success(cudaGetDevice(&current));
  EXPECT_EQ(current, 0);
  EXPECT_TRUE(y.download(found.mut()));
  EXPECT_TRUE(found == expected);
  EXPECT_EQ(matmul(dx.view(), here.view(), 1, y.mut(), Stream{}).message(),
            "w is on cuda:0 and other operands on cuda:1; all must be on one device");
}

}  // namespace
}  // namespace octavo
