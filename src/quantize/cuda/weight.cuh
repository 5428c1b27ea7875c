// A quantized weight as kernels see it, in any format that there is: for kernels that must be right, not fast.
#pragma once

#include <algorithm>

#include "core/rows.cuh"
#include "octavo/quantize.h"
#include "quantize/cuda/scale_rows.cuh"

namespace octavo::cuda {

struct Weight {
  Rows<const std::uint8_t> q;
  ScaleRows scale;
  Rows<const std::uint8_t> zero_point;
  DType storage;
  bool per_tensor;
  std::int64_t length;  // neighbours along K with one scale

  // q - zero_point of element [n, k], and its scale.
  __device__ float centered(std::int64_t n, std::int64_t k) const {
    const std::uint8_t* row = q(n);
    switch (storage) {
      case DType::kInt8:
        return static_cast<float>(static_cast<std::int8_t>(row[k]));
      case DType::kUInt8:
        return static_cast<float>(row[k] - zero_point(parameter_row(n))[k / length]);
      case DType::kInt4:
        return static_cast<float>(nibble(row, k) - 8);
      default:
        return static_cast<float>(nibble(row, k) - zero_point(parameter_row(n))[k / length]);
    }
  }
  __device__ float scale_at(std::int64_t n, std::int64_t k) const { return scale.at(parameter_row(n), k / length); }

 private:
  __device__ std::int64_t parameter_row(std::int64_t n) const { return per_tensor ? 0 : n; }
  __device__ static int nibble(const std::uint8_t* row, std::int64_t k) { return row[k / 2] >> (k % 2 * 4) & 15; }
};

inline Weight weight_of(const QuantizedWeight& w) {
  const std::int64_t whole = w.q.cols > 0 ? w.q.cols : 1;
  return {rows_of<const std::uint8_t>(w.q),          scales_of(w.scale),
          rows_of<const std::uint8_t>(w.zero_point), w.q.dtype,
          w.format.group_size == kPerTensor,         w.format.group_size > 0 ? std::min(w.format.group_size, whole) : whole};
}

}  // namespace octavo::cuda
