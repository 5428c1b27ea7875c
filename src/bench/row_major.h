// A row-major weight in one buffer, so that copies of it are copies of bytes.
#pragma once

#include "octavo/quantize.h"

namespace octavo::bench {

inline std::int64_t round_up(std::int64_t value, std::int64_t unit) { return (value + unit - 1) / unit * unit; }

// Where the integers, scales and zero points of a weight [N, K] are: one behind the other, each from a cache line on.
struct RowMajor {
  static constexpr float kScale = 33.0f / (1 << 14);  // which 16 bits hold, as checkpoints store scales
  static std::uint8_t zero_point(const WeightFormat& format) { return static_cast<std::uint8_t>(format.qmax() / 2); }

  RowMajor(const WeightFormat& format_, std::int64_t N_, std::int64_t K_, DType scale_dtype_ = DType::kFloat32)
      : format(format_),
        N(N_),
        K(K_),
        storage(storage_dtype(format, format.num_bits <= 4)),
        scale_dtype(scale_dtype_),
        scale_rows(format.group_size == kPerTensor ? 1 : N),
        groups(format.groups(K)) {}

  std::int64_t integer_bytes() const { return N * row_bytes(storage, K); }
  std::int64_t scale_offset() const { return round_up(integer_bytes(), 64); }
  std::int64_t scales() const { return scale_rows * groups; }
  std::int64_t zero_point_offset() const { return round_up(scale_offset() + row_bytes(scale_dtype, scales()), 64); }
  std::int64_t bytes() const { return zero_point_offset() + (format.symmetric ? 0 : scales()); }

  MutableQuantizedWeight in(std::byte* data, Device device = {}) const {
    const auto part = [&](std::int64_t offset, DType dtype, std::int64_t rows, std::int64_t cols) {
      return MutableMatrixView(data + offset, dtype, rows, cols, row_bytes(dtype, cols), device);
    };
    MutableQuantizedWeight w = {format, part(0, storage, N, K), part(scale_offset(), scale_dtype, scale_rows, groups), {}};
    if (!format.symmetric) w.zero_point = part(zero_point_offset(), DType::kUInt8, scale_rows, groups);
    return w;
  }

  WeightFormat format;
  std::int64_t N, K;
  DType storage, scale_dtype;
  std::int64_t scale_rows, groups;
};

// A random byte becomes one or two integers of a format: (byte & mask) + add, modulo 256.
struct RandomIntegers {
  RandomIntegers(const WeightFormat& format, DType storage) {
    const int kept = (1 << format.num_bits) - 1;
    const bool nibbles = bits_of(storage) == 4;
    const int least = format.symmetric && nibbles ? 8 + format.qmin() : format.qmin();
    mask = static_cast<std::uint8_t>(nibbles ? kept * 0x11 : kept);
    add = static_cast<std::uint8_t>(nibbles ? least * 0x11 : least);
  }
  std::uint8_t mask, add;
};

}  // namespace octavo::bench
