// Element types and non-owning views of matrices.
#pragma once

#include <cstdint>
#include <string_view>
#include <type_traits>

#include "octavo/status.h"

namespace octavo {

enum class DType : std::uint8_t {
  kFloat64,
  kFloat32,
  kFloat16,
  kBFloat16,
  kInt32,
  kInt8,
  kUInt8,
  kInt4,   // two per byte, the low nibble first; the value is nibble - 8
  kUInt4,  // two per byte, the low nibble first; the value is the nibble
};

// "float32", "bfloat16", "int8", "uint4" …
std::string_view to_string(DType dtype);
Result<DType> parse_dtype(std::string_view name);

// Bits of one element: 64, 32, 16, 8 or 4.
constexpr int bits_of(DType dtype) {
  switch (dtype) {
    case DType::kFloat64:
      return 64;
    case DType::kFloat32:
    case DType::kInt32:
      return 32;
    case DType::kFloat16:
    case DType::kBFloat16:
      return 16;
    case DType::kInt8:
    case DType::kUInt8:
      return 8;
    case DType::kInt4:
    case DType::kUInt4:
      return 4;
  }
  return 0;
}

constexpr bool is_float(DType dtype) {
  return dtype == DType::kFloat64 || dtype == DType::kFloat32 || dtype == DType::kFloat16 || dtype == DType::kBFloat16;
}

// Bytes that a row of `cols` elements takes; rows of 4-bit elements are padded to whole bytes.
constexpr std::int64_t row_bytes(DType dtype, std::int64_t cols) { return (cols * bits_of(dtype) + 7) / 8; }

enum class DeviceType : std::uint8_t { kCpu, kCuda };

struct Device {
  DeviceType type = DeviceType::kCpu;
  int index = 0;
  bool operator==(const Device&) const = default;
};

// A cudaStream_t, opaque here so that no CUDA header is needed; null is the default stream.
struct Stream {
  void* handle = nullptr;
};

// A row-major matrix that somebody else owns. `stride` counts bytes from one row to the next, so rows of a larger
// matrix can be viewed; the elements of a row are contiguous. Data and stride are aligned to the element, no more. A vector
// of n elements is a matrix of one row.
template <class Byte>
struct BasicMatrixView {
  Byte* data = nullptr;
  DType dtype = DType::kFloat32;
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  std::int64_t stride = 0;
  Device device;

  BasicMatrixView() = default;
  // A contiguous matrix.
  BasicMatrixView(Byte* data_, DType dtype_, std::int64_t rows_, std::int64_t cols_)
      : BasicMatrixView(data_, dtype_, rows_, cols_, row_bytes(dtype_, cols_)) {}
  BasicMatrixView(Byte* data_, DType dtype_, std::int64_t rows_, std::int64_t cols_, std::int64_t stride_,
                  Device device_ = {})
      : data(data_), dtype(dtype_), rows(rows_), cols(cols_), stride(stride_), device(device_) {}

  bool empty() const { return rows == 0 || cols == 0; }

  // Address of row r as elements of type T.
  template <class T>
  auto row(std::int64_t r) const {
    if constexpr (std::is_const_v<Byte>) {
      return reinterpret_cast<const T*>(static_cast<const char*>(data) + r * stride);
    } else {
      return reinterpret_cast<T*>(static_cast<char*>(data) + r * stride);
    }
  }

  // Rows [begin, end).
  BasicMatrixView slice_rows(std::int64_t begin, std::int64_t end) const {
    BasicMatrixView view = *this;
    view.data = row<char>(begin);
    view.rows = end - begin;
    return view;
  }

  // Columns [begin, end), of which `begin` is at a whole byte.
  BasicMatrixView slice_columns(std::int64_t begin, std::int64_t end) const {
    BasicMatrixView view = *this;
    view.data = row<char>(0) + row_bytes(dtype, begin);
    view.cols = end - begin;
    return view;
  }
};

using MatrixView = BasicMatrixView<const void>;
using MutableMatrixView = BasicMatrixView<void>;

inline MatrixView as_const(const MutableMatrixView& m) { return {m.data, m.dtype, m.rows, m.cols, m.stride, m.device}; }

}  // namespace octavo
