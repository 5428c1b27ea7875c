// A weight-only product on every CUDA row of the kernel table that takes it, against sums in fp64, with the bounds of
// docs/numerics.md.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <iostream>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <sstream>

#include "core/cuda.h"
#include "cuda_rows.h"
#include "device_memory.h"
#include "exact_linear.h"
#include "gemm/check.h"
#include "gemm/kernels.h"
#include "matrix.h"
#include "quantize/reference.h"

namespace octavo::test {

inline constexpr Device kGpu = {DeviceType::kCuda, 0};

struct LinearCase {
  std::int64_t M = 0, N = 0, K = 0;
  int bits = 8;
  bool symmetric = true;
  bool packed = false;
  std::int64_t group = kPerChannel;
  DType x = DType::kBFloat16, y = DType::kBFloat16;
  std::optional<DType> bias;
  float scale = 0;                                        // that of every group is up to twice this; 0: as quantized
  bool exact_scales = false;                              // of x's type
  std::int64_t x_gap = 0, w_gap = 0, y_gap = 0;           // elements from the end of a row to the next
  std::int64_t x_offset = 0, w_offset = 0, y_offset = 0;  // bytes
};

inline std::ostream& operator<<(std::ostream& out, const LinearCase& c) {
  return out << "M=" << c.M << " N=" << c.N << " K=" << c.K << ' ' << c.bits << " bits" << (c.packed ? " two a byte" : "")
             << (c.symmetric ? "" : " with zero points") << " groups of " << c.group << ", " << to_string(c.x) << " to "
             << to_string(c.y) << " bias " << (c.bias ? to_string(*c.bias) : "none") << " scale " << c.scale << " exact "
             << c.exact_scales << " gaps " << c.x_gap << ',' << c.w_gap << ',' << c.y_gap << " offsets " << c.x_offset << ','
             << c.w_offset << ',' << c.y_offset;
}

// Where two matrices differ: how often, and the first of them.
inline std::string differences(const Matrix& found, const Matrix& expected) {
  std::ostringstream out;
  int count = 0;
  for (std::int64_t m = 0; m < found.view().rows; ++m) {
    for (std::int64_t n = 0; n < found.view().cols; ++n) {
      const double is = reference::element(found.view(), m, n), should = reference::element(expected.view(), m, n);
      if (is == should || (is != is && should != should)) continue;
      if (++count <= 32) out << "\n[" << m << ", " << n << "] " << is << " instead of " << should;
    }
  }
  out << "\n" << count << " differ";
  return out.str();
}

// Whether a row rounds weights to x's type before it multiplies them.
inline bool rounds_weights(const Kernel& row) { return row.name.find("_rounded_") != std::string_view::npos; }

class CudaLinear : public testing::Test {
 protected:
  void SetUp() override {
    if (const Status ready = cuda::ready(kGpu); !ready.ok()) GTEST_SKIP() << ready.message();
    rows_ = usable_cuda_rows(Op::kLinear);
    ASSERT_FALSE(rows_.empty());
  }

  void TearDown() override {
    for (const Kernel* row : rows_) {
      std::cout << row->name << " took " << taken_[row] << " of " << cases_ << " products, and " << short_scales_[row]
                << " with scales of 16 bits\n";
    }
  }

  // The operands of a case on the host; a product of all rows that take it, twice each, and what they may differ by.
  void check(const LinearCase& c) {
    ++cases_;
    const auto seed = static_cast<std::uint32_t>(cases_);
    const WeightFormat format = {c.bits, c.symmetric, c.group};
    Quantized w(format, c.N, c.K, c.packed);
    ASSERT_TRUE(quantize(random_float(DType::kFloat32, c.N, c.K, seed).view(), {}, w.mut()).ok()) << c;
    if (c.scale != 0) set_scales(c, seed, w);
    const Matrix x = random_float(c.x, c.M, c.K, seed + 1);
    const Matrix bias = c.bias ? random_float(*c.bias, 1, c.N, seed + 2) : Matrix();
    Matrix found(c.y, c.M, c.N), again(c.y, c.M, c.N);
    Arguments a = {x.view(), {}, w.view(), c.bias ? bias.view() : MatrixView(), found.mut()};
    const Exact exact(a, *pool_);

    const DeviceMatrix dx(x.view(), c.x_gap, c.x_offset), dq(w.q.view(), c.w_gap, c.w_offset), ds(w.scale.view()),
        dz(w.zero_point.view());
    std::optional<DeviceMatrix> db;
    if (c.bias) db.emplace(bias.view());
    a.x = dx.view();
    a.w = {format, dq.view(), ds.view(), c.symmetric ? MatrixView() : dz.view()};
    if (c.bias) a.bias = db->view();
    for (const Kernel* row : rows_) {
      DeviceMatrix y(c.y, c.M, c.N, c.y_gap, c.y_offset);
      a.y = y.mut();
      ASSERT_TRUE(check_linear(a).ok()) << check_linear(a).message() << ' ' << c;
      if (!takes(*row, a)) continue;
      ++taken_[row];
      for (Matrix* out : {&found, &again}) {
        a.constant_w = out == &again;
        const Status status = run_kernel(*row, a, serial());
        ASSERT_TRUE(status.ok()) << row->name << ' ' << c << ": " << status.message();
        ASSERT_TRUE(y.download(out->mut())) << row->name << " wrote outside y: " << c;
      }
      ASSERT_TRUE(found == again) << row->name << " gives other bits the second time: " << c << differences(again, found);
      compare(*row, c, exact, found.view());
      if (HasFatalFailure()) return;
    }
    check_short_scales(c, a, w);
  }

