// Whether the arguments of quantize.h's functions fit together.
#pragma once

#include "octavo/quantize.h"

namespace octavo {

// All operands on the device of the first.
Status check_quantize(const MatrixView& w, const QuantizeOptions& options, const MutableQuantizedWeight& out);
Status check_dequantize(const QuantizedWeight& w, const MutableMatrixView& out);
Status check_errors(const MatrixView& original, const QuantizedWeight& w);
Status check_per_token(const MatrixView& x, std::int64_t group_size, const MutableMatrixView& q,
                       const MutableMatrixView& scale);
Status check_static(const MatrixView& x, const MatrixView& scale, const MutableMatrixView& q);
Status check_static_scale(float scale);  // finite and greater than 0

// Of octavo/fused.h's functions: their inputs, and where results that are not quantized go.
Status check_rms_norm(const MatrixView& x, const MatrixView& weight, float eps);
Status check_add(const MatrixView& x, const MatrixView& residual, const MutableMatrixView& sum);
Status check_silu_mul(const MatrixView& gate, const MatrixView& up);
Status check_rounded(const MatrixView& x, const MutableMatrixView& y);

// Whether q, scale and zero_point of w agree with its format. Scales are float32, or kAnyFloat.
enum class Scales : std::uint8_t { kFloat32, kAnyFloat };
Status check_weight(const QuantizedWeight& w, const Device& device = {}, Scales scales = Scales::kFloat32);

// Whether the zero points of row n are integers of the format. pack() asks, because kernels on packed weights count on it;
// on row-major weights arithmetic is right for any byte, and products are not slowed down by looking.
Status check_zero_points(const QuantizedWeight& w, std::int64_t n);

// The matrix is on the device where the function runs, aligned to its elements, and not null unless it is empty.
Status check_on(const Device& device, const MatrixView& m, std::string_view name);
Status check_on_cpu(const MatrixView& m, std::string_view name);
// It is on some CUDA device.
Status check_on_cuda(const MatrixView& m, std::string_view name);

// float32, float16 or bfloat16.
Status check_float(const MatrixView& m, std::string_view name, const Device& device = {});

// The error for the first NaN or Inf in row n of w, if there is one; w is a part of a weight, from its row `first_row` on.
Status not_finite(const MatrixView& w, std::int64_t n, std::int64_t first_row = 0);

}  // namespace octavo
