// The specification of quantization in code: docs/numerics.md in plain loops, one thread. Everything else must give its
// bits.
#pragma once

#include "octavo/quantize.h"

namespace octavo::reference {

Status quantize(const MatrixView& w, const QuantizeOptions& options, const MutableQuantizedWeight& out);
Status dequantize(const QuantizedWeight& w, const MutableMatrixView& out);
Result<ErrorMetrics> error_metrics(const MatrixView& original, const QuantizedWeight& w);
Status quantize_per_token(const MatrixView& x, std::int64_t group_size, const MutableMatrixView& q,
                          const MutableMatrixView& scale);

// Element [row, k] of a matrix as a number: floating point, or the integer it stands for.
float element(const MatrixView& m, std::int64_t row, std::int64_t k);
// (q - zero_point) of element [row, k], and its scale.
float centered(const QuantizedWeight& w, std::int64_t row, std::int64_t k);
float scale_at(const QuantizedWeight& w, std::int64_t row, std::int64_t k);

}  // namespace octavo::reference
