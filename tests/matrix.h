// Matrices that own their memory, for tests. Rows can be strided and start anywhere that their elements can; a page without
// access follows the last byte (and one comes before the first page), so that reading or writing past the end crashes.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <random>

#include "core/half.h"
#include "octavo/quantize.h"

namespace octavo::test {

class Matrix {
 public:
  Matrix() = default;
  // `gap` elements lie between the end of a row and the next.
  Matrix(DType dtype, std::int64_t rows, std::int64_t cols, std::int64_t gap = 0) {
    const std::int64_t stride = row_bytes(dtype, cols) + row_bytes(dtype, gap);
    const std::int64_t bytes = rows == 0 ? 0 : stride * (rows - 1) + row_bytes(dtype, cols);
    const std::int64_t page = sysconf(_SC_PAGESIZE);
    const std::int64_t pages = (bytes + page - 1) / page;
    size_ = (pages + 2) * page;
    base_ =
        static_cast<char*>(mmap(nullptr, static_cast<std::size_t>(size_), PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (base_ == MAP_FAILED) std::abort();
    if (pages > 0) mprotect(base_ + page, static_cast<std::size_t>(pages * page), PROT_READ | PROT_WRITE);
    view_ = {base_ + (pages + 1) * page - bytes, dtype, rows, cols, stride};
  }
  Matrix(Matrix&& other) noexcept { *this = std::move(other); }
  Matrix& operator=(Matrix&& other) noexcept {
    std::swap(base_, other.base_);
    std::swap(size_, other.size_);
    std::swap(view_, other.view_);
    return *this;
  }
  ~Matrix() {
    if (base_ != nullptr) munmap(base_, static_cast<std::size_t>(size_));
  }

  MutableMatrixView mut() { return view_; }
  MatrixView view() const { return as_const(view_); }

  // Sets an element of a floating-point matrix.
  void set(std::int64_t row, std::int64_t col, float value) {
    visit_float(view_.dtype, [&](auto type) { view_.row<decltype(type)>(row)[col] = from_float<decltype(type)>(value); });
  }

  bool operator==(const Matrix& other) const {
    if (view_.rows != other.view_.rows || view_.cols != other.view_.cols || view_.dtype != other.view_.dtype) return false;
    const auto bytes = static_cast<std::size_t>(row_bytes(view_.dtype, view_.cols));
    for (std::int64_t r = 0; r < view_.rows; ++r) {
      if (bytes > 0 && std::memcmp(view_.row<char>(r), other.view_.row<char>(r), bytes) != 0) return false;
    }
    return true;
  }

 private:
  char* base_ = nullptr;
  std::int64_t size_ = 0;
  MutableMatrixView view_;
};

enum class Fill { kNormal, kWide, kTiny, kZeroRows, kTies, kPositive };

// Close to a standard normal (Irwin and Hall's sum of uniform numbers), and the same with every standard library.
inline float near_normal(std::mt19937& random) {
  double sum = -6;
  for (int i = 0; i < 12; ++i) sum += static_cast<double>(random()) * 0x1p-32;
  return static_cast<float>(sum);
}

inline Matrix random_float(DType dtype, std::int64_t rows, std::int64_t cols, std::uint32_t seed, Fill fill = Fill::kNormal,
                           std::int64_t gap = 0) {
  Matrix m(dtype, rows, cols, gap);
  std::mt19937 random(seed);
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::int64_t c = 0; c < cols; ++c) {
      float value = near_normal(random);
      switch (fill) {
        case Fill::kNormal:
          break;
        case Fill::kWide:
          value = std::ldexp(value, static_cast<int>(random() % 30) - 20);
          break;
        case Fill::kTiny:
          value = std::ldexp(value, dtype == DType::kFloat16 ? -22 : -135);
          break;
        case Fill::kZeroRows:
          if (r % 2 == 0) value = random() % 2 ? 0.0f : -0.0f;
          break;
        case Fill::kTies:
          value = static_cast<float>(static_cast<int>(random() % 255) - 127) / 2;
          if (c == 0) value = 127;
          break;
        case Fill::kPositive:
          value = std::fabs(value) + 1;
          break;
      }
      m.set(r, c, value);
    }
  }
  return m;
}

inline Matrix random_int8(std::int64_t rows, std::int64_t cols, std::uint32_t seed, std::int64_t gap = 0) {
  Matrix m(DType::kInt8, rows, cols, gap);
  std::mt19937 random(seed);
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::int64_t c = 0; c < cols; ++c) m.mut().row<std::int8_t>(r)[c] = static_cast<std::int8_t>(random());
  }
  return m;
}

// A quantized weight that owns its parts.
struct Quantized {
  WeightFormat format;
  Matrix q, scale, zero_point;

  Quantized(WeightFormat f, std::int64_t N, std::int64_t K, bool packed = false)
      : format(f),
        q(storage_dtype(f, packed), N, K),
        scale(DType::kFloat32, f.group_size == kPerTensor ? 1 : N, f.groups(K)),
        zero_point(DType::kUInt8, f.symmetric ? 0 : scale.view().rows, f.symmetric ? 0 : scale.view().cols) {}

  MutableQuantizedWeight mut() { return {format, q.mut(), scale.mut(), zero_point.mut()}; }
  QuantizedWeight view() const { return {format, q.view(), scale.view(), zero_point.view()}; }
  bool operator==(const Quantized& o) const { return q == o.q && scale == o.scale && zero_point == o.zero_point; }
};

}  // namespace octavo::test
