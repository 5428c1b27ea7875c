// Activations quantized for one product.
#pragma once

#include "core/aligned_buffer.h"
#include "octavo/quantize.h"

namespace octavo {

// What quantize_per_token makes of x [M, K], which is checked already, in memory of its own.
class QuantizedRows {
 public:
  QuantizedRows(const MatrixView& x, std::int64_t group_size, Parallel& parallel)
      : rows_(x.rows),
        cols_(x.cols),
        groups_(WeightFormat{8, true, group_size}.groups(x.cols)),
        q_(rows_ * cols_),
        scale_(rows_ * groups_) {
    const MutableMatrixView q(q_.data(), DType::kInt8, rows_, cols_);
    const MutableMatrixView scale(scale_.data(), DType::kFloat32, rows_, groups_);
    (void)quantize_per_token(x, group_size, q, scale, parallel);  // cannot fail: the views fit
  }

  MatrixView q() const { return {q_.data(), DType::kInt8, rows_, cols_}; }
  MatrixView scale() const { return {scale_.data(), DType::kFloat32, rows_, groups_}; }

 private:
  std::int64_t rows_, cols_, groups_;
  AlignedBuffer<std::int8_t> q_;
  AlignedBuffer<float> scale_;
};

}  // namespace octavo