  // The same by turns with y in float32 or of x's type, and with a bias or none.
  void check_by_turns(LinearCase c) {
    c.y = cases_ % 4 == 0 ? DType::kFloat32 : c.x;
    c.bias = cases_ % 3 == 0 ? std::optional(c.y) : std::nullopt;
    check(c);
  }

  // Whether a row takes a product, and soon enough.
  static bool takes(const Kernel& row, const Arguments& a) {
    if (!row.refuses(problem_of(Op::kLinear, a)).empty()) return false;
    return !row.name.ends_with("_reference") || a.x.rows * a.w.q.rows * a.x.cols <= std::int64_t{1} << 26;
  }

  // Scales of x's type, held as such, give the same bits as in float32.
  void check_short_scales(const LinearCase& c, Arguments a, const Quantized& w) {
    if (c.x == DType::kFloat32) return;
    Matrix widened(DType::kFloat32, w.scale.view().rows, w.scale.view().cols);
    Matrix shortened(c.x, widened.view().rows, widened.view().cols);
    for (std::int64_t n = 0; n < widened.view().rows; ++n) {
      for (std::int64_t g = 0; g < widened.view().cols; ++g) {
        shortened.set(n, g, reference::element(w.scale.view(), n, g));
        widened.set(n, g, reference::element(shortened.view(), n, g));
      }
    }
    const DeviceMatrix in_float32(widened.view()), in_16_bits(shortened.view());
    a.w.scale = in_16_bits.view();
    if (!takes_scales(a.w, c.x).ok()) return;
    Matrix expected(c.y, c.M, c.N), found(c.y, c.M, c.N);
    for (const Kernel* row : rows_) {
      if (!takes(*row, a)) continue;
      ++short_scales_[row];
      for (Matrix* out : {&expected, &found}) {
        DeviceMatrix y(c.y, c.M, c.N, c.y_gap, c.y_offset);
        a.y = y.mut();
        a.w.scale = out == &expected ? in_float32.view() : in_16_bits.view();
        const Status status = run_kernel(*row, a, serial());
        ASSERT_TRUE(status.ok()) << row->name << ' ' << c << ": " << status.message();
        ASSERT_TRUE(y.download(out->mut())) << row->name << " wrote outside y: " << c;
      }
      ASSERT_TRUE(found == expected) << row->name << " with scales of 16 bits: " << c << differences(found, expected);
    }
  }

  // Scales with all bits of fp32, or those of x's type, and every zero point.
  static void set_scales(const LinearCase& c, std::uint32_t seed, Quantized& w) {
    std::mt19937 random(seed);
    const std::int64_t zero_points = std::int64_t{1} << w.format.num_bits;
    for (std::int64_t n = 0; n < w.scale.view().rows; ++n) {
      for (std::int64_t g = 0; g < w.scale.view().cols; ++g) {
        const float scale = c.scale * (1 + static_cast<float>(random()) * 0x1p-32f);
        w.scale.set(n, g, c.exact_scales ? static_cast<float>(rounded(scale, c.x)) : scale);
        if (!w.format.symmetric) {
          w.zero_point.mut().row<std::uint8_t>(n)[g] = static_cast<std::uint8_t>((n + g * 5) % zero_points);
        }
      }
    }
  }

  static void compare(const Kernel& row, const LinearCase& c, const Exact& exact, const MatrixView& y) {
    const bool rounds = rounds_weights(row);
    const double u = unit(c.y), u_x = unit(c.x);
    const double terms = 0x1p-23 * (static_cast<double>(c.K) / 16 + 8) + (rounds ? u_x * (1 + u + u_x) : 0);
    const double subnormal = rounds && c.x == DType::kFloat16 ? 0x1p-24 : 0;
    double squared = 0, rounded_squared = 0;
    Matrix once(c.y, 1, 1);
    for (std::int64_t m = 0; m < c.M; ++m) {
      for (std::int64_t n = 0; n < c.N; ++n) {
        const auto at = static_cast<std::size_t>(m * c.N + n);
        const double value = exact.value[at];
        const double error = std::fabs(static_cast<double>(reference::element(y, m, n)) - value);
        const double bound = u * std::fabs(value) + terms * exact.magnitude[at] +
                             subnormal * exact.x_magnitude[static_cast<std::size_t>(m)] + tiny(c.y);
        ASSERT_LE(error, bound) << row.name << " at [" << m << ", " << n << "] of " << c;
        once.set(0, 0, static_cast<float>(rounds ? exact.of_rounded[at] : value));
        squared += error * error;
        rounded_squared += std::pow(static_cast<double>(reference::element(once.view(), 0, 0)) - value, 2);
      }
    }
    if (c.y == DType::kFloat32 || c.M * c.N < 1000) return;  // too few for a mean
    ASSERT_LE(std::sqrt(squared), 1.05 * std::sqrt(rounded_squared)) << row.name << ' ' << c;
  }

  std::vector<const Kernel*> rows_;
  std::map<const Kernel*, int> taken_, short_scales_;
  int cases_ = 0;
  std::unique_ptr<Parallel> pool_ = make_thread_pool();
};

}  // namespace octavo::test
