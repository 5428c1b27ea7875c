// A row of a quantized weight, slice by slice: what loops over rows share.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <vector>

#include "octavo/quantize.h"
#include "quantize/int4.h"
#include "quantize/scale.h"

namespace octavo {

inline std::int64_t slice_length(const WeightFormat& format, std::int64_t K) {
  return format.group_size > 0 ? format.group_size : std::max<std::int64_t>(K, 1);
}

inline ScaleZero scale_zero(const QuantizedWeight& w, std::int64_t n, std::int64_t g) {
  const std::int64_t row = w.format.group_size == kPerTensor ? 0 : n;
  return {w.scale.row<float>(row)[g],
          w.format.symmetric ? 0.0f : static_cast<float>(w.zero_point.row<std::uint8_t>(row)[g])};
}

// Gives rows of q one a byte, unpacking into its own buffer where they are packed.
class RowReader {
 public:
  explicit RowReader(const QuantizedWeight& w) : w_(w) {
    if (bits_of(w.q.dtype) == 4) buffer_.resize(static_cast<std::size_t>(w.q.cols));
  }

  const std::uint8_t* operator()(std::int64_t n) {
    if (bits_of(w_.q.dtype) == 8) return w_.q.row<std::uint8_t>(n);
    unpack_row_int4(w_.q.row<std::uint8_t>(n), 0, w_.q.cols, w_.format.symmetric ? 8 : 0, buffer_.data());
    return buffer_.data();
  }

 private:
  const QuantizedWeight& w_;
  std::vector<std::uint8_t> buffer_;
};

inline constexpr std::int64_t kNoRow = INT64_MAX;

// The least row that any thread has reported.
class FirstRow {
 public:
  void report(std::int64_t row) {
    std::int64_t seen = row_.load(std::memory_order_relaxed);
    while (row < seen && !row_.compare_exchange_weak(seen, row, std::memory_order_relaxed)) {
    }
  }
  std::int64_t get() const { return row_.load(std::memory_order_relaxed); }

 private:
  std::atomic<std::int64_t> row_{kNoRow};
};

// Rows per piece of parallel work, so that a piece is worth handing to a thread.
inline std::int64_t row_grain(std::int64_t K) { return std::max<std::int64_t>(1, 65536 / std::max<std::int64_t>(K, 1)); }

}  // namespace octavo
